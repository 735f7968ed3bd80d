"""What a scanner's finding counts for in the verdict.

Pure. smtp-in asks the scanners (`smtp_in/scanners/`) and calls this for each finding:

* a virus decides by itself: the message is refused, or put into Junk, by `VIRUS_FOUND`;
* a score counts in proportion to the scanner's own threshold: where it would call mail junk, it alone brings the
  message to ours, and what it finds clean takes a little away;
* no opinion (the scanner is away, or cannot read the message) is said, and by `SCANNER_DOWN` the message waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.policy.verdict import Reason
from services.protocol.reply import Reply

# A scanner that is sure twice over is not more sure than that: our own rules keep a say.
_MOST_SHARES = 2.0
# What a clean bill is worth, as a share of the threshold: most ham has about zero, junk that is new has too.
_LEAST_SHARES = -0.3

VIRUS = Reply(550, "5.7.1", "the message carries a virus")
LATER = Reply(451, "4.7.1", "the message cannot be scanned now, try again in a few minutes")


def score(scanner: str, share: float, rules: Sequence[str], junk_score: float) -> Reason:
    """The reason for a finding without virus or problem. `share` as in `Finding`; `junk_score`: our own threshold."""
    counted = min(max(share, _LEAST_SHARES), _MOST_SHARES)
    names = " ".join(rules[:8])
    text = f"{scanner} gives {share * 100:.0f} % of its own threshold" + (f": {names}" if names else "")
    return Reason("scanner-spam", text, round(counted * junk_score, 2))


def virus(scanner: str, name: str, junk_score: float) -> Reason:
    """The reason for a virus: enough for Junk by itself, where it is not refused."""
    return Reason("scanner-virus", f"{scanner} found the virus {name}", 2 * junk_score)


def no_opinion(problem: str) -> Reason:
    """The reason for a scanner without an opinion; `problem` as in `Finding`."""
    return Reason("scanner-down", problem)
