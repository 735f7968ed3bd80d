"""Facts on their way to admin: kept while it is away, over restarts, bounded, each sent until taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.runtime import facts
from services.runtime.events import NoEvents
from services.runtime.facts import FactQueue
from services.runtime.health import Health
from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable, Response
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings


class Admin(Client):
    """What a room's client to admin does, with answers that the test chooses."""

    def __init__(self) -> None:
        self.answers: list[int] = []  # 0: no answer; an HTTP status otherwise; 200 when used up
        self.asked: list[list[facts.Fact]] = []
        self.during: Callable[[], None] = lambda: None

    async def post(self, path: str, value: object) -> Response:
        assert path == "/v1/facts" and isinstance(value, dict)
        self.asked.append(value["facts"])
        self.during()
        status = self.answers.pop(0) if self.answers else 200
        if not status:
            raise PeerUnavailable("admin is away")
        if status >= 400:
            raise PeerRefused(Response(status))
        return Response()

    def close(self) -> None:
        pass


class Room:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WRITE_SECONDS", "RETRY_FIRST", "RETRY_MOST"):
            monkeypatch.setattr(facts, name, 0.001)
        self.path = folder / "facts.jsonl"
        self.admin = Admin()
        self.restart()

    def restart(self) -> None:
        context = Context("imap", Settings(), NoEvents(), Secrets("/nowhere"), Health("imap"), clock=lambda: 1000.0)
        self.context = context
        self.queue = FactQueue(context, str(self.path), client=self.admin)

    def play(self, until: Callable[[], bool], story: Callable[[], Awaitable[None]] | None = None) -> None:
        async def whole() -> None:
            running = asyncio.create_task(self.queue.run())
            if story:
                await story()
            async with asyncio.timeout(5):
                while not until():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            self.context.stop.set()
            await running

        asyncio.run(whole())


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(tmp_path, monkeypatch)


def test_posted_facts_arrive_and_the_file_goes(room: Room) -> None:
    room.queue.post("last-used", "anna@family.example")
    room.queue.post("ban", "", key="192.0.2.1", ban_kind="address", until=5.0, reason="guessing")
    room.play(lambda: len(room.queue) == 0)
    (sent,) = room.admin.asked
    assert [fact["kind"] for fact in sent] == ["last-used", "ban"]
    assert sent[0]["at"] == 1000.0 and sent[1]["key"] == "192.0.2.1" and sent[0]["id"] != sent[1]["id"]
    assert not room.path.exists()


def test_facts_posted_while_it_runs_wake_it(room: Room) -> None:
    async def story() -> None:
        await asyncio.sleep(0.01)
        room.queue.post("last-used", "anna@family.example")

    room.play(lambda: bool(room.admin.asked) and not len(room.queue), story)


@pytest.mark.parametrize("answer", [0, 500, 503, 401, 403, 426])
def test_kept_while_admin_is_away(room: Room, answer: int) -> None:
    room.admin.answers = [answer] * 3
    room.queue.post("last-used", "anna@family.example")
    room.play(lambda: len(room.queue) == 0)
    assert len(room.admin.asked) == 4
    assert len({request[0]["id"] for request in room.admin.asked}) == 1


def test_a_refused_fact_does_not_hold_up_the_rest(room: Room) -> None:
    room.admin.answers = [400]
    room.queue.post("last-used", "anna@family.example")
    room.play(lambda: len(room.queue) == 0)
    assert len(room.admin.asked) == 1


def test_kept_over_a_restart(room: Room) -> None:
    room.admin.answers = [0] * 1000
    room.queue.post("rehash", "anna@family.example", hash="$new", replaces="$old")
    room.play(lambda: bool(room.admin.asked))
    first = room.admin.asked[0]
    with open(room.path, "ab") as file:
        file.write(b'{"id": "half a li')
    room.admin.answers = []
    room.restart()
    assert len(room.queue) == 1
    room.play(lambda: len(room.queue) == 0)
    assert room.admin.asked[-1] == first


@pytest.mark.parametrize(
    "line", [b"", b"null", b"[]", b'{"id":1,"kind":"x","account":""}', b"\xff\xfe", b"{}", b"[" * 50]
)
def test_garbage_in_the_file_is_skipped(room: Room, line: bytes) -> None:
    room.path.write_bytes(line + b"\n" + json.dumps({"id": "a", "kind": "ban", "account": ""}).encode() + b"\n" + line)
    room.restart()
    assert len(room.queue) == 1


def test_facts_that_come_during_a_request_are_kept(room: Room) -> None:
    came: list[int] = []

    def during() -> None:
        if not came:
            came.append(1)
            room.queue.post("ban", "", key="192.0.2.2")

    room.admin.during = during
    room.admin.answers = [200] + [0] * 1000
    room.queue.post("ban", "", key="192.0.2.1")
    room.play(lambda: len(room.admin.asked) >= 2)
    room.restart()
    assert [fact["key"] for fact in room.queue._waiting.values()] == ["192.0.2.2"]


def test_newer_use_replaces_the_waiting_one(room: Room) -> None:
    for _ in range(3):
        room.queue.post("last-used", "anna@family.example")
    room.queue.post("last-used", "bob@family.example")
    assert len(room.queue) == 2


def test_bounded_oldest_use_goes_first(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MOST", 3)
    room.queue.post("ban", "", key="192.0.2.1")
    for name in ("a", "b", "c"):
        room.queue.post("last-used", f"{name}@family.example")
    assert [fact["account"] for fact in room.queue._waiting.values()] == ["", "b@family.example", "c@family.example"]
    for number in range(4):
        room.queue.post("ban", "", key=str(number))
    assert [fact["key"] for fact in room.queue._waiting.values()] == ["1", "2", "3"]


def test_full_disk_still_sends(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.path.mkdir()  # cannot be opened for writing
    room.queue.post("ban", "", key="192.0.2.1")
    room.play(lambda: len(room.queue) == 0)
    assert len(room.admin.asked) == 1
