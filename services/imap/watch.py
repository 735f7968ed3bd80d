"""Who waits for changes of which mailbox, and how the room learns of them: hints, inotify, a rescan.

A client in IDLE waits here. smtp-in's hint comes over HTTP right after a delivery and works between machines; inotify
sees what any program does to the folder; a rescan every half minute finds the rest (network file systems, a full
inotify table). All three only lead to a look at the folder (`Mailbox.sync`), which tells everybody what it found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from services.imap.accounts import Account, Accounts
from services.imap.faults import Gone
from services.imap.inotify import Inotify
from services.runtime.events import new_trace_id
from services.runtime.process import Context
from services.storage.errors import MailboxMissing
from services.storage.folder_names import canonical, to_folder
from services.storage.mailbox import Mailbox
from services.storage.notifier import Change
from services.storage.paths import account_folder

RESCAN_SECONDS = 30.0

Poke = Callable[[], None]


@dataclass(eq=False, slots=True)
class _Watch:
    """One mailbox that somebody waits for."""

    account: Account
    mailbox: Mailbox
    pokes: set[Poke] = field(default_factory=set)
    undo: list[Callable[[], None]] = field(default_factory=list)
    looking: bool = False
    again: bool = False


class Watches:
    """The mailboxes under watch in this process."""

    def __init__(self, context: Context, accounts: Accounts, group: asyncio.TaskGroup) -> None:
        """`group` owns the looks at folders."""
        self._context, self._accounts, self._group = context, accounts, group
        self._loop = asyncio.get_running_loop()
        self._inotify = Inotify()
        self._watches: dict[tuple[str, str], _Watch] = {}

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, account: Account, mailbox: Mailbox, poke: Poke) -> Callable[[], None]:
        """Call `poke` on the loop after each change of the mailbox, until the result is called."""
        key = (account.address, mailbox.mailboxid)
        watch = self._watches.get(key)
        if watch is None or watch.mailbox is not mailbox:
            if watch is not None:
                self._end(key, watch)
            watch = self._watches[key] = _Watch(account, mailbox)
            self._begin(watch)
        watch.pokes.add(poke)

        def remove() -> None:
            watch.pokes.discard(poke)
            if not watch.pokes and self._watches.get(key) is watch:
                self._end(key, watch)

        return remove

    def hint(self, address: str, mailbox: str) -> None:
        """Mail may have arrived. For an account that nobody has open nothing is done: its next SELECT looks."""
        account = self._accounts.get(address)
        if account is None:
            return
        for (watched, _), watch in self._watches.items():
            if watched == address and watch.mailbox.name == mailbox:
                self._look(watch)
                return
        self._group.create_task(self._look_once(account, mailbox))

    async def rescan(self) -> None:
        """Look at every watched mailbox now and then; until cancelled."""
        while True:
            await asyncio.sleep(RESCAN_SECONDS)
            for watch in list(self._watches.values()):
                self._look(watch)

    def close(self) -> None:
        """Watch nothing any more."""
        for key, watch in list(self._watches.items()):
            self._end(key, watch)
        self._inotify.close()

    # --- within

    def _begin(self, watch: _Watch) -> None:
        address, mailbox = watch.account.address, watch.mailbox

        def changed(change: Change) -> None:
            # On the thread that changed it.
            self._loop.call_soon_threadsafe(self._poke, watch)

        def look() -> None:
            self._look(watch)

        watch.undo.append(self._accounts.notifier.subscribe(address, mailbox.mailboxid, changed))
        folder = "/".join(
            filter(None, (account_folder(self._context.settings.mail_dir, address), to_folder(mailbox.name)))
        )
        for name in ("new", "cur"):
            number = self._inotify.add(f"{folder}/{name}", look)
            if number >= 0:
                watch.undo.append(partial(self._inotify.remove, number, look))

    def _end(self, key: tuple[str, str], watch: _Watch) -> None:
        self._watches.pop(key, None)
        for undo in watch.undo:
            undo()
        watch.undo.clear()

    @staticmethod
    def _poke(watch: _Watch) -> None:
        for poke in tuple(watch.pokes):
            poke()

    def _look(self, watch: _Watch) -> None:
        """One look at a time; what comes meanwhile is seen by one more."""
        if watch.looking:
            watch.again = True
            return
        watch.looking = True
        self._group.create_task(self._looks(watch))

    async def _looks(self, watch: _Watch) -> None:
        try:
            while True:
                watch.again = False
                await self._sync(watch.account, watch.mailbox)
                if not watch.again:
                    return
        finally:
            watch.looking = False

    async def _look_once(self, account: Account, name: str) -> None:
        """For an account that is open, though nobody waits: its next SELECT or STATUS finds everything ready."""
        try:
            mailbox = await account.run(lambda: account.store.mailbox(canonical(name)))
        except Exception:
            return  # the next SELECT will say what is wrong
        await self._sync(account, mailbox)

    async def _sync(self, account: Account, mailbox: Mailbox) -> None:
        try:
            changes = await account.run(mailbox.sync)
            if changes.added:
                # Parsed while the client is still reading "EXISTS": what it asks for next is ready-made.
                await account.run(lambda: [None for _ in mailbox.parsed(changes.added)])
        except (MailboxMissing, Gone):
            for (address, mailboxid), watch in list(self._watches.items()):
                if watch.mailbox is mailbox:
                    self._poke(watch)
                    self._end((address, mailboxid), watch)
        except Exception as error:
            self._context.bug(new_trace_id(), error, "looking for new mail", account=account.address)
