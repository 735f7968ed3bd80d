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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.storage.errors import StorageError

INBOX = "INBOX"


class ReserveSettings(Protocol):
    """The settings that say how much of a disk is never filled with mail."""

    @property
    def disk_reserve_percent(self) -> int: ...
    @property
    def disk_reserve_bytes(self) -> int: ...


def disk_reserve(path: str, settings: ReserveSettings) -> bool:
    """True while the disk of `path` has more free than its reserve; below it MAIL and DATA get 452."""
    raise NotImplementedError


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


class Incoming:
    """The body while it arrives; a BodySink. Memory up to `memory_limit`, then an unnamed file in `staging_dir`."""

    def __init__(self, staging_dir: str, memory_limit: int = 262_144) -> None:
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Octets written so far."""
        raise NotImplementedError

    def write(self, chunk: bytes) -> None:
        """Take octets; never blocks for long if `drain` is awaited now and then."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Let what is beyond memory reach the file, off the loop; raises OSError where the disk refuses."""

    def head(self, octets: int) -> bytes:
        """The first `octets` octets, for header parsing."""
        raise NotImplementedError

    def chunks(self, size: int = 1 << 18) -> Sequence[bytes]:
        """The whole body in pieces (an iterator), for hashing; blocking reads where it is in the file."""
        raise NotImplementedError

    def close(self) -> None:
        """Free memory and file. Idempotent."""

    def abort(self) -> None:
        """The same: an aborted body leaves nothing."""


class Delivery:
    """One message on its way into mailboxes; made by `Deliveries.begin`."""

    async def add_recipient(self, address: str, account: str, header_prefix: bytes, mailbox: str = INBOX) -> None:
        """`address` as the peer named it (the key of exactly-once), `account` whose mailbox gets it.

        `header_prefix`: complete header lines with CRLF put before the message. Raises BadName.
        """
        raise NotImplementedError

    async def body(self, incoming: Incoming) -> None:
        """What is delivered; stays the caller's to close."""
        raise NotImplementedError

    async def commit(self) -> list[Delivered | Failed]:
        """Make it durable; one result per recipient in the order added. Goes on if the caller is cancelled."""
        raise NotImplementedError

    def abort(self) -> None:
        """Forget it; nothing was written."""


class Deliveries:
    """This process's one way into the Maildirs below `mail_dir`."""

    def __init__(self, mail_dir: str, *, clock: Callable[[], float] | None = None) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Make or take `.incoming`, finish or undo what a crash left there, remove old markers."""

    def incoming(self, memory_limit: int = 262_144) -> Incoming:
        """A sink for one body."""
        raise NotImplementedError

    def begin(self, trace: str, *, once: bool = False) -> Delivery:
        """A delivery. `once`: a second commit of the same trace and address is dropped and reported delivered."""
        raise NotImplementedError

    async def close(self) -> None:
        """Finish what was committed, then free threads and descriptors."""
