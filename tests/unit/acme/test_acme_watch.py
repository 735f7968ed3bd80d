"""When the room looks, what it says, and that certbot's renewals are waited out: a fake clock, no process, no sleep."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from certificates import DAY, NOW, Issued, issue

from services.acme.sources import LetsEncrypt, SelfSigned, source_for
from services.acme.task import Order, Outcome, TaskFailed, perform
from services.acme.watch import INCOMPLETE_SECONDS, LOOK_SECONDS, RECHECK_SECONDS, RETRY_SECONDS, Watch
from services.runtime.health import Health
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.tls import LOOK_SECONDS as LISTENERS_LOOK_SECONDS
from services.runtime.values import Settings

HOST = "mail.example.test"


class World:
    """A watch over a certbot tree (or another source), with the time in our hands."""

    def __init__(self, folder: Path, ssl_type: str = "letsencrypt") -> None:
        (folder / "certs").mkdir()
        self.settings = Settings(
            ssl_type=ssl_type, certs_dir=str(folder / "certs"), room_dir=str(folder / "room"), log_level="error"
        )
        self.certs = folder / "certs"
        self.now = NOW
        self.lines: list[dict[str, Any]] = []
        self.orders = 0
        self.installed = 0
        self.told = asyncio.Event()
        self.fault: Exception | None = None
        self.root = folder / "letsencrypt"
        context = self.context = Context(
            "acme", self.settings, self, Secrets("/nowhere"), Health("acme"), clock=lambda: self.now
        )
        self.health = context.health
        self.watch = Watch(context, source_for(self.settings, str(self.root)), self.perform, self.note_installed)

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.lines.append({"kind": kind, "outcome": outcome, **fields})

    def note_installed(self) -> None:
        self.installed += 1
        self.told.set()

    async def perform(self, order: Order) -> Outcome:
        self.orders += 1
        if self.fault:
            raise self.fault
        return perform(Order(order.settings, order.now, str(self.root)))

    def look(self, after: float = 0) -> Outcome:
        self.now += after
        asyncio.run(self.watch.look())
        return self.watch.outcome

    def write(self, lineage: str, issued: Issued, *names: str) -> None:
        live, archive = self.root / "live" / lineage, self.root / "archive" / lineage
        for folder in (live, archive):
            folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("privkey", issued.key), ("fullchain", issued.chain)):
            if name in names or not names:
                target = archive / f"{name}-{issued.serial}.pem"
                target.write_bytes(content)
                (live / f"{name}.pem").unlink(missing_ok=True)
                (live / f"{name}.pem").symlink_to(f"../../archive/{lineage}/{target.name}")

    def served(self) -> bytes:
        return (self.certs / "current" / "fullchain.pem").read_bytes()


def test_a_change_is_served_within_ten_seconds() -> None:
    """The sum of the polls; the task itself takes half a second, three on a small board."""
    assert LOOK_SECONDS + LISTENERS_LOOK_SECONDS + 3 < 10


def test_nothing_is_done_while_nothing_changes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("m", issue(HOST))
    assert world.look().state == "installed"
    for _ in range(100):
        world.look(LOOK_SECONDS)
    assert (world.orders, world.installed) == (1, 1)
    assert world.health.parts == {"certificate": ""}
    assert [(line["kind"], line["outcome"]) for line in world.lines] == [("certificate", "accept")]
    assert world.lines[0]["names"] == [HOST] and world.lines[0]["not_after"] == int(NOW + 90 * DAY)


@pytest.mark.parametrize("order", [("privkey", "fullchain"), ("fullchain", "privkey")])
def test_a_renewal_is_waited_out_and_installed_whole(tmp_path: Path, order: tuple[str, str]) -> None:
    world = World(tmp_path)
    old, new = issue(HOST), issue(HOST, lasts=180 * DAY)
    world.write("m", old)
    world.look()
    world.write("m", new, order[0])
    outcome = world.look(LOOK_SECONDS)
    assert (
        outcome.state == "incomplete" and outcome.certificate is not None and outcome.certificate.serial == old.serial
    )
    assert world.served() == old.chain and world.health.parts == {"certificate": ""}, "no alarm for a second's work"
    world.write("m", new, order[1])
    assert world.look(LOOK_SECONDS).state == "installed"
    assert world.served() == new.chain
    assert [line["serial"] for line in world.lines] == [old.serial, new.serial]
    assert world.installed == 2


def test_a_replacement_that_never_ends_is_told_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("m", issue(HOST))
    world.look()
    world.write("m", issue(HOST), "privkey")
    waited = 0.0
    while waited <= INCOMPLETE_SECONDS + 3 * RETRY_SECONDS:
        world.look(LOOK_SECONDS)
        waited += LOOK_SECONDS
        assert bool(world.health.parts["certificate"]) is (waited >= INCOMPLETE_SECONDS + LOOK_SECONDS), waited
    errors = [line for line in world.lines if line["outcome"] == "error"]
    assert len(errors) == 1 and "The one in use stays" in errors[0]["reason"]
    world.write("m", issue(HOST))
    world.look(LOOK_SECONDS)
    assert world.health.parts == {"certificate": ""}


def test_a_wrong_renewal_leaves_the_old_one_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    old = issue(HOST)
    world.write("m", old)
    world.look()
    world.write("m", issue("www.example.test"))
    outcome = world.look(LOOK_SECONDS)
    assert outcome.state == "unusable" and outcome.certificate is not None and outcome.certificate.serial == old.serial
    assert world.served() == old.chain
    assert "is for mail.example.test" in world.health.parts["certificate"]
    for _ in range(50):
        world.look(LOOK_SECONDS)
    assert len([line for line in world.lines if line["outcome"] == "error"]) == 1, "told once, not every turn"
    assert world.orders <= 2 + 50 * LOOK_SECONDS / RETRY_SECONDS + 1


def test_an_empty_mount_at_the_first_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.look().certificate is None
    assert "mount the host's /etc/letsencrypt" in world.health.parts["certificate"]
    assert "TLS cannot be offered" in world.lines[0]["reason"]
    world.write("m", issue(HOST))
    assert world.look(LOOK_SECONDS).state == "installed"
    assert world.health.parts == {"certificate": ""}


def test_expiry_is_warned_of_once_a_day_then_an_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("m", issue(HOST, lasts=20 * DAY))
    world.look()
    world.lines.clear()
    reasons: dict[int, str] = {}
    told = 0
    for _ in range(22 * 4):
        world.look(RECHECK_SECONDS)
        for line in world.lines:
            reasons[int((world.now - NOW) // DAY)] = line["reason"]
            assert line["outcome"] == "error"
            told += 1
        world.lines.clear()
    warned = [day for day, reason in reasons.items() if "nobody has renewed it" in reason]
    assert warned == list(range(6, 20))
    assert told == 15 + 1, "once on each of 15 days of the calendar, and once that it has expired"
    assert "expires on 2026-12-04 and nobody" in reasons[19]
    assert "expired on 2026-12-04" in reasons[20] and "expired" in world.health.parts["certificate"]


def test_our_own_is_renewed_in_time_without_any_change(tmp_path: Path) -> None:
    world = World(tmp_path, "self-signed")
    first = world.look()
    assert first.state == "installed" and first.certificate is not None
    assert world.look(360 * DAY).state == "unchanged"
    second = world.look(20 * DAY)
    assert second.state == "installed" and second.certificate is not None
    assert second.certificate.serial != first.certificate.serial
    assert not [line for line in world.lines if line["outcome"] == "error"], "nobody is warned of what we renew"


@pytest.mark.parametrize("start", [NOW - 3000 * DAY, NOW + 3000 * DAY])
def test_a_clock_that_is_set_right_is_noticed_at_once(tmp_path: Path, start: float) -> None:
    """A board without a clock starts in the past: its first certificate is for another year."""
    world = World(tmp_path, "self-signed")
    world.now = start
    world.look()
    world.now = NOW
    outcome = world.look()
    assert outcome.state == "installed" and outcome.certificate is not None
    assert outcome.certificate.not_before < NOW < outcome.certificate.not_after


def test_no_certificate_is_made_before_the_clock_is_set(tmp_path: Path) -> None:
    world = World(tmp_path, "self-signed")
    problem = "the clock is not set yet"
    world.watch = Watch(world.context, source_for(world.settings), world.perform, world.note_installed, lambda: problem)
    world.look()
    assert world.orders == 0 and not (world.certs / "current").exists()
    problem = ""
    assert world.look(LOOK_SECONDS).state == "installed"


def test_a_failed_task_is_our_bug_and_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("m", issue(HOST))
    world.fault = TaskFailed("status -9: killed")
    world.look()
    assert [line["kind"] for line in world.lines] == ["bug", "certificate"]
    assert "could not be looked at" in world.health.parts["certificate"]
    world.fault = None
    world.look(LOOK_SECONDS)
    assert world.orders == 1
    assert world.look(RETRY_SECONDS).state == "installed"
    assert world.health.parts == {"certificate": ""}


def test_a_change_while_the_task_reads_is_not_missed(tmp_path: Path) -> None:
    world = World(tmp_path)
    old, new = issue(HOST), issue(HOST, lasts=180 * DAY)
    world.write("m", old)
    real = world.perform

    async def slow(order: Order) -> Outcome:
        outcome = await real(order)
        if world.orders == 1:
            world.write("m", new)
        return outcome

    world.watch._perform = slow
    world.look()
    assert world.served() == old.chain
    world.look(LOOK_SECONDS)
    assert world.served() == new.chain


def test_follow_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.write("m", issue(HOST))
    monkeypatch.setattr("services.acme.watch.LOOK_SECONDS", 0.001)

    async def story() -> None:
        following = asyncio.create_task(world.watch.follow())
        await world.told.wait()
        following.cancel()

    asyncio.run(asyncio.wait_for(story(), 10))


def test_sources_are_what_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert isinstance(World(tmp_path / "a").watch._source, LetsEncrypt)
    assert isinstance(World(tmp_path / "b", "self-signed").watch._source, SelfSigned)
