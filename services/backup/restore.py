"""The way back: `python -m services.backup check` and `restore`. Checked as a whole before anything is touched.

A restore writes into empty volumes, or empties them first (`force`). While it works a mark lies in the mail volume
(`copies.RESTORE_MARK`): after a power cut `setup` starts nothing on half a house, and the restore is run again. The
queue starts held: what it holds may have been sent since the backup. Owners are those of the tar, with the mail's old
user and group replaced by this stack's.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from services.backup import contents
from services.backup.archive import BUFFER, DamagedBackup, Member, members
from services.backup.save import alone
from services.storage import copies
from services.storage.atomic import fsync_folder, write_durable


class NotEmpty(Exception):
    """There is something in the volumes that a restore would overwrite."""


@dataclass(slots=True)
class Found:
    """What a backup has, for the owner."""

    created: int = 0
    mail_uid: int = 0
    mail_gid: int = 0
    messages: int = 0
    queued: int = 0
    files: int = 0
    octets: int = 0
    accounts: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    env: list[str] = field(default_factory=list)

    def count(self, info: tarfile.TarInfo) -> None:
        """Take a member into account."""
        top, *parts = info.name.split("/")
        self.files += info.isreg()
        self.octets += info.size if info.isreg() else 0
        if top == contents.MAIL and not info.isreg() and len(parts) == 2 and not parts[0].startswith("."):
            self.accounts.add(f"{parts[1]}@{parts[0]}")
        elif top == contents.MAIL and info.isreg() and parts[-2:-1] in (["cur"], ["new"]):
            self.messages += 1
        elif top == contents.SPOOL and parts[:1] == ["msg"] and info.isreg():
            self.queued += 1
        elif top == "dkim" and info.isdir() and len(parts) == 1:
            self.domains.add(parts[0])
        elif top == contents.ENV:
            self.env.append(parts[0])


def check(source: IO[bytes]) -> Found:
    """Read the whole tar and hold it to its sums. Raises DamagedBackup."""
    found = Found()
    for member in _known(source, found):
        found.count(member.info)
    return found


def restore(root: str, source: IO[bytes], environment: IO[bytes], *, force: bool) -> Found:
    """Write the tar back below `root` (a folder per volume); the env files go to `environment` as a small tar.

    Raises NotEmpty (nothing was touched), DamagedBackup, BackupRunning, OSError.
    """
    with alone(root):
        mail_dir = os.path.join(root, contents.MAIL)
        # What a restore that was cut off has left is nobody's.
        taken = [] if copies.restore_unfinished(mail_dir) else occupied(root)
        if taken and not force:
            raise NotEmpty("the stack is not empty: it has " + ", ".join(taken))
        write_durable(os.path.join(mail_dir, copies.RESTORE_MARK), b"")
        for volume in (*contents.KEPT, *contents.DERIVED):
            _empty(os.path.join(root, volume))
        found = Found()
        mail = os.stat(mail_dir)
        with tarfile.open(fileobj=environment, mode="w|") as env:
            for member in _known(source, found):
                found.count(member.info)
                if member.info.name.startswith(f"{contents.ENV}/"):
                    _hand_over(env, member)
                else:
                    uid = mail.st_uid if member.info.uid == found.mail_uid else member.info.uid
                    gid = mail.st_gid if member.info.gid == found.mail_gid else member.info.gid
                    _write(root, member, uid, gid)
        _settle(root)
        os.sync()
        os.unlink(os.path.join(mail_dir, copies.RESTORE_MARK))
        fsync_folder(mail_dir)
        return found


def occupied(root: str) -> list[str]:
    """What stands in the way of a restore, in words."""
    reasons = {
        "accounts": os.path.exists(os.path.join(root, "admin", "directory.db")),
        "mail": any(not name.startswith(".") for name in _names(root, contents.MAIL)),
        "queued mail": bool(_names(root, f"{contents.SPOOL}/msg")),
        "DKIM keys": bool(_names(root, "dkim")),
    }
    return [word for word, true in reasons.items() if true]


def _names(root: str, folder: str) -> list[str]:
    try:
        return os.listdir(os.path.join(root, folder))
    except FileNotFoundError:
        return []


def _known(source: IO[bytes], found: Found) -> Iterator[Member]:
    """The members that may be restored; the first one must say that this is a backup of ours."""
    reading = members(source)
    first = next(reading, None)
    if first is None or first.info.name != contents.ABOUT or first.contents is None:
        raise DamagedBackup("not a backup of Mailstead")
    try:
        about: dict[str, Any] = json.loads(first.contents.read())
        format_, created = int(about["format"]), int(about["created"])
        mail_uid, mail_gid = int(about["mail_uid"]), int(about["mail_gid"])
    except (ValueError, KeyError, TypeError):
        raise DamagedBackup(f"{contents.ABOUT} cannot be read") from None
    if format_ != contents.FORMAT:
        raise DamagedBackup(f"a backup of format {format_}; this version reads format {contents.FORMAT}")
    found.created, found.mail_uid, found.mail_gid = created, mail_uid, mail_gid
    for member in reading:
        if not contents.restorable(member.info.name) or not (
            member.info.isreg() or member.info.isdir() or _harmless_link(member.info)
        ):
            raise DamagedBackup(f"{member.info.name!r} does not belong in a backup")
        yield member


def _harmless_link(info: tarfile.TarInfo) -> bool:
    """Only `current` beside the certificates is a link, to a name beside it."""
    return (
        info.issym()
        and info.name.startswith("certs/")
        and "/" not in info.linkname
        and info.linkname not in ("", ".", "..")
    )


def _empty(volume: str) -> None:
    with os.scandir(volume) as entries:
        for entry in list(entries):
            if entry.name == copies.RESTORE_MARK:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _hand_over(env: tarfile.TarFile, member: Member) -> None:
    assert member.contents is not None
    info = tarfile.TarInfo(member.info.name)
    data = member.contents.read()
    info.size, info.mode, info.mtime = len(data), 0o600, member.info.mtime
    env.addfile(info, io.BytesIO(data))


def _write(root: str, member: Member, uid: int, gid: int) -> None:
    info = member.info
    path = os.path.join(root, info.name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if info.issym():
        os.symlink(info.linkname, path)
        os.chown(path, uid, gid, follow_symlinks=False)
        return
    if info.isdir():
        os.makedirs(path, mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    try:
        if member.contents is not None:
            while chunk := member.contents.read(BUFFER):
                _write_all(descriptor, chunk)
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, info.mode & 0o7777)
        os.utime(descriptor, (info.mtime, info.mtime))  # a foreign message's INTERNALDATE is its file's time
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _settle(root: str) -> None:
    """What a restored store must know: numbers that clients have seen are gone; the queue waits for its owner."""
    state = os.path.join(root, contents.STATE)
    for folder, _, files in os.walk(state):
        if "state.db" in files:
            copies.after_restore(os.path.join(folder, "state.db"))
    spool = os.path.join(root, contents.SPOOL)
    if os.path.exists(os.path.join(spool, "queue.db")):
        owner = os.stat(spool)
        descriptor = os.open(os.path.join(spool, "held"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.close(descriptor)
