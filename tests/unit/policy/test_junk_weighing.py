"""Counts become points: certain where many words agree, silent where little is known, never a forged friend's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy import junk
from services.policy.junk import Trained

ENOUGH = Trained(250, 250, 100, 100)
JUNK_WORDS, GOOD_WORDS = [(60, 0)] * 12, [(0, 60)] * 12


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        (JUNK_WORDS, 0.99, 1.0),
        (GOOD_WORDS, 0.0, 0.01),
        (JUNK_WORDS + GOOD_WORDS, 0.45, 0.55),  # both speak: not known
        ([], 0.5, 0.5),
        ([(50, 50)] * 100, 0.5, 0.5),
        ([(0, 0)] * 100, 0.5, 0.5),
        ([(1, 0)] * 3, 0.5, 0.5),  # what one message had is no evidence
        ([(3, 0)] * 30, 0.9, 1.0),
    ],
)
def test_indicator(counts: list[tuple[int, int]], low: float, high: float) -> None:
    assert low <= junk.indicator(counts, ENOUGH)[0] <= high


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))), st.integers(0, 10**6), st.integers(0, 10**6))
def test_any_counts_give_a_probability(counts: list[tuple[int, int]], in_junk: int, in_good: int) -> None:
    found, _ = junk.indicator(counts, Trained(in_junk, in_good))
    assert 0.0 <= found <= 1.0
    assert not math.isnan(found)


@given(st.floats(0, 1), st.floats(0, 1))
def test_points_rise_with_the_indicator(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert junk.weight(low) <= junk.weight(high)
    assert junk.weight(0.5) == 0
    assert junk.weight(0.9) == 5


@pytest.mark.parametrize(
    ("trained", "least", "most"),
    [
        (Trained(19, 500), None, None),
        (Trained(500, 19), None, None),
        (Trained(25, 25, 5, 5), 3.0, 4.99),  # a little: it may add to what else was found, and not decide alone
        (Trained(100, 100, 5, 5), 5.0, 6.0),
        (Trained(2000, 250, 5, 5), 5.0, 6.0),
    ],
)
def test_little_training_decides_little(trained: Trained, least: float | None, most: float | None) -> None:
    counts = [(trained.junk // 4, 0)] * 20
    found = junk.bayes(counts, trained, cjk=False)
    if least is None or most is None:
        assert found is None
    else:
        assert found is not None
        assert least <= found.weight <= most


def test_far_more_good_mail_than_junk_does_not_drown_the_junk_s_words() -> None:
    counts = [(40, 0)] * 8 + [(0, 1)] * 60
    assert junk.indicator(counts, Trained(250, 3000))[0] > 0.99


def test_a_writing_of_which_nothing_good_is_known_is_not_junk_for_that() -> None:
    counts = [(15, 0)] * 20
    prejudiced = junk.bayes(counts, Trained(200, 200, cjk_junk=20, cjk_good=0), cjk=True)
    assert prejudiced is not None
    assert prejudiced.weight <= 2
    # Enough is known of good mail in it; or so much of its junk that it is plainly not read here.
    for trained in (Trained(200, 200, 20, 10), Trained(200, 200, 150, 0)):
        found = junk.bayes(counts, trained, cjk=True)
        assert found is not None
        assert found.weight >= 5


def test_the_same_for_english_where_all_good_mail_is_chinese() -> None:
    found = junk.bayes([(15, 0)] * 20, Trained(200, 200, cjk_junk=180, cjk_good=200), cjk=False)
    assert found is not None
    assert found.weight <= 2


def test_chinese_words_are_measured_by_chinese_mail() -> None:
    """Common words: in half of the 100 Chinese junk messages, in three of the 10 good ones; the rest is English."""
    trained = Trained(350, 260, cjk_junk=100, cjk_good=10)
    common = [(50, 3)] * 40
    assert junk.indicator(common, trained)[0] > 0.99  # as words of all mail they would be damning
    assert junk.indicator((), trained, common)[0] < 0.7


def test_tiny_messages_are_not_judged_by_how_they_were_sent() -> None:
    found = junk.bayes([(200, 2)] * 3, ENOUGH, cjk=False)
    assert found is not None
    assert found.weight < 3


def test_reputation_is_for_proven_senders_only() -> None:
    for kinds in ((True, True, True), (False, True, True), (False, False, True)):
        wrote_to, kept, known_list = kinds
        found = junk.known_sender(wrote_to=wrote_to, kept=kept, known_list=known_list, proven=True)
        assert found is not None
        assert found.weight < 0
        assert junk.known_sender(wrote_to=wrote_to, kept=kept, known_list=known_list, proven=False) is None
    assert junk.known_sender(wrote_to=False, kept=False, known_list=False, proven=True) is None
