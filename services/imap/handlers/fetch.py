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
from services.storage.errors import MessageGone
from services.storage.maildir import SEEN

if TYPE_CHECKING:
    from services.imap.session import Session, Steps

# Rows of one step when all is in columns; messages of one step when each is read.
ROWS, BODIES = 1000, 50

# Item → the column of the cache that answers it.
_CACHED = {b"RFC822.SIZE": "size", b"ENVELOPE": "envelope", b"BODYSTRUCTURE": "bodystructure", b"BODY": "body"}

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
        self.names = [item for item in wanted.items if isinstance(item, bytes)]
        sought = [item for item in wanted.items if isinstance(item, BodyItem)]
        self.fields = [item for item in sought if sections.is_cached(item)]
        self.bodies = [item for item in sought if not sections.is_cached(item)]
        self.sets_seen = wanted.seen and not selected.read_only
        self.with_flags = b"FLAGS" in wanted.items
        self.needs_tree = any(sections.needs_tree(item.section) for item in self.bodies)
        self.cached = self._cached_columns()
        # `* n FETCH (` and a place for each value: bytes need no further formatting than this.
        places = [item + (b" %d" if item in (b"UID", b"RFC822.SIZE") else b" %b") for item in self.names]
        places += [item.label.replace(b"%", b"%%") + b" %b" for item in self.fields]
        self.head = b"* %d FETCH (" + b" ".join(places)
        # Between what `head` says and the first body.
        self.separator = b" " if places else b""

    def _cached_columns(self) -> tuple[str, ...]:
        """What to read of the cache for each message."""
        columns = [_CACHED[item] for item in self.names if item in _CACHED]
        if self.needs_tree or self.fields:
            columns.append("parts")
        if self.fields:
            columns.append("field_order")
            wanted = frozenset().union(*(item.section.fields for item in self.fields))
            columns += [sections.column(name) for name in sorted(wanted)]
        return tuple(columns)

    def responses(self, rows: Sequence[Row], newly_seen: frozenset[int]) -> Iterator[tuple[bytes, int]]:
        """Responses of a batch, and how many messages each piece completes."""
        if not rows:
            return
        answers: dict[str, Sequence[Any]] = {}
        if self.cached:
            found = list(self.mailbox.answers([uid for _, uid, _ in rows], self.cached))
            if len(found) < len(rows):
                here = {one[0] for one in found}
                rows = [row for row in rows if row[1] in here]
            answers = dict(zip(self.cached, list(zip(*found, strict=True))[1:], strict=True)) if found else {}
        if not rows:
            return
        heads = map(self.head.__mod__, zip(*self._columns(rows, answers), strict=True))
        if self.bodies:
            yield from self._with_bodies(rows, list(heads), answers, newly_seen)
        elif newly_seen:
            out = [head + self._tail(row[1], newly_seen) for head, row in zip(heads, rows, strict=True)]
            yield b"".join(out), len(out)
        else:
            yield b")\r\n".join([*heads, b""]), len(rows)

    def _columns(self, rows: Sequence[Row], answers: dict[str, Sequence[Any]]) -> list[Sequence[Any]]:
        """A column per place of `head`."""
        columns: list[Sequence[Any]] = [[number for number, _, _ in rows]]
        for item in self.names:
            if item == b"UID":
                columns.append([uid for _, uid, _ in rows])
            elif item == b"FLAGS":
                columns.append(self._flags(rows))
            elif item == b"INTERNALDATE":
                dates = self.mailbox.dates
                columns.append([internal_date(dates[position]) for _, _, position in rows])
            else:
                columns.append(answers[_CACHED[item]])
        columns += [self._header_fields(rows, item, answers) for item in self.fields]
        return columns

    def _flags(self, rows: Sequence[Row]) -> list[bytes]:
        selected = self.selected
        recent = selected.recent_among(uid for _, uid, _ in rows)
        if recent:
            return [b"(%b)" % selected.flag_text(uid, position, recent) for _, uid, position in rows]
        # Ten thousand messages have some dozens of different sets of flags.
        bits = self.mailbox.flags
        texts = {value: b"(%b)" % self.mailbox.flag_text(value) for value in {bits[row[2]] for row in rows}}
        return [texts[bits[position]] for _, _, position in rows]

    def _header_fields(self, rows: Sequence[Row], item: BodyItem, answers: dict[str, Sequence[Any]]) -> list[bytes]:
        wanted = [(sections.number(name), sections.column(name)) for name in item.section.fields]
        lines = [(number, answers[name]) for number, name in wanted]
        out = []
        for at, order in enumerate(answers["field_order"]):
            present = [(order.index(number), column[at]) for number, column in lines if number in order]
            found = sections.joined(present)
            if found is None:
                found = self._read_fields(rows[at][1], item, answers["parts"][at])
            out.append(b"{%d}\r\n%b" % (len(found), found))
        return out

    def _read_fields(self, uid: int, item: BodyItem, parts: bytes) -> bytes:
        """From the message itself, where the cache cannot tell in which order fields stand."""
        try:
            with self.mailbox.open(uid) as message:
                found = sections.locate(message, item.section, mime.unpack(parts).root)
        except MessageGone:
            found = b""
        return found if isinstance(found, bytes) else b""

    def _tail(self, uid: int, newly_seen: frozenset[int]) -> bytes:
        if uid in newly_seen and not self.with_flags:
            position = self.mailbox.index(uid)
            if position >= 0:
                text = self.selected.flag_text(uid, position, self.selected.recent_among((uid,)))
                return b" FLAGS (%b))\r\n" % text
        return b")\r\n"

    def _with_bodies(
        self, rows: Sequence[Row], heads: list[bytes], answers: dict[str, Sequence[Any]], newly_seen: frozenset[int]
    ) -> Iterator[tuple[bytes, int]]:
        at_uid = {row[1]: at for at, row in enumerate(rows)}
        between = (self.separator, *repeat(b" ", len(self.bodies) - 1))
        for uid, message in self.mailbox.bodies([row[1] for row in rows]):
            at = at_uid[uid]
            root = mime.unpack(answers["parts"][at]).root if self.needs_tree else None
            pending = heads[at]
            announced = False
            try:
                for item, separator in zip(self.bodies, between, strict=True):
                    pending += separator
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
