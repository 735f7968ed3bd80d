"""Log-ins: a name and a password to an account, slowed and banned by policy/throttle.

Owns the bans of this room in its own folder; posts bans, last use and better hashes to admin. In order: a ban refuses
before the password is looked at; an unknown name costs as much time as a known one; a wrong password waits before it is
answered. The record says which name was tried, never a password.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

from services.directory.lookup import AuthDirectory, DirectoryUnavailable
from services.directory.models import Credentials
from services.directory.passwords import Busy, Passwords, needs_rehash
from services.policy.throttle import Ban, Kind, Rules, Throttle
from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.sasl import PasswordCredentials
from services.runtime.events import Json, new_trace_id
from services.runtime.process import Context
from services.storage.atomic import write_durable

# Bans are written this long after they change: a burst of guesses is one write.
SAVE_SECONDS = 2.0
# A household's person sees the day, not the second.
LAST_USED_EVERY = 600.0
# Connections whose last wrong guess is remembered: all that are open at once, and more.
MOST_GUESSED = 1000


class Facts(Protocol):
    """`runtime.facts.FactQueue`, as far as log-ins need it."""

    def post(self, kind: str, account: str, **fields: Json) -> None: ...


class Logins:
    """One per process. `run` keeps the bans on disk."""

    def __init__(
        self,
        context: Context,
        directory: AuthDirectory,
        passwords: Passwords,
        facts: Facts,
        gateways: Iterable[str] = (),
    ) -> None:
        """Reads the bans of the last run; a file that cannot be read begins anew."""
        settings = context.settings
        rules = Rules(window=settings.ban_window, address_guesses=settings.ban_failures,
                      account_guesses=4 * settings.ban_failures, ban=settings.ban_seconds)  # fmt: skip
        self._context, self._directory, self._passwords, self._facts = context, directory, passwords, facts
        self._throttle = Throttle(rules, gateways)
        # Fingerprints of wrong passwords stay in memory, under a key that dies with the process.
        self._key = os.urandom(32)
        self._path = os.path.join(settings.room_dir, "bans.json")
        self._changed = asyncio.Event()
        self._told: dict[str, float] = {}
        self._guessed: OrderedDict[str, str] = OrderedDict()  # connection → its last wrong guess
        self._rehashing: set[asyncio.Task[None]] = set()
        self._load()

    # --- while people log in

    def refuse_connection(self, peer: str) -> Ban | None:
        """The ban of `peer`, before anything is said to it."""
        return self._throttle.banned_address(peer, self._context.clock())

    async def log_in(self, peer: str, given: PasswordCredentials, mechanism: str, trace: str) -> str | Reply:
        """The account's address, or the refusal, after the wait that it costs. `trace` is the connection's."""
        try:
            known = self._directory.login(given.login)
        except DirectoryUnavailable as error:
            self._record(trace, "defer", peer, given.login, "", mechanism, f"no directory: {error}")
            return Reply(454, "4.7.0", "log-ins cannot be checked now, try again in a minute")
        account = known.account.address if known else given.login.strip().lower()
        now = self._context.clock()
        guess = self._fingerprint(account, given.password)
        if self._guessed.get(trace) == guess:
            # Clients try each mechanism in turn with the one password they have: that is one guess.
            return replies.LOGIN_FAILED
        if (ban := self._throttle.check(peer, account, now)) is not None:
            self._record(trace, "reject", peer, given.login, account, mechanism, f"banned: {ban.reason}")
            return banned(ban, now)
        try:
            right = await self._passwords.verify(account, given.password, known.password_hash if known else None)
        except Busy as error:
            self._record(trace, "defer", peer, given.login, account, mechanism, str(error))
            return Reply(454, "4.7.0", "too many log-ins at once, try again in a moment")
        if not right or known is None:
            self._guessed[trace] = guess
            self._guessed.move_to_end(trace)
            if len(self._guessed) > MOST_GUESSED:
                self._guessed.popitem(last=False)
            return await self._wrong(peer, given, account, known, mechanism, trace)
        self._right(peer, given, known, mechanism, trace)
        return account

    async def _wrong(
        self,
        peer: str,
        given: PasswordCredentials,
        account: str,
        known: Credentials | None,
        mechanism: str,
        trace: str,
    ) -> Reply:
        now = self._context.clock()
        # Others tried at the same time: a ban they brought about is not outrun.
        ban = self._throttle.check(peer, account, now)
        penalty = self._throttle.failed(peer, account, self._fingerprint(account, given.password), now)
        for new in penalty.bans:
            self._announce(new, trace)
        why = "no such account" if known is None else "wrong password" if known.account.enabled else "account disabled"
        self._record(trace, "reject", peer, given.login, account, mechanism, why)
        if ban is not None:
            return banned(ban, now)
        await asyncio.sleep(penalty.delay)
        return replies.LOGIN_FAILED

    def _right(self, peer: str, given: PasswordCredentials, known: Credentials, mechanism: str, trace: str) -> None:
        now, account = self._context.clock(), known.account.address
        if not self._throttle.is_known(peer, now):
            self._changed.set()
        self._throttle.succeeded(peer, account, now)
        self._record(trace, "accept", peer, given.login, account, mechanism, "")
        if now - self._told.get(account, 0.0) >= LAST_USED_EVERY:
            self._told[account] = now
            self._facts.post("last-used", account, service="smtp", peer=peer)
        if needs_rehash(known.password_hash):
            task = asyncio.create_task(self._rehash(account, given.password, known.password_hash))
            self._rehashing.add(task)
            task.add_done_callback(self._rehashing.discard)

    async def _rehash(self, account: str, password: str, replaces: str) -> None:
        self._facts.post("rehash", account, hash=await self._passwords.hash(password), replaces=replaces)

    def _fingerprint(self, account: str, password: str) -> str:
        text = f"{account}\0{password}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:16]

    def _record(
        self, trace: str, outcome: str, peer: str, login: str, account: str, mechanism: str, reason: str
    ) -> None:
        self._context.events.emit(
            "login", trace, outcome=outcome, peer=peer, login=login, account=account, mechanism=mechanism, reason=reason
        )

    def _announce(self, ban: Ban, trace: str) -> None:
        self._changed.set()
        self._context.events.emit(
            "ban", trace, outcome="reject", key=ban.key, ban_kind=ban.kind, until=round(ban.until), reason=ban.reason
        )
        account = ban.key.split(" ", 1)[-1] if ban.kind != "address" else ""
        self._facts.post("ban", account, key=ban.key, ban_kind=ban.kind, until=ban.until, reason=ban.reason)

    # --- the owner's side

    def bans(self) -> tuple[Ban, ...]:
        """Those in force."""
        return self._throttle.bans(self._context.clock())

    def ban(self, key: str, kind: Kind, until: float, reason: str) -> Ban:
        """By hand, or told by another room."""
        ban = self._throttle.ban(key, kind, until, reason, self._context.clock())
        self._changed.set()
        self._context.events.emit(
            "ban", new_trace_id(), key=ban.key, ban_kind=ban.kind, until=round(ban.until), reason=ban.reason
        )
        return ban

    def unban(self, key: str) -> tuple[Ban, ...]:
        """Lift whatever stands in the way of an address or an account."""
        lifted = self._throttle.unban(key, self._context.clock())
        self._changed.set()
        for ban in lifted:
            self._context.events.emit("unban", new_trace_id(), key=ban.key, ban_kind=ban.kind, reason=ban.reason)
        return lifted

    # --- across restarts

    async def run(self) -> None:
        """Write the bans when they have changed, until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(SAVE_SECONDS)
            self._changed.clear()
            await asyncio.to_thread(self._save, self._throttle.dump(self._context.clock()))

    def save(self) -> None:
        """Write them now: at the room's end."""
        if self._changed.is_set():
            self._save(self._throttle.dump(self._context.clock()))

    def _save(self, state: dict[str, Any]) -> None:
        try:
            write_durable(self._path, json.dumps(state).encode(), 0o600)
        except OSError as error:
            self._context.log("warning", f"the bans are not on disk: {error}")

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                self._throttle.load(json.loads(file.read()), self._context.clock())
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            self._context.log("warning", f"the bans in {self._path} cannot be read and begin anew: {error!r}")


def banned(ban: Ban, now: float) -> Reply:
    """What the refused are told: a mail client's owner should know that waiting helps and trying does not."""
    minutes = max(1, round((ban.until - now) / 60))
    return Reply(454, "4.7.0", f"too many failed log-ins from here, refused for {minutes} more minutes")
