"""One mailbox while it is open: its folders, and its messages as columns in memory.

Made by account; used by look, edit, flags, transfer and expunge, which change it, and by mailbox, which shows it. Knows
how the columns and the row belong together, nothing of IMAP.
"""

from __future__ import annotations

import contextlib
import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.storage.cache import Cache
from services.storage.codec import Codec
from services.storage.errors import MailboxMissing
from services.storage.keywords import Keywords
from services.storage.maildir import DELETED, SEEN, UniqueNames
from services.storage.notifier import Notifier
from services.storage.paths import FOLDER, walk
from services.storage.seen import Seen
from services.storage.state import MailboxRow, MailboxState, MessageRow

_LEFTOVER_SECONDS = 36 * 3_600  # the Maildir specification's age: nobody is still writing it


@dataclass(frozen=True, slots=True)
class Opened:
    """What the mailboxes of one open account share."""

    address: str
    root: int  # the Maildir
    state: MailboxState
    cache: Cache
    names: UniqueNames
    codec: Codec
    notifier: Notifier
    clock: Callable[[], float]
    scratch: str  # a folder of our own for files without a name


class Folder:
    """The open mailbox. Columns are parallel and ascending by UID."""

    def __init__(self, opened: Opened, row: MailboxRow) -> None:
        """Open its folders and read its columns. Raises MailboxMissing, OSError."""
        self.opened = opened
        self.row = row
        self.alive = True
        self.unsynced = False  # names changed that no fsync has covered yet
        self.doomed = False  # expunged files whose removal no fsync has covered yet
        self._descriptors: list[int] = []
        self.cur = -1
        self.new = self._open("new")
        self.cur = self._open("cur")
        self.new_seen = Seen(self.new, row.new_time)
        self.cur_seen = Seen(self.cur, row.cur_time)
        self.keywords = Keywords(opened.state.keywords(row.id))
        self.keywords_time = -1
        columns = opened.state.columns(row.id)
        self.uids: array[int] = columns.uids
        self.flags: array[int] = columns.flags
        self.modseqs: array[int] = columns.modseqs
        self.dates: array[int] = columns.dates
        self.octets: array[int] = columns.octets
        if opened.state.doomed(row.id):  # left by a crash: the first look lists all names and finds what must go
            self.cur_seen.forget()
            self.unsynced = self.doomed = True

    def _open(self, part: str) -> int:
        try:
            descriptor = walk(self.opened.root, *self.path, part, last=FOLDER)
        except BaseException:
            self.close()
            raise
        self._descriptors.append(descriptor)
        return descriptor

    @property
    def path(self) -> tuple[str, ...]:
        """Its place below the Maildir, now."""
        return (self.row.folder,) if self.row.folder else ()

    def close(self) -> None:
        """Close the folders. Idempotent."""
        self.alive = False
        if self.unsynced and self._descriptors:
            self.unsynced = False
            with contextlib.suppress(OSError):
                os.fsync(self.cur)
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_descriptors"):
            self.close()

    def check(self) -> None:
        """Raises MailboxMissing where the mailbox was deleted, by us or by another program, or its account closed."""
        if not self.alive or os.fstat(self.cur).st_nlink == 0:
            raise MailboxMissing(self.row.name)

    def open_root(self) -> int:
        """A descriptor of the folder that has cur, new and tmp; the caller closes it."""
        return walk(self.opened.root, *self.path, last=FOLDER) if self.path else os.dup(self.opened.root)

    def open_tmp(self) -> int:
        """A descriptor of tmp/; the caller closes it."""
        return walk(self.opened.root, *self.path, "tmp", last=FOLDER)

    def index(self, uid: int) -> int:
        """Position of `uid` in the columns, -1 if it is not there."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else -1

    def used_bits(self) -> int:
        """All flag bits that any message has."""
        used = 0
        for bits in set(self.flags):
            used |= bits
        return used

    def add(self, rows: Iterable[MessageRow], modseq: int) -> None:
        """Take messages into the columns; their UIDs are higher than all there."""
        for row in rows:
            self.uids.append(row.uid)
            self.flags.append(row.flags)
            self.modseqs.append(modseq)
            self.dates.append(row.date)
            self.octets.append(row.octets)

    def drop(self, uids: Iterable[int]) -> None:
        """Take messages out of the columns."""
        gone = set(uids)
        if len(gone) < 8:  # an array moves its tail faster than a loop builds it anew
            for at in sorted((self.index(uid) for uid in gone), reverse=True):
                for column in (self.uids, self.flags, self.modseqs, self.dates, self.octets):
                    del column[at]
            return
        kept = [at for at, uid in enumerate(self.uids) if uid not in gone]
        for name in ("uids", "flags", "modseqs", "dates", "octets"):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, [column[at] for at in kept]))

    def settle(self) -> None:
        """fsync what was renamed or removed without; then files that had to go may be forgotten."""
        state, row = self.opened.state, self.row
        if self.unsynced:
            self.unsynced = False
            os.fsync(self.cur)
        if self.doomed:
            self.doomed = False
            os.fsync(self.new)
            with state.transaction(durable=False):
                state.forget_doomed(row.id)
        times = (self.new_seen.verified, self.cur_seen.verified)
        if times != (row.new_time, row.cur_time) and all(times):
            row.new_time, row.cur_time = times
            with state.transaction(durable=False):
                state.save_mailbox(row)

    def clean_tmp(self) -> None:
        """Remove what programs that died left in tmp/ long ago."""
        with contextlib.suppress(OSError, MailboxMissing):
            tmp = self.open_tmp()
            try:
                before = time.time() - _LEFTOVER_SECONDS
                for name in os.listdir(tmp):
                    status = os.stat(name, dir_fd=tmp, follow_symlinks=False)
                    if max(status.st_mtime, status.st_ctime) < before:
                        os.unlink(name, dir_fd=tmp)
            finally:
                os.close(tmp)


def totals(row: MailboxRow, bits: int, octets: int, sign: int) -> None:
    """Count a message into (`sign` 1) or out of (-1) the sums of its mailbox's row."""
    row.messages += sign
    row.unseen += 0 if bits & SEEN else sign
    row.deleted += sign if bits & DELETED else 0
    row.octets += sign * octets
