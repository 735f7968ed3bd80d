"""smtp-out while an update is under way: no submissions from the world, no attempts but the mail gate's; then all flows."""

from __future__ import annotations

import asyncio
import json
import smtplib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.runtime.hold import Lease
from tests.remote import Remote
from tests.unit.smtp_out.sendingroom import PASSWORD, SendingRoom, sending, until
from tests.unit.smtp_out.test_queue_runner import ZONE, Running, running

WORLD = "127.0.0.9"  # who asks for the hold comes from 127.0.0.1
GATE = "ben@home.test"  # any account may be the gate's: it is named with the hold
MESSAGE = b"From: anna@home.test\r\nTo: bob@far.test\r\nSubject: x\r\n\r\nbody\r\n"


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


async def hold(room: SendingRoom, *, seconds: float = 60) -> Any:
    body = {"id": "u1", "seconds": seconds, "account": GATE}
    return await room.ask("POST", "/v1/hold", json.dumps(body).encode())


async def release(room: SendingRoom) -> Any:
    return await room.ask("POST", "/v1/release", b'{"id": "u1"}')


@pytest.mark.parametrize("listener", ["submissions", "submission"])
def test_submission_tells_people_to_come_back(tmp_path: Path, listener: str) -> None:
    async def story() -> None:
        async with sending(tmp_path) as room:
            assert (await hold(room))["held"] == "u1"
            before = await room.send("anna@home.test", ["bob@far.test"], MESSAGE, listener=listener, source=WORLD)
            assert before == "421 4.3.2 an update is running, try again in a minute"
            (refused,) = room.events.of("connect", outcome="defer")
            assert (refused["peer"], refused["listener"]) == (WORLD, listener)
            assert refused["reason"] == "held for the update u1"
            await release(room)
            after = await room.send("anna@home.test", ["bob@far.test"], MESSAGE, listener=listener, source=WORLD)
            assert after.startswith("250")

    run(story)


def test_a_session_that_is_open_ends_after_its_message(tmp_path: Path) -> None:
    async def story() -> None:
        async with sending(tmp_path) as room:
            client = await asyncio.to_thread(room.client, "submissions", WORLD)
            await asyncio.to_thread(client.login, "anna@home.test", PASSWORD)
            await hold(room)
            code, text = await asyncio.to_thread(client.noop)
            assert (code, text) == (421, b"4.3.2 an update is running, try again in a minute")
            client.close()

    run(story)


def test_the_queue_waits_but_for_the_gates_letter_and_then_all_goes(tmp_path: Path) -> None:
    async def story() -> None:
        async with sending(tmp_path) as room:
            await hold(room)
            # From the gate's address anybody may come in: what counts for the queue is the account.
            to = {"anna@home.test": ["bob@far.test", "ben@home.test"], GATE: [GATE]}
            for account, recipients in to.items():
                message = MESSAGE.replace(b"anna@home.test", account.encode())
                assert (await room.send(account, recipients, message, login=account)).startswith("250")
            await until(lambda: room.lmtp.messages)
            queued = await room.queue()
            assert [each["account"] for each in queued] == ["anna@home.test"]
            assert {each["attempts"] for each in queued[0]["recipients"]} == {0}
            assert len(room.lmtp.messages) == 1 and not room.relay.messages
            await release(room)
            await until(lambda: room.relay.messages and len(room.lmtp.messages) == 2)
            assert not await room.queue()

    run(story)


def test_forwards_of_smtp_in_are_taken_and_wait(tmp_path: Path) -> None:
    async def story() -> None:
        async with sending(tmp_path) as room:
            await hold(room)

            def forward() -> tuple[int, bytes]:
                secret = room.context.secrets.pair("smtp-in", "smtp-out")
                with smtplib.SMTP("127.0.0.1", room.port("forward"), "smtp-in", source_address=(WORLD, 0)) as client:
                    client.login("smtp-in", secret)
                    client.mail("a@far.test")
                    client.rcpt("bob@far.test")
                    return client.data(MESSAGE)

            assert (await asyncio.to_thread(forward))[0] == 250
            assert len(await room.queue()) == 1 and not room.relay.messages
            await release(room)
            await until(lambda: room.relay.messages)

    run(story)


def test_a_hold_that_is_not_renewed_lets_the_queue_go_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with sending(tmp_path) as room:
            await hold(room, seconds=0.5)
            assert (await room.send("anna@home.test", ["bob@far.test"], MESSAGE)).startswith("250")
            await until(lambda: room.relay.messages)
            assert room.events.of("hold", outcome="error")

    run(story)


def test_the_successor_starts_held_and_sends_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with sending(tmp_path) as room:
            await hold(room)
            assert (await room.send("anna@home.test", ["bob@far.test"], MESSAGE)).startswith("250")
            await room.stop()
            await room.start()
            assert (await room.send("anna@home.test", ["b@far.test"], MESSAGE, source=WORLD)).startswith("421")
            assert len(await room.queue()) == 1 and not room.relay.messages
            await release(room)
            await until(lambda: room.relay.messages)

    run(story)


# --- the runner by itself


def holding(run: Running, account: str) -> None:
    lease = Lease("u1", 60, 0, "", 0, "", account)
    run.runner._held = lambda: lease
    run.runner.look()


def test_attempts_in_flight_end_and_no_further_one_begins(tmp_path: Path) -> None:
    async def story() -> None:
        gate = asyncio.Event()
        async with Remote(body_gate=gate) as remote, running(tmp_path, ZONE, remote.port) as work:
            for number in range(3):
                await work.add(f"m{number}", "x@far.test")
            await until(lambda: "DATA" in remote.commands)
            holding(work, "")
            gate.set()
            await until(lambda: not work.runner._workers)
            assert len(remote.messages) == 1
            states = [each.state for message in await work.queue.listing(9) for each in message.recipients]
            assert states == ["waiting", "waiting"], "the one in flight was delivered"

    run(story)


def test_the_gate_is_tried_again_when_smtp_in_is_not_there_yet(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, ZONE, 9, lmtp_address="127.0.0.1:9") as work:
            holding(work, "gate@home.test")
            await work.add("other", "x@home.test")
            await work.add("gate", "gate@home.test", account="gate@home.test")

            def tried() -> dict[str, Any]:
                return {line["queue_id"]: line for line in work.events.of("attempt")}

            await until(tried)
            assert list(tried()) == ["gate"]
            count = len(work.events.of("attempt"))
            work.now[0] = tried()["gate"]["next"]
            work.runner.look()
            await until(lambda: len(work.events.of("attempt")) > count)
            assert list(tried()) == ["gate"]

    run(story)
