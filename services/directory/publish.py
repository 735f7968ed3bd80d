"""Publishes the directory to the other rooms: two SQLite files per generation and a `current` link to each.

    routing/<generation>.sqlite   domains, accounts, aliases            smtp-in, smtp-out
    auth/<generation>.sqlite      the same and the password hashes      imap, smtp-out

A file is written under a temporary name, fsynced, renamed, its folder fsynced; then the link is swapped by rename. A
crash at any point leaves the old link on a whole file, or the new one. Old generations are removed soon after
they were replaced: a reader that has read the link still finds its file, and one that has it open keeps it anyway.

Generation numbers are milliseconds since 1970, made to grow: a directory.db restored from a backup must not publish
other contents under a name that a running room has already read.

Called by `changes.py` in admin alone. Never reads the database itself: it is given rows.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.directory.lookup import LINK, SNAPSHOT_FORMAT
from services.directory.models import Account, Alias, Domain

KEEP_SECONDS = 10.0  # readers look at the link each second, and again when its file is gone; old hashes go soon
SUFFIX = ".sqlite"

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE domains (name TEXT PRIMARY KEY, alias_of TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE TABLE accounts (
    address TEXT PRIMARY KEY, domain TEXT NOT NULL, local TEXT NOT NULL, login TEXT NOT NULL,
    enabled INTEGER NOT NULL, administrator INTEGER NOT NULL, quota_bytes INTEGER NOT NULL{hash_column}
) WITHOUT ROWID;
CREATE UNIQUE INDEX by_login ON accounts (login) WHERE login <> '';
CREATE TABLE aliases (source TEXT NOT NULL, target TEXT NOT NULL, PRIMARY KEY (source, target)) WITHOUT ROWID;
CREATE INDEX by_target ON aliases (target);
"""


class PublicationFailed(Exception):
    """The snapshots could not be written or linked; the text is for the owner."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What one generation holds. `hashes` maps an account's address to its password hash."""

    generation: int
    domains: Sequence[Domain]
    accounts: Sequence[Account]
    aliases: Sequence[Alias]
    hashes: dict[str, str]


class Publisher:
    """Writes generations into the two folders; one per stack."""

    def __init__(self, routing_dir: str, auth_dir: str, *, clock: Callable[[], float] = time.time) -> None:
        """Both folders must exist."""
        self._routing, self._auth, self._clock = routing_dir, auth_dir, clock

    def next_generation(self, last: int) -> int:
        """A number above `last` and above all that lie in the folders."""
        lying = [number for folder in (self._routing, self._auth) for number in _generations(folder)]
        return max(int(self._clock() * 1000), last + 1, *[number + 1 for number in lying])

    def published(self) -> int | None:
        """The generation that both links point to; None where they differ or one is missing or broken."""
        routing, auth = (_linked(folder) for folder in (self._routing, self._auth))
        return routing if routing is not None and routing == auth else None

    def prepare(self, contents: Contents) -> None:
        """Write both files of a generation, durable, not yet linked; raises PublicationFailed, leaving nothing."""
        written: list[str] = []
        try:
            for folder, with_hashes in ((self._routing, False), (self._auth, True)):
                written.append(_write(folder, contents, with_hashes))
        except (OSError, sqlite3.Error) as error:
            for path in written:
                _remove(path)
            raise PublicationFailed(f"the directory could not be published: {error}") from error

    def link(self, generation: int) -> None:
        """Swap both links to a prepared generation; raises PublicationFailed. May be called again."""
        try:
            for folder in (self._routing, self._auth):
                _swap(folder, f"{generation:013d}{SUFFIX}")
        except OSError as error:
            raise PublicationFailed(f"the directory is saved but could not be published: {error}") from error

    def withdraw(self, generation: int) -> None:
        """Remove a prepared generation that will not be linked."""
        for folder in (self._routing, self._auth):
            _remove(os.path.join(folder, f"{generation:013d}{SUFFIX}"))

    def sweep(self) -> None:
        """Remove generations that were replaced some seconds ago, and what a crash left half written."""
        now = self._clock()
        for folder in (self._routing, self._auth):
            linked = _linked(folder)
            if linked is None:
                continue
            # A generation is replaced when the next one's file appears, so the age of the successor counts. From the
            # oldest on: a successor must still be there when its age is asked for.
            for generation, successor in itertools.pairwise(sorted(_generations(folder))):
                with contextlib.suppress(OSError):
                    age = now - os.stat(os.path.join(folder, f"{successor:013d}{SUFFIX}")).st_mtime
                    if generation != linked and age > KEEP_SECONDS:
                        _remove(os.path.join(folder, f"{generation:013d}{SUFFIX}"))
            for name in os.listdir(folder):
                if name.endswith(".partial"):
                    _remove(os.path.join(folder, name))


def _write(folder: str, contents: Contents, with_hashes: bool) -> str:
    path = os.path.join(folder, f"{contents.generation:013d}{SUFFIX}")
    partial = f"{path}.partial"
    _remove(partial)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    # Readers have uids of their own. Who may read is decided by the mounts, and by who may enter the folder: only rooms
    # with log-ins mount the hashes, and only the group that they have in common may enter there.
    os.fchmod(descriptor, 0o644 if os.stat(folder).st_mode & stat.S_IXOTH else 0o640)
    os.close(descriptor)
    try:
        connection = sqlite3.connect(partial, isolation_level=None)
        try:
            # No journal: a crash leaves a partial file, which is swept; fsync comes once, below.
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("BEGIN")
            _fill(connection, contents, with_hashes)
            connection.execute("COMMIT")
        finally:
            connection.close()
        _fsync(partial, os.O_RDONLY)
        os.rename(partial, path)
        _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)
    except BaseException:
        _remove(partial)
        raise
    return path


def _fill(connection: sqlite3.Connection, contents: Contents, with_hashes: bool) -> None:
    column = ", password_hash TEXT NOT NULL" if with_hashes else ""
    for statement in _TABLES.replace("{hash_column}", column).split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={SNAPSHOT_FORMAT}")
    connection.execute("INSERT INTO meta VALUES ('generation', ?)", (str(contents.generation),))
    domains = [(domain.name, domain.alias_of) for domain in contents.domains]
    connection.executemany("INSERT INTO domains VALUES (?, ?)", domains)
    connection.executemany("INSERT INTO aliases VALUES (?, ?)", [(a.source, a.target) for a in contents.aliases])
    # A room from before domain aliases reads this as a catch-all that keeps the part before @: nearly the same. Others
    # never ask for it, since they ask about addresses of the domain that it stands for.
    connection.executemany(
        "INSERT OR IGNORE INTO aliases VALUES (?, ?)", [(f"@{name}", f"@{of}") for name, of in domains if of]
    )
    rows: list[tuple[object, ...]] = []
    for account in contents.accounts:
        row: tuple[object, ...] = (
            account.address, account.domain, account.local, account.login, account.enabled, account.administrator,
            account.quota_bytes,
        )  # fmt: skip
        if with_hashes:
            # A disabled account has no hash out there at all: a room that forgot to look at `enabled` still refuses.
            row += (contents.hashes.get(account.address, "") if account.enabled else "",)
        rows.append(row)
    marks = ", ".join("?" * (8 if with_hashes else 7))
    connection.executemany(f"INSERT INTO accounts VALUES ({marks})", rows)


def _swap(folder: str, name: str) -> None:
    if not os.path.exists(os.path.join(folder, name)):
        raise FileNotFoundError(f"{name} is not in {folder}")
    fresh = os.path.join(folder, f".{LINK}.partial")
    _remove(fresh)
    os.symlink(name, fresh)
    os.rename(fresh, os.path.join(folder, LINK))
    _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _linked(folder: str) -> int | None:
    try:
        name = os.readlink(os.path.join(folder, LINK))
    except OSError:
        return None
    number = name.removesuffix(SUFFIX)
    whole = number.isdigit() and os.path.exists(os.path.join(folder, name))
    return int(number) if whole else None


def _generations(folder: str) -> list[int]:
    names = (name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))
    return [int(name) for name in names if name.isdigit()]


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _fsync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
