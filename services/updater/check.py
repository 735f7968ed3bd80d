"""`python -m services.updater.check`: one look at the engine and the registries, in a process that ends.

stdin: `{"url", "secret", "schedule", "now", "look"}`. stdout: `{"next": epoch seconds, "images": [...], "error": ""}`;
with `look` false only `next` is worked out. A schedule that is not a cron line gives `{"wrong_schedule": why}`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from collections.abc import Mapping
from typing import Any

from services.updater import plan


def main() -> None:
    """Answer the question on stdin."""
    question = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"next": next_time(question["schedule"], question["now"])}
    except ValueError as error:
        answer = {"wrong_schedule": str(error)}
    else:
        if question["look"]:
            answer |= look(question)
    json.dump(answer, sys.stdout)


def next_time(schedule: str, now: float) -> float:
    """When `schedule` (a cron line of five fields, UTC) is next due after `now`; raises ValueError."""
    from apscheduler.triggers.cron import CronTrigger

    due = CronTrigger.from_crontab(schedule, timezone=datetime.UTC).get_next_fire_time(
        None, datetime.datetime.fromtimestamp(now, datetime.UTC) + datetime.timedelta(seconds=1)
    )
    if due is None:
        raise ValueError("it never comes")
    return float(due.timestamp())


def look(question: Mapping[str, Any]) -> dict[str, Any]:
    """`{"images": [...], "error": ""}`; `error` says why there are none."""
    from services.updater.docker_host import DockerHost, EngineUnavailable

    try:
        host = DockerHost(question["url"], question["secret"])
        containers = plan.containers_of(host.listing())
        digests = {image_id: host.repo_digests(image_id) for image_id in {each.image_id for each in containers}}
        registry = {image: host.registry_digest(image) for image in plan.questions(containers, digests)}
        host.close()
    except EngineUnavailable as error:
        return {"images": [], "error": str(error)}
    return {"images": [dataclasses.asdict(each) for each in plan.compare(containers, digests, registry)], "error": ""}


if __name__ == "__main__":
    main()
