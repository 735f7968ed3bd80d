"""The queue runner on real sockets with a clock of its own: faults of ours, destinations that hang, turns, refreshes."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.runtime import secrets
from services.runtime.dns import ZoneLookup
from services.runtime.health import Health
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from services.smtp.client import Timeouts
from services.smtp_out import queue_runner
from services.smtp_out.queue_runner import QueueRunner
from services.storage.queue import NewMessage, Outcome
from services.storage.queue_store import SqliteQueue
from services.storage.spool import Spool
from tests.remote import STALL, Remote
from tests.unit.smtp_out.sendingroom import Recorded, until

QUICK = Timeouts(connect=5, greeting=5, command=5, data=5, block=5, final=5, quit=0.05)


def destination_of(address: str, kind: str = "submission") -> str:
    domain = address.partition("@")[2]
    return "local" if domain == "home.test" else domain


@dataclasses.dataclass
class Running:
    """A runner at work."""

    queue: SqliteQueue
    spool: Spool
    runner: QueueRunner
    events: Recorded
    now: list[float]

    async def add(self, identity: str, *recipients: str, tell: bool = True, **other: Any) -> None:
        draft = self.spool.draft(identity)
        draft.write(b"Subject: x\r\n\r\nhello\r\n")
        await draft.settle()
        spooled = await draft.commit(b"")
        to = tuple((address, destination_of(address)) for address in recipients)
        values: dict[str, Any] = {"kind": "submission", "sender": "anna@home.test", "account": "anna@home.test"}
        message = NewMessage(
            identity, identity, created=self.now[0], spooled=spooled, recipients=to, **(values | other)
        )
        await self.queue.add(message)
        if tell:
            self.runner.added([destination for _, destination in to], self.now[0])


@asynccontextmanager
async def running(
    folder: Path, zone: dict[tuple[str, str], list[object]], port: int, **other: Any
) -> AsyncIterator[Running]:
    secrets.make(str(folder / "secrets"), secrets.every_name())
    now, events = [1_000_000.0], Recorded()
    settings = Settings(mail_domain="home.test", mx_port=port, log_level="error", **other)
    context = Context("smtp-out", settings, events, Secrets(str(folder / "secrets")), Health("smtp-out"),
                      clock=lambda: now[0])  # fmt: skip
    spool = Spool(str(folder / "spool"))
    queue = SqliteQueue(spool, now[0])

    runner = QueueRunner(context, queue, spool, ZoneLookup(zone), destination_of, QUICK)
    task = asyncio.create_task(runner.run())
    try:
        yield Running(queue, spool, runner, events, now)
    finally:
        await runner.stop(0.1)
        await task
        await asyncio.to_thread(queue.close)
        spool.close()


def play(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


ZONE: dict[tuple[str, str], list[object]] = {
    ("far.test", "MX"): [(10, "mx.far.test")],
    ("mx.far.test", "A"): ["127.0.0.1"],
}


def test_destinations_that_hang_hold_back_no_other(tmp_path: Path) -> None:
    zone: dict[tuple[str, str], list[object]] = {}
    for number in range(40):
        zone[f"d{number}.test", "A"] = ["127.0.0.2" if number < 8 else "127.0.0.1"]

    async def test() -> None:
        async with (
            Remote() as good,
            Remote({"CONNECT": STALL}, host="127.0.0.2", port=good.port) as hanging,
            running(tmp_path, zone, good.port, out_concurrency=4) as run,
        ):
            names = [(f"m{number:02}{copy}", f"x@d{number}.test") for number in range(40) for copy in range(3)]
            await asyncio.gather(*(run.add(*each, tell=False) for each in names))
            await run.runner.refresh()

            def drained() -> bool:
                run.now[0] += 0.05  # the clock goes on; who hangs loses his place after two seconds of it
                run.runner._wake.set()
                return len(good.messages) == 32 * 3

            await until(drained, 20)
            assert hanging.most_open <= 8 and good.most_open <= 4

    play(test)


def test_one_worker_serves_one_destination_over_one_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with Remote() as remote, running(tmp_path, ZONE, remote.port) as run:
            await asyncio.gather(*(run.add(f"m{number:02}", "bob@far.test", tell=False) for number in range(30)))
            await run.runner.refresh()
            await until(lambda: len(remote.messages) == 30)
            assert remote.connections <= 5 and remote.most_open <= 4

    play(test)


def test_a_fault_of_ours_defers_the_message_and_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = queue_runner.Courier.attempt

    async def broken(self: Any, work: Any) -> Any:
        if work.id == "bad":
            raise RuntimeError("a bug")
        return await real(self, work)

    monkeypatch.setattr(queue_runner.Courier, "attempt", broken)

    async def test() -> None:
        async with Remote() as remote, running(tmp_path, ZONE, remote.port) as run:
            await run.add("bad", "bob@far.test")
            await run.add("good", "bob@far.test")
            await until(lambda: remote.messages and run.events.of("bug"))
            async with asyncio.timeout(5):
                while (message := await run.queue.details("bad")).recipients[0].state != "waiting":  # type: ignore[union-attr] # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert message is not None and message.recipients[0].next == run.now[0] + queue_runner.FAULT_SECONDS

    play(test)


def test_nobody_fails_untold_and_what_was_delivered_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = queue_runner.Reports.compose
    full = [True]

    async def compose(self: Any, *arguments: Any) -> Any:
        if full[0]:
            raise OSError(5, "Input/output error")
        return await real(self, *arguments)

    monkeypatch.setattr(queue_runner.Reports, "compose", compose)

    async def test() -> None:
        async with Remote({"RCPT TO:<gone": "550 5.1.1 no"}) as remote, running(tmp_path, ZONE, remote.port) as run:
            await run.add("m1", "bob@far.test", "gone@far.test")
            await until(lambda: run.events.of("bug"))
            async with asyncio.timeout(5):
                while not (await run.queue.agenda()).get("far.test"):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            full[0] = False
            run.now[0] += 60
            await run.runner.refresh()
            await until(lambda: run.events.of("bounced"))
            assert len(remote.messages) == 1  # bob had his
            assert [line["recipient"] for line in run.events.of("bounced")] == ["gone@far.test"]

    play(test)


def test_a_verdict_that_could_not_be_written_is_kept_and_written_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with Remote() as remote, running(tmp_path, ZONE, remote.port) as run:
            real, broken = run.queue.settle, [True]

            async def settle(*arguments: Any, **other: Any) -> Any:
                if broken[0]:
                    raise OSError(5, "Input/output error")
                return await real(*arguments, **other)

            run.queue.settle = settle  # type: ignore[method-assign]
            await run.add("m1", "bob@far.test")
            await until(lambda: run.events.of("bug"))
            assert len(remote.messages) == 1
            broken[0] = False
            run.now[0] += queue_runner.REFRESH_SECONDS + 1
            run.runner._wake.set()
            async with asyncio.timeout(5):
                while await run.queue.details("m1") is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert len(remote.messages) == 1

    play(test)


def test_a_slow_destination_wears_out_and_recovers(tmp_path: Path) -> None:
    async def test() -> None:
        script = {"CONNECT": ["421 busy", "220 mx.far.test"]}
        async with Remote(script) as remote, running(tmp_path, ZONE, remote.port) as run:
            await run.add("m1", "bob@far.test")
            await until(lambda: run.events.of("attempt", outcome="defer"))
            await run.add("m2", "bob@far.test")
            async with asyncio.timeout(5):
                while not (await run.queue.details("m2")).recipients[0].last_reply:  # type: ignore[union-attr] # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            message = await run.queue.details("m2")
            assert message is not None and message.recipients[0].last_reply == "not tried: 421 busy"
            assert not message.history and remote.connections == 1
            run.now[0] += 301
            await run.runner.refresh()
            await until(lambda: len(remote.messages) == 2)

    play(test)


def test_what_waits_for_tomorrow_is_no_clock_that_was_set_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, {}, 9, forward_per_day=1) as place:
            retried: list[str] = []
            retry = place.queue.retry

            async def seen(identity: str, now: float) -> bool:
                retried.append(identity)
                return await retry(identity, now)

            place.queue.retry = seen  # type: ignore[method-assign]
            await place.add("f" * 16, "a@far.test", tell=False)
            claim = await place.queue.claim("far.test", place.now[0])
            assert claim.work is not None
            later = place.now[0] + 80_000
            outcome = Outcome("a@far.test", "deferred", "tomorrow", next=later, tried=False)
            await place.queue.settle(claim.work, place.now[0], [outcome])
            await place.queue.reroute(lambda address, kind: "forward:far.test")
            await place.runner.refresh()
            assert not retried
            await place.queue.reroute(lambda address, kind: "far.test")
            await place.runner.refresh()
            assert retried  # any other destination is never put off for so long

    asyncio.run(test())
