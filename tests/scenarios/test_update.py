"""A stack that is being updated, as the world and the owner see it: the updater's part is played by the test."""

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeMailServer
from house import PASSWORD, House, traced
from mailclients import ImapLine, LetterRefused, imap, letter, messages, until

from services.runtime.internal_http import Client
from services.runtime.secrets import Secrets

HELD = "4.3.2 an update is running, try again in a minute"
WORLD = "127.0.0.77"  # the gate comes from 127.0.0.1, where all rooms are


def updater(house: House, verb: str, **body: Any) -> Any:
    """POST /v1/update/VERB as the updater does."""

    async def ask() -> Any:
        url = f"http://127.0.0.1:{house.port('http-admin')}"
        client = Client("updater", Secrets(str(house.data / "secrets")), "admin", url, timeout=40)
        try:
            return (await client.post(f"/v1/update/{verb}", body)).json()
        finally:
            client.close()

    return asyncio.run(ask())


def signing(house: House) -> House:
    """The house once it has its DKIM keys: a new one is ready a moment before they are made."""
    until(lambda: "v=DKIM1" in house.cli("dkim", "show", "example.test").output, 60)
    return house


@pytest.fixture
def held(at_home: House) -> Iterator[str]:
    """The id of an update that holds the house; released whatever happens."""
    identity = secrets.token_hex(5)
    answer = updater(at_home, "hold", id=identity, seconds=120)
    assert answer == {"held": ["smtp-in", "smtp-out", "imap"], "away": []}
    yield identity
    updater(at_home, "release", id=identity)


@pytest.fixture
def ann(at_home: House) -> str:
    """An account that was made before the house was held."""
    return at_home.account()


def test_the_world_waits_the_gate_passes_and_then_all_of_it_flows(
    ann: str, held: str, at_home: House, relay: FakeMailServer
) -> None:
    # Submitted from the exempt address, so that there is something in the queue to wait.
    waiting = letter(ann, "friend@outside.test")
    at_home.submit(ann, "friend@outside.test", message=waiting.message)
    incoming = letter("friend@outside.test", ann)
    with pytest.raises(LetterRefused) as refused:
        at_home.receive("friend@outside.test", ann, message=incoming.message, source=WORLD)
    assert (refused.value.code, refused.value.text) == (421, HELD)
    with pytest.raises(LetterRefused) as refused:
        at_home.submit(ann, ann, message=incoming.message, source=WORLD)
    assert (refused.value.code, refused.value.text) == (421, HELD)
    client = ImapLine(at_home.port("imaps"), source=WORLD)
    assert client.greeting == b"* BYE [UNAVAILABLE] an update is running, try again in a minute\r\n"
    client.close()

    report = updater(at_home, "gate", id=held)
    assert report["passed"], report
    assert [each["step"] for each in report["steps"]] == ["rooms", "account", "receive", "send", "read", "clean up"]
    assert all(each["outcome"] == "passed" and not each["reason"] for each in report["steps"]), report
    assert not [each for each in relay.received if waiting.message_id.encode() in each.message], "it still waits"

    updater(at_home, "release", id=held)
    until(lambda: [each for each in relay.received if waiting.message_id.encode() in each.message])
    at_home.receive("friend@outside.test", ann, message=incoming.message, source=WORLD)
    at_home.letter(ann, incoming.message_id)
    refusals = [event for event in traced(at_home, WORLD, "connect") if event["kind"] == "connect"]
    assert {event["room"] for event in refusals if held in event.get("reason", "")} == {"smtp-in", "smtp-out", "imap"}
    kinds = {event["kind"] for event in traced(at_home, held, "hold", "gate")}
    assert kinds == {"hold", "gate"}


def test_nothing_can_be_changed_meanwhile_and_the_owner_is_told(ann: str, held: str, at_home: House) -> None:
    done = at_home.cli("account", "add", "new@example.test", PASSWORD)
    assert done.status == 1
    assert done.output == (
        "mailstead: an update is running: nothing can be changed until it is over; try again in a minute\n"
    )
    updater(at_home, "release", id=held)
    at_home.command("domain", "add", f"d{held}.test")


def test_the_gate_for_the_owner_leaves_nothing_behind(at_home: House) -> None:
    before = {each["address"] for each in at_home.asked("account", "list")["accounts"]}
    done = at_home.cli("gate")
    assert done.status == 0, done.output
    assert done.output.startswith("mail flows\n") and "read" in done.output
    assert {each["address"] for each in at_home.asked("account", "list")["accounts"]} == before
    assert not (at_home.data / "mail" / "example.test" / "mailstead-gate").exists()
    snapshots = list((at_home.data / "auth").resolve().glob("current"))
    assert snapshots and b"mailstead-gate" not in snapshots[0].read_bytes()
    for source in ("mailstead-gate@example.test", "mailstead-gate@example.test "):
        assert at_home.cli("account", "add", source, PASSWORD).status == 1, "nobody else may have its address"
    client = ImapLine(at_home.port("imaps"), source="127.0.0.78")
    assert b"NO" in client.attempt("LOGIN mailstead-gate@example.test x")[-1]
    client.close()
    with pytest.raises(LetterRefused) as refused:
        at_home.receive("a@outside.test", "mailstead-gate@example.test", message=b"x")
    assert refused.value.code == 550


def test_a_house_that_starts_again_is_still_held_and_opens_when_the_lease_ends(new_house: Callable[..., House]) -> None:
    house = signing(new_house())
    updater(house, "snapshot", id="u1")
    updater(house, "hold", id="u1", seconds=120)
    house.kill()
    house.start()
    with pytest.raises(LetterRefused) as refused:
        house.receive("a@outside.test", "admin@example.test", message=b"x\r\n", source=WORLD)
    assert refused.value.text == HELD
    assert updater(house, "gate", id="u1")["passed"]
    updater(house, "hold", id="u1", seconds=1)
    until(lambda: house.cli("domain", "add", "after.test").status == 0)
    sent = letter("a@outside.test", "admin@example.test")

    def taken() -> bool:
        try:
            return bool(house.receive("a@outside.test", "admin@example.test", message=sent.message, source=WORLD))
        except LetterRefused:
            return False

    until(taken)


def test_the_gate_says_which_step_failed(new_house: Callable[..., House]) -> None:
    house = signing(new_house())
    keys: list[Path] = sorted((house.data / "dkim").rglob("*"))
    assert [each for each in keys if each.is_file()], keys
    for each in keys:
        if each.is_file():
            each.write_bytes(b"no key")
    house.restart()
    done = house.cli("--json", "gate")
    report = json.loads(done.output)
    assert done.status == 1 and not report["passed"]
    failed = [each for each in report["steps"] if each["outcome"] == "failed"]
    assert failed and failed[0]["step"] in ("rooms", "send", "read") and failed[0]["reason"], report
    assert re.search("sign|DKIM|dkim", failed[0]["reason"]), report


def test_the_result_is_an_ordinary_letter_to_the_administrator(new_house: Callable[..., House]) -> None:
    house = signing(new_house())
    entry = {"id": "u7", "outcome": "rolled-back", "services": ["imap"], "reason": "the mail gate: read: no letter",
             "started": 1.0, "ended": 2.0, "seconds_closed": 4.5, "steps": []}  # fmt: skip
    assert updater(house, "result", **entry) == {}
    password = house.ready["password"]

    def read() -> bytes:
        with imap(house.port("imaps"), house.ready["login"], password) as client:
            return next((each for each in messages(client).values() if b"u7" in each), b"")

    arrived = until(read)
    assert b"Subject: An update went back: mail.example.test" in arrived, arrived
    assert b"DKIM-Signature:" in arrived, arrived
    assert b"the mail gate: read: no letter" in arrived
