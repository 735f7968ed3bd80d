"""The keywords of one mailbox: names by number, the letters a-z that stand for the first 26 in file names.

Used by folder and by what changes flags. The letters mean what the folder's `dovecot-keywords` says, the file that
Dovecot reads and writes too: an account keeps its keywords when it moves in or out, and when state.db is lost. Where
file and state.db differ, the file is right, as the letters in the names are. Pure but for `load` and `save`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping

from services.storage.atomic import write_durable_at
from services.storage.errors import BadName, LimitReached
from services.storage.maildir import KEYWORD_SHIFT, LETTER_KEYWORDS, MOST_KEYWORDS, SYSTEM_FLAGS
from services.storage.paths import open_message

FILE = "dovecot-keywords"
_FILE_MOST = 65_536  # 26 names; a larger file is not what it says
_REMEMBERED = 4_096
_LINE = re.compile(r"(\d{1,2}) ([^\x00-\x20\x7f]+)")
# RFC 3501 §9 flag-keyword = atom; a file's line ends at a line feed, and a name must not be taken for a system flag.
_NAME = re.compile(r"[^\x00-\x20\x7f-\U0010ffff(){%*\"\\\]]{1,255}")


class Keywords:
    """Names by number; RFC 3501 §2.3.2: in any case, so the first spelling stays."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = dict(names)
        self._texts: dict[int, bytes] = {}

    def names(self) -> tuple[str, ...]:
        """In the order of their numbers."""
        return tuple(self._names[number] for number in sorted(self._names))

    @property
    def letters(self) -> int:
        """Bit mask of the numbers that have a letter and a name."""
        return sum(1 << number for number in self._names if number < LETTER_KEYWORDS)

    def by_number(self) -> dict[int, str]:
        """A copy of what is known."""
        return dict(self._names)

    def bits(self, names: Iterable[str]) -> int:
        """Flag bits of system flags and known keywords; others count for nothing."""
        numbers = {name.lower(): number for number, name in sorted(self._names.items(), reverse=True)}
        bits = 0
        for name in names:
            if name.startswith("\\"):
                bits |= SYSTEM_FLAGS.get(name.title(), 0)
            elif (number := numbers.get(name.lower())) is not None:
                bits |= 1 << KEYWORD_SHIFT + number
        return bits

    def texts(self, bits: int) -> list[str]:
        """The names of `bits`, system flags first."""
        names = [name for name, bit in SYSTEM_FLAGS.items() if bits & bit]
        if bits >> KEYWORD_SHIFT:
            names += [self._names[n] for n in sorted(self._names) if bits >> KEYWORD_SHIFT + n & 1]
        return names

    def text(self, bits: int) -> bytes:
        """The same as IMAP writes it, remembered: a mailbox has few combinations."""
        text = self._texts.get(bits)
        if text is None:
            if len(self._texts) >= _REMEMBERED:
                self._texts.clear()
            text = self._texts[bits] = " ".join(self.texts(bits)).encode("ascii", "replace")
        return text

    def missing(self, names: Iterable[str]) -> list[str]:
        """Keywords among `names` that have no number yet. Raises BadName for what is no keyword."""
        known = {name.lower() for name in self._names.values()}
        new: list[str] = []
        for name in names:
            if not name.startswith("\\") and name.lower() not in known:
                if not _NAME.fullmatch(name):
                    raise BadName("not a keyword")
                known.add(name.lower())
                new.append(name)
        return new

    def assign(self, names: Iterable[str], used: int) -> dict[int, str]:
        """Numbers for new keywords; `used`: all bits that any message has. Raises LimitReached.

        Free numbers first; then those of keywords that no message has any more.
        """
        free = [number for number in range(MOST_KEYWORDS) if number not in self._names]
        free += [n for n in sorted(self._names) if not used >> KEYWORD_SHIFT + n & 1]
        given: dict[int, str] = {}
        for name in names:
            if not free:
                raise LimitReached(f"a mailbox has at most {MOST_KEYWORDS} keywords")
            given[free.pop(0)] = name
        return given

    def learn(self, given: Mapping[int, str]) -> None:
        """Take names over (from `assign`, or from the file)."""
        self._names.update(given)
        self._texts.clear()


def load(folder: int) -> dict[int, str]:
    """What the folder's file says; {} if there is none."""
    try:
        descriptor = open_message(FILE, folder)
    except FileNotFoundError:
        return {}
    try:
        text = os.pread(descriptor, _FILE_MOST, 0).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {
        int(line[1]): line[2] for line in found if line and int(line[1]) < LETTER_KEYWORDS and _NAME.fullmatch(line[2])
    }


def save(folder: int, names: Mapping[int, str]) -> None:
    """Write the file, before any file's name has a letter by it. Raises OSError."""
    lines = [f"{number} {name}\n" for number, name in sorted(names.items()) if number < LETTER_KEYWORDS]
    write_durable_at(folder, FILE, "".join(lines).encode("utf-8"), 0o600)


def file_time(folder: int) -> int:
    """When the file was last written, in ns; 0 if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(FILE, dir_fd=folder, follow_symlinks=False).st_mtime_ns
    return 0
