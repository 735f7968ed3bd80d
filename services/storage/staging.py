"""`<mail_dir>/.incoming/`: where messages are written before they are anybody's, and what a crash leaves there.

Owned by the process that delivers (smtp-in; 2700, so that nobody else reads it). Used by `maildir_writer` and
`delivery`. It lies on the mail volume, so that a finished file moves into a mailbox by one rename.

    .incoming/<name>        being written, or written and not yet renamed: its sender has no 250, it is removed at start
    .incoming/once/<key>    the same for exactly-once deliveries; decided at start (see `recover`)
    .incoming/done/<key>    empty: this message was delivered to this recipient; kept 14 days

Exactly once (LMTP). A message and the note that it was delivered cannot become durable in one step, so:

    1. write once/<key>, fsync it and once/       the copy has a durable name of ours
    2. link once/<key> to new/<name>, fsync       delivered; the same inode has two names
    3. create done/<key>, fsync done/             noted
    4. unlink once/<key>, answer 250              tidy; needs no fsync

A crash before 2 leaves one name: nothing was delivered, the copy goes and the client tries again. Between 2 and 3 the
inode has two names (`st_nlink`): it was delivered, the note is made up. After 3 the note is there. Link and note may
reach the disk only in this order, therefore the fsync between them. One window is left: if in the milliseconds between
2 and 3 the owner reads and expunges the message and then the power fails, one name is left and the message comes again.
Senders give up after days, hence 14 of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable
from hashlib import sha256

from services.storage.atomic import fsync_folder
from services.storage.errors import Busy
from services.storage.incoming import unnamed_file
from services.storage.paths import FOLDER

STAGING = ".incoming"
MARKER_SECONDS = 14 * 86_400
# Only where another process of ours is at work here (several workers): its files of the moment must stay.
LEFTOVER_SECONDS = 36 * 3_600  # the Maildir specification's own age for tmp/

# On these a rename is one transaction: once the folder it left is durable, so is the place it went to. btrfs commits
# wholly when a folder is fsynced that a file was renamed out of; f2fs writes a checkpoint for a folder; ext4, xfs, zfs
# and bcachefs write their log in order. Elsewhere (overlay, FUSE, 9p, NFS) the file is fsynced again in its new place.
RENAME_IS_ONE = frozenset({"ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "tmpfs"})


def once_key(trace: str, address: str) -> str:
    """The name under which a delivery of `trace` to `address` is noted; a hash, as both come from a peer."""
    return sha256(f"{trace}\0{address}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


class Staging:
    """The open staging folder. Blocking; call `open` and `recover` once at start."""

    def __init__(self, mail_dir: str, clock: Callable[[], float] = time.time) -> None:
        self.path = os.path.join(mail_dir, STAGING)
        self._mail_dir = mail_dir
        self._clock = clock
        self.mail = self.folder = self.once = self.done = -1
        self.needs_chmod = False
        self.rename_is_one = False

    def open(self) -> None:
        """Make or take the folders. Raises OSError (with the path in it) where this user may not."""
        self.mail = os.open(self._mail_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        group = os.fstat(self.mail).st_gid
        for path in (self.path, self.path + "/once", self.path + "/done"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
                # setgid: message files get the mail group, which the imap room reads them by.
                with contextlib.suppress(PermissionError):  # not a member: a tree of one user has its own group anyway
                    os.chown(path, -1, group)
                os.chmod(path, 0o2700)
        self.folder = os.open(self.path, FOLDER)
        os.fsync(self.folder)  # notes in a folder whose own name a power cut takes away would be none
        with contextlib.suppress(PermissionError):  # then it was made for us, before we started
            fsync_folder(self._mail_dir)
        self.once = os.open("once", FOLDER, dir_fd=self.folder)
        self.done = os.open("done", FOLDER, dir_fd=self.folder)
        probe = unnamed_file(self.path)
        self.needs_chmod = stat.S_IMODE(os.fstat(probe).st_mode) != 0o660  # a umask took a bit
        os.close(probe)
        self.rename_is_one = file_system(self.path) in RENAME_IS_ONE

    def close(self) -> None:
        """Let go. Idempotent."""
        for descriptor in (self.once, self.done, self.folder, self.mail):
            if descriptor >= 0:
                os.close(descriptor)
        self.mail = self.folder = self.once = self.done = -1

    def recover(self) -> None:
        """Finish or undo what a crash left. Whatever is here was never acknowledged, or is in its mailbox already."""
        try:
            fcntl.flock(self.folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        self._recover(alone)
        # Held shared from here on; another worker that starts waits here until a recovery under way has ended. The lock
        # goes with the descriptor, also in a crash.
        fcntl.flock(self.folder, fcntl.LOCK_SH)

    def _recover(self, alone: bool) -> None:
        now = self._clock()
        for name in _files(self.folder):
            if alone or _older(self.folder, name, now - LEFTOVER_SECONDS):
                _unlink(self.folder, name)
        undecided = [name for name in _files(self.once) if alone or _older(self.once, name, now - LEFTOVER_SECONDS)]
        for key in undecided:
            with contextlib.suppress(Busy):
                self.decide(key)
        os.fsync(
            self.done
        )  # also notes of a process killed before its fsync: the kernel has them, the disk perhaps not
        self.forget_old()

    def mark(self, key: str) -> None:
        """Note that `key` was delivered; durable after the caller's fsync of `done`."""
        os.close(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.done))

    def decide(self, key: str) -> bool:
        """Settle what an interrupted delivery left as once/<key>: True if it was delivered (then noted, durably).

        Raises Busy while another worker is at it: writers hold a lock on their file.
        """
        try:
            descriptor = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.once)
        except FileNotFoundError:
            return self.marked(key)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy("this delivery is under way") from None
            delivered = os.fstat(descriptor).st_nlink > 1
            if delivered:
                os.fsync(descriptor)  # its second name, before the note of it
                self.mark(key)
                os.fsync(self.done)
            _unlink(self.once, key)
            return delivered or self.marked(key)
        finally:
            os.close(descriptor)

    def marked(self, key: str) -> bool:
        """True if `key` was delivered."""
        try:
            os.stat(key, dir_fd=self.done, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def forget_old(self) -> None:
        """Remove notes older than any sender still tries."""
        before = self._clock() - MARKER_SECONDS
        for key in _files(self.done):
            if _older(self.done, key, before):
                _unlink(self.done, key)


def file_system(path: str) -> str:
    """The type of the file system that `path` lies on, by the longest mount point above it; "" if unknown."""
    here = os.path.realpath(path)
    best, kind = -1, ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                left, dash, right = line.partition(" - ")
                point = left.split(" ")[4].replace("\\040", " ").rstrip("/")
                if dash and len(point) >= best and (here == point or here.startswith(point + "/")):
                    best, kind = len(point), right.split(" ")[0]
    except OSError:
        return ""
    return kind


def _files(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]


def _older(folder: int, name: str, before: float) -> bool:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < before
    except FileNotFoundError:
        return False


def _unlink(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
