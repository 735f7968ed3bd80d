"""A clock that cannot be believed is waited for, and never for longer than it takes to set it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.runtime import clock
from services.runtime.clock import MADE, SETTLE_SECONDS, SLACK_SECONDS, Clock
from services.runtime.events import NoEvents
from services.runtime.health import Health
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings

DAY = 86_400.0
NOW = MADE + 100 * DAY


class Board:
    """A machine with a clock that tests set; `boot` is how long it has been up."""

    def __init__(self, folder: Path, now: float = NOW, boot: float = 10.0) -> None:
        self.now, self.boot = now, boot
        settings = Settings(room_dir=str(folder), log_level="error")
        self.context = Context(
            "dkim", settings, NoEvents(), Secrets("/nowhere"), Health("dkim"), clock=lambda: self.now
        )
        self.context.health.ready()
        self.clock = Clock(self.context, lambda: self.boot)

    @property
    def waits(self) -> bool:
        return bool(self.clock.problem())


@pytest.mark.parametrize("now", [0.0, 1_234_567_890.0, MADE - 1.0, -5.0])
def test_no_clock_is_older_than_the_software(tmp_path: Path, now: float) -> None:
    board = Board(tmp_path, now)
    assert board.waits
    board.boot = 10 * DAY
    assert board.waits, "however long it takes"
    board.now = NOW
    assert not board.waits


def test_a_clock_that_comes_back_behind_what_was_seen_is_waited_for(tmp_path: Path) -> None:
    before = Board(tmp_path)
    before.clock.keep()
    assert not Board(tmp_path, NOW - SLACK_SECONDS).waits, "what a machine saves at shutdown is good enough"
    after = Board(tmp_path, NOW - 30 * DAY)
    assert after.waits
    after.now = NOW + 60
    assert not after.waits


def test_a_clock_that_once_was_ahead_stops_nobody_for_longer_than_some_minutes(tmp_path: Path) -> None:
    wrong = Board(tmp_path, NOW + 3650 * DAY)
    wrong.clock.keep()
    right = Board(tmp_path, NOW)
    assert right.waits, "it may just have booted without one"
    right.boot = SETTLE_SECONDS
    assert not right.waits
    right.clock.keep()
    assert not Board(tmp_path, NOW).waits, "and the wrong day is forgotten"


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_clock_that_is_set_while_we_run_stops_nobody(tmp_path: Path, jump: float) -> None:
    board = Board(tmp_path, boot=SETTLE_SECONDS)
    board.clock.keep()
    board.now += jump
    assert not board.waits


@pytest.mark.parametrize("content", [b"", b"\xff", b"tomorrow", b"9" * 5000])
def test_what_a_power_cut_left_of_the_file_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last-seen").write_bytes(content)
    board = Board(tmp_path, boot=SETTLE_SECONDS)
    assert not board.waits
    board.clock.keep()
    assert (tmp_path / "last-seen").read_text() == f"{NOW:.0f}\n"


def test_health_says_why_until_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.001)

    async def story() -> None:
        board = Board(tmp_path, 0.0)
        watching = asyncio.create_task(board.clock.watch())
        async with asyncio.timeout(5):
            while board.context.health.healthy:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert "it says 1970-01-01 00:00 UTC" in board.context.health.parts["clock"]
            assert not (tmp_path / "last-seen").exists(), "what is not believed is not kept"
            board.now, board.boot = NOW, SETTLE_SECONDS + 1
            while not board.context.health.healthy:  # noqa: ASYNC110
                await asyncio.sleep(0)
            while not (tmp_path / "last-seen").exists():  # noqa: ASYNC110
                await asyncio.sleep(0)
        watching.cancel()

    asyncio.run(story())
