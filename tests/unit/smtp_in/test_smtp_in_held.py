"""smtp-in while an update is under way: port 25 tells the world to come back, LMTP goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.runtime.internal_http import Client, PeerRefused
from tests.receivingroom import Conversation, ReceivingRoom

WORLD = "127.0.0.9"  # who asks for the hold comes from 127.0.0.1
MESSAGE = b"From: a@far.test\r\nSubject: x\r\n\r\nbody\r\n"


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


async def connect(room: ReceivingRoom, listener: str = "smtp") -> Conversation:
    """From elsewhere; not greeted yet."""
    streams = await asyncio.open_connection("127.0.0.1", room.port(listener), local_addr=(WORLD, 0))
    room._conversations.append(conversation := Conversation(*streams))
    return conversation


async def hold(room: ReceivingRoom, verb: str = "hold") -> dict[str, object]:
    answer = await room.admin.post(f"/v1/{verb}", {"id": "u1", "seconds": 60} if verb == "hold" else {"id": "u1"})
    return answer.json()  # type: ignore[no-any-return]


def test_the_world_is_told_to_come_back_and_the_record_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with ReceivingRoom(tmp_path) as room:
            assert (await hold(room))["held"] == "u1"
            peer = await connect(room)
            assert await peer.reply() == "421 4.3.2 an update is running, try again in a minute"
            assert await peer.reply() == "", "and the connection is closed"
            (refused,) = room.events.of("connect", outcome="defer")
            assert refused["peer"] == WORLD and refused["reason"] == "held for the update u1"
            assert refused["reply"].startswith("421 4.3.2")
            # The gate comes from where the question came from.
            gate = await room.client()
            assert (await gate.send("", ["anna@example.test"], MESSAGE)).startswith("250")
            await hold(room, "release")
            assert (await (await connect(room)).reply()).startswith("220")
            assert [event["trace"] for event in room.events.of("hold")] == ["u1", "u1"]

    run(story)


def test_a_message_in_flight_is_taken_and_then_the_session_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with ReceivingRoom(tmp_path) as room:
            busy, idle = await connect(room), await connect(room)
            for peer in (busy, idle):
                await peer.reply()
                await peer.say("EHLO far.test")
            await busy.say("MAIL FROM:<a@far.test>", "RCPT TO:<anna@example.test>", "DATA")
            busy.writer.write(MESSAGE[:20])
            await busy.writer.drain()
            await hold(room)
            assert await idle.reply() == "421 4.3.2 an update is running, try again in a minute"
            busy.writer.write(MESSAGE[20:] + b".\r\n")
            assert (await busy.reply()).startswith("250 2.6.0")
            assert (await busy.reply()).startswith("421 4.3.2 an update")
            assert len(room.messages()) == 1

    run(story)


def test_lmtp_goes_on_and_so_do_forwards(tmp_path: Path) -> None:
    async def story() -> None:
        async with ReceivingRoom(tmp_path) as room:
            await hold(room)
            smtp_out = await connect(room, "lmtp")
            await smtp_out.reply()
            await smtp_out.say("LHLO smtp-out", f"AUTH PLAIN {room.login}")
            for recipient in ("anna@example.test", "away@example.test"):
                assert (await smtp_out.send("a@far.test", [recipient], MESSAGE)).startswith("250"), recipient
            assert len(room.messages()) == 1 and len(room.smtp_out.messages) == 1

    run(story)


def test_the_successor_starts_held(tmp_path: Path) -> None:
    async def story() -> None:
        async with ReceivingRoom(tmp_path) as room:
            await hold(room)
            await room.stop()
            await room._start()
            assert (await (await connect(room)).reply()).startswith("421 4.3.2 an update")
            await hold(room, "release")
            assert (await (await connect(room)).reply()).startswith("220")

    run(story)


def test_only_admin_may_hold(tmp_path: Path) -> None:
    async def story() -> None:
        async with ReceivingRoom(tmp_path) as room:
            imap = Client("imap", room.secrets, "smtp-in", f"http://127.0.0.1:{room.port('http')}")
            for path in ("/v1/hold", "/v1/release"):
                try:
                    await imap.request("POST", path, body=json.dumps({"id": "u1", "seconds": 5}).encode())
                except PeerRefused as refused:
                    assert refused.response.status == 403
                else:
                    raise AssertionError(path)
            imap.close()

    run(story)
