"""Knows when to look and what to do about it: the schedule, the runs, the end of one that was interrupted.

One thing at a time, each in a process that ends (`services.updater.task`). The journal in the room's folder says what a
run is doing; the history what it came to; the room tells admin.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from services.runtime.events import new_trace_id
from services.runtime.internal_http import Client
from services.runtime.process import Context
from services.runtime.secrets import SecretMissing
from services.runtime.values import WrongSetting
from services.updater import history, plan, steps
from services.updater.admin_calls import AdminRoom
from services.updater.engine import AdminAway, AdminRefused
from services.updater.journal import Journal
from services.updater.modes import Orders, orders_of

LOOK_SECONDS = 180.0  # a registry that hangs is given up by the engine in about 60; several may
PLAN_SECONDS = 25.0  # somebody waits for it, and the HTTP between rooms ends after 30
RUN_SECONDS = 4 * 3600.0  # a slow line, many images; what is closed to the world is bounded by the run itself
LOOK_AGAIN_SECONDS = 60.0  # the wall clock is looked at this often: a box without a clock battery jumps at boot
STALE_SECONDS = 36 * 3600  # at start: a report older than this is made anew at once
RECOVER_PAUSES = (2.0, 5.0, 10.0, 30.0)  # between tries to end an interrupted run; the last one again and again

# A task and the seconds it may take, to its answer.
Ask = Callable[[dict[str, Any], float], Awaitable[dict[str, Any]]]


class Busy(Exception):
    """A run is under way."""


async def in_process(task: dict[str, Any], seconds: float) -> dict[str, Any]:
    """`services.updater.task` on `task`; an answer with `failed` when the process ends badly or hangs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.updater.task", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate(json.dumps(task).encode())
        answer: dict[str, Any] = json.loads(output)
        return answer
    except TimeoutError:
        return {"failed": f"it did not end within {seconds:.0f} seconds"}
    except ValueError:
        return {"failed": f"its process ended with status {process.returncode} and no answer"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Updater:
    """The room's work; `follow` is its task."""

    def __init__(self, context: Context, ask: Ask) -> None:
        """`ask` does a task of `services.updater.task`; tests pass their own. Raises WrongSetting."""
        self._context, self._ask = context, ask
        self.folder = context.settings.room_dir
        self._path = os.path.join(self.folder, "report.json")
        self.journal = Journal(self.folder, context.clock)
        self.orders: Orders = orders_of(context.settings)
        self._admin = AdminRoom(Client(context.room, context.secrets, "admin", context.settings.admin_url))
        self._awake = asyncio.Event()
        self._look = False
        self._planning = asyncio.Lock()  # a plan is a process of 25 MiB: one at a time, however many ask
        self._order: dict[str, Any] | None = None
        self._since = 0.0
        self.trouble = ""  # why an interrupted run has not ended yet
        self.checked = 0.0
        self.next = 0.0
        self.error = ""
        self.images: list[dict[str, str]] = []

    async def prepare(self) -> None:
        """Read the last report and learn when the next is due. Raises WrongSetting."""
        self._recall()
        for note in self.orders.notes:
            self._context.log("info", note)
        answer = await self._ask(self._task("next", secret=False), LOOK_SECONDS)
        if why := answer.get("wrong_schedule"):
            raise WrongSetting(
                f"UPDATE_SCHEDULE={self.orders.schedule!r} (env/updater.env) is not allowed: {why}; "
                "five cron fields such as '30 4 * * *', or '@every 6h'"
            )
        now = self._context.clock()
        self.next = answer.get("next", now) if now - self.checked < STALE_SECONDS else now

    async def follow(self) -> None:
        """End what was interrupted; then look and run when it is due or wished for, until cancelled."""
        await self._recover()
        while True:
            await self.tell()
            if self._order:
                await self._run(self._order)
            elif self._look or self.next <= self._context.clock():
                await self.look()
            else:
                wait = min(self.next - self._context.clock(), LOOK_AGAIN_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._awake.wait()
                self._awake.clear()

    def want_look(self) -> None:
        """Look as soon as possible."""
        self._look = True
        self._awake.set()

    def want_run(self, source: str, services: Sequence[str] | None, *, wait: bool = False) -> str:
        """Run as soon as possible; the run's id. Raises Busy while there is one."""
        if self._order or self.journal.there():
            raise Busy
        identity = new_trace_id(self._context.clock())
        self._order = {"id": identity, "source": source, "services": services, "wait": wait}
        self._since = self._context.clock()
        self._awake.set()
        return identity

    async def plan(self, source: str, services: Sequence[str] | None) -> dict[str, Any]:
        """What a run would do: {"plan": [...]}, or {"error": why}."""
        async with self._planning:
            answer = await self._asked("plan", PLAN_SECONDS, source=source, services=services)
        return answer if "plan" in answer else {"error": str(answer.get("error") or answer.get("failed"))}

    def under_way(self) -> dict[str, Any] | None:
        """The run that is under way, for the report; None when there is none."""
        with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
            run = steps.told(self.journal.read())
            if run.id:
                return {
                    "id": run.id,
                    "state": run.state,
                    "step": run.step,
                    "since": run.started,
                    "steps": run.steps,
                    "reason": "; ".join(filter(None, (run.back, self.trouble))),
                }
        if self._order:
            begun = {"id": self._order["id"], "state": steps.RUNNING, "since": self._since}
            return {**begun, "step": "", "steps": [], "reason": ""}
        return None

    async def look(self) -> None:
        """Compare once, keep and record what was found; a run follows where orders say so."""
        self._look = False
        answer = await self._asked("look", LOOK_SECONDS)
        self.checked = self._context.clock()
        # Without an answer in it (a failed process) the next look is in an hour, not at once and not in a day.
        self.next = float(answer.get("next", self.checked + 3600))
        self.error = str(answer.get("error") or answer.get("failed") or "")
        if not self.error:
            self.images = list(answer["images"])
        states = [plan.ImageState(**image) for image in self.images]
        reason = self.error or plan.summary(states)
        failed = bool(self.error) or any(state.state == plan.UNKNOWN for state in states)
        self._context.events.emit(
            "update-check", new_trace_id(), outcome="error" if failed else "info", reason=reason,
            newer=[state.service for state in states if state.state == plan.NEWER],
        )  # fmt: skip
        self._context.log("warning" if failed else "info", f"images: {reason}")
        self._keep()
        if answer.get("due"):
            with contextlib.suppress(Busy):
                self.want_run(steps.REGISTRY, None, wait=True)

    # --- runs -------------------------------------------------------------------------------------------------------
    async def _run(self, order: dict[str, Any]) -> None:
        identity = order["id"]
        self._context.log("info", f"update {identity} begins")
        try:
            answer = await self._asked("run", RUN_SECONDS, **order)
            why = str(answer.get("unsettled") or answer.get("failed") or "")
            if why and not self.journal.there() and not self._entry(identity):
                # It did not even begin: the engine is away, the disk is full.
                run = steps.Run(id=identity, started=self._since, source=order["source"])
                with contextlib.suppress(OSError):
                    history.add(self.folder, history.entry_of(run, steps.FAILED, why, self._context.clock()))
            if self.journal.there():
                await self._recover()
            else:
                self._report_end(identity)
        finally:
            self._order = None
        self._look = True

    async def _recover(self) -> None:
        """End the run that the journal holds, however long the engine or admin are away."""
        tries = 0
        while self.journal.there():
            identity = (self.under_way() or {}).get("id", "")
            answer = await self._asked("recover", RUN_SECONDS)
            self.trouble = str(answer.get("unsettled") or answer.get("failed") or "")
            if not self.trouble:
                self._report_end(identity)
                return
            self._context.log("warning", f"update {identity} cannot be ended yet: {self.trouble}")
            await asyncio.sleep(RECOVER_PAUSES[min(tries, len(RECOVER_PAUSES) - 1)])
            tries += 1

    def _report_end(self, identity: str) -> None:
        entry = self._entry(identity)
        if not entry:
            return
        outcome, reason = str(entry["outcome"]), str(entry["reason"])
        good = outcome in (steps.COMMITTED, steps.NOTHING)
        text = f"update {identity}: {outcome}" + (f": {reason}" if reason else "")
        if outcome == steps.COMMITTED:
            text += f" ({', '.join(entry['services'])}; closed for {entry['seconds_closed']} seconds)"
        self._context.log("info" if good else "warning", text)
        self._context.events.emit("update", identity, outcome="info" if good else "error", reason=text)

    def _entry(self, identity: str) -> Mapping[str, Any] | None:
        return next((each for each in history.read(self.folder) if each["id"] == identity), None)

    async def tell(self) -> None:
        """Hand over to admin what it has not been told; what it does not take is offered again later."""
        entries = history.read(self.folder)
        for entry in reversed(entries):
            if entry.get(history.TOLD):
                continue
            shown = history.shown([entry])[0]
            try:
                await self._admin.result(shown)
            except AdminAway as error:
                self._context.log("debug", f"admin was not told of update {entry['id']}: {error}")
                return
            except AdminRefused as error:
                self._context.log("warning", f"admin did not take the result of update {entry['id']}: {error}")
            with contextlib.suppress(OSError):
                history.mark_told(self.folder, entry["id"])

    # --- what is kept -----------------------------------------------------------------------------------------------
    async def _asked(self, name: str, seconds: float, **fields: Any) -> dict[str, Any]:
        """The answer to a task; `failed` where it cannot even be asked."""
        try:
            return await self._ask({**self._task(name), **fields}, seconds)
        except SecretMissing as error:
            return {"failed": str(error)}

    def _task(self, name: str, *, secret: bool = True) -> dict[str, Any]:
        """A task without its own fields; raises SecretMissing."""
        return {
            "task": name,
            "settings": dataclasses.asdict(self._context.settings),
            "schedule": self.orders.schedule,
            "now": self._context.clock(),
            "secret": self._context.secrets.pair(self._context.room, "docker-filter") if secret else "",
        }

    def _recall(self) -> None:
        """Read the last report; one that is missing or damaged is made anew."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(self._path, encoding="utf-8") as file:
                report = json.load(file)
            self.checked, self.error, self.images = float(report["checked"]), report["error"], list(report["images"])

    def _keep(self) -> None:
        """Write the report; losing it costs a look at the next start, so no fsync and no failure."""
        partial = self._path + ".new"
        with contextlib.suppress(OSError):
            with open(partial, "w", encoding="utf-8") as file:
                json.dump({"checked": self.checked, "error": self.error, "images": self.images}, file)
            os.replace(partial, self._path)
