"""junk.model: what was counted is found again, what is broken is refused, and no word stands in it."""

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage.junk_model import Contents, JunkModel, Sorted, hash_of, write, wrote_to

KEY = bytes(range(16))


def model(counts: dict[str, tuple[int, int]], known: list[str] | None = None, key: bytes = KEY) -> bytes:
    rows = sorted((hash_of(key, token), *both) for token, both in counts.items())
    return write(
        Contents(
            key, 7, 1000.0, Sorted(5, 6, 1, 2),
            array("q", [row[0] for row in rows]),
            array("H", [each for row in rows for each in row[1:]]),
            array("q", sorted(hash_of(key, one) for one in known or [])),
        )
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.tuples(st.integers(0, 65535), st.integers(0, 65535))))
def test_what_was_counted_is_found_again(counts: dict[str, tuple[int, int]]) -> None:
    found = JunkModel(model(counts))
    assert found.counts(counts) == list(counts.values())
    assert found.counts(["not there " + token for token in counts]) == []


def test_many_tokens_are_all_found() -> None:
    counts = {f"word{number}": (number % 7, number % 5) for number in range(50_000)}
    found = JunkModel(model(counts))
    assert len(found) == 50_000
    assert found.counts(counts) == list(counts.values())


def test_known_senders_and_the_header() -> None:
    found = JunkModel(model({}, [wrote_to("Friend@Example.net")]))
    assert found.knows(wrote_to("friend@example.net"))
    assert not found.knows(wrote_to("stranger@example.net"))
    assert (found.version, found.made, found.sorted) == (7, 1000, Sorted(5, 6, 1, 2))


def test_no_word_stands_in_the_file_and_another_key_gives_another_file() -> None:
    counts = {"confidential": (1, 0), "f:friend@example.net": (0, 1)}
    assert b"confid" not in model(counts)
    assert b"friend" not in model(counts)
    assert not set(map(hash_of, [KEY] * 2, counts)) & set(map(hash_of, [bytes(16)] * 2, counts))


def test_a_file_cut_anywhere_or_grown_is_refused() -> None:
    whole = model({"a": (1, 2), "b": (3, 4)}, ["x"])
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            JunkModel(whole[:length])
    with pytest.raises(ValueError):
        JunkModel(whole + b"\0")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_file_misjudges_at_most(data: st.DataObject) -> None:
    whole = bytearray(model({f"w{number}": (number, 1) for number in range(40)}, ["x", "y"]))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)):
        whole[at] = data.draw(st.integers(0, 255))
    try:
        found = JunkModel(bytes(whole))
    except ValueError:
        return
    found.counts([f"w{number}" for number in range(60)])
    found.knows("x")
