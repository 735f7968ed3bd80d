"""Lists of IMAP flags (RFC 5232): taken apart, and the three commands on them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# RFC 3501 §9 flag-keyword: an atom. \Recent is the server's own, other names with a backslash mean nothing.
_KEYWORD = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\\]]{1,255}")
_SYSTEM = {b"\\answered", b"\\flagged", b"\\deleted", b"\\seen", b"\\draft"}
# What a mailbox can hold (storage/maildir MOST_KEYWORDS) and the five of the system.
MAX_FLAGS = 60


def listed(texts: Iterable[bytes]) -> list[bytes]:
    """RFC 5232 §2: each text is a list parted by blanks; doubles (in any case) and what is no flag fall out."""
    found: dict[bytes, bytes] = {}
    for text in texts:
        for flag in text.split():
            if flag.lower() in _SYSTEM or _KEYWORD.fullmatch(flag):
                found.setdefault(flag.lower(), flag)
    return list(found.values())[:MAX_FLAGS]


def added(flags: bytes, more: Iterable[bytes]) -> bytes:
    """addflag."""
    return b" ".join(listed((flags, *more)))


def removed(flags: bytes, less: Iterable[bytes]) -> bytes:
    """removeflag."""
    gone = {flag.lower() for flag in listed(less)}
    return b" ".join(flag for flag in listed((flags,)) if flag.lower() not in gone)


def names(flags: bytes) -> tuple[str, ...]:
    """For an action."""
    return tuple(flag.decode("ascii") for flag in listed((flags,)))
