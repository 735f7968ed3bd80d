"""What an update came to is told: once, to every administrator and the webhook, and never in anybody's way."""

from __future__ import annotations

import email
import email.policy
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from services.admin import notices
from services.admin.notices import compose
from services.admin.peers import PeerSaid
from services.admin.updates import entry_of
from tests.unit.admin.admin_room import ADMIN, AdminRoom, until
from tests.unit.admin.test_admin_update import api_of, tell

ENTRY: dict[str, Any] = {
    "id": "u1", "started": 1_700_000_000.0, "ended": 1_700_000_030.0, "outcome": "committed", "services": ["imap", "dkim"],
    "reason": "", "seconds_closed": 3.25, "steps": [{"step": "gate", "at": 1.0, "outcome": "done", "reason": ""}],
}  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "WAITS", (0.01, 0.01))


def mails(admin: AdminRoom) -> list[tuple[bytes, dict[str, str], dict[str, str]]]:
    return [each[3] for each in admin.peers.asked if each[2] == "/v1/submit"]


def posts(admin: AdminRoom) -> list[dict[str, Any]]:
    return [each[3] for each in admin.peers.asked if each[2] == "/v1/webhook"]


def test_every_administrator_has_a_letter_and_the_webhook_is_told_once(new_room: Callable[[], AdminRoom]) -> None:
    admin = new_room()
    admin.peers.answers["smtp-out", "POST", "/v1/webhook"] = {"posted": "hooks.test"}
    with api_of(admin) as api:
        api.post("/accounts", json={"address": "second@example.test", "administrator": True})
        api.post("/accounts", json={"address": "anna@example.test"})
    assert tell(admin, "result", **ENTRY) == {}
    assert tell(admin, "result", **ENTRY) == {}
    until(lambda: len(mails(admin)) == 2 and bool(posts(admin)))
    assert [query for _, query, _ in mails(admin)] == [
        {"sender": each, "recipient": each} for each in (ADMIN, "second@example.test")
    ]
    assert len({headers["Mailstead-Trace"] for _, _, headers in mails(admin)}) == 2
    assert posts(admin) == [ENTRY]
    assert tell(new_room(), "result", **ENTRY) == {}, "nor by the successor"
    assert len(posts(admin)) == 1


def test_a_room_that_is_away_is_tried_again_over_a_restart_and_given_up(
    new_room: Callable[[], AdminRoom], quick: None
) -> None:
    admin = new_room()
    admin.peers.away.add("smtp-out")
    assert tell(admin, "result", **ENTRY) == {}
    until(lambda: bool(mails(admin)))
    admin.stop()
    admin.peers.away.clear()
    admin.peers.asked.clear()
    admin = new_room()
    until(lambda: bool(mails(admin)) and bool(posts(admin)))
    admin.peers.answers["smtp-out", "POST", "/v1/webhook"] = PeerSaid(502, "smtp-out: the webhook was not told: no")
    tell(admin, "result", **{**ENTRY, "id": "u2"})

    def given_up() -> bool:
        return any(
            each["trace"] == "u2" and each["outcome"] == "error" and "webhook" in each["reason"]
            for each in admin.recorded()
            if each["kind"] == "update"
        )

    until(given_up)
    assert len([each for each in posts(admin) if each["id"] == "u2"]) == 3


def test_each_reads_it_in_the_language_of_their_page(new_room: Callable[[], AdminRoom]) -> None:
    admin = new_room()
    with api_of(admin) as api:
        api.post("/accounts", json={"address": "second@example.test", "administrator": True})
    admin.stop()
    with sqlite3.connect(admin.folder / "admin" / "directory.db") as database:
        database.execute("UPDATE accounts SET language = 'zh-CN' WHERE address = ?", (ADMIN,))
    admin = new_room()
    tell(admin, "result", **ENTRY)
    until(lambda: len(mails(admin)) == 2)
    read = [email.message_from_bytes(raw, policy=email.policy.default) for raw, _, _ in mails(admin)]
    assert [each["To"] for each in read] == [ADMIN, "second@example.test"]
    assert "更新" in read[0]["Subject"] and "更新" in read[0].get_content()
    assert read[1]["Subject"].startswith("An update stayed") and read[1].get_content().isascii()


@pytest.mark.parametrize("body", [{}, {"id": "../x"}, {"id": 5}])
def test_what_is_no_result(new_room: Callable[[], AdminRoom], body: dict[str, Any]) -> None:
    assert tell(new_room(), "result", **body) == 400


@pytest.mark.parametrize("content", [b"", b"{", b'{"told": 5, "waiting": {}}', b'{"told": [], "waiting": [{"to": 1}]}'])
def test_a_damaged_list_begins_anew(new_room: Callable[[], AdminRoom], content: bytes) -> None:
    admin = new_room()
    admin.stop()
    (admin.folder / "room").mkdir(exist_ok=True)
    (admin.folder / "room" / "notices.json").write_bytes(content)
    admin = new_room()
    tell(admin, "result", **ENTRY)
    until(lambda: bool(mails(admin)))


@pytest.mark.parametrize(
    ("outcome", "subject", "sentence"),
    [
        ("committed", "An update stayed", "stays"),
        ("rolled-back", "An update went back", "the version from before"),
        ("failed", "An update failed", "failed"),
        ("something new", "An update failed", "failed"),
    ],
)
def test_the_letter(outcome: str, subject: str, sentence: str) -> None:
    reason = "the mail gate: send: 451 größer\x1b[31m\r\nBcc: x@y.test " + "long " * 100
    raw = compose(ADMIN, entry_of({**ENTRY, "outcome": outcome, "reason": reason}), "mail.example.test", "t" * 16, 1.0)
    assert all(len(line) < 200 and b"\n" not in line and b"\r" not in line for line in raw.split(b"\r\n"))
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Subject"] == f"{subject}: mail.example.test" and message["Bcc"] is None
    assert message["To"] == ADMIN and message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    assert sentence in text and "größer" in text and "imap, dkim" in text and "3.2" in text and "\x1b" not in text


def test_the_letter_bears_an_entry_of_any_shape() -> None:
    odd = {"id": None, "services": "x", "steps": 5, "seconds_closed": "1e999", "reason": ["a"], "outcome": {}}
    assert b"Subject:" in compose(ADMIN, entry_of(odd), "h.test", "t" * 16, 1.0)
