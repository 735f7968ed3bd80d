"""The hold of a room: a lease that ends by itself, whatever the clocks do, and outlives a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.runtime.health import Health
from services.runtime.hold import FILE, Hold, asked, identity_of, since_boot, this_boot
from services.runtime.internal_http import BadRequest, Request, Routes
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from tests.power_cut import NAMES_LOST, power_cut

ADMIN, STRANGER = "10.0.0.2", "192.0.2.9"


@dataclasses.dataclass
class Room:
    """Clocks that a test moves, and the events that were recorded."""

    folder: Path
    wall: float = 1_000_000.0
    up: float = 5000.0
    boot: str = "one"
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.events.append({"kind": kind, "trace": trace, "outcome": outcome, **fields})

    def hold(self) -> Hold:
        """The hold of a process that has just started."""
        settings = Settings(room_dir=str(self.folder), log_level="error")
        context = Context("imap", settings, self, Secrets("/nowhere"), Health("imap"), clock=lambda: self.wall)
        return Hold(context, elapsed=lambda: self.up, boot=lambda: self.boot)

    def later(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_hold_refuses_all_but_who_asked_for_it_until_it_is_released(room: Room) -> None:
    async def story() -> None:
        hold = room.hold()
        assert hold.lease is None and hold.exempts(STRANGER)
        assert await hold.take("u1", 120, exempt=ADMIN, account="gate@home.test")
        assert hold.lease is not None and hold.lease.account == "gate@home.test"
        assert hold.refusal(STRANGER) == "held for the update u1" and not hold.refusal(ADMIN)
        await hold.release("another")
        assert not hold.exempts(STRANGER)
        await hold.release("u1")
        assert hold.lease is None and hold.exempts(STRANGER)
        assert [(event["trace"], event["outcome"]) for event in room.events] == [("u1", "info")] * 2

    run(story)


def test_a_lease_ends_after_its_seconds_and_a_renewal_counts_from_then(room: Room) -> None:
    async def story() -> None:
        hold = room.hold()
        await hold.take("u1", 120)
        room.later(119)
        assert hold.lease is not None
        await hold.take("u1", 120)
        room.later(119)
        assert hold.lease is not None and hold.left() == 1
        room.later(1)
        assert hold.lease is None and hold.left() == 0
        assert len(room.events) == 1, "a renewal is no event"

    run(story)


@pytest.mark.parametrize("jump", [-86_400.0, -200.0, 86_400.0])
def test_the_wall_clock_neither_prolongs_nor_shortens_a_lease(room: Room, jump: float) -> None:
    async def story() -> None:
        hold = room.hold()
        await hold.take("u1", 120)
        room.wall += jump
        room.up += 119
        assert hold.lease is not None
        assert room.hold().lease is not None, "nor over a restart of the process"
        room.up += 1
        assert hold.lease is None
        assert room.hold().lease is None

    run(story)


@pytest.mark.parametrize(
    ("down", "left"),
    [
        (50.0, 70.0),  # the machine was off for 50 seconds
        (200.0, 0.0),
        (-86_400.0, 120.0),  # it woke up in the past: no more than its own seconds
    ],
)
def test_over_a_reboot_the_wall_clock_counts_and_never_for_more(room: Room, down: float, left: float) -> None:
    async def story() -> None:
        await room.hold().take("u1", 120)
        room.wall, room.up, room.boot = room.wall + down, 3.0, "two"
        hold = room.hold()
        assert hold.left() == left
        room.up += left
        assert hold.lease is None

    run(story)


def test_a_successor_starts_held_with_the_same_exemptions(room: Room) -> None:
    async def story() -> None:
        await room.hold().take("u1", 120, exempt=ADMIN, account="gate@home.test")
        room.later(20)
        successor = room.hold()
        assert successor.refusal(STRANGER) and not successor.refusal(ADMIN)
        assert successor.lease is not None and successor.lease.account == "gate@home.test"
        assert successor.left() == 100
        await successor.release("u1")
        assert room.hold().lease is None

    run(story)


def test_a_question_that_comes_after_the_release_holds_nothing(room: Room) -> None:
    async def story() -> None:
        hold = room.hold()
        await hold.take("u1", 120)
        await hold.release("u1")
        assert not await hold.take("u1", 120) and hold.lease is None
        assert not await room.hold().take("u1", 120), "nor at the successor"
        early = room.hold()
        await early.release("u2")
        assert not await early.take("u2", 120)
        assert await early.take("u3", 120)

    run(story)


def test_another_update_takes_over_and_the_old_one_cannot_end_it(room: Room) -> None:
    async def story() -> None:
        hold = room.hold()
        await hold.take("u1", 120)
        await hold.take("u2", 120)
        await hold.release("u1")
        assert hold.lease is not None and hold.lease.id == "u2"

    run(story)


def test_who_watches_hears_of_the_beginning_and_the_end_once(room: Room) -> None:
    async def story() -> None:
        heard: list[str] = []
        hold = room.hold()
        hold.when_it_begins(lambda lease: heard.append(lease.id))
        hold.when_it_ends(lambda: heard.append("end"))
        for _ in range(3):
            await hold.take("u1", 120)
        await hold.release("u1")
        await hold.release("u1")
        assert heard == ["u1", "end"]

    run(story)


def test_a_lease_that_is_not_renewed_is_ended_told_and_recorded(tmp_path: Path) -> None:
    async def story() -> None:
        room = Room(tmp_path)
        room.up = since_boot()
        context = Context("imap", Settings(room_dir=str(tmp_path), log_level="error"), room, Secrets("/nowhere"),
                          Health("imap"))  # fmt: skip
        hold, ended = Hold(context), asyncio.Event()
        hold.when_it_ends(ended.set)
        keeping = asyncio.create_task(hold.keep())
        await hold.take("u1", 0.05)
        await ended.wait()
        keeping.cancel()
        assert hold.lease is None
        assert room.events[-1]["outcome"] == "error" and "did not renew" in room.events[-1]["reason"]

    run(story)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"id": "u1"}', b'{"id": 3, "seconds": "x"}', b"\xff" * 100,
        b'{"id":"u1","seconds":1e999,"until":1,"boot":"one","ends":1e999,"exempt":"","account":""}',
    ],
)  # fmt: skip
def test_a_damaged_file_leaves_the_room_open(room: Room, content: bytes) -> None:
    (room.folder / FILE).write_bytes(content)
    assert room.hold().lease is None


def test_a_file_cannot_claim_more_than_its_own_seconds(room: Room) -> None:
    async def story() -> None:
        await room.hold().take("u1", 120)
        path = room.folder / FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), "ends": room.up + 1e9}))
        assert room.hold().left() == 120

    run(story)


@pytest.mark.parametrize("names_lost", NAMES_LOST)
def test_a_power_cut_leaves_the_hold_as_it_was_or_as_it_was_asked(tmp_path: Path, names_lost: str) -> None:
    for steps in range(40):
        folder = tmp_path / f"{names_lost}{steps}"
        folder.mkdir()
        room = Room(folder)
        asyncio.run(room.hold().take("old", 120))
        hold = room.hold()
        answered = False
        with power_cut(steps, names_lost=names_lost) as cut:
            hold._write({"released": "old"})
            answered = True
        after = room.hold().lease
        assert after is None or after.id == "old"
        if answered:
            assert after is None, "it was told that this is durable"
        if not cut.happened:
            break
    else:
        raise AssertionError("the writer never came to its end")
    assert steps > 4


def request(body: object, peer: str = ADMIN) -> Request:
    return Request("POST", "/v1/hold", {}, {}, json.dumps(body).encode(), "admin", peer=peer)


@pytest.mark.parametrize(
    "body",
    [
        {}, [], {"id": "u1"}, {"id": "u1", "seconds": 0}, {"id": "u1", "seconds": True}, {"id": "u1", "seconds": 901},
        {"id": "", "seconds": 5}, {"id": "../x", "seconds": 5}, {"id": "U1", "seconds": 5}, {"id": "a" * 21, "seconds": 5},
        {"id": 7, "seconds": 5}, {"id": "u1", "seconds": "5"}, {"id": "u1", "seconds": 5, "account": 1},
    ],
)  # fmt: skip
def test_what_is_no_question_for_a_hold(body: object) -> None:
    with pytest.raises(BadRequest):
        asked(request(body))


def test_the_address_that_asks_is_exempt(room: Room) -> None:
    async def story() -> None:
        hold, routes = room.hold(), Routes()
        hold.add_to(routes)
        found = routes.find("POST", "/v1/hold")
        assert not isinstance(found, int) and found[0].allow == {"admin"}
        answer = await found[0].handler(request({"id": "u1", "seconds": 60, "account": "gate@home.test"}))
        assert answer.json() == {"held": "u1", "seconds": 60}
        assert hold.exempts(ADMIN) and not hold.exempts(STRANGER)
        released = routes.find("POST", "/v1/release")
        assert not isinstance(released, int)
        assert (await released[0].handler(request({"id": "u1"}))).json() == {"held": ""}
        assert identity_of({"id": "abc123"}) == "abc123"

    run(story)


def test_a_full_disk_holds_nothing_and_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(value: object) -> None:
        raise OSError(28, "No space left on device")

    async def story() -> None:
        hold, routes = room.hold(), Routes()
        hold.add_to(routes)
        monkeypatch.setattr(hold, "_write", full)
        found = routes.find("POST", "/v1/hold")
        assert not isinstance(found, int)
        assert (await found[0].handler(request({"id": "u1", "seconds": 60}))).status == 503
        assert hold.lease is None

    run(story)


def test_the_kernels_clock_and_boot_are_there() -> None:
    assert since_boot() > 0 and len(this_boot()) > 10
