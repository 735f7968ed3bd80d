"""The listener of page and API, and when what stands behind it is loaded: at the first connection.

FastAPI, pydantic, uvicorn and Jinja are 23 MiB that the room's other work (publishing, facts, the index) does without,
and an owner may not look for weeks. So the sockets listen from the start, and the first connection waits in the
kernel's queue for half a second (three on a Raspberry Pi) while the application is loaded in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from typing import Any

from services.admin.parts import Parts
from services.runtime.listener import BACKLOG
from services.runtime.process import Context


async def serve_page(context: Context, parts: Parts, sockets: list[socket.socket]) -> None:
    """Serve page and API on `sockets` until `context.stop`; raises OSError when the listener ends by itself."""
    for each in sockets:
        each.listen(BACKLOG)
    stopping = asyncio.create_task(context.stop.wait())
    somebody = asyncio.create_task(_connection(sockets))
    try:
        await asyncio.wait({stopping, somebody}, return_when=asyncio.FIRST_COMPLETED)
        if context.stop.is_set():
            return
        server = await asyncio.to_thread(_load, parts)
        ended = asyncio.create_task(server.serve(sockets=sockets))
        await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await ended
    finally:
        stopping.cancel()
        somebody.cancel()
        for each in sockets:
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
    gc.freeze()  # what was loaded stays: collections need not walk it
    return Server(config)
