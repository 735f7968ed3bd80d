"""One account's store: its mailboxes by name, and the door to each.

Called by the imap room (IMAP, POP3, quotas), from one thread per account at a time: plain blocking code. Owns the
account's state.db and cache.db, and the folders of its Maildir. One process has an account at a time: a lock beside
state.db says so, and goes with the process.

Names are Unicode with "." between levels and no namespace prefix: what clients of docker-mailserver's Dovecot see, so
that a moved-in client keeps its folder settings. "INBOX" is the Maildir itself. On disk `Archive.2026` is
`.Archive.2026`, in modified UTF-7 (RFC 3501 §5.1.3) as Dovecot writes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from services.storage import subscriptions
from services.storage.cache import Cache, Parser
from services.storage.codec import IDENTITY, Codec
from services.storage.errors import Busy, CorruptState, MailboxMissing, OverQuota
from services.storage.folder import Folder, Opened
from services.storage.folder_names import INBOX, SEPARATOR, canonical, parents
from services.storage.incoming import MEMORY_LIMIT, Incoming
from services.storage.junk_memory import JunkMemory
from services.storage.mailbox import Mailbox
from services.storage.mailbox_list import MailboxList
from services.storage.maildir import UniqueNames
from services.storage.notifier import Notifier
from services.storage.paths import FOLDER, account_parts, walk
from services.storage.scripts import Scripts
from services.storage.sqlite_state import SqliteState
from services.storage.state import MailboxRow
from services.storage.transfer import NewMessage, append

__all__ = ["INBOX", "SEPARATOR", "AccountStore", "Appended", "MailboxInfo", "NewMessage", "Status", "Usage"]

# Mailboxes kept open and in memory after their last session: what a client goes through at its start. 10,000 messages
# are 0.4 MB, an open mailbox two descriptors.
_WARM = 16
# Expunged UIDs remembered per mailbox: years of mail, 2 MB. A QRESYNC client from before asks by its known UIDs.
_EXPUNGED_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class MailboxInfo:
    r"""What LIST says. `exists` is False for a name that only has children (\NonExistent) or is only subscribed."""

    name: str
    exists: bool
    special_use: str  # "\\Sent" or ""
    subscribed: bool
    has_children: bool
    mailboxid: str


@dataclass(frozen=True, slots=True)
class Status:
    """What STATUS says. `octets` is the size of the files."""

    name: str
    mailboxid: str
    messages: int
    recent: int
    unseen: int
    deleted: int
    uidnext: int
    uidvalidity: int
    highestmodseq: int
    octets: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the account holds, for QUOTA."""

    octets: int
    messages: int


@dataclass(frozen=True, slots=True)
class Appended:
    """What APPENDUID says (RFC 4315): the new UIDs in the order of the messages."""

    uidvalidity: int
    uids: tuple[int, ...]


class AccountStore:
    """The open store of one account. Make it with `AccountStore.open`; close it when nobody needs it."""

    def __init__(
        self,
        opened: Opened,
        parser: Parser,
        quota_octets: Callable[[], int],
        has_room: Callable[[], bool],
        repairs: Sequence[str],
        maildir: str,
    ) -> None:
        """Use `open`."""
        self.address = opened.address
        self.repairs = tuple(repairs)  # what had to be mended at opening, in words for the owner
        self._opened = opened
        self._tmp = os.path.join(maildir, "tmp")
        self._parser = parser
        self._quota_octets = quota_octets
        self._has_room = has_room
        self._list = MailboxList(opened)
        self._mailboxes: WeakValueDictionary[int, Mailbox] = WeakValueDictionary()
        self._warm: dict[int, Mailbox] = {}
        self._unlock: Callable[[], None] = lambda: None

    @classmethod
    def open(
        cls,
        mail_dir: str,
        state_dir: str,
        address: str,
        *,
        parser: Parser,
        notifier: Notifier,
        clock: Callable[[], float] = time.time,
        quota_octets: Callable[[], int] = lambda: 0,
        has_room: Callable[[], bool] = lambda: True,
        host: str = "",
        codec: Codec = IDENTITY,
    ) -> AccountStore:
        """Open or make state.db and cache.db, migrate them, repair what a crash left.

        Raises MailboxMissing (no Maildir: provision first), Busy, NewerSchema, OSError, sqlite3.Error. `quota_octets`
        answers the account's limit (0 = none), `has_room` the disk's reserve: both asked at APPEND and COPY.
        """
        parts = account_parts(address)
        with contextlib.ExitStack() as undo:
            volume = os.open(mail_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                root = walk(volume, *parts, last=FOLDER)
            finally:
                os.close(volume)
            undo.callback(os.close, root)
            own = os.path.join(state_dir, *parts)
            os.makedirs(own, 0o700, exist_ok=True)
            undo.callback(os.close, _lock(os.path.join(own, "lock")))
            repairs: list[str] = []
            state = _open_state(os.path.join(own, "state.db"), clock, repairs)
            undo.callback(state.close)
            cache = Cache(os.path.join(own, "cache.db"), state.state_id, parser.version)
            undo.callback(cache.close)
            opened = Opened(address, root, state, cache, UniqueNames(clock, host), codec, notifier, clock, own)
            store = cls(opened, parser, quota_octets, has_room, repairs, os.path.join(mail_dir, *parts))
            store._begin()
            store._unlock = undo.pop_all().close
            return store

    def _begin(self) -> None:
        self._list.clean()
        rows = self._list.rows()
        state = self._opened.state
        if state.is_new:
            known = subscriptions.load(self._opened.root)
            with state.transaction(durable=True):
                for name in known if known is not None else rows:
                    state.subscribe(name, True)

    def close(self) -> None:
        """Make everything durable and let go. Its mailboxes are closed with it."""
        self.settle()
        for mailbox in list(self._mailboxes.values()):
            mailbox.folder.close()
        self._warm.clear()
        unlock, self._unlock = self._unlock, lambda: None
        unlock()

    def settle(self) -> None:
        """Make durable what was acknowledged without waiting (flags, subscriptions); call it about once a second.

        Names in the Maildir first, then state.db. Cheap when nothing is pending.
        """
        for mailbox in list(self._mailboxes.values()):
            if mailbox.folder.alive:
                mailbox.folder.settle()
        self._opened.state.settle()

    def mailboxes(self) -> list[MailboxInfo]:
        """All mailboxes, INBOX first, then by name; also names that only have children, and subscribed ones gone."""
        rows = self._list.rows()
        self._forget_removed()
        subscribed = self.subscriptions()
        with_children = {parent for name in rows for parent in parents(name)}
        return [
            MailboxInfo(
                name,
                name in rows,
                rows[name].special_use if name in rows else "",
                name in subscribed,
                name in with_children,
                rows[name].mailboxid if name in rows else "",
            )
            for name in sorted(rows.keys() | with_children | subscribed, key=lambda name: (name != INBOX, name))
        ]

    def subscriptions(self) -> frozenset[str]:
        """Subscribed names, whether or not such a mailbox exists (RFC 3501 §6.3.6)."""
        return self._opened.state.subscriptions()

    def subscribe(self, name: str, subscribed: bool = True) -> None:
        """SUBSCRIBE or UNSUBSCRIBE. Raises BadName."""
        name = canonical(name)
        before = self.subscriptions()
        if (name in before) is not subscribed:
            # Durable, as the file beside it is not read again: nobody subscribes so often that it costs.
            with self._opened.state.transaction(durable=True):
                self._opened.state.subscribe(name, subscribed)
            subscriptions.save(self._opened.root, self.subscriptions())

    def create(self, name: str, special_use: str = "") -> MailboxInfo:
        """CREATE. Raises MailboxExists, BadName, LimitReached."""
        row = self._list.create(name, special_use)
        return MailboxInfo(row.name, True, row.special_use, row.name in self.subscriptions(), False, row.mailboxid)

    def delete(self, name: str) -> None:
        """DELETE with all messages; children stay. Raises MailboxMissing, MailboxInUse (INBOX)."""
        self._list.delete(name)
        self._forget_removed()

    def rename(self, old: str, new: str) -> None:
        """RENAME with children; UIDs and UIDVALIDITY stay. INBOX: its messages move to `new` (RFC 3501 §6.3.5).

        Raises MailboxMissing, MailboxExists, MailboxUnderItself, BadName.
        """
        if canonical(old) != INBOX:
            self._list.rename(old, new)
            return
        inbox = self.mailbox(INBOX)
        self.create(new)
        inbox.move(inbox.uids, new)

    def status(self, name: str) -> Status:
        """STATUS, after a look at the Maildir; cheap if nothing changed there. Raises MailboxMissing, BadName."""
        row = self._look(self._list.find(name))
        recent = 0
        if row.recent_from < row.uidnext:
            recent = sum(uid >= row.recent_from for uid in self.by_id(row.mailboxid).uids)
        return Status(
            row.name, row.mailboxid, row.messages, recent, row.unseen, row.deleted,
            row.uidnext, row.uidvalidity, row.modseq, row.octets,
        )  # fmt: skip

    def mailbox(self, name: str) -> Mailbox:
        """The mailbox, synchronised; the same object for all who ask while it is in use.

        Raises MailboxMissing, BadName.
        """
        mailbox = self._open_mailbox(self._list.find(name))
        mailbox.sync()
        return mailbox

    def by_id(self, mailboxid: str) -> Mailbox:
        """The same by OBJECTID's MAILBOXID. Raises MailboxMissing."""
        for row in self._list.rows().values():
            if row.mailboxid == mailboxid:
                mailbox = self._open_mailbox(row)
                mailbox.sync()
                return mailbox
        raise MailboxMissing(mailboxid)

    def incoming(self, memory_limit: int = MEMORY_LIMIT) -> Incoming:
        """A sink for an APPEND literal, on the mail volume so that the file only needs a name."""
        return Incoming(self._tmp, memory_limit)

    def append(self, name: str, messages: Sequence[NewMessage], origin: object = None) -> Appended:
        """APPEND, all or none (RFC 3502), durable. Raises MailboxMissing, OverQuota, LimitReached, BadName (keywords).

        The bodies stay the caller's to close.
        """
        folder = self._open_mailbox(self._list.find(name)).folder
        self._check_room(sum(message.octets for message in messages))
        return Appended(folder.row.uidvalidity, append(folder, messages, origin))

    def usage(self) -> Usage:
        """Octets and messages of all mailboxes, after a look at each."""
        rows = [self._look(row) for row in list(self._list.rows().values())]
        return Usage(sum(row.octets for row in rows), sum(row.messages for row in rows))

    def metadata(self, name: str = "") -> dict[str, bytes]:
        """Annotations (RFC 5464) of a mailbox, "" = of the server for this account. Raises MailboxMissing."""
        return self._opened.state.metadata(self._list.find(name).id if name else 0)

    def annotate(self, name: str, entry: str, value: bytes | None) -> None:
        """Set or remove (None) an annotation. Raises MailboxMissing."""
        mailbox = self._list.find(name).id if name else 0
        with self._opened.state.transaction(durable=True):
            self._opened.state.annotate(mailbox, entry, value)

    @property
    def junk(self) -> JunkMemory:
        """What the account has sorted into junk and good mail."""
        return self._opened.state.junk

    def special_use(self, name: str) -> str:
        """The mailbox's special use (RFC 6154), "" for none. Raises MailboxMissing, BadName."""
        return self._list.find(name).special_use

    @property
    def scripts(self) -> Scripts:
        """The account's Sieve scripts."""
        return Scripts(self._opened)

    def manifest(self) -> Iterator[str]:
        """Paths below the Maildir of all messages, for a backup: a name that changed since is found by its base.

        The settled state of `snapshot` knows them by these names.
        """
        for row in list(self._list.rows().values()):
            self._look(row)
            prefix = f"{row.folder}/cur/" if row.folder else "cur/"
            for file in self._opened.state.files(row.id).values():
                yield prefix + file

    def snapshot(self, path: str) -> None:
        """Write a consistent copy of state.db to `path`, which must not exist. Raises sqlite3.Error."""
        self._opened.state.snapshot(path)

    def _open_mailbox(self, row: MailboxRow) -> Mailbox:
        self._forget_removed()
        mailbox = self._mailboxes.get(row.id)
        if mailbox is None:
            if row.uidnext - row.messages > _EXPUNGED_KEPT:
                with self._opened.state.transaction(durable=False):
                    self._opened.state.forget_expunged(row, _EXPUNGED_KEPT)
            folder = Folder(self._opened, row)
            folder.clean_tmp()
            mailbox = Mailbox(folder, self._parser, self._target, self._check_room)
            self._mailboxes[row.id] = mailbox
        self._warm.pop(row.id, None)
        self._warm[row.id] = mailbox
        while len(self._warm) > _WARM:
            coldest = self._warm.pop(next(iter(self._warm)))
            coldest.folder.settle()  # it may be the last reference
        return mailbox

    def _target(self, name: str) -> Folder:
        return self._open_mailbox(self._list.find(name)).folder

    def _look(self, row: MailboxRow) -> MailboxRow:
        """The row after a look; a mailbox that is not open and whose folders' times are known is not opened for it."""
        self._forget_removed()
        mailbox = self._mailboxes.get(row.id)
        if mailbox is not None:
            mailbox.sync()
        elif not row.new_time or (row.new_time, row.cur_time) != _times(self._opened.root, row.folder):
            self._open_mailbox(row).sync()
        return row

    def _forget_removed(self) -> None:
        for number in self._list.removed():
            self._warm.pop(number, None)
            mailbox = self._mailboxes.pop(number, None)
            if mailbox is not None:
                mailbox.folder.close()

    def _check_room(self, octets: int) -> None:
        quota = self._quota_octets()
        if quota and sum(row.octets for row in self._list.rows().values()) + octets > quota:
            raise OverQuota("the account is full")
        if not self._has_room():
            raise OverQuota("the disk's reserve would be used")


def _times(root: int, folder: str) -> tuple[int, int] | None:
    prefix = f"{folder}/" if folder else ""
    try:
        return (
            os.stat(prefix + "new", dir_fd=root, follow_symlinks=False).st_mtime_ns,
            os.stat(prefix + "cur", dir_fd=root, follow_symlinks=False).st_mtime_ns,
        )
    except FileNotFoundError:
        return None


def _lock(path: str) -> int:
    """Hold the account for this process. Raises Busy."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Busy("another process has this account open") from None
    return descriptor


def _open_state(path: str, clock: Callable[[], float], repairs: list[str]) -> SqliteState:
    """state.db; one that cannot be read is set aside, and the Maildir makes a new one: new UIDVALIDITY, all mail."""
    try:
        return SqliteState(path, clock)
    except CorruptState as error:
        aside = f"{path}.unreadable.{int(clock())}"
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + end, aside + end)
        repairs.append(f"{error}; kept as {os.path.basename(aside)}, mailboxes get a new UIDVALIDITY")
        return SqliteState(path, clock)
