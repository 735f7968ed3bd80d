"""Whose word counts that a message was genuine before it was changed on its way (RFC 8617 §7.2, RFC 7960).

A mailing list adds a footer, and the author's signature no longer fits; DMARC fails. A list that seals with ARC says
what it had found before. Anybody can say so, hence only sealers that the owner has named are believed (ARC_SEALERS),
and only as far as an unbroken row of them reaches down from the last hop: the seal of one covers the sets before it,
but a stranger in between could have made those up.

Pure. Called by smtp-in for messages that fail DMARC.
"""

from __future__ import annotations

from collections.abc import Collection

from services.message.arc import ArcResult, Sealed
from services.message.authentication_results import MethodResult
from services.policy.dmarc import DmarcResult
from services.policy.dmarc_record import policy_record

__all__ = ["vouched"]


def vouched(arc: ArcResult, trusted: Collection[str], dmarc: DmarcResult) -> str:
    """Who vouches for the author's domain and by what, as a sentence for the owner; "" where nobody does.

    `trusted`: domains in lower case, as their seals have them in d=. `dmarc`: the result here, which failed.
    """
    if arc.result != "pass" or not dmarc.from_domain or dmarc.problem:
        return ""
    for one in reversed(arc.sets):
        if one.seal.domain not in trusted:
            return ""
        method = _passed(one, dmarc)
        if method:
            return f"{one.seal.domain}, whose word counts here, says that {method} passed for {dmarc.from_domain} there"
    return ""


def _passed(one: Sealed, dmarc: DmarcResult) -> str:
    """The method by which the author's domain was found genuine there: "dmarc", "dkim", "spf" or ""."""
    if one.results is None:
        return ""
    record = policy_record([dmarc.record.encode("utf-8", "replace")])
    for result in one.results.results:
        if result.result != "pass":
            continue
        if result.method == "dmarc" and _domain(result.of("header.from")) == dmarc.from_domain:
            return "dmarc"
        if result.method == "dkim" and _aligned(_signer(result), dmarc, record is not None and record.strict_dkim):
            return "dkim"
        sender = _domain(result.of("smtp.mailfrom"))
        if result.method == "spf" and _aligned(sender, dmarc, record is not None and record.strict_spf):
            return "spf"
    return ""


def _signer(result: MethodResult) -> str:
    return _domain(result.of("header.d") or result.of("header.i"))


def _domain(text: str) -> str:
    return text.rpartition("@")[2].lower().rstrip(".")


def _aligned(domain: str, dmarc: DmarcResult, strict: bool) -> bool:
    """RFC 9989 §4.10.2, over the organizational domain that was found for the author; nothing is asked for again."""
    organization = dmarc.organizational_domain
    if domain == dmarc.from_domain:
        return bool(domain)
    return not strict and bool(organization) and (domain == organization or domain.endswith("." + organization))
