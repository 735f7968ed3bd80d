"""EXPUNGE: messages out of state.db, then out of the Maildir.

Called by mailbox. The order: one durable commit that expunges the UIDs and notes the files as doomed, with memory and
listeners; then the removals. A crash between leaves files that state.db knows to be doomed, and the next look removes
them: what a client was told is gone does not come back as a new message. Once the removals are fsynced
(`Folder.settle`) the notes are dropped, so that a file restored from a backup by hand is a message again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from services.storage.edit import Edit
from services.storage.folder import Folder
from services.storage.maildir import scan, split


def expunge(folder: Folder, uids: Iterable[int], origin: object) -> tuple[int, ...]:
    """Expunge those of `uids` that are there; which, ascending. Raises MailboxMissing, OSError."""
    folder.check()
    here = sorted({uid for uid in uids if folder.index(uid) >= 0})
    if not here:
        return ()
    files = folder.opened.state.files(folder.row.id, here)
    edit = Edit(durable=True, origin=origin)
    edit.remove(folder, here, [split(file)[0] for file in files.values()])
    edit.commit()
    with folder.cur_seen.changing():
        lost = set()
        for file in files.values():
            try:
                os.unlink(file, dir_fd=folder.cur)
            except FileNotFoundError:
                lost.add(split(file)[0])
        if lost:
            _hunt(folder, lost)
    folder.unsynced = folder.doomed = True
    return tuple(here)


def _hunt(folder: Folder, bases: set[str]) -> None:
    """Remove files that another program renamed since we looked."""
    for where in (folder.cur, folder.new):
        for name in scan(where):
            if split(name)[0] in bases:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=where)
