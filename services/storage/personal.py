"""What the imap room knows of one account and smtp-in needs at the final dot: small files, replaced whole.

`<personal_dir>/<domain>/<local>/NAME`: `junk.model` (see `junk_model`), `rules.sieve`. imap calls `publish`; smtp-in
reads through `Reader`, and no room waits for another. Both files can be made again from state.db, so a missing or
unreadable one only means that nothing is known of the account: a reader never raises for it.

A file is replaced by rename (`atomic`): a reader has the old one or the new one, whole, also after a power cut. What is
mapped is never written to afterwards, so no reader is killed by a file that shrinks under it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.storage.atomic import fsync_folder, write_durable_at
from services.storage.errors import BadName, MailboxMissing
from services.storage.paths import FOLDER, READ, account_parts, walk

Value = TypeVar("Value")
Buffer = bytes | mmap.mmap

JUNK_MODEL = "junk.model"
RULES = "rules.sieve"

# imap writes, smtp-in is in the mail group and reads; setgid, so that the files are in that group too.
_FOLDER_MODE, _FILE_MODE = 0o2750, 0o640
# How late a new file may be seen: one `stat` a second and account, not one a message.
STALE_SECONDS = 1.0
# From here on the kernel keeps the pages, once for all processes, and takes them back when it needs memory.
_MAP_FROM = 65_536
# Accounts whose values are kept at hand.
_KEPT = 256


def publish(personal_dir: str, address: str, name: str, data: bytes, *, durable: bool = True) -> None:
    """Replace the account's file `name` by `data`, durably unless `durable` is False. Raises BadName, OSError.

    The folders are made where they are missing; `personal_dir` itself is setup's to make.
    """
    volume = os.open(personal_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, volume)
        here = volume
        for part in account_parts(address):
            here = _folder(here, part)
            undo.callback(os.close, here)
        write_durable_at(here, name, data, _FILE_MODE, durable=durable)


def withdraw(personal_dir: str, address: str, name: str) -> bool:
    """Remove the account's file `name`; whether it was there. Raises BadName, OSError."""
    volume = os.open(personal_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, volume)
        try:
            here = walk(volume, *account_parts(address), last=FOLDER)
            undo.callback(os.close, here)
            os.unlink(name, dir_fd=here)
        except (MailboxMissing, FileNotFoundError):
            return False
        fsync_folder(here)
        return True


def _folder(above: int, part: str) -> int:
    try:
        os.mkdir(part, _FOLDER_MODE, dir_fd=above)
    except FileExistsError:
        return os.open(part, FOLDER, dir_fd=above)
    here = os.open(part, FOLDER, dir_fd=above)
    os.fchmod(here, _FOLDER_MODE)  # whatever the umask
    fsync_folder(above)
    return here


@dataclass(slots=True)
class _Seen(Generic[Value]):
    """What was read, from which file, and when somebody last looked whether it is still that one."""

    value: Value | None
    identity: tuple[int, int, int] | None  # inode, mtime in ns, octets; None = there was no file
    looked: float


class Reader(Generic[Value]):
    """The values of one kind of file, by account; for one thread.

    `make` gets the file's octets (a mapping where they are many: keep a memoryview of it, no copy) and raises
    ValueError for what it cannot use. Inode, time and size together name a file: inodes alone are reused by ext4.
    """

    def __init__(
        self,
        personal_dir: str,
        name: str,
        make: Callable[[Buffer], Value],
        *,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`most`: octets of the largest file that is believed; `clock`: seconds, of any beginning."""
        self._dir, self._name, self._make, self._most, self._clock = personal_dir, name, make, most, clock
        self._seen: OrderedDict[str, _Seen[Value]] = OrderedDict()

    def get(self, address: str) -> Value | None:
        """The account's value; None where there is no file, or none that can be used. Never raises for the disk."""
        now = self._clock()
        seen = self._seen.get(address)
        if seen is not None and 0 <= now - seen.looked < STALE_SECONDS:
            return seen.value
        seen = self._look(address, seen, now)
        self._seen[address] = seen
        self._seen.move_to_end(address)
        if len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        return seen.value

    def _look(self, address: str, seen: _Seen[Value] | None, now: float) -> _Seen[Value]:
        try:
            descriptor = self._open(address)
        except (OSError, BadName, MailboxMissing):
            return _Seen(None, None, now)
        try:
            status = os.fstat(descriptor)
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen is not None and seen.identity == identity:
                seen.looked = now
                return seen
            if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= self._most:
                return _Seen(None, identity, now)
            return _Seen(self._make(_octets(descriptor, status.st_size)), identity, now)
        except (OSError, ValueError):
            return _Seen(None, None, now)
        finally:
            os.close(descriptor)

    def _open(self, address: str) -> int:
        volume = os.open(self._dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folder = walk(volume, *account_parts(address))
        finally:
            os.close(volume)
        try:
            return os.open(self._name, READ, dir_fd=folder)
        finally:
            os.close(folder)


def _octets(descriptor: int, size: int) -> Buffer:
    if size >= _MAP_FROM:
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    data = os.pread(descriptor, size, 0)
    if len(data) < size:
        raise ValueError("shorter than it was a moment ago")
    return data
