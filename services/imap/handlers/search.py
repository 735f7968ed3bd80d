"""SEARCH and UID SEARCH (RFC 3501 §6.4.4).

A tree of keys is evaluated over the candidates that are left: flags, dates and sizes from columns first, cached header
fields next, the messages themselves last and only where nothing else has decided. Texts are compared decoded and
folded (`message/text.py`), as substrings, as the RFC says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence
from datetime import UTC, date, datetime

from services.imap import sections
from services.imap.faults import Done
from services.imap.parser import sent_day
from services.imap.selected import Selected
from services.imap.session import Session, Steps
from services.message import mime, text
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Search
from services.protocol.imap_search import (
    All,
    And,
    Arrived,
    Body,
    Comparison,
    HasFlag,
    Header,
    Key,
    Not,
    Numbers,
    Or,
    Recent,
    Sent,
    Size,
    Text,
    Uids,
)
from services.protocol.imap_sets import indices
from services.storage.body import Message
from services.storage.cache import CACHED_FIELDS
from services.storage.errors import MessageGone
from services.storage.maildir import SYSTEM_FLAGS

# Messages read, and cached answers looked at, between two turns of the account's other sessions.
STEP, CACHED_STEP = 100, 1000
# Up to this size a message is read whole and parsed: faster than looking up its parts one by one.
WHOLE = 262_144

Found = list[int]  # indices into the view, ascending
Evaluation = Generator[bytes, None, Found]  # yields b"" to give others a turn

# What a key costs, to evaluate the cheap ones first: columns, the cache, the messages.
_COSTS: dict[type, int] = {Header: 2, Sent: 2, Size: 2, Body: 4, Text: 4}
# What makes text other than its octets.
_ENCODED = (b"base64", b"quoted-printable", b"=?", b"utf-7", b"iso-2022", b"hz-gb")
_FREE_HEADERS = frozenset(CACHED_FIELDS)


def search(session: Session, command: Search) -> Steps:
    """The numbers of the messages that match."""
    selected = session.need_selected()
    evaluation = _Search(selected)
    found = yield from evaluation.matching(command.key, range(len(selected)))
    if command.uid:
        yield respond.search([selected.uids[i] for i in found])
    else:
        yield respond.search([i + 1 for i in found])
    return Done(b"SEARCH completed")


def _cost(key: Key) -> int:
    if isinstance(key, Header):
        return 2 if key.field in _FREE_HEADERS else 3
    if isinstance(key, Not):
        return _cost(key.key)
    if isinstance(key, And):
        return max(map(_cost, key.keys))
    if isinstance(key, Or):
        return max(_cost(key.first), _cost(key.second))
    return _COSTS.get(type(key), 1)


def _compare(comparison: Comparison, value: date, day: date) -> bool:
    """§6.4.4: SINCE includes the day itself, BEFORE does not."""
    if comparison == "on":
        return value == day
    return value < day if comparison == "before" else value >= day


class _Search:
    def __init__(self, selected: Selected) -> None:
        self.selected = selected
        self.mailbox = selected.mailbox
        self.folded: dict[str, str] = {}

    def matching(self, key: Key, among: Sequence[int]) -> Evaluation:
        """Those of `among` that match. Recursive as deep as the scanner let the command be."""
        if not among:
            return []
        if isinstance(key, And):
            found = list(among)
            for one in sorted(key.keys, key=_cost):
                found = yield from self.matching(one, found)
            return found
        if isinstance(key, Or):
            cheap, dear = sorted((key.first, key.second), key=_cost)
            first = yield from self.matching(cheap, among)
            have = set(first)
            rest = yield from self.matching(dear, [i for i in among if i not in have])
            return sorted(first + rest)
        if isinstance(key, Not):
            if isinstance(key.key, HasFlag):
                return self._flagged(key.key.name, among, wanted=False)
            out = yield from self.matching(key.key, among)
            without = set(out)
            return [i for i in among if i not in without]
        if isinstance(key, Body | Text | Header | Sent | Size):
            return (yield from self._by_content(key, among))
        return self._by_column(key, among)

    # --- columns

    def _by_column(self, key: Key, among: Sequence[int]) -> Found:
        selected = self.selected
        if isinstance(key, All):
            return list(among)
        if isinstance(key, Numbers | Uids):
            return self._numbered(key, among)
        if isinstance(key, Recent):
            return [i for i in among if selected.is_recent(selected.uids[i])]
        if isinstance(key, HasFlag):
            return self._flagged(key.name, among, wanted=True)
        assert isinstance(key, Arrived)
        # Days are compared in UTC, in which INTERNALDATE is given out.
        start = int(datetime(key.day.year, key.day.month, key.day.day, tzinfo=UTC).timestamp())
        low, high = {
            "before": (-(1 << 62), start),
            "on": (start, start + 86_400),
            "since": (start, 1 << 62),
        }[key.comparison]
        dates = self.mailbox.dates
        positions = selected.positions(among)
        return [i for i, at in zip(among, positions, strict=True) if at >= 0 and low <= dates[at] < high]

    def _flagged(self, name: str, among: Sequence[int], *, wanted: bool) -> Found:
        # A keyword that this mailbox has never seen has no bit, so no message has it.
        mask = SYSTEM_FLAGS.get(name) or self.mailbox.flag_bits((name,))
        flags = self.mailbox.flags
        if isinstance(among, range) and len(among) == len(flags) and self.selected.in_step:
            return [i for i, bits in enumerate(flags) if (bits & mask != 0) is wanted]
        positions = self.selected.positions(among)
        return [i for i, at in zip(among, positions, strict=True) if at >= 0 and (flags[at] & mask != 0) is wanted]

    def _numbered(self, key: Numbers | Uids, among: Sequence[int]) -> Found:
        if isinstance(key, Uids):
            ranges = key.uids.among(self.selected.uids)
        else:
            # Numbers that no message has match nothing here; only commands on messages are refused for them.
            ranges = key.numbers.among(range(1, len(self.selected) + 1))
        chosen = set(indices(ranges))
        return [i for i in among if i in chosen]

    # --- the cache, and the messages

    def _by_content(self, key: Body | Text | Header | Sent | Size, among: Sequence[int]) -> Evaluation:
        found: set[int] = set()
        uids = self.selected.uids
        step = STEP if _cost(key) > 2 else CACHED_STEP
        for start in range(0, len(among), step):
            batch = among[start : start + step]
            numbers = {uids[i]: i for i in batch}
            if isinstance(key, Body | Text):
                matched = self._read(key, list(numbers))
            elif isinstance(key, Header) and key.field not in _FREE_HEADERS:
                matched = self._read_header(key, list(numbers))
            else:
                matched = self._cached(key, list(numbers))
            found.update(numbers[uid] for uid in matched)
            yield b""
        return sorted(found)

    def _cached(self, key: Header | Sent | Size, uids: list[int]) -> Iterable[int]:
        if isinstance(key, Size):
            for uid, size in self.mailbox.answers(uids, ("size",)):
                if size > key.octets if key.larger else size < key.octets:
                    yield uid
        elif isinstance(key, Sent):
            for uid, lines in self.mailbox.answers(uids, ("h_date",)):
                day = sent_day(lines) if lines else None
                if day is not None and _compare(key.comparison, day, key.day):
                    yield uid
        else:
            for uid, lines in self.mailbox.answers(uids, (sections.column(key.field.encode("ascii")),)):
                if self._in_field(key, lines):
                    yield uid

    def _in_field(self, key: Header, lines: bytes | None) -> bool:
        """`lines`: the field as it stands in the message, all its occurrences."""
        if lines is None:
            return False
        if not key.text:
            return True
        if lines.count(b"\n") == 1 and key.text.isascii() and lines.isascii() and b"=?" not in lines:
            # One line in plain ASCII: nothing to decode, and nine fields in ten are so.
            return key.text.lower().encode("ascii") in lines[len(key.field) + 1 :].strip().lower()
        return self._contains(text.searchable_header(lines), key.text, behind_name=True)

    def _contains(self, haystack: str, needle: str, *, behind_name: bool = False) -> bool:
        wanted = self.folded.get(needle)
        if wanted is None:
            wanted = self.folded[needle] = text.fold(needle)
        if not behind_name:
            return wanted in text.fold(haystack)
        return any(wanted in text.fold(line.partition(":")[2].lstrip(" \t")) for line in haystack.split("\n"))

    def _read_header(self, key: Header, uids: list[int]) -> Iterable[int]:
        name = key.field.encode("ascii", "replace")
        headers = dict(self.mailbox.answers(uids, ("header_size",)))
        for uid, message in self.mailbox.bodies(uids):
            header = message.read(0, headers.get(uid, 0))
            lines = mime.field_lines(header, name)
            if lines and self._in_field(key, lines):
                yield uid

    def _read(self, key: Body | Text, uids: list[int]) -> Iterable[int]:
        large: set[int] = set()
        for uid, message in self.mailbox.bodies(uids):
            if message.size > WHOLE:
                large.add(uid)
                continue
            raw = message.read()
            if not self._cannot_match(key.text, raw) and self._in_message(key, raw, mime.tree(raw)):
                yield uid
        for uid, parts in self.mailbox.answers(sorted(large), ("parts",)):
            with contextlib.suppress(MessageGone), self.mailbox.open(uid) as message:
                octets = _Octets(message)
                root = mime.unpack(parts).root
                mime.read_fields(root, octets)
                if self._in_message(key, octets, root):
                    yield uid

    @staticmethod
    def _cannot_match(needle: str, raw: bytes) -> bool:
        """True for most messages that do not match, at a tenth of the cost of decoding them: plain ASCII throughout,
        nothing encoded, and the word is nowhere in it. (A word: a line break may stand for a blank.)"""
        if not (needle.isascii() and raw.isascii()) or any(blank in needle for blank in " \t\r\n"):
            return False
        lower = raw.lower()
        return needle.lower().encode("ascii") not in lower and not any(mark in lower for mark in _ENCODED)

    def _in_message(self, key: Body | Text, octets: mime.Sliceable, root: mime.Part) -> bool:
        if isinstance(key, Text) and self._contains(text.searchable_header(octets[: root.body]), key.text):
            return True
        return any(self._contains(piece, key.text) for piece in text.body_texts(octets, root))


class _Octets:
    """A large message of which only headers and text parts are read: what is attached stays on the disk."""

    def __init__(self, message: Message) -> None:
        self.message = message

    def __getitem__(self, wanted: slice) -> bytes:
        start = wanted.start or 0
        return self.message.read(start, max(wanted.stop - start, 0))
