"""FETCH and UID FETCH (RFC 3501 §6.4.5, §7.4.2).

Most of what clients ask for many messages (flags, sizes, envelopes, a few header fields) is in columns or ready-made in
the cache: it is joined row by row with one format, a thousand messages at a step. What needs the messages themselves is
read one after the other, in pieces, so that neither a mailbox nor a large message is ever in memory.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from services.imap import lessons, sections
from services.imap.faults import CutShort, Done, Refusal
from services.imap.handlers.store import chosen
from services.imap.selected import Selected
from services.imap.session import Session, Steps
from services.message import mime
from services.protocol.imap_commands import Fetch
from services.protocol.imap_fetch import BodyItem, FetchItems
from services.protocol.imap_responses import internal_date, literal
from services.storage.errors import MessageGone
from services.storage.maildir import SEEN

# Messages of one step: answered from columns alone, from the cache, or each read from its file.
COLUMNS, CACHED, BODIES = 5000, 1000, 50

# Item → the column of the cache that answers it.
_CACHED = {b"RFC822.SIZE": "size", b"ENVELOPE": "envelope", b"BODYSTRUCTURE": "bodystructure", b"BODY": "body"}
_PLACES = {b"UID": b" %d", b"RFC822.SIZE": b" %d", b"FLAGS": b" (%b)"}


@dataclass(slots=True)
class _Batch:
    """Messages that are there: sequence numbers, UIDs, and positions in the mailbox's arrays, parallel."""

    numbers: Sequence[int]
    uids: Sequence[int]
    positions: Sequence[int]

    def only(self, here: Container[int]) -> _Batch:
        """Those whose UIDs are `here`."""
        kept = [row for row in zip(self.numbers, self.uids, self.positions, strict=True) if row[1] in here]
        return _Batch(*map(list, zip(*kept, strict=True))) if kept else _Batch((), (), ())


def _batches(selected: Selected, ranges: list[range], step: int) -> Iterator[_Batch]:
    """The messages at these indices of the view, some at a time. Looks anew each time: the mailbox may have changed."""
    for whole in ranges:
        for start in range(whole.start, whole.stop, step):
            wanted = range(start, min(start + step, whole.stop))
            uids = selected.uids[wanted.start : wanted.stop]
            numbers = range(wanted.start + 1, wanted.stop + 1)
            if selected.in_step:
                yield _Batch(numbers, uids, wanted)
                continue
            rows = zip(numbers, uids, selected.positions(wanted), strict=True)
            present = [row for row in rows if row[2] >= 0]
            yield _Batch(*map(list, zip(*present, strict=True))) if present else _Batch((), (), ())


def fetch(session: Session, command: Fetch) -> Steps:
    """One FETCH response per message that is still there."""
    selected = session.need_selected()
    ranges = chosen(selected, command.numbers, uid=command.uid)
    plan = _Plan(selected, command.items)
    told = 0
    for batch in _batches(selected, ranges, plan.step):
        newly_seen = _see(session, selected, batch) if plan.sets_seen else frozenset()
        yield from selected.new_keywords()
        for responses, count in plan.responses(batch, newly_seen):
            told += count
            yield responses
        if plan.with_flags:
            selected.told(batch.uids)
    if told < sum(map(len, ranges)) and not command.uid:
        # RFC 2180 §4.1.2: another session expunged them and this one may not be told yet.
        raise Refusal("some of the messages no longer exist", b"EXPUNGEISSUED")
    return Done(b"FETCH completed")


def _see(session: Session, selected: Selected, batch: _Batch) -> frozenset[int]:
    """§6.4.5: fetching a body without .PEEK sets \\Seen; the change is in the same response."""
    flags = selected.mailbox.flags
    unseen = [uid for uid, at in zip(batch.uids, batch.positions, strict=True) if not flags[at] & SEEN]
    if not unseen or selected.read_only:
        return frozenset()
    selected.collect()
    done = selected.mailbox.store(unseen, "+", ("\\Seen",), origin=session)
    selected.own_change(done.modseq, unseen)
    lessons.flagged(session, selected.mailbox.name, "+", ("\\Seen",), done.changed)
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
        places = [item + _PLACES.get(item, b" %b") for item in self.names]
        places += [item.label.replace(b"%", b"%%") + b" %b" for item in self.fields]
        self.head = b"* %d FETCH (" + b" ".join(places)
        self.step = BODIES if self.bodies else CACHED if self.cached else COLUMNS
        # Between what `head` says and the first body.
        self.separator = b" " if places else b""

    def _cached_columns(self) -> tuple[str, ...]:
        """What to read of the cache for each message."""
        columns = [_CACHED[item] for item in self.names if item in _CACHED]
        if self.needs_tree:
            columns.append("parts")
        if self.fields:
            columns.append("field_order")
            wanted = frozenset().union(*(item.section.fields for item in self.fields))
            columns += [sections.column(name) for name in sorted(wanted)]
        return tuple(columns)

    def responses(self, batch: _Batch, newly_seen: frozenset[int]) -> Iterator[tuple[bytes, int]]:
        """Responses of a batch, and how many messages each piece completes."""
        answers: dict[str, Sequence[Any]] = {}
        if self.cached and batch.uids:
            found = list(self.mailbox.answers(batch.uids, self.cached))
            if len(found) < len(batch.uids):
                batch = batch.only({one[0] for one in found})
            answers = dict(zip(self.cached, list(zip(*found, strict=True))[1:], strict=True)) if found else {}
        if not batch.uids:
            return
        heads = map(self.head.__mod__, zip(*self._columns(batch, answers), strict=True))
        if self.bodies:
            yield from self._with_bodies(batch, list(heads), answers, newly_seen)
        elif newly_seen:
            out = [head + self._tail(uid, newly_seen) for head, uid in zip(heads, batch.uids, strict=True)]
            yield b"".join(out), len(out)
        else:
            yield b")\r\n".join([*heads, b""]), len(batch.uids)

    def _columns(self, batch: _Batch, answers: dict[str, Sequence[Any]]) -> list[Iterable[Any]]:
        """A column per place of `head`."""
        columns: list[Iterable[Any]] = [batch.numbers]
        for item in self.names:
            if item == b"UID":
                columns.append(batch.uids)
            elif item == b"FLAGS":
                columns.append(self.selected.flags_of(batch.uids, batch.positions))
            elif item == b"INTERNALDATE":
                columns.append(map(internal_date, _at(self.mailbox.dates, batch.positions)))
            else:
                columns.append(answers[_CACHED[item]])
        columns += [self._header_fields(batch, item, answers) for item in self.fields]
        return columns

    def _header_fields(self, batch: _Batch, item: BodyItem, answers: dict[str, Sequence[Any]]) -> list[bytes]:
        columns = {sections.number(name): answers[sections.column(name)] for name in item.section.fields}
        # Which columns, in which order, for each order of fields that occurs: messages of one origin have one.
        orders: dict[bytes, list[Sequence[bytes]]] = {}
        out = []
        for at, order in enumerate(answers["field_order"]):
            present = orders.get(order)
            if present is None:
                present = orders[order] = [columns[number] for number in order if number in columns]
            found = sections.joined([column[at] for column in present])
            if found is None:
                found = self._read_fields(batch.uids[at], item)
            out.append(literal(found))
        return out

    def _read_fields(self, uid: int, item: BodyItem) -> bytes:
        """From the message itself, where the cache cannot tell in which order fields stand."""
        for _, parts in self.mailbox.answers((uid,), ("parts",)):
            with contextlib.suppress(MessageGone), self.mailbox.open(uid) as message:
                found = sections.locate(message, item.section, mime.unpack(parts).root)
                return found if isinstance(found, bytes) else b""
        return b""

    def _tail(self, uid: int, newly_seen: frozenset[int]) -> bytes:
        if uid in newly_seen and not self.with_flags:
            position = self.mailbox.index(uid)
            if position >= 0:
                return b" FLAGS (%b))\r\n" % self.selected.flags_of((uid,), (position,))[0]
        return b")\r\n"

    def _with_bodies(
        self, batch: _Batch, heads: list[bytes], answers: dict[str, Sequence[Any]], newly_seen: frozenset[int]
    ) -> Iterator[tuple[bytes, int]]:
        at_uid = {uid: at for at, uid in enumerate(batch.uids)}
        between = (self.separator, *repeat(b" ", len(self.bodies) - 1))
        for uid, message in self.mailbox.bodies(batch.uids):
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


def _at(column: array[int], positions: Sequence[int]) -> Sequence[int]:
    if isinstance(positions, range):
        return column[positions.start : positions.stop]
    return [column[position] for position in positions]
