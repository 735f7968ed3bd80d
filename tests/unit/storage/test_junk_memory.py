"""What an account sorts: counted once, taken back exactly, bounded; what a person says outweighs what is inferred."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage import junk_memory
from services.storage.junk_memory import JunkMemory, Words
from services.storage.junk_model import JunkModel, Sorted, kept
from services.storage.sqlite_state import SqliteState

DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = 20_000 * DAY

    def __call__(self) -> float:
        return self.now


def memory() -> JunkMemory:
    return SqliteState(":memory:", Clock()).junk


def words(text: str, *, version: int = 1, cjk: bool = False) -> Words:
    return Words(tuple(text.split()), version, cjk)


def published(junk: JunkMemory) -> JunkModel:
    return JunkModel(junk.model(1)[0])


def counted(junk: JunkMemory, *tokens: str) -> list[tuple[int, int]]:
    found = published(junk)
    return [(found.counts([token]) or [(0, 0)])[0] for token in tokens]


def test_a_message_counts_once_however_often_it_is_sorted() -> None:
    junk = memory()
    assert junk.learn("M1", words("cheap meds"), junk=True, person=True)
    assert not junk.learn("M1", words("cheap meds"), junk=True, person=True)
    assert junk.learn("M2", words("cheap lunch"), junk=False, person=False)
    assert junk.sorted() == Sorted(1, 1, 0, 0)
    assert counted(junk, "cheap", "meds", "lunch", "other") == [(1, 1), (1, 0), (0, 1), (0, 0)]


def test_sorting_the_other_way_takes_back_exactly() -> None:
    junk = memory()
    junk.learn("M0", words("cheap talk"), junk=False, person=True)
    before = junk.model(1)[0][64:]
    junk.learn("M1", words("cheap meds", cjk=True), junk=True, person=True)
    assert junk.sorted() == Sorted(1, 1, 1, 0)
    junk.learn("M1", words("cheap meds", cjk=True), junk=False, person=True)
    assert junk.sorted() == Sorted(0, 2, 0, 1)
    assert counted(junk, "cheap", "meds") == [(0, 2), (0, 1)]
    assert junk.forget("M1", words("cheap meds"))
    assert not junk.forget("M1", words("cheap meds"))
    assert junk.sorted() == Sorted(0, 1, 0, 0)
    assert junk.model(1)[0][64:] == before


def test_what_is_inferred_does_not_undo_what_a_person_said() -> None:
    junk = memory()
    junk.learn("M1", words("a"), junk=True, person=True)
    assert not junk.learn("M1", words("a"), junk=False, person=False)
    junk.learn("M2", words("b"), junk=False, person=False)
    junk.learn("M2", words("b"), junk=False, person=True)
    learned = junk.learned("M2")
    assert learned is not None
    assert learned.person
    assert junk.learn("M2", words("b"), junk=True, person=True)


def test_another_version_of_the_tokens_takes_nothing_below_zero() -> None:
    junk = memory()
    junk.learn("M1", words("old tokens"), junk=True, person=True)
    junk.learn("M2", words("new"), junk=True, person=True)
    junk.learn("M1", words("new words", version=2), junk=False, person=True)
    assert counted(junk, "new", "words") == [(0, 1), (0, 1)]
    junk.learn("M2", words("new"), junk=False, person=True)
    assert counted(junk, "new") == [(0, 2)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["junk", "good", "kept", "forget"])), max_size=30))
def test_any_order_of_lessons_leaves_the_counts_of_the_last_ones(steps: list[tuple[int, str]]) -> None:
    junk = memory()
    texts = [words(f"w{number} shared {'even' if number % 2 else 'odd'}") for number in range(6)]
    now: dict[int, tuple[bool, bool]] = {}  # junk, person
    for number, step in steps:
        if step == "forget":
            junk.forget(f"M{number}", texts[number])
            now.pop(number, None)
            continue
        person = step != "kept"
        if person or number not in now or not now[number][1]:
            is_junk = step == "junk"
            now[number] = (is_junk, person or (number in now and now[number][1]))
        junk.learn(f"M{number}", texts[number], junk=step == "junk", person=person)
    other = memory()
    for number, (is_junk, person) in now.items():
        other.learn(f"M{number}", texts[number], junk=is_junk, person=person)
    every = ["shared", "even", "odd", *(f"w{number}" for number in range(6))]
    assert counted(junk, *every) == counted(other, *every)
    assert junk.sorted() == other.sorted()


def test_it_stays_bounded_and_keeps_what_was_seen_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junk_memory, "MOST_TOKENS", 100)
    monkeypatch.setattr(junk_memory, "_THROWN", 20)
    monkeypatch.setattr(junk_memory, "MOST_MESSAGES", 10)
    monkeypatch.setattr(junk_memory, "MOST_KNOWN", 10)
    clock = Clock()
    junk = SqliteState(":memory:", clock).junk
    for number in range(30):
        clock.now += DAY
        junk.learn(f"M{number}", words("often " + " ".join(f"{number}-{n}" for n in range(5))), junk=True, person=True)
        junk.know([kept(f"{number}@example.net")])
    found = published(junk)
    assert len(found) == 80
    assert found.counts(["often", "29-0", "0-0"]) == [(30, 0), (1, 0)]
    assert junk.learned("M29") is not None
    assert junk.learned("M0") is None
    assert found.knows(kept("29@example.net"))
    assert not found.knows(kept("0@example.net"))


def test_what_is_published_is_known() -> None:
    junk = memory()
    assert junk.unpublished()
    junk.learn("M1", words("a"), junk=True, person=True)
    _, change = junk.model(1)
    junk.learn("M2", words("b"), junk=True, person=True)
    junk.was_published(change)
    assert junk.unpublished()
    _, change = junk.model(1)
    junk.was_published(change)
    assert not junk.unpublished()


def test_it_survives_and_the_code_before_may_open_it(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    state = SqliteState(path)
    state.junk.learn("M1", words("a b c"), junk=True, person=True)
    state.close()
    state = SqliteState(path)
    assert state.junk.sorted().junk == 1
    assert counted(state.junk, "a") == [(1, 0)]
    state.close()
    said_of = sqlite3.connect(path).execute("PRAGMA application_id").fetchone()[0]
    assert said_of & 0xFFFF == 1
