"""Messages out of what people keep mail in: an mbox file, a Maildir with its folders, a folder of message files.

Used by `mailstead junk evaluate`, which reads somebody's own mail and changes nothing. A message comes as its octets,
at most the first MOST_OCTETS of it; what cannot be read is passed over, and `skipped` is told its path.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator

# As much as the junk filter reads of a message, and room for a header before it.
MOST_OCTETS = 327_680
# RFC 4155: a line `From ` behind an empty one, or the file's first, with a time of day in it: letters have lines that
# begin so too, and not every program writes `>From ` for them.
_FROM = re.compile(rb"(?:\A|\n\r?\n|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\d\d?:\d\d[^\n]*\n")
# Where the first such line has no time, none has; then a field must follow.
_BARE_FROM = re.compile(rb"(?:\A|\n\r?\n|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\n(?=[!-9;-~]{1,60}:[ \t])")
_QUOTED = re.compile(rb"(?m)^>(>*From )")
_NOT_MAIL = frozenset(("dovecot", "maildirfolder", "maildirsize", "subscriptions", "courierimapsubscribed"))


def messages(path: str, skipped: Callable[[str], None] = lambda _: None) -> Iterator[bytes]:
    """Each message at `path`, in the order in which it was kept. Raises OSError where `path` itself cannot be read."""
    if not os.path.isdir(path):
        yield from _mbox(path)
        return
    for folder in _folders(path):
        for name in sorted(os.listdir(folder), key=_by_number):
            file = os.path.join(folder, name)
            if name.startswith(".") or name.lower().startswith(tuple(_NOT_MAIL)) or not os.path.isfile(file):
                continue
            try:
                if _is_mbox(file):
                    yield from _mbox(file)
                    continue
                with open(file, "rb") as opened:
                    octets = opened.read(MOST_OCTETS)
            except OSError:
                skipped(file)
                continue
            if octets.strip():
                yield octets
            else:
                skipped(file)


def _folders(path: str) -> Iterator[str]:
    """The folders that have the messages: cur and new of a Maildir, else every folder below.

    A Maildir is one mailbox: `Maildir/.Junk` beside the INBOX's cur is another, and most likely the other kind.
    """
    for here, names, _ in os.walk(path):
        names.sort(key=_by_number)
        parts = [part for part in ("cur", "new") if part in names]
        if parts:
            yield from (os.path.join(here, part) for part in parts)
            names.clear()
        else:
            yield here


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """10.eml behind 9.eml; a Maildir's names begin with a time."""
    pieces = re.split(r"(\d+)", name[:200])
    return [(0, int(piece[:30]), "") if piece.isdecimal() and piece.isascii() else (1, 0, piece) for piece in pieces]


def _is_mbox(file: str) -> bool:
    with open(file, "rb") as opened:
        beginning = opened.read(1_000)
    return _FROM.match(beginning) is not None or _BARE_FROM.match(beginning) is not None


def _mbox(file: str) -> Iterator[bytes]:
    if os.path.getsize(file) == 0:
        return
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as octets:
        begin = -1
        pattern = _FROM if _FROM.match(octets) else _BARE_FROM
        # Not all starts at once: a mailbox may have a million messages.
        for start in pattern.finditer(octets):
            if begin >= 0:
                yield _unquoted(octets[begin : min(start.start() + 1, begin + MOST_OCTETS)])
            begin = start.end()
        if begin >= 0:
            yield _unquoted(octets[begin : begin + MOST_OCTETS])
        else:
            yield octets[:MOST_OCTETS]  # one message, without a From line


def _unquoted(octets: bytes) -> bytes:
    return _QUOTED.sub(rb"\1", octets) if b">From " in octets else octets
