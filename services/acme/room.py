"""Start and stop of the acme room, and its one answer: GET /v1/status.

    {"mode", "subject", "issuer", "names", "not_before", "not_after", "serial", "problem",
     "listeners": {address: {"serial", "current", "problem"}}}

Times are seconds since the epoch; texts are empty and times 0 while nothing is installed.
"""

from __future__ import annotations

import asyncio
import os

from services.acme.proof import Prover
from services.acme.sources import source_for
from services.acme.task import in_process
from services.acme.watch import Watch
from services.runtime.clock import Clock
from services.runtime.internal_http import Request, Response, Routes, serving
from services.runtime.process import Context


async def serve(context: Context) -> None:
    """Serve until `context.stop`; raises OSError for a setting, folder or port that does not work."""
    source = source_for(context.settings)
    for folder in (context.settings.certs_dir, context.settings.room_dir):
        os.makedirs(folder, mode=0o750, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(f"{folder} cannot be read and written by uid {os.geteuid()}")
    prover = Prover(context, lambda: _serial(watch))
    clock = Clock(context)
    watch = Watch(context, source, in_process, prover.soon, clock.tell)
    routes = Routes()
    status = Status(context, watch, prover)
    routes.add("GET", "/v1/status", status.show, allow=("admin",))
    async with serving(context, routes) as listener, asyncio.TaskGroup() as group:
        context.ports["http"] = listener.port
        await watch.look()  # before `ready`: the listeners that wait for us find a certificate
        context.health.ready()
        prover.soon()
        running = [
            context.spawn(group, watch.follow(), "watching the certificate"),
            context.spawn(group, clock.watch(), "watching the clock"),
            context.spawn(group, prover.follow(), "proving the certificate"),
        ]
        await context.stop.wait()
        for task in running:
            task.cancel()


class Status:
    """Answers for admin."""

    def __init__(self, context: Context, watch: Watch, prover: Prover) -> None:
        self._context, self._watch, self._prover = context, watch, prover

    async def show(self, request: Request) -> Response:
        """GET /v1/status."""
        certificate = self._watch.outcome.certificate
        serial = _serial(self._watch)
        return Response.of(
            {
                "mode": self._context.settings.ssl_type,
                "subject": certificate.subject if certificate else "",
                "issuer": certificate.issuer if certificate else "",
                "names": list(certificate.names) if certificate else [],
                "not_before": certificate.not_before if certificate else 0,
                "not_after": certificate.not_after if certificate else 0,
                "serial": serial,
                "problem": self._watch.outcome.problem,
                "listeners": {
                    address: {
                        "serial": served.serial,
                        "current": bool(serial) and served.serial == serial,
                        "problem": served.problem,
                    }
                    for address, served in self._prover.results.items()
                },
            }
        )


def _serial(watch: Watch) -> str:
    return watch.outcome.certificate.serial if watch.outcome.certificate else ""
