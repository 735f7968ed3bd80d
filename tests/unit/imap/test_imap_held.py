"""imap while an update is under way: new connections are told to come back, sessions go on."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from tests.unit.imap.imap_world import client_tls
from tests.unit.imap.test_imap_room import ANNA, PASSWORD, room

WORLD = "127.0.0.9"  # who asks for the hold comes from 127.0.0.1
HELD = b"* BYE [UNAVAILABLE] an update is running, try again in a minute\r\n"


async def connect(port: int, tls: ssl.SSLContext | None, source: str = WORLD) -> tuple[asyncio.StreamReader, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=(source, 0))
    line = await asyncio.wait_for(reader.readline(), 10)
    if line.startswith(b"* OK"):
        writer.close()
    return reader, line


@pytest.mark.parametrize("listener", ["imaps", "imap"])
def test_new_connections_are_told_to_come_back(tmp_path: Path, listener: str) -> None:
    async def story() -> None:
        async with room(tmp_path) as running:
            tls = client_tls() if listener == "imaps" else None
            await running.admin.post("/v1/hold", {"id": "u1", "seconds": 60})
            reader, line = await connect(running.port(listener), tls)
            assert line == HELD and await asyncio.wait_for(reader.read(), 10) == b""
            refused = [event for event in running.record.of("connect") if event["outcome"] == "defer"]
            assert [(event["peer"], event["reason"]) for event in refused] == [(WORLD, "held for the update u1")]
            assert (await connect(running.port(listener), tls, "127.0.0.1"))[1].startswith(b"* OK"), "the gate comes in"
            await running.admin.post("/v1/release", {"id": "u1"})
            assert (await connect(running.port(listener), tls))[1].startswith(b"* OK")

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_session_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with room(tmp_path) as running:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", running.port("imaps"), ssl=client_tls(), local_addr=(WORLD, 0)
            )
            await reader.readline()
            writer.write(f'a LOGIN {ANNA} "{PASSWORD}"\r\n'.encode())
            assert (await reader.readline()).startswith(b"a OK")
            await running.admin.post("/v1/hold", {"id": "u1", "seconds": 60})
            writer.write(b"b NOOP\r\n")
            assert (await reader.readline()).startswith(b"b OK")
            writer.close()
            kept = json.loads((tmp_path / "room" / "hold.json").read_text())
            assert kept["id"] == "u1" and kept["exempt"] == "127.0.0.1"

    asyncio.run(asyncio.wait_for(story(), 30))
