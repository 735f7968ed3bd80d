"""What was found about a sender as the results of Authentication-Results (RFC 8601 §2.7, RFC 9989 §9.1). Pure.

    spf=fail reason="..." smtp.mailfrom=a@far.test    dkim=pass header.d=far.test header.s=k1 header.b=abcdefgh
    dmarc=pass header.from=far.test                   arc=pass                 iprev=pass policy.iprev=192.0.2.1

The order is that of the checks. Only what was checked is told: who reads the field decides by it.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.message.authentication_results import MethodResult
from services.message.dkim_verify import DkimResult
from services.policy.authenticity import Proofs
from services.policy.peer import PeerName


def results(proofs: Proofs, *, sender: str, helo: str, client: str, name: PeerName | None) -> list[MethodResult]:
    """The results for one message. `client` is the address that was judged, "" where it is not known."""
    return [
        *_iprev(client, name),
        _spf(proofs, sender, helo),
        *([_dkim(each) for each in proofs.dkim] or [MethodResult("dkim", "none")]),
        *_dmarc(proofs),
        *_arc(proofs),
    ]


def _arc(proofs: Proofs) -> Iterator[MethodResult]:
    """RFC 8617 §10.1: the method arc, and since which set the message is unchanged."""
    arc = proofs.arc
    if arc is None:
        return
    about = (("header.oldest-pass", str(arc.oldest_pass)),) if arc.result == "pass" else ()
    yield MethodResult("arc", arc.result, arc.problem, about)


def _iprev(client: str, name: PeerName | None) -> Iterator[MethodResult]:
    """RFC 8601 §3: does the client's name lead back to it."""
    if name is None or not client:
        return
    result = "pass" if name.confirmed else "temperror" if name.temporary else "fail"
    yield MethodResult("iprev", result, "" if name.confirmed else name.problem, (("policy.iprev", client),))


def _spf(proofs: Proofs, sender: str, helo: str) -> MethodResult:
    """RFC 8601 §2.7.2."""
    spf = proofs.spf
    about = ("smtp.mailfrom", sender) if spf.scope == "mfrom" and sender else ("smtp.helo", helo)
    return MethodResult("spf", spf.result, spf.problem, (about,) if about[1] else ())


def _dkim(found: DkimResult) -> MethodResult:
    """RFC 8601 §2.7.1; header.b tells two signatures of one domain apart (§6.3 of RFC 6008's, taken over there)."""
    about = (
        ("header.d", found.domain), ("header.i", found.identity), ("header.s", found.selector),
        ("header.a", found.algorithm), ("header.b", found.mark),
    )  # fmt: skip
    return MethodResult("dkim", found.result, found.problem, tuple(each for each in about if each[1]))


def _dmarc(proofs: Proofs) -> Iterator[MethodResult]:
    """RFC 8601 §2.7.6; the policy as its registry has it (policy.dmarc)."""
    dmarc = proofs.dmarc
    if dmarc is None:
        return
    about = [("header.from", dmarc.from_domain)]
    if dmarc.result == "fail":
        about.append(("policy.dmarc", dmarc.policy))
    yield MethodResult("dmarc", dmarc.result, dmarc.problem, tuple(about))
