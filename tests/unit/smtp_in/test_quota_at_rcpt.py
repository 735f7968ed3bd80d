"""Full mailboxes: 452 at RCPT, at the final dot, and what is let through all the same."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.smtp_in.quota import COUNTED_SECONDS, Quotas
from services.storage.personal import publish
from services.storage.usage_file import NAME, UsageNow, encode
from tests.receivingroom import ReceivingRoom
from tests.unit.smtp_in.test_forwarding import run

ANNA, BERTA = "anna@example.test", "berta@example.test"
MESSAGE = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 100


@dataclass(frozen=True)
class Person:
    address: str
    quota_bytes: int


class Envelope:
    """Who holds room."""


def quotas(folder: Path, used: int | None, at: float = 1000.0, now: float = 1000.0) -> tuple[Quotas, list[float]]:
    (folder / "personal").mkdir(exist_ok=True)
    if used is not None:
        publish(str(folder / "personal"), ANNA, NAME, encode(UsageNow(used, at)), durable=False)
    clock = [now]
    ticks = iter(range(0, 10_000, 2))  # each look is two seconds after the last
    return Quotas(str(folder / "personal"), lambda: clock[0], monotonic=lambda: float(next(ticks))), clock


@pytest.mark.parametrize(
    ("used", "quota", "size", "full"),
    [
        (None, 100, 1000, False),  # nothing is known of it
        (50, 0, 10**9, False),  # no quota
        (50, 100, 50, False),
        (50, 100, 51, True),
        (99, 100, 0, False),
        (100, 100, 0, True),
        (500, 100, 0, True),
    ],
)
def test_is_there_room(tmp_path: Path, used: int | None, quota: int, size: int, full: bool) -> None:
    made, _ = quotas(tmp_path, used)
    verdict = made.at_rcpt(ANNA, "a@far.test", [Person(ANNA, quota)], size, Envelope(), inside=False)
    assert (verdict is not None) is full
    if verdict is not None:
        assert str(verdict.reply).startswith("452 4.2.2") and verdict.rules == "quota" and verdict.outcome == "defer"


def test_what_is_on_its_way_counts_until_it_is_gone(tmp_path: Path) -> None:
    made, clock = quotas(tmp_path, 10)
    person, first, second = Person(ANNA, 100), Envelope(), Envelope()

    def ask(size: int, holder: object) -> bool:
        return made.at_rcpt(ANNA, "a@far.test", [person], size, holder, inside=False) is None

    assert ask(60, first)
    assert not ask(60, second) and ask(20, second)
    del first  # the connection is gone
    assert made.held(ANNA) == 30
    made.delivered(ANNA, 25, second)  # it was a little larger than was said
    assert made.held(ANNA) == 35
    # imap counts again, and has seen it.
    publish(str(tmp_path / "personal"), ANNA, NAME, encode(UsageNow(35, clock[0] + 1)), durable=False)
    assert made.held(ANNA) == 35
    made.delivered(ANNA, 5, None)
    clock[0] += COUNTED_SECONDS + 1
    assert made.held(ANNA) == 35
    made.delivered(BERTA, 5, None)  # has no quota: nothing is remembered of it
    assert made.held(BERTA) is None


def test_who_is_let_through(tmp_path: Path) -> None:
    made, _ = quotas(tmp_path, 105)
    full, roomy = Person(ANNA, 100), Person(BERTA, 1000)

    def ask(recipient: str, sender: str, people: list[Person], size: int = 0, inside: bool = False) -> bool:
        return made.at_rcpt(recipient, sender, people, size, Envelope(), inside=inside) is None

    assert not ask(ANNA, "a@far.test", [full])
    assert ask("postmaster@example.test", "a@far.test", [full])
    assert ask("abuse@example.test", "a@far.test", [full])
    assert ask("family@example.test", "a@far.test", [full, roomy])
    assert not ask("family@example.test", "a@far.test", [full, roomy], size=50)
    assert ask(ANNA, ANNA, [full], inside=True)  # the letter that says so
    assert [ask(ANNA, ANNA, [full], inside=True) for _ in range(3)] == [True, True, False]  # and no more of them
    assert not ask(ANNA, ANNA, [full])  # anybody can claim that outside
    assert not ask(ANNA, ANNA, [full], size=1 << 20, inside=True)
    assert not ask(ANNA, BERTA, [full], inside=True)


# --- over the wire


def use(room: ReceivingRoom, octets: int, address: str = ANNA) -> None:
    publish(str(room.folder / "personal"), address, NAME, encode(UsageNow(octets, time.time())), durable=False)


def wire(tmp_path: Path, story: Any) -> None:
    run(tmp_path, story, quotas={"anna": 10_000})


def test_a_full_mailbox_is_452_at_rcpt(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        use(room, 9_990)
        client = await room.client()
        assert (await client.say("MAIL FROM:<a@far.test> SIZE=100")).startswith("250")
        assert await client.say(f"RCPT TO:<{ANNA}>") == "452 4.2.2 the mailbox is full, try again later"
        assert (await client.say(f"RCPT TO:<{BERTA}>")).startswith("250")
        (told,) = room.events.of("rcpt", outcome="defer")
        assert told["rules"] == "quota" and ANNA in told["reason"]
        assert (await client.say("RSET", "MAIL FROM:<a@far.test> SIZE=5", f"RCPT TO:<{ANNA}>")).startswith("250")

    wire(tmp_path, story)


def test_a_size_that_was_not_said_is_looked_at_at_the_final_dot(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        use(room, 9_500)
        client = await room.client()
        assert (await client.send("a@far.test", [ANNA], MESSAGE)).startswith("452 4.2.2")
        assert room.messages(ANNA) == []
        lmtp = await room.lmtp()
        await lmtp.say("MAIL FROM:<x@far.test>", f"RCPT TO:<{ANNA}>", f"RCPT TO:<{BERTA}>", "DATA")
        lmtp.writer.write(MESSAGE + b".\r\n")
        assert (await lmtp.reply()).startswith("452 4.2.2")  # RFC 2033: each recipient its own
        assert (await lmtp.reply()).startswith("250")
        assert room.messages(ANNA) == [] and len(room.messages(BERTA)) == 1

    wire(tmp_path, story)


def test_deliveries_count_before_imap_has_counted(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        use(room, 6_500)
        client = await room.client()
        for wanted in ("250", "452"):
            answer = await client.say("MAIL FROM:<a@far.test> SIZE=1800", f"RCPT TO:<{ANNA}>")
            if answer.startswith("250"):
                await client.say("DATA")
                client.writer.write(MESSAGE + b".\r\n")
                answer = await client.reply()
            assert answer.startswith(wanted), answer
            use(room, 6_500 + 100)  # somebody else's, counted before ours was there
            # An older count: what was delivered after it is added.
            publish(str(room.folder / "personal"), ANNA, NAME, encode(UsageNow(8_200, time.time() - 60)), durable=False)

    wire(tmp_path, story)
