"""What an administrator can do, once for page, API and command line: check, change, tell the other rooms, record.

Each verb returns after the change is published (`directory/changes.py`) and after the rooms that owe something to it
were asked; `notes` says what could not be done yet and happens by itself. Errors are the directory's and `peers.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.admin import bootstrap
from services.admin.access import Actor
from services.admin.duties import Duties
from services.admin.peers import PeerAway, Peers, PeerSaid, segment
from services.admin.sessions import Sessions
from services.directory.changes import Directories
from services.directory.database import AccountDetails
from services.directory.errors import NotFound, NotPublished
from services.directory.models import Alias, Domain
from services.directory.passwords import Passwords, check_strength
from services.runtime.events import Json, new_trace_id
from services.runtime.process import Context

T = TypeVar("T")

# The rooms where people log in: each keeps its own bans.
BANNING = ("imap", "smtp-out")
SCRIPT = "rules"  # what the page calls a filter script where an account has none yet
USAGE_SECONDS = 2.0  # a list of accounts does not wait longer for how full they are


@dataclass(frozen=True, slots=True)
class Done:
    """What a change came to. `password` is set where one was made up, to be shown this once."""

    account: AccountDetails | None = None
    aliases: list[Alias] = field(default_factory=list)
    password: str = ""
    notes: list[str] = field(default_factory=list)


class Operations:
    """The verbs."""

    def __init__(
        self,
        context: Context,
        directories: Directories,
        passwords: Passwords,
        sessions: Sessions,
        duties: Duties,
        peers: Peers,
    ) -> None:
        """Nothing is done before a verb is called."""
        self._context, self._directories, self._passwords = context, directories, passwords
        self._sessions, self._duties, self._peers = sessions, duties, peers
        self.database = directories.database

    # --- domains ---------------------------------------------------------------------------------------------------

    async def domains(self) -> list[Domain]:
        """All local domains."""
        return await asyncio.to_thread(self.database.domains)

    async def add_domain(self, actor: Actor, name: str) -> tuple[Domain, list[str]]:
        """Receive mail for a domain; its DKIM keys are made."""
        domain = await self._change(lambda: self._directories.add_domain(name))
        self._record(actor, f"domain {domain.name} added")
        return domain, await self._duties.attempt(domain.name)

    async def add_domain_alias(self, actor: Actor, name: str, existing: str) -> tuple[Domain, list[str]]:
        """Let every address of a domain answer as the same one of `existing`; its DKIM keys are made."""
        domain = await self._change(lambda: self._directories.add_domain_alias(name, existing))
        self._record(actor, f"domain {domain.name} answers as {domain.alias_of}")
        return domain, await self._duties.attempt(domain.name)

    async def delete_domain(self, actor: Actor, name: str, *, alias: bool = False) -> str:
        """Stop receiving mail for a domain that has neither accounts nor aliases. Its keys stay with dkim.

        `alias`: only where it is a domain alias."""
        delete = self._directories.delete_domain_alias if alias else self._directories.delete_domain
        gone = await self._change(lambda: delete(name))
        self._record(actor, f"domain {gone} deleted")
        return gone

    # --- accounts --------------------------------------------------------------------------------------------------

    async def accounts(self, *, deleted: bool = False) -> list[AccountDetails]:
        """All accounts in use, or the deleted ones whose mail is still kept."""
        return await asyncio.to_thread(lambda: self.database.accounts(deleted=deleted))

    async def account(self, address: str) -> AccountDetails:
        """One account in use."""
        return await asyncio.to_thread(self._directories.account, address)

    async def usage(self, address: str = "") -> dict[str, tuple[int, int]]:
        """Address → bytes and messages of one account or all, as imap counts; empty where it has no quick answer."""
        try:
            async with asyncio.timeout(USAGE_SECONDS):
                query = {"account": address} if address else None
                answer = await self._peers.ask("imap", "GET", "/v1/usage", query=query)
            return {
                str(address): (int(used["bytes"]), int(used["messages"]))
                for address, used in answer["accounts"].items()
            }
        except (PeerAway, PeerSaid, TimeoutError, KeyError, TypeError, ValueError, AttributeError):
            return {}

    async def add_account(
        self,
        actor: Actor,
        address: str,
        password: str,
        *,
        login: str | None = None,
        administrator: bool = False,
        quota_bytes: int | None = None,
    ) -> Done:
        """Make an account and its mailbox. An empty `password` has one made up."""
        made_up = "" if password else bootstrap.readable_password()
        check_strength(password or made_up, address.strip().lower())
        quota = self._context.settings.default_quota if quota_bytes is None else quota_bytes
        hashed = await self._passwords.hash(password or made_up)
        details = await self._change(
            lambda: self._directories.add_account(
                address, hashed, login=login, administrator=administrator, quota_bytes=quota
            )
        )
        stored = details.account.address
        self._record(actor, f"account {stored} added", account=stored)
        return Done(details, password=made_up, notes=await self._duties.attempt(stored))

    async def set_password(self, actor: Actor, address: str, password: str) -> Done:
        """Give an account another password; an empty one has one made up. Its sessions on the page end."""
        made_up = "" if password else bootstrap.readable_password()
        check_strength(password or made_up, address.strip().lower())
        hashed = await self._passwords.hash(password or made_up)
        details = await self._change(lambda: self._directories.set_password(address, hashed))
        stored = details.account.address
        await asyncio.to_thread(self._forget_first_password, stored)
        self._sessions.close_all_of(stored)
        self._record(actor, f"password of {stored} changed", account=stored)
        return Done(details, password=made_up)

    async def check_password(self, address: str, password: str) -> bool:
        """Whether `password` would log in (the account is enabled and it is right)."""
        details = await self.account(address)
        stored = await asyncio.to_thread(self.database.password_hash, details.account.address)
        right = await self._passwords.verify(details.account.address, password, stored)
        return right and details.account.enabled

    async def update_account(
        self,
        actor: Actor,
        address: str,
        *,
        enabled: bool | None = None,
        administrator: bool | None = None,
        quota_bytes: int | None = None,
        login: str | None = None,
    ) -> Done:
        """Change what is not None."""
        details = await self._change(
            lambda: self._directories.update_account(
                address, enabled=enabled, administrator=administrator, quota_bytes=quota_bytes, login=login
            )
        )
        stored = details.account.address
        changes = {"enabled": enabled, "administrator": administrator, "quota": quota_bytes, "user name": login}
        told = ", ".join(f"{name} {value}" for name, value in changes.items() if value is not None)
        self._record(actor, f"account {stored}: {told}", account=stored)
        return Done(details)

    async def set_language(self, actor: Actor, language: str) -> None:
        """The language in which `actor` reads the page. Not recorded: it changes nothing for anybody else."""
        await asyncio.to_thread(self._directories.set_language, actor.name, language)

    async def delete_account(self, actor: Actor, address: str, *, purge: bool = False) -> Done:
        """Take an account out of use; its mail is kept 30 days, or with `purge` destroyed.

        `purge` of an account that was deleted before destroys what was kept.
        """
        try:
            stored, aliases = await self._change(lambda: self._directories.delete_account(address, purge=purge))
        except NotFound:
            if not purge:
                raise
            await self._change(lambda: self._directories.purge_deleted(address))
            stored, aliases = address.strip().lower(), []
        await asyncio.to_thread(self._forget_first_password, stored)
        self._sessions.close_all_of(stored)
        what = "its mail is destroyed" if purge else "its mail is kept for 30 days"
        self._record(actor, f"account {stored} deleted; {what}", account=stored)
        return Done(aliases=aliases, notes=await self._duties.attempt(stored))

    # --- aliases ---------------------------------------------------------------------------------------------------

    async def aliases(self) -> list[Alias]:
        """All aliases."""
        return await asyncio.to_thread(self.database.aliases)

    async def add_alias(self, actor: Actor, source: str, target: str, *, keep_copy: bool = False) -> Alias:
        """Mail for `source` goes (also) to `target`; with `keep_copy` into the mailbox of `source` too."""
        alias = await self._change(lambda: self._directories.add_alias(source, target, keep_copy=keep_copy))
        what = f"alias {alias.source} → {alias.target} added" + (", and a copy is kept" if keep_copy else "")
        self._record(actor, what, address=alias.source, target=alias.target)
        return alias

    async def delete_alias(self, actor: Actor, source: str, target: str | None) -> list[Alias]:
        """Remove one target of an alias, or the whole alias."""
        gone = await self._change(lambda: self._directories.delete_alias(source, target))
        for alias in gone:
            text = f"alias {alias.source} → {alias.target} deleted"
            self._record(actor, text, address=alias.source, target=alias.target)
        return gone

    # --- filter rules: the imap room's -------------------------------------------------------------------------------

    async def script(self, address: str) -> tuple[str, str]:
        """(name, content) of the account's active filter script; (SCRIPT, "") where it has none."""
        path = f"/v1/accounts/{segment(address)}/sieve"
        answer = await self._peers.ask("imap", "GET", path)
        scripts = {str(each["name"]): bool(each["active"]) for each in answer["scripts"]}
        name = next((name for name, active in scripts.items() if active), SCRIPT)
        if name not in scripts:
            return name, ""
        return name, str((await self._peers.ask("imap", "GET", f"{path}/{segment(name)}"))["content"])

    async def save_script(self, actor: Actor, name: str, content: str) -> None:
        """Keep `content` as the active filter script of `actor`, whose own it is; imap checks it once more."""
        path = f"/v1/accounts/{segment(actor.name)}/sieve/{segment(name)}"
        await self._peers.put("imap", path, content.encode())
        await self._peers.ask("imap", "POST", f"{path}/activate")
        self._record(actor, f"filter rules of {actor.name} changed", account=actor.name)

    # --- the queue and the bans: other rooms' -----------------------------------------------------------------------

    async def junk(self, account: str | None) -> Any:
        """What the junk filter has learned for one account or all."""
        return await self._peers.ask("imap", "GET", "/v1/junk", query={"account": account} if account else None)

    async def queue(self, limit: int) -> Any:
        """What waits in smtp-out."""
        return await self._peers.ask("smtp-out", "GET", "/v1/queue", query={"limit": str(limit)})

    async def queued(self, identity: str) -> Any:
        """One message with what each server said at each attempt."""
        return await self._peers.ask("smtp-out", "GET", f"/v1/queue/{segment(identity)}")

    async def change_queue(self, actor: Actor, action: str, identity: str | None) -> Any:
        """`retry`, `hold`, `release` or `drop` one message; `retry` and `release` of None are of all."""
        if identity is None:
            answer = await self._peers.ask("smtp-out", "POST", f"/v1/queue/{action}")
        elif action == "drop":
            answer = await self._peers.ask("smtp-out", "DELETE", f"/v1/queue/{segment(identity)}")
        else:
            answer = await self._peers.ask("smtp-out", "POST", f"/v1/queue/{segment(identity)}/{action}")
        self._record(actor, f"queue: {action} {identity or 'all'}", queue_id=identity or "")
        return answer

    async def bans(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Every ban of every room with the rooms that have it, and what is wrong where one does not answer."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        problems = []
        for room in BANNING:
            try:
                answer = await self._peers.ask(room, "GET", "/v1/bans")
                for ban in answer["bans"]:
                    one = found.setdefault((str(ban.get("kind", "")), str(ban["key"])), {**ban, "rooms": []})
                    one["rooms"].append(room)
            except (PeerAway, PeerSaid, KeyError, TypeError) as error:
                problems.append(f"{room}: {error}")
        return sorted(found.values(), key=lambda ban: str(ban["key"])), problems

    async def unban(self, actor: Actor, key: str) -> list[str]:
        """Lift the bans of an address or account in every room; what could not be asked. Raises NotFound."""
        lifted, problems = 0, []
        for room in BANNING:
            try:
                answer = await self._peers.ask(room, "DELETE", "/v1/bans", {"key": key})
                lifted += len(answer["lifted"])
            except PeerSaid as error:
                if error.status != 404:
                    problems.append(str(error))
            except (PeerAway, KeyError, TypeError) as error:
                problems.append(str(error))
        if not lifted and len(problems) < len(BANNING):
            raise NotFound(f"there is no ban on {key}")
        if not lifted:
            raise PeerAway("; ".join(problems))
        self._record(actor, f"ban on {key} lifted", key=key)
        return problems

    # --- within ----------------------------------------------------------------------------------------------------

    async def _change(self, verb: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(verb)
        except NotPublished:
            self._duties.wake()  # it publishes again and again until it succeeds
            raise

    def _forget_first_password(self, address: str) -> None:
        bootstrap.forget(self._directories, self._context.settings.admin_dir, address)

    def _record(self, actor: Actor, what: str, **fields: Json) -> None:
        self._context.events.emit(
            "admin-change",
            new_trace_id(),
            outcome="accept",
            by=actor.name,
            via=actor.via,
            peer=actor.peer,
            reason=what,
            **fields,
        )
