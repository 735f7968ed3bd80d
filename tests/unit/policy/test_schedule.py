"""When to try again: a table, and a thousand invented histories."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.policy.schedule import LOCAL, GiveUp, Retry, Schedule, destination_wait

DAY = 86_400.0
USUAL = Schedule()


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        (0, 300),
        (1, 300),
        (2, 600),
        (3, 1200),
        (4, 2400),
        (5, 4800),
        (6, 9600),
        (7, 14_400),
        (8, 14_400),
        (10**6, 14_400),
    ],
)
def test_waits_double_up_to_the_longest(attempts: int, seconds: float) -> None:
    assert USUAL.wait(attempts) == seconds


CASES = [
    # age, attempts, warned → decision, times counted from the message's coming
    (0, 1, False, Retry(300)),
    (9_300, 6, False, Retry(14_400)),  # 9,600 s would pass the moment of the warning
    (14_400, 7, False, Retry(28_800, warn=True)),
    (14_400, 7, True, Retry(28_800)),
    (100_000, 12, True, Retry(114_400)),
    (5 * DAY - 100, 40, True, Retry(5 * DAY)),  # a last attempt at the end
    (5 * DAY, 41, True, GiveUp()),
    (9 * DAY, 1, False, GiveUp()),
]


@pytest.mark.parametrize(("age", "attempts", "warned", "decision"), CASES)
def test_after_failure(age: float, attempts: int, warned: bool, decision: Retry | GiveUp) -> None:
    assert USUAL.after_failure(0, age, attempts, warned=warned) == decision


def test_a_destination_that_is_down_puts_off_but_not_past_the_end() -> None:
    assert USUAL.put_off(0, 100, 700, warned=False) == Retry(700)
    assert USUAL.put_off(0, 15_000, 15_700, warned=False) == Retry(15_700, warn=True)
    assert USUAL.put_off(0, 15_000, 15_700, warned=True) == Retry(15_700)
    assert USUAL.put_off(0, 5 * DAY - 10, 6 * DAY, warned=True) == Retry(5 * DAY)
    assert USUAL.put_off(0, 5 * DAY, 6 * DAY, warned=True) == GiveUp()


def test_destinations_are_left_alone_longer_and_longer() -> None:
    assert [destination_wait(n) for n in (1, 2, 3, 4, 5, 9)] == [60, 120, 240, 480, 900, 900]
    assert [destination_wait(n, 2, 60) for n in (1, 2, 6, 100)] == [2, 4, 60, 60]
    assert LOCAL.wait(1) == 5 and LOCAL.wait(99) == 300


@settings(max_examples=1000, deadline=None)
@given(
    first=st.floats(1, 86_400),
    most=st.floats(60, 86_400),
    give_up=st.floats(3600, 30 * DAY),
    warn=st.floats(600, 40 * DAY),
    late=st.floats(0, 120),
    puts_off=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_history_ends_in_time(
    first: float, most: float, give_up: float, warn: float, late: float, puts_off: bool, seed: int
) -> None:
    """Whatever the settings, and however late each attempt starts and however long it takes: times grow, the sender is
    warned at most once and not before its time, there is one attempt at the end or after it, and then no other."""
    schedule, chance = Schedule(first, most, give_up, warn), random.Random(seed)
    now, attempts, warned = 0.0, 0, False
    made: list[float] = []
    for _ in range(100_000):
        made.append(now)
        if puts_off and chance.random() < 0.3:
            decision = schedule.put_off(0, now, now + destination_wait(chance.randint(1, 9)), warned=warned)
        else:
            attempts += 1
            decision = schedule.after_failure(0, now, attempts, warned=warned)
        if isinstance(decision, GiveUp):
            break
        assert decision.next > now or now >= give_up
        assert decision.next <= give_up
        if decision.warn:
            assert not warned and now >= warn
            warned = True
        now = decision.next + chance.random() * late
    else:
        raise AssertionError("it never ends")
    assert made[-1] >= give_up
    assert len([when for when in made if when >= give_up]) == 1
    if warn + late < give_up and not puts_off:  # an attempt that starts late may be the last one
        assert warned
