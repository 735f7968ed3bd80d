"""What a sender's proofs are worth together: SPF, DKIM, DMARC and ARC, as one table. Pure.

SPF says whether the client may send for the domain of the envelope; it fails for honest mail that somebody forwards.
DKIM says that a domain has signed the message, and outlives forwarding. DMARC says whether one of both is about the
domain that the reader sees in From, and what that domain asks for where not. So DMARC is the judge where it speaks:

    DMARC     SPF            DKIM                        what is done
    pass      any            any                         taken: From is proven. A failed SPF is excused (forwarded)
    fail, p=none  any        any                         as with none; it weighs a little: From is not proven
    fail, p=quarantine|reject  any  any                  by DMARC_FAIL; a trusted sealer's ARC excuses it
    none      fail           passes for From's or the    taken: the domain that SPF protects has signed it
                             envelope's domain
    none      fail           else                        by SPF_FAIL
    none      softfail, neutral, none, permerror  any    taken; they weigh a little
    temperror any            any                         as with none, and nothing is refused

    DMARC_FAIL   p=quarantine   p=reject         SPF_FAIL
    junk         junk           junk             junk      junk
    reject       550 5.7.1      550 5.7.1        reject    550 5.7.23
    honor        junk           550 5.7.1        tag       taken, the header says fail
    tag          taken          taken

Where both decide, the severer does. **A look-up that failed never refuses**: with a temperror of SPF or DKIM, what
would be refused is junk, since the missing answer might have been the excuse (RFC 7208 §2.6.6, RFC 6376 §6.3). To defer
it instead would lose it in the end, where the sender's DNS stays broken.

Two From fields are refused (RFC 5322 §3.6: at most one): a signature vouches for one of them, and the reader's program
may show the other. A client that is not known (mail through a relay that names none, or a gateway that hides all peers)
leaves SPF without a word, and as with a temperror nothing is refused: SPF might have proven it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from services.message.arc import ArcResult
from services.message.dkim_verify import DkimResult
from services.policy.dmarc import DmarcResult
from services.policy.spf import SpfResult
from services.policy.verdict import Reason
from services.protocol.reply import Reply

Action = Literal["accept", "junk", "reject"]

# Of JUNK_SCORE, 5 by default; see `score`.
SOFTFAIL = 1.5  # the domain doubts it, and many have left it so since they tried SPF out
NEUTRAL = NONE = PERMERROR = 0.5  # nobody says anything for the sender
DMARC_FAIL_NONE = 1.0  # most of it is mail through lists; the rest is forged
FROM_UNCLEAR = 2.0  # programs do not agree on who the author is, which only forgers gain by
FROM_SHOWS_ANOTHER = 1.0  # forms on web pages do it too, to show who filled them in

_SEVERITY: dict[Action, int] = {"accept": 0, "junk": 1, "reject": 2}


@dataclass(frozen=True, slots=True)
class Wishes:
    """SPF_FAIL, DMARC_FAIL, and the weight of what makes a message junk by itself (JUNK_SCORE)."""

    spf_fail: str = "junk"
    dmarc_fail: str = "junk"
    junk: float = 5.0


@dataclass(frozen=True, slots=True)
class Proofs:
    """What was found. `dmarc` None: it was not looked at (no author to look for).

    `arc` None: it has no chain. `two_froms`: more than one From field. `unclear` is a sentence where From does not name
    one author, `vouched_by` one where a sealer that the owner trusts had seen it proven. `displayed`: domains of
    addresses that From has in names, where only people look. `client_known` False: SPF had nobody to judge.
    """

    spf: SpfResult
    dkim: Sequence[DkimResult] = ()
    dmarc: DmarcResult | None = None
    arc: ArcResult | None = None
    two_froms: bool = False
    unclear: str = ""
    vouched_by: str = ""
    client_known: bool = True
    displayed: Sequence[str] = ()

    @property
    def proven(self) -> bool:
        """From is who it says: DMARC passes."""
        return self.dmarc is not None and self.dmarc.result == "pass"

    def doubtful(self, sender: str) -> bool:
        """Whether a letter to `sender`, the envelope's, would reach somebody who probably did not write (RFC 3834 §2).

        That From is proven says nothing of the envelope: whoever owns a domain can sign for it and name a stranger in
        MAIL. So the envelope's domain itself must not have denied the client, where nothing is proven of it.
        """
        if self.dmarc is not None and self.dmarc.result == "fail":
            return True
        domain = sender.rpartition("@")[2].lower()
        if self.spf.result == "pass" and self.spf.scope == "mfrom":
            return False
        if any(each.counts_for_alignment and _covers(each.domain, domain) for each in self.dkim):
            return False
        if self.spf.result in ("fail", "softfail"):
            return True
        author = self.dmarc.from_domain if self.dmarc is not None and self.proven else domain
        return not (_covers(author, domain) or _covers(domain, author))

    @property
    def vouched(self) -> bool:
        """The same without asking what the domain has published: SPF or DKIM passes for From's domain.

        Not where From is unclear: who reads it next (the junk filter, for whom it knows) may see another author in it.
        """
        if self.unclear:
            return False
        if self.proven or self.dmarc is None or self.dmarc.result == "fail":
            return self.proven
        author = self.dmarc.from_domain
        by_spf = self.spf.result == "pass" and self.spf.scope == "mfrom" and _covers(self.spf.domain, author)
        return by_spf or any(each.counts_for_alignment and _covers(each.domain, author) for each in self.dkim)


@dataclass(frozen=True, slots=True)
class Worth:
    """What follows. `settled`: one of the owner's rules decided, whatever else weighs. `reply` where it refuses."""

    action: Action
    reasons: tuple[Reason, ...]
    settled: bool = False
    reply: Reply | None = None


TWO_FROMS = Reply(550, "5.7.1", "the message has more than one From field (RFC 5322 section 3.6)")


def worth(proofs: Proofs, wishes: Wishes) -> Worth:
    """The table above."""
    if proofs.two_froms:
        return Worth("reject", (Reason("two-froms", "it has more than one From field"),), True, TWO_FROMS)
    spf, spf_action = _spf(proofs, wishes)
    dmarc, dmarc_action = _dmarc(proofs, wishes)
    reasons = [spf, *_dkim(proofs.dkim), *dmarc, *_arc(proofs.arc)]
    if proofs.unclear:
        weight = 0.0 if proofs.proven else FROM_UNCLEAR
        reasons.append(Reason("from-unclear", proofs.unclear, weight))
    reasons += _displayed(proofs)
    action = max(spf_action, dmarc_action, key=_SEVERITY.__getitem__)
    if action == "reject" and not proofs.client_known:
        action = "junk"
        reasons.append(
            Reason("client-unknown", "not refused: whom it comes from is not known, so SPF could not prove it")
        )
    if action == "reject" and _unanswered(proofs):
        action = "junk"
        reasons.append(Reason("dns-unanswered", "not refused: DNS did not answer every question about it"))
    reply = None
    if action == "reject":
        reply = _dmarc_reply(proofs) if dmarc_action == "reject" else _spf_reply(proofs.spf)
    return Worth(action, tuple(reasons), action != "accept", reply)


def _unanswered(proofs: Proofs) -> bool:
    return proofs.spf.result == "temperror" or any(each.result == "temperror" for each in proofs.dkim)


def _spf(proofs: Proofs, wishes: Wishes) -> tuple[Reason, Action]:
    spf = proofs.spf
    rule, domain = f"spf-{spf.result}", spf.domain or "nobody"
    excuse = _excuse(proofs)
    match spf.result:
        case "pass":
            return Reason(rule, f"SPF: the client may send for {domain} ({spf.mechanism})"), "accept"
        case "fail" if excuse:
            return Reason(rule, f"SPF: the client may not send for {domain}, {excuse}"), "accept"
        case "fail":
            text = f"SPF: the client may not send for {domain} ({spf.mechanism})"
            action: Action = {"junk": "junk", "reject": "reject"}.get(wishes.spf_fail, "accept")  # type: ignore[assignment]
            return Reason(rule, text, wishes.junk if action != "accept" else 0.0), action
        case "softfail":
            text = f"SPF: the client should not send for {domain} ({spf.mechanism})"
            return Reason(rule, f"{text}, {excuse}" if excuse else text, 0.0 if excuse else SOFTFAIL), "accept"
        case "temperror":
            return Reason(rule, f"SPF of {domain} is not known now: {spf.problem}"), "accept"
        case "permerror":
            weight = 0.0 if proofs.proven else PERMERROR
            return Reason(rule, f"SPF of {domain} cannot be used: {spf.problem}", weight), "accept"
        case "neutral":
            return Reason(
                rule, f"SPF: {domain} says nothing of the client", 0.0 if proofs.proven else NEUTRAL
            ), "accept"
    if not proofs.client_known:
        return Reason(rule, spf.problem), "accept"
    return Reason(rule, spf.problem or f"SPF: {domain} has no record", 0.0 if proofs.proven else NONE), "accept"


def _excuse(proofs: Proofs) -> str:
    """Why an SPF that failed says nothing bad of this message; "" where it does."""
    if proofs.proven:
        assert proofs.dmarc is not None
        return f"but the signature of {proofs.dmarc.aligned_domain or proofs.dmarc.from_domain} holds: it was forwarded"
    if proofs.dmarc is not None and proofs.dmarc.result == "fail" and proofs.dmarc.policy != "none":
        return ""  # From is somebody else's: whose signature it has makes that no better
    author = proofs.dmarc.from_domain if proofs.dmarc is not None else ""
    for each in proofs.dkim:
        if each.counts_for_alignment and (_covers(each.domain, author) or _covers(each.domain, proofs.spf.domain)):
            return f"but the signature of {each.domain} holds: it was forwarded"
    return ""


def _covers(signer: str, domain: str) -> bool:
    """Whether a signature of `signer` speaks for `domain`: the same, or a domain above it."""
    return bool(signer) and (domain == signer or domain.endswith("." + signer))


def _dkim(results: Sequence[DkimResult]) -> Iterator[Reason]:
    if not results:
        yield Reason("dkim-none", "it has no DKIM signature")
    for each in results:
        signer = each.domain or "nobody"
        match each.result:
            case "pass":
                text = f"DKIM: the signature of {signer} holds"
                yield Reason("dkim-pass", f"{text}: {each.problem}" if each.problem else text)
            case "temperror":
                yield Reason("dkim-temperror", f"DKIM: the signature of {signer} is not known: {each.problem}")
            case _:
                yield Reason(f"dkim-{each.result}", f"DKIM: the signature of {signer} does not hold: {each.problem}")


def _dmarc(proofs: Proofs, wishes: Wishes) -> tuple[list[Reason], Action]:
    dmarc = proofs.dmarc
    if dmarc is None:
        return [], "accept"
    domain = dmarc.from_domain
    match dmarc.result:
        case "pass":
            by = {"spf": "SPF", "dkim": "DKIM"}.get(dmarc.aligned_by, "DMARC")
            return [Reason("dmarc-pass", f"DMARC: From is of {domain}, proven by {by}")], "accept"
        case "none":
            return [Reason("dmarc-none", f"DMARC: {domain} has no policy")], "accept"
        case "temperror" | "permerror":
            text = f"DMARC of {domain} is not known: {dmarc.problem}"
            return [Reason(f"dmarc-{dmarc.result}", text)], "accept"
    rule = f"dmarc-fail-{dmarc.policy}"
    if dmarc.policy == "none":
        return [Reason(rule, f"DMARC: nothing proves that it is of {domain}", DMARC_FAIL_NONE)], "accept"
    text = f"DMARC: nothing proves that it is of {domain}, which asks for {dmarc.policy}"
    if proofs.vouched_by:
        return [Reason(rule, f"{text}, but {proofs.vouched_by} (ARC)")], "accept"
    action: Action = {
        "junk": "junk",
        "reject": "reject",
        # RFC 9989 §5.4: what the domain asks for; quarantine is what Junk is for.
        "honor": "reject" if dmarc.policy == "reject" else "junk",
    }.get(wishes.dmarc_fail, "accept")
    return [Reason(rule, text, wishes.junk if action != "accept" else 0.0)], action


def _displayed(proofs: Proofs) -> Iterator[Reason]:
    """RFC 9989 §11.4: a name that is an address of somebody else is nothing that DMARC speaks of."""
    author = proofs.dmarc.from_domain if proofs.dmarc is not None else ""
    others = [shown for shown in proofs.displayed if not _covers(shown, author) and not _covers(author, shown)]
    if author and others:
        text = f"the name in From shows an address of {others[0]}, but it is from {author}"
        yield Reason("from-shows-another", text, FROM_SHOWS_ANOTHER)


def _arc(arc: ArcResult | None) -> Iterator[Reason]:
    if arc is None or arc.result == "none":
        return
    if arc.result == "pass":
        yield Reason("arc-pass", f"ARC: the chain holds, sealed by {' '.join(arc.sealers[-5:])}")
    else:
        yield Reason("arc-fail", f"ARC: the chain does not hold: {arc.problem}")


def _dmarc_reply(proofs: Proofs) -> Reply:
    domain = proofs.dmarc.from_domain if proofs.dmarc is not None else ""
    return Reply(550, "5.7.1", f"nothing proves that this message is from {domain} (DMARC)")


def _spf_reply(spf: SpfResult) -> Reply:
    text = f"{spf.domain} does not let this client send its mail (SPF)"
    # RFC 7208 §6.2: a stranger's words, so it is said whose they are.
    return Reply(550, "5.7.23", f"{text}\n{spf.domain} explains: {spf.explanation}" if spf.explanation else text)
