"""The way into the tar: `python -m services.backup save`.

Holds a lock on the mail volume while it runs. Leaves nothing behind: the links of a copy that was cut off are removed
by the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO

from services.backup import contents, maildir_copy
from services.backup.archive import Writer
from services.storage import copies

FARM = ".backup-"
DELETED = ".deleted"  # mail of deleted accounts, kept for 30 days


class BackupRunning(Exception):
    """Another backup or restore holds the volumes."""


@dataclass(slots=True)
class Saved:
    """What went into the tar, for the owner."""

    accounts: int = 0
    messages: int = 0
    queued: int = 0
    files: int = 0
    octets: int = 0
    warnings: list[str] = field(default_factory=list)


@contextmanager
def alone(root: str) -> Iterator[None]:
    """Hold the volumes against another backup or restore. Raises BackupRunning."""
    descriptor = os.open(os.path.join(root, contents.MAIL), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise BackupRunning("another backup or restore of this stack is running") from None
    try:
        yield
    finally:
        os.close(descriptor)


def save(root: str, environment: IO[bytes], output: IO[bytes], created: float) -> Saved:
    """Write everything below `root` (a folder per volume) and the env files of the tar `environment` to `output`.

    Raises BackupRunning, DamagedBackup, OSError: then `output` is not a whole tar, and says so when it is checked.
    """
    with alone(root):
        if copies.restore_unfinished(os.path.join(root, contents.MAIL)):
            raise BackupRunning("a restore was cut off here: run scripts/restore again before a backup")
        work = _new_farm(os.path.join(root, contents.MAIL), f"{created:.0f}")
        try:
            with open(os.path.join(work, "sums"), "w+b") as sums:
                return _Saving(root, work, Writer(output, sums)).everything(environment, created)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _new_farm(volume: str, name: str) -> str:
    """A new folder for links in `volume`, without those of an earlier run that was cut off."""
    for entry in os.listdir(volume):
        if entry.startswith(FARM):
            shutil.rmtree(os.path.join(volume, entry))
    farm = os.path.join(volume, FARM + name)
    os.mkdir(farm, 0o700)
    return farm


class _Saving:
    def __init__(self, root: str, work: str, writer: Writer) -> None:
        self._root, self._work, self._writer = root, work, writer
        self._saved = Saved()

    def everything(self, environment: IO[bytes], created: float) -> Saved:
        mail = os.stat(self._volume(contents.MAIL))
        about = {"format": contents.FORMAT, "created": int(created), "mail_uid": mail.st_uid, "mail_gid": mail.st_gid}
        self._writer.data(contents.ABOUT, json.dumps(about).encode() + b"\n")
        self._env(environment)
        for volume in contents.BEFORE:
            self._tree(volume, "")
        self._queue()
        self._mailboxes()
        for volume in contents.AFTER:
            self._tree(volume, "")
        self._writer.close()
        self._saved.files, self._saved.octets = self._writer.files, self._writer.octets
        return self._saved

    def _volume(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _env(self, environment: IO[bytes]) -> None:
        """The owner's settings, handed over by scripts/backup as a small tar."""
        with tarfile.open(fileobj=environment, mode="r|") as tar:
            for info in tar:
                source = tar.extractfile(info) if info.isreg() and contents.restorable(info.name) else None
                if source is not None:
                    self._writer.data(info.name, source.read())

    def _tree(self, volume: str, below: str) -> None:
        """Everything in a folder of a volume but what can be made again. What vanishes meanwhile was not wanted."""
        with os.scandir(os.path.join(self._root, volume, below)) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            path = os.path.join(below, entry.name)
            if contents.derived(volume, entry.name):
                continue
            name = f"{volume}/{path}"
            with suppress(FileNotFoundError):
                if entry.is_symlink():
                    self._writer.link(name, os.readlink(entry.path), entry.stat(follow_symlinks=False))
                elif entry.is_dir(follow_symlinks=False):
                    self._writer.folder(name, entry.stat(follow_symlinks=False))
                    self._tree(volume, path)
                elif contents.is_database(volume, entry.name):
                    self._database(name, entry.path)
                else:
                    self._writer.file(name, entry.path)

    def _database(self, name: str, path: str) -> str:
        """Add a copy of a database, with the owner and mode of the original; the copy's path."""
        copy = os.path.join(self._work, "database")
        with suppress(FileNotFoundError):
            os.unlink(copy)
        copies.copy_database(path, copy)
        state = os.stat(path)
        os.chown(copy, state.st_uid, state.st_gid)
        os.chmod(copy, stat.S_IMODE(state.st_mode))
        self._writer.file(name, copy)
        return copy

    def _queue(self) -> None:
        """Messages, then the state, then the messages that came in between: each row of the state has its file.

        One that left in between has a row and a file, or a row alone; a restored queue drops the latter (it had
        arrived) and holds the former for its owner.
        """
        spool = self._volume(contents.SPOOL)
        path = os.path.join(spool, "queue.db")
        if not os.path.exists(path):
            return
        messages = os.path.join(spool, "msg")
        farm = _new_farm(spool, os.path.basename(self._work).removeprefix(FARM))
        try:
            self._link_all(messages, farm)
            self._database(f"{contents.SPOOL}/queue.db", path)
            self._link_all(messages, farm)
            self._writer.folder(f"{contents.SPOOL}/msg", os.stat(messages))
            for name in sorted(os.listdir(farm)):
                self._writer.file(f"{contents.SPOOL}/msg/{name}", os.path.join(farm, name))
                self._saved.queued += 1
        finally:
            shutil.rmtree(farm, ignore_errors=True)

    def _link_all(self, source: str, farm: str) -> None:
        for name in os.listdir(source):
            with suppress(FileNotFoundError, FileExistsError):
                maildir_copy.hard_link(os.path.join(source, name), os.path.join(farm, name))

    def _mailboxes(self) -> None:
        """Account by account: links, state, tar, links away; so that the extra links are one account's at most."""
        mail = self._volume(contents.MAIL)
        for domain in _folders(mail):
            if domain.startswith("."):
                continue
            self._writer.folder(f"{contents.MAIL}/{domain}", os.stat(os.path.join(mail, domain)))
            self._state_folder(domain)
            for local in _folders(os.path.join(mail, domain)):
                self._account(domain, local)
        if DELETED in _folders(mail):
            self._writer.folder(f"{contents.MAIL}/{DELETED}", os.stat(os.path.join(mail, DELETED)))
            self._tree(contents.MAIL, DELETED)

    def _state_folder(self, below: str) -> None:
        with suppress(FileNotFoundError):
            self._writer.folder(f"{contents.STATE}/{below}", os.stat(os.path.join(self._volume(contents.STATE), below)))

    def _account(self, domain: str, local: str) -> None:
        account = os.path.join(self._volume(contents.MAIL), domain, local)
        state = os.path.join(self._volume(contents.STATE), domain, local, "state.db")
        copied = os.path.join(self._work, "state.db")
        farm = os.path.join(self._work, "account")
        os.mkdir(farm, 0o700)

        def known() -> maildir_copy.Known:
            with suppress(FileNotFoundError):
                os.unlink(copied)
            if not os.path.exists(state):
                return {}
            copies.copy_database(state, copied)
            return copies.known_messages(copied)

        try:
            copy = maildir_copy.copy_account(account, farm, known)
            self._state_folder(f"{domain}/{local}")
            if os.path.exists(copied):
                original = os.stat(state)
                os.chown(copied, original.st_uid, original.st_gid)
                os.chmod(copied, stat.S_IMODE(original.st_mode))
                self._writer.file(f"{contents.STATE}/{domain}/{local}/state.db", copied)
            self._maildir(f"{contents.MAIL}/{domain}/{local}", account, farm, copy)
        except FileNotFoundError:
            if os.path.isdir(account):
                raise
            return  # the account was deleted while we were at it
        finally:
            shutil.rmtree(farm)
            with suppress(FileNotFoundError):
                os.unlink(copied)
        self._saved.accounts += 1
        self._saved.messages += len(copy.messages)
        if copy.missing:
            self._saved.warnings.append(
                f"{local}@{domain}: {len(copy.missing)} messages that the state knows have no file "
                "(expunged meanwhile, or lost before)"
            )

    def _maildir(self, name: str, account: str, farm: str, copy: maildir_copy.Copy) -> None:
        """The account's folders with their modes, their own files, and the messages by their links."""
        by_folder: dict[tuple[str, str], list[str]] = {}
        for (folder, _), (sub, file) in copy.messages.items():
            by_folder.setdefault((folder, sub), []).append(file)
        for folder in ("", *maildir_copy.folders(account)):
            here = os.path.join(account, folder)
            there = f"{name}/{folder}".rstrip("/")
            try:
                self._writer.folder(there, os.stat(here))
                self._own_files(there, here)
                for sub in ("cur", "new", "tmp"):
                    self._writer.folder(f"{there}/{sub}", os.stat(os.path.join(here, sub)))
            except FileNotFoundError:
                continue  # deleted meanwhile; its messages were dropped with it
            for sub in maildir_copy.SUBFOLDERS:
                for file in sorted(by_folder.get((folder, sub), ())):
                    self._writer.file(f"{there}/{sub}/{file}", os.path.join(farm, folder, sub, file))

    def _own_files(self, there: str, here: str) -> None:
        """dovecot-keywords, subscriptions, maildirfolder and the like."""
        with os.scandir(here) as entries:
            listed = sorted((entry for entry in entries if entry.is_file(follow_symlinks=False)), key=lambda e: e.name)
        for entry in listed:
            with suppress(FileNotFoundError):
                self._writer.file(f"{there}/{entry.name}", entry.path)


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
