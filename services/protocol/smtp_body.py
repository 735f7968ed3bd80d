"""The body as it goes over the wire between 354 and the final dot (RFC 5321 §4.5.2).

Called by `smtp/client.py` with the bytes of a message in chunks of any size. Whatever the bytes are, the body ends
where we say and nowhere else.
"""

from __future__ import annotations

import re


class BodyEncoder:
    """Any bytes, in chunks of any size, to what goes between 354 and the final dot.

    Lines end in CRLF and only there: a bare CR or LF becomes CRLF, so that no next hop can be talked into seeing an end
    of data that we did not see (SMTP smuggling; RFC 5321 §2.3.8 forbids sending them). What submission or LMTP let in
    holds none, so no signature suffers. A dot at a line's start is doubled (RFC 5321 §4.5.2).
    """

    def __init__(self) -> None:
        self._line_start = True
        self._held_cr = False

    def encode(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        if self._held_cr:
            chunk = b"\r" + chunk
        self._held_cr = chunk.endswith(b"\r")
        if self._held_cr:
            chunk = chunk[:-1]
            if not chunk:
                return b""
        if not chunk.count(b"\r\n") == chunk.count(b"\n") == chunk.count(b"\r"):
            chunk = _LINE_END.sub(b"\r\n", chunk)
        stuffed = chunk.replace(b"\r\n.", b"\r\n..")
        if self._line_start and stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        self._line_start = stuffed.endswith(b"\r\n")
        return stuffed

    def end(self) -> bytes:
        """The line end that may be missing, and the final dot."""
        complete = self._line_start and not self._held_cr
        return b".\r\n" if complete else b"\r\n.\r\n"


_LINE_END = re.compile(rb"\r\n|\r|\n")
