"""Sentences about what was decided of a message and why: the verdict's own. Part of phrases.py."""

from __future__ import annotations

from services.admin.text import mark

VERDICT_PHRASES = (
    # --- policy/authenticity.py
    mark("the name in From shows an address of {shown}, but it is from {author}"),
    mark("it has more than one From field"),
    mark("not refused: DNS did not answer every question about it"),
    mark("not refused: whom it comes from is not known, so SPF could not prove it"),
    mark("SPF: the client may send for {domain} ({term})"),
    mark("SPF: the client may not send for {domain}, but the signature of {signer} holds: it was forwarded"),
    mark("SPF: the client may not send for {domain} ({term})"),
    mark(
        "SPF: the client should not send for {domain} ({term}), but the signature of {signer} holds: it was forwarded"
    ),
    mark("SPF: the client should not send for {domain} ({term})"),
    mark("SPF of {domain} is not known now: {problem}"),
    mark("SPF of {domain} cannot be used: {problem}"),
    mark("SPF: {domain} says nothing of the client"),
    mark("SPF: {domain} has no record"),
    mark("it has no DKIM signature"),
    mark("DKIM: the signature of {domain} is not known: {problem}"),
    mark("DKIM: the signature of {domain} does not hold: {problem}"),
    mark("DKIM: the signature of {domain} holds: {problem}"),
    mark("DKIM: the signature of {domain} holds"),
    mark("DMARC: From is of {domain}, proven by {method}"),
    mark("DMARC: {domain} has no policy"),
    mark("DMARC of {domain} is not known: {problem}"),
    mark("DMARC: nothing proves that it is of {domain}, which asks for {policy}, but {vouched} (ARC)"),
    mark("DMARC: nothing proves that it is of {domain}, which asks for {policy}"),
    mark("DMARC: nothing proves that it is of {domain}"),
    mark("ARC: the chain holds, sealed by {domains}"),
    mark("ARC: the chain does not hold: {problem}"),
    # --- policy/rates.py, policy/greylist.py
    mark("more than {count} messages an hour from {key}"),
    mark("not known yet: may come back in {seconds} seconds (greylisting)"),
    # --- smtp_in
    mark("whom the mail comes from is not known, so SPF says nothing"),
    mark("an address of the house, which has no name in DNS"),
    mark("DNS did not answer within {seconds} seconds"),
    mark("a fault here ({id})"),
    mark("it could not be judged: a fault here ({id})"),
    mark("{list} was not asked: {problem}"),
    mark("nobody looked for it: {problem}"),
    mark("{scanner} found {virus}"),
    mark("{scanner} calls it junk by {share}: {rules}"),
    mark("handed on by {peer}, which does not say whom it had it from"),
    mark("handed on by {peer}, which had it from {client} ({how})"),
    mark("the junk filter of {account} failed: into INBOX as it is ({id})"),
    mark("junk is not forwarded"),
)
