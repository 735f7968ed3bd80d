"""A batch of messages into Maildirs: written, made durable, renamed, made durable; then each has its result.

Called by `delivery` in a thread, one batch at a time. The order is the promise; for each batch:

    1. write each file in staging and start its write-back, then fsync each, several at once: the first commits the
       journal for all, and the cache flushes that the others still ask of the disk are merged by the kernel
    2. rename each into `new/` of its mailbox: a reader never sees half a message, nor one that a power cut can tear
    3. one fsync of the staging folder: it makes every rename out of it durable (see `staging.RENAME_IS_ONE`); the
       target folder too where we may open it, which smtp-in may not (2730); and where a rename is no single
       transaction the file again, so that the disk has its new name
    4. exactly-once deliveries go by link and note instead, as `staging` explains

An error of one message is that message's: the others go on. Files are 0660 and not 0640, because Linux lets the imap
room COPY a file of another owner by a hard link only if it could write to it (fs.protected_hardlinks).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, field

from services.storage.codec import IDENTITY, Codec
from services.storage.errors import MailboxMissing, StorageError
from services.storage.folder_names import to_folder
from services.storage.incoming import Incoming, copy_octets
from services.storage.maildir import UniqueNames, with_flags
from services.storage.paths import FOLDER, PASSAGE, account_parts, walk
from services.storage.staging import Staging

# O_RDWR: a message on another file system than staging is copied out of it again.
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o660
# At once in one batch, the calling thread included. Beside a program that keeps the journal busy every fsync costs a
# flush of the disk's cache: 20 files took 21 ms one after the other, 2.2 ms in 20 threads, 1.7 ms in 4.
SYNC_THREADS = 4


@dataclass(frozen=True, slots=True)
class Letter:
    """One message for one mailbox. `key`: exactly once under this name; "" = not asked for."""

    address: str
    account: str
    mailbox: str
    before: bytes
    incoming: Incoming
    key: str = ""
    flags: tuple[str, ...] = ()  # as IMAP writes them; see `maildir.with_flags`


@dataclass(frozen=True, slots=True)
class Delivered:
    """The message is durably in the mailbox. `duplicate`: it was there already (once=True), nothing was written."""

    address: str
    account: str
    mailbox: str
    name: str  # the file's name in new/, for the hint to the imap room; "" for a duplicate
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The message is not in the mailbox. Always temporary: MailboxMissing asks for `provision`, OSError is the disk."""

    address: str
    account: str
    mailbox: str
    error: StorageError | OSError


@dataclass(slots=True)
class Staged:
    """A letter whose file is written in staging. `synced`: its data is on the disk already (large bodies)."""

    letter: Letter
    name: str = ""
    descriptor: int = -1
    target: int = -1
    synced: bool = False
    placed: bool = False
    result: Delivered | Failed | None = None

    def fail(self, error: StorageError | OSError) -> None:
        """Remember the first thing that went wrong."""
        if self.result is None or isinstance(self.result, Delivered):
            self.result = Failed(self.letter.address, self.letter.account, self.letter.mailbox, error)

    def succeed(self, duplicate: bool = False) -> None:
        """It is in the mailbox."""
        name = "" if duplicate else self.name
        self.result = Delivered(self.letter.address, self.letter.account, self.letter.mailbox, name, duplicate)


@dataclass(slots=True)
class _Targets:
    """The `new/` folders of one batch, each opened once. Not kept longer: an account may be retired and made anew."""

    mail: int
    opened: dict[tuple[str, str], int | MailboxMissing] = field(default_factory=dict)
    readable: set[int] = field(default_factory=set)

    def find(self, account: str, mailbox: str) -> int:
        found = self.opened.get((account, mailbox))
        if found is None:
            found = self.opened[account, mailbox] = self._open(account, mailbox)
        if isinstance(found, MailboxMissing):
            raise found
        return found

    def _open(self, account: str, mailbox: str) -> int | MailboxMissing:
        folder = to_folder(mailbox)
        parts = (*account_parts(account), *((folder,) if folder else ()), "new")
        try:
            try:
                descriptor = walk(self.mail, *parts, last=FOLDER)
                self.readable.add(descriptor)
            except PermissionError:
                descriptor = walk(self.mail, *parts, last=PASSAGE)
        except MailboxMissing as error:
            return error
        except PermissionError:  # a tree moved in from elsewhere: `provision` opens it to us
            return MailboxMissing(f"{mailbox} is not open to delivery")
        return descriptor

    def close(self) -> None:
        for descriptor in self.opened.values():
            if isinstance(descriptor, int):
                os.close(descriptor)


class MaildirWriter:
    """Writes letters below one mail volume."""

    def __init__(
        self, staging: Staging, names: UniqueNames, codec: Codec = IDENTITY, syncers: Executor | None = None
    ) -> None:
        """`syncers` runs fsyncs beside the calling thread; None: one after the other."""
        self._staging = staging
        self._names = names
        self._codec = codec
        self._syncers = syncers

    def stage(self, letters: Sequence[Letter]) -> list[Staged]:
        """Write large letters ahead of their batch, data durable, so that small ones need not wait for them."""
        staged = [Staged(letter) for letter in letters]
        for one in staged:
            self._guarded(one, self._write)
        self._each(lambda one: self._guarded(one, self._sync), staged)
        return staged

    def commit(self, batch: Sequence[Sequence[Staged]]) -> list[list[Delivered | Failed]]:
        """The batch, as the module's text says; results in the order of the letters of each delivery."""
        staged = [one for delivery in batch for one in delivery]
        targets = _Targets(self._staging.mail)
        first_of_key: dict[str, Staged] = {}
        try:
            for one in staged:
                if one.letter.key:
                    first_of_key.setdefault(one.letter.key, one)
                    if first_of_key[one.letter.key] is not one:
                        continue  # the same delivery twice in one batch: it shares the first one's result
                self._guarded(one, self._find, targets)
                if one.descriptor < 0:
                    self._guarded(one, self._write)
            self._each(lambda one: self._guarded(one, self._sync), staged)
            self._place([one for one in staged if not one.letter.key], targets)
            self._place_once([one for one in staged if one.letter.key], targets)
            for one in staged:
                first = first_of_key.get(one.letter.key)
                if first is not None and first is not one:
                    _share(first, one)
        finally:
            for one in staged:
                if one.descriptor >= 0:
                    os.close(one.descriptor)
                    one.descriptor = -1
            targets.close()
        return [[_result(one) for one in delivery] for delivery in batch]

    def _each(self, step: Callable[[Staged], None], staged: Sequence[Staged]) -> None:
        """`step` for each, a share to each thread; raises what one of them raised, when all have ended."""
        if self._syncers is None or len(staged) < 2:
            shares = [staged]
        else:
            shares = [staged[start::SYNC_THREADS] for start in range(min(SYNC_THREADS, len(staged)))]

        def work(share: Sequence[Staged]) -> None:
            for one in share:
                step(one)

        others = [self._syncers.submit(work, share) for share in shares[1:]] if self._syncers else []
        try:
            work(shares[0])
        finally:
            wait(others)
        for other in others:
            other.result()

    def _guarded(self, one: Staged, step: Callable[..., None], *arguments: object) -> None:
        """Run one letter's step unless it has its result; an error is its result."""
        if one.result is None:
            try:
                step(one, *arguments)
            except (StorageError, OSError) as error:
                one.fail(error)
                if not one.placed:
                    self._remove_staged(one)

    def _find(self, one: Staged, targets: _Targets) -> None:
        if one.letter.key and self._staging.marked(one.letter.key):
            self._remove_staged(one)
            one.succeed(duplicate=True)
            return
        one.target = targets.find(one.letter.account, one.letter.mailbox)

    def _write(self, one: Staged) -> None:
        letter = one.letter
        size = len(letter.before) + letter.incoming.size
        # SMTP and LMTP bodies have CRLF line ends throughout: both sizes are one.
        one.name = with_flags(self._names.next(size, size), letter.flags)
        folder, name = self._place_of(one)
        try:
            one.descriptor = os.open(name, _CREATE, _MODE, dir_fd=folder)
        except FileExistsError:
            # An attempt whose fsync failed, or another worker's of this moment (then Busy).
            if self._staging.decide(name):
                one.succeed(duplicate=True)
                return
            one.descriptor = os.open(name, _CREATE, _MODE, dir_fd=folder)
        if letter.key:
            fcntl.flock(one.descriptor, fcntl.LOCK_EX)  # tells `decide` that somebody is at it
        if self._staging.needs_chmod:
            os.fchmod(one.descriptor, _MODE)
        if self._codec.plain:
            letter.incoming.copy_to(one.descriptor, letter.before)
        else:
            for piece in self._codec.encode((letter.before, *letter.incoming.chunks())):
                os.write(one.descriptor, piece)
        # Starts write-back and does not wait, so that blocks are given to all files of the batch within one journal
        # transaction; without it each fsync makes one of its own (2,800 messages/s instead of 3,500 to 4,200).
        os.posix_fadvise(one.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def _sync(self, one: Staged) -> None:
        if one.descriptor >= 0 and not one.synced:
            os.fsync(one.descriptor)
            one.synced = True

    def _place(self, staged: Sequence[Staged], targets: _Targets) -> None:
        """Steps 2 and 3."""
        for one in staged:
            self._guarded(one, self._rename)
        placed = [one for one in staged if one.placed and one.result is None]
        if not placed:
            return
        try:
            os.fsync(self._staging.folder)
            for target in {one.target for one in placed} & targets.readable:
                os.fsync(target)
            if not self._staging.rename_is_one:
                hidden = [one for one in placed if one.target not in targets.readable]
                self._each(lambda one: os.fsync(one.descriptor), hidden)
        except OSError as error:
            # Whether the disk has them is unknown, and their senders will try again: take back what is still there.
            for one in placed:
                one.fail(error)
                with contextlib.suppress(OSError):
                    os.unlink(one.name, dir_fd=one.target)
            return
        for one in placed:
            one.succeed()

    def _rename(self, one: Staged) -> None:
        try:
            os.rename(one.name, one.name, src_dir_fd=self._staging.folder, dst_dir_fd=one.target)
        except (FileNotFoundError, PermissionError):
            # Its folder went between the look and the rename, or is not open to us: `provision` makes it so.
            raise MailboxMissing(one.letter.mailbox) from None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._carry(one)
        one.placed = True

    def _carry(self, one: Staged) -> None:
        """To another file system, or across an XFS project's border: by a copy in the account's own tmp/."""
        folder = to_folder(one.letter.mailbox)
        parts = (*account_parts(one.letter.account), *((folder,) if folder else ()), "tmp")
        tmp = walk(self._staging.mail, *parts)
        try:
            copy = os.open(one.name, _CREATE, _MODE, dir_fd=tmp)
            try:
                if self._staging.needs_chmod:
                    os.fchmod(copy, _MODE)
                copy_octets(one.descriptor, copy, os.fstat(one.descriptor).st_size)
                os.fsync(copy)
                os.rename(one.name, one.name, src_dir_fd=tmp, dst_dir_fd=one.target)
                os.fsync(copy)  # the staging folder's fsync says nothing of that file system
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(one.name, dir_fd=tmp)
                raise
            finally:
                os.close(copy)
        finally:
            os.close(tmp)
        self._remove_staged(one)

    def _place_once(self, staged: Sequence[Staged], targets: _Targets) -> None:
        """Step 4: link, then note, each durable before the next."""
        ready = [one for one in staged if one.result is None and one.descriptor >= 0]
        if not ready:
            return
        try:
            os.fsync(self._staging.once)
        except OSError as error:
            for one in ready:
                one.fail(error)
                self._remove_staged(one)
            return
        for one in ready:
            self._guarded(one, self._link, targets)
        linked = [one for one in ready if one.placed and one.result is None]
        try:
            for target in {one.target for one in linked} & targets.readable:
                os.fsync(target)
            for one in linked:
                self._staging.mark(one.letter.key)
            if linked:
                os.fsync(self._staging.done)
        except OSError as error:
            # Linked but perhaps not noted: the copy in once/ stays, and tells the next start that it was delivered.
            for one in linked:
                one.fail(error)
            return
        for one in linked:
            one.succeed()
            self._remove_staged(one)

    def _link(self, one: Staged, targets: _Targets) -> None:
        try:
            os.link(one.letter.key, one.name, src_dir_fd=self._staging.once, dst_dir_fd=one.target)
        except (FileNotFoundError, PermissionError):
            raise MailboxMissing(one.letter.mailbox) from None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._carry(one)  # between file systems nothing tells a crash in the next milliseconds: it may come twice
            one.placed = True
            return
        one.placed = True
        if one.target not in targets.readable or not self._staging.rename_is_one:
            os.fsync(one.descriptor)  # a link changes the inode: its fsync commits the new name

    def _place_of(self, one: Staged) -> tuple[int, str]:
        return (self._staging.once, one.letter.key) if one.letter.key else (self._staging.folder, one.name)

    def _remove_staged(self, one: Staged) -> None:
        if one.name and one.descriptor >= 0:
            folder, name = self._place_of(one)
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)


def _share(first: Staged, one: Staged) -> None:
    """Give the second of the same delivery in a batch the first one's outcome."""
    if isinstance(first.result, Failed):
        one.fail(first.result.error)
    else:
        one.succeed(duplicate=True)


def _result(one: Staged) -> Delivered | Failed:
    if one.result is None:
        one.fail(OSError(errno.EIO, "the delivery ended without a result"))
    assert one.result is not None
    return one.result
