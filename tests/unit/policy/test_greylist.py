"""Greylisting: who waits, how long, and that nobody waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy import greylist
from services.policy.greylist import ANYWHERE, Key, Rules, Seen

NOW = 1_000_000.0
RULES = Rules()
DAY = 86_400.0


@pytest.mark.parametrize(
    ("sender", "spf", "expected"),
    [
        ("A@Far.Test", False, (Key("192.0.2.0/24", "far.test", "anna@a.test"), Key(ANYWHERE, "a@far.test", "anna@a.test"))),
        ("a@far.test", True, (Key(ANYWHERE, "far.test", "anna@a.test"),) * 2),
        ("", False, (Key("192.0.2.0/24", "mx.far.test", "anna@a.test"), Key(ANYWHERE, "mx.far.test", "anna@a.test"))),
        ("", True, (Key(ANYWHERE, "mx.far.test", "anna@a.test"),) * 2),
    ],
)  # fmt: skip
def test_keys(sender: str, spf: bool, expected: tuple[Key, Key]) -> None:
    assert greylist.keys("192.0.2.9", sender, "MX.far.test.", "Anna@a.test", spf_pass=spf) == expected


@pytest.mark.parametrize(
    ("seen", "elsewhere", "wait"),
    [
        (None, None, 300),
        (Seen(NOW - 1, NOW - 1), None, 299),
        (Seen(NOW - 299, NOW - 10), None, 1),
        (Seen(NOW - 300, NOW - 10), None, 0),
        (Seen(NOW - 86_000, NOW - 86_000), None, 0),
        (Seen(NOW - 3 * DAY, NOW - 3 * DAY), None, 300),  # the try was forgotten
        (Seen(NOW - 3 * DAY, NOW - DAY), None, 0),  # it kept trying
        (Seen(NOW - 39 * DAY, NOW - 39 * DAY, True), None, 0),
        (Seen(NOW - 90 * DAY, NOW - 41 * DAY, True), None, 300),
        # from other machines of a pool
        (None, Seen(NOW - 300, NOW - 60), 300),
        (None, Seen(NOW - 1700, NOW - 60), 100),
        (None, Seen(NOW - 1800, NOW - 60), 0),
        # the clock was set back by a day
        (Seen(NOW + DAY, NOW + DAY), None, 300),
        (Seen(NOW + DAY, NOW + DAY, True), None, 0),
        (Seen(NOW + 30, NOW + 30), None, 330),  # a time server's step
    ],
)
def test_waits(seen: Seen | None, elsewhere: Seen | None, wait: int) -> None:
    finding = greylist.judge(seen, elsewhere, NOW, RULES)
    assert finding.wait == wait
    assert (finding.reason is None) is (wait == 0)
    assert finding.keep.passed is (wait == 0)
    assert not finding.keep_elsewhere.passed
    assert finding.keep.last == finding.keep_elsewhere.last == NOW
    if finding.reason:
        assert finding.reason.rule == "greylist"
        assert f"{wait} seconds" in finding.reason.text


def test_the_wait_that_the_owner_sets() -> None:
    assert (Rules.of(10).wait, Rules.of(10).patience) == (10, 1800)
    assert (Rules.of(3600).wait, Rules.of(3600).patience) == (3600, 7200)


@given(st.lists(st.tuples(st.floats(1, 4 * 3600), st.integers(0, 5)), min_size=1, max_size=40))
def test_a_letter_that_keeps_coming_is_taken(tries: list[tuple[float, int]]) -> None:
    """Whatever machine tries: once a try comes `patience` after the first, or `wait` after the same machine's first."""
    rows: dict[Key, Seen] = {}
    now, first, firsts = NOW, NOW, dict[int, float]()
    for pause, machine in tries:
        firsts.setdefault(machine, now)
        key, other = greylist.keys(f"192.0.{machine}.9", "a@far.test", "h", "anna@a.test", spf_pass=False)
        finding = greylist.judge(rows.get(key), rows.get(other), now, RULES)
        rows[key], rows[other] = finding.keep, finding.keep_elsewhere
        due = now - first >= RULES.patience or now - firsts[machine] >= RULES.wait
        assert (finding.wait == 0) is due
        if not finding.wait:
            return
        now += pause


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.booleans()), min_size=1, max_size=20), st.floats(1, 1e9)
)  # fmt: skip
def test_whatever_the_clock_did_before_two_tries_are_enough(before: list[tuple[float, bool]], start: float) -> None:
    """Any history of rows: a sender who comes now and again after the longest wait is taken."""
    seen = None
    for moment, passed in before:
        seen = Seen(moment, moment, passed)
    greylisted = greylist.judge(seen, seen, start, RULES)
    again = greylist.judge(greylisted.keep, greylisted.keep_elsewhere, start + RULES.wait + 60, RULES)
    assert again.wait == 0
