"""`junk.model`: what an account has sorted, as one file that smtp-in looks words up in without reading it.

Written by imap (`write`, published by `personal`), read by smtp-in (`JunkModel` over the mapped file). A word is kept
as 64 bits of BLAKE2b under a key of the account's own, so the file tells nobody who reads it what the mail was about;
who can guess a word can ask for it, as with any such memory. Known senders stand there the same way.

Layout, little-endian: a header of 64 octets (see `_HEADER`), then three arrays: the tokens' hashes (signed 64 bits,
ascending), the hashes of known senders (the same), and of each token its junk and good counts (16 bits each). Look-ups
bisect a small range, since hashes are spread evenly. A file cut short or of another layout is refused by its sizes;
what its numbers say is clamped, so a wrong one can only misjudge.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from services.storage.personal import Buffer

# magic, layout, tokens' version, key, time made (s), junk, good, junk and good written in CJK, tokens, known senders
_HEADER = struct.Struct("<8sHH16sQIIIIII4x")
_NUMBER = struct.Struct("<q")
_MAGIC, _LAYOUT = b"msjunk\r\n", 1
_MOST_COUNT = 0xFFFF
KEY_OCTETS = 16
# 300,000 tokens and 20,000 senders are 3.8 MB.
MOST_OCTETS = 64 << 20


class Sorted(NamedTuple):
    """How many messages were sorted: of each kind, and of those that are written in Chinese, Japanese or Korean."""

    junk: int = 0
    good: int = 0
    cjk_junk: int = 0
    cjk_good: int = 0


class Contents(NamedTuple):
    """What goes into a model. `hashes` ascending with `counts` (junk and good by turns); `known` ascending."""

    key: bytes
    version: int
    made: float
    sorted: Sorted
    hashes: array[int]
    counts: array[int]
    known: array[int]


def hash_of(key: bytes, token: str) -> int:
    """`token` as it stands in the model: signed 64 bits."""
    digest = blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little", signed=True)


def write(contents: Contents) -> bytes:
    """The file. Raises ValueError where it would not be readable."""
    if len(contents.counts) != 2 * len(contents.hashes) or len(contents.key) != KEY_OCTETS:
        raise ValueError("arrays that do not belong together")
    header = _HEADER.pack(
        _MAGIC, _LAYOUT, contents.version, contents.key, int(contents.made), *contents.sorted,
        len(contents.hashes), len(contents.known),
    )  # fmt: skip
    return b"".join((header, _octets(contents.hashes), _octets(contents.known), _octets(contents.counts)))


def count(value: int) -> int:
    """A count as the file keeps it."""
    return min(max(value, 0), _MOST_COUNT)


def _octets(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":  # pragma: no cover
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


class JunkModel:
    """A model in memory that somebody else keeps: mapped, or small. For one thread."""

    def __init__(self, octets: Buffer) -> None:
        """Raises ValueError for anything but a whole model of this layout."""
        try:
            magic, layout, version, key, made, junk, good, cjk_junk, cjk_good, tokens, known = _HEADER.unpack_from(
                octets
            )
        except struct.error:
            raise ValueError("no header") from None
        begin, middle = _HEADER.size + 8 * tokens, _HEADER.size + 8 * (tokens + known)
        if magic != _MAGIC or layout != _LAYOUT or len(octets) != middle + 4 * tokens or sys.byteorder == "big":
            raise ValueError("not a model of this layout")
        view = memoryview(octets)
        self.version: int = version
        self.made: int = made
        self.sorted = Sorted(junk, good, cjk_junk, cjk_good)
        self._key: bytes = key
        self._hashes = view[_HEADER.size : begin].cast("q")
        self._known = view[begin:middle].cast("q")
        self._counts = view[middle:].cast("H")
        # Hashes are even over 64 bits: a token is within some standard deviations of its share of the array.
        self._spread = 4 * int(tokens**0.5) + 8

    def __len__(self) -> int:
        return len(self._hashes)

    def counts(self, tokens: Iterable[str]) -> list[tuple[int, int]]:
        """(junk, good) messages that had each of `tokens`; those that none had are left out."""
        found: list[tuple[int, int]] = []
        hashes, counts, spread, size = self._hashes, self._counts, self._spread, len(self._hashes)
        if not size:
            return found
        key, number = self._key, _NUMBER.unpack
        for token in tokens:
            # `hash_of` in place: it is most of what a message costs here.
            (wanted,) = number(blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest())
            guess = (wanted + 0x8000_0000_0000_0000) * size >> 64
            low, high = guess - spread, guess + spread
            at = bisect_left(hashes, wanted, low if low > 0 else 0, high if high < size else size)
            if at < size and hashes[at] == wanted:
                found.append((counts[2 * at], counts[2 * at + 1]))
        return found

    def knows(self, sender: str) -> bool:
        """Whether `sender` (see `known_as`) is among the known ones."""
        wanted = hash_of(self._key, sender)
        at = bisect_left(self._known, wanted)
        return at < len(self._known) and self._known[at] == wanted


# What is known of senders, as texts to be hashed.
def wrote_to(address: str) -> str:
    """The account has written to `address`."""
    return f"to:{address.lower()}"


def kept(address: str) -> str:
    """The account has read and kept mail of `address`."""
    return f"kept:{address.lower()}"


def kept_list(list_id: str) -> str:
    """The account has read and kept mail of the list."""
    return f"list:{list_id.lower()}"
