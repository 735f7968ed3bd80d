"""How many durable deliveries a second one process makes: `Deliveries` alone, no SMTP, on the disk of `folder`.

`python -m tests.bench.delivery [--json] [--folder DIR]`; scripts/bench calls `run`. Each worker delivers one message
after the other, as an SMTP session does. Nothing is removed between the rounds: ext4 looks at each recently freed inode
when it makes a file, and after thousands of removals that costs more than the delivery (0.3 to 1 ms a file).
"""

from __future__ import annotations

import argparse
import asyncio
import json as encoder
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

from services.storage.delivery import Deliveries, Failed
from services.storage.provision import provision

HEADER = b"Return-Path: <sender@outside.example>\r\nDelivered-To: anna@family.example\r\n"
ROUNDS = 3


def run(
    json: bool = False, *, folder: str = "/var/tmp", messages: int = 2000, octets: int = 5000
) -> list[dict[str, Any]]:
    """Measure, print a table (or one JSON line), and answer the rows."""
    base = tempfile.mkdtemp(prefix="mailstead-bench-", dir=folder)
    try:
        provision(base, "anna@family.example")
        rows = [
            _median([_round(base, sessions, messages, octets, once) for _ in range(ROUNDS)])
            for once in (False, True)
            for sessions in (1, 10, 50)
        ]
    finally:
        shutil.rmtree(base)
    if json:
        print(encoder.dumps({"bench": "delivery", "octets": octets, "rows": rows}))
    else:
        for row in rows:
            print(
                f"{row['sessions']:3d} at once{' exactly once' if row['once'] else ''}: {row['per_second']:6.0f} messages/s"
                f" [{row['least']:.0f}-{row['most']:.0f}], {row['cpu_per_1000']:.3f} s CPU per 1,000"
            )
    return rows


def _round(base: str, sessions: int, messages: int, octets: int, once: bool) -> dict[str, Any]:
    return _runner()(_deliver(base, sessions, messages, octets, once))


def _runner() -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _deliver(base: str, sessions: int, messages: int, octets: int, once: bool) -> dict[str, Any]:
    body = [b"x" * 78 + b"\r\n"] * (octets // 80)
    deliveries = Deliveries(base)
    await deliveries.start()
    left = messages
    stamp = time.time_ns()

    async def session() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            sink = deliveries.incoming()
            sink.write(b"".join(body))
            delivery = deliveries.begin(f"{stamp}.{left}", once=once)
            await delivery.add_recipient("anna@family.example", "anna@family.example", HEADER)
            await delivery.body(sink)
            for result in await delivery.commit():
                if isinstance(result, Failed):
                    raise result.error
            sink.close()

    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(sessions):
            group.create_task(session())
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    await deliveries.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"sessions": sessions, "once": once, "per_second": messages / seconds, "cpu_per_1000": cpu / messages * 1000}


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = [one["per_second"] for one in rounds]
    return {
        **rounds[0],
        "per_second": statistics.median(speeds),
        "least": min(speeds),
        "most": max(speeds),
        "cpu_per_1000": statistics.median(one["cpu_per_1000"] for one in rounds),
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--folder", default="/var/tmp")
    arguments.add_argument("--messages", type=int, default=2000)
    chosen = arguments.parse_args()
    run(chosen.json, folder=os.path.abspath(chosen.folder), messages=chosen.messages)
    sys.exit(0)
