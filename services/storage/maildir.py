"""Maildir file names: made, taken apart, put in order; flags as letters; folders scanned.

Called by delivery and by the mailbox. Pure but for `scan`. Names are Dovecot's:
`<seconds>.M<µs>P<pid>R<random>Q<n>.<host>,S=<octets>,W=<octets with CRLF>:2,<letters>`, sortable by arrival.
Delivery adds `,K=<keywords>` where a rule gave a message keywords: it can neither read nor write the folder's list of
letters, and the imap room, which can, reads them there when it takes the message in.

What stands after `:2,` changes with the flags; what stands before is the message's name for life. Letters DFRST are
the flags of the Maildir specification; a-z are the first 26 keywords of a folder, as listed in its `dovecot-keywords`.
Letters that mean nothing to us (P, or a letter without a keyword) stay in the name when we rename.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from urllib.parse import unquote

# Bits of a message's flags; keyword number n of its mailbox is bit KEYWORD_SHIFT + n.
ANSWERED, DELETED, DRAFT, FLAGGED, SEEN = 1, 2, 4, 8, 16
SYSTEM_FLAGS = {
    "\\Answered": ANSWERED,
    "\\Deleted": DELETED,
    "\\Draft": DRAFT,
    "\\Flagged": FLAGGED,
    "\\Seen": SEEN,
}
KEYWORD_SHIFT = 8
# SQLite integers are signed 64 bits: 8 for system flags, 1 for the sign. Slots of keywords out of use are given again.
MOST_KEYWORDS = 55
LETTER_KEYWORDS = 26

_LETTERS = {"D": DRAFT, "F": FLAGGED, "R": ANSWERED, "S": SEEN, "T": DELETED}
_ARRIVAL = re.compile(r"(\d{1,18})(?:\.M(\d{1,9}))?")
_SIZE = re.compile(r",S=(\d{1,15})(?=[,:]|$)")
_KEYWORDS = re.compile(r",K=([A-Za-z0-9$._%+-]+)(?=[,:]|$)")
_KEYWORD_OCTET = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789$._-")
# A name has 255 octets: 20 for time, 40 for who wrote it, 64 for the host, 36 for sizes, 10 for letters.
_MOST_KEYWORD_OCTETS = 72
_VIRTUAL = re.compile(r",W=(\d{1,15})(?=[,:]|$)")


class UniqueNames:
    """Makes names that no other process or restart makes, in the order of the calls.

    In containers every process is number 1 and host names repeat, therefore 40 random bits per process beside them.
    """

    def __init__(self, clock: Callable[[], float] = time.time, host: str = "") -> None:
        self._clock = clock
        self._last = 0
        self._count = 0
        host = host or socket.gethostname() or "localhost"
        # The specification's own escapes for what would end the host, and ours for what would end the sizes.
        host = host.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")[:64]
        self._tail = f"P{os.getpid()}R{secrets.token_hex(5)}Q"
        self._host = host

    def next(self, octets: int, virtual: int | None = None) -> str:
        """A new base name for a file of `octets`; `virtual` = its size with CRLF line ends, if known."""
        now = int(self._clock() * 1_000_000)
        # A clock set back must not put new mail before old: UIDs are given in the order of the names.
        self._last = now = max(now, self._last + 1)
        self._count += 1
        seconds, micros = divmod(now, 1_000_000)
        size = f",S={octets}" if virtual is None else f",S={octets},W={virtual}"
        return f"{seconds}.M{micros:06d}{self._tail}{self._count}.{self._host}{size}"


def split(name: str) -> tuple[str, str]:
    """`base:2,FS` → ("base", "FS"); a name without info has no letters."""
    base, _, letters = name.partition(":2,")
    return base, letters


def join(base: str, letters: str) -> str:
    """The name in cur/ of a message with these letters."""
    return f"{base}:2,{letters}"


def with_flags(base: str, flags: Iterable[str]) -> str:
    """A name for new/ that says system flags by letters and keywords by `,K=`; keywords that have no room fall out."""
    bits, words, room = 0, [], _MOST_KEYWORD_OCTETS
    for flag in flags:
        if flag.startswith("\\"):
            bits |= SYSTEM_FLAGS.get(flag.title(), 0)
            continue
        word = "".join(
            chr(octet) if octet in _KEYWORD_OCTET else f"%{octet:02X}" for octet in flag.encode("utf-8", "replace")
        )
        if word and len(word) < room:
            words.append(word)
            room -= len(word) + 1
    name = base + (",K=" + "+".join(words) if words else "")
    return join(name, letters_of(bits)) if bits else name


def keywords_in(name: str) -> list[str]:
    """The keywords that `with_flags` wrote into a name."""
    found = _KEYWORDS.search(name)
    return [unquote(word) for word in found[1].split("+") if word] if found else []


def arrival_key(name: str) -> tuple[int, int, str]:
    """Sorts names by the time in them; foreign names without one come first, by name."""
    found = _ARRIVAL.match(name)
    if not found:
        return (0, 0, name)
    micros = found[2]
    return (int(found[1]), int(micros) if micros else 0, name)


def virtual_size(name: str, octets: int) -> int | None:
    """The size with CRLF line ends that the name promises (`,W=`), if its `,S=` fits the file's size `octets`."""
    size = _SIZE.search(name)
    virtual = _VIRTUAL.search(name)
    if size and virtual and int(size[1]) == octets <= int(virtual[1]):
        return int(virtual[1])
    return None


def bits_of(letters: str, keywords: int) -> int:
    """Flag bits of `letters`; `keywords` is a bit mask of the keyword numbers that the folder has defined."""
    bits = 0
    for letter in letters:
        if letter in _LETTERS:
            bits |= _LETTERS[letter]
        elif "a" <= letter <= "z" and keywords >> (number := ord(letter) - 97) & 1:
            bits |= 1 << KEYWORD_SHIFT + number
    return bits


def letters_of(bits: int, kept: str = "") -> str:
    """Letters for `bits` in ASCII order, with those of `kept` that stand for nothing we know (see `foreign`)."""
    letters = [letter for letter, bit in _LETTERS.items() if bits & bit]
    words = bits >> KEYWORD_SHIFT
    if words:
        letters.extend(chr(97 + number) for number in range(LETTER_KEYWORDS) if words >> number & 1)
    if kept:
        letters.extend(kept)
        letters = sorted(set(letters))
    return "".join(letters)


def foreign(letters: str, keywords: int) -> str:
    """The letters that mean nothing here, to be kept when the file is renamed."""
    return "".join(
        letter
        for letter in letters
        if letter not in _LETTERS
        and letter not in "/:\0"
        and not ("a" <= letter <= "z" and keywords >> (ord(letter) - 97) & 1)
    )


# What of a name is stored in flags by letters: a change of other bits needs no rename.
LETTER_BITS = ANSWERED | DELETED | DRAFT | FLAGGED | SEEN | ((1 << LETTER_KEYWORDS) - 1) << KEYWORD_SHIFT


def scan(folder: int) -> set[str]:
    """Names in the open folder that can be messages: no dot files, no folders, no links.

    Where the file system does not tell the type in the listing, the name is taken and looked at when it is used.
    """
    with os.scandir(folder) as entries:
        return {
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
        }
