"""Teaches the junk filter in the background: lessons of all accounts, one after the other, and the models they make.

Connections `take` lessons to it (see `lessons`); nothing waits for them. What is waiting is in memory: a crash loses
lessons, never mail, and what was learned is in state.db (`storage/junk_memory`), each message once. Some seconds after
an account's last lesson its model is published for smtp-in. A message is read (its first 256 KiB) and counted in about
10 ms on the account's thread, a few at a time, so that commands of the account come in between.

Owns no file. Between lessons it holds nothing but a date for each account whose model is not out yet.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

from services.directory.lookup import AuthDirectory, DirectoryUnavailable
from services.imap.accounts import Account, Accounts
from services.imap.faults import Gone
from services.imap.lesson import Kind, Lesson
from services.runtime.events import new_trace_id
from services.runtime.process import Context
from services.storage.account import AccountStore
from services.storage.errors import StorageError
from services.storage.paths import account_parts
from services.storage.personal import JUNK_MODEL, publish

# Read and left where it is for so long is kept; what is deleted or moved to Junk meanwhile is not.
KEPT_SECONDS = 300.0
# The model is written once a series of moves is over, and not later than this after the first of them.
QUIET_SECONDS, LATEST_SECONDS = 5.0, 60.0
# Lessons that wait at most; what is over is what was only read.
MOST_WAITING = 5_000
# Messages learned before the account's commands get their turn.
_AT_ONCE = 5
_MOST_RECIPIENTS = 100

_Waiting = tuple[str, Lesson]


class Trainer:
    """The room's one. `take` on the loop; `run` is its task."""

    def __init__(self, context: Context, directory: AuthDirectory, accounts: Accounts) -> None:
        self._context, self._directory, self._accounts = context, directory, accounts
        self._waiting: deque[_Waiting] = deque()
        self._kept: list[tuple[float, int, _Waiting]] = []  # a heap by the time from which it counts as kept
        self._number = 0
        self._unpublished: dict[str, tuple[float, float]] = {}  # address → first and last lesson
        self._something = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def take(self, address: str, lessons: Iterable[Lesson]) -> None:
        """What commands of `address` taught."""
        for lesson in lessons:
            if lesson.kind == "kept":
                if len(self._kept) < MOST_WAITING:
                    self._number += 1
                    due = self._loop.time() + KEPT_SECONDS
                    heapq.heappush(self._kept, (due, self._number, (address, lesson)))
            elif len(self._waiting) < MOST_WAITING:
                self._waiting.append((address, lesson))
        self._something.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._publish_missing()
        while True:
            self._something.clear()
            await self.work()
            try:
                async with asyncio.timeout(self._until_next()):
                    await self._something.wait()
            except TimeoutError:
                pass

    async def work(self) -> None:
        """Learn what waits, also what has been kept long enough by now, and publish what is due."""
        now = self._loop.time()
        while self._kept and self._kept[0][0] <= now:
            self._waiting.append(heapq.heappop(self._kept)[2])
        while self._waiting:
            await self._learn(*self._waiting.popleft())
        now = self._loop.time()
        for address, (first, last) in list(self._unpublished.items()):
            if self._due(first, last) <= now:
                await self._publish(address)

    async def drain(self) -> None:
        """Learn what waits and publish what is not out, at the room's end. Reading of the last minutes is not kept."""
        while self._waiting:
            await self._learn(*self._waiting.popleft())
        for address in list(self._unpublished):
            await self._publish(address)

    def _until_next(self) -> float | None:
        times = [self._due(first, last) for first, last in self._unpublished.values()]
        if self._kept:
            times.append(self._kept[0][0])
        return max(0.0, min(times) - self._loop.time()) if times else None

    @staticmethod
    def _due(first: float, last: float) -> float:
        return min(last + QUIET_SECONDS, first + LATEST_SECONDS)

    def _is_there(self, address: str) -> bool:
        """Opening an account makes its mailbox where that is missing: one that was deleted must not come back so.

        Raises DirectoryUnavailable, which is recorded: lessons of that moment are lost.
        """
        return self._directory.account(address) is not None

    # --- learning

    async def _learn(self, address: str, lesson: Lesson) -> None:
        learned = 0
        try:
            if not self._is_there(address):
                return
            account = await self._accounts.open(address)
            try:
                for start in range(0, len(lesson.uids), _AT_ONCE):
                    some = lesson._replace(uids=lesson.uids[start : start + _AT_ONCE])
                    learned += await account.run(lambda some=some: learn(account.store, some))  # type: ignore[misc]
            finally:
                self._accounts.release(account)
        except (StorageError, Gone):
            pass  # deleted, or renamed meanwhile: nothing is left to learn from
        except Exception as error:
            self._context.bug(new_trace_id(), error, "learning what is junk", account=address)
        if learned:
            now = self._loop.time()
            first, _ = self._unpublished.get(address, (now, now))
            self._unpublished[address] = (first, now)
            if lesson.kind in ("junk", "good", "unmarked"):
                self._context.events.emit(
                    "junk-learned", new_trace_id(), outcome="junk" if lesson.kind == "junk" else "info",
                    account=address, mailbox=lesson.mailbox, messages=learned,
                )  # fmt: skip

    # --- publishing

    async def _publish(self, address: str) -> None:
        self._unpublished.pop(address, None)
        try:
            if not self._is_there(address):
                return
            account = await self._accounts.open(address)
            try:
                await self._put_out(account)
            finally:
                self._accounts.release(account)
        except (StorageError, Gone):
            pass
        except Exception as error:
            # Tried again with the next lesson; smtp-in goes on with the model it has.
            self._context.bug(new_trace_id(), error, "publishing a junk model", account=address)

    async def _put_out(self, account: Account) -> None:
        from services.message.tokens import VERSION

        store = account.store
        octets, change = await account.run(lambda: store.junk.model(VERSION))
        personal = self._context.settings.personal_dir
        await self._accounts.off_loop(lambda: publish(personal, account.address, JUNK_MODEL, octets))
        await account.run(lambda: store.junk.was_published(change))

    async def _publish_missing(self) -> None:
        """After a restore, or on a new machine, the volume is empty: models are made from state.db."""
        settings = self._context.settings
        try:
            addresses = [account.address for account in self._directory.accounts()]
        except DirectoryUnavailable:
            return
        for address in addresses:
            try:
                parts = account_parts(address)
            except StorageError:
                continue
            model = os.path.join(settings.personal_dir, *parts, JUNK_MODEL)
            state = os.path.join(settings.state_dir, *parts, "state.db")
            # An account without state.db has learned nothing yet.
            if os.path.exists(state) and not os.path.exists(model):
                await self._publish(address)


def learn(store: AccountStore, lesson: Lesson) -> int:
    """Learn from the messages of `lesson` that are still there; how many changed what is known. Blocking.

    Raises MailboxMissing, BadName, OSError.
    """
    # Where they are needed: a room in which nobody sorts mail does without them.
    from services.message.reading import MOST_OCTETS, read
    from services.message.tokens import VERSION, is_cjk, tokens
    from services.storage.junk_memory import Words
    from services.storage.maildir import DELETED, SEEN

    mailbox = store.mailbox(lesson.mailbox)
    changed = 0
    emailids = mailbox.email_ids(lesson.uids)
    for uid, message in mailbox.bodies([uid for uid in lesson.uids if uid in emailids]):
        if lesson.kind == "kept":
            at = bisect_left(mailbox.uids, uid)
            if at == len(mailbox.uids) or mailbox.uids[at] != uid or mailbox.flags[at] & (SEEN | DELETED) != SEEN:
                continue
        emailid = emailids[uid]
        before = store.junk.learned(emailid)
        if lesson.kind == "sent":
            changed += _know(store, _recipients(message.raw(0, 65_536)))
            continue
        if lesson.kind == "unmarked" and (before is None or not before.junk):
            # Thunderbird marks all that its own filter lets pass; that is nobody's word.
            continue
        junk, person = lesson.kind == "junk", lesson.kind in ("junk", "good", "unmarked")
        if before is not None and before.junk is junk and (before.person or not person):
            continue
        reading = read(message.raw(0, MOST_OCTETS))
        words = Words(tuple(tokens(reading)), VERSION, is_cjk(reading))
        changed += store.junk.learn(emailid, words, junk=junk, person=person)
        if not junk:
            changed += _know(store, _dealt_with(lesson.kind, reading.from_address, reading.reply_to, reading.list_id))
    return changed


def _dealt_with(kind: Kind, sender: str, reply_to: str, list_id: str) -> list[str]:
    from services.storage.junk_model import kept, kept_list, wrote_to

    if list_id:
        return [kept_list(list_id)]  # of a list's members none is known by it
    if not sender:
        return []
    if kind == "answered":
        return [wrote_to(sender), *([wrote_to(reply_to)] if reply_to else [])]
    return [kept(sender)]


def _recipients(header: bytes) -> list[str]:
    from services.message.addresses import addresses
    from services.message.mime import REPEATED, fields_of
    from services.storage.junk_model import wrote_to

    end = header.find(b"\r\n\r\n")
    fields = fields_of(header if end < 0 else header[:end])
    found: list[bytes] = []
    for name in (b"to", b"cc", b"bcc"):
        some = addresses(fields.get(name, b"").replace(REPEATED, b","))[:_MOST_RECIPIENTS]
        found += [
            b"%s@%s" % (one.mailbox, one.host) for one in some if one.mailbox is not None and one.host is not None
        ]
    return [wrote_to(address.decode("utf-8", "replace")) for address in found[:_MOST_RECIPIENTS]]


def _know(store: AccountStore, senders: list[str]) -> int:
    if senders:
        store.junk.know(senders)
    return len(senders)
