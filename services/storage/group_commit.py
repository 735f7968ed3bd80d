"""Many small durable writes as one: what arrives while the disk is busy goes together in the next batch.

Used by delivery (and fit for any other writer). A message alone starts at once; with N sessions, N messages share one
journal commit. Measured on ext4 with ten sessions, 5 KB each: one thread that writes, starts write-back and fsyncs a
batch does 3,500 messages/s at 0.12 s CPU per thousand; a thread per message 3,150/s at 0.29 s; several batches in
flight at once are slower than one, as each commits a journal transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class GroupCommit(Generic[Job, Result]):
    """Hands jobs in batches to `run` on `pool`, one batch at a time, and each its result."""

    def __init__(self, run: Callable[[Sequence[Job]], Sequence[Result]], pool: Executor, most: int = 64) -> None:
        """`run` gets jobs in the order submitted and answers one result each; if it raises, all get the exception.

        `most` weights a batch: beyond that the wait of the first for the last outgrows what sharing saves.
        """
        self._run = run
        self._pool = pool
        self._most = most
        self._waiting: list[tuple[Job, int, asyncio.Future[Result]]] = []
        self._busy = False
        self._idle: asyncio.Event | None = None

    def submit(self, job: Job, weight: int = 1) -> asyncio.Future[Result]:
        """The result to come. Cancelling it does not take the job back: shield it and let it end."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((job, weight, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._start)  # not now: other sessions ready in this turn of the loop come along
        return future

    async def drained(self) -> None:
        """Return once nothing is waiting or under way."""
        while self._busy:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    def _start(self) -> None:
        taken = weight = 0
        for _, one, _ in self._waiting:
            if taken and weight + one > self._most:
                break
            taken += 1
            weight += one
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        if not batch:
            self._busy = False
            if self._idle:
                self._idle.set()
                self._idle = None
            return
        jobs = [job for job, _, _ in batch]
        futures = [future for _, _, future in batch]
        try:
            running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, jobs)
        except RuntimeError as error:  # the pool is closed: these come too late to be promised anything
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            self._start()
            return
        running.add_done_callback(partial(self._finish, futures))

    def _finish(self, futures: list[asyncio.Future[Result]], done: asyncio.Future[Sequence[Result]]) -> None:
        if done.cancelled():
            for future in futures:
                future.cancel()
        elif error := done.exception():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        else:
            for future, result in zip(futures, done.result(), strict=True):
                if not future.done():
                    future.set_result(result)
        self._start()
