"""What one command changes, in one mailbox or two: collected, committed in one transaction, then shown to everybody.

Used by look, flags, transfer and expunge. The files are changed by them, before or after as each says; here UIDs and
modseq are given and state.db, the columns in memory, cache.db and the listeners are brought along, in this order:
nobody is told of a UID that the disk does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from services.storage.errors import LimitReached
from services.storage.folder import Folder, totals
from services.storage.notifier import Change
from services.storage.state import MailboxRow, MessageRow

_FIELDS = tuple(one.name for one in fields(MailboxRow))
_LAST_UID = 0xFFFF_FFFF  # RFC 3501 §2.3.1.1: UIDs have 32 bits


@dataclass(slots=True)
class _Part:
    """The changes of one mailbox."""

    folder: Folder
    row: MailboxRow
    added: list[MessageRow] = field(default_factory=list)
    flagged: list[tuple[int, str, int, bool]] = field(default_factory=list)  # UID, file, bits, whether they are new
    removed: list[int] = field(default_factory=list)
    doomed: list[str] = field(default_factory=list)
    keywords: dict[int, str] = field(default_factory=dict)


class Edit:
    """Collects; `commit` does it. Nothing has happened before."""

    def __init__(self, *, durable: bool, origin: object = None) -> None:
        """`durable`: on the disk when `commit` returns; flags alone may wait for `settle`."""
        self._durable = durable
        self._origin = origin
        self._parts: dict[int, _Part] = {}

    def _part(self, folder: Folder) -> _Part:
        part = self._parts.get(id(folder))
        if part is None:
            part = self._parts[id(folder)] = _Part(folder, replace(folder.row))
        return part

    def add(
        self,
        folder: Folder,
        file: str,
        bits: int,
        date: int,
        octets: int,
        *,
        emailid: str | None = None,
        threadid: str | None = None,
    ) -> int:
        """A new message; its UID. Raises LimitReached after four billion."""
        part = self._part(folder)
        uid = part.row.uidnext
        if uid > _LAST_UID:
            raise LimitReached("the mailbox has given out all its UIDs")
        part.row.uidnext += 1
        saved = int(folder.opened.clock())
        part.added.append(MessageRow(uid, file, bits, date, saved, octets, emailid, threadid))
        totals(part.row, bits, octets, 1)
        return uid

    def flag(self, folder: Folder, uid: int, file: str, bits: int) -> None:
        """A message has another file name, and perhaps other flags."""
        part = self._part(folder)
        at = folder.index(uid)
        old, octets = folder.flags[at], folder.octets[at]
        totals(part.row, old, octets, -1)
        totals(part.row, bits, octets, 1)
        part.flagged.append((uid, file, bits, bits != old))

    def remove(self, folder: Folder, uids: Iterable[int], doomed: Iterable[str] = ()) -> None:
        """Messages are expunged; `doomed`: base names of files that must go if they are found again."""
        part = self._part(folder)
        for uid in uids:
            at = folder.index(uid)
            totals(part.row, folder.flags[at], folder.octets[at], -1)
            part.removed.append(uid)
        part.doomed.extend(doomed)

    def keywords(self, folder: Folder, names: Mapping[int, str]) -> None:
        """Keyword numbers have new names."""
        self._part(folder).keywords.update(names)

    def commit(self, between: Callable[[], None] = lambda: None) -> int:
        """All of it; the modseq that it got, 0 if there was nothing. On an exception nothing was changed.

        `between`: done once it is committed, before the answers of expunged messages leave cache.db.
        """
        parts = list(self._parts.values())
        if not parts:
            return 0
        state = parts[0].folder.opened.state
        with state.transaction(durable=self._durable):
            modseq = state.next_modseq()
            for part in parts:
                self._write(part, modseq)
        between()
        for part in parts:
            self._show(part, modseq)
        for part in parts:
            self._tell(part, modseq)
        return modseq

    def _write(self, part: _Part, modseq: int) -> None:
        state, row = part.folder.opened.state, part.row
        visible = part.added or part.removed or any(new for _, _, _, new in part.flagged)
        if visible:
            row.modseq = modseq
        for number, name in part.keywords.items():
            state.set_keyword(row.id, number, name)
        if part.flagged:
            before = part.folder
            state.change_messages(
                row.id,
                [
                    (file, bits, modseq if new else before.modseqs[before.index(uid)], uid)
                    for uid, file, bits, new in part.flagged
                ],
            )
        if part.removed:
            state.remove_messages(row.id, part.removed, modseq, part.doomed)
        if part.added:
            state.add_messages(row.id, modseq, part.added)
        # Zero while our own renames are all that set them: the next run then compares names.
        row.new_time, row.cur_time = part.folder.new_seen.verified, part.folder.cur_seen.verified
        state.save_mailbox(row)

    def _show(self, part: _Part, modseq: int) -> None:
        folder = part.folder
        for name in _FIELDS:  # the account's list of mailboxes has the same object
            setattr(folder.row, name, getattr(part.row, name))
        folder.keywords.learn(part.keywords)
        for uid, _, bits, new in part.flagged:
            if new:
                at = folder.index(uid)
                folder.flags[at] = bits
                folder.modseqs[at] = modseq
        if part.removed:
            folder.drop(part.removed)
            folder.opened.cache.remove(part.row.id, part.removed)
        folder.add(part.added, modseq)

    def _tell(self, part: _Part, modseq: int) -> None:
        change = Change(
            part.folder.opened.address,
            part.row.mailboxid,
            modseq,
            tuple(row.uid for row in part.added),
            tuple(sorted(uid for uid, _, _, new in part.flagged if new)),
            tuple(sorted(part.removed)),
            self._origin,
        )
        if change.added or change.flagged or change.expunged:
            part.folder.opened.notifier.publish(change)
