"""A verdict: what was decided at one stage of a message, why, and what the peer is told.

Made by `policy/intake.py`, recorded as an event and answered by the smtp-in room. Every reason is a sentence for the
owner; its rule's name is what a search finds, its weight what a score adds up. `mailstead explain` reads nothing but
what `facts` puts into the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from services.protocol.reply import Reply

Stage = Literal["connect", "helo", "mail", "rcpt", "data"]
Outcome = Literal["accept", "junk", "defer", "reject"]

# Rules that say what was found whatever it was: where they weigh nothing, they explain nothing.
_PROOFS = ("spf-", "dkim-", "dmarc-", "arc-", "first-time-sender", "dnsbl-error")
# What one event keeps: a message with ten signatures and five lists has half as many reasons.
_MOST_REASONS = 60
_MOST_TEXT = 500  # of one, in characters: a domain's name has 253


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found. `weight` counts towards junk; 0: it says something, or decided by itself."""

    rule: str
    text: str
    weight: float = 0.0

    def __str__(self) -> str:
        """`rule|weight|text`, as an event's `reasons` has it."""
        return f"{self.rule}|{self.weight:g}|{self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reply` is None where the stage's usual answer is given.

    `settled`: a rule of the owner's decided (SPF_FAIL, DMARC_FAIL), so that no account's own score changes it.
    """

    stage: Stage
    outcome: Outcome
    reply: Reply | None = None
    reasons: tuple[Reason, ...] = ()
    settled: bool = False

    @property
    def accepted(self) -> bool:
        """True for accept and junk: the message goes on."""
        return self.outcome in ("accept", "junk")

    @property
    def reason(self) -> str:
        """What decided or weighs, as one sentence for the record; "" where there was nothing to say."""
        return telling(self.reasons)

    @property
    def rules(self) -> str:
        """The names of the rules, for searching."""
        return " ".join(reason.rule for reason in self.reasons)

    @property
    def score(self) -> float:
        """The sum of the weights."""
        return total(self.reasons)


def total(reasons: Iterable[Reason]) -> float:
    """The sum of the weights, to a hundredth: 0.1 + 0.2 must not miss a threshold of 0.3."""
    return round(sum(reason.weight for reason in reasons), 2)


def telling(reasons: Iterable[Reason]) -> str:
    """The texts of the reasons that decided or weigh, joined; proofs that hold are left out."""
    return "; ".join(each.text for each in reasons if each.weight or not each.rule.startswith(_PROOFS))


def facts(reasons: Iterable[Reason]) -> list[str]:
    """Reasons as the record keeps them."""
    return [str(reason)[:_MOST_TEXT] for reason in reasons][:_MOST_REASONS]


def refused(stage: Stage, reply: Reply, rule: str, text: str) -> Verdict:
    """A verdict with one reason; reject or defer as the reply's class says."""
    return Verdict(stage, "reject" if reply.permanent else "defer", reply, (Reason(rule, text),))
