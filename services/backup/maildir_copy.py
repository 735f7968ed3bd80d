"""One account's mail as hard links, complete although it is in use: a rename in progress loses no message.

A folder that is listed while a client marks mail read may show a renamed message under neither name. So the list comes
from the account's state: what state.db knows and the walk did not find is looked for again, until state and links
agree; what state.db does not know yet (just delivered) comes from the walk. Links keep a message that is expunged
meanwhile; one that moved to another folder is kept where the state has it last.

Works in the mail volume's `.backup-<id>`, on names alone; follows no link and opens no message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.storage.maildir import split

ROUNDS = 8  # each looks only for what is still missing; a client does not rename the same message eight times in a row
SUBFOLDERS = ("cur", "new")  # tmp/ holds what nobody was told 250 for

Known = dict[str, dict[str, str]]


@dataclass(slots=True)
class Copy:
    """What was linked: (folder, base) → (subfolder, name). `missing`: known to the state, found nowhere."""

    messages: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)


def copy_account(account: str, farm: str, state: Callable[[], Known]) -> Copy:
    """Link all messages of the Maildir `account` into `farm/<folder>/<cur|new>/`; `farm` is new.

    `state` gives what a fresh copy of state.db knows ({} without one); it is asked once a round.
    """
    copy = Copy()
    known: Known = {}
    for _ in range(ROUNDS):
        for folder, sub, name in walk(account):
            _link(account, farm, copy, folder, sub, name)
        known = state()
        copy.missing = [key for key in _keys(known) if key not in copy.messages]
        if not copy.missing:
            break
    _drop_moved(account, farm, copy, known)
    _name_as_known(farm, copy, known)
    return copy


def walk(account: str) -> Iterator[tuple[str, str, str]]:
    """(folder, cur or new, name) of every message of a Maildir++ tree; folder "" is INBOX."""
    for folder in ("", *folders(account)):
        for sub in SUBFOLDERS:
            for entry in _listed(os.path.join(account, folder, sub)):
                if not entry.name.startswith(".") and not entry.is_dir(follow_symlinks=False):
                    yield folder, sub, entry.name


def folders(account: str) -> list[str]:
    """The Maildir++ folders below INBOX, by their names on disk."""
    with os.scandir(account) as entries:
        return sorted(
            entry.name for entry in entries if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []  # a folder that was deleted or renamed since its parent was listed


def _keys(known: Known) -> Iterator[tuple[str, str]]:
    for folder, messages in known.items():
        for base in messages:
            yield folder, base


def _link(account: str, farm: str, copy: Copy, folder: str, sub: str, name: str) -> None:
    key = (folder, split(name)[0])
    if key in copy.messages:
        return
    target = os.path.join(farm, folder, sub, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # renamed or expunged since it was listed: the next round knows
        hard_link(os.path.join(account, folder, sub, name), target)
        copy.messages[key] = (sub, name)


def hard_link(source: str, target: str) -> None:
    """Link, or copy where the file system has no hard links or no more of them. Follows no symbolic link."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def _drop_moved(account: str, farm: str, copy: Copy, known: Known) -> None:
    """Take out what left its folder while we walked: linked, but neither in the state nor on the disk any more."""
    here = {(folder, split(name)[0]) for folder, _, name in walk(account)}
    for key in [key for key in copy.messages if key not in here and key[1] not in known.get(key[0], {})]:
        sub, name = copy.messages.pop(key)
        os.unlink(os.path.join(farm, key[0], sub, name))


def _name_as_known(farm: str, copy: Copy, known: Known) -> None:
    """Give each message the name that the state has for it: its flags may have changed since it was linked."""
    for (folder, base), (sub, name) in copy.messages.items():
        wanted = known.get(folder, {}).get(base)
        if wanted is None or (sub, name) == ("cur", wanted):
            continue
        target = os.path.join(farm, folder, "cur", wanted)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(os.path.join(farm, folder, sub, name), target)
        copy.messages[folder, base] = ("cur", wanted)
