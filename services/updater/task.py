"""`python -m services.updater.task`: one task for the engine, in a process that ends.

The docker SDK costs 25 MiB that the idle room need not keep. stdin is the task, stdout the answer, both JSON:

    {"task": "next"}                                    → {"next": epoch seconds} or {"wrong_schedule": why}
    {"task": "look"}                                    → {"next", "images": [...], "due": bool, "error": ""}
    {"task": "plan", "source", "services"}              → {"plan": [...]} or {"error": why}
    {"task": "run", "id", "source", "services", "wait"} → {"outcome"} or {"unsettled": why}
    {"task": "recover"}                                 → {"outcome"} or {"unsettled": why}

All have "settings" (the room's values), "schedule", "now" and "secret" (docker-filter's; "" for `next`). `due`: a run
by itself has something to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from services.runtime.internal_http import Client
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from services.updater import history, plan, steps
from services.updater.admin_calls import GATE_SECONDS, AdminRoom
from services.updater.choose import choose
from services.updater.engine import EngineUnavailable, Failed, Nothing
from services.updater.journal import Journal
from services.updater.modes import mode_of, orders_of
from services.updater.schedule import next_time
from services.updater.survey import survey
from services.updater.transaction import Transaction, Unsettled
from services.updater.work import Clocks, Tools


def main() -> None:
    """Do the task on stdin."""
    json.dump(answer_to(json.load(sys.stdin)), sys.stdout)


def answer_to(task: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one task."""
    settings = Settings(**task["settings"])
    name = task["task"]
    if name == "next":
        return due(task)
    if name == "look":
        return look(task, settings)
    if name == "plan":
        return shown(task, settings)
    return asyncio.run(transaction(task, settings))


def due(task: Mapping[str, Any]) -> dict[str, Any]:
    """When the schedule is next due."""
    try:
        return {"next": next_time(task["schedule"], task["now"])}
    except ValueError as error:
        return {"wrong_schedule": str(error)}


def look(task: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The images as they compare with their registries; `error` says why there are none."""
    orders = orders_of(settings)
    try:
        with contextlib.closing(_host(task, settings)) as host:
            facts = survey(host, orders, registries=True)
    except EngineUnavailable as error:
        return {**due(task), "images": [], "due": False, "error": str(error)}
    modes = {each.id: mode_of(each.labels, orders) for each in facts.standings}
    refused = history.refused(history.read(settings.room_dir))
    lines = plan.automatic(plan.lines(facts, steps.REGISTRY, modes), modes, refused)
    return {
        **due(task),
        "images": [dataclasses.asdict(each) for each in plan.compare(facts)],
        "due": any(line.action == plan.REPLACE for line in lines),
        "error": "",
    }


def shown(task: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What a run would do; nothing is done."""
    try:
        with contextlib.closing(_host(task, settings)) as host:
            orders = orders_of(settings)
            lines, _ = choose(host, orders, settings.room_dir, task["source"], task["services"], automatic=False)
    except Nothing:
        return {"plan": []}
    except (EngineUnavailable, Failed) as error:
        return {"error": str(error)}
    return {"plan": [line.shown() for line in lines]}


async def transaction(task: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A run, or the end of one that was interrupted."""
    journal = Journal(settings.room_dir, time.time)
    try:
        async with _tools(task, settings) as tools:
            run = Transaction(journal, tools)
            if task["task"] == "recover":
                return {"outcome": await run.recover()}
            outcome = await run.run(task["id"], task["source"], task["services"], wait=task["wait"])
            return {"outcome": outcome}
    except (Unsettled, EngineUnavailable, OSError) as error:
        return {"unsettled": str(error)}


@contextlib.asynccontextmanager
async def _tools(task: Mapping[str, Any], settings: Settings) -> AsyncIterator[Tools]:
    client = Client("updater", Secrets(settings.secrets_dir), "admin", settings.admin_url, timeout=GATE_SECONDS, keep=1)
    host = await asyncio.to_thread(_host, task, settings)
    try:
        yield Tools(
            engine=host,
            admin=AdminRoom(client),
            orders=orders_of(settings),
            folder=settings.room_dir,
            health_seconds=settings.update_health_seconds,
            clocks=Clocks(time.time, time.monotonic, asyncio.sleep),
        )
    finally:
        client.close()
        host.close()


def _host(task: Mapping[str, Any], settings: Settings) -> Any:
    # Imported here: `next` does without.
    from services.updater.docker_host import DockerHost

    return DockerHost(settings.docker_url, task["secret"])


if __name__ == "__main__":
    main()
