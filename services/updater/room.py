"""Start and stop of the updater room, and its answers to admin. All JSON.

GET /v1/report → {"checked": epoch seconds (0: never), "next", "error", "mode",
                  "images": [{"service", "image", "running", "registry", "state", "error"}],
                  "containers": [{"service", "state", "health", "started"}],
                  "run": {"id", "state", "step", "since", "steps": [{"step", "at", "outcome", "reason"}],
                          "reason"} | null}
POST /v1/check → 202; the report is new once `checked` moves.
POST /v1/run {"dry", "local", "services": [...] | null} → 202 {"id"}; 409 while one is under way.
     With `dry`: 200 {"plan": [{"service", "image", "from", "to", "action", "reason"}]}, 503 when it is not known.
     `local`: what image names mean on this machine by now; no registry is asked (for stacks that are built here).
POST /v1/rollback {} → 202 {"id"}: back to the images before the last committed update.
GET /v1/history → {"updates": [...]}, the newest first; `history.entry_of` has the fields.

The images are those of the last look; the containers are asked for at the moment of the question, with one plain GET
through docker-filter. `started` is Docker's own words ("Up 3 minutes").
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from services.runtime.internal_http import (
    BadRequest,
    Client,
    PeerRefused,
    PeerUnavailable,
    Request,
    Response,
    Routes,
    serving,
)
from services.runtime.process import Context
from services.updater import history, plan, steps
from services.updater.watch import Busy, Updater, in_process

NO_DOCKER = "this stack runs without Docker: whoever installed it updates it"


async def serve(context: Context) -> None:
    """Serve until `context.stop`; raises WrongSetting."""
    routes = Routes()
    updater = Updater(context, in_process) if context.settings.docker_url else None
    if updater:
        await updater.prepare()
    answers = Answers(context, updater)
    routes.add("GET", "/v1/report", answers.report, allow=("admin",))
    routes.add("POST", "/v1/check", answers.check, allow=("admin",))
    routes.add("POST", "/v1/run", answers.run, allow=("admin",))
    routes.add("POST", "/v1/rollback", answers.rollback, allow=("admin",))
    routes.add("GET", "/v1/history", answers.history, allow=("admin",))
    async with serving(context, routes) as listener, asyncio.TaskGroup() as group:
        context.ports["http"] = listener.port
        task = context.spawn(group, updater.follow(), "updates") if updater else None
        context.health.ready()
        await context.stop.wait()
        if task:
            # A run that is cut off here is undone or finished at the next start; its journal says what to do.
            task.cancel()


class Answers:
    """Answers for admin."""

    def __init__(self, context: Context, updater: Updater | None) -> None:
        """Without `updater` (no Docker here) there is nothing to report."""
        self._updater = updater
        self._filter = Client(
            context.room, context.secrets, "docker-filter", context.settings.docker_url.replace("tcp://", "http://", 1)
        )

    async def report(self, request: Request) -> Response:
        """GET /v1/report."""
        updater = self._updater
        if updater is None:
            nothing: dict[str, Any] = {"images": [], "containers": [], "mode": "off", "run": None}
            return Response.of({"checked": 0, "next": 0, "error": NO_DOCKER, **nothing})
        try:
            containers, problem = await self._containers(), ""
        except (PeerUnavailable, PeerRefused, ValueError) as error:
            containers, problem = [], f"the containers' state is not known: {error}"
        return Response.of(
            {
                "checked": updater.checked,
                "next": updater.next,
                "error": "; ".join(part for part in (updater.error, problem) if part),
                "mode": updater.orders.mode,
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
                "run": updater.under_way(),
            }
        )

    async def check(self, request: Request) -> Response:
        """POST /v1/check."""
        if self._updater is None:
            return Response.error(409, NO_DOCKER)
        self._updater.want_look()
        return Response.of({"wanted": True}, 202)

    async def run(self, request: Request) -> Response:
        """POST /v1/run."""
        order = _object(request)
        services = _services(order.get("services"))
        source = steps.LOCAL if _flag(order, "local") else steps.REGISTRY
        if self._updater is None:
            return Response.error(409, NO_DOCKER)
        if not _flag(order, "dry"):
            return self._begin(source, services)
        answer = await self._updater.plan(source, services)
        return Response.of(answer) if "plan" in answer else Response.error(503, answer["error"])

    async def rollback(self, request: Request) -> Response:
        """POST /v1/rollback."""
        if self._updater is None:
            return Response.error(409, NO_DOCKER)
        if history.last_committed(history.read(self._updater.folder)) is None:
            return Response.error(409, "there is no update to take back")
        return self._begin(steps.BEFORE_UPDATE, None)

    async def history(self, request: Request) -> Response:
        """GET /v1/history."""
        entries = history.read(self._updater.folder) if self._updater else []
        return Response.of({"updates": history.shown(entries)})

    def _begin(self, source: str, services: Sequence[str] | None) -> Response:
        assert self._updater is not None
        try:
            return Response.of({"id": self._updater.want_run(source, services)}, 202)
        except Busy:
            run = self._updater.under_way() or {}
            return Response.error(409, f"an update is running: {run.get('id', '')} {run.get('step', '')}".rstrip())

    async def _containers(self) -> list[plan.Container]:
        """The stack's containers at this moment. Raises PeerUnavailable, PeerRefused or ValueError."""
        return plan.containers_of((await self._filter.request("GET", "/containers/json")).json())


def _object(request: Request) -> dict[str, Any]:
    value = request.json() if request.body else {}
    if not isinstance(value, dict):
        raise BadRequest("the body is not an object")
    return value


def _flag(order: dict[str, Any], name: str) -> bool:
    value = order.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is true or false")
    return value


def _services(value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > 100 or not all(_is_service(each) for each in value):
        raise BadRequest("services is null or a list of services")
    return [str(each) for each in value]


def _is_service(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[a-zA-Z0-9._-]{1,63}", value))
