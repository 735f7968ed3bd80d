"""Keeps the event index fed, and answers `trace` from it: the index's one thread and its place on the loop.

In the background a batch is followed by a rest four times as long, so that a flood of mail is not slowed by its own
record; a question catches up first, at full speed. Rooms write their record twice a second, so a `fresh` question
waits that long once: what was answered to a peer before it was asked is then in the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.admin.event_index import INDEX_PROBLEMS, EventIndex
from services.admin.stories import MATCHES, PER_STORY, Event, Story, find_stories, stories_of
from services.admin.verdicts import MOST_EVENTS, Verdicts, verdicts
from services.runtime.process import FLUSH_SECONDS, Context

LOOK_SECONDS = 1.0  # a listing of seven folders: 0.1 ms
REST = 4.0
CATCH_UP_SECONDS = 3.0
RETAIN_SECONDS = 300.0
LATEST_EVENTS = 500  # looked through at once for the newest messages or changes
CHANGE = "admin-change"
FRESH_SECONDS = FLUSH_SECONDS + 0.1

T = TypeVar("T")


class Tail:
    """Its task is `run`; `open` comes first."""

    def __init__(self, context: Context, opening: Callable[[], EventIndex]) -> None:
        """`opening` opens the index, in the index's thread."""
        self._context, self._opening = context, opening
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._index: EventIndex | None = None

    async def run(self) -> None:
        """Feed the index until cancelled. A disk that is full or broken delays it; mail does not notice."""
        retained = 0.0
        while True:
            began = time.monotonic()
            more = False
            try:
                more = await self._in_thread(lambda index: index.ingest())
                if began - retained > RETAIN_SECONDS:
                    again = await self._in_thread(lambda index: index.retain())
                    retained = 0.0 if again else began
                self._context.health.ok("events")
            except INDEX_PROBLEMS as error:
                self._context.health.fail("events", f"the record cannot be indexed: {error}")
            spent = time.monotonic() - began
            await asyncio.sleep(min(spent * REST, 10.0) if more else LOOK_SECONDS)

    async def stories(self, query: str, limit: int, *, fresh: bool) -> list[Story]:
        """What `query` was part of, newest first. Raises INDEX_PROBLEMS."""
        if fresh:
            await asyncio.sleep(FRESH_SECONDS)
        return await self._in_thread(lambda index: _answer(index, query, limit))

    async def latest(self, limit: int) -> list[Story]:
        """The newest messages, newest first. Raises INDEX_PROBLEMS."""

        def read(index: EventIndex) -> list[Story]:
            _catch_up(index)
            carrying = [event for event in index.latest(LATEST_EVENTS) if event.get("message_id")]
            return stories_of(carrying, index.events, limit)

        return await self._in_thread(read)

    async def judgements(self, account: str, limit: int) -> dict[str, list[Event]]:
        """Message-ID without <> → the events that judged it, of the newest messages delivered to `account`.

        Raises INDEX_PROBLEMS.
        """

        def read(index: EventIndex) -> dict[str, list[Event]]:
            _catch_up(index)
            found: dict[str, list[Event]] = {}
            for event in reversed(index.events([account], MATCHES)):
                identity = str(event.get("message_id") or "").strip("<>")
                if event["kind"] == "delivered" and identity and identity not in found and len(found) < limit:
                    judged = [each for each in index.events([event["trace"]], PER_STORY) if each["kind"] == "data"]
                    found[identity] = [*judged[-1:], event]
            return found

        return await self._in_thread(read)

    async def verdicts(self, days: float) -> Verdicts:
        """What smtp-in has decided in the last `days`, counted. Raises INDEX_PROBLEMS."""

        def read(index: EventIndex) -> Verdicts:
            _catch_up(index)
            return verdicts(index.latest(MOST_EVENTS, room="smtp-in"), self._context.clock(), days)

        return await self._in_thread(read)

    async def changes(self, limit: int, before: int = 0) -> list[Event]:
        """Who changed what: the newest `limit` changes, from before `before` (µs), newest first.

        Raises INDEX_PROBLEMS.
        """

        def read(index: EventIndex) -> list[Event]:
            _catch_up(index)
            found: list[Event] = []
            at = before
            while len(found) < limit:
                some = index.latest(LATEST_EVENTS, room="admin", before=at)
                found += [event for event in reversed(some) if event["kind"] == CHANGE]
                if len(some) < LATEST_EVENTS:
                    break
                at = some[0]["t"]
            return found[:limit]

        return await self._in_thread(read)

    async def close(self) -> None:
        """Close the index."""
        if self._index is not None:
            await self._in_thread(lambda index: index.close())
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[EventIndex], T]) -> T:
        def whole() -> T:
            if self._index is None:
                self._index = self._opening()
            return work(self._index)

        return await asyncio.get_running_loop().run_in_executor(self._thread, whole)


def _answer(index: EventIndex, query: str, limit: int) -> list[Story]:
    _catch_up(index)
    return find_stories(query, index.events, limit)


def _catch_up(index: EventIndex) -> None:
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while index.ingest() and time.monotonic() < deadline:
        pass
