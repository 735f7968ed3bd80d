"""The queue on SQLite: `Queue` in `spool/queue.db`, and which files of the spool are wanted.

smtp-out alone opens it. One thread has the connection. What arrives while it commits goes into its next transaction,
so that fifty submissions at once cost one fsync and not fifty. A claim alone is not synced: it must survive our crash,
not the machine's. A message's row comes before its 250 and goes before its file: a file without a row is nobody's.
Never talks to a network, never decides when to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from services.protocol.smtp_parameters import NO_RCPT_PARAMETERS, RcptParameters
from services.storage.queue import (
    Attempt,
    Claim,
    Forwarded,
    Kind,
    NewMessage,
    Outcome,
    QueuedMessage,
    QueuedRecipient,
    State,
    Waiting,
    Work,
)
from services.storage.queue_recovery import recover
from services.storage.schema import open_database
from services.storage.spool import Spool, Spooled

T = TypeVar("T")
# A recipient's state as it is stored.
STATES: tuple[State, ...] = ("waiting", "in flight", "held", "delivered", "failed")
WAITING, IN_FLIGHT, HELD, DELIVERED, FAILED = range(5)

# A hand-over whose 250 got lost is repeated within the other room's own retries, that is within minutes or, when we
# were away, within its sender's 5 days.
REMEMBER_TAKEN = 6 * 86_400.0
REMEMBER_FORWARDED = 30  # days


@dataclass(slots=True)
class _Operation:
    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    durable: bool
    names: bool  # files were added: their folder is synced before the commit
    result: Any = None
    error: BaseException | None = None
    unwanted: list[str] = field(default_factory=list)  # files to remove after the commit


class SqliteQueue:
    """`Queue` beside its spool. Open it, look at `recovery`, close it."""

    def __init__(self, spool: Spool, now: float) -> None:
        """Opens, migrates and recovers; takes about a second for 100,000 messages: call it in a thread.

        Raises sqlite3.Error, OSError, NewerSchema, CorruptState."""
        self._spool = spool
        path = os.path.join(spool.folder, "queue.db")
        # 4 MiB hold the index pages of 100,000 recipients that are in use.
        self._connection = open_database(path, "queue", durable=True, page_cache_kib=4096)
        try:
            self._connection.execute("PRAGMA foreign_keys=ON")
            self._connection.execute("PRAGMA journal_size_limit=8388608")  # what a burst made of the WAL is given back
            self.recovery = recover(self._connection, spool, now)
        except BaseException:
            self._connection.close()
            raise
        self._waiting: deque[_Operation] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="queue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was asked for, then close the file. Blocks: call it in a thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._connection.close()

    # --- Queue

    async def add(self, message: NewMessage) -> bool:
        """See `Queue.add`."""
        return await self._do(lambda db, op: _add(db, op, message), durable=True, names=True)

    async def agenda(self) -> dict[str, float]:
        """See `Queue.agenda`."""
        sql = "SELECT destination, MIN(next) FROM recipients WHERE state = 0 GROUP BY destination"
        return await self._do(lambda db, _: dict(db.execute(sql).fetchall()))

    async def claim(self, destination: str, now: float, account: str = "") -> Claim:
        """See `Queue.claim`."""
        return await self._do(lambda db, _: _claim(db, destination, now, account))

    async def settle(
        self,
        work: Work,
        now: float,
        outcomes: Sequence[Outcome],
        reports: Sequence[NewMessage] = (),
        forwarded: Forwarded | None = None,
    ) -> float | None:
        """See `Queue.settle`."""
        # What was put off without an attempt may be forgotten by a power cut: nothing has happened.
        durable = bool(reports) or any(each.tried or each.outcome != "deferred" for each in outcomes)
        return await self._do(
            lambda db, op: _settle(db, op, work, now, outcomes, reports, forwarded),
            durable=durable,
            names=bool(reports),
        )

    async def forwarded(self, day: int) -> Forwarded:
        """See `Queue.forwarded`."""
        sql = "SELECT count, told FROM forwarded WHERE day = ?"
        row = await self._do(lambda db, _: db.execute(sql, (day,)).fetchone())
        return Forwarded(day, row[0], bool(row[1])) if row else Forwarded(day)

    async def listing(self, limit: int, after: str = "") -> list[QueuedMessage]:
        """See `Queue.listing`."""
        sql = f"SELECT {_LISTED} FROM messages WHERE id > ? ORDER BY id LIMIT ?"
        return await self._do(lambda db, _: [_listed(db, row) for row in db.execute(sql, (after, limit)).fetchall()])

    async def details(self, identity: str) -> QueuedMessage | None:
        """See `Queue.details`."""
        return await self._do(lambda db, _: _details(db, identity))

    async def hold(self, identity: str) -> bool:
        """See `Queue.hold`."""
        return await self._do(lambda db, _: _hold(db, identity), durable=True)

    async def release(self, identity: str, now: float) -> bool:
        """See `Queue.release`."""
        return await self._do(lambda db, _: _release(db, identity, now), durable=True)

    async def retry(self, identity: str, now: float) -> bool:
        """See `Queue.retry`."""
        return await self._do(lambda db, _: _retry(db, identity, now))

    async def drop(self, identity: str) -> QueuedMessage | None:
        """See `Queue.drop`."""
        return await self._do(lambda db, op: _drop(db, op, identity), durable=True)

    async def reroute(self, destination_of: Callable[[str, Kind], str]) -> int:
        """See `Queue.reroute`; `destination_of` is called in the queue's thread."""
        return await self._do(lambda db, _: _reroute(db, destination_of))

    async def counts(self) -> dict[State, int]:
        """See `Queue.counts`."""
        sql = "SELECT state, COUNT(*) FROM recipients GROUP BY state"
        return await self._do(lambda db, _: {STATES[state]: count for state, count in db.execute(sql).fetchall()})

    # --- the thread

    async def _do(
        self, run: Callable[[sqlite3.Connection, _Operation], T], *, durable: bool = False, names: bool = False
    ) -> T:
        loop = asyncio.get_running_loop()
        operation = _Operation(lambda _: None, loop.create_future(), loop, durable, names)
        operation.run = lambda db: run(db, operation)
        with self._wake:
            if self._closing:
                raise OSError("the queue is closed")
            self._waiting.append(operation)
            self._wake.notify()
        return cast(T, await operation.future)

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if not self._waiting:
                    return
                batch = list(self._waiting)
                self._waiting.clear()
            self._commit(batch)
            for operation in batch:
                operation.loop.call_soon_threadsafe(_resolve, operation)

    def _commit(self, batch: list[_Operation]) -> None:
        """One transaction for all; an operation that fails is undone alone."""
        db = self._connection
        try:
            if any(operation.names for operation in batch):
                self._spool.sync_folder()
            db.execute(f"PRAGMA synchronous={'FULL' if any(each.durable for each in batch) else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            for operation in batch:
                db.execute("SAVEPOINT one")
                try:
                    operation.result = operation.run(db)
                except Exception as error:
                    db.execute("ROLLBACK TO one")
                    operation.error = error
                db.execute("RELEASE one")
            db.execute("COMMIT")
        except Exception as error:  # a full or broken disk: none of them happened
            if db.in_transaction:
                db.execute("ROLLBACK")
            for operation in batch:
                operation.error = operation.error or error
            return
        for operation in batch:
            if operation.error is None:
                for name in operation.unwanted:
                    # The row is gone for good; a file that a sick disk keeps is an orphan, removed at the next start.
                    with contextlib.suppress(OSError):
                        self._spool.remove(name)


def _resolve(operation: _Operation) -> None:
    if operation.future.done():
        return  # who asked is gone; it has happened all the same
    if operation.error is not None:
        operation.future.set_exception(operation.error)
    else:
        operation.future.set_result(operation.result)


def _add(db: sqlite3.Connection, operation: _Operation, message: NewMessage) -> bool:
    recipients: Iterable[tuple[str, str]] = message.recipients
    if message.once:
        db.execute("DELETE FROM taken WHERE at < ?", (message.created - REMEMBER_TAKEN,))
        sql = "INSERT OR IGNORE INTO taken (trace, address, at) VALUES (?, ?, ?)"
        recipients = [
            (address, destination)
            for address, destination in message.recipients
            if db.execute(sql, (message.trace, address, message.created)).rowcount
        ]
        if not recipients:
            operation.unwanted.append(message.spooled.name)
            return False
    spooled = message.spooled
    db.execute(
        "INSERT INTO messages (id, trace, kind, sender, account, created, start, size, eight_bit, smtputf8, message_id,"
        " ret, envid, requiretls) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (message.id, message.trace, message.kind, message.sender, message.account, message.created, spooled.start,
         spooled.size, message.eight_bit, message.smtputf8, message.message_id, message.ret, message.envid,
         message.requiretls),
    )  # fmt: skip
    asked = {address: message.dsn.get(address, NO_RCPT_PARAMETERS) for address, _ in recipients}
    db.executemany(
        "INSERT INTO recipients (message, address, destination, state, next, notify, orcpt) "
        "VALUES (?, ?, ?, 0, ?, ?, ?)",
        ((message.id, address, destination, message.created, asked[address].notify, asked[address].orcpt)
         for address, destination in recipients),
    )  # fmt: skip
    return True


# Only the mail gate asks by account, for the one destination that holds little: no index of it.
_BY_ACCOUNT = "AND EXISTS (SELECT 1 FROM messages WHERE id = message AND account = ?) "


def _claim(db: sqlite3.Connection, destination: str, now: float, account: str) -> Claim:
    whose, values = (_BY_ACCOUNT, (account,)) if account else ("", ())
    first = db.execute(
        f"SELECT message FROM recipients WHERE destination = ? AND state = 0 AND next <= ? {whose}"
        "ORDER BY next LIMIT 1",
        (destination, now, *values),
    ).fetchone()
    if first is None:
        return Claim(None, _next(db, destination, account))
    rows = db.execute(
        "UPDATE recipients SET state = 1, attempts = attempts + 1 WHERE message = ? AND destination = ? AND state = 0 "
        "AND next <= ? RETURNING address, attempts, warned, notify, orcpt",
        (first[0], destination, now),
    ).fetchall()
    message = db.execute(
        "SELECT trace, kind, sender, account, created, start, size, eight_bit, smtputf8, message_id, ret, envid, "
        "requiretls FROM messages WHERE id = ?",
        first,
    ).fetchone()
    trace, kind, sender, account, created, start, size, eight_bit, smtputf8, message_id, *asked = message
    work = Work(
        first[0], trace, kind, sender, account, created, Spooled(first[0], start, size), bool(eight_bit),
        bool(smtputf8), message_id, destination,
        tuple(
            Waiting(address, attempts, bool(warned), RcptParameters(notify, orcpt))
            for address, attempts, warned, notify, orcpt in sorted(rows)
        ),
        asked[0], asked[1], bool(asked[2]),
    )  # fmt: skip
    return Claim(work, _next(db, destination, account))


def _settle(
    db: sqlite3.Connection,
    operation: _Operation,
    work: Work,
    now: float,
    outcomes: Sequence[Outcome],
    reports: Sequence[NewMessage],
    forwarded: Forwarded | None,
) -> float | None:
    if forwarded is not None:
        db.execute("DELETE FROM forwarded WHERE day < ?", (forwarded.day - REMEMBER_FORWARDED,))
        db.execute(
            "INSERT INTO forwarded VALUES (?, ?, ?) ON CONFLICT (day) DO UPDATE SET count = count + excluded.count, "
            "told = max(told, excluded.told)",
            (forwarded.day, forwarded.count, forwarded.told),
        )
    known = db.execute("SELECT held FROM messages WHERE id = ?", (work.id,)).fetchone()
    if known is None:
        # Dropped by the owner meanwhile: what happened is in the events, and nobody wants a report.
        operation.unwanted += [report.spooled.name for report in reports]
        return _next(db, work.destination)
    states = {"delivered": DELIVERED, "failed": FAILED, "deferred": HELD if known[0] else WAITING}
    for each in outcomes:
        db.execute(
            "UPDATE recipients SET state = ?, next = ?, warned = warned OR ?, last_reply = ?, attempts = attempts - ? "
            "WHERE message = ? AND address = ? AND state = 1",
            (states[each.outcome], each.next, each.warned, each.reply, not each.tried, work.id, each.address),
        )
        if each.tried:
            db.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?)",
                (work.id, each.address, now, each.remote, each.outcome, each.reply),
            )
    for report in reports:
        _add(db, operation, report)
    left = db.execute("SELECT 1 FROM recipients WHERE message = ? AND state < 3 LIMIT 1", (work.id,)).fetchone()
    if left is None:
        db.execute("DELETE FROM messages WHERE id = ?", (work.id,))
        operation.unwanted.append(work.spooled.name)
    return _next(db, work.destination)


def _next(db: sqlite3.Connection, destination: str, account: str = "") -> float | None:
    whose, values = (_BY_ACCOUNT, (account,)) if account else ("", ())
    sql = f"SELECT MIN(next) FROM recipients WHERE destination = ? AND state = 0 {whose}"
    found: float | None = db.execute(sql, (destination, *values)).fetchone()[0]
    return found


_LISTED = "id, trace, kind, sender, account, created, size, message_id, held"


def _listed(db: sqlite3.Connection, row: tuple[Any, ...]) -> QueuedMessage:
    sql = (
        "SELECT address, destination, state, attempts, next, last_reply FROM recipients WHERE message = ? "
        "ORDER BY address"
    )
    recipients = tuple(
        QueuedRecipient(address, destination, STATES[state], attempts, due, reply)
        for address, destination, state, attempts, due, reply in db.execute(sql, (row[0],))
    )
    identity, trace, kind, sender, account, created, size, message_id, held = row
    return QueuedMessage(identity, trace, kind, sender, account, created, size, message_id, bool(held), recipients)


def _details(db: sqlite3.Connection, identity: str) -> QueuedMessage | None:
    row = db.execute(f"SELECT {_LISTED} FROM messages WHERE id = ?", (identity,)).fetchone()
    if row is None:
        return None
    sql = "SELECT address, at, remote, outcome, reply FROM attempts WHERE message = ? ORDER BY rowid"
    history = tuple(Attempt(*line) for line in db.execute(sql, (identity,)))
    return dataclasses.replace(_listed(db, row), history=history)


def _hold(db: sqlite3.Connection, identity: str) -> bool:
    found = db.execute("UPDATE messages SET held = 1 WHERE id = ?", (identity,)).rowcount
    db.execute("UPDATE recipients SET state = 2 WHERE message = ? AND state = 0", (identity,))
    return bool(found)


def _release(db: sqlite3.Connection, identity: str, now: float) -> bool:
    if not identity:
        db.execute("UPDATE recipients SET state = 0, next = ? WHERE state = 2", (now,))
        return bool(db.execute("UPDATE messages SET held = 0 WHERE held = 1").rowcount)
    found = db.execute("UPDATE messages SET held = 0 WHERE id = ?", (identity,)).rowcount
    db.execute("UPDATE recipients SET state = 0, next = ? WHERE message = ? AND state = 2", (now, identity))
    return bool(found)


def _retry(db: sqlite3.Connection, identity: str, now: float) -> bool:
    if not identity:
        db.execute("UPDATE recipients SET next = ? WHERE state = 0 AND next > ?", (now, now))
        return True
    db.execute("UPDATE recipients SET next = ? WHERE message = ? AND state = 0 AND next > ?", (now, identity, now))
    return db.execute("SELECT 1 FROM messages WHERE id = ?", (identity,)).fetchone() is not None


def _drop(db: sqlite3.Connection, operation: _Operation, identity: str) -> QueuedMessage | None:
    message = _details(db, identity)
    if message is not None:
        db.execute("DELETE FROM messages WHERE id = ?", (identity,))
        operation.unwanted.append(identity)
    return message


def _reroute(db: sqlite3.Connection, destination_of: Callable[[str, Kind], str]) -> int:
    changed = []
    for message, address, destination, kind in db.execute(
        "SELECT message, address, destination, kind FROM recipients JOIN messages ON messages.id = message "
        "WHERE state IN (0, 2)"
    ):
        wanted = destination_of(address, kind)
        if wanted != destination:
            changed.append((wanted, message, address))
    db.executemany("UPDATE recipients SET destination = ? WHERE message = ? AND address = ?", changed)
    return len(changed)
