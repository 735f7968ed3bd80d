"""Tells how full each mailbox with a quota is: smtp-in by a file (`storage/usage_file`), admin by a fact.

smtp-in asks nobody at RCPT and cannot list mailboxes; this room knows what they hold. After anything that changes an
account (a hint of a delivery, a session's APPEND or EXPUNGE, another quota) it is counted again, at most once a second
and for no more than a twentieth of the time: a look at a folder of 200,000 messages costs more than one at ten.
Accounts without a quota cost nothing.

The fact goes to admin when a hundredth of the quota was filled or freed, or one of its letters may be due.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from services.directory.lookup import Directory, DirectoryUnavailable
from services.directory.quotas import level
from services.imap.accounts import Accounts
from services.imap.faults import Gone
from services.runtime.events import Json, new_trace_id
from services.runtime.process import Context
from services.storage.errors import StorageError
from services.storage.notifier import Change
from services.storage.personal import publish, withdraw
from services.storage.usage_file import NAME, UsageNow, encode

PAUSE = 1.0
# At the start every account with a quota is due; a thousand must not all be opened in one second.
AT_ONCE = 20
BUSY_SHARE = 20.0  # after a count of 0.2 s the next waits 4 s


class Facts(Protocol):
    """`runtime.facts.FactQueue`."""

    def post(self, kind: str, account: str, **fields: Json) -> None: ...


class Usages:
    """The room's one; `changed` on the loop, `run` is its task."""

    def __init__(self, context: Context, directory: Directory, accounts: Accounts, facts: Facts) -> None:
        """Nothing is counted before `run`."""
        self._context, self._directory, self._accounts, self._facts = context, directory, accounts, facts
        self._loop = asyncio.get_running_loop()
        self._quotas: dict[str, int] = {}  # those that have one, as the directory last said
        self._generation = -1
        self._due: dict[str, float] = {}  # address → not before (the loop's time)
        self._not_before: dict[str, float] = {}
        self._told: dict[str, tuple[int, int]] = {}  # octets and quota of the last fact
        self._stop = accounts.notifier.subscribe("", "", self._changed)

    def changed(self, address: str) -> None:
        """Something of this account is other than it was."""
        if address in self._quotas:
            self._due.setdefault(address, self._not_before.get(address, 0.0))

    def _changed(self, change: Change) -> None:
        if change.added or change.expunged:
            self._loop.call_soon_threadsafe(self.changed, change.account)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._follow()
                await self.work()
                await asyncio.sleep(PAUSE)
        finally:
            self._stop()

    async def work(self) -> None:
        """Count what is due now."""
        now = self._loop.time()
        for address in [address for address, when in self._due.items() if when <= now][:AT_ONCE]:
            del self._due[address]
            await self._count(address)

    def _follow(self) -> None:
        """Learn of quotas that were given, changed or taken."""
        try:
            generation = self._directory.generation
            if generation == self._generation:
                return
            quotas = {each.address: each.quota_bytes for each in self._directory.accounts() if each.quota_bytes}
        except DirectoryUnavailable:
            return
        before, self._quotas, self._generation = self._quotas, quotas, generation
        for address, quota in quotas.items():
            if before.get(address) != quota:
                self.changed(address)
        for address in before.keys() - quotas.keys():
            self._due.pop(address, None)
            self._told.pop(address, None)
            self._written(lambda address=address: withdraw(self._context.settings.personal_dir, address, NAME))

    async def _count(self, address: str) -> None:
        begun, at = self._loop.time(), self._context.clock()
        try:
            account = await self._accounts.open(address)
            try:
                usage = await account.run(account.store.usage)
            finally:
                self._accounts.release(account)
            content = encode(UsageNow(usage.octets, at))
            personal = self._context.settings.personal_dir
            await self._accounts.off_loop(lambda: publish(personal, address, NAME, content, durable=False))
        except Gone:
            return
        except (StorageError, OSError) as error:
            self._context.log("warning", f"how full {address} is: {error}")
            self._due[address] = self._loop.time() + 60.0
            return
        except Exception as error:
            self._context.bug(new_trace_id(), error, "counting mail", account=address)
            return
        ended = self._loop.time()
        self._not_before[address] = ended + max(PAUSE, BUSY_SHARE * (ended - begun))
        self._tell(address, usage.octets, usage.messages)

    def _tell(self, address: str, octets: int, messages: int) -> None:
        quota = self._quotas.get(address, 0)
        told, of = self._told.get(address, (-1, 0))
        if of == quota and abs(told - octets) < quota / 100 and level(told, quota) == level(octets, quota):
            return
        self._told[address] = octets, quota
        self._facts.post("usage", address, bytes=octets, messages=messages)

    def _written(self, work: object) -> None:
        """A file is only in the way of nobody: what cannot be removed is a quota that is not asked for any more."""
        try:
            if callable(work):
                work()
        except (StorageError, OSError) as error:
            self._context.log("warning", f"an account's usage could not be withdrawn: {error}")
