"""The accounts in use: one open store each, one piece of work at a time on it, in a small pool of threads.

Sessions, hints and the HTTP endpoints ask for an account by address, run blocking work on its store with
`Account.run`, and release it. Work of one account never overlaps, so stores are plain blocking code; works of different
accounts do. A store stays open for a while after its last user, because mail clients come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.directory.lookup import Directory
from services.imap.faults import Gone
from services.imap.parser import PARSER
from services.runtime.events import new_trace_id
from services.runtime.process import Context, below_reserve
from services.storage.account import AccountStore
from services.storage.errors import MailboxMissing
from services.storage.notifier import Notifier
from services.storage.provision import provision

Result = TypeVar("Result")

# Threads wait for the disk, not for the processor: more than the cores, few enough to cost nothing.
THREADS = 8
# A telephone that polls every few minutes finds its store open.
LINGER_SECONDS = 600.0
SETTLE_SECONDS = 1.0  # what `AccountStore.settle` promises


class Account:
    """One open account. Made by `Accounts.open` only."""

    __slots__ = ("_lock", "_pool", "address", "closed", "idle_since", "store", "users")

    def __init__(self, address: str, store: AccountStore, pool: ThreadPoolExecutor) -> None:
        self.address = address
        self.store = store
        self.users = 0
        self.closed = False
        self.idle_since = 0.0
        self._pool = pool
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[], Result]) -> Result:
        """`work` on a thread, alone on this account. It is not interrupted: a cancelled caller leaves it to its end.

        Raises Gone once the store is closed.
        """
        async with self._lock:
            if self.closed:
                raise Gone("the account was closed")
            future = asyncio.get_running_loop().run_in_executor(self._pool, work)
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                # The lock must not be given up while the thread is still in the store.
                await asyncio.wait((future,))
                raise


class Accounts:
    """The room's accounts, by address."""

    def __init__(self, context: Context, directory: Directory, notifier: Notifier) -> None:
        """`directory` answers an account's quota at the moment it is asked."""
        self._context, self._directory, self.notifier = context, directory, notifier
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._open: dict[str, Account] = {}
        self._opening: dict[str, asyncio.Task[Account]] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}

    def get(self, address: str) -> Account | None:
        """The account if it is open; for what is only worth doing then."""
        return self._open.get(address)

    async def open(self, address: str) -> Account:
        """The account, opened and provisioned where needed; the caller gives it back with `release`.

        Raises what `AccountStore.open` raises, and OSError.
        """
        while True:
            if (closing := self._closing.get(address)) is not None:
                await asyncio.wait((closing,))
            account = self._open.get(address)
            if account is None:
                task = self._opening.get(address)
                if task is None:
                    task = asyncio.create_task(self._make(address))
                    self._opening[address] = task
                    task.add_done_callback(lambda _: self._opening.pop(address, None))
                account = await asyncio.shield(task)
            if address not in self._closing:
                account.users += 1
                return account

    def release(self, account: Account) -> None:
        """The caller needs the account no longer."""
        account.users -= 1
        account.idle_since = self._context.clock()

    async def off_loop(self, work: Callable[[], Result]) -> Result:
        """Blocking work that belongs to no open account."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def shut(self, address: str) -> None:
        """Close the account's store now, whoever has it; its sessions find it closed. For deletion."""
        account = self._open.get(address)
        if account is not None:
            await self._close(account)

    async def keep(self) -> None:
        """Settle what is open once a second, close what nobody needs; until cancelled."""
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            for account in list(self._open.values()):
                try:
                    await account.run(account.store.settle)
                except Gone:
                    continue
                except Exception as error:
                    self._context.bug(new_trace_id(), error, "making flags durable", account=account.address)
                if account.users <= 0 and abs(self._context.clock() - account.idle_since) > LINGER_SECONDS:
                    await self._close(account)

    async def close(self) -> None:
        """Close everything; at the room's end."""
        for account in list(self._open.values()):
            await self._close(account)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _make(self, address: str) -> Account:
        store = await self.off_loop(lambda: self._open_store(address))
        account = Account(address, store, self._pool)
        account.idle_since = self._context.clock()
        self._open[address] = account
        return account

    def _open_store(self, address: str) -> AccountStore:
        settings = self._context.settings

        def quota() -> int:
            account = self._directory.account(address)
            return account.quota_bytes if account is not None else 0

        def opened() -> AccountStore:
            return AccountStore.open(
                settings.mail_dir,
                settings.state_dir,
                address,
                parser=PARSER,
                notifier=self.notifier,
                clock=self._context.clock,
                quota_octets=quota,
                has_room=lambda: not below_reserve(settings.mail_dir, settings),
            )

        try:
            return opened()
        except MailboxMissing:
            provision(settings.mail_dir, address)
            return opened()

    async def _close(self, account: Account) -> None:
        address = account.address
        if address in self._closing:
            await asyncio.wait((self._closing[address],))
            return
        task = asyncio.create_task(self._finish(account))
        self._closing[address] = task
        try:
            await asyncio.shield(task)
        finally:
            self._closing.pop(address, None)

    async def _finish(self, account: Account) -> None:
        self._open.pop(account.address, None)

        def close() -> None:
            account.closed = True
            account.store.close()

        try:
            await account.run(close)
        except Exception as error:
            self._context.bug(new_trace_id(), error, "closing a store", account=account.address)
