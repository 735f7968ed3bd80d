"""The `bh=` of a DKIM signature, computed while the body streams by.

What it is: `BodyHash`, SHA-256 over the relaxed form of a body (RFC 6376 §3.4.4), fed in chunks of any size.
Called by smtp-out while a submitted message goes to the spool, so that the `dkim` room signs without ever seeing the
body: 44 characters cross the network instead of 50 MB. Memory stays at one chunk whatever the body holds.
Never looks at headers, never keeps a byte it has hashed.
"""

from __future__ import annotations

import base64
import hashlib
import re

__all__ = ["BodyHash"]

_SPACES = re.compile(rb"  +")

# Pending empty lines are written in blocks of this many: a body of 25 million empty lines and one last word must not
# build a 50 MB string at once.
_BLANK_LINES = b"\r\n" * 8192


class BodyHash:
    """SHA-256 of a body in relaxed canonical form; the result does not depend on where chunks are cut.

    Lines end in CRLF only (RFC 6376 §5.3: what is signed is what goes over SMTP). A bare CR or LF is a character like
    any other here; the SMTP engine refuses them before a body gets this far.
    """

    __slots__ = ("_blank_lines", "_empty", "_held", "_sha256")

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._held = b""  # b"", b" ", b"\r" or b" \r": what the next chunk may still turn into a line end
        self._blank_lines = 0  # CRLFs seen but not hashed: they count only if something follows them
        self._empty = True

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the body, in order."""
        data = (self._held + chunk).replace(b"\t", b" ")
        if b"  " in data:
            data = _SPACES.sub(b" ", data)
        data = data.replace(b" \r\n", b"\r\n")

        settled = len(data)
        if data.endswith(b"\r"):
            settled -= 1
        if data.endswith(b" ", 0, settled):
            settled -= 1
        self._held = data[settled:]
        if self._held:
            data = data[:settled]

        # RFC 6376 §3.4.4 b: empty lines at the end are ignored, so trailing CRLFs wait for what follows. The run of CR
        # and LF at the end is searched with NUL for CRLF, which cannot occur in it: linear, and right for bare ones.
        tail = data[len(data.rstrip(b"\r\n")) :].replace(b"\r\n", b"\0")
        blank_lines = len(tail) - len(tail.rstrip(b"\0"))
        content = data[: len(data) - 2 * blank_lines] if blank_lines else data
        if content:
            self._flush_blank_lines()
            self._sha256.update(content)
            self._empty = False
        self._blank_lines += blank_lines

    def _flush_blank_lines(self) -> None:
        blocks, rest = divmod(self._blank_lines, len(_BLANK_LINES) // 2)
        for _ in range(blocks):
            self._sha256.update(_BLANK_LINES)
        self._sha256.update(_BLANK_LINES[: 2 * rest])
        self._blank_lines = 0

    def digest(self) -> str:
        """The value for `bh=`, base64. May be asked at any time; more chunks may follow."""
        final = BodyHash()
        final._sha256 = self._sha256.copy()
        final._blank_lines = self._blank_lines
        final._empty = self._empty
        if self._held.endswith(b"\r"):  # a bare CR that ends the body is a character; white space before it counts
            final._flush_blank_lines()
            final._sha256.update(self._held)
            final._empty = False
        # RFC 6376 §3.4.4: a body that does not end in CRLF gets one; an empty body stays empty, unlike in "simple".
        if not final._empty:
            final._sha256.update(b"\r\n")
        return base64.b64encode(final._sha256.digest()).decode("ascii")
