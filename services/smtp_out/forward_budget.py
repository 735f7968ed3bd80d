"""How many forwards may leave in a day, and when the administrator is told that they are nearly used up.

A relay for a family takes some 300 messages a day, and a catch-all that leads outside can use them up with mail of
other people by noon. So forwards have a number of their own (FORWARD_PER_DAY); what is beyond it waits in the queue for
the next day, and the people of the house go on sending. Counted are recipients that the next server has taken; those in
flight count meanwhile. The days are UTC's: which midnight the relay has is not known.

Pure but for what it remembers; `queue_runner` asks it, the queue keeps the day's count (`Queue.forwarded`).
"""

from __future__ import annotations

from services.storage.queue import Forwarded

DAY = 86_400
TELL_AT = 0.8  # of the day's number: early enough to do something about it


class ForwardBudget:
    """`limit` a day, 0 for no limit."""

    def __init__(self, limit: int) -> None:
        """Nothing is known of today before `begin`."""
        self.limit = limit
        self._today = Forwarded(-1)
        self._in_flight = 0

    @staticmethod
    def day(now: float) -> int:
        """The day of `now`."""
        return int(now // DAY)

    def begin(self, today: Forwarded) -> None:
        """What the queue knows of today."""
        self._today = today

    def tomorrow(self, now: float) -> float:
        """When the next day begins."""
        return float((self.day(now) + 1) * DAY)

    def grant(self, wanted: int, now: float) -> int:
        """How many of `wanted` may be tried now; give them all back to `settled`."""
        self._turn(now)
        left = wanted if not self.limit else max(0, self.limit - self._today.count - self._in_flight)
        granted = min(wanted, left)
        self._in_flight += granted
        return granted

    def settled(self, granted: int, left_here: int, now: float) -> Forwarded:
        """Of `granted`, `left_here` were taken; what the queue is to add to the day. `told`: tell the administrator."""
        self._turn(now)
        self._in_flight -= granted
        count = self._today.count + left_here
        tell = bool(self.limit) and not self._today.told and count >= TELL_AT * self.limit
        self._today = Forwarded(self._today.day, count, self._today.told or tell)
        return Forwarded(self._today.day, left_here, tell)

    @property
    def count(self) -> int:
        """What left today."""
        return self._today.count

    def _turn(self, now: float) -> None:
        day = self.day(now)
        # A clock that was set back by hours stays in its day: else a day would be spent twice.
        if day > self._today.day or self._today.day - day > 1:
            self._today = Forwarded(day)
