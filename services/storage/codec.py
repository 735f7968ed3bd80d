"""The form in which bodies lie in their files: every read and write of message octets goes through a `Codec`.

Today there is one, the identity. Encryption at rest per account fits in as another: it streams on writing and reads at
any offset, which partial FETCH needs. `plain` tells the callers when the file's octets are the message's own, so that
they may let the kernel copy, link and send files without Python touching them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol


class StoredOctets(Protocol):
    """A body opened for reading at any offset."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` octets from `offset`; fewer only at the end. Raises OSError."""


class Codec(Protocol):
    """Encodes on the way to a file, decodes on the way back."""

    plain: bool

    def encode(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """The pieces as they are written to the file."""

    def open(self, descriptor: int) -> StoredOctets:
        """A reader over an open file; the descriptor stays the caller's to close."""


class PlainOctets:
    """A file whose octets are the body's."""

    __slots__ = ("_descriptor", "size")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """See StoredOctets. pread and not mmap: a program that truncates the file must not kill us by SIGBUS."""
        piece = os.pread(self._descriptor, length, offset)
        if len(piece) == length or not piece:
            return piece
        pieces = [piece]  # a signal or the 2 GiB limit of one call cut it short, or it is the end
        got = len(piece)
        while got < length and (piece := os.pread(self._descriptor, length - got, offset + got)):
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces)


class Identity:
    """Bodies as received."""

    plain = True

    def encode(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """The same pieces."""
        return pieces

    def open(self, descriptor: int) -> StoredOctets:
        """The file itself."""
        return PlainOctets(descriptor)


IDENTITY = Identity()
