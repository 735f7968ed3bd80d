"""directory.db: the truth about domains, accounts and aliases, opened by the admin room alone.

SQLite in WAL mode, each commit durable before it is answered. The schema is numbered SQL in `migrations/`, its number
in `PRAGMA user_version`. A file from a newer Mailstead is opened only where that one has said so: a migration that only
adds says with its first line which older schema's code may go on with its result (`-- readable from: 1`), and the file
carries that number. This module opens, migrates and reads; what changes it is in `changes.py`. Synchronous and safe
from several threads: admin calls it in threads.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.directory.models import Account, Alias, Domain, Duty

MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")
# What SQLite raises for a disk that is full, broken or read-only, by its name in this house.
DatabaseUnusable = sqlite3.OperationalError

BUSY_MS = 5000  # only a backup's reader is ever beside us


class NewerDatabase(OSError):
    """The file was written by a newer Mailstead; an OSError so that the start names it in one line."""


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """An account with what only admin knows of it. `last_used`, `used_bytes` None: no room has told yet."""

    account: Account
    created: float
    password_changed: float
    last_used: float | None
    used_bytes: int | None
    used_messages: int | None


_DOMAINS = (
    "SELECT domains.name, domains.created, coalesce(existing.name, '') FROM domains "
    "LEFT JOIN domain_aliases ON domain_aliases.name = domains.name "
    "LEFT JOIN domains AS existing ON existing.name = domain_aliases.existing ORDER BY domains.name"
)
_DETAILS = (
    "SELECT address, domain, local, login, enabled, administrator, quota_bytes, deleted_at, "
    "created, password_changed, last_used, used_bytes, used_messages FROM accounts "
)


class Database:
    """The open file. `lock` is held around every use of `connection`."""

    def __init__(self, path: str) -> None:
        """Opens and migrates `path`; raises NewerDatabase, sqlite3.Error."""
        self.lock = threading.RLock()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # hashes are inside
        os.close(descriptor)
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.connection.execute("PRAGMA cache_size=-512")
        try:
            migrate(self.connection, MIGRATIONS, os.path.basename(path))
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.connection.close()

    def copy(self) -> bytes:
        """The whole file as of the last commit: what a copy of it would hold."""
        with self.lock:
            return self.connection.serialize()

    def domains(self) -> list[Domain]:
        """All local domains, sorted by name."""
        return [Domain(*row) for row in self._rows(_DOMAINS)]

    def has_domain(self, name: str) -> bool:
        """True where the domain, in its stored form, is local."""
        return bool(self._rows("SELECT 1 FROM domains WHERE name = ?", name))

    def targets(self, source: str) -> list[str]:
        """Where an alias, in its stored form, leads."""
        return [row[0] for row in self._rows("SELECT target FROM aliases WHERE source = ? ORDER BY target", source)]

    def aliases(self) -> list[Alias]:
        """All aliases, sorted by source and target."""
        return [Alias(*row) for row in self._rows("SELECT source, target FROM aliases ORDER BY source, target")]

    def accounts(self, *, deleted: bool = False) -> list[AccountDetails]:
        """All accounts in use, or all deleted ones whose mail is still kept; sorted by address."""
        state = "NOT NULL" if deleted else "NULL"
        return [_details(row) for row in self._rows(f"{_DETAILS}WHERE deleted_at IS {state} ORDER BY address, id")]

    def account(self, address: str) -> AccountDetails | None:
        """The account in use with this address in its stored form."""
        rows = self._rows(_DETAILS + "WHERE address = ? AND deleted_at IS NULL", address)
        return _details(rows[0]) if rows else None

    def account_by_login(self, login: str) -> AccountDetails | None:
        """The account in use with this user name."""
        rows = self._rows(_DETAILS + "WHERE login = ? AND login <> '' AND deleted_at IS NULL", login)
        return _details(rows[0]) if rows else None

    def password_hash(self, address: str) -> str:
        """The hash of the account's password; "" for an unknown account."""
        rows = self._rows("SELECT password_hash FROM accounts WHERE address = ? AND deleted_at IS NULL", address)
        return str(rows[0][0]) if rows else ""

    def language(self, address: str) -> str:
        """The language that the account has chosen for the page; "" for none."""
        rows = self._rows("SELECT language FROM accounts WHERE address = ? AND deleted_at IS NULL", address)
        return str(rows[0][0]) if rows else ""

    def hashes(self) -> dict[str, str]:
        """Address → password hash of all accounts in use."""
        return dict(self._rows("SELECT address, password_hash FROM accounts WHERE deleted_at IS NULL"))

    def duties(self) -> list[Duty]:
        """What is still owed to other rooms, the oldest first."""
        return [
            Duty(*row) for row in self._rows("SELECT kind, subject, detail, since FROM duties ORDER BY since, kind")
        ]

    def meta(self, name: str) -> str:
        """A remembered value; "" where there is none."""
        rows = self._rows("SELECT value FROM meta WHERE name = ?", name)
        return str(rows[0][0]) if rows else ""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed at the end, rolled back on any exception."""
        with self.lock:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a failed COMMIT may have rolled back by itself
                    self.connection.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self.lock:
            return self.connection.execute(sql, values).fetchall()


def migrate(connection: sqlite3.Connection, folder: str, name: str) -> None:
    """Bring `connection` up to the last numbered file in `folder`, each in a transaction of its own.

    Raises NewerDatabase where the file is ahead of the folder and does not say that it may be opened all the same;
    `name` is the file's name for that message.
    """
    steps = _steps(folder)
    version, readable_from = _schema(connection)
    if version > len(steps):
        if readable_from and readable_from <= len(steps):
            return  # its new parts are unknown here and stay as they are
        raise NewerDatabase(
            f"{name} has schema {version}, this Mailstead knows {len(steps)}: it was written by a newer version"
        )
    readable_from = readable_from or version
    for number, step in enumerate(steps[version:], version + 1):
        if int(step[:4]) != number:
            raise OSError(f"migration {number} is missing in {folder}")
        with open(os.path.join(folder, step), encoding="utf-8") as file:
            script = file.read()
        said = re.match(r"-- readable from: (\d+)\n", script)
        # One that needs more never makes way for one that claims less.
        readable_from = max(readable_from, int(said[1]) if said else number)
        # executescript commits first and knows no transaction of its own, so the script carries it.
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version={number};\n"
                f"PRAGMA application_id={number << 16 | readable_from};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def readable(path: str) -> bool:
    """Whether this code could open the file as it is. Changes nothing."""
    if not os.path.exists(path):
        return False
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            version, readable_from = _schema(connection)
            known = len(_steps(MIGRATIONS))
            whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
    except sqlite3.Error:
        return False
    return whole and (version <= known or 0 < readable_from <= known)


def _steps(folder: str) -> list[str]:
    return sorted(file for file in os.listdir(folder) if re.fullmatch(r"\d{4}_\w+\.sql", file))


def _schema(connection: sqlite3.Connection) -> tuple[int, int]:
    """The file's schema, and the oldest that can read it (0: it does not say). The second stands in the header's field
    `application_id`, behind the version that it was said of: changed in one transaction with that, and without another
    use here."""
    version, said_of = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("user_version", "application_id")
    )
    return version, said_of & 0xFFFF if said_of >> 16 == version else 0


def _details(row: tuple[Any, ...]) -> AccountDetails:
    address, domain, local, login, enabled, administrator, quota, deleted_at = row[:8]
    account = Account(address, domain, local, login, bool(enabled), bool(administrator), quota, deleted_at)
    return AccountDetails(account, *row[8:])
