"""The queue under crashes: whatever is acknowledged survives, whatever is recorded as delivered is not sent again.

Invented histories (add, claim, settle, hold, release, drop) run on a real spool and a real queue.db, and stop at an
invented step: before or after any write, fsync, link, unlink or commit. Two kinds of stop: our process dies (what the
kernel has been told stays) or the power fails (what was not fsynced is gone: file contents, names, and commits that
were not meant to be durable). Then the queue is opened again, as a start does, and held to what the outside was told.
"""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.storage.queue import NewMessage, Outcome, Work
from services.storage.queue_store import SqliteQueue
from services.storage.spool import Spool

NOW = 1_000_000.0


class Stopped(OSError):
    """The process or the machine ended here; every later step fails too."""


class Disk:
    """`os` for the spool: counts the steps that change something, and knows what a power failure would take."""

    def __init__(self, steps: int) -> None:
        self.left, self.stopped = steps, False
        self._paths: dict[int, str] = {}
        self._unsynced: set[int] = set()  # inodes
        self._undo: list[tuple[str, Callable[[], Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def step(self) -> None:
        if self.left <= 0:
            self.stopped = True
        if self.stopped:
            raise Stopped("stopped")
        self.left -= 1

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        made = bool(flags & os.O_CREAT) and not os.path.exists(path)
        if made:
            self.step()
        descriptor = os.open(path, flags, mode)
        self._paths[descriptor] = path
        if made:
            self._undo.append((os.path.dirname(path), lambda: os.path.exists(path) and os.unlink(path)))
            self._unsynced.add(os.fstat(descriptor).st_ino)
        return descriptor

    def pwrite(self, descriptor: int, data: Any, at: int) -> int:
        self.step()
        self._unsynced.add(os.fstat(descriptor).st_ino)
        return os.pwrite(descriptor, data, at)

    def fsync(self, descriptor: int) -> None:
        self.step()
        path = self._paths[descriptor]
        self._unsynced.discard(os.fstat(descriptor).st_ino)
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]

    def link(self, old: str, new: str) -> None:
        self.step()
        os.link(old, new)
        self._undo.append((os.path.dirname(new), lambda: os.path.exists(new) and os.unlink(new)))

    def unlink(self, path: str) -> None:
        self.step()
        kept = path + ".kept"
        os.link(path, kept)
        os.unlink(path)
        self._undo.append((os.path.dirname(path), lambda: os.path.exists(path) or os.rename(kept, path)))

    def lose(self, power: bool, folder: str) -> None:
        """What is gone. In any case the hard links that this class made to bring files back."""
        if power:
            for root, _, names in os.walk(folder):
                for name in names:
                    path = os.path.join(root, name)
                    if os.stat(path).st_ino in self._unsynced:
                        Path(path).write_bytes(b"")
            for _, undo in reversed(self._undo):
                undo()
        for root, _, names in os.walk(folder):
            for name in names:
                if name.endswith(".kept"):
                    os.unlink(os.path.join(root, name))


class Connection:
    """The queue's connection, whose COMMIT is a step before and a step after, and whose durable state can be had back."""

    def __init__(self, real: sqlite3.Connection, disk: Disk, path: str, aside: str) -> None:
        self._real, self._disk, self._path, self._aside = real, disk, path, aside
        self._durable = True
        self.keep()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql.startswith("PRAGMA synchronous="):
            self._durable = sql.endswith("FULL")
        if sql != "COMMIT":
            return self._real.execute(sql, *values)
        self._disk.step()
        result = self._real.execute(sql)
        if self._durable:
            self.keep()
        self._disk.step()
        return result

    def keep(self) -> None:
        """Remember what a power failure would leave."""
        for end in ("", "-wal"):
            if os.path.exists(self._path + end):
                shutil.copyfile(self._path + end, self._aside + end)

    def bring_back(self) -> None:
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self._path + end):
                os.unlink(self._path + end)
            if os.path.exists(self._aside + end):
                shutil.copyfile(self._aside + end, self._path + end)


@dataclass
class Told:
    """What the outside knows."""

    acknowledged: dict[str, bytes] = field(default_factory=dict)  # id → content
    delivered: set[tuple[str, str]] = field(default_factory=set)
    claimed: dict[str, Work] = field(default_factory=dict)  # in flight
    over: set[str] = field(default_factory=set)  # dropped, or all delivered
    in_doubt: set[str] = field(default_factory=set)  # the step that was under way when it stopped
    number: int = 0


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "add", "add large", "add two", "claim", "claim", "settle", "settle", "hold", "release", "drop"]
        ),
        st.integers(0, 5),
        st.sampled_from(["delivered", "delivered", "deferred", "failed"]),
    ),
    min_size=1,
    max_size=14,
)


async def write(spool: Spool, identity: str, content: bytes) -> Any:
    draft = spool.draft(identity, room=100)
    for start in range(0, len(content), 200_000):
        draft.write(content[start : start + 200_000])
        await draft.drain()
    await draft.settle()
    return await draft.commit(b"Subject: x\r\n\r\n")


async def add(spool: Spool, queue: SqliteQueue, told: Told, large: bool) -> None:
    told.number += 1
    identity = f"m{told.number:03}"
    content = (identity.encode() + b"\r\n") * (90_000 if large else 3)
    told.in_doubt.add(identity)
    spooled = await write(spool, identity, content)
    recipients = tuple((f"p{number}@one.test", "one.test") for number in range(2))
    message = NewMessage(identity, identity, "submission", "a@home.test", "", NOW, spooled, recipients)
    await queue.add(message)
    told.acknowledged[identity] = b"Subject: x\r\n\r\n" + content
    told.in_doubt.discard(identity)


async def settle(spool: Spool, queue: SqliteQueue, told: Told, work: Work, outcome: Any) -> None:
    del told.claimed[work.id]
    reports = []
    if outcome == "failed":
        told.number += 1
        identity = f"r{told.number:03}"
        told.in_doubt.add(identity)
        spooled = await write(spool, identity, b"a report\r\n")
        reports = [NewMessage(identity, identity, "report", "", "", NOW, spooled, (("a@home.test", "local"),))]
    told.in_doubt.add(work.id)
    outcomes = [Outcome(each.address, outcome, "words", next=NOW) for each in work.recipients]
    await queue.settle(work, NOW, outcomes, reports)
    told.in_doubt.discard(work.id)
    if outcome != "deferred":
        told.over.add(work.id)
        told.delivered |= {(work.id, each.address) for each in work.recipients}
    for report in reports:
        told.acknowledged[report.id] = b"Subject: x\r\n\r\na report\r\n"
        told.in_doubt.discard(report.id)


async def history(spool: Spool, queue: SqliteQueue, told: Told, operations: list[Any]) -> None:
    for what, which, outcome in operations:
        known = sorted(told.acknowledged)
        chosen = known[which % len(known)] if known else ""
        if what == "add two":
            results = await asyncio.gather(*(add(spool, queue, told, False) for _ in range(2)), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        elif what.startswith("add"):
            await add(spool, queue, told, what == "add large")
        elif what == "claim":
            work = (await queue.claim("one.test", NOW)).work
            if work is not None:
                assert not any((work.id, each.address) in told.delivered for each in work.recipients)
                told.claimed[work.id] = work
        elif what == "settle" and told.claimed:
            work = told.claimed[sorted(told.claimed)[which % len(told.claimed)]]
            await settle(spool, queue, told, work, outcome)
        elif what == "hold" and chosen:
            await queue.hold(chosen)
        elif what == "release" and chosen:
            await queue.release(chosen, NOW)
        elif what == "drop" and chosen:
            told.in_doubt.add(chosen)
            await queue.drop(chosen)
            told.over.add(chosen)
            told.claimed.pop(chosen, None)


async def check(spool: Spool, queue: SqliteQueue, told: Told) -> None:
    """The start after the stop against what the outside was told."""
    assert queue.recovery.missing == ()
    listed = {message.id: message for message in await queue.listing(1000)}
    assert set(spool.names()) == set(listed) and os.listdir(os.path.join(spool.folder, "tmp")) == []
    for identity, content in told.acknowledged.items():
        if identity in told.over or identity in told.in_doubt:
            continue
        assert identity in listed, f"{identity} was acknowledged and is lost"
        details = await queue.details(identity)
        assert details is not None and all(each.state != "in flight" for each in details.recipients)
        await queue.release(identity, NOW)
        got = await claims(queue, identity, NOW)
        assert got
        assert b"".join([chunk async for chunk in spool.chunks(got[0].spooled)]) == content
    for identity in told.over - told.in_doubt:
        assert identity not in listed, f"{identity} was finished and has come back"
    assert set(listed) <= set(told.acknowledged) | told.in_doubt


async def claims(queue: SqliteQueue, identity: str, now: float) -> list[Work]:
    found = []
    for destination in ("one.test", "local"):
        while (work := (await queue.claim(destination, now)).work) is not None:
            found.append(work)
    if not [work for work in found if work.id == identity]:
        raise AssertionError(f"{identity} is never tried again")
    for work in found:
        await queue.settle(work, now, [Outcome(each.address, "deferred", "", next=now) for each in work.recipients])
    return [work for work in found if work.id == identity]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=OPERATIONS, steps=st.integers(0, 120), power=st.booleans())
def test_what_was_acknowledged_survives(operations: list[Any], steps: int, power: bool) -> None:
    folder = tempfile.mkdtemp(prefix="queue-crash-")
    try:
        asyncio.run(stop_and_start(folder, operations, steps, power))
    finally:
        shutil.rmtree(folder)


async def stop_and_start(folder: str, operations: list[Any], steps: int, power: bool) -> None:
    spool_folder, aside = os.path.join(folder, "spool"), os.path.join(folder, "aside")
    spool = Spool(spool_folder)
    queue = SqliteQueue(spool, NOW)
    told, disk = Told(), Disk(steps)
    connection = Connection(queue._connection, disk, os.path.join(spool_folder, "queue.db"), aside)
    queue._connection = connection  # type: ignore[assignment]
    with mock.patch("services.storage.spool.os", disk):
        try:
            await history(spool, queue, told, operations)
        except Stopped:
            assert disk.stopped
        queue.close()
    spool.close()
    if disk.stopped:
        disk.lose(power, spool_folder)
        if power:
            connection.bring_back()
    else:
        disk.lose(False, spool_folder)
    spool = Spool(spool_folder)
    queue = SqliteQueue(spool, NOW)
    try:
        if not (disk.stopped and power):  # a claim need not survive the machine
            assert queue.recovery.interrupted <= sum(len(work.recipients) for work in told.claimed.values()) + 4
        await check(spool, queue, told)
    finally:
        queue.close()
        spool.close()
