"""Start and stop of the dkim room: one HTTP listener inside, no way out."""

from __future__ import annotations

import asyncio
import os

from services.dkim.keys import KeyStore
from services.dkim.service import Service
from services.runtime.clock import Clock
from services.runtime.internal_http import serving
from services.runtime.process import Context


async def serve(context: Context) -> None:
    """Serve until `context.stop`; raises OSError where the key folder cannot be used or the port is taken."""
    folder = context.settings.dkim_dir
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise OSError(f"{folder} cannot be read and written by uid {os.geteuid()}")
    clock = Clock(context)
    service = Service(context, KeyStore(folder, context.clock), clock.problem)
    await service.complete()
    async with serving(context, service.routes()) as listener, asyncio.TaskGroup() as group:
        context.ports["http"] = listener.port
        watching = context.spawn(group, clock.watch(), "watching the clock")
        context.health.ready()
        await context.stop.wait()
        watching.cancel()
