"""The step of each account, and scanners: who is heard, who outvotes whom, and that no fault loses a message."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.policy.verdict import Reason
from services.smtp_in import rules as rules_module
from services.smtp_in.junk_judge import JunkJudge
from services.smtp_in.personal import Copy, Wanted
from services.smtp_in.scanners.finding import Finding, Letter
from tests.receivingroom import ReceivingRoom
from tests.unit.smtp_in.test_judging import ANNA, BERTA, letter, place, run


def account_says(monkeypatch: pytest.MonkeyPatch, **weights: float) -> None:
    """What each account's own filter adds."""

    def account(_: object, address: str, judged: object) -> tuple[float, list[Reason]]:
        weight = weights[address.partition("@")[0]]
        return weight, [Reason("bayes", f"as {address} sorts", weight)]

    monkeypatch.setattr(JunkJudge, "account", account)


def rules_want(monkeypatch: pytest.MonkeyPatch, *wanted: Wanted | Exception | None) -> None:
    answers = list(wanted)

    async def plan(*_: object) -> Wanted | None:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(rules_module.AccountRules, "plan", plan)


def test_each_account_has_its_own_opinion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account_says(monkeypatch, anna=6.0, berta=0.0)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA, BERTA], letter())).startswith("250")
        assert (place(room), place(room, BERTA)) == ("Junk", "INBOX")
        anna, berta = sorted(room.events.of("delivered"), key=lambda each: each["account"])
        assert (anna["outcome"], anna["mailbox"], anna["score"]) == ("junk", "Junk", 6.0 + berta["score"])
        assert anna["reason"] == "as anna@example.test sorts"
        assert b"X-Mailstead-Junk: yes" in room.messages(mailbox=".Junk")[0]
        assert b"X-Mailstead-Junk: no" in room.messages(BERTA)[0]

    run(tmp_path, story)


def test_an_account_outvotes_points_and_not_a_rule_of_the_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_says(monkeypatch, anna=-9.0, berta=0.0)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@soft.test", [ANNA, BERTA], letter("a@soft.test"))).startswith("250")
        assert room.events.of("data")[0]["outcome"] == "junk"
        assert (place(room), place(room, BERTA)) == ("INBOX", "Junk")

    run(tmp_path, story, junk_score="1")
    (tmp_path / "second").mkdir()

    async def forged(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@fail.test", [ANNA], letter("a@fail.test"))).startswith("250")
        assert place(room) == "Junk"

    run(tmp_path / "second", forged)


def test_junk_runs_no_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules_want(monkeypatch, AssertionError("junk"))

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@fail.test", [ANNA], letter("a@fail.test"))).startswith("250")
        assert place(room) == "Junk"

    run(tmp_path, story)


@pytest.mark.parametrize("broken", ["filter", "rules"])
def test_what_fails_leaves_the_message_in_inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    if broken == "filter":
        monkeypatch.setattr(JunkJudge, "account", fail)
    else:
        rules_want(monkeypatch, ZeroDivisionError())

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")
        assert place(room) == "INBOX"
        (told,) = room.events.of("delivered")
        assert "into INBOX as it is" in told["reason"]
        assert room.events.of("bug")

    run(tmp_path, story, bugs=True)


@pytest.mark.parametrize("listener", ["smtp", "lmtp"])
@pytest.mark.parametrize(
    ("copies", "inbox", "junk"),
    [
        ((Copy(), Copy("Junk")), 1, 1),
        ((Copy("Nowhere"),), 1, 0),
        ((Copy(), Copy("Nowhere")), 1, 0),
        ((Copy("Junk"), Copy("Nowhere")), 1, 1),
        ((), 0, 0),
    ],
)
def test_copies_that_rules_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: tuple[Copy, ...], inbox: int, junk: int, listener: str
) -> None:
    """A mailbox that is not there costs nobody a message, and makes no second copy; once is once also by LMTP."""
    rules_want(monkeypatch, Wanted(copies))

    async def story(room: ReceivingRoom) -> None:
        for _ in range(2 if listener == "lmtp" else 1):
            client = await (room.lmtp() if listener == "lmtp" else room.client())
            trace = " XTRACE=0123456789abcdef" if listener == "lmtp" else ""
            assert (await client.send("a@good.test", [ANNA], letter(), trace)).startswith("250")
        assert (len(room.messages()), len(room.messages(mailbox=".Junk"))) == (inbox, junk)

    run(tmp_path, story)


# --- scanners


class Scripted:
    """A scanner that answers as told."""

    name = "scripted"

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.letters: list[tuple[str, bytes]] = []

    async def scan(self, given: Letter) -> Finding:
        self.letters.append((given.sender, b"".join(given.chunks())))
        await asyncio.sleep(0)
        return self.finding


@pytest.mark.parametrize(
    ("finding", "settings", "reply", "where", "rule"),
    [
        (Finding("x"), {}, "250", "INBOX", ""),
        (Finding("x", share=1.2, rules=("A", "B")), {}, "250", "Junk", "scanner-spam"),
        (Finding("x", share=0.2), {}, "250", "INBOX", "scanner-spam"),
        (Finding("x", share=-1.0), {}, "250", "INBOX", ""),
        (Finding("x", share=900.0), {"reject_score": "15"}, "250", "Junk", "scanner-spam"),
        (Finding("x", virus="Eicar"), {}, "550 5.7.1 a virus was found in it: Eicar", "nowhere", "scanner-virus"),
        (Finding("x", virus="Eicar"), {"virus_found": "junk"}, "250", "Junk", "scanner-virus"),
        (Finding("x", problem="it sleeps"), {}, "250", "INBOX", "scanner-down"),
        (Finding("x", problem="it sleeps"), {"scanner_down": "defer"}, "451 4.3.0", "nowhere", "scanner-down"),
    ],
)
def test_scanners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finding: Finding, settings: dict[str, str], reply: str,
    where: str, rule: str,
) -> None:  # fmt: skip
    scanner = Scripted(finding)
    monkeypatch.setattr("services.smtp_in.room.chosen", lambda _: (scanner,))

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], letter())).startswith(reply)
        assert place(room) == where
        assert scanner.letters == [("a@good.test", letter())]
        told = room.events.of("data")[0].get("rules", "")
        assert ("scanner" in told) is bool(rule)
        assert rule in told

    run(tmp_path, story, **settings)
