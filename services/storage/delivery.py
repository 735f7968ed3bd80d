"""Local delivery: begin, recipient, body, commit or abort; a message is in the Maildir durably before commit returns.

Called by smtp_in (port 25 and LMTP). Owns `<mail_dir>/.incoming/`. It adds files to `new/` of account folders and does
nothing else there: it neither lists nor reads them, and works where it may not (2730).

    deliveries = Deliveries(settings.mail_dir); await deliveries.start()
    sink = deliveries.incoming()                     # handle_DATA_BEGIN returns it; the engine writes to it
    delivery = deliveries.begin(trace, once=lmtp)
    await delivery.add_recipient("info@a.example", "anna@a.example", b"Return-Path: <>\\r\\n...", "INBOX")
    await delivery.body(sink)
    for result in await delivery.commit(): ...       # Delivered or Failed, one per recipient, in their order
    sink.close()

What each step means on disk stands in `maildir_writer`; exactly-once (LMTP: `once=True`) in `staging`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from services.storage.codec import IDENTITY, Codec
from services.storage.errors import StorageError
from services.storage.folder_names import INBOX, canonical, to_folder
from services.storage.group_commit import GroupCommit
from services.storage.incoming import MEMORY_LIMIT, Incoming
from services.storage.maildir import UniqueNames
from services.storage.maildir_writer import SYNC_THREADS, Delivered, Failed, Letter, MaildirWriter, Staged
from services.storage.paths import account_parts, walk
from services.storage.staging import Staging, once_key

__all__ = ["INBOX", "Delivered", "Deliveries", "Delivery", "Failed", "Incoming", "ReserveSettings", "disk_reserve"]

# Files of a batch: beyond, the first waits longer for the last than sharing saves (5,300/s with 50, 3,500/s with 10).
_BATCH_FILES = 64
# Spilling to disk and copying large bodies, beside the thread of the batches: a 50 MB attachment holds up nobody.
_BULK_THREADS = 4
# A retry comes hours after; old notes are looked for once a day, in a process that runs for months.
_TIDY_SECONDS = 86_400


class ReserveSettings(Protocol):
    """The settings that say how much of a disk is never filled with mail."""

    @property
    def disk_reserve_percent(self) -> int:
        """Percent of the disk."""

    @property
    def disk_reserve_bytes(self) -> int:
        """The most that the percentage may come to: 5 % of a 4 TB disk would be 200 GB."""


def disk_reserve(path: str, settings: ReserveSettings) -> bool:
    """True while the disk of `path` has its reserve free; below it MAIL and DATA get 452. Raises OSError.

    The reserve is the lesser of both settings, so that a small disk is not all reserve and a large one not idle.
    """
    disk = os.statvfs(path)
    reserve = min(disk.f_blocks * disk.f_frsize * settings.disk_reserve_percent // 100, settings.disk_reserve_bytes)
    # Free inodes too where the file system counts them (btrfs says 0 of 0): without one no file can be made.
    inodes = disk.f_files == 0 or disk.f_favail > 1_000
    return disk.f_bavail * disk.f_frsize > reserve and inodes


class Delivery:
    """One message on its way into mailboxes; made by `Deliveries.begin`."""

    def __init__(self, deliveries: Deliveries, trace: str, once: bool) -> None:
        self._deliveries = deliveries
        self._trace = trace
        self._once = once
        self._recipients: list[tuple[str, str, str, bytes, tuple[str, ...]]] = []
        self._incoming: Incoming | None = None

    async def add_recipient(
        self,
        address: str,
        account: str,
        header_prefix: bytes,
        mailbox: str = INBOX,
        flags: Sequence[str] = (),
    ) -> None:
        """`address` as the peer named it (the key of exactly-once), `account` whose mailbox gets it.

        `header_prefix`: complete header lines with CRLF put before the message. `flags` as IMAP writes them, keywords
        among them. Of two copies of one message in one account the addresses must differ. Raises BadName.
        """
        account_parts(account)
        self._recipients.append((address, account, canonical(mailbox), header_prefix, tuple(flags)))

    async def body(self, incoming: Incoming) -> None:
        """What is delivered; stays the caller's to close."""
        self._incoming = incoming

    async def commit(self) -> list[Delivered | Failed]:
        """Make it durable; one result per recipient in the order added.

        Goes on when the caller is cancelled: a connection that breaks off must not cancel a commit half-way. The body
        is kept for it, even if the caller closes it then.
        """
        if self._incoming is None:
            raise RuntimeError("commit before body")
        incoming = self._incoming
        letters = [
            Letter(
                address, account, mailbox, before, incoming, once_key(self._trace, address) if self._once else "", flags
            )
            for address, account, mailbox, before, flags in self._recipients
        ]
        return await self._deliveries.commit(letters) if letters else []

    def abort(self) -> None:
        """Forget it; nothing was written."""
        self._recipients.clear()
        self._incoming = None


class Deliveries:
    """This process's one way into the Maildirs below `mail_dir`."""

    def __init__(
        self, mail_dir: str, *, clock: Callable[[], float] = time.time, host: str = "", codec: Codec = IDENTITY
    ) -> None:
        self._staging = Staging(mail_dir, clock)
        self._syncers = ThreadPoolExecutor(SYNC_THREADS - 1, "mail-sync")
        self._writer = MaildirWriter(self._staging, UniqueNames(clock, host), codec, self._syncers)
        self._clock = clock
        self._tidied = clock()
        self._bulk = ThreadPoolExecutor(_BULK_THREADS, "mail-bulk")
        self._one = ThreadPoolExecutor(1, "mail-commit")
        self._group: GroupCommit[list[Staged], list[Delivered | Failed]] = GroupCommit(
            self._writer.commit, self._one, _BATCH_FILES
        )
        self._large: set[asyncio.Task[list[Delivered | Failed]]] = set()

    async def start(self) -> None:
        """Make or take `.incoming`, finish or undo what a crash left there, remove old notes. Raises OSError."""

        def work() -> None:
            self._staging.open()
            self._staging.recover()

        await asyncio.get_running_loop().run_in_executor(self._one, work)

    def incoming(self, memory_limit: int = MEMORY_LIMIT) -> Incoming:
        """A sink for one body."""
        return Incoming(self._staging.path, memory_limit, self._bulk)

    def begin(self, trace: str, *, once: bool = False) -> Delivery:
        """A delivery. `once`: a second commit of the same trace and address is dropped and reported delivered."""
        return Delivery(self, trace, once)

    def mailbox_exists(self, account: str, mailbox: str) -> bool:
        """Whether mail can go there; asked without listing anything. False for what is no name."""
        try:
            folder = to_folder(canonical(mailbox))
            parts = (*account_parts(account), *((folder,) if folder else ()), "new")
            os.close(walk(self._staging.mail, *parts))
        except (StorageError, OSError):
            return False
        return True

    async def commit(self, letters: Sequence[Letter]) -> list[Delivered | Failed]:
        """What `Delivery.commit` does; use that."""
        if self._clock() - self._tidied > _TIDY_SECONDS:
            self._tidied = self._clock()
            self._bulk.submit(self._staging.forget_old)
        incoming = letters[0].incoming
        work: asyncio.Future[list[Delivered | Failed]]
        if incoming.in_file:
            task = asyncio.get_running_loop().create_task(self._commit_large(letters))
            self._large.add(task)
            task.add_done_callback(self._large.discard)
            work = task
        else:
            work = self._group.submit([Staged(letter) for letter in letters], len(letters))
        incoming.hold()
        work.add_done_callback(lambda _: incoming.release())
        return await asyncio.shield(work)

    async def close(self) -> None:
        """Finish what was committed, then free threads and descriptors."""
        if self._large:
            await asyncio.wait(self._large)
        await self._group.drained()
        self._bulk.shutdown()
        self._one.shutdown()
        self._syncers.shutdown()
        self._staging.close()

    async def _commit_large(self, letters: Sequence[Letter]) -> list[Delivered | Failed]:
        staged = await asyncio.get_running_loop().run_in_executor(self._bulk, self._writer.stage, letters)
        return await self._group.submit(staged, len(staged))
