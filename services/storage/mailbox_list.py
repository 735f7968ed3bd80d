"""The mailboxes of one account by name: rows of state.db brought together with the folders on the disk.

Used by account. The disk is right about which folders there are. A folder that another program renamed keeps its UIDs:
a row without a folder and a folder without a row that hold the same files are one mailbox. (So does ours, if a crash
comes between the renames and the commit.)
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import count

from services.storage.errors import LimitReached, MailboxExists, MailboxInUse, MailboxMissing, MailboxUnderItself
from services.storage.folder import Opened
from services.storage.folder_names import INBOX, SEPARATOR, canonical, from_folder, to_folder
from services.storage.maildir import scan, split
from services.storage.paths import FOLDER, walk
from services.storage.provision import make_folder, make_mailbox
from services.storage.seen import Seen
from services.storage.state import MailboxRow

# RFC 6154 attributes of mailboxes with these names, as docker-mailserver configures Dovecot; others by CREATE's USE.
SPECIAL_USE = {
    "Drafts": "\\Drafts",
    "Sent": "\\Sent",
    "Junk": "\\Junk",
    "Trash": "\\Trash",
    "Archive": "\\Archive",
}
_ATTRIBUTES = frozenset(("\\All", "\\Flagged", *SPECIAL_USE.values()))
# Each costs a folder and two descriptors while it is looked at; a client that makes more has lost its way.
MOST_MAILBOXES = 5_000
# Begins with two dots: no mailbox for us, nor for Dovecot.
_GONE = "..gone."


class MailboxList:
    """Rows by name, kept true to the disk."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._seen = Seen(opened.root)
        self._rows = {row.name: row for row in opened.state.mailboxes()}
        self._removed: list[int] = []

    def rows(self) -> dict[str, MailboxRow]:
        """All mailboxes by name, after a look at the Maildir where it has changed."""
        if INBOX not in self._rows or self._seen.is_other(patient=False):
            self._reconcile()
        return self._rows

    def find(self, name: str) -> MailboxRow:
        """Raises MailboxMissing, BadName."""
        name = canonical(name)
        row = self.rows().get(name)
        if row is None:
            raise MailboxMissing(name)
        return row

    def removed(self) -> list[int]:
        """Ids of mailboxes that went since the last call, so that what is open of them can be closed."""
        gone, self._removed = self._removed, []
        return gone

    def create(self, name: str, special_use: str = "") -> MailboxRow:
        """The folder, then the row; a crash between leaves a folder, which is a mailbox. Raises as CREATE does."""
        name = canonical(name)
        rows = self.rows()
        if name in rows:
            raise MailboxExists(name)
        if len(rows) >= MOST_MAILBOXES:
            raise LimitReached(f"an account has at most {MOST_MAILBOXES} mailboxes")
        folder = to_folder(name)
        with self._seen.changing():
            make_mailbox(self._opened.root, folder)
        return self._add([(name, folder)], special_use if special_use in _ATTRIBUTES else "")[0]

    def delete(self, name: str) -> MailboxRow:
        """The folder gets a name that is none, durably; then the row goes, then the files. Raises as DELETE does."""
        row = self.find(name)
        if row.name == INBOX:
            raise MailboxInUse(INBOX)
        gone = _GONE + secrets.token_hex(6)
        root = self._opened.root
        with self._seen.changing():
            os.rename(row.folder, gone, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)
            self._remove([row])
            shutil.rmtree(gone, ignore_errors=True, dir_fd=root)
        return row

    def rename(self, old: str, new: str) -> None:
        """The mailbox and its children: folders first, then one commit. Raises as RENAME does; not for INBOX."""
        old, new = canonical(old), canonical(new)
        rows = self.rows()
        moved = {name: new + name[len(old) :] for name in rows if name == old or name.startswith(old + SEPARATOR)}
        if not moved:
            raise MailboxMissing(old)
        if new.startswith(old + SEPARATOR):
            raise MailboxUnderItself(old)
        for target in moved.values():
            if (target in rows and target not in moved) or canonical(target) != target or target == INBOX:
                raise MailboxExists(target)
        if new == old or any(target in moved for target in moved.values()):
            raise MailboxExists(new)  # into itself, name for name
        root = self._opened.root
        with self._seen.changing():
            done: list[tuple[str, str]] = []
            try:
                for name, target in moved.items():
                    if _is_there(root, to_folder(target)):
                        raise MailboxExists(target)
                    os.rename(rows[name].folder, to_folder(target), src_dir_fd=root, dst_dir_fd=root)
                    done.append((rows[name].folder, to_folder(target)))
                os.fsync(root)
            except BaseException:
                for here, there in reversed(done):
                    os.rename(there, here, src_dir_fd=root, dst_dir_fd=root)
                raise
        self._rename_rows([(rows[name], target, to_folder(target)) for name, target in moved.items()])

    def clean(self) -> None:
        """Remove what an interrupted `delete` left."""
        for name in os.listdir(self._opened.root):
            if name.startswith(_GONE):
                shutil.rmtree(name, ignore_errors=True, dir_fd=self._opened.root)

    def _reconcile(self) -> None:
        before, started = self._seen.now(), time.time_ns()
        on_disk = {"": INBOX, **dict(self._folders())}
        lost = [row for row in self._rows.values() if row.folder not in on_disk]
        known = {row.folder for row in self._rows.values()}
        new = [(name, folder) for folder, name in sorted(on_disk.items()) if folder not in known]
        if lost and new:
            renamed = list(self._recognise(lost, new))
            self._rename_rows(renamed)
            lost = [row for row in lost if all(row is not other for other, _, _ in renamed)]
            new = [one for one in new if all(one[1] != folder for _, _, folder in renamed)]
        if lost:
            self._remove(lost)
        names = {row.name for row in self._rows.values()}
        named = []
        for name, folder in new:
            # Two folders may stand for one name (modified UTF-7 and UTF-8): mail in the second must be seen too.
            own = next(one for number in count(1) if (one := name if number == 1 else f"{name}-{number}") not in names)
            names.add(own)
            named.append((own, folder))
        if named:
            self._add(named)
        self._seen.listed(before, started)

    def _folders(self) -> Iterator[tuple[str, str]]:
        with os.scandir(self._opened.root) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    name = from_folder(entry.name)
                    if name is not None and _is_there(self._opened.root, f"{entry.name}/cur"):
                        yield entry.name, name

    def _recognise(
        self, lost: Iterable[MailboxRow], new: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[MailboxRow, str, str]]:
        """(row, name, folder) of rows whose messages lie in a new folder."""
        unknown = {folder: name for name, folder in new}
        for row in lost:
            files = self._opened.state.files(row.id)
            bases = {split(file)[0] for file in files.values()}
            for folder, name in unknown.items():
                if bases and bases & self._bases(folder):
                    yield row, name, folder
                    del unknown[folder]
                    break

    def _bases(self, folder: str) -> set[str]:
        descriptor = walk(self._opened.root, folder, "cur", last=FOLDER)
        try:
            return {split(name)[0] for name in scan(descriptor)}
        finally:
            os.close(descriptor)

    def _add(self, named: Iterable[tuple[str, str]], special_use: str = "") -> list[MailboxRow]:
        state, clock = self._opened.state, self._opened.clock
        used = {row.special_use for row in self._rows.values()}
        added = []
        with state.transaction(durable=True):
            for name, folder in named:
                use = special_use or (SPECIAL_USE.get(name, "") if SPECIAL_USE.get(name) not in used else "")
                row = MailboxRow(
                    id=0, mailboxid="F" + secrets.token_hex(12), name=name, folder=folder, special_use=use,
                    uidvalidity=state.next_uidvalidity(), uidnext=1, recent_from=1, modseq=state.next_modseq(),
                    forgotten=0, created=int(clock()),
                )  # fmt: skip
                row.id = state.insert_mailbox(row)
                added.append(row)
        for row in added:
            self._complete(row.folder)
            self._rows[row.name] = row
        return added

    def _complete(self, folder: str) -> None:
        """Make what another program left out of cur, new and tmp."""
        descriptor = walk(self._opened.root, folder, last=FOLDER) if folder else os.dup(self._opened.root)
        try:
            make_folder(descriptor)
        finally:
            os.close(descriptor)

    def _remove(self, rows: Iterable[MailboxRow]) -> None:
        gone = list(rows)
        with self._opened.state.transaction(durable=True):
            for row in gone:
                self._opened.state.remove_mailbox(row.id)
        for row in gone:
            self._opened.cache.remove(row.id)
            del self._rows[row.name]
            self._removed.append(row.id)

    def _rename_rows(self, renamed: Iterable[tuple[MailboxRow, str, str]]) -> None:
        changes = list(renamed)
        before = [(row, row.name, row.folder) for row, _, _ in changes]
        for row, _, _ in changes:
            del self._rows[row.name]
        for row, name, folder in changes:
            row.name, row.folder = name, folder
        try:
            with self._opened.state.transaction(durable=True):
                for row, _, _ in changes:
                    self._opened.state.save_mailbox(row)
        except BaseException:
            for row, name, folder in before:
                row.name, row.folder = name, folder
            raise
        finally:
            for row, _, _ in changes:
                self._rows[row.name] = row


def _is_there(root: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=root, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
