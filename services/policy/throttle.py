"""Failed log-ins: how long the answer waits, and who is refused for a while.

Pure: time, addresses and a fingerprint of the wrong password are passed in; what it knows can be written out and read
back (`dump`, `load`). smtp-out and imap each keep one `Throttle`, ask `check` before a password is verified, report
`failed` or `succeeded` after, and offer its list to the owner.

What is counted are GUESSES, that is different pairs of login and password. The same wrong pair again counts only when
it comes within `hammering` seconds of the last time: a telephone that repeats the old password every few minutes after
a change is one guess, however long it goes on; a program in a loop is many. Four rules, so that a stranger's guessing
neither locks out the owner of an account nor a family that shares one public address:

* delay: each guess from an address doubles the wait before its answer, from a quarter of a second up to 4.
* address: `address_guesses` guesses within `window` ban an address that is a stranger, that is from which nobody has
  logged in during `known_for`. Each further ban of it lasts twice as long.
* pair: at a known address (a home, an office, a mobile provider's NAT) the same count bans only the account that was
  guessed, from that address: the rest of the family goes on.
* account: `account_guesses` guesses at one account from anywhere (a botnet) ban that account for every address that has
  guessed wrongly at it, and there the first further guess bans the pair as well. An address without a wrong guess still
  has its password checked, so the right password gets in from a new place while the account is under attack; and so
  each machine of the botnet has one guess in that time.

Time may be set back under us. A ban then keeps its length from that moment, and guesses from the future are forgotten:
nobody waits a day longer because a clock was a day ahead.

Gateways (addresses that all peers seem to come from, as behind Docker's proxy) are never banned in any of these ways:
they stand for everybody. They only wait. IPv6 counts by /64: one customer has at least that many.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Kind = Literal["address", "account", "pair"]
# What a time server moves a clock by in passing; more is a clock that was set.
STEP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in seconds."""

    window: float = 3600.0
    # A person who does not remember tries five or six passwords; a dictionary tries thousands.
    address_guesses: int = 10
    # The same from everywhere together: well above what one family can produce in an hour.
    account_guesses: int = 40
    ban: float = 900.0
    # Doubling from a quarter of an hour reaches a day after seven bans.
    ban_longest: float = 86_400.0
    forget_bans: float = 7 * 86_400.0
    known_for: float = 30 * 86_400.0
    # Clients open several connections at once and try again a minute later.
    hammering: float = 30.0
    first_delay: float = 0.25
    # Longer waits hold our own connection slots more than they hold the guesser.
    longest_delay: float = 4.0
    # Bounds memory under a botnet: about 300 bytes an address, and the oldest is forgotten first.
    tracked: int = 10_000


@dataclass(frozen=True, slots=True)
class Ban:
    """`key` is an address or /64 network, an account, or `address account` for a pair. Times are epoch seconds."""

    key: str
    kind: Kind
    since: float
    until: float
    reason: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Penalty:
    """What a failed log-in costs: seconds to wait before it is answered, and bans that begin with it."""

    delay: float
    bans: tuple[Ban, ...] = ()


@dataclass(slots=True)
class _Guess:
    """One wrong pair: when it came last, and how often it counts."""

    when: float
    count: int = 1


_Guesses = OrderedDict[tuple[str, str], _Guess]


def _total(guesses: _Guesses, first: str | None = None) -> int:
    return sum(guess.count for (name, _), guess in guesses.items() if first is None or name == first)


@dataclass(slots=True)
class _Source:
    """One address: its guesses by `(account, fingerprint)`, and how often it has been banned."""

    guesses: _Guesses = field(default_factory=OrderedDict)
    strikes: int = 0
    last: float = 0.0


def address_key(address: str) -> str:
    """The part of an address that one customer has: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Throttle:
    """What one room knows about failed log-ins. Not thread-safe: the room's loop is its only caller.

    `account` arguments are the account's address where the login is one of ours, else the login as it was typed in
    lower case; `guess` is a keyed hash of the wrong password, made by the caller with a key that dies with the process.
    """

    def __init__(self, rules: Rules | None = None, gateways: Iterable[str] = ()) -> None:
        self.rules = rules or Rules()
        self._gateways = frozenset(address_key(gateway) for gateway in gateways)
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._accounts: OrderedDict[str, _Guesses] = OrderedDict()  # account → guesses by (address, fingerprint)
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._bans: dict[tuple[Kind, str], Ban] = {}

    # --- before the password is verified

    def check(self, address: str, account: str, now: float) -> Ban | None:
        """The ban that refuses this log-in, if one does."""
        source = address_key(address)
        if source in self._gateways:
            return None
        for kind, key in self._keys(source, account):
            ban = self._active(kind, key, now)
            if ban is not None and (kind != "account" or self._has_guessed(source, account, now)):
                return ban
        return None

    def banned_address(self, address: str, now: float) -> Ban | None:
        """The ban of the address itself, for use before anything is said: at connect."""
        source = address_key(address)
        return None if source in self._gateways else self._active("address", source, now)

    # --- after it

    def succeeded(self, address: str, account: str, now: float) -> None:
        """The right password: this address is known from now on, and its guesses at this account are forgiven."""
        source = address_key(address)
        self._known[(source, account)] = now
        self._known.move_to_end((source, account))
        self._trim(self._known)
        known = self._sources.get(source)
        if known is not None:
            for guess in [guess for guess in known.guesses if guess[0] == account]:
                del known.guesses[guess]
        at = self._accounts.get(account)
        if at is not None:
            for guess in [guess for guess in at if guess[0] == source]:
                del at[guess]

    def failed(self, address: str, account: str, guess: str, now: float) -> Penalty:
        """A wrong password. One that is repeated at leisure waits as long as the last one did and counts no further."""
        source_key = address_key(address)
        source = self._sources.setdefault(source_key, _Source())
        self._sources.move_to_end(source_key)
        self._trim(self._sources)
        if now - source.last > self.rules.forget_bans:
            source.strikes = 0
        source.last = now
        under_attack = self._active("account", account, now)
        counts = self._count(source.guesses, (account, guess), now)
        at = self._accounts.setdefault(account, OrderedDict())
        self._accounts.move_to_end(account)
        self._trim(self._accounts)
        self._count(at, (source_key, guess), now)

        total = _total(source.guesses)
        delay = min(self.rules.first_delay * 2.0 ** min(total - 1, 30), self.rules.longest_delay)
        if not counts or source_key in self._gateways:
            return Penalty(delay)
        bans: list[Ban] = []
        if self.is_known(source_key, now):
            here = _total(source.guesses, account)
            if here >= self.rules.address_guesses:
                bans.append(self._strike(source, "pair", f"{source_key} {account}", now, f"{here} wrong passwords"))
        elif total >= self.rules.address_guesses:
            bans.append(self._strike(source, "address", source_key, now, f"{total} wrong passwords"))
        if under_attack is not None and not bans:
            until = max(under_attack.until, now + self.rules.ban)
            reason = "a wrong password for an account under attack"
            bans.append(self.ban(f"{source_key} {account}", "pair", until, reason, now))
        if under_attack is None and (guessed := _total(at)) >= self.rules.account_guesses:
            sources = len({key for key, _ in at})
            reason = f"{guessed} wrong passwords from {sources} address{'es' if sources > 1 else ''}"
            bans.append(self.ban(account, "account", now + self.rules.ban, reason, now))
        return Penalty(delay, tuple(bans))

    def is_known(self, address: str, now: float) -> bool:
        """Whether anybody has logged in from this address during `known_for`."""
        source = address_key(address)
        return any(
            key == source and now - when <= self.rules.known_for for (key, _), when in reversed(self._known.items())
        )

    # --- the owner's side

    def bans(self, now: float) -> tuple[Ban, ...]:
        """Those in force, the newest first; the others are dropped."""
        for kind, key in list(self._bans):
            self._active(kind, key, now)
        return tuple(sorted(self._bans.values(), key=lambda ban: -ban.since))

    def ban(self, key: str, kind: Kind, until: float, reason: str, now: float) -> Ban:
        """Ban by hand, or take over another room's ban. The longer of two bans of one key stands."""
        if kind == "address":
            key = address_key(key)
        old = self._bans.get((kind, key))
        if old is not None and old.until >= until:
            return old
        made = Ban(key, kind, now, until, reason)
        self._bans[(kind, key)] = made
        return made

    def unban(self, key: str, now: float, kind: Kind | None = None) -> tuple[Ban, ...]:
        """Lift what stands in the way of `key` (an address, an account or a pair), and forget the guesses that led to
        it: otherwise the next slip bans again. For an address or account its pairs are lifted too."""
        wanted = {key, address_key(key), key.lower()}
        lifted = []
        for (banned_kind, banned_key), ban in list(self._bans.items()):
            names = {banned_key, *(banned_key.split(" ", 1) if banned_kind == "pair" else ())}
            if (kind is None or kind == banned_kind) and wanted & names:
                del self._bans[(banned_kind, banned_key)]
                if ban.until > now:
                    lifted.append(ban)
        for name in wanted:
            self._forget(name)
        for ban in lifted:
            for name in ban.key.split(" ", 1):
                self._forget(name)
        return tuple(lifted)

    # --- across restarts

    def dump(self, now: float) -> dict[str, Any]:
        """Bans, strikes and known addresses as JSON. Guesses are not kept: a restart forgives half-finished ones."""
        return {
            "version": 1,
            "bans": [ban.as_json() for ban in self.bans(now)],
            "known": [[key, account, when] for (key, account), when in self._known.items()],
            "strikes": [[key, source.strikes, source.last] for key, source in self._sources.items() if source.strikes],
        }

    def load(self, state: Mapping[str, Any], now: float) -> None:
        """Take back what `dump` gave. Raises ValueError, TypeError or KeyError for anything else; nothing is half
        taken over then."""
        if state.get("version") != 1:
            raise ValueError("bans were written by another version")
        bans: dict[tuple[Kind, str], Ban] = {}
        for item in state["bans"]:
            ban = Ban(str(item["key"]), item["kind"], float(item["since"]), float(item["until"]), str(item["reason"]))
            if ban.kind not in ("address", "account", "pair"):
                raise ValueError(f"a ban of kind {ban.kind!r}")
            if ban.until > now:
                bans[(ban.kind, ban.key)] = ban
        known = OrderedDict(((str(key), str(account)), float(when)) for key, account, when in state["known"])
        sources: OrderedDict[str, _Source] = OrderedDict(
            (str(key), _Source(strikes=int(strikes), last=float(last))) for key, strikes, last in state["strikes"]
        )
        self._bans, self._known, self._sources = bans, known, sources

    # --- within

    @staticmethod
    def _keys(source: str, account: str) -> tuple[tuple[Kind, str], ...]:
        return (("address", source), ("pair", f"{source} {account}"), ("account", account))

    def _active(self, kind: Kind, key: str, now: float) -> Ban | None:
        """The ban in force; one that is over is dropped."""
        ban = self._bans.get((kind, key))
        if ban is None:
            return None
        if now < ban.since - STEP_SECONDS:
            ban = self._bans[(kind, key)] = replace(ban, since=now, until=now + (ban.until - ban.since))
        if ban.until <= now:
            del self._bans[(kind, key)]
            return None
        return ban

    def _has_guessed(self, source: str, account: str, now: float) -> bool:
        at = self._accounts.get(account)
        return at is not None and any(
            key == source and -STEP_SECONDS <= now - guess.when <= self.rules.window for (key, _), guess in at.items()
        )

    def _strike(self, source: _Source, kind: Kind, key: str, now: float, what: str) -> Ban:
        lasts = min(self.rules.ban * 2.0 ** min(source.strikes, 30), self.rules.ban_longest)
        source.strikes += 1
        if kind == "address":
            source.guesses.clear()
        else:
            account = key.split(" ", 1)[1]
            for guess in [guess for guess in source.guesses if guess[0] == account]:
                del source.guesses[guess]
        return self.ban(key, kind, now + lasts, what, now)

    def _forget(self, name: str) -> None:
        self._sources.pop(name, None)
        self._accounts.pop(name, None)
        for source in self._sources.values():
            for guess in [guess for guess in source.guesses if guess[0] == name]:
                del source.guesses[guess]
        for at in self._accounts.values():
            for guess in [guess for guess in at if guess[0] == name]:
                del at[guess]

    def _count(self, guesses: _Guesses, key: tuple[str, str], now: float) -> bool:
        """Note a guess; whether it counts as a further one."""
        window = self.rules.window
        for old in [name for name, guess in guesses.items() if not -STEP_SECONDS <= now - guess.when <= window]:
            del guesses[old]
        # More than both limits together decides nothing further; without a cap, a botnet's guesses fill memory.
        while len(guesses) > self.rules.account_guesses + self.rules.address_guesses:
            guesses.popitem(last=False)
        known = guesses.get(key)
        if known is None:
            guesses[key] = _Guess(now)
            return True
        hammered = now - known.when <= self.rules.hammering
        known.when = now
        known.count += hammered
        return hammered

    def _trim(self, tracked: OrderedDict[Any, Any]) -> None:
        while len(tracked) > self.rules.tracked:
            tracked.popitem(last=False)
