"""A verdict: what was decided at one stage of a message, why, and what the peer is told.

Made by `policy/intake.py`, recorded as an event and answered by the smtp-in room. Every reason is a sentence for the
owner; its rule's name is what a search finds, its weight what a score adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.protocol.reply import Reply

Stage = Literal["connect", "helo", "mail", "rcpt", "data"]
Outcome = Literal["accept", "junk", "defer", "reject"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was found. `weight` counts towards junk; 0: it decided by itself."""

    rule: str
    text: str
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reply` is None where the stage's usual answer is given."""

    stage: Stage
    outcome: Outcome
    reply: Reply | None = None
    reasons: tuple[Reason, ...] = ()

    @property
    def accepted(self) -> bool:
        """True for accept and junk: the message goes on."""
        return self.outcome in ("accept", "junk")

    @property
    def reason(self) -> str:
        """All reasons as one sentence for the record; "" where there was nothing to say."""
        return "; ".join(reason.text for reason in self.reasons)

    @property
    def rules(self) -> str:
        """The names of the rules, for searching."""
        return " ".join(reason.rule for reason in self.reasons)


def refused(stage: Stage, reply: Reply, rule: str, text: str) -> Verdict:
    """A verdict with one reason; reject or defer as the reply's class says."""
    return Verdict(stage, "reject" if reply.permanent else "defer", reply, (Reason(rule, text),))
