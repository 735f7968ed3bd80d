"""The octets of one stored message as IMAP counts them: CRLF line ends, whatever the file has.

Made by `Mailbox.open`. A file of ours has CRLF throughout and is read where it lies. A file from another server may
have bare LF: then each gets its CR on the way out, sizes and offsets included, so that a partial FETCH of any piece
fits the whole. Memory is bounded: small files are converted once, of large ones only the piece asked for, found by the
CRLF offset of every 64 KiB of the file.
"""

from __future__ import annotations

import os
from bisect import bisect_right

from services.storage.codec import IDENTITY, Codec, StoredOctets

_STEP = 1 << 16
_SMALL = 1 << 20


def to_crlf(piece: bytes, after_cr: bool = False) -> bytes:
    """`piece` with CRLF for each LF; `after_cr`: the octet before it was a CR."""
    if b"\r" in piece:
        out = piece.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    else:
        out = piece.replace(b"\n", b"\r\n")
    return out[1:] if after_cr and piece[:1] == b"\n" else out


def bare_feeds(piece: bytes, after_cr: bool = False) -> int:
    """How many LF in `piece` have no CR before them."""
    feeds = piece.count(b"\n")
    if b"\r" in piece:  # searching for two octets is slow; most files have one kind of line end throughout
        feeds -= piece.count(b"\r\n")
    return feeds - (after_cr and piece[:1] == b"\n")


class Message:
    """An open message, or a range of one (`part`). Close it, or use it as a context manager.

    `size`: octets with CRLF, RFC822.SIZE. `raw_size`: octets of the file; offsets of the MIME parser are raw ones.
    `bare_lf`: the two differ.
    """

    __slots__ = ("_begin", "_descriptor", "_plain", "_stored", "_text", "_virtual", "bare_lf", "raw_size", "size")

    def __init__(self, descriptor: int, *, virtual: int | None = None, codec: Codec = IDENTITY) -> None:
        """Takes the descriptor. `virtual`: the size with CRLF if it is known. Raises OSError."""
        self._descriptor = descriptor
        self._plain = codec.plain
        self._open(codec.open(descriptor), 0, None, virtual)

    def _open(self, stored: StoredOctets, begin: int, end: int | None, virtual: int | None) -> None:
        self._stored = stored
        self._begin = min(begin, stored.size)
        self.raw_size = max(0, min(stored.size if end is None else end, stored.size) - self._begin)
        self._text: bytes | None = None
        self._virtual: list[int] = []
        self.size = self.raw_size
        self.bare_lf = False
        if virtual != self.raw_size:
            # Also where a size is known: a literal is announced by it, and a name may promise anything.
            self._measure()

    def part(self, begin: int, end: int, virtual: int | None = None) -> Message:
        """The raw range begin..end as a message of its own, for BODY[1.2]; valid while this one is open."""
        piece = Message.__new__(Message)
        piece._descriptor = -1
        piece._plain = self._plain and self._descriptor >= 0
        piece._open(self._stored, self._begin + begin, self._begin + end, virtual)
        return piece

    def read(self, offset: int = 0, length: int = -1) -> bytes:
        """Octets with CRLF line ends from `offset`; to the end if `length` is negative. Raises OSError."""
        length = self.size - offset if length < 0 else min(length, self.size - offset)
        if length <= 0:
            return b""
        if not self.bare_lf:
            return self._stored.read(self._begin + offset, length)
        if self._text is not None:
            return self._text[offset : offset + length]
        pieces = []
        step = bisect_right(self._virtual, offset) - 1
        skip = offset - self._virtual[step]
        while length > 0:
            piece = self._converted(step)[skip : skip + length]
            if not piece:
                break  # the file was cut since it was measured
            pieces.append(piece)
            length -= len(piece)
            step += 1
            skip = 0
        return b"".join(pieces)

    def raw(self, offset: int = 0, length: int = -1) -> bytes:
        """Octets as they lie in the file. Raises OSError."""
        length = self.raw_size - offset if length < 0 else min(length, self.raw_size - offset)
        return self._stored.read(self._begin + offset, length) if length > 0 else b""

    def plain_file(self) -> int:
        """A descriptor whose octets are the message's, for sendfile; -1 where it has to go through `read`."""
        return self._descriptor if self._plain and not self.bare_lf else -1

    def close(self) -> None:
        """Idempotent. A `part` has nothing of its own to close."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Message:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _measure(self) -> None:
        """Count line ends: all at once for a small message, else once through in steps."""
        if self.raw_size <= _SMALL:
            whole = self.raw()
            feeds = bare_feeds(whole)
            if feeds:
                self._text = to_crlf(whole)
        else:
            feeds = 0
            after_cr = False
            starts = []
            for offset in range(0, self.raw_size, _STEP):
                starts.append(offset + feeds)
                piece = self.raw(offset, _STEP)
                feeds += bare_feeds(piece, after_cr)
                after_cr = piece[-1:] == b"\r"
            if feeds:
                self._virtual = starts
        self.size = self.raw_size + feeds
        self.bare_lf = feeds > 0

    def _converted(self, step: int) -> bytes:
        offset = step * _STEP
        after_cr = offset > 0 and self.raw(offset - 1, 1) == b"\r"
        return to_crlf(self.raw(offset, _STEP), after_cr)
