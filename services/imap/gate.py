"""Who may come in: log-ins checked against the directory, slowed down and banned by `policy/throttle`.

One per room. The order is the throttle's own: look for a ban, verify the password (in a thread), report. What the owner
needs later (accepted and refused log-ins with reason, bans) is recorded; what admin wants to know (last used, a hash
with better parameters, bans) is posted as facts. Bans and known addresses live in the room's folder over restarts.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from services.directory.lookup import AuthDirectory, DirectoryUnavailable
from services.directory.models import Account, Credentials
from services.directory.passwords import Busy, Passwords, needs_rehash
from services.imap.faults import Refusal
from services.policy.throttle import Ban, Rules, Throttle
from services.protocol.sasl import PasswordCredentials
from services.runtime.events import new_trace_id
from services.runtime.facts import FactQueue
from services.runtime.process import Context
from services.storage.atomic import write_durable

BANS_FILE = "bans.json"
SAVE_SECONDS = 5.0
# What is quoted of a stranger's login in the record.
LOGIN_CHARACTERS = 320

Record = Callable[[str, str, str], None]


class Gate:
    """Checks log-ins for all connections of the room."""

    def __init__(
        self,
        context: Context,
        directory: AuthDirectory,
        passwords: Passwords,
        facts: FactQueue,
        gateways: Iterable[str] = (),
    ) -> None:
        """Reads the bans that an earlier process left. `gateways` are addresses that stand for everybody."""
        settings = context.settings
        self._context, self._directory, self._passwords, self._facts = context, directory, passwords, facts
        self.throttle = Throttle(
            Rules(window=settings.ban_window, address_guesses=settings.ban_failures, ban=settings.ban_seconds),
            gateways,
        )
        self._key = os.urandom(32)  # of the fingerprints of wrong passwords; dies with the process
        self._path = os.path.join(settings.room_dir, BANS_FILE)
        self._unsaved = False
        self._load()

    def banned(self, peer: str) -> Ban | None:
        """The ban of an address, before anything is said to it."""
        return self.throttle.banned_address(peer, self._context.clock())

    async def log_in(self, given: PasswordCredentials, peer: str, trace: str, mechanism: str) -> Account:
        """The account. Raises Refusal after the delay that a wrong password costs."""
        login = given.login[:LOGIN_CHARACTERS]

        def record(outcome: str, reason: str, account: str) -> None:
            self._context.events.emit(
                "login", trace, outcome=outcome, account=account, login=login, peer=peer, service="imap",
                mechanism=mechanism, reason=reason,
            )  # fmt: skip

        try:
            found = self._directory.login(given.login)
        except DirectoryUnavailable as error:
            record("defer", str(error), login)
            raise Refusal("log-ins are not possible yet", b"UNAVAILABLE") from None
        account = found.account.address if found is not None else login.lower()
        ban = self.throttle.check(peer, account, self._context.clock())
        if ban is not None:
            record("reject", f"{ban.kind} banned: {ban.reason}", account)
            # UNAVAILABLE (RFC 5530): a client must not throw a good password away because of a ban.
            raise Refusal("too many wrong passwords; try again later", b"UNAVAILABLE")
        try:
            right = await self._passwords.verify(account, given.password, found.password_hash if found else None)
        except Busy:
            record("defer", "too many log-ins at once", account)
            raise Refusal("too many log-ins at once; try again", b"UNAVAILABLE") from None
        now = self._context.clock()
        if found is None or not right or not found.account.enabled:
            await self._refuse(found, account, given.password, peer, trace, record)
        # A new place is worth a write to the disk; that a known one was used again is written at the end.
        self._unsaved = self._unsaved or not self.throttle.is_known(peer, now)
        self.throttle.succeeded(peer, account, now)
        record("accept", "", account)
        self._facts.post("last-used", account, service="imap", peer=peer)
        if needs_rehash(found.password_hash):
            await self._rehash(found, given.password)
        return found.account

    async def _refuse(
        self, found: Credentials | None, account: str, password: str, peer: str, trace: str, record: Record
    ) -> NoReturn:
        if found is None:
            reason = "no such account"
        else:
            reason = "wrong password" if found.account.enabled else "the account is disabled"
        guess = hmac.new(self._key, password.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]
        penalty = self.throttle.failed(peer, account, guess, self._context.clock())
        record("reject", reason, account)
        for ban in penalty.bans:
            self._announce(ban, trace)
        # The answer waits, the loop does not.
        await asyncio.sleep(penalty.delay)
        # One answer for all three, so that nobody learns which accounts exist.
        raise Refusal("wrong user name or password", b"AUTHENTICATIONFAILED")

    def _announce(self, ban: Ban, trace: str) -> None:
        self._unsaved = True
        self._context.events.emit(
            "ban", trace, outcome="reject", key=ban.key, ban_kind=ban.kind, until=ban.until, reason=ban.reason
        )
        account = ban.key.split(" ", 1)[-1] if ban.kind != "address" else ""
        self._facts.post("ban", account, key=ban.key, ban_kind=ban.kind, until=ban.until, reason=ban.reason)

    async def _rehash(self, found: Credentials, password: str) -> None:
        """A hash with today's parameters for admin; the old one goes on working until it is published."""
        better = await self._passwords.hash(password)
        self._facts.post("rehash", found.account.address, hash=better, replaces=found.password_hash)

    # --- the owner's side

    def ban(self, key: str, kind: str, until: float, reason: str) -> Ban:
        """Ban by hand, or take over another room's ban. Raises ValueError."""
        if kind not in ("address", "account", "pair") or not key:
            raise ValueError("kind is address, account or pair, and key is not empty")
        now = self._context.clock()
        ban = self.throttle.ban(key, kind, until, reason, now)  # type: ignore[arg-type]
        self._unsaved = True
        self._context.events.emit(
            "ban", new_trace_id(), outcome="info", key=key, ban_kind=kind, until=until, reason=reason
        )
        return ban

    def unban(self, key: str) -> tuple[Ban, ...]:
        """Lift what stands in the way of an address or an account."""
        lifted = self.throttle.unban(key, self._context.clock())
        self._unsaved = True
        for ban in lifted:
            self._context.events.emit("unban", new_trace_id(), key=ban.key, ban_kind=ban.kind, reason=ban.reason)
        return lifted

    # --- over restarts

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                self.throttle.load(json.loads(file.read()), self._context.clock())
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            self._context.log("warning", f"the list of bans cannot be read and begins anew: {error!r}")

    def save(self) -> None:
        """Write bans and known addresses now; at the room's end. Blocks."""
        self._write(self.throttle.dump(self._context.clock()))

    def _write(self, state: dict[str, Any]) -> None:
        try:
            write_durable(self._path, json.dumps(state).encode(), 0o600)
        except OSError as error:
            self._unsaved = True
            self._context.log("warning", f"the list of bans is not on disk: {error}")

    async def keep(self) -> None:
        """Save what changed, now and then; until cancelled."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if self._unsaved:
                self._unsaved = False
                await asyncio.to_thread(self._write, self.throttle.dump(self._context.clock()))
