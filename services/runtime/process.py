"""Start and stop of one room's process.

`python -m services.smtp_in` calls `start`: a short start process validates the environment with pydantic, then
executes the same program with the values on an inherited file descriptor (pydantic stays behind). `run` gives the room
its `Context`, stops it on SIGTERM or SIGINT and leaves with status 0, with 78 for a setting that the room itself finds
wrong (a path that only it can look at), or with 1 when it failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NoReturn

from services.runtime import disk
from services.runtime.events import EventLog, Events, new_trace_id
from services.runtime.health import Health
from services.runtime.secrets import Secrets
from services.runtime.values import Settings, WrongSetting
from services.runtime.workers import Channel

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FLUSH_SECONDS = 0.5
FULL_SECONDS = 60.0
EXIT_WRONG_USAGE = 64  # EX_USAGE
EXIT_WRONG_SETTING = 78  # EX_CONFIG of sysexits.h: a supervisor's log says at once that the configuration is at fault

Serve = Callable[["Context"], Awaitable[None]]


@dataclass(slots=True)
class Context:
    """What every room is given: its name, settings, record, secrets, the wish to stop, and its health."""

    room: str
    settings: Settings
    events: Events
    secrets: Secrets
    health: Health
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Callable[[], float] = time.time
    ports: dict[str, int] = field(default_factory=dict)  # what each listener got, by name; tests and __main__ read it
    full_since_told: float = float("-inf")  # when the log last said that the disk is full

    def log(self, level: str, text: str) -> None:
        """One line on the container's log. The record of mail is `events`; this is for the state of the process."""
        if LEVELS[level] >= LEVELS[self.settings.log_level]:
            print(f"{self.room}: {level}: {text}" if level != "info" else f"{self.room}: {text}", file=sys.stderr)

    def bug(self, identity: str, error: BaseException, doing: str, **fields: Any) -> None:
        """Record a fault of ours under `identity`, the id that the peer was told; the cause stays in the record.

        A full disk is no bug: it is said once a minute, in a line, for as long as it lasts.
        """
        if disk.is_full(error):
            now = self.clock()
            if not 0 <= now - self.full_since_told < FULL_SECONDS:
                self.full_since_told = now
                self.log("error", f"the disk is full: {doing}: {error}")
                self.events.emit("disk-full", identity, outcome="error", reason=f"{doing}: {error!r}", **fields)
            return
        text = "".join(traceback.format_exception(error))
        self.log("error", f"bug {identity} while {doing}: {text.strip()}")
        self.events.emit("bug", identity, outcome="error", reason=f"{doing}: {error!r}", detail=text[-1900:], **fields)

    def spawn(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` in `group`; an exception in it is recorded as a bug and marks the room unhealthy, not fatal."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self.bug(new_trace_id(), error, name)
                self.health.fail(name, f"stopped by an internal error: {error!r}")

        return group.create_task(guarded(), name=name)


def start(room: str, serve: str) -> None:
    """Entry of `python -m services.<room>`; `serve` is "module:function". Does not return.

    A worker beside the first process (`runtime/workers.py`) is given its channel as `serve`'s second argument.
    """
    if len(sys.argv) == 3 and sys.argv[1] == "--values":
        settings = Settings(**received(int(sys.argv[2])))
        sys.exit(run(room, settings, _function(serve), writers=settings.smtp_workers if room == "smtp-in" else 1))
    if len(sys.argv) == 5 and sys.argv[1] == "--worker":
        number, given, descriptor = (int(word) for word in sys.argv[2:])
        settings = Settings(**received(given))
        serving, channel = _function(serve), Channel(number, descriptor)
        sys.exit(run(room, settings, lambda context: serving(context, channel=channel), writer=number))
    if len(sys.argv) > 1:
        # Whoever types --help wants no second server beside the one that runs.
        print(f"{room}: takes no arguments; its settings are in the env files (env/*.env)", file=sys.stderr)
        sys.exit(EXIT_WRONG_USAGE)
    from services.runtime import settings as environment

    for line in environment.unknown_in_environment():
        print(f"{room}: warning: {line}", file=sys.stderr)
    try:
        values = environment.read_environment()
    except WrongSetting as error:
        print(f"{room}: cannot start: {error}", file=sys.stderr)
        sys.exit(EXIT_WRONG_SETTING)
    execute(f"services.{room.replace('-', '_')}", dataclasses.asdict(values), environment.search_path())


def execute(module: str, values: dict[str, Any], path: str) -> NoReturn:
    """Replace this process by `python -m module --values FD`; the program reads `values` with `received`.

    Its environment holds nothing but `path`: the relay's password is not in /proc/self/environ, and a stray PYTHON*
    variable cannot change how it runs. MALLOC_ARENA_MAX: threads here move few bytes; glibc's arena per thread would
    keep tens of MiB for nothing.
    """
    descriptor = os.memfd_create("mailstead-settings", 0)
    os.write(descriptor, json.dumps(values).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    command = [sys.executable, "-m", module, "--values", str(descriptor)]
    # Where this package was found, so that the working folder does not matter.
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    fixed = {"PATH": path, "PYTHONPATH": package, "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
    os.execve(sys.executable, command, fixed)


def received(descriptor: int) -> dict[str, Any]:
    """The values that `execute` passed on."""
    with os.fdopen(descriptor, "rb") as file:
        values: dict[str, Any] = json.loads(file.read())
        return values


def _function(name: str) -> Callable[..., Awaitable[None]]:
    module, _, function = name.partition(":")
    found: Callable[..., Awaitable[None]] = getattr(importlib.import_module(module), function)
    return found


def run(room: str, settings: Settings, serve: Serve, *, writer: int = 0, writers: int = 1) -> int:
    """Run one room until it is told to stop; the exit status. `writer` and `writers` as `EventLog` has them."""
    os.umask(0o027)
    events = open_record(room, settings, writer=writer, writers=writers)
    try:
        with new_runner() as runner:
            return runner.run(_until_stopped(room, settings, events, serve))
    finally:
        events.close()


def open_record(room: str, settings: Settings, *, writer: int = 0, writers: int = 1) -> EventLog:
    """The room's event log in its own folder, which is made when missing."""
    folder = os.path.join(settings.events_dir, room)
    os.makedirs(folder, exist_ok=True)
    return EventLog(
        folder,
        room,
        days=settings.events_days,
        total_bytes=settings.events_bytes // writers if not writer else settings.events_bytes,
        disk_full=lambda: below_reserve(folder, settings),
        writer=writer,
        writers=writers,
    )


def new_runner() -> asyncio.Runner:
    """asyncio's runner on uvloop where it is installed (30-45 % more messages, 8 instead of 262 KiB a TLS session)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _until_stopped(room: str, settings: Settings, events: EventLog, serve: Serve) -> int:
    context = Context(room, settings, events, Secrets(settings.secrets_dir), Health(room))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, context.stop.set)
    flusher = asyncio.create_task(flush_events(events))
    gc.freeze()  # what was imported lives as long as the process: collections need not walk it
    context.log("info", "starting")
    try:
        await serve(context)
    except Exception as error:
        return given_up(context, error)
    finally:
        flusher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flusher
    context.log("info", "stopped")
    return 0


def given_up(context: Context, error: Exception) -> int:
    """Say why a room ends by itself; its exit status."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, WrongSetting):
        context.log("error", f"cannot start: {error}")
        return EXIT_WRONG_SETTING
    identity = new_trace_id()
    if isinstance(error, OSError) and not context.health.started:
        context.log("error", f"cannot start: {error}")  # a taken port, a missing volume: the owner's line
        context.events.emit("bug", identity, outcome="error", reason=f"cannot start: {error}")
    else:
        context.bug(identity, error, "running")
    return 1


async def flush_events(events: EventLog) -> None:
    """Write the record twice a second until cancelled."""
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        events.flush()


def below_reserve(folder: str, settings: Settings) -> bool:
    """True when the file system of `folder` has less free than the reserve: the smaller of percent and bytes."""
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    reserve = min(state.f_blocks * state.f_frsize * settings.disk_reserve_percent // 100, settings.disk_reserve_bytes)
    return free < reserve
