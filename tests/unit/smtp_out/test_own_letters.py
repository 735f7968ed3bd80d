"""Letters that smtp-in writes in an account's name (vacation replies) are signed; what it hands on is not."""

from pathlib import Path

import pytest

from services.runtime.internal_http import Response
from tests.remote import Received
from tests.unit.smtp_out.sendingroom import SendingRoom, until
from tests.unit.smtp_out.test_queue_room import forwarded, in_room

REPLY = b"From: <anna@home.test>\r\nTo: <bob@far.test>\r\nSubject: Auto: x\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n"


async def sent(room: SendingRoom) -> Received:
    return (await until(lambda: room.relay.messages))[0]


def test_a_vacation_reply_is_signed_in_its_authors_domain(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        await forwarded(room, "MAIL FROM:<>", "bob@far.test", letter=REPLY)
        (asked,) = room.signed
        assert asked.query["domain"] == "home.test" and asked.body == REPLY.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert (await sent(room)).body == b"DKIM-Signature: d=home.test; b=x\r\n" + REPLY

    in_room(tmp_path, test)


@pytest.mark.parametrize(
    ("sender", "letter"),
    [
        ("MAIL FROM:<>", b"Delivered-To: anna@home.test\r\n" + REPLY),
        ("MAIL FROM:<SRS0=x=yy=far.test=bob@home.test>", REPLY),
        ("MAIL FROM:<>", b"Subject: no author\r\n\r\nx\r\n"),
    ],
)
def test_other_letters_are_not(tmp_path: Path, sender: str, letter: bytes) -> None:
    async def test(room: SendingRoom) -> None:
        await forwarded(room, sender, "bob@far.test", letter=letter)
        assert (await sent(room)).body == letter
        assert not room.signed

    in_room(tmp_path, test)


@pytest.mark.parametrize("status", [404, 503])
def test_without_a_signature_it_goes_all_the_same(tmp_path: Path, status: int) -> None:
    async def test(room: SendingRoom) -> None:
        room.sign = lambda _: Response.error(status, "no")
        await forwarded(room, "MAIL FROM:<>", "bob@far.test", letter=REPLY)
        assert (await sent(room)).body == REPLY
        assert room.events.of("signed", domain="home.test")

    in_room(tmp_path, test)


def test_a_long_one_is_signed_as_well(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        long = REPLY + b"I am still away.\r\n" * 20_000
        await forwarded(room, "MAIL FROM:<>", "bob@far.test", letter=long)
        assert (await sent(room)).body == b"DKIM-Signature: d=home.test; b=x\r\n" + long

    in_room(tmp_path, test)
