"""Header fields that only we may write, taken out where a stranger's message has them.

* Authentication-Results that claim our name (RFC 8601 §5): a reader would believe them as ours.
* X-Mailstead-Junk: a mail client that sorts by it would believe it too.
* Return-Path (RFC 5321 §4.4): written once, at the final delivery.

Pure; nothing else of the header changes. One search over a header that has none of them, and the same object back.
"""

from __future__ import annotations

import re

from services.message.authentication_results import without_ours
from services.message.headers import without

JUNK = "X-Mailstead-Junk"

_RESULTS = re.compile(rb"(?im)^authentication-results[ \t]*:")
_JUNK = re.compile(rb"(?im)^x-mailstead-junk[ \t]*:")
_RETURN_PATH = re.compile(rb"(?im)^return-path[ \t]*:")


def without_claims(header: bytes, hostname: str) -> bytes:
    """`header` without what claims to be of `hostname`."""
    if _RESULTS.search(header):
        header = without_ours(header, hostname)
    return without(header, (JUNK.encode(),)) if _JUNK.search(header) else header


def without_return_path(header: bytes) -> bytes:
    """`header` without Return-Path."""
    return without(header, (b"Return-Path",)) if _RETURN_PATH.search(header) else header
