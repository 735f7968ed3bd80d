"""The listener of page and API, and when what stands behind it is loaded: at the first connection.

FastAPI, pydantic, uvicorn and Jinja are 23 MiB that the room's other work (publishing, facts, the index) does without,
and an owner may not look for weeks. So the sockets listen from the start, and the first connection waits in the
kernel's queue for half a second (three on a Raspberry Pi) while the application is loaded in a thread.

On loopback the page is plain HTTP; where ADMIN_BIND opens it further, `entrance.py` puts TLS before the same server.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from typing import Any

from services.admin.parts import Parts
from services.runtime.process import Context


async def serve_page(context: Context, parts: Parts, sockets: list[socket.socket], inside: list[socket.socket]) -> None:
    """Serve page and API until `context.stop`: on `inside` as plain HTTP, on `sockets` with TLS unless they are those.

    All listen already.

    Raises OSError when the listener ends by itself.
    """
    every = sockets if inside is sockets else [*sockets, *inside]
    stopping = asyncio.create_task(context.stop.wait())
    somebody = asyncio.create_task(_connection(every))
    try:
        await asyncio.wait({stopping, somebody}, return_when=asyncio.FIRST_COMPLETED)
        if context.stop.is_set():
            return
        server = await asyncio.to_thread(_load, parts)
        ended = asyncio.create_task(server.serve(sockets=inside))
        tls = asyncio.create_task(_serve_tls(context, server, sockets)) if inside is not sockets else None
        await asyncio.wait({stopping, ended, *filter(None, [tls])}, return_when=asyncio.FIRST_COMPLETED)
        if tls is not None:
            tls.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tls
        server.should_exit = True
        await ended
    finally:
        stopping.cancel()
        somebody.cancel()
        for each in every:
            each.close()
    if not context.stop.is_set():
        raise OSError("the page's listener ended by itself")


async def _connection(sockets: list[socket.socket]) -> None:
    """Wait until somebody connects; the connection stays in the kernel's queue."""
    loop = asyncio.get_running_loop()
    somebody = asyncio.Event()
    for each in sockets:
        loop.add_reader(each, somebody.set)
    try:
        await somebody.wait()
    finally:
        for each in sockets:
            loop.remove_reader(each)


async def _serve_tls(context: Context, server: Any, sockets: list[socket.socket]) -> None:
    """The server's protocol behind TLS; its connections are counted and ended with the server's own."""
    from services.admin.entrance import Entrance
    from services.admin.hosts import Hosts

    def connection() -> asyncio.BaseProtocol:
        made: asyncio.BaseProtocol = server.config.http_protocol_class(
            config=server.config, server_state=server.server_state, app_state={}
        )
        return made

    await Entrance(context, Hosts(context.settings)).serve(sockets, connection)


def _load(parts: Parts) -> Any:
    import uvicorn

    from services.admin.app import build

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are process.py's

    config = uvicorn.Config(
        build(parts),
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,  # what was changed is in the record; who looked is nobody's business
        server_header=False,
        proxy_headers=False,
        limit_concurrency=100,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=parts.context.settings.grace_seconds,
        h11_max_incomplete_event_size=32 * 1024,
    )
    config.load()
    gc.freeze()  # what was loaded stays: collections need not walk it
    return Server(config)
