"""How every room but admin asks who an address is: a read-only view on the published snapshot.

`SnapshotDirectory(folder)` follows the `current` link that admin swaps by rename. It looks at the link once a second,
before it says that something is not there, and at each log-in: who was just added must not be refused for good, nor who
was just given a password be told that it is wrong. All other answers are at most one second stale. Names of generations
are never used twice, so a changed link text is a changed snapshot (inode numbers would not be: ext4 gives them again).

A snapshot is SQLite, opened read-only and immutable: no lock, no -wal or -shm beside it, so a read-only mount and any
uid can read it. Answers come from SQL on a memory-mapped file whose pages all rooms share, behind a small table of
recent answers (measured: 0.9 µs a hit in the table, 9-11 µs a miss, 48 µs for the sources of an address). Dicts of
everything would save those microseconds and cost each of three rooms a MiB per thousand accounts and aliases.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from services.directory.addresses import key
from services.directory.models import Account, Credentials

LINK = "current"
SNAPSHOT_FORMAT = 1  # `PRAGMA user_version` of a snapshot; raised only when older rooms could not read it
LOOK_EVERY = 1.0  # seconds between two looks at the link while it says yes: a readlink costs as much as such an answer
RECENT_ANSWERS = 256  # about 300 KiB at most; a dictionary attack fills it with refusals, and each is 10 µs again

Answer = TypeVar("Answer")


class DirectoryUnavailable(Exception):
    """There is no snapshot to read: admin has not published yet. Temporary: answer 451 or NO, never 550."""


class Directory(Protocol):
    """Who has mail here. All methods take any case, and raise `DirectoryUnavailable` where nothing is published."""

    @property
    def generation(self) -> int:
        """Grows with every change."""

    def is_local(self, domain: str) -> bool:
        """True where `domain`'s mail stays here."""

    def domain_alias(self, domain: str) -> str:
        """The local domain as which every address of `domain` answers; "" where it answers for itself, or is not ours.

        `account`, `aliases` and `sources_for` are asked about addresses of that domain."""

    def account(self, address: str) -> Account | None:
        """The account with exactly this address; a disabled one too."""

    def aliases(self, source: str) -> tuple[str, ...]:
        """Where mail for exactly `source` goes, one step; `@domain` asks for the catch-all."""

    def sources_for(self, address: str) -> tuple[str, ...]:
        """Every alias source that leads to `address`, over any number of steps; a catch-all as `@domain`."""

    def domains(self) -> tuple[str, ...]:
        """All local domains, sorted."""

    def accounts(self) -> tuple[Account, ...]:
        """All accounts, sorted by address."""


class AuthDirectory(Directory, Protocol):
    """A directory that can also check log-ins."""

    def login(self, name: str) -> Credentials | None:
        """Whom `name`, a full address (also by a domain alias) or a unique user name, means, and the hash to check. The
        caller looks at `account.enabled` for the record; a disabled account's hash is "", which no password matches."""

    def look_anew(self) -> None:
        """Answer from the newest snapshot from now on: whoever asks has just published it."""


class _Snapshot:
    """One generation, open."""

    def __init__(self, path: str) -> None:
        self.recent: dict[tuple[str, str], object] = {}
        uri = f"file:{quote(path)}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False, cached_statements=16)
        self._lock = threading.Lock()
        # Pages come from the kernel's cache, which all rooms share, and not from a copy in each process.
        self._connection.execute("PRAGMA mmap_size=16777216")
        self._connection.execute("PRAGMA cache_size=-64")
        version = int(self.rows("PRAGMA user_version")[0][0])
        if version > SNAPSHOT_FORMAT:
            raise sqlite3.DatabaseError(f"snapshot format {version} is newer than this room's {SNAPSHOT_FORMAT}")
        # Few, and asked for each address; a snapshot from before them has no such column.
        columns = [row[1] for row in self.rows("PRAGMA table_info(domains)")]
        aliased = "SELECT name, alias_of FROM domains WHERE alias_of <> ''"
        self.domain_aliases: dict[str, str] = dict(self.rows(aliased)) if "alias_of" in columns else {}
        self.generation: int = int(self.rows("SELECT value FROM meta WHERE name = 'generation'")[0][0])

    def rows(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        # A lookup is microseconds; the lock keeps a thread's lookup whole beside the loop's.
        with self._lock:
            return self._connection.execute(sql, values).fetchall()


_ACCOUNT = "SELECT address, domain, local, login, enabled, administrator, quota_bytes FROM accounts "
_UPWARDS = (
    "WITH RECURSIVE upwards(source) AS (SELECT source FROM aliases WHERE target = ? "
    "UNION SELECT aliases.source FROM aliases JOIN upwards ON aliases.target = upwards.source) "
    "SELECT source FROM upwards ORDER BY source"
)


class SnapshotDirectory:
    """`Directory` on a folder of published snapshots; `AuthDirectory` where the folder is the one with hashes.

    Safe to use from several threads. A new snapshot that cannot be opened leaves the last good one in use and says so
    in `problem` ("" while all is well).
    """

    def __init__(self, folder: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`folder` is what admin publishes into; it may still be empty."""
        self._folder, self._clock = folder, clock
        self._name = ""
        self._snapshot: _Snapshot | None = None
        self._looked = float("-inf")
        self._refreshing = threading.Lock()
        self.problem = ""

    @property
    def generation(self) -> int:
        """See `Directory.generation`."""
        return self._current().generation

    def look_anew(self) -> None:
        """See `AuthDirectory.look_anew`."""
        self._looked = float("-inf")

    def is_local(self, domain: str) -> bool:
        """See `Directory.is_local`."""
        name = key("@" + domain)[1:].removesuffix(".")
        return bool(self._answer("domain", "SELECT 1 FROM domains WHERE name = ?", name, bool))

    def domain_alias(self, domain: str) -> str:
        """See `Directory.domain_alias`. As fresh as the look that `is_local` takes at an unknown domain."""
        return self._current().domain_aliases.get(key("@" + domain)[1:].removesuffix("."), "")

    def account(self, address: str) -> Account | None:
        """See `Directory.account`."""
        return self._answer("account", _ACCOUNT + "WHERE address = ?", key(address), _first_account)

    def aliases(self, source: str) -> tuple[str, ...]:
        """See `Directory.aliases`."""
        sql = "SELECT target FROM aliases WHERE source = ? ORDER BY target"
        return self._answer("aliases", sql, key(source), _first_column)

    def sources_for(self, address: str) -> tuple[str, ...]:
        """See `Directory.sources_for`."""
        return self._answer("sources", _UPWARDS, key(address), _first_column)

    def domains(self) -> tuple[str, ...]:
        """See `Directory.domains`."""
        return _first_column(self._current().rows("SELECT name FROM domains ORDER BY name"))

    def accounts(self) -> tuple[Account, ...]:
        """See `Directory.accounts`."""
        return tuple(_account(row) for row in self._current().rows(_ACCOUNT + "ORDER BY address"))

    def login(self, name: str) -> Credentials | None:
        """See `AuthDirectory.login`. Not kept among the recent answers: hashes stay on disk."""
        column = "address" if "@" in name else "login"
        wanted = key(name)
        if not wanted:
            return None  # "" is the login of those who have none
        sql = _ACCOUNT.replace(" FROM", ", password_hash FROM") + f"WHERE {column} = ?"
        snapshot = self._current(anew=True)
        local, at, domain = wanted.rpartition("@")
        if at and (real := snapshot.domain_aliases.get(domain)):
            wanted = f"{local}@{real}"
        rows = snapshot.rows(sql, wanted)
        return Credentials(_account(rows[0]), str(rows[0][7])) if rows else None

    def _answer(self, kind: str, sql: str, wanted: str, of: Callable[[list[tuple[Any, ...]]], Answer]) -> Answer:
        """`of` the rows, by the recent answers or the snapshot; a no is looked up in the newest one."""
        snapshot = self._current()
        answer = _ask(snapshot, kind, sql, wanted, of)
        if not answer and (newest := self._current(anew=True)) is not snapshot:
            answer = _ask(newest, kind, sql, wanted, of)
        return answer

    def _current(self, *, anew: bool = False) -> _Snapshot:
        now = self._clock()
        if anew or now - self._looked >= LOOK_EVERY or self._snapshot is None:
            with self._refreshing:
                self._look(now)
        if self._snapshot is None:
            raise DirectoryUnavailable(f"no directory is published in {self._folder}: {self.problem or 'not yet'}")
        return self._snapshot

    def _look(self, now: float) -> None:
        self._looked = now
        try:
            name = os.readlink(os.path.join(self._folder, LINK))
            if name != self._name:
                # The old connection is closed by its last user: another thread may be in the middle of a lookup.
                self._snapshot = _Snapshot(os.path.join(self._folder, name))
                self._name = name
            self.problem = ""
        except FileNotFoundError:
            self.problem = "admin has not published it"
        except (OSError, sqlite3.Error, IndexError, ValueError) as error:
            self.problem = f"the published directory cannot be read: {error}"


def _ask(
    snapshot: _Snapshot, kind: str, sql: str, wanted: str, of: Callable[[list[tuple[Any, ...]]], Answer]
) -> Answer:
    answer = snapshot.recent.get((kind, wanted), snapshot)
    if answer is snapshot:
        answer = of(snapshot.rows(sql, wanted))
        _remember(snapshot, kind, wanted, answer)
    return answer  # type: ignore[return-value]


def _remember(snapshot: _Snapshot, kind: str, wanted: str, answer: object) -> None:
    if len(snapshot.recent) >= RECENT_ANSWERS:
        snapshot.recent.clear()
    if len(wanted) <= 320:  # longer than any address: not worth keeping a stranger's megabyte
        snapshot.recent[kind, wanted] = answer


def _first_account(rows: list[tuple[Any, ...]]) -> Account | None:
    return _account(rows[0]) if rows else None


def _first_column(rows: list[tuple[Any, ...]]) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in rows)


def _account(row: tuple[Any, ...]) -> Account:
    address, domain, local, login, enabled, administrator, quota = row[:7]
    return Account(address, domain, local, login, bool(enabled), bool(administrator), quota)
