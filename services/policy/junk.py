"""How much a message looks like what this account calls junk: Robinson's and Fisher's way with counted tokens.

Gary Robinson, "A Statistical Approach to the Spam Problem" (Linux Journal, 2003): each token's share in junk and good
mail becomes a probability, drawn towards 0.5 where it was seen seldom; the most telling ones are combined by Fisher's
chi-square once as evidence of junk and once of good mail, and where both speak the result is near 0.5: not known.

Called by smtp-in's JunkJudge and by `mailstead junk evaluate`. Pure: counts in, a value out.

What came out of tuning is said beside each constant; the tuning itself is `mailstead junk evaluate` over real mail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from services.policy.verdict import Reason

# Robinson's s and x: how many messages the belief in 0.5 for an unknown token is worth. With his own 0.45 words that
# were seen once decide: 1.5 to 3 % more of 1,250 junk messages were missed, and more good mail came near to junk.
_STRENGTH, _UNKNOWN = 1.6, 0.5
# Tokens nearer to 0.5 than this are no evidence; those that one message had (0.69 or 0.31) just are not.
_LEAST_DEVIATION = 0.2
# The most telling tokens of a message; a long letter must not weigh more than a short one. With 150 a short offer
# behind a pasted page is missed more often (1 to 2 % of junk), with 15 one word decides.
_MOST_CLUES = 40
# Messages of both kinds that must have been sorted before counts mean anything: below, rules and reputation decide.
LEAST_TRAINED = 20
# From so many of both kinds on it is believed in full; before, in part, so that it decides alone from about 90 on.
# Believed in full at 100 of each, it took 38 of 3,750 good messages for junk where junk of new kinds came; now none.
FULLY_TRAINED = 150
# "ok" from an address nobody knows: what is known of it is how it was sent, and that is not enough for a verdict.
_FEW_CLUES = 8
# A writing (CJK, or another) in which hardly any good mail was sorted: that a message is written in it is a prejudice,
# and its words say no more, until so much junk in it was sorted that the account plainly reads nothing in it.
_WRITING_READ, _WRITING_NEVER_READ = 10, 150
_PREJUDICE = 2.0

# Indicator to points, straight between.
_POINTS = (
    (0.0, -4.0), (0.01, -3.0), (0.1, -1.5), (0.3, 0.0), (0.5, 0.0),
    (0.7, 2.0), (0.9, 5.0), (0.99, 5.7), (1.0, 6.0),
)  # fmt: skip

# Reputation: what the account itself did with a sender outweighs a doubt, not a certainty; only where the sender is
# proven (see `known_sender`).
WROTE_TO, KEPT, KNOWN_LIST = -4.0, -2.0, -1.5
# Said, but worth nothing: everybody writes a first time, and good mail from a stranger is what may not be lost.
FIRST_TIME = Reason(
    "first-time-sender", "this account has not dealt with the sender before, or nothing proves who it is"
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What the account has sorted: messages of each kind, and of those that are written in CJK."""

    junk: int = 0
    good: int = 0
    cjk_junk: int = 0
    cjk_good: int = 0

    @property
    def belief(self) -> float:
        """The part in which counts are believed, up to 1."""
        return min(1.0, 0.6 + 0.4 * min(self.junk, self.good) / FULLY_TRAINED)

    def reads(self, cjk: bool) -> bool:
        """Whether enough is known of mail in the writing: Chinese, Japanese and Korean, or any other."""
        good = self.cjk_good if cjk else self.good - self.cjk_good
        junk = self.cjk_junk if cjk else self.junk - self.cjk_junk
        return good >= _WRITING_READ or (junk >= _WRITING_NEVER_READ and self.good >= _WRITING_NEVER_READ)

    @property
    def enough(self) -> bool:
        """True once counts may be used."""
        return self.junk >= LEAST_TRAINED and self.good >= LEAST_TRAINED


def indicator(
    counts: Iterable[tuple[int, int]], trained: Trained, written: Iterable[tuple[int, int]] = ()
) -> tuple[float, int]:
    """0 (good) to 1 (junk), 0.5 where nothing is known; and by how many clues.

    `counts`: (junk, good) messages that had each token; `written`: the same of the tokens that are CJK.
    """
    clues = _beliefs(counts, trained.junk, trained.good)
    # A Chinese word is in Chinese mail only. Measured by all mail, each of them speaks for junk where most good mail is
    # in English and some junk is Chinese: of 3,500 good Chinese messages 500 came out as junk after 100 and 10 such.
    if trained.cjk_good >= _WRITING_READ and trained.cjk_junk:
        clues += _beliefs(written, trained.cjk_junk, trained.cjk_good)
    else:
        clues += _beliefs(written, trained.junk, trained.good)
    if not clues:
        return 0.5, 0
    if len(clues) > _MOST_CLUES:
        clues.sort(key=lambda belief: -abs(belief - 0.5))
        del clues[_MOST_CLUES:]
    against_good = _chi2(-2.0 * sum(math.log(1.0 - belief) for belief in clues), len(clues))
    against_junk = _chi2(-2.0 * sum(math.log(belief) for belief in clues), len(clues))
    return (1.0 + (1.0 - against_good) - (1.0 - against_junk)) / 2.0, len(clues)


def _beliefs(counts: Iterable[tuple[int, int]], all_junk: int, all_good: int) -> list[float]:
    """Of each token that says anything, the probability that a message with it is junk."""
    if not all_junk or not all_good:
        return []
    found: list[float] = []
    # Where far more of one kind was sorted, a message of it is worth less: else the words of 2,000 good messages, met
    # once each, outweigh those of 250 junk ones (10 % of junk was missed by that).
    fewer = min(all_junk, all_good)
    junk_worth, good_worth = fewer / all_junk, fewer / all_good
    for junk, good in counts:
        if junk + good <= 0:
            continue
        seen = junk * junk_worth + good * good_worth
        in_junk, in_good = min(junk / all_junk, 1.0), min(good / all_good, 1.0)
        share = in_junk / (in_junk + in_good)
        belief = (_STRENGTH * _UNKNOWN + seen * share) / (_STRENGTH + seen)
        if abs(belief - 0.5) >= _LEAST_DEVIATION:
            found.append(belief)
    return found


def _chi2(value: float, half: int) -> float:
    """The probability that chi-square with 2 * `half` degrees of freedom is above `value`."""
    term = total = math.exp(-value / 2.0) if value < 1400.0 else 0.0
    middle = value / 2.0
    for step in range(1, half):
        term *= middle / step
        total += term
    return min(total, 1.0)


def weight(found: float) -> float:
    """The indicator as points towards JUNK_SCORE (5.0): certainty alone is enough, a doubt never."""
    for (left, low), (right, high) in pairwise(_POINTS):
        if found <= right:
            return low + (high - low) * (found - left) / (right - left)
    return _POINTS[-1][1]


def bayes(
    counts: Iterable[tuple[int, int]], trained: Trained, *, cjk: bool, written: Iterable[tuple[int, int]] = ()
) -> Reason | None:
    """What the account's own sorting says of a message; None while too little was sorted.

    `counts` and `written` as for `indicator`, `cjk`: how the message is written.
    """
    if not trained.enough:
        return None
    found, clues = indicator(counts, trained, written)
    points = weight(found) * trained.belief
    if points > 0:
        points *= min(1.0, clues / _FEW_CLUES)
    if not trained.reads(cjk):
        points = min(points, _PREJUDICE)
    return Reason("bayes", f"the words are {found * 100:.0f} % those of mail that was sorted as junk", round(points, 2))


def known_sender(*, wrote_to: bool, kept: bool, known_list: bool, proven: bool) -> Reason | None:
    """Reputation. `proven`: SPF or DKIM passed in alignment with From, so a forged known sender gains nothing.

    A list's messages come from anybody: its List-Id is believed where the message is proven to be somebody's.
    """
    if not proven:
        return None
    if wrote_to:
        return Reason("known-sender", "this account has written to the sender", WROTE_TO)
    if kept:
        return Reason("known-sender", "this account has read and kept mail of the sender", KEPT)
    if known_list:
        return Reason("known-sender", "this account has read and kept mail of this list", KNOWN_LIST)
    return None
