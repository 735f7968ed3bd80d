"""What people do in their mail programs teaches the junk filter, each message once, and smtp-in gets a model of it."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.imap import trainer as trainer_module
from services.smtp_in.junk_judge import JunkJudge
from services.storage import personal
from services.storage.junk_model import JunkModel, Sorted, kept, kept_list, wrote_to
from services.storage.personal import JUNK_MODEL
from tests.unit.imap.imap_world import ANN, Client, World, run, world

SPAM = b"From: Shop <shop@spam.example>\r\nSubject: cheap meds\r\n\r\nbuy cheap meds now\r\n"
HAM = b"From: Bob <bob@friend.example>\r\nSubject: lunch\r\n\r\nshall we have lunch\r\n"
LISTED = b"From: x@list.example\r\nList-Id: Talk <talk.list.example>\r\nSubject: list\r\n\r\nhello all\r\n"


@contextlib.asynccontextmanager
async def reading(tmp_path: Path, *letters: bytes, mailbox: str = "INBOX") -> AsyncIterator[tuple[World, Client]]:
    async with world(tmp_path) as place:
        client = await Client.logged_in(place.port)
        for letter in letters:
            place.deliver(letter, mailbox="" if mailbox == "INBOX" else f".{mailbox}")
        await client.ok(f"SELECT {mailbox}")
        yield place, client
        client.close()


def model(place: World) -> JunkModel:
    return JunkModel((Path(place.settings.personal_dir) / "example.test" / "ann" / JUNK_MODEL).read_bytes())


async def sorted_now(place: World) -> Sorted:
    await place.trainer.drain()
    account = await place.accounts.open(ANN)
    try:
        return await account.run(account.store.junk.sorted)
    finally:
        place.accounts.release(account)


@pytest.mark.parametrize(
    ("mailbox", "commands", "expected"),
    [
        ("INBOX", ["MOVE 1 Junk"], (1, 0)),
        ("INBOX", ["COPY 1 Junk"], (1, 0)),
        ("INBOX", ["COPY 1 Junk", "COPY 1 Junk", "MOVE 1 Junk"], (1, 0)),
        ("INBOX", ["MOVE 1 Archive"], (0, 0)),
        ("INBOX", ["MOVE 1 Trash"], (0, 0)),
        ("Junk", ["MOVE 1 INBOX"], (0, 1)),
        ("Junk", ["COPY 1 Archive"], (0, 1)),
        ("Junk", ["MOVE 1 Trash"], (0, 0)),
        ("INBOX", ["MOVE 1 Junk", "SELECT Junk", "MOVE 1 INBOX"], (0, 1)),
        ("INBOX", ["MOVE 1 Junk", "SELECT Junk", "MOVE 1 INBOX", "SELECT INBOX", "MOVE 1 Junk"], (1, 0)),
        ("INBOX", ["STORE 1 +FLAGS ($Junk)"], (1, 0)),
        ("INBOX", ["STORE 1 +FLAGS.SILENT (Junk)"], (1, 0)),
        ("INBOX", ["STORE 1 FLAGS (\\Seen Junk)", "MOVE 1 Junk"], (1, 0)),
        ("INBOX", ["STORE 1 +FLAGS ($Junk)", "STORE 1 -FLAGS ($Junk)"], (0, 1)),
        ("INBOX", ["STORE 1 +FLAGS (Junk)", "STORE 1 +FLAGS (NonJunk)"], (0, 1)),
        ("INBOX", ["STORE 1 +FLAGS (NonJunk)"], (0, 0)),  # Thunderbird's own filter, not a person
        ("INBOX", ["STORE 1 +FLAGS (\\Answered)"], (0, 1)),
        ("INBOX", ["MOVE 1 Junk", "SELECT Junk", "STORE 1 +FLAGS (\\Answered)"], (1, 0)),
        ("INBOX", ["STORE 1 +FLAGS (\\Flagged)"], (0, 0)),
    ],
)
def test_what_is_sorted_counts(tmp_path: Path, mailbox: str, commands: list[str], expected: tuple[int, int]) -> None:
    async def work() -> None:
        async with reading(tmp_path, SPAM, mailbox=mailbox) as (place, client):
            for command in commands:
                await client.ok(command)
            assert (await sorted_now(place))[:2] == expected

    run(work())


def test_each_lesson_is_learned_in_the_order_of_the_commands_also_one_by_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with reading(tmp_path, SPAM, HAM) as (place, client):
            await client.ok("MOVE 1 Junk")
            assert (await sorted_now(place))[:2] == (1, 0)
            assert model(place).counts(["meds", "lunch"]) == [(1, 0)]
            await client.ok("SELECT Junk")
            await client.ok("MOVE 1 INBOX")
            assert (await sorted_now(place))[:2] == (0, 1)
            assert model(place).counts(["meds", "lunch"]) == [(0, 1)]
            assert [event["outcome"] for event in place.record.of("junk-learned")] == ["junk", "info"]

    run(work())


@pytest.mark.parametrize(
    ("commands", "good"),
    [
        ([], 1),
        (["STORE 1 +FLAGS (\\Deleted)"], 0),
        (["STORE 1 -FLAGS (\\Seen)"], 0),
        (["MOVE 1 Trash"], 0),
    ],
)
def test_what_is_read_and_kept_is_good_some_minutes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[str], good: int
) -> None:
    async def work() -> None:
        async with reading(tmp_path, HAM) as (place, client):
            await client.ok("FETCH 1 BODY[]")
            await place.trainer.work()
            assert (await sorted_now(place)).good == 0
            monkeypatch.setattr(trainer_module, "KEPT_SECONDS", -1.0)
            await client.ok("STORE 1 -FLAGS (\\Seen)")
            await client.ok("FETCH 1 BODY[]")
            for command in commands:
                await client.ok(command)
            await place.trainer.work()
            assert (await sorted_now(place)).good == good
            if good:
                assert model(place).knows(kept("bob@friend.example"))

    run(work())


def test_what_is_read_in_junk_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "KEPT_SECONDS", -1.0)

    async def work() -> None:
        async with reading(tmp_path, SPAM, mailbox="Junk") as (place, client):
            await client.ok("FETCH 1 BODY[]")
            await place.trainer.work()
            assert await sorted_now(place) == Sorted()

    run(work())


def test_append_teaches_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with reading(tmp_path) as (place, client):
            await client.append(SPAM, "Junk")
            await client.append(
                b"From: ann@example.test\r\nTo: Bob <Bob@Friend.example>,\r\n carol@friend.example\r\n"
                b"Bcc: dave@friend.example\r\n\r\nhi\r\n",
                "Sent",
            )
            assert (await sorted_now(place))[:2] == (1, 0)
            known = model(place)
            assert all(known.knows(wrote_to(f"{name}@friend.example")) for name in ("bob", "carol", "dave"))
            assert not known.knows(wrote_to("ann@example.test"))

    run(work())


def test_of_a_list_the_list_is_known_and_not_the_member(tmp_path: Path) -> None:
    async def work() -> None:
        async with reading(tmp_path, LISTED) as (place, client):
            await client.ok("STORE 1 +FLAGS (\\Answered)")
            await place.trainer.drain()
            assert model(place).knows(kept_list("talk.list.example"))
            assert not model(place).knows(wrote_to("x@list.example"))

    run(work())


def test_a_thousand_messages_at_once_are_bounded_and_commands_go_on(tmp_path: Path) -> None:
    async def work() -> None:
        letters = [SPAM.replace(b"cheap", b"cheap%d" % number) for number in range(300)]
        async with reading(tmp_path, *letters) as (place, client):
            await client.ok("MOVE 1:* Junk")
            assert (await sorted_now(place)).junk == 200

    run(work())


def test_smtp_in_judges_by_what_was_sorted(tmp_path: Path) -> None:
    async def work() -> None:
        spam = [SPAM.replace(b"now", b"now %d" % number) for number in range(100)]
        ham = [HAM.replace(b"lunch", b"lunch at %d" % number) for number in range(100)]
        async with reading(tmp_path, *spam, *ham) as (place, client):
            judge = JunkJudge(place.settings.personal_dir, clock=lambda: 0.0)
            unknown = judge.message(SPAM, proven=True)
            assert judge.account("bob@example.test", unknown)[0] == 0
            await client.ok("STORE 101:200 +FLAGS (\\Answered)")
            await client.ok("MOVE 1:100 Junk")
            await place.trainer.drain()
            judge = JunkJudge(place.settings.personal_dir, clock=lambda: 0.0)
            weight, reasons = judge.account(ANN, judge.message(SPAM, proven=True))
            assert weight >= 5
            assert [reason.rule for reason in reasons] == ["bayes", "first-time-sender"]
            weight, reasons = judge.account(ANN, judge.message(HAM, proven=True))
            assert weight < 0
            assert [reason.rule for reason in reasons] == ["bayes", "known-sender"]
            # A forged known sender gains nothing by it.
            forged = SPAM.replace(b"shop@spam.example", b"bob@friend.example")
            assert "known-sender" not in [r.rule for r in judge.account(ANN, judge.message(forged, proven=False))[1]]
            # Another account learned nothing.
            assert judge.account("bob@example.test", judge.message(SPAM, proven=True))[0] == 0

    run(work())


def test_a_lost_volume_is_filled_again_at_the_start(tmp_path: Path) -> None:
    async def work() -> None:
        async with reading(tmp_path, SPAM) as (place, client):
            await client.ok("MOVE 1 Junk")
            await place.trainer.drain()
            path = Path(place.settings.personal_dir) / "example.test" / "ann" / JUNK_MODEL
            path.unlink()
            await place.trainer._publish_missing()
            assert model(place).sorted.junk == 1
            assert not (Path(place.settings.personal_dir) / "example.test" / "bob").exists()

    run(work())


def test_a_model_that_cannot_be_written_is_written_with_the_next_lesson(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with reading(tmp_path, SPAM, SPAM + b"x\r\n") as (place, client):
            await client.ok("MOVE 1 Junk")
            with monkeypatch.context() as patch:
                patch.setattr(personal, "write_durable_at", lambda *_: (_ for _ in ()).throw(OSError("no room")))
                await place.trainer.drain()
            account = await place.accounts.open(ANN)
            assert await account.run(account.store.junk.unpublished)
            await client.ok("MOVE 1 Junk")
            await place.trainer.drain()
            assert not await account.run(account.store.junk.unpublished)
            place.accounts.release(account)
            assert model(place).sorted.junk == 2

    run(work())


def test_a_deleted_account_does_not_come_back_by_a_lesson(tmp_path: Path) -> None:
    async def work() -> None:
        async with reading(tmp_path, SPAM) as (place, client):
            await client.ok("MOVE 1 Junk")
            del place.directory.people[ANN]
            await place.accounts.shut(ANN)
            shutil.rmtree(place.maildir())
            await place.trainer.drain()
            assert not place.maildir().exists()
            assert not place.record.of("junk-learned")

    run(work())


def test_the_room_holds_nothing_between_lessons(tmp_path: Path) -> None:
    async def work() -> None:
        async with reading(tmp_path, SPAM) as (place, client):
            await client.ok("MOVE 1 Junk")
            await place.trainer.drain()
            trainer = place.trainer
            assert not trainer._waiting
            assert not trainer._unpublished
            assert not trainer._kept

    run(work())
