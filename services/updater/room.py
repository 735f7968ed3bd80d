"""Start and stop of the updater room: when a check is due, and its answers to admin.

GET /v1/report → {"checked": epoch seconds (0: never), "next", "error",
                  "images": [{"service", "image", "running", "registry", "state", "error"}],
                  "containers": [{"service", "state", "health", "started"}]}
POST /v1/check → 202; the report is new once `checked` moves.

The images are those of the last check; the containers are asked for at the moment of the question, with one plain
GET through docker-filter. `started` is Docker's own words ("Up 3 minutes"): the exact time stands in a container's
inspection only, which docker-filter does not show.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from services.runtime.events import new_trace_id
from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable, Request, Response, Routes, serving
from services.runtime.process import Context
from services.runtime.secrets import SecretMissing
from services.updater import plan

CHECK_SECONDS = 180  # a registry that hangs is given up by the engine in about 60; several may
LOOK_AGAIN_SECONDS = 60  # the wall clock is looked at this often: a box without a clock battery jumps at boot
STALE_SECONDS = 36 * 3600  # at start: a report older than this is made anew at once

Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class WrongSchedule(OSError):
    """UPDATE_SCHEDULE is not a cron line; an OSError, so that the room's start ends with its one line."""


async def serve(context: Context) -> None:
    """Serve until `context.stop`; raises WrongSchedule."""
    routes = Routes()
    if context.settings.docker_url:
        updater = Updater(context, in_process)
        await updater.prepare()
    else:
        updater = None
    answers = Answers(context, updater)
    routes.add("GET", "/v1/report", answers.report, allow=("admin",))
    routes.add("POST", "/v1/check", answers.check, allow=("admin",))
    async with serving(context, routes) as listener, asyncio.TaskGroup() as group:
        context.ports["http"] = listener.port
        task = context.spawn(group, updater.follow(), "checking images") if updater else None
        context.health.ready()
        await context.stop.wait()
        if task:
            task.cancel()


async def in_process(question: dict[str, Any]) -> dict[str, Any]:
    """`services.updater.check` on `question`; an answer with `error` when the process fails or hangs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.updater.check", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            output, _ = await process.communicate(json.dumps(question).encode())
        answer: dict[str, Any] = json.loads(output)
        return answer
    except TimeoutError:
        return {"images": [], "error": f"the check did not end within {CHECK_SECONDS} seconds"}
    except ValueError:
        return {"images": [], "error": f"the check ended with status {process.returncode} and no answer"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Updater:
    """Knows when to look, and what the last look found."""

    def __init__(self, context: Context, ask: Ask) -> None:
        """`ask` answers a question of `services.updater.check`; tests pass their own."""
        self._context, self._ask = context, ask
        self._path = os.path.join(context.settings.room_dir, "report.json")
        self._wanted = asyncio.Event()
        self.checked = 0.0
        self.next = 0.0
        self.error = ""
        self.images: list[dict[str, str]] = []
        self._client = Client(
            context.room, context.secrets, "docker-filter", context.settings.docker_url.replace("tcp://", "http://", 1)
        )

    async def prepare(self) -> None:
        """Read the last report and learn when the next is due. Raises WrongSchedule."""
        self._recall()
        answer = await self._ask(self._question(look=False))
        if why := answer.get("wrong_schedule"):
            raise WrongSchedule(
                f"UPDATE_SCHEDULE={self._context.settings.update_schedule!r} (env/updater.env) is not allowed: {why}; "
                "five cron fields such as '30 4 * * *'"
            )
        now = self._context.clock()
        self.next = answer.get("next", now) if now - self.checked < STALE_SECONDS else now

    async def follow(self) -> None:
        """Check when it is due or wished for, until cancelled."""
        while True:
            wait = self.next - self._context.clock()
            if wait > 0 and not self._wanted.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wait, LOOK_AGAIN_SECONDS)):
                        await self._wanted.wait()
                continue
            self._wanted.clear()
            await self.check()

    def want(self) -> None:
        """Check as soon as possible."""
        self._wanted.set()

    async def check(self) -> None:
        """Look once, keep and record what was found."""
        try:
            question = self._question(look=True)
        except SecretMissing as error:
            answer: dict[str, Any] = {"images": [], "error": str(error)}
        else:
            answer = await self._ask(question)
        self.checked = self._context.clock()
        # Without an answer in it (a failed process) the next look is in an hour, not at once and not in a day.
        self.next = float(answer.get("next", self.checked + 3600))
        self.error = str(answer.get("error", ""))
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

    async def containers(self) -> list[plan.Container]:
        """The stack's containers at this moment. Raises PeerUnavailable or PeerRefused."""
        answer = await self._client.request("GET", "/containers/json")
        return plan.containers_of(answer.json())

    def _question(self, *, look: bool) -> dict[str, Any]:
        settings = self._context.settings
        return {
            "url": settings.docker_url,
            "secret": self._context.secrets.pair(self._context.room, "docker-filter") if look else "",
            "schedule": settings.update_schedule,
            "now": self._context.clock(),
            "look": look,
        }

    def _recall(self) -> None:
        """Read the last report; one that is missing or damaged is made anew."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(self._path, encoding="utf-8") as file:
                report = json.load(file)
            self.checked, self.error, self.images = float(report["checked"]), report["error"], list(report["images"])

    def _keep(self) -> None:
        """Write the report; losing it costs a check at the next start, so no fsync and no failure."""
        partial = self._path + ".new"
        with contextlib.suppress(OSError):
            with open(partial, "w", encoding="utf-8") as file:
                json.dump({"checked": self.checked, "error": self.error, "images": self.images}, file)
            os.replace(partial, self._path)


class Answers:
    """Answers for admin."""

    def __init__(self, context: Context, updater: Updater | None) -> None:
        """Without `updater` (no Docker here) there is nothing to report."""
        self._context, self._updater = context, updater

    async def report(self, request: Request) -> Response:
        """GET /v1/report."""
        updater = self._updater
        if updater is None:
            why = "this stack runs without Docker: whoever installed it updates it"
            return Response.of({"checked": 0, "next": 0, "error": why, "images": [], "containers": []})
        try:
            containers, problem = await updater.containers(), ""
        except (PeerUnavailable, PeerRefused, ValueError) as error:
            containers, problem = [], f"the containers' state is not known: {error}"
        return Response.of(
            {
                "checked": updater.checked,
                "next": updater.next,
                "error": "; ".join(part for part in (updater.error, problem) if part),
                "images": updater.images,
                "containers": [
                    {
                        "service": each.service,
                        "state": each.state,
                        "health": plan.health_of(each.status),
                        "started": plan.since_of(each.status),
                    }
                    for each in containers
                ],
            }
        )

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        if self._updater is None:
            return Response.error(409, "this stack runs without Docker: there is nothing to check")
        self._updater.want()
        return Response.of({"wanted": True}, 202)
