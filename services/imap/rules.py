"""The rules of accounts: their Sieve scripts over HTTP for admin, checked before they are kept, and the active one
published for smtp-in.

`personal/<domain>/<local>/rules.sieve` can be made again from state.db at any time, and is: at the start (a restored
house has an empty volume), and after every change. A crash between the change and its publication ends with the next
start. Where a Maildir comes from another server, its scripts are taken in when the account is first looked at.

ManageSieve (RFC 5804) will ask the same of `Rules`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from services.directory.addresses import key
from services.directory.lookup import AuthDirectory, DirectoryUnavailable
from services.imap.accounts import Account, Accounts
from services.imap.faults import Gone
from services.policy.sieve.check import Script, check
from services.runtime.internal_http import BadRequest, Request, Response, Routes
from services.runtime.process import Context
from services.storage.errors import (
    BadName,
    Busy,
    LimitReached,
    MailboxExists,
    MailboxMissing,
    OverQuota,
    ScriptActive,
    ScriptExists,
    ScriptMissing,
    StorageError,
)
from services.storage.personal import JUNK_MODEL, RULES, publish, withdraw
from services.storage.scripts import MOST_OCTETS, script_name

Result = TypeVar("Result")

LOOK_SECONDS = 5.0
# What of the store's errors is whose fault; the rest is ours or the disk's.
_STATUS: tuple[tuple[type[StorageError], int], ...] = (
    (ScriptMissing, 404),
    (ScriptExists, 409),
    (ScriptActive, 409),
    (OverQuota, 413),
    (LimitReached, 409),
    (BadName, 400),
    (Busy, 503),
)


class Rules:
    """The scripts of all accounts."""

    def __init__(self, context: Context, directory: AuthDirectory, accounts: Accounts) -> None:
        self._context, self._directory, self._accounts = context, directory, accounts
        self._published: set[str] = set()

    def add_to(self, routes: Routes) -> None:
        """All endpoints. A script's body is the script itself, in UTF-8."""
        scripts, script = "/v1/accounts/{address}/sieve", "/v1/accounts/{address}/sieve/{name}"
        routes.add("GET", scripts, self._list, allow=("admin",))
        routes.add("POST", scripts + "/check", self._check, allow=("admin",), max_body=2 * MOST_OCTETS)
        routes.add("GET", script, self._get, allow=("admin",))
        routes.add("PUT", script, self._put, allow=("admin",), max_body=2 * MOST_OCTETS)
        routes.add("DELETE", script, self._delete, allow=("admin",))
        routes.add("POST", script + "/activate", self._activate, allow=("admin",))
        routes.add("POST", script + "/deactivate", self._deactivate, allow=("admin",))
        routes.add("POST", script + "/rename", self._rename, allow=("admin",))
        routes.add("POST", "/v1/mailbox", self._make_mailbox, allow=("smtp-in",))

    # --- for admin

    async def _list(self, request: Request) -> Response:
        """`{"scripts": [{"name", "active", "octets", "changed"}]}`, by name."""

        def work(account: Account) -> Response:
            return Response.of({"scripts": [row._asdict() for row in account.store.scripts.all()]})

        return await self._with(request, work)

    async def _check(self, request: Request) -> Response:
        """`{"problems": [{"line", "column", "text"}]}`; none: it can run."""
        script = await self._accounts.off_loop(lambda: check(request.body))
        return Response.of({"problems": _told(script)})

    async def _get(self, request: Request) -> Response:
        """`{"name", "content", "problems"}`."""
        name = request.params["name"]

        def work(account: Account) -> Response:
            content = account.store.scripts.get(name)
            problems = _told(check(content))
            text = content.decode("utf-8", "replace")
            return Response.of({"name": script_name(name), "content": text, "problems": problems})

        return await self._with(request, work)

    async def _put(self, request: Request) -> Response:
        """Keep a script; 422 with `problems` for one that cannot run. RFC 5804 §2.6: then nothing is changed."""
        name = request.params["name"]

        def work(account: Account) -> Response:
            script = check(request.body)
            if script.problems:
                return _refused(script)
            account.store.scripts.put(name, request.body)
            self._publish(account)
            return Response.of({"name": script_name(name), "problems": []})

        return await self._with(request, work)

    async def _delete(self, request: Request) -> Response:
        """409 for the active one."""

        def work(account: Account) -> Response:
            account.store.scripts.delete(request.params["name"])
            return Response.of({})

        return await self._with(request, work)

    async def _activate(self, request: Request) -> Response:
        """This script from now on, no other; 422 where it cannot run (any more)."""

        def work(account: Account) -> Response:
            script = check(account.store.scripts.get(request.params["name"]))
            if script.problems:
                return _refused(script)
            account.store.scripts.activate(request.params["name"])
            self._publish(account)
            return Response.of({"active": script_name(request.params["name"])})

        return await self._with(request, work)

    async def _deactivate(self, request: Request) -> Response:
        """No script, if this one is active."""

        def work(account: Account) -> Response:
            name = script_name(request.params["name"])
            account.store.scripts.get(name)
            if any(row.active and row.name == name for row in account.store.scripts.all()):
                account.store.scripts.activate("")
            self._publish(account)
            return Response.of({"active": ""})

        return await self._with(request, work)

    async def _rename(self, request: Request) -> Response:
        """`{"to"}`."""
        body = request.json()
        new = body.get("to") if isinstance(body, dict) else None
        if not isinstance(new, str):
            raise BadRequest("to is needed: the new name")

        def work(account: Account) -> Response:
            account.store.scripts.rename(request.params["name"], new)
            return Response.of({"name": script_name(new)})

        return await self._with(request, work)

    async def _with(self, request: Request, work: Callable[[Account], Response]) -> Response:
        """`work` on the account that the path names, its errors as answers."""
        address = key(request.params["address"])
        try:
            if self._directory.account(address) is None:
                return Response.error(404, "no such account")
        except DirectoryUnavailable as error:
            return Response.error(503, str(error))
        try:
            return await self._on(address, work)
        except StorageError as error:
            for kind, status in _STATUS:
                if isinstance(error, kind):
                    return Response.error(status, str(error) or kind.__name__)
            raise
        except Gone:
            return Response.error(503, "the account is being closed; try again")

    async def _on(self, address: str, work: Callable[[Account], Result]) -> Result:
        account = await self._accounts.open(address)
        try:

            def first_moved_in() -> Result:
                self._take_in(account)
                return work(account)

            return await account.run(first_moved_in)
        finally:
            self._accounts.release(account)

    # --- for smtp-in

    async def _make_mailbox(self, request: Request) -> Response:
        """`{"address", "mailbox"}`: RFC 5490 §3.2 fileinto :create. One that is there already is as good."""
        body = request.json()
        address, mailbox = (body.get("address"), body.get("mailbox")) if isinstance(body, dict) else (None, None)
        if not isinstance(address, str) or not isinstance(mailbox, str):
            raise BadRequest("address and mailbox are needed")
        address = key(address)
        if self._directory.account(address) is None:
            return Response.error(404, "no such account")

        def work(account: Account) -> bool:
            try:
                account.store.create(mailbox)
            except MailboxExists:
                return False
            # Clients show what is subscribed.
            account.store.subscribe(mailbox)
            return True

        try:
            return Response.of({"made": await self._on(address, work)})
        except (BadName, LimitReached, MailboxMissing) as error:
            return Response.error(409, str(error))
        except (Busy, Gone) as error:
            return Response.error(503, str(error))

    # --- publication

    def _publish(self, account: Account) -> None:
        """The active script to where smtp-in reads it; called on the account's thread. Raises OSError."""
        content = account.store.scripts.active()
        if content is None:
            withdraw(self._context.settings.personal_dir, account.address, RULES)
        else:
            publish(self._context.settings.personal_dir, account.address, RULES, content)

    def forget(self, address: str) -> None:
        """The account is deleted: whoever gets its address next must get nothing that was published of it."""
        self._published.discard(address)
        for name in (RULES, JUNK_MODEL):
            with contextlib.suppress(FileNotFoundError):  # no volume: nothing was published
                withdraw(self._context.settings.personal_dir, address, name)

    def _take_in(self, account: Account) -> None:
        """Scripts of the server before us, once. One that cannot run is kept, inactive, for its owner to mend."""
        scripts = account.store.scripts
        found = scripts.before_us()
        if found is None:
            return
        for file in found:
            scripts.put(file.name, file.content)
            checked = check(file.content)
            what = f"the script {file.name} of {account.address}, found beside the mail,"
            if checked.problems:
                self._context.log("warning", f"{what} is kept but not run: {checked.problems[0]}")
            elif file.active:
                scripts.activate(file.name)
                self._context.log("info", f"{what} is the account's script now")
        scripts.taken_in()
        if scripts.active() is not None:
            self._publish(account)

    async def follow(self) -> None:
        """Publish what every account has, once for each; until cancelled."""
        while True:
            try:
                waiting = [a.address for a in self._directory.accounts() if a.address not in self._published]
            except DirectoryUnavailable:
                waiting = []
            for address in waiting:
                try:
                    await self._on(address, self._publish)
                    self._published.add(address)
                except (StorageError, OSError, Gone) as error:
                    self._context.log("warning", f"the rules of {address} are not published: {error}")
            await asyncio.sleep(LOOK_SECONDS)


def _told(script: Script) -> list[dict[str, object]]:
    return [asdict(problem) for problem in script.problems]


def _refused(script: Script) -> Response:
    return Response.of({"error": str(script.problems[0]), "problems": _told(script)}, 422)
