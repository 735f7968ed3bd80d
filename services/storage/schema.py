"""SQLite files: opened, migrated by numbered SQL, kept durable as their content needs.

Used by state, cache and queue. `PRAGMA user_version` is the number of the last migration applied. A higher one than
ours was written by a newer program and is refused, since it may mean things this one would overwrite; unless that
program has said that it may be opened. Mail and spool are not put back when an update is undone, so the old code must
go on with what the new one left: a migration that only adds (tables, indexes, columns that have a default or may be
NULL) says so with its first line, `-- readable from: N`, the oldest schema whose code may read and write its result.
What such code writes lacks what it does not know, and the newer code must bear that.

WAL: a commit appends to one file and readers never wait. `synchronous=FULL` fsyncs it at each commit: what was told to
a client must not be forgotten. NORMAL leaves that to the next checkpoint: after a power cut the last commits are gone,
the rest is whole; enough for what can be made again (cache) and what is settled a second later (flags, see state).
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from services.storage.errors import CorruptState, NewerSchema

MIGRATIONS = os.path.join(os.path.dirname(__file__), "migrations")
# Only a backup's reader or a person with the sqlite3 tool is ever beside us.
_BUSY_MS = 5_000
# Rows held at a time, below SQLite's limit of parameters.
_AT_ONCE = 500
_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")
_READABLE_FROM = re.compile(r"-- readable from: (\d+)\n")


def open_database(
    path: str, kind: str, *, durable: bool, page_cache_kib: int, page_size: int = 4096
) -> sqlite3.Connection:
    """Open or make `path` and bring it to the newest schema of `kind` (a folder in migrations/).

    Autocommit; use `transaction`. Raises NewerSchema, CorruptState (not a database), sqlite3.Error.
    """
    if path != ":memory:":
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        connection.execute(f"PRAGMA page_size={page_size}")  # of a new file
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute(f"PRAGMA cache_size=-{page_cache_kib}")
        migrate(connection, os.path.join(MIGRATIONS, kind), os.path.basename(path))
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise  # locked, full, not readable: the file itself may be well
        raise CorruptState(f"{os.path.basename(path)}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection, folder: str, name: str) -> None:
    """Apply the migrations in `folder` that are not applied yet, each in a transaction of its own."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    # The oldest schema that can read the file (0: it does not say). It stands in a header field that is changed in one
    # transaction with user_version and has no other use here, behind the version that it was said of.
    (said_of,) = connection.execute("PRAGMA application_id").fetchone()
    readable_from = said_of & 0xFFFF if said_of >> 16 == version else 0
    steps = sorted((int(found[1]), file) for file in os.listdir(folder) if (found := _NUMBERED.fullmatch(file)))
    if version > steps[-1][0]:
        if 0 < readable_from <= steps[-1][0]:
            return
        raise NewerSchema(f"{name} has schema {version}, this version knows {steps[-1][0]}: it is from a newer one")
    readable_from = readable_from or version
    for number, file in steps:
        if number > version:
            with open(os.path.join(folder, file), encoding="utf-8") as sql:
                script = sql.read()
            said = _READABLE_FROM.match(script)
            # One that needs more never makes way for one that claims less.
            readable_from = max(readable_from, int(said[1]) if said else number)
            # One script, so that a crash in the middle leaves the version before, not half a schema.
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version={number};\n"
                f"PRAGMA application_id={number << 16 | readable_from};\nCOMMIT;"
            )


def rows_by_key(
    connection: sqlite3.Connection, select: str, key: str, keys: Sequence[int], *before: int, base: int = 0
) -> Iterator[tuple[Any, ...]]:
    """Those of the rows with `keys` that are there, ascending. The first column of `select` is `key` less `base`.

    `select` ends in WHERE or AND; `before` are its own parameters. Reads a range where most of it is asked for (FETCH
    1:*), else looks each up.
    """
    keys = sorted(keys)
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        first, last = some[0], some[-1]
        if last - first < 4 * len(some):
            rows = connection.execute(
                f"{select} {key} BETWEEN ? AND ? ORDER BY {key}", (*before, first, last)
            ).fetchall()
            if last - first >= len(some):
                wanted = {number - base for number in some}
                rows = [row for row in rows if row[0] in wanted]
            yield from rows
        else:
            marks = ", ".join("?" * len(some))
            yield from connection.execute(f"{select} {key} IN ({marks}) ORDER BY {key}", (*before, *some)).fetchall()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing of what is executed inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
