"""What SPF, DKIM, DMARC, ARC and the peer's name gave, in the words of Authentication-Results (RFC 8601 §2.7).

Pure: values in, `MethodResult`s out, which `message/authentication_results.py` writes. Called by smtp-in.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.message.arc import ArcResult
from services.message.authentication_results import MethodResult
from services.message.dkim_verify import DkimResult
from services.policy.dmarc import DmarcResult
from services.policy.peer import PeerName
from services.policy.spf import SpfResult

__all__ = ["arc", "dkim", "dmarc", "iprev", "spf"]


def spf(result: SpfResult, sender: str, helo: str) -> MethodResult:
    """RFC 8601 §2.7.2. `sender` and `helo` as the client gave them."""
    about = ("smtp.helo", helo) if result.scope == "helo" else ("smtp.mailfrom", sender)
    return MethodResult("spf", result.result, result.problem, (about,))


def dkim(results: Sequence[DkimResult]) -> list[MethodResult]:
    """RFC 8601 §2.7.1, one for each signature; `header.b` tells them apart (RFC 6008)."""
    return [
        MethodResult(
            "dkim",
            result.result,
            result.problem,
            (
                ("header.d", result.domain),
                ("header.i", result.identity if result.identity != f"@{result.domain}" else ""),
                ("header.s", result.selector),
                ("header.a", result.algorithm),
                ("header.b", result.mark),
            ),
        )
        for result in results
    ] or [MethodResult("dkim", "none")]


def dmarc(result: DmarcResult) -> MethodResult:
    """RFC 9989 §9.1: the author's domain and the policy that applies."""
    policy = result.policy if result.result in ("pass", "fail") else ""
    properties = (("header.from", result.from_domain), ("policy.dmarc", policy))
    return MethodResult("dmarc", result.result, result.problem, properties)


def iprev(peer: PeerName, ip: str) -> MethodResult:
    """RFC 8601 §2.7.3, §3: the name of the peer's address leads back to it."""
    if peer.confirmed:
        outcome = "pass"
    elif peer.temporary:
        outcome = "temperror"
    else:
        outcome = "fail" if peer.names else "permerror"  # §2.7.3: no PTR data is permerror
    return MethodResult("iprev", outcome, peer.problem, (("policy.iprev", ip),))


def arc(result: ArcResult, ip: str) -> MethodResult:
    """RFC 8617 §10.2: which peer brought the chain, and since which set the message is unchanged."""
    properties = [("smtp.remote-ip", ip)]
    if result.result == "pass":
        properties.append(("header.oldest-pass", str(result.oldest_pass)))
    return MethodResult("arc", result.result, result.problem, tuple(properties))
