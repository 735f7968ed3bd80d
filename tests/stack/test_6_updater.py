"""The updater on a real engine, with Debian's registry: what it replaces, what it takes back, and no letter lost.

`python -m tests.faults updates` tries every step of the journal; here is a sample. A stack and a registry of their own.
"""

import os
from collections.abc import Iterator

import pytest
from stack import must
from updating import LAST, REPLACED, Doors, UpdatingHouse, unhealthy, unsigned, updating_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpdatingHouse]:
    project = f"{os.environ['MAILSTEAD_TEST_PROJECT']}-second"
    with updating_house(tmp_path_factory.mktemp("updates"), project) as running:
        yield running


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("closed", "the registry is not reachable"),
        ("401", "the registry wants a log-in"),
        ("429", "the registry asks to wait"),
        ("cut", "the registry sent a damaged image"),
    ],
)
def test_a_registry_on_a_bad_day_changes_nothing(house: UpdatingHouse, harm: str, words: str) -> None:
    before = house.standing()
    with house.published_again():
        house.newer()
        house.registry.harm = harm
        entry = house.run()
    assert entry["outcome"] == "failed" and words in entry["reason"], entry["reason"]
    assert entry["seconds_closed"] == 0 and house.standing() == before


def test_a_dry_run_says_what_a_run_would_do(house: UpdatingHouse) -> None:
    before = house.standing()
    with house.published_again():
        house.newer()
        plan = {line["service"]: line for line in house.ask("/v1/run", {"dry": True})["plan"]}
    assert {name for name, line in plan.items() if line["action"] == "replace"} == set(REPLACED) - {"unbound"}
    assert all(plan[name]["action"] == "keep" and "scripts/update" in plan[name]["reason"] for name in LAST)
    assert house.standing() == before


@pytest.mark.parametrize(
    ("broken", "words"),
    [(unhealthy, "is not healthy after"), (unsigned, "the mail gate")],
    ids=["unhealthy", "unsigned"],
)
def test_what_is_no_good_is_taken_back_to_exactly_the_old_containers(
    house: UpdatingHouse, broken: object, words: str
) -> None:
    before = house.standing()
    with house.published_again(), house.mail_meanwhile():
        assert callable(broken)
        house.newer(broken())
        entry = house.run()
    assert entry["outcome"] == "rolled-back" and words in entry["reason"], entry["reason"]
    assert house.standing() == before
    house.is_open()
    assert house.compose_changes() == {}


@pytest.mark.parametrize(
    ("at", "outcome"),
    [
        ({"what": "start", "step": "create"}, "failed"),
        ({"what": "start", "step": "replace"}, "rolled-back"),
        ({"what": "start", "step": "gate"}, "rolled-back"),
        ({"what": "commit"}, "committed"),
    ],
    ids=["create", "replace", "gate", "commit"],
)
def test_an_updater_that_is_killed_ends_its_run_when_it_is_back(
    house: UpdatingHouse, at: dict[str, str], outcome: str
) -> None:
    before = house.standing()
    with house.published_again(), house.mail_meanwhile():
        house.newer()
        entry = house.killed_at(at)
    assert entry["outcome"] == outcome, entry
    if outcome == "committed":
        assert {name for name, value in house.standing().items() if before.get(name) != value} == {
            house.stack.container(name) for name in set(REPLACED) - {"unbound"}
        }
    else:
        assert house.standing() == before and "the updater was stopped during" in entry["reason"]
    house.is_open()


def test_a_good_image_is_taken_and_compose_finds_nothing_to_do(house: UpdatingHouse) -> None:
    before = house.standing()
    with house.mail_meanwhile():
        new, other = house.newer(), house.newer(repository="unbound")
        with Doors(house.stack.ports) as doors:
            entry = house.run()
    assert entry["outcome"] == "committed", entry["reason"]
    after = house.standing()
    assert set(after) == set(before), "every container has its own name again, and no other is left"
    for name in REPLACED:
        assert after[house.stack.container(name)][1] == (other if name == "unbound" else new)
        assert after[house.stack.container(name)][0] != before[house.stack.container(name)][0]
    for name in LAST:
        assert after[house.stack.container(name)] == before[house.stack.container(name)]
    load = os.getloadavg()[0]
    print(f"\nclosed: 25 for {doors.closed[25]:.2f} s, 993 for {doors.closed[993]:.2f} s (load {load:.1f}); "
          f"the updater counted {entry['seconds_closed']:.2f} s")  # fmt: skip
    # The ones that a run may not touch come last, and by hand; then nothing is left to do.
    must(house.stack.compose("up", "-d", "--no-deps", "setup", *LAST))
    assert house.compose_changes() == {}


def test_the_last_update_can_be_taken_back(house: UpdatingHouse) -> None:
    before = house.standing()
    entry = house.ended(str(house.ask("/v1/rollback", {})["id"]))
    assert entry["outcome"] == "committed", entry["reason"]
    after = house.standing()
    changed = {name for name in after if after[name][1] != before[name][1]}
    assert changed == {house.stack.container(name) for name in REPLACED}
    house.is_open()
    assert "refused" in house.ask("/v1/rollback", {})
