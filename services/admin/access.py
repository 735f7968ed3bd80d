"""Who may ask: an administrator with a password (page, HTTP Basic) or a session; the command line with its token.

On the page everyone with an account may log in; whoever is no administrator sees what is theirs and nothing else
(`web/pages.py` refuses them every other path, `api/guard.py` the whole API).

Every password that is tried goes through one throttle (`policy/throttle.py`), wherever it comes in; every log-in is
recorded. The answer to a wrong password never says which part was wrong. Through a port that Docker publishes, all
peers arrive as the bridge's gateway, and in one process as loopback: such an address is nobody's, so it is slowed and
never banned, and only a few of its attempts are looked at at a time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass

from services.admin.sessions import Session, Sessions
from services.directory.addresses import key
from services.directory.database import Database
from services.directory.models import Account
from services.directory.passwords import Busy, Passwords
from services.policy.throttle import Rules, Throttle, address_key
from services.runtime.events import new_trace_id
from services.runtime.gateways import default_gateways
from services.runtime.process import Context

AT_ONCE = 4  # attempts of one address that wait for their answer together; more would undo the delay
TOKEN_FILE = "cli.json"  # noqa: S105 - a file name
COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: an account's address, or the command line. `session` is set for the page alone.

    `language` is the one that the account has chosen for the page, "" for none. `peer` is where from, as this room sees
    it, and `via` by which door: page, API or command line; both are recorded with each change.
    """

    name: str
    session: Session | None = None
    administrator: bool = True
    language: str = ""
    peer: str = ""
    via: str = ""


class Denied(Exception):
    """No access: `status` 401, 403, 429 or 503; the text is for whoever asks."""

    def __init__(self, status: int, text: str, *, retry_after: int = 0) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class Access:
    """Checks who asks."""

    def __init__(
        self, context: Context, database: Database, passwords: Passwords, sessions: Sessions, token: str
    ) -> None:
        """`token` is the command line's."""
        settings = context.settings
        rules = Rules(window=settings.ban_window, address_guesses=settings.ban_failures, ban=settings.ban_seconds)
        self._context, self._database, self._passwords, self._sessions = context, database, passwords, sessions
        self._token = token
        self._throttle = Throttle(rules, gateways=["127.0.0.1", "::1", *default_gateways()])
        self._guess_key = secrets.token_bytes(32)
        self._running: dict[str, int] = {}

    async def log_in(self, peer: str, name: str, password: str, *, anyone: bool = False) -> Account:
        """Whom `name` (address or user name) and `password` are: an administrator, or with `anyone` any account.

        Raises Denied.
        """
        source = address_key(peer)
        if self._running.get(source, 0) >= AT_ONCE:
            raise Denied(429, "too many log-ins at once from there; try again in a few seconds", retry_after=5)
        self._running[source] = self._running.get(source, 0) + 1
        try:
            return await self._checked(peer, name.strip(), password, anyone)
        finally:
            self._running[source] -= 1
            if not self._running[source]:
                del self._running[source]

    async def open_session(self, account: Account) -> str:
        """The token of a new session for the page."""
        return self._sessions.open(account.address, (await self._standing(account.address))[0])

    async def by_session(self, token: str, peer: str = "", *, used: bool = True) -> Actor | None:
        """Whose session `token` is; None where it has ended, or where its account may no longer.

        `used` False: a page that refreshes itself is nobody at work, and keeps no session alive.
        """
        session = self._sessions.find(token, used=used)
        if session is None:
            return None
        mark, administrator, language = await self._standing(session.account)
        if session.mark != mark:
            self._sessions.close(token)
            return None
        return Actor(session.account, session, administrator, language, peer, "page")

    async def by_header(self, authorization: str, peer: str) -> Actor:
        """Whom an Authorization header names: Bearer (the command line's token) or Basic. Raises Denied."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer":
            if hmac.compare_digest(value.strip().encode("utf-8", "replace"), self._token.encode()):
                return Actor(COMMAND_LINE, via=COMMAND_LINE)
            raise Denied(401, "the token is wrong")
        if scheme.lower() == "basic":
            try:
                name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                name = colon = password = ""
            if colon:
                return Actor((await self.log_in(peer, name, password)).address, peer=peer, via="API")
        raise Denied(401, "log in with an administrator's address and password")

    async def _checked(self, peer: str, name: str, password: str, anyone: bool) -> Account:
        find = self._database.account if "@" in name else self._database.account_by_login
        found = await asyncio.to_thread(find, key(name))
        account = found.account if found else None
        who = account.address if account else key(name)[:320]
        now = self._context.clock()
        if ban := self._throttle.check(peer, who, now):
            self._record(peer, who, "reject", f"banned until {int(ban.until)}: {ban.reason}")
            raise Denied(429, "too many wrong passwords; try again later", retry_after=max(1, int(ban.until - now)))
        usable = account is not None and account.enabled
        stored = await asyncio.to_thread(self._database.password_hash, who) if usable else ""
        try:
            right = await self._passwords.verify(who, password, stored)
        except Busy as error:
            raise Denied(503, str(error), retry_after=5) from None
        if not right or account is None:
            guess = hmac.new(self._guess_key, password.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
            penalty = self._throttle.failed(peer, who, guess, now)
            self._record(peer, who, "reject", "wrong name or password" if not account or usable else "disabled")
            await asyncio.sleep(penalty.delay)
            raise Denied(401, "wrong address or password")
        self._throttle.succeeded(peer, who, now)
        if not account.administrator and not anyone:
            self._record(peer, who, "reject", "the account is no administrator")
            raise Denied(403, f"{who} is no administrator")
        self._record(peer, who, "accept", "")
        return account

    async def _standing(self, address: str) -> tuple[str, bool, str]:
        """(which password `address` has while it is in use, whether it is an administrator, its language)."""

        def read() -> tuple[str, bool, str]:
            found = self._database.account(address)
            if found is None or not found.account.enabled:
                return secrets.token_hex(8), False, ""  # matches no session
            mark = hashlib.sha256(self._database.password_hash(address).encode()).hexdigest()[:32]
            return mark, found.account.administrator, self._database.language(address)

        return await asyncio.to_thread(read)

    def _record(self, peer: str, account: str, outcome: str, reason: str) -> None:
        self._context.events.emit(
            "login", new_trace_id(), outcome=outcome, peer=peer, account=account, reason=reason, listener="admin"
        )


def write_token(admin_dir: str, url: str) -> str:
    """Make the command line's token for this start and leave it, with the API's address, where only we can read it."""
    import json

    token = secrets.token_hex(32)
    path = os.path.join(admin_dir, TOKEN_FILE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + ".new")
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump({"url": url, "token": token}, file)
    os.replace(path + ".new", path)
    return token
