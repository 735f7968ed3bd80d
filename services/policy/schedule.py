"""When an undelivered message is tried again, when its sender is told of the delay, and when we give up.

Pure: ages and counts in, a decision out. smtp-out's queue runner asks after each attempt that did not succeed. Waits
double from `first` to `most`. Two moments are met exactly instead of being passed in a long wait: the warning, and the
end, where one last attempt is made before the message goes back (RFC 5321 §4.5.4.1: at least 4 to 5 days).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again at `next` (epoch seconds); `warn`: tell the sender now that it is late."""

    next: float
    warn: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It has waited long enough: it goes back to its sender."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times in seconds."""

    first: float = 300.0
    most: float = 14_400.0
    give_up: float = 432_000.0
    warn: float = 14_400.0

    def wait(self, attempts: int) -> float:
        """Between the attempt number `attempts` (from 1) and the next."""
        # 2**40 s is past any `most`; the bound keeps a long-held message from making an enormous number.
        return min(self.first * 2.0 ** min(max(attempts, 1) - 1, 40), self.most)

    def after_failure(self, created: float, now: float, attempts: int, *, warned: bool) -> Retry | GiveUp:
        """What follows attempt number `attempts`, made at `now` on a message that came at `created`."""
        end = created + self.give_up
        if now >= end:
            return GiveUp()
        following = min(now + self.wait(attempts), end)
        if warned:
            return Retry(following)
        late = created + self.warn
        if now >= late:
            return Retry(following, warn=True)
        return Retry(min(following, late) if late < end else following)

    def put_off(self, created: float, now: float, until: float, *, warned: bool) -> Retry | GiveUp:
        """As `after_failure`, for a message whose destination is known to be down until `until`: nothing was tried."""
        end = created + self.give_up
        if now >= end:
            return GiveUp()
        return Retry(max(min(until, end), now), warn=not warned and now >= created + self.warn)


# Our own smtp-in: it is away for seconds when it is replaced, and asking it costs nobody anything.
LOCAL = Schedule(first=5.0, most=300.0)


def destination_wait(failures: int, first: float = 60.0, most: float = 900.0) -> float:
    """How long a destination that could not be reached `failures` times in a row is left alone: its other messages wait
    with it instead of finding out one by one."""
    return min(first * 2.0 ** min(failures - 1, 20), most)
