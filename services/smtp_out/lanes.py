"""Which destination gets the next free connection. Pure: times in, choices out; `queue_runner` acts on them.

A lane is a destination with something in the queue: a domain, the relay, or our own smtp-in. Rules, in the order they
count:

* A lane runs when something is due there and it has fewer connections than its width. The width begins with one and
  grows by one with each success up to `widest`, so that a server that is slow or broken is met by one connection.
* A destination that could not be reached is down for a while (`policy.schedule.destination_wait`): what is due there is
  put off without an attempt, with the reason the first one met.
* Lanes that have not succeeded since they last failed may hold at most half of all connections. One that has got
  nowhere for `SLOW_SECONDS` does not count any more, up to `MOST_SLOW` limits: it costs a socket and no work, and
  twenty destinations that hang cannot stop the hundred that work.
* Our own smtp-in has its connections on top of the limit: mail between the people of the house never waits for the
  world.
"""

from __future__ import annotations

import heapq
from collections.abc import Container
from dataclasses import dataclass

from services.policy.schedule import destination_wait
from services.smtp_out.next_hop import LOCAL

NEVER = float("inf")
# A server that is there has greeted and taken a message in this time, nearly always.
SLOW_SECONDS = 2.0
MOST_SLOW = 4


@dataclass(slots=True)
class Lane:
    """One destination. `due` is when something is due first, NEVER where nothing waits."""

    destination: str
    due: float = NEVER
    entry: float = NEVER  # the time of its live entry in the heap; others of it there are stale
    running: int = 0
    begun: float = 0.0  # when its last connection began
    width: int = 1
    proven: bool = False
    failures: int = 0
    down_until: float = 0.0
    down_because: str = ""

    def counts(self, now: float) -> bool:
        """Whether its connections count: not where it has been silent for long."""
        return self.proven or now < self.begun + SLOW_SECONDS

    def is_down(self, now: float) -> bool:
        """Whether messages are put off without an attempt."""
        return now < self.down_until


class Lanes:
    """All lanes. `limit` connections in all, `widest` to one destination."""

    def __init__(self, limit: int, widest: int = 4, first_wait: float = 60.0) -> None:
        """`first_wait`: seconds that a destination is left alone when it could not be reached for the first time."""
        self.limit, self.widest, self._first_wait = limit, widest, first_wait
        self.lanes: dict[str, Lane] = {}
        self._later: list[tuple[float, str]] = []  # a heap: a lane has one live entry, at its `due` or before it
        self._ready: dict[str, None] = {}  # due now, the longest-waiting first; taken out while it has no capacity
        self._active: set[str] = set()

    def due(self, destination: str, when: float) -> None:
        """Something is due at `destination`; an earlier time that is known stands."""
        lane = self.lanes.get(destination)
        if lane is None:
            lane = self.lanes[destination] = Lane(destination)
        if when < lane.due:
            lane.due = when
            self._enter(lane)

    def settled(self, destination: str, when: float | None) -> None:
        """The queue says when something is due next there, None for nothing at all."""
        lane = self.lanes.get(destination)
        if lane is not None:
            lane.due = NEVER if when is None else when
            self._enter(lane)
        elif when is not None:
            self.due(destination, when)

    def pick(self, now: float) -> list[Lane]:
        """The lanes that begin a connection now, each counted as running. One connection for each: whether there is
        work for a second one is known when the first has claimed its own."""
        while self._later and self._later[0][0] <= now:
            when, destination = heapq.heappop(self._later)
            lane = self.lanes.get(destination)
            if lane is None or lane.entry != when:
                continue
            lane.entry = NEVER
            if lane.due <= now:
                self._ready[destination] = None
            else:
                self._enter(lane)
        chosen: dict[str, Lane] = {}
        while (found := self._next_ready(now, chosen)) is not None:
            found.running += 1
            found.begun = now
            self._active.add(found.destination)
            chosen[found.destination] = found
            # To the end of the line: each destination gets its first connection before any gets its second.
            del self._ready[found.destination]
            self._ready[found.destination] = None
        return list(chosen.values())

    @property
    def crowded(self) -> bool:
        """Whether a destination without any connection waits for one: then long-running ones make room."""
        return any((lane := self.lanes.get(name)) is not None and not lane.running for name in self._ready)

    def next_time(self, now: float) -> float:
        """When `pick` may find something that it does not find now; NEVER where only an event can change that."""
        times = [self._later[0][0]] if self._later else []
        if self.crowded:
            times += [lane.begun + SLOW_SECONDS for lane in self._running() if not lane.proven and lane.counts(now)]
        return min(times, default=NEVER)

    def ended(self, lane: Lane) -> None:
        """A connection of `lane` is over."""
        lane.running -= 1
        if not lane.running:
            self._active.discard(lane.destination)

    def succeeded(self, lane: Lane) -> None:
        """A server of the destination took part in a transaction, whatever it said of the recipients."""
        lane.proven, lane.failures, lane.down_until = True, 0, 0.0
        lane.width = min(lane.width + 1, self.widest)

    def failed(self, lane: Lane, now: float, because: str) -> None:
        """No server of the destination could be spoken to."""
        lane.proven, lane.width = False, 1
        lane.failures += 1
        local = lane.destination == LOCAL  # replaced or restarted: back in seconds
        lane.down_until = now + (
            destination_wait(lane.failures, 2.0, 60.0) if local else destination_wait(lane.failures, self._first_wait)
        )
        lane.down_because = because

    def tidy(self, now: float) -> None:
        """Forget the lanes that nothing is known of and nothing is due at."""
        for name in [name for name, lane in self.lanes.items() if lane.due == NEVER and not lane.running]:
            if now >= self.lanes[name].down_until:
                del self.lanes[name]
                self._ready.pop(name, None)

    def forgive(self) -> None:
        """The owner asks for a retry: nothing is down until it is found so again."""
        for lane in self.lanes.values():
            lane.failures, lane.down_until = 0, 0.0

    def _enter(self, lane: Lane) -> None:
        if lane.due < lane.entry:
            lane.entry = lane.due
            heapq.heappush(self._later, (lane.due, lane.destination))

    def _next_ready(self, now: float, chosen: Container[str]) -> Lane | None:
        """The next lane with capacity; those that are ready no more leave the line."""
        active = self._running()
        counted = sum(lane.running for lane in active if lane.counts(now))
        slow = sum(lane.running for lane in active) - counted
        free = self.limit - counted - max(0, slow - MOST_SLOW * self.limit)
        unproven = sum(lane.running for lane in active if not lane.proven and lane.counts(now))
        free_unproven = max(1, self.limit // 2) - unproven
        if free <= 0 and LOCAL not in self._ready:
            return None
        for destination in list(self._ready):
            lane = self.lanes.get(destination)
            if lane is None or lane.due > now:
                del self._ready[destination]
                if lane is not None:
                    self._enter(lane)
                continue
            if destination == LOCAL:
                room = True
            else:
                room = free > 0 and (lane.proven or free_unproven > 0)
            if room and destination not in chosen and lane.running < self._width(lane):
                return lane
        return None

    def _running(self) -> list[Lane]:
        """Those with connections to the world."""
        return [self.lanes[name] for name in self._active if name != LOCAL]

    def _width(self, lane: Lane) -> int:
        return self.widest if lane.destination == LOCAL and not lane.failures else lane.width
