"""How much mail an account holds, as imap tells it to smtp-in: a small file among the account's `personal` ones.

    {"octets": 1048576, "at": 1770000000.5}      `at`: everything delivered before it (epoch seconds) is counted

Written only for accounts that have a quota, a second or two after a change (`imap/usage`); read at RCPT
(`smtp_in/quota`). Not made durable: imap counts again at its start, and a file that a power cut left empty is one
that is not there: mail is taken then.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from mmap import mmap

NAME = "usage"
LARGEST = 1024


@dataclass(frozen=True, slots=True)
class UsageNow:
    """What was counted, and when."""

    octets: int
    at: float


def encode(usage: UsageNow) -> bytes:
    """The file's content."""
    return json.dumps({"octets": usage.octets, "at": usage.at}).encode()


def decode(data: bytes | mmap) -> UsageNow:
    """Raises ValueError."""
    try:
        value = json.loads(bytes(data))
    except RecursionError:
        raise ValueError("nested without end") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    octets, at = value.get("octets"), value.get("at")
    if isinstance(octets, bool) or not isinstance(octets, int) or not 0 <= octets < 1 << 62:
        raise ValueError("octets is a count")
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise ValueError("at is a time")
    return UsageNow(octets, float(at))
