"""The fuzzer itself: a fault is found, kept and seen again; the same seed gives the same inputs."""

import itertools
from pathlib import Path

import pytest

from tests.fuzz import running
from tests.fuzz.mutation import MOST_OCTETS, mutations
from tests.fuzz.running import Target, once, run
from tests.fuzz.targets import TARGETS

SEEDS = [b"one\r\ntwo", b"three"]


def no_nul(octets: bytes) -> None:
    assert b"\0" not in octets, "a NUL got in"


def test_a_fault_is_found_and_its_input_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FOUND", tmp_path)
    target = Target("no-nul", no_nul, SEEDS)
    found = run(target, 60, seed=1)
    assert "a NUL got in" in found.failure
    assert "a NUL got in" in once(target, Path(found.path).read_bytes())


def test_who_takes_too_long_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SECONDS_EACH", 0.05)

    def endless(octets: bytes) -> None:
        while True:
            pass

    assert "TooSlow: more than 0.05 seconds for 3 octets" in once(Target("endless", endless, SEEDS), b"abc")


def test_a_seed_gives_the_same_inputs_and_begins_with_the_seeds() -> None:
    first = list(itertools.islice(mutations(SEEDS, 7), 300))
    assert first == list(itertools.islice(mutations(SEEDS, 7), 300))
    assert first[:2] == SEEDS and len(set(first)) > 200
    assert first != list(itertools.islice(mutations(SEEDS, 8), 300))
    assert max(map(len, first)) <= MOST_OCTETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_are_well(name: str) -> None:
    for seed in TARGETS[name].seeds:
        assert once(TARGETS[name], seed) == ""
