"""The queue as the room runs it: retries, reports, hold and release, restarts, forwards from smtp-in."""

import asyncio
import base64
import email
import email.policy
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.runtime.secrets import Secrets
from services.smtp_out import queue_runner
from tests.remote import CLOSE, STALL
from tests.unit.smtp_out.sendingroom import SendingRoom, until
from tests.unit.smtp_out.test_submission import LETTER

DAY = 86_400


def in_room(folder: Path, test: Callable[[SendingRoom], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with SendingRoom(folder, **options) as room:
            await test(room)

    asyncio.run(run())


async def one_queued(room: SendingRoom, to: str = "bob@far.test") -> dict[str, Any]:
    """Send, and wait until the first attempt is recorded."""
    assert (await room.send("anna@home.test", [to], LETTER)).startswith("250")
    await until(lambda: room.events.of("attempt"))
    (message,) = await room.queue()
    return message


def report_in(body: bytes) -> Any:
    return email.message_from_bytes(body, policy=email.policy.default)


def test_a_refusal_comes_back_in_the_remotes_words(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT TO:<gone@": "550 5.1.1 no such person here"}
        await room.send("anna@home.test", ["gone@far.test", "bob@far.test"], LETTER)
        await until(lambda: room.lmtp.messages and room.relay.messages)
        sent = room.lmtp.messages[0]
        assert sent.mail.startswith("MAIL FROM:<>") and sent.recipients == ["RCPT TO:<anna@home.test>"]
        report = report_in(sent.body)
        assert report.get_content_type() == "multipart/report"
        status = list(report.iter_parts())[1].get_payload()
        assert [block["Final-Recipient"] for block in status[1:]] == ["rfc822; gone@far.test"]
        assert "no such person here" in status[1]["Diagnostic-Code"] and status[1]["Status"] == "5.1.1"
        (bounced,) = room.events.of("bounced")
        assert bounced["recipient"] == "gone@far.test" and bounced["report"]
        assert room.events.of("attempt", outcome="reject")[0]["reply"] == "550 5.1.1 no such person here"
        await until(lambda: not list((tmp_path / "spool" / "msg").iterdir()))

    in_room(tmp_path, test)


def test_what_is_refused_for_now_waits_and_goes_once(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"BODY": ["451 4.3.0 not now", "250 2.0.0 ok"]}
        message = await one_queued(room)
        (recipient,) = message["recipients"]
        assert (recipient["state"], recipient["attempts"]) == ("waiting", 1)
        assert "not now" in recipient["last_reply"] and recipient["destination"] == "relay"
        assert 290 < recipient["next"] - message["created"] < 310
        details = await room.ask("GET", f"/v1/queue/{message['id']}")
        assert details["history"][0]["reply"] == "451 4.3.0 not now" and "127.0.0.1" in details["history"][0]["remote"]
        assert (await room.ask("POST", f"/v1/queue/{message['id']}/retry"))["done"] == "retry"
        await until(lambda: len(room.relay.messages) == 2)
        await until(lambda: room.events.of("attempt", outcome="accept"))
        assert await room.queue() == []

    in_room(tmp_path, test)


def test_hold_release_drop(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        path = f"/v1/queue/{(await one_queued(room))['id']}"
        await room.ask("POST", path + "/hold")
        assert (await room.queue())[0]["state"] == "held"
        await room.ask("POST", "/v1/queue/retry")
        await asyncio.sleep(0.02)
        assert len(room.events.of("attempt")) == 1
        await room.ask("POST", path + "/release")
        await until(lambda: len(room.events.of("attempt")) == 2)
        assert (await room.ask("DELETE", path))["done"] == "drop"
        assert await room.queue() == [] and room.events.of("dropped")[0]["recipients"] == ["bob@far.test"]
        assert list((tmp_path / "spool" / "msg").iterdir()) == []
        for method, wrong in (("GET", path), ("DELETE", path), ("POST", path + "/hold"), ("POST", path + "/fly")):
            assert await room.ask(method, wrong) == 404
        for limit in ("0", "x", "99999999999"):
            assert await room.ask("GET", "/v1/queue", limit=limit) == 400

    in_room(tmp_path, test)


def test_admin_is_told_how_mail_leaves(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        settings = room.context.settings
        wanted = settings.relay_signatures if settings.relay_host else "both"
        assert await room.ask("GET", "/v1/status") == {"relay": settings.relay_host, "signatures": wanted}

    in_room(tmp_path, test)


def test_after_five_days_it_goes_back(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        await one_queued(room)
        room.ahead = 5 * DAY + 10
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: room.lmtp.messages)
        status = list(report_in(room.lmtp.messages[0].body).iter_parts())[1].get_payload()
        assert status[1]["Status"] == "5.4.7" and "not now" in status[1]["Diagnostic-Code"]
        assert "given up" in room.events.of("bounced")[0]["reason"]

    in_room(tmp_path, test)


def test_the_sender_is_told_once_that_it_is_late(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        await one_queued(room)
        for hours in (5, 8):
            room.ahead = hours * 3600
            before = len(room.events.of("attempt", recipient="bob@far.test"))
            await room.ask("POST", "/v1/queue/retry")
            await until(lambda: len(room.events.of("attempt", recipient="bob@far.test")) > before)  # noqa: B023
        await until(lambda: room.lmtp.messages)
        assert len(room.lmtp.messages) == 1
        assert report_in(room.lmtp.messages[0].body)["Subject"].startswith("Late, still trying")
        assert len(await room.queue()) == 1

    in_room(tmp_path, test)


def test_a_report_that_fails_is_not_reported(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT": "550 5.1.1 no"}
        room.lmtp.replies = {"RCPT": "550 5.1.1 not here either"}
        await room.send("anna@home.test", ["gone@far.test"], LETTER)
        dropped = await until(lambda: room.events.of("dropped"))
        assert "a report itself" in dropped[0]["reason"]
        await until(lambda: not list((tmp_path / "spool" / "msg").iterdir()))

    in_room(tmp_path, test)


@pytest.mark.parametrize("fault", [{"CONNECT": CLOSE}, {"AUTH": "535 5.7.8 who are you"}, {"CONNECT": "554 no"}])
def test_a_relay_that_will_not_talk_is_left_alone_and_nothing_is_lost(fault: dict[str, Any], tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = fault
        await one_queued(room)
        connections = room.relay.connections
        for _ in range(3):
            await room.send("anna@home.test", ["bob@far.test"], LETTER)
        async with asyncio.timeout(5):
            while sum("not tried" in each["recipients"][0]["last_reply"] for each in await room.queue()) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert room.relay.connections == connections  # the others did not find out one by one
        assert all(each["recipients"][0]["attempts"] <= 1 for each in await room.queue())
        room.relay.replies = {}
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: len(room.relay.messages) == 4)

    in_room(tmp_path, test)


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        for number in range(5):
            await room.send("anna@home.test", [f"bob{number}@far.test"], LETTER)
        await until(lambda: len(room.events.of("attempt")) == 5)
        await room.stop()
        room.relay.replies = {}
        await room.start()
        assert len(await room.queue()) == 5
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: len(room.relay.messages) == 5)

    in_room(tmp_path, test)


def test_a_stop_ends_what_hangs_within_the_grace_and_the_next_start_counts_it(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"BODY": STALL}
        await room.send("anna@home.test", ["bob@far.test"], LETTER)
        await until(lambda: room.relay.messages)
        started = asyncio.get_running_loop().time()
        await room.stop()
        assert asyncio.get_running_loop().time() - started < 2
        room.relay.replies = {}
        await room.start()
        await until(lambda: len(room.relay.messages) == 2)  # RFC 1047: its 250 was in flight
        await until(lambda: not list((tmp_path / "spool" / "msg").iterdir()))

    in_room(tmp_path, test, grace_seconds=0)


def test_an_attempt_in_flight_ends_within_the_grace(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        release = asyncio.Event()
        room.relay.body_gate = release
        await room.send("anna@home.test", ["bob@far.test"], LETTER)
        await until(lambda: room.relay.messages)
        stopping = asyncio.create_task(room.stop())
        await asyncio.sleep(0.02)
        assert not stopping.done()
        release.set()
        await stopping
        assert room.events.of("attempt", outcome="accept")
        await room.start()
        assert await room.queue() == [] and len(room.relay.messages) == 1

    in_room(tmp_path, test, grace_seconds=5)


def test_a_restored_queue_waits_for_its_owner(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        await one_queued(room)
        await room.stop()
        (tmp_path / "spool" / "held").touch()
        room.relay.replies = {}
        await room.start()
        await room.ask("POST", "/v1/queue/retry")
        assert (await room.queue())[0]["state"] == "held" and not room.relay.messages
        await room.ask("POST", "/v1/queue/release")
        await until(lambda: room.relay.messages)

    in_room(tmp_path, test)


def test_a_domain_that_becomes_ours_takes_its_waiting_mail(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        await one_queued(room)
        room.directory.add_domain("far.test")
        room.directory.add_account("bob@far.test", "")
        async with asyncio.timeout(10):
            while (await room.queue())[0]["recipients"][0]["destination"] != "local":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: room.lmtp.messages)

    in_room(tmp_path, test)


def test_a_relay_that_is_set_later_takes_waiting_mail_and_nothing_goes_directly(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.world.replies = {"MAIL": "451 4.3.0 not now"}
        assert (await one_queued(room))["recipients"][0]["destination"] == "far.test"
        attempts = len(room.world.commands)
        room.direct = False
        await room.stop()
        await room.start()
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: room.relay.messages)
        assert len(room.world.commands) == attempts
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        await one_queued(room)
        room.direct = True
        await room.stop()
        room.world.replies = {}
        await room.start()
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: room.world.messages)

    in_room(tmp_path, test, direct=True)


def test_a_stop_before_there_is_a_certificate(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        await room.stop()
        (tmp_path / "certs" / "current").unlink()
        before, starting = room.context, asyncio.create_task(room.start())
        await until(lambda: room.context is not before and "forward" in room.context.ports)
        room.context.stop.set()
        await starting
        assert "submission" not in room.context.ports and not room.context.health.started
        (tmp_path / "certs" / "current").symlink_to("1")
        await room.start()

    in_room(tmp_path, test)


def test_a_missing_file_is_told_to_the_sender(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"MAIL": "451 4.3.0 not now"}
        message = await one_queued(room)
        (tmp_path / "spool" / "msg" / message["id"]).unlink()
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: room.lmtp.messages)
        assert b"missing from the queue" in room.lmtp.messages[0].body

    in_room(tmp_path, test)


# --- a clock that was wrong, or is set


@pytest.mark.parametrize("down", [False, True])
def test_a_clock_that_is_set_back_freezes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, down: bool) -> None:
    monkeypatch.setattr(queue_runner, "REFRESH_SECONDS", 0.05)

    async def test(room: SendingRoom) -> None:
        room.ahead = float(DAY)
        room.relay.replies = {"CONNECT": [CLOSE, "220 hello"]} if down else {"BODY": ["451 not now", "250 ok"]}
        message = await one_queued(room)
        (recipient,) = message["recipients"]
        assert recipient["state"] == "waiting" and recipient["next"] > time.time() + DAY
        room.ahead = 0.0
        await until(lambda: room.events.of("attempt", outcome="accept"))
        assert await room.queue() == []

    in_room(tmp_path, test)


def test_a_clock_that_is_set_forward_gives_nothing_up_before_its_time(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"BODY": ["451 not now", "451 not now", "250 ok"]}
        message = await one_queued(room)
        room.ahead = float(DAY)
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: len(room.events.of("attempt")) >= 2)
        assert not room.events.of("bounced", outcome="reject")
        assert [each["id"] for each in await room.queue() if each["id"] == message["id"]], (
            "late by a day, and not given up"
        )
        room.ahead = 0.0
        await room.ask("POST", f"/v1/queue/{message['id']}/retry")
        await until(lambda: room.events.of("attempt", outcome="accept"))

    in_room(tmp_path, test)


def test_a_forward_waits_with_smtp_in_while_the_clock_is_not_set(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.ahead = -50.0 * 365 * DAY
        mail = "MAIL FROM:<SRS0=x=y=far.test=z@home.test>"
        assert (await forwarded(room, mail, "aunt@far.test"))[-1].startswith("451 4.3.0 the clock is not set yet")
        assert await room.queue() == []

    in_room(tmp_path, test)


# --- forwards from smtp-in


async def forwarded(
    room: SendingRoom, mail: str, *recipients: str, secret: str = "", letter: bytes = LETTER
) -> list[str]:
    """Hand a message over as smtp-in does; the replies. A recipient is an address, or all that follows RCPT."""
    secret = secret or Secrets(str(room.folder / "secrets")).pair("smtp-in", "smtp-out")
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port("forward"))
    replies = []

    async def say(line: bytes) -> str:
        writer.write(line + b"\r\n" if line else b"")
        while (reply := (await reader.readline()).decode().strip())[3:4] == "-":
            replies.append(reply)
        replies.append(reply)
        return reply

    await say(b"")
    await say(b"EHLO smtp-in")
    token = base64.b64encode(f"\0smtp-in\0{secret}".encode())
    for line in (
        b"AUTH PLAIN " + token,
        mail.encode(),
        *[f"RCPT {each if ':' in each else f'TO:<{each}>'}".encode() for each in recipients],
    ):
        if not (await say(line)).startswith("2"):
            break
    else:
        if (await say(b"DATA")).startswith("354"):
            await say(letter.replace(b"\r\n.", b"\r\n..") + b".")
    writer.close()
    return replies


def test_a_forward_goes_as_it_came_and_once(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        mail = "MAIL FROM:<SRS0=x=y=far.test=z@home.test> XTRACE=0123456789abcdef"
        replies = await forwarded(room, mail, "aunt@far.test")
        assert any("XMAILSTEAD" in reply for reply in replies) and replies[-1].startswith("250 2.6.0")
        await until(lambda: room.relay.messages)
        sent = room.relay.messages[0]
        assert sent.body == LETTER.replace(b"\r\n.", b"\r\n..") and not room.signed
        assert sent.mail.startswith("MAIL FROM:<SRS0=x=y=far.test=z@home.test>")
        assert (await forwarded(room, mail, "aunt@far.test"))[-1].startswith("250")  # its 250 got lost
        assert (await forwarded(room, mail, "aunt@far.test", "uncle@far.test"))[-1].startswith("250")
        await until(lambda: len(room.relay.messages) == 2)
        assert room.relay.messages[1].recipients == ["RCPT TO:<uncle@far.test>"]
        assert len(room.events.of("queued", trace="0123456789abcdef")) == 3

    in_room(tmp_path, test)


def test_a_forward_of_the_null_sender_that_fails_is_dropped(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT": "550 5.1.1 no"}
        letter = b"Delivered-To: aunt@home.test\r\n" + LETTER
        await forwarded(room, "MAIL FROM:<> XTRACE=0123456789abcdef", "aunt@far.test", letter=letter)
        dropped = await until(lambda: room.events.of("dropped"))
        assert "no sender to tell" in dropped[0]["reason"]

    in_room(tmp_path, test)


def test_only_smtp_in_hands_over(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        replies = await forwarded(room, "MAIL FROM:<>", "aunt@far.test", secret="guessed")
        assert replies[-1].startswith("535") and room.events.of("login", outcome="reject")
        assert await room.queue() == []

    in_room(tmp_path, test)
