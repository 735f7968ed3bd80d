"""What other rooms ask of this one over HTTP: hints, accounts to make or delete, how much mail there is, bans.

`runtime/internal_http` authenticates them. smtp-in may hint and provision; admin may do everything.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from services.directory.addresses import key
from services.directory.lookup import AuthDirectory, DirectoryUnavailable
from services.imap.accounts import Accounts
from services.imap.gate import Gate
from services.imap.peers import Peers
from services.imap.rules import Rules
from services.imap.watch import Watches
from services.runtime.internal_http import BadRequest, Request, Response, Routes
from services.runtime.process import Context
from services.storage.errors import BadName, Busy, StorageError
from services.storage.paths import account_folder
from services.storage.provision import provision, purge, purge_retired, retire

# Kept after `account del`, so that a mistake can be undone.
KEEP_SECONDS = 30 * 86_400
MAX_HINTS = 1000
TIDY_SECONDS = 3600.0
LOOK_SECONDS = 1.0


class Api:
    """The room's endpoints and its housekeeping of account folders."""

    def __init__(
        self,
        context: Context,
        directory: AuthDirectory,
        accounts: Accounts,
        gate: Gate,
        watches: Watches,
        peers: Peers,
        delivered: Callable[[str], None] = lambda address: None,
    ) -> None:
        """`delivered` is told of each account that a hint is about."""
        self._delivered = delivered
        self._context, self._directory, self._accounts = context, directory, accounts
        self._gate, self._watches, self._peers = gate, watches, peers
        self.rules = Rules(context, directory, accounts)
        self._generation = -1

    def routes(self) -> Routes:
        """All of them, with who may ask."""
        routes = Routes()
        routes.add("POST", "/v1/hint", self._hint, allow=("smtp-in",))
        routes.add("POST", "/v1/provision", self._provision, allow=("smtp-in", "admin"))
        routes.add("DELETE", "/v1/mail/{address}", self._delete, allow=("admin",))
        routes.add("GET", "/v1/usage", self._usage, allow=("admin",))
        routes.add("GET", "/v1/bans", self._bans, allow=("admin",))
        routes.add("POST", "/v1/bans", self._ban, allow=("admin",))
        routes.add("DELETE", "/v1/bans", self._unban, allow=("admin",))
        routes.add("GET", "/v1/manifest", self._manifest, allow=("admin",))
        self.rules.add_to(routes)
        return routes

    # --- mail

    async def _hint(self, request: Request) -> Response:
        """`{"items": [{"account", "mailbox", "name"}]}`: these files have just been delivered."""
        body = request.json()
        items = body.get("items") if isinstance(body, dict) else None
        if not isinstance(items, list) or len(items) > MAX_HINTS:
            raise BadRequest("items is a list of at most 1000")
        wanted = set()
        for item in items:
            if not isinstance(item, dict) or not isinstance(item.get("account"), str):
                raise BadRequest("each item names an account")
            mailbox = item.get("mailbox", "INBOX")
            if not isinstance(mailbox, str):
                raise BadRequest("a mailbox is a string")
            wanted.add((key(item["account"]), mailbox))
        for address, mailbox in wanted:
            self._watches.hint(address, mailbox)
            self._delivered(address)
        return Response.of({})

    async def _provision(self, request: Request) -> Response:
        """`{"address"}`: make its Maildir where it is missing."""
        address = self._address(request.json())
        try:
            made = await self._accounts.off_loop(lambda: provision(self._context.settings.mail_dir, address))
        except BadName as error:
            raise BadRequest(str(error)) from None
        return Response.of({"made": made})

    async def _delete(self, request: Request) -> Response:
        """Keep the mail aside for 30 days, or with `?purge=1` remove it for good."""
        address = key(request.params["address"])
        self._directory.look_anew()  # else a question for its usage, a moment later, would make the mailbox again
        mail_dir, state_dir = self._context.settings.mail_dir, self._context.settings.state_dir
        now = self._context.clock()
        self._peers.dismiss(address, "the account was deleted")
        await self._accounts.shut(address)

        def work(purges: bool) -> str:
            # What was published goes first: who gets the address next must not get its rules, nor what it calls junk.
            self.rules.forget(address)
            if purges:
                purge(mail_dir, address)
                purge(state_dir, address)
                return ""
            kept = retire(mail_dir, address, now)
            retire(state_dir, address, now)
            return kept

        try:
            purges = request.query.get("purge") in ("1", "true")
            kept = await self._accounts.off_loop(lambda: work(purges))
            if purges:
                return Response.of({"purged": True, "kept": ""})
        except BadName as error:
            raise BadRequest(str(error)) from None
        return Response.of({"purged": False, "kept": os.path.basename(kept), "until": now + KEEP_SECONDS})

    async def _usage(self, request: Request) -> Response:
        """What each account holds; of all, or of `?account=`."""
        wanted = request.query.get("account")
        try:
            addresses = [key(wanted)] if wanted else [account.address for account in self._directory.accounts()]
        except DirectoryUnavailable as error:
            return Response.error(503, str(error))
        found: dict[str, Any] = {}
        for address in addresses:
            try:
                account = await self._accounts.open(address)
            except (StorageError, OSError) as error:
                self._context.log("warning", f"usage of {address}: {error}")
                continue
            try:
                usage = await account.run(account.store.usage)
            finally:
                self._accounts.release(account)
            found[address] = {"bytes": usage.octets, "messages": usage.messages}
        return Response.of({"accounts": found})

    async def _manifest(self, request: Request) -> Response:
        """What a backup of `?account=` has to copy: paths below its Maildir, as its state knows them."""
        address = key(request.query.get("account", ""))
        if self._directory.account(address) is None:
            return Response.error(404, "no such account")
        try:
            account = await self._accounts.open(address)
        except Busy:
            return Response.error(503, "the account is in use by another process; try again")
        try:
            files = await account.run(lambda: list(account.store.manifest()))
        finally:
            self._accounts.release(account)
        folder = account_folder(self._context.settings.mail_dir, address)
        return Response.of({"account": address, "folder": folder, "files": files})

    # --- bans

    async def _bans(self, request: Request) -> Response:
        bans = self._gate.throttle.bans(self._context.clock())
        return Response.of({"bans": [ban.as_json() for ban in bans]})

    async def _ban(self, request: Request) -> Response:
        """`{"key", "kind", "until", "reason"}`."""
        body = request.json()
        try:
            ban = self._gate.ban(
                str(body["key"]), str(body["kind"]), float(body["until"]), str(body.get("reason", "by the owner"))
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadRequest(f"key, kind (address, account, pair) and until are needed: {error}") from None
        return Response.of(ban.as_json())

    async def _unban(self, request: Request) -> Response:
        """`?key=` or `{"key"}`: an address or an account."""
        wanted = request.query.get("key") or (request.json().get("key") if request.body else None)
        if not isinstance(wanted, str) or not wanted:
            raise BadRequest("key is needed")
        return Response.of({"lifted": [ban.as_json() for ban in self._gate.unban(wanted)]})

    @staticmethod
    def _address(body: object) -> str:
        address = body.get("address") if isinstance(body, dict) else None
        if not isinstance(address, str) or "@" not in address:
            raise BadRequest("address is needed")
        return key(address)

    # --- housekeeping

    async def provision_all(self) -> None:
        """Make the Maildirs of all accounts that the directory has and the disk has not."""
        try:
            generation = self._directory.generation
            accounts = self._directory.accounts()
        except DirectoryUnavailable:
            return
        mail_dir = self._context.settings.mail_dir

        def work() -> list[str]:
            wrong = []
            for account in accounts:
                try:
                    provision(mail_dir, account.address)
                except (OSError, StorageError) as error:
                    wrong.append(f"{account.address}: {error}")
            return wrong

        wrong = await self._accounts.off_loop(work)
        for text in wrong:
            self._context.log("warning", f"no Maildir for {text}")
        # Tried again with the next generation, or when smtp-in or a log-in asks for the one.
        self._generation = generation

    def dismiss_disabled(self) -> None:
        """End the sessions of accounts that were disabled or deleted."""
        for address in self._peers.accounts():
            account = self._directory.account(address)
            if account is None or not account.enabled:
                self._peers.dismiss(address, "the account was disabled")

    async def follow(self) -> None:
        """Provision when the directory changes, remove what was kept long enough; until cancelled."""
        loop = asyncio.get_running_loop()
        tidied = float("-inf")
        while True:
            try:
                if self._directory.generation != self._generation:
                    await self.provision_all()
                    self.dismiss_disabled()
                if loop.time() - tidied > TIDY_SECONDS:
                    tidied = loop.time()
                    await self._tidy()
            except DirectoryUnavailable:
                pass  # admin has not published yet
            await asyncio.sleep(LOOK_SECONDS)

    async def _tidy(self) -> None:
        settings = self._context.settings
        before = self._context.clock() - KEEP_SECONDS
        try:
            for name in await self._accounts.off_loop(lambda: purge_retired(settings.mail_dir, before)):
                self._context.log("info", f"removed the mail of {name}, deleted 30 days ago")
            await self._accounts.off_loop(lambda: purge_retired(settings.state_dir, before))
        except OSError as error:
            self._context.log("warning", f"deleted mail cannot be removed: {error}")
