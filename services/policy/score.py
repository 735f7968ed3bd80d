"""When points make junk: the owner's two thresholds, and what a message's reasons come to. Pure.

Every reason has a weight, and a message's score is their sum. Junk from JUNK_SCORE on (5 by default), refused from
REJECT_SCORE on (never by default). The weights are chosen so that **nothing that only says "badly set up" reaches 5
together** (no PTR 2, HELO without an address 1, SPF none 0.5, no DMARC: 3.5): many a home server of a friend is. What
says "this sender is somebody else" decides by itself (see `authenticity`), and what says "others call it spam" (lists,
scanners, the account's own sorting) brings the rest.

An account adds its own points to the message's score, which may also speak for the message (below 0): a letter that a
list's verdict made 5.5 stays in INBOX where the account has written to its sender. A verdict that a rule of the owner's
settled is not outvoted so: forged mail looks like a friend's.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.policy.verdict import Outcome


@dataclass(frozen=True, slots=True)
class Scale:
    """The thresholds; `reject` None: no score refuses."""

    junk: float = 5.0
    reject: float | None = None

    @staticmethod
    def of(junk: str, reject: str) -> Scale:
        """JUNK_SCORE and REJECT_SCORE as they are set."""
        return Scale(float(junk), float(reject) if reject else None)

    def outcome(self, score: float) -> Outcome:
        """What a message with this score is."""
        if self.reject is not None and score >= self.reject:
            return "reject"
        return "junk" if score >= self.junk else "accept"
