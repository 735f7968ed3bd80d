"""The queue's store: what a message goes through, and what a start finds after a stop at any point."""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.storage.errors import NewerSchema
from services.storage.queue import NewMessage, Outcome, Work
from services.storage.queue_recovery import INTERRUPTED
from services.storage.queue_store import SqliteQueue
from services.storage.spool import Spool

NOW = 1_000_000.0


class Opened:
    """A spool and its queue, as a room has them."""

    def __init__(self, folder: Path, now: float = NOW) -> None:
        self.spool = Spool(str(folder))
        self.queue = SqliteQueue(self.spool, now)

    def close(self) -> None:
        self.queue.close()
        self.spool.close()

    async def add(self, identity: str, *recipients: str, **other: Any) -> bool:
        draft = self.spool.draft(identity)
        draft.write(b"Subject: x\r\n\r\nbody\r\n")
        await draft.settle()
        spooled = await draft.commit(b"")
        to = tuple((address, address.partition("@")[2]) for address in recipients)
        values = {"trace": identity, "kind": "submission", "sender": "anna@here.test", "account": "anna@here.test"}
        values |= {"created": NOW} | other
        return await self.queue.add(NewMessage(identity, spooled=spooled, recipients=to, **values))


def opened(test: Callable[[Opened, Path], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def inside() -> None:
            both = Opened(tmp_path)
            try:
                await test(both, tmp_path)
            finally:
                both.close()

        asyncio.run(inside())

    run.__name__ = test.__name__
    return run


async def claimed(both: Opened, destination: str, now: float = NOW) -> Work | None:
    return (await both.queue.claim(destination, now)).work


def done(work: Work, outcome: str = "delivered", **other: Any) -> list[Outcome]:
    reply = other.pop("reply", "250 2.0.0 ok")
    return [Outcome(each.address, outcome, reply, **other) for each in work.recipients]  # type: ignore[arg-type]


@opened
async def test_a_message_goes_through(both: Opened, folder: Path) -> None:
    queue = both.queue
    assert await both.add("m1", "b@one.test", "c@one.test", "d@two.test")
    assert await queue.agenda() == {"one.test": NOW, "two.test": NOW}
    work = await claimed(both, "one.test", NOW)
    assert work is not None and [each.address for each in work.recipients] == ["b@one.test", "c@one.test"]
    assert (await queue.claim("two.test", NOW - 1)).following == NOW
    assert [each.attempts for each in work.recipients] == [1, 1]
    assert await claimed(both, "one.test", NOW) is None
    assert await queue.settle(work, NOW, done(work)) is None
    assert os.listdir(folder / "msg") == ["m1"]
    other = await claimed(both, "two.test", NOW)
    assert other is not None
    assert await queue.settle(other, NOW, done(other, "deferred", next=NOW + 300, reply="450 later")) == NOW + 300
    assert await claimed(both, "two.test", NOW + 299) is None
    again = await claimed(both, "two.test", NOW + 300)
    assert again is not None and again.recipients[0].attempts == 2
    await queue.settle(again, NOW + 300, done(again))
    assert await queue.details("m1") is None and os.listdir(folder / "msg") == []


@opened
async def test_the_longest_due_goes_first(both: Opened, _: Path) -> None:
    await both.add("m2", "b@one.test", created=NOW + 5)
    await both.add("m3", "b@one.test", created=NOW + 1)
    assert (await claimed(both, "one.test", NOW + 9)).id == "m3"  # type: ignore[union-attr]


@opened
async def test_history_is_kept_in_the_remotes_words(both: Opened, _: Path) -> None:
    await both.add("m1", "b@one.test", "c@two.test")
    work = await claimed(both, "one.test", NOW)
    assert work is not None
    outcomes = done(work, "failed", reply="550 5.1.1 Kein Anschluss", remote="mx.one.test [192.0.2.1]")
    await both.queue.settle(work, NOW, outcomes)
    message = await both.queue.details("m1")
    assert message is not None
    line = message.history[0]
    assert (line.address, line.outcome) == ("b@one.test", "failed")
    assert (line.reply, line.remote) == ("550 5.1.1 Kein Anschluss", "mx.one.test [192.0.2.1]")
    assert {each.address: each.state for each in message.recipients} == {
        "b@one.test": "failed",
        "c@two.test": "waiting",
    }


@opened
async def test_what_was_put_off_untried_counts_no_attempt(both: Opened, _: Path) -> None:
    await both.add("m1", "b@one.test")
    work = await claimed(both, "one.test", NOW)
    assert work is not None
    await both.queue.settle(work, NOW, done(work, "deferred", next=NOW + 60, tried=False))
    message = await both.queue.details("m1")
    assert message is not None and message.recipients[0].attempts == 0 and not message.history


@opened
async def test_hold_release_retry_drop(both: Opened, folder: Path) -> None:
    queue = both.queue
    await both.add("m1", "b@one.test")
    assert await queue.hold("m1") and not await queue.hold("nothing")
    assert await claimed(both, "one.test", NOW) is None and await queue.agenda() == {}
    assert (await queue.details("m1")).state == "held"  # type: ignore[union-attr]
    assert await queue.release("m1", NOW + 7)
    assert await queue.agenda() == {"one.test": NOW + 7}
    work = await claimed(both, "one.test", NOW + 7)
    assert work is not None
    await queue.settle(work, NOW, done(work, "deferred", next=NOW + 9000))
    assert await queue.retry("m1", NOW + 20) and await queue.agenda() == {"one.test": NOW + 20}
    assert await queue.retry("", NOW + 10) and not await queue.retry("nothing", NOW)
    dropped = await queue.drop("m1")
    assert dropped is not None and dropped.recipients[0].address == "b@one.test"
    assert await queue.drop("m1") is None and await queue.listing(10) == [] and os.listdir(folder / "msg") == []


@opened
async def test_a_message_held_while_in_flight_stays_held_after(both: Opened, _: Path) -> None:
    await both.add("m1", "b@one.test")
    work = await claimed(both, "one.test", NOW)
    assert work is not None
    await both.queue.hold("m1")
    assert await both.queue.settle(work, NOW, done(work, "deferred", next=NOW)) is None
    assert await claimed(both, "one.test", NOW + 1) is None


@opened
async def test_a_message_dropped_while_in_flight_is_not_reported(both: Opened, folder: Path) -> None:
    await both.add("m1", "b@one.test")
    work = await claimed(both, "one.test", NOW)
    assert work is not None
    await both.queue.drop("m1")
    draft = both.spool.draft("r1")
    await draft.settle()
    report = NewMessage("r1", "m1", "report", "", "", NOW, await draft.commit(b"x"), (("anna@here.test", "local"),))
    await both.queue.settle(work, NOW, done(work, "failed"), [report])
    assert await both.queue.listing(10) == [] and os.listdir(folder / "msg") == []


@opened
async def test_a_report_comes_with_the_failure_it_tells_of(both: Opened, _: Path) -> None:
    await both.add("m1", "b@one.test")
    work = await claimed(both, "one.test", NOW)
    assert work is not None
    draft = both.spool.draft("r1")
    await draft.settle()
    report = NewMessage("r1", "m1", "report", "", "", NOW, await draft.commit(b"x"), (("anna@here.test", "local"),))
    await both.queue.settle(work, NOW, done(work, "failed"), [report])
    assert [message.id for message in await both.queue.listing(10)] == ["r1"]


@opened
async def test_a_repeated_hand_over_is_taken_once(both: Opened, folder: Path) -> None:
    assert await both.add("m1", "b@one.test", trace="t", once=True)
    assert not await both.add("m2", "b@one.test", trace="t", once=True)
    assert sorted(os.listdir(folder / "msg")) == ["m1"]
    assert await both.add("m3", "b@one.test", "c@one.test", trace="t", once=True)
    message = await both.queue.details("m3")
    assert message is not None and [each.address for each in message.recipients] == ["c@one.test"]
    assert await both.add("m4", "b@one.test", trace="other", once=True)


@opened
async def test_fifty_at_once_share_transactions(both: Opened, _: Path) -> None:
    commits = 0
    real = both.queue._commit

    def counted(batch: Any) -> None:
        nonlocal commits
        commits += 1
        real(batch)

    both.queue._commit = counted  # type: ignore[method-assign]
    await asyncio.gather(*(both.add(f"m{number:02}", "b@one.test") for number in range(50)))
    assert len(await both.queue.listing(100)) == 50 and commits < 40


@opened
async def test_one_that_fails_does_not_undo_its_neighbours(both: Opened, _: Path) -> None:
    await both.add("m1", "b@one.test")
    spooled = (await claimed(both, "one.test", NOW)).spooled  # type: ignore[union-attr]
    again = NewMessage("m1", "m1", "submission", "", "", NOW, spooled, (("x@y.test", "y.test"),))
    results = await asyncio.gather(both.queue.add(again), both.add("m2", "c@one.test"), return_exceptions=True)
    assert isinstance(results[0], sqlite3.IntegrityError) and results[1] is True


@opened
async def test_a_failed_commit_tells_everybody(both: Opened, _: Path) -> None:
    def broken() -> None:
        raise OSError("the disk is gone")

    both.spool.sync_folder = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="gone"):
        await both.add("m1", "b@one.test")
    assert await both.queue.listing(10) == []


@opened
async def test_a_file_that_the_disk_keeps_does_not_stop_the_queue(both: Opened, _: Path) -> None:
    # The queue's thread ended with the unlink's error, and whoever asked it anything waited for ever.
    def broken(name: str) -> None:
        raise OSError("read-only file system")

    await both.add("m1", "b@one.test")
    both.spool.remove = broken  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await both.queue.drop("m1")
        assert await both.queue.listing(10) == []


@opened
async def test_reroute_asks_again_for_each_waiting_address(both: Opened, _: Path) -> None:
    await both.add("m1", "b@one.test", "c@two.test")
    assert await both.queue.reroute(lambda address, kind: "relay" if "two" in address else "one.test") == 1
    assert set(await both.queue.agenda()) == {"one.test", "relay"}


@opened
async def test_listing_pages_by_id(both: Opened, _: Path) -> None:
    for name in ("m3", "m1", "m2"):
        await both.add(name, "b@one.test")
    assert [each.id for each in await both.queue.listing(2)] == ["m1", "m2"]
    assert [each.id for each in await both.queue.listing(2, after="m2")] == ["m3"]
    assert await both.queue.counts() == {"waiting": 3}


def after_a_crash(folder: Path, before: Callable[[Opened], Awaitable[None]], now: float = NOW + 50) -> Opened:
    """Run `before`, then open what it left, as a start after kill -9 does: nothing was closed in order."""

    async def inside() -> None:
        both = Opened(folder)
        await before(both)
        both.close()

    asyncio.run(inside())
    return Opened(folder, now)


def test_attempts_in_flight_are_counted_and_tried_again(tmp_path: Path) -> None:
    async def before(both: Opened) -> None:
        await both.add("m1", "b@one.test", "c@one.test", "d@two.test")
        await claimed(both, "one.test", NOW)

    both = after_a_crash(tmp_path, before)
    assert both.queue.recovery.interrupted == 2 and both.queue.recovery.queued == 1

    async def look() -> None:
        work = await claimed(both, "one.test", NOW + 50)
        assert work is not None and [each.attempts for each in work.recipients] == [2, 2]
        message = await both.queue.details("m1")
        assert message is not None
        assert {(line.outcome, line.reply) for line in message.history} == {("interrupted", INTERRUPTED)}

    asyncio.run(look())
    both.close()


def test_files_that_nobody_was_told_of_are_removed(tmp_path: Path) -> None:
    async def before(both: Opened) -> None:
        await both.add("m1", "b@one.test")
        draft = both.spool.draft("orphan")
        await draft.settle()
        await draft.commit(b"Subject: never acknowledged\r\n\r\n")

    both = after_a_crash(tmp_path, before)
    assert both.queue.recovery.orphans == 1 and list(both.spool.names()) == ["m1"]
    both.close()


def test_a_message_without_its_file_is_named(tmp_path: Path) -> None:
    async def before(both: Opened) -> None:
        await both.add("m1", "b@one.test")
        both.spool.remove("m1")

    both = after_a_crash(tmp_path, before)
    assert both.queue.recovery.missing == ("m1",) and both.queue.recovery.queued == 1
    both.close()


def test_a_restored_queue_starts_held(tmp_path: Path) -> None:
    async def before(both: Opened) -> None:
        await both.add("m1", "b@one.test", "c@one.test")
        await both.add("m2", "b@two.test")
        await claimed(both, "two.test", NOW)
        await both.add("m3", "left@during.test")
        both.spool.remove("m3")
        Path(both.spool.folder, "held").touch()

    both = after_a_crash(tmp_path, before)
    recovery = both.queue.recovery
    assert recovery.restored and recovery.queued == 2 and recovery.missing == ("m3",)

    async def look() -> None:
        assert await both.queue.agenda() == {}
        assert [message.state for message in await both.queue.listing(10)] == ["held", "held"]
        await both.queue.release("m1", NOW + 60)
        assert await both.queue.agenda() == {"one.test": NOW + 60}

    asyncio.run(look())
    both.close()
    again = Opened(tmp_path)
    assert not again.queue.recovery.restored  # the mark is spent: what was released stays released
    again.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Opened(tmp_path).close()
    database = sqlite3.connect(tmp_path / "queue.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    spool = Spool(str(tmp_path))
    with pytest.raises(NewerSchema):
        SqliteQueue(spool, NOW)
    spool.close()


def test_a_closed_queue_takes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        both = Opened(tmp_path)
        both.close()
        with pytest.raises(OSError, match="closed"):
            await both.queue.agenda()

    asyncio.run(run())
