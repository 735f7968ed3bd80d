"""STORE: flags into file names and state.db.

Called by mailbox. The order: the keyword's name into `dovecot-keywords`, the renames, one commit, then memory and
listeners. A crash between rename and commit leaves names that say more than state.db, and the next look believes the
names. Neither is fsynced here (see `state` for what a power cut may undo); `Folder.settle` does both, names first.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Literal

from services.storage.edit import Edit
from services.storage.folder import Folder
from services.storage.look import look, name_keywords
from services.storage.maildir import LETTER_BITS, foreign, join, letters_of, split

StoreMode = Literal["+", "-", "="]


def store(
    folder: Folder,
    uids: Sequence[int],
    mode: StoreMode,
    names: Sequence[str],
    unchanged_since: int | None,
    origin: object,
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """UIDs changed, UIDs refused (RFC 7162 §3.1.3) and the modseq. Raises LimitReached, BadName, MailboxMissing."""
    folder.check()
    if mode != "-":
        name_keywords(folder, names)
    change = _change(mode, folder.keywords.bits(names))
    wanted: dict[int, int] = {}
    refused: list[int] = []
    for uid in uids:
        at = folder.index(uid)
        if at < 0:
            continue
        if unchanged_since is not None and folder.modseqs[at] > unchanged_since:
            refused.append(uid)
        elif (bits := change(folder.flags[at])) != folder.flags[at]:
            wanted[uid] = bits
    done, lost = _rename(folder, wanted)
    if lost:  # renamed by another program since we looked: its flags first, then ours
        look(folder, force=True)
        again = {uid: change(folder.flags[at]) for uid in lost if (at := folder.index(uid)) >= 0}
        more, _ = _rename(folder, again)
        done |= more
    edit = Edit(durable=False, origin=origin)
    for uid, file in done.items():
        edit.flag(folder, uid, file, change(folder.flags[folder.index(uid)]))
    modseq = edit.commit()
    return tuple(sorted(done)), tuple(refused), modseq or folder.row.modseq


def _change(mode: StoreMode, bits: int) -> Callable[[int], int]:
    if mode == "+":
        return lambda old: old | bits
    if mode == "-":
        return lambda old: old & ~bits
    return lambda _: bits


def _rename(folder: Folder, wanted: dict[int, int]) -> tuple[dict[int, str], list[int]]:
    """Give files the letters of their new bits; (UID → file name now, UIDs whose file was not there)."""
    done: dict[int, str] = {}
    lost: list[int] = []
    if not wanted:
        return done, lost
    letters = folder.keywords.letters
    files = folder.opened.state.files(folder.row.id, list(wanted))
    with folder.cur_seen.changing():
        for uid, old in files.items():
            base, had = split(old)
            bits = wanted[uid]
            new = join(base, letters_of(bits & LETTER_BITS, foreign(had, letters)))
            if new != old:
                try:
                    os.rename(old, new, src_dir_fd=folder.cur, dst_dir_fd=folder.cur)
                    folder.unsynced = True
                except FileNotFoundError:
                    lost.append(uid)
                    continue
                except OSError as error:
                    if error.errno != errno.ENAMETOOLONG:
                        folder.cur_seen.forget()  # those renamed before it are found by the next look
                        raise
                    new = old  # a foreign name at the limit: state.db alone has these flags
            done[uid] = new
    return done, lost
