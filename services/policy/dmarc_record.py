"""DMARC policy records: the TXT record at `_dmarc.domain` (RFC 9989 §4.7, §4.8). Called by `dmarc`.

Reading never raises: what is no record is None; what is wrong in a record is taken for its default or passed over, as
§4.8 has it. `pct`, `rf` and `ri` of RFC 7489 are unknown tags now, and unknown tags are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Policy = Literal["none", "quarantine", "reject"]

_POLICIES: dict[str, Policy] = {"none": "none", "quarantine": "quarantine", "reject": "reject"}
# RFC 3986 §3: a scheme and something behind it; commas and exclamation marks would be encoded (RFC 9989 §4.8).
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-+\--~]+\Z", re.I)
# A record with two report addresses has 150 octets; resolvers hold 64 KB.
MOST_OCTETS = 8192


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A record. `sp` and `np` are None where they are not said; `problem`: it gives no policy (RFC 9989 §4.10.1)."""

    text: str
    p: Policy = "none"
    sp: Policy | None = None
    np: Policy | None = None
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: Literal["y", "n", "u"] = "u"
    testing: bool = False
    problem: str = ""


def policy_record(texts: Iterable[bytes]) -> PolicyRecord | None:
    """The DMARC record among the TXT records of one name. RFC 9989 §4.10: what is not DMARC's is discarded, and of
    several all are."""
    found = [record for text in texts if (record := _read(bytes(text))) is not None]
    return found[0] if len(found) == 1 else None


def _read(octets: bytes) -> PolicyRecord | None:
    text = octets[:MOST_OCTETS].decode("utf-8", "backslashreplace")
    first, *others = text.split(";")
    name, equals, version = first.partition("=")
    # RFC 9989 §4.7 v=: the first tag, and its value "DMARC1" exactly, or "the entire record MUST be ignored".
    if not equals or name.rstrip(" \t").lower() != "v" or version.strip(" \t") != "DMARC1":
        return None
    tags: dict[str, str] = {}
    for other in others:
        name, equals, value = other.partition("=")
        if equals:
            tags.setdefault(name.strip(" \t").lower(), value.strip(" \t").lower())
    problem = ""
    requests = {tag: _POLICIES.get(tags[tag]) for tag in ("p", "sp", "np") if tag in tags}
    if None in requests.values():
        # RFC 9989 §4.10.1: with somebody to report to, as if p=none stood there; else there is no policy. A p= that is
        # missing altogether is p=none (§4.7).
        requests = {}
        if not any(_URI.match(uri.strip(" \t")) for uri in tags.get("rua", "").split(",")):
            problem = "the DMARC record has a policy that is none"
    psd = tags.get("psd", "u")
    return PolicyRecord(
        text,
        requests.get("p") or "none",
        requests.get("sp"),
        requests.get("np"),
        tags.get("adkim") == "s",
        tags.get("aspf") == "s",
        "y" if psd == "y" else "n" if psd == "n" else "u",
        tags.get("t") == "y",
        problem,
    )
