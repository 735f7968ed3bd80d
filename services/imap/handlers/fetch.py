"""FETCH and UID FETCH (RFC 3501 §6.4.5, §7.4.2).

Most of what clients ask for many messages (flags, sizes, envelopes, a few header fields) is in columns or ready-made in
the cache: it is joined row by row with one format, a thousand messages at a step. What needs the messages themselves is
read one after the other, in pieces, so that neither a mailbox nor a large message is ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from services.imap import sections
from services.imap.faults import CutShort, Done, Refusal
from services.imap.handlers.store import chosen
from services.imap.selected import Selected
from services.message import mime
from services.protocol.imap_commands import Fetch
from services.protocol.imap_fetch import BodyItem, FetchItems
from services.protocol.imap_responses import internal_date
from services.protocol.imap_sets import indices
from services.storage.cache import Parsed
from services.storage.errors import MessageGone
from services.storage.maildir import SEEN

if TYPE_CHECKING:
    from services.imap.session import Session, Steps

# Rows of one step when all is in columns; messages of one step when each is read.
ROWS, BODIES = 1000, 50

# Item → the field of `Parsed` that answers it.
_PARSED = {b"RFC822.SIZE": "size", b"ENVELOPE": "envelope", b"BODYSTRUCTURE": "bodystructure", b"BODY": "body"}

Row = tuple[int, int, int]  # sequence number, UID, position in the mailbox's arrays


def fetch(session: Session, command: Fetch) -> Steps:
    """One FETCH response per message that is still there."""
    selected = session.need_selected()
    wanted = list(indices(chosen(selected, command.numbers, uid=command.uid)))
    plan = _Plan(selected, command.items)
    step = BODIES if plan.bodies else ROWS
    told = 0
    for start in range(0, len(wanted), step):
        batch = wanted[start : start + step]
        rows = [
            (i + 1, selected.uids[i], position)
            for i, position in zip(batch, selected.positions(batch), strict=True)
            if position >= 0
        ]
        newly_seen = _see(session, selected, rows) if plan.sets_seen else frozenset()
        yield from selected.new_keywords()
        for responses, count in plan.responses(rows, newly_seen):
            told += count
            yield responses
        if plan.with_flags:
            selected.told(uid for _, uid, _ in rows)
    if told < len(wanted) and not command.uid:
        # RFC 2180 §4.1.2: another session expunged them and this one may not be told yet.
        raise Refusal("some of the messages no longer exist", b"EXPUNGEISSUED")
    return Done(b"FETCH completed")


def _see(session: Session, selected: Selected, rows: Sequence[Row]) -> frozenset[int]:
    """§6.4.5: fetching a body without .PEEK sets \\Seen; the change is in the same response."""
    flags = selected.mailbox.flags
    unseen = [uid for _, uid, position in rows if not flags[position] & SEEN]
    if not unseen or selected.read_only:
        return frozenset()
    selected.collect()
    done = selected.mailbox.store(unseen, "+", ("\\Seen",), origin=session)
    selected.own_change(done.modseq, unseen)
    return frozenset(unseen)


class _Plan:
    """How to answer one FETCH: what comes from columns, what from the cache, what from the message itself."""

    def __init__(self, selected: Selected, wanted: FetchItems) -> None:
        self.selected = selected
        self.mailbox = selected.mailbox
        self.items = wanted.items
        self.sets_seen = wanted.seen and not selected.read_only
        self.with_flags = b"FLAGS" in wanted.items
        self.bodies = [item for item in wanted.items if isinstance(item, BodyItem) and not sections.is_cached(item)]
        self.fields = [item for item in wanted.items if isinstance(item, BodyItem) and sections.is_cached(item)]
        self.needs_tree = any(sections.needs_tree(item.section) for item in self.bodies)
        self.needs_cache = self.needs_tree or bool(self.fields) or any(item in _PARSED for item in wanted.items)
        # `* n FETCH (` and a place for each value: bytes need no further formatting than this.
        places = [item + (b" %d" if item in (b"UID", b"RFC822.SIZE") else b" %b") for item in self._named()]
        places += [item.label.replace(b"%", b"%%") + b" %b" for item in self.fields]
        self.head = b"* %d FETCH (" + b" ".join(places)

    def _named(self) -> list[bytes]:
        return [item for item in self.items if isinstance(item, bytes)]

    def responses(self, rows: Sequence[Row], newly_seen: frozenset[int]) -> Iterator[tuple[bytes, int]]:
        """Responses of a batch, and how many messages each piece completes."""
        if not rows:
            return
        cached: dict[int, Parsed] = {}
        if self.needs_cache:
            cached = dict(self.mailbox.parsed([uid for _, uid, _ in rows]))
            if len(cached) < len(rows):
                rows = [row for row in rows if row[1] in cached]
        heads = map(self.head.__mod__, zip(*self._columns(rows, cached), strict=True))
        if not self.bodies:
            out = [head + self._tail(row[1], newly_seen) for head, row in zip(heads, rows, strict=True)]
            yield b"".join(out), len(out)
            return
        yield from self._with_bodies(rows, list(heads), cached, newly_seen)

    def _columns(self, rows: Sequence[Row], cached: dict[int, Parsed]) -> list[Any]:
        """A column per place of `head`."""
        selected, mailbox = self.selected, self.mailbox
        columns: list[Any] = [[number for number, _, _ in rows]]
        parsed = [cached[uid] for _, uid, _ in rows] if self.needs_cache else []
        for item in self._named():
            if item == b"UID":
                columns.append([uid for _, uid, _ in rows])
            elif item == b"FLAGS":
                columns.append(self._flags(selected, rows))
            elif item == b"INTERNALDATE":
                dates = mailbox.dates
                columns.append([internal_date(dates[position]) for _, _, position in rows])
            else:
                name = _PARSED[item]
                columns.append([getattr(one, name) for one in parsed])
        columns += [
            [self._header_fields(uid, one, wanted) for (_, uid, _), one in zip(rows, parsed, strict=True)]
            for wanted in self.fields
        ]
        return columns

    @staticmethod
    def _flags(selected: Selected, rows: Sequence[Row]) -> list[bytes]:
        recent = selected.recent_among(uid for _, uid, _ in rows)
        if recent:
            return [b"(%b)" % selected.flag_text(uid, position, recent) for _, uid, position in rows]
        # Ten thousand messages have some dozens of different sets of flags.
        bits = selected.mailbox.flags
        texts = {value: b"(%b)" % selected.mailbox.flag_text(value) for value in {bits[row[2]] for row in rows}}
        return [texts[bits[position]] for _, _, position in rows]

    def _header_fields(self, uid: int, parsed: Parsed, item: BodyItem) -> bytes:
        found = sections.from_cache(item.section, parsed.fields)
        if found is None:
            try:
                with self.mailbox.open(uid) as message:
                    whole = sections.locate(message, item.section, mime.unpack(parsed.parts).root)
                found = whole if isinstance(whole, bytes) else b""
            except MessageGone:
                found = b"\r\n"
        return b"{%d}\r\n%b" % (len(found), found)

    def _tail(self, uid: int, newly_seen: frozenset[int]) -> bytes:
        if uid in newly_seen and not self.with_flags:
            position = self.mailbox.index(uid)
            if position >= 0:
                text = self.selected.flag_text(uid, position, self.selected.recent_among((uid,)))
                return b" FLAGS (%b))\r\n" % text
        return b")\r\n"

    def _with_bodies(
        self, rows: Sequence[Row], heads: Sequence[bytes], cached: dict[int, Parsed], newly_seen: frozenset[int]
    ) -> Iterator[tuple[bytes, int]]:
        by_uid = {row[1]: head for row, head in zip(rows, heads, strict=True)}
        separator = b" " if len(self.bodies) < len(self.items) else b""
        for uid, message in self.mailbox.bodies([row[1] for row in rows]):
            root = mime.unpack(cached[uid].parts).root if self.needs_tree else None
            pending = by_uid[uid] + separator
            announced = False
            try:
                for item, between in zip(self.bodies, (b"", *repeat(b" ", len(self.bodies) - 1)), strict=True):
                    pending += between
                    for piece in sections.literal(message, item, root):
                        pending += piece
                        if len(pending) >= sections.PIECE:
                            announced = True
                            yield pending, 0
                            pending = b""
            except OSError as error:
                if announced:
                    raise CutShort(str(error)) from error
                raise
            yield pending + self._tail(uid, newly_seen), 1
