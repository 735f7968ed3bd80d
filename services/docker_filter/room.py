"""Start and stop of the docker-filter room: the door to the updater, `/health` beside it, and a look at the engine."""

from __future__ import annotations

import asyncio
import os

from services.docker_filter.desk import Desk
from services.docker_filter.door import Door
from services.docker_filter.engine import Engine, EngineUnavailable
from services.docker_filter.redact import Redaction
from services.runtime.internal_http import Routes, serving
from services.runtime.listener import Listener, bind
from services.runtime.process import Context
from services.runtime.secrets import SecretMissing

LOOK_SECONDS = 20
PING_SECONDS = 5


async def serve(context: Context) -> None:
    """Serve until `context.stop`; raises OSError for a port that is taken or a secret that is missing."""
    settings = context.settings
    try:
        secret = context.secrets.pair(context.room, "updater")
    except SecretMissing as error:
        raise OSError(f"{error}: has `setup` run?") from None
    engine = Engine(settings.docker_socket)
    desk = Desk(engine, settings.compose_project_name, settings.mailstead_registry, Redaction(os.urandom(32)))
    door = Door(context, desk, secret)
    sockets = bind(settings.docker_listen)
    servers = [await asyncio.start_server(door.connection, sock=each) for each in sockets]
    listener = Listener(servers, sockets[0].getsockname()[1])
    context.ports["docker"] = listener.port
    try:
        async with serving(context, Routes()) as health, asyncio.TaskGroup() as group:
            context.ports["http"] = health.port
            await look(context, engine)
            context.health.ready()
            task = context.spawn(group, follow(context, engine), "looking at the engine")
            await context.stop.wait()
            task.cancel()
    finally:
        listener.close()


async def follow(context: Context, engine: Engine) -> None:
    """Look at the engine again and again until cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await look(context, engine)


async def look(context: Context, engine: Engine) -> None:
    """Ask the engine whether it is there; the answer is a part of this room's health."""
    try:
        answer = await engine.ask("GET", "/_ping", seconds=PING_SECONDS)
    except EngineUnavailable as error:
        context.health.fail("docker", str(error))
    else:
        if answer.status == 200:
            context.health.ok("docker")
        else:
            context.health.fail("docker", f"the Docker engine answers {answer.status}")
