"""Several processes of one room behind one port: who starts them, watches them, and what is said between them.

The room's first process is worker 0 and does all that a room does; it starts the others, which only accept connections
on the same ports (SO_REUSEPORT: the kernel deals them out). Between it and each of them is one socket of JSON lines:

    {"lease": {...} or null}   to the worker: the hold in force (runtime/hold.py); answered by {"held": true}
    {"status": {...}}          from it, each second: what it counts, and its health

A worker that ends is started again, later each time while it keeps ending; health says so meanwhile. Where the first
process is gone, its end of the socket is closed, and the others stop. Limits are dealt out: see `share`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from services.runtime.values import Settings

if TYPE_CHECKING:
    from services.runtime.hold import Lease
    from services.runtime.process import Context

STATUS_SECONDS = 1.0
ANSWER_SECONDS = 3.0  # a worker whose loop stands still for so long is not held, and is ended
BACK_OFF = (1.0, 60.0)  # seconds before a worker is started again, at first and at most
SOUND_SECONDS = 60.0  # who lived so long begins at the first again
MOST_LINE = 1 << 16


def share(settings: Settings, workers: int) -> Settings:
    """One worker's part of what is bounded for the room.

    Rounded up, at least one. The kernel deals connections out by chance, not in turn, so one worker may refuse while
    another has room: close to the limit, and a few below it, is where that is felt.
    """

    def part(whole: int) -> int:
        return -(-whole // workers)  # 0, no limit, stays 0

    return replace(
        settings,
        max_connections=part(settings.max_connections),
        max_connections_per_peer=part(settings.max_connections_per_peer),
        rate_per_address=part(settings.rate_per_address),
        rate_per_network=part(settings.rate_per_network),
        rate_per_sender=part(settings.rate_per_sender),
        events_bytes=part(settings.events_bytes),
    )


@dataclass(slots=True)
class Running:
    """One worker as the first process sees it."""

    number: int
    process: asyncio.subprocess.Process | None = None
    writer: asyncio.StreamWriter | None = None
    status: dict[str, Any] = field(default_factory=dict)
    held: asyncio.Event = field(default_factory=asyncio.Event)


class Workers:
    """The first process's side. `run` keeps them alive; `stop` ends them."""

    def __init__(self, context: Context, count: int, command: Callable[[int, int, int], list[str]]) -> None:
        """`count` with the first process. `command(number, values, channel)` is what a worker is started with: two
        descriptors that it inherits, its settings (see `process.received`) and its end of the socket."""
        self._context, self._command = context, command
        self._running = [Running(number) for number in range(1, count)]
        self._lease: Lease | None = None
        self.settings: Settings = context.settings  # what they are given; the room says so once its ports are known
        for each in self._running:
            context.health.fail(_part(each), "it is starting")

    def statuses(self) -> list[dict[str, Any]]:
        """What each said last; {} of one that is not there."""
        return [each.status for each in self._running]

    async def hold(self, lease: Lease | None) -> None:
        """Tell all of a hold, and of its end; returns when all know. Who does not answer is ended, and starts held."""
        self._lease = lease
        await asyncio.gather(*(self._hold(each) for each in self._running if each.writer is not None))

    async def run(self) -> None:
        """Keep them alive until cancelled."""
        async with asyncio.TaskGroup() as group:
            for each in self._running:
                group.create_task(self._keep(each))

    async def stop(self, seconds: float) -> None:
        """Let them end what is in flight; who is still there after `seconds` is ended."""
        processes = [each.process for each in self._running if each.process is not None]
        for process in processes:
            _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(process.wait() for process in processes))
        for process in processes:
            _signal(process, signal.SIGKILL)

    async def _hold(self, each: Running) -> None:
        each.held.clear()
        self._tell(each)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await each.held.wait()
        except TimeoutError:
            if each.process is not None:
                self._context.log("error", f"worker {each.number} does not answer, and is started again")
                _signal(each.process, signal.SIGKILL)

    def _tell(self, each: Running) -> None:
        if each.writer is not None:
            lease = None if self._lease is None else asdict(self._lease)
            each.writer.write(json.dumps({"lease": lease}).encode() + b"\n")

    async def _keep(self, each: Running) -> None:
        context, pause = self._context, BACK_OFF[0]
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                status = await self._serve(each)
            except OSError as error:
                status = str(error)
            each.process, each.writer, each.status = None, None, {}
            each.held.set()  # nobody is there to be held
            if context.stop.is_set():
                return
            pause = BACK_OFF[0] if loop.time() - began > SOUND_SECONDS else pause
            why = f"it ended ({status}) and is started again in {pause:.0f} seconds"
            context.log("error", f"worker {each.number}: {why}")
            context.health.fail(_part(each), why)
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACK_OFF[1])

    async def _serve(self, each: Running) -> str:
        """One life of a worker; how it ended."""
        ours, theirs = socket.socketpair()
        values = os.memfd_create("mailstead-settings", 0)
        try:
            os.write(values, json.dumps(asdict(self.settings)).encode())
            os.lseek(values, 0, os.SEEK_SET)
            each.process = process = await asyncio.create_subprocess_exec(
                *self._command(each.number, values, theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(values, theirs.fileno()),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(values)
        reader, each.writer = await asyncio.open_connection(sock=ours, limit=MOST_LINE)
        self._tell(each)
        try:
            while line := await reader.readline():
                self._heard(each, json.loads(line))
        except ValueError:
            _signal(process, signal.SIGKILL)  # not a line of ours
        finally:
            each.writer.close()
        return f"status {await process.wait()}"

    def _heard(self, each: Running, said: dict[str, Any]) -> None:
        if "held" in said:
            each.held.set()
        if "status" in said:
            each.status = said["status"]
            problems = each.status.get("problems", "")
            if problems:
                self._context.health.fail(_part(each), str(problems))
            else:
                self._context.health.ok(_part(each))


class Channel:
    """A worker's side."""

    def __init__(self, number: int, descriptor: int) -> None:
        """`descriptor` is its end of the socket."""
        self.number = number
        self._descriptor = descriptor

    async def run(self, context: Context, status: Callable[[], dict[str, Any]], held: Callable[[Any], None]) -> None:
        """Say `status` each second, pass on each lease (None: none) to `held`; stop the room when nobody is there."""
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=self._descriptor), limit=MOST_LINE)
        try:
            async with asyncio.TaskGroup() as group:
                saying = group.create_task(self._say(writer, context, status))
                while line := await reader.readline():
                    held(json.loads(line).get("lease"))
                    writer.write(b'{"held": true}\n')
                saying.cancel()
        except* OSError:
            pass  # the first process is gone
        finally:
            writer.close()
            context.stop.set()

    @staticmethod
    async def _say(writer: asyncio.StreamWriter, context: Context, status: Callable[[], dict[str, Any]]) -> None:
        while True:
            problems = "; ".join(why for why in context.health.parts.values() if why)
            said = {"status": {**status(), "problems": problems if context.health.started else "it is starting"}}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
            await asyncio.sleep(STATUS_SECONDS)


def command(module: str) -> Callable[[int, int, int], list[str]]:
    """A worker of `python -m module`; `process.start` reads this."""
    return lambda number, values, channel: [
        sys.executable, "-m", module, "--worker", str(number), str(values), str(channel)
    ]  # fmt: skip


def _part(each: Running) -> str:
    return f"worker {each.number}"


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
