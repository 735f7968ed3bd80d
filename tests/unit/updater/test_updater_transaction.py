"""One run: what it does in which order, what it undoes when a step fails, and that no moment of it can hurt.

The power goes at every call and every write of the journal in turn, and once more while that is being mended. Always
the house is wholly old or wholly new afterwards, open, settled, with one entry in the history and no journal.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from updateworld import MAILSTEAD, ORDERS, REPLACED, UNBOUND, FakeAdmin, World

from services.updater import history, steps
from services.updater.engine import DEPENDS_LABEL, AdminAway, AdminRefused, EngineRefused, EngineUnavailable
from services.updater.steps import Run
from services.updater.transaction import Unsettled
from services.updater.work import Work


def entry(world: World) -> dict[str, Any]:
    return history.read(world.folder)[0]


def is_old(world: World, before: dict[str, Any]) -> bool:
    """Exactly the containers of before: same ids, names, images, running."""
    return world.boxes == before and world.names[MAILSTEAD] == f"old {MAILSTEAD}"


def is_new(world: World, before: dict[str, Any]) -> bool:
    """Each replaced service runs the new image under its own name; nothing of the old is left; the rest is as it was."""
    for box in world.boxes.values():
        service = box.labels["com.docker.compose.service"]
        if service in REPLACED:
            if box.id in before or not box.running or not box.image_id.startswith("new "):
                return False
        elif box != before[box.id]:
            return False
    return sorted(box.name for box in world.boxes.values()) == sorted(box.name for box in before.values())


def settled(world: World) -> bool:
    return not world.held and not world.snapshots and not (Path(world.folder) / "journal.jsonl").exists()


def test_a_good_update_replaces_what_is_newer_and_nothing_else(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    before = world.snapshot()
    assert world.run() == steps.COMMITTED
    assert is_new(world, before) and settled(world)
    kept = entry(world)
    assert kept["outcome"] == "committed" and sorted(kept["services"]) == sorted(REPLACED)
    assert [step["step"] for step in kept["steps"]] == [
        "check", "pull", "create", "hold", "snapshot", "replace", "health", "gate", "commit",
        "release", "settle", "keep", "remove", "clean",
    ]  # fmt: skip
    assert all(step["outcome"] == "done" for step in kept["steps"])
    # Kept for a rollback.
    assert world.names[f"{MAILSTEAD.rpartition(':')[0]}:before-u1"] == f"old {MAILSTEAD}"


def test_while_the_house_is_closed_nothing_is_done_that_could_be_done_before_or_after(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.run()
    assert not {"pull", "create", "rename", "remove", "tag", "registry_digest", "remove_image"} & set(world.closed)
    assert {"stop", "start", "healthy", "gate"} <= set(world.closed)


def test_the_old_ones_serve_until_all_successors_are_made(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.run()
    words = [call.split()[0] for call in world.calls]
    assert words.index("stop") > max(index for index, word in enumerate(words) if word == "create")


def test_those_that_others_need_are_stopped_last_and_started_first(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    for box in world.boxes.values():
        if box.labels["com.docker.compose.service"] == "smtp-in":
            box.labels[DEPENDS_LABEL] = "setup:service_completed_successfully:false,unbound:service_healthy:true"
    world.run()
    done = [call for call in world.calls if call.startswith(("stop", "start", "healthy"))]
    stop_in, start_in = done.index("stop house-smtp-in-1-before-u1"), done.index("start house-smtp-in-1")
    stop_un, start_un = done.index("stop house-unbound-1-before-u1"), done.index("start house-unbound-1")
    assert stop_in < stop_un < start_un < done.index("healthy house-unbound-1") < start_in


# Where it goes wrong, with what, and what the owner reads. All before the house is closed: nothing was touched.
BEFORE_CLOSING = [
    ("registry_digest", EngineRefused(500, "dial tcp 127.0.0.1:5000: connect: connection refused"), "not reachable"),
    ("registry_digest", EngineRefused(401, "unauthorized"), "wants a log-in"),
    ("pull", EngineRefused(0, "toomanyrequests: slow down"), "asks to wait"),
    ("pull", EngineRefused(0, "filesystem layer verification failed for digest sha256:1"), "damaged image"),
    ("pull", EngineRefused(0, "write /var/lib/docker/tmp/x: no space left on device"), "disk is full"),
    ("create", EngineRefused(409, "cannot be carried over"), "cannot be carried over"),
    ("create", EngineUnavailable("Docker did not create"), "Docker did not create"),
    ("rename", EngineRefused(500, "rename failed"), "rename failed"),
    ("standings", EngineUnavailable("Docker did not list"), "Docker did not list"),
]


@pytest.mark.parametrize(("call", "fault", "words"), BEFORE_CLOSING)
def test_a_failure_before_the_house_is_closed_touches_nothing(
    tmp_path: Path, call: str, fault: Exception, words: str
) -> None:
    world = World.at(tmp_path)
    before = world.snapshot()
    world.faults[call] = [fault]
    assert world.run() == steps.FAILED
    assert is_old(world, before) and settled(world) and not world.closed
    assert words in entry(world)["reason"] and entry(world)["seconds_closed"] == 0


def unhealthy(world: World) -> None:
    world.unhealthy[f"new {MAILSTEAD}"] = "no listener on 25"


def ends(world: World) -> None:
    world.ending.add(f"new {UNBOUND}")


def letter_lost(world: World) -> None:
    world.gate_says = "read: the signature is missing"


def admin_never_comes(world: World) -> None:
    world.faults["gate"] = [AdminAway("connection refused")] * 1000


def no_start(world: World) -> None:
    world.faults["start"] = [EngineRefused(500, "port is already allocated")]


def no_snapshot(world: World) -> None:
    world.faults["snapshot"] = [AdminRefused("507: the snapshot cannot be kept")]


def no_hold(world: World) -> None:
    world.faults["hold"] = [AdminAway("admin does not answer")]


BROKEN = [
    (unhealthy, "is not healthy after 60 seconds: no listener on 25"),
    (ends, "unbound ended with status 1"),
    (letter_lost, "the mail gate: read: the signature is missing"),
    (admin_never_comes, "the mail gate could not be asked"),
    (no_start, "port is already allocated"),
    (no_snapshot, "507"),
    (no_hold, "admin does not answer"),
]


@pytest.mark.parametrize(("breaks", "words"), BROKEN)
def test_what_fails_after_that_is_rolled_back_to_exactly_the_old_containers(
    tmp_path: Path, breaks: Any, words: str
) -> None:
    world = World.at(tmp_path)
    before = world.snapshot()
    breaks(world)
    assert world.run() == steps.ROLLED_BACK
    assert is_old(world, before) and settled(world)
    assert words in entry(world)["reason"]


@pytest.mark.parametrize("error", [AdminAway("starting"), AdminRefused("no such path")])
def test_a_renewal_that_fails_is_tried_again(tmp_path: Path, error: Exception) -> None:
    world = World.at(tmp_path)
    asked: list[str] = []

    class Admin(FakeAdmin):
        async def hold(self, update: str, seconds: int) -> list[str]:
            asked.append(update)
            if len(asked) == 3:
                raise asyncio.CancelledError
            raise error

    async def no_wait(seconds: float) -> None: ...

    tools = world.tools()
    tools = replace(tools, admin=Admin(world), clocks=replace(tools.clocks, sleep=no_wait))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Work(tools, Run(id="u1"), lambda entry: None).renew())
    assert asked == ["u1"] * 3


def test_a_bug_of_ours_rolls_back_too(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    before = world.snapshot()
    world.faults["healthy"] = [ZeroDivisionError("oops")]
    assert world.run() == steps.ROLLED_BACK and is_old(world, before)
    assert "internal error in health" in entry(world)["reason"]


def test_the_directory_goes_back_only_after_the_old_admin_was_started(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    letter_lost(world)
    world.run()
    words = world.calls
    assert words.index("settled rolled-back") > words.index("start house-admin-1-before-u1")
    assert words.index("release") > words.index("settled rolled-back")


# --- the power goes -------------------------------------------------------------------------------------------------
def moments(folder: Path, breaks: Any = None) -> int:
    """How many moments a whole run has."""
    folder.mkdir()
    world = World.at(folder, health_seconds=1.0)
    if breaks:
        breaks(world)
    world.run()
    return world.moment


def after_a_cut(
    folder: Path, first: int, second: int | None = None, breaks: Any = None
) -> tuple[World, dict[str, Any]]:
    """The world after a run whose power went at moment `first`, and again `second` moments into the mending."""
    folder.mkdir()
    world = World.at(folder, cut_at=first, health_seconds=1.0)
    if breaks:
        breaks(world)
    before = world.snapshot()
    world.run()
    world.cut_at = None if second is None else world.moment + second
    if world.recover() == "cut":
        world.cut_at = None
        world.recover()
    return world, before


@pytest.mark.parametrize("breaks", [None, unhealthy, letter_lost, no_start], ids=["good", "unhealthy", "gate", "start"])
def test_a_power_cut_at_any_moment_leaves_all_old_or_all_new(tmp_path: Path, breaks: Any) -> None:
    ends_seen = set()
    for first in range(moments(tmp_path / "whole", breaks) + 1):
        world, before = after_a_cut(tmp_path / str(first), first, breaks=breaks)
        new, old = is_new(world, before), is_old(world, before)
        assert new != old and settled(world), f"cut at {first}: {world.serving()}"
        entries = history.read(world.folder)
        assert len(entries) <= 1, first
        if entries:
            assert (entries[0]["outcome"] == "committed") == new, first
        else:
            assert old and first <= 3, "only a run whose first line was never whole leaves no entry"
        ends_seen.add(new)
    assert ends_seen == ({True, False} if breaks is None else {False})


def test_a_second_power_cut_while_the_first_is_mended_changes_nothing(tmp_path: Path) -> None:
    whole = moments(tmp_path / "whole")
    for first, second in itertools.product(range(20, whole, 9), range(0, 60, 5)):
        world, before = after_a_cut(tmp_path / f"{first}-{second}", first, second)
        assert is_new(world, before) != is_old(world, before) and settled(world), (first, second)
        assert len(history.read(world.folder)) == 1


@settings(max_examples=120, deadline=None)
@given(first=st.integers(0, 250), second=st.integers(0, 120), which=st.sampled_from([None, unhealthy, ends, no_start]))
def test_any_two_power_cuts(tmp_path_factory: pytest.TempPathFactory, first: int, second: int, which: Any) -> None:
    world, before = after_a_cut(tmp_path_factory.mktemp("cut") / "x", first, second, breaks=which)
    assert is_new(world, before) != is_old(world, before) and settled(world)


@settings(max_examples=150, deadline=None)
@given(
    call=st.sampled_from(
        ["standings", "container", "image", "tag", "create", "rename", "start", "stop", "remove", "healthy", "pull"]
    ),
    skip=st.integers(0, 6),
    times=st.integers(1, 6),
)
def test_an_engine_that_is_away_for_a_while_is_waited_for(
    tmp_path_factory: pytest.TempPathFactory, call: str, skip: int, times: int
) -> None:
    world = World.at(tmp_path_factory.mktemp("engine"))
    before = world.snapshot()
    away = EngineUnavailable("connection refused")

    class Patchy(list[Exception]):
        """Faults from the `skip`th call on."""

        def __init__(self) -> None:
            super().__init__([away] * times)
            self.left = skip

        def __bool__(self) -> bool:
            self.left -= 1
            return len(self) > 0 and self.left < 0

    world.faults[call] = Patchy()
    assert world.run() in (steps.COMMITTED, steps.FAILED, steps.ROLLED_BACK)
    assert is_new(world, before) != is_old(world, before) and settled(world)


def test_an_engine_that_stays_away_leaves_it_to_the_next_start(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    before = world.snapshot()
    letter_lost(world)
    world.faults["stop"] = []

    def engine_goes(world: World) -> None:
        for call in ("standings", "start", "stop", "container"):
            world.faults[call] = [EngineUnavailable("connection refused")] * 500

    world.meanwhile["gate"] = engine_goes
    with pytest.raises(Unsettled, match="undoing replace: connection refused"):
        world.run()
    assert (tmp_path / "journal.jsonl").exists() and not history.read(world.folder)
    world.faults.clear()
    assert world.recover() == steps.ROLLED_BACK
    assert is_old(world, before) and settled(world)
    assert "mail gate" in entry(world)["reason"], "the first reason, not the last"


def test_while_an_interrupted_run_is_undone_its_hold_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.at(tmp_path)
    letter_lost(world)

    def engine_goes(world: World) -> None:
        world.faults["standings"] = [EngineUnavailable("connection refused")] * 500

    world.meanwhile["gate"] = engine_goes
    with pytest.raises(Unsettled):
        world.run()
    world.faults = {"standings": [EngineUnavailable("connection refused")]}  # once more: undoing takes its time
    renewed = []

    async def renew(work: Work) -> None:
        renewed.append(work.run.id)
        await asyncio.Event().wait()

    monkeypatch.setattr(Work, "renew", renew)
    assert world.recover() == steps.ROLLED_BACK
    assert len(renewed) == 1


# --- somebody else ---------------------------------------------------------------------------------------------------
def down(world: World) -> None:
    """`docker compose down`."""
    world.boxes.clear()


def up(world: World) -> None:
    """`scripts/up` in the middle: Compose makes a container of its own for a service, and takes the name."""
    for box in [box for box in world.boxes.values() if box.labels["com.docker.compose.service"] == "imap"]:
        if "before" not in box.name:
            del world.boxes[box.id]
        else:
            box.running, box.status = False, "exited"
    world.box("imap", MAILSTEAD)


def removes_one(world: World) -> None:
    for box in [box for box in world.boxes.values() if box.name.startswith("house-imap-1-before")]:
        del world.boxes[box.id]


@pytest.mark.parametrize("step", ["hold", "snapshot", "gate", "healthy"])
@pytest.mark.parametrize(("somebody", "words"), [(up, "somebody else"), (removes_one, "somebody else")])
def test_who_changes_the_stack_meanwhile_is_left_alone(tmp_path: Path, step: str, somebody: Any, words: str) -> None:
    world = World.at(tmp_path)
    world.meanwhile[step] = somebody
    assert world.run() == steps.ROLLED_BACK
    assert settled(world) and words in entry(world)["reason"]
    running = [box for box in world.boxes.values() if box.running]
    if somebody is up:
        assert [box.name for box in running if box.labels["com.docker.compose.service"] == "imap"] == ["house-imap-1"]
        # What they started goes on meaning what they started.
        assert world.names[MAILSTEAD] == next(b for b in running if "imap" in b.name).image_id
    for service in ("admin", "smtp-in", "unbound"):
        assert [box.image_id[:3] for box in running if box.labels["com.docker.compose.service"] == service] == ["old"]


def test_a_stack_taken_down_in_the_middle_ends_the_run_once_admin_is_back(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.meanwhile["gate"] = down
    with pytest.raises(Unsettled, match="admin"):
        world.run()
    for service in ("admin", "imap"):
        world.box(service, MAILSTEAD)
    assert world.recover() == steps.ROLLED_BACK
    assert settled(world) and "somebody else" in entry(world)["reason"]
    assert all(box.running for box in world.boxes.values()) and len(world.boxes) == 2


def test_a_name_that_is_moved_on_while_the_containers_are_made_stops_it(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    before = world.snapshot()

    def moved(world: World) -> None:
        world.names[MAILSTEAD] = f"old {MAILSTEAD}"

    world.meanwhile["create"] = moved
    assert world.run() == steps.FAILED
    assert is_old(world, before) and "came to mean another image" in entry(world)["reason"]


# --- where images come from, and which are taken ---------------------------------------------------------------------
def test_nothing_newer_is_nothing_done(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.registry = dict(world.names)
    before = world.snapshot()
    assert world.run() == steps.NOTHING
    assert is_old(world, before) and entry(world)["outcome"] == "nothing" and "stop" not in world.calls


def test_only_the_services_that_were_asked_for(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    assert world.run(services=["unbound"]) == steps.COMMITTED
    assert entry(world)["services"] == ["unbound"]
    assert world.names[MAILSTEAD] == f"old {MAILSTEAD}"


def test_what_was_built_here_is_taken_by_its_name_and_asks_no_registry(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.names[MAILSTEAD] = f"new {MAILSTEAD}"
    before = world.snapshot()
    world.faults["registry_digest"] = world.faults["pull"] = [EngineRefused(500, "no such host")]
    assert world.run("local") == steps.COMMITTED
    assert sorted(entry(world)["services"]) == ["admin", "imap", "smtp-in"]
    assert sorted(box.name for box in world.boxes.values()) == sorted(box.name for box in before.values())


def test_a_local_update_that_fails_gives_the_name_back_to_what_runs(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.names[MAILSTEAD] = f"new {MAILSTEAD}"
    letter_lost(world)
    before = world.snapshot()
    assert world.run("local") == steps.ROLLED_BACK
    assert is_old(world, before), "`docker compose up -d` must not start what has just been refused"


def test_an_update_can_be_taken_back_once(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.run()
    assert world.run("before") == steps.COMMITTED
    assert {box.image_id[:3] for box in world.boxes.values()} == {"old"}
    assert world.names[MAILSTEAD] == f"old {MAILSTEAD}" and settled(world)
    assert world.run("before") == steps.NOTHING
    # By itself it is not taken again; by hand it is.
    assert world.run(wait=True) == steps.NOTHING
    assert world.run() == steps.COMMITTED


def test_a_taking_back_that_fails_leaves_the_newer_ones(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    world.run()
    before = world.snapshot()
    letter_lost(world)
    assert world.run("before") == steps.ROLLED_BACK
    assert world.boxes == before and world.names[MAILSTEAD] == f"new {MAILSTEAD}"


def test_an_image_that_was_rolled_back_is_not_tried_each_night(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    letter_lost(world)
    assert world.run(wait=True) == steps.ROLLED_BACK
    world.gate_says = ""
    assert world.run(wait=True) == steps.NOTHING
    assert world.run() == steps.COMMITTED


def test_a_young_image_waits_unless_somebody_asks_for_it(tmp_path: Path) -> None:
    age = 24 * 14  # made on 1 November; it is the 14th
    world = World.at(tmp_path, orders=replace(ORDERS, min_age_hours=age))
    before = world.snapshot()
    assert world.run(wait=True) == steps.NOTHING
    assert is_old(world, before) and "UPDATE_MIN_AGE" in entry(world)["reason"]
    world.time += 3 * 24 * 3600
    assert world.run(wait=True) == steps.COMMITTED


def test_no_restart_pulls_and_leaves_the_containers(tmp_path: Path) -> None:
    world = World.at(tmp_path, orders=replace(ORDERS, restart=False))
    before = world.snapshot()
    assert world.run(wait=True) == steps.NOTHING
    assert world.boxes == before and world.names[MAILSTEAD] == f"new {MAILSTEAD}"


def test_cleanup_keeps_the_images_of_the_last_update_alone(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    repository = MAILSTEAD.rpartition(":")[0]
    world.run()
    world.images["newest"] = replace(world.images[f"new {MAILSTEAD}"], id="newest", repo_digests=(f"{repository}@3",))
    world.registry[MAILSTEAD] = "newest"
    world.run()
    assert f"{repository}:before-u1" not in world.names and world.names[f"{repository}:before-u2"] == f"new {MAILSTEAD}"
    assert f"old {MAILSTEAD}" in world.images, "docker-filter and updater still run it"


def test_a_container_that_does_not_run_is_not_started(tmp_path: Path) -> None:
    world = World.at(tmp_path)
    imap = next(box for box in world.boxes.values() if box.name == "house-imap-1")
    imap.running, imap.status = False, "exited"
    assert world.run() == steps.COMMITTED
    assert "imap" not in entry(world)["services"] and world.boxes[imap.id] == imap
