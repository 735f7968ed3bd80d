"""Whether the rooms' memory stays where it is: 200,000 messages in, out and read.

Seven rooms as processes. Each of twenty rounds brings a twentieth of the messages: half from outside to a mailbox on 25,
half submitted on 465, signed, queued and sent to a relay on loopback; the mailbox is read whole by IMAP and emptied. After
each round, once the queue is empty, the PSS of each room is taken. No room may have grown after the first tenth by more
than an eighth and 3 MiB (allocators and SQLite's caches breathe). Called by scripts/bench; takes about 25 minutes.
"""

import asyncio
import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from services.runtime.values import Settings  # noqa: E402
from tests.bench.memory import pss, seven_rooms  # noqa: E402
from tests.bench.rooms import PASSWORD, Line, command, deliver, dialled, plain  # noqa: E402

MESSAGES = int(os.environ.get("MAILSTEAD_SOAK_MESSAGES", "200000"))
ROUNDS = 20
SESSIONS = 8
ALLOWED_SHARE, ALLOWED_MIB = 1.125, 3.0
ANN = "ann@example.test"
TEXT = b"".join(b"A line of a letter as people write them, not long and not short.\r\n" for _ in range(60))


class Relay:
    """A relay on loopback that takes everything and counts it."""

    def __init__(self) -> None:
        self.taken = 0
        self._more = asyncio.Event()

    async def until(self, count: int) -> None:
        """Return once `count` messages are here in all."""
        while self.taken < count:
            self._more.clear()
            await self._more.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of smtp-out."""
        writer.write(b"220 relay.test\r\n")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-relay.test\r\n250 PIPELINING\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    await writer.drain()
                    while await reader.readline() != b".\r\n":
                        pass
                    self.taken += 1
                    self._more.set()
                    writer.write(b"250 2.0.0 taken\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    writer.write(b"250 2.0.0 well\r\n")
        writer.close()


def message(sender: str, recipient: str, number: int) -> bytes:
    """4 KB with headers of its own."""
    return (
        f"From: {sender}\r\nTo: {recipient}\r\nSubject: letter {number}\r\nMessage-ID: <{number}@soak.test>\r\n"
        "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\n"
    ).encode() + TEXT


async def incoming(port: int, count: int, first: int) -> None:
    async with dialled(port) as line:
        await line.smtp()
        await line.smtp(b"EHLO load.test\r\n")
        for number in range(first, first + count):
            await deliver(line, "friend@far.test", ANN, message("friend@far.test", ANN, number))


async def outgoing(port: int, count: int, first: int) -> None:
    async with dialled(port, tls=True) as line:
        await line.smtp()
        await line.smtp(b"EHLO laptop.test\r\n")
        await line.smtp(plain(ANN))
        for number in range(first, first + count):
            await deliver(line, ANN, "friend@far.test", message(ANN, "friend@far.test", number))


async def read(line: Line, count: int) -> None:
    """Read all `count` messages that came, and throw them away."""
    await line.imap(b"SELECT INBOX")
    for first in range(1, count + 1, 500):
        await line.imap(b"FETCH %d:%d (UID FLAGS ENVELOPE BODY[])" % (first, min(first + 499, count)))
    await line.imap(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
    await line.imap(b"EXPUNGE")


async def shared(work: Callable[[int, int, int], Awaitable[None]], port: int, count: int, first: int) -> None:
    """`work` on several sessions at once."""
    part = count // SESSIONS
    async with asyncio.TaskGroup() as group:
        for session in range(SESSIONS):
            group.create_task(work(port, part, first + session * part))  # type: ignore[arg-type]


async def rounds(ports: dict[str, int], pids: dict[str, int], relay: Relay) -> list[dict[str, Any]]:
    """A row of MiB by room for each round."""
    rows = []
    count = MESSAGES // ROUNDS // 2 // SESSIONS * SESSIONS
    for number in range(ROUNDS):
        started, first = time.monotonic(), number * count
        await shared(incoming, ports["smtp"], count, first)
        await shared(outgoing, ports["submissions"], count, first)
        await relay.until((number + 1) * count)
        async with dialled(ports["imaps"], tls=True) as line:
            await line.reader.readline()
            await line.imap(f'LOGIN {ANN} "{PASSWORD}"'.encode())
            await read(line, count)
            await line.imap(b"LOGOUT")
        row = {room: round(pss(pid), 1) for room, pid in pids.items()}
        rows.append({"messages": 2 * first + 2 * count, "seconds": round(time.monotonic() - started), **row})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


async def soak(folder: Path) -> list[dict[str, Any]]:
    relay = Relay()
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    settings = dataclasses.replace(
        Settings(), relay_host="127.0.0.1", relay_port=server.sockets[0].getsockname()[1], relay_tls="none"
    )
    ports: dict[str, int] = {}
    with seven_rooms(folder, settings, ports) as pids:
        await asyncio.to_thread(command, folder, "account", "add", ANN, PASSWORD)
        rows = await rounds(ports, pids, relay)
    server.close()
    return rows


def grown(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The rooms that took more at the end than after the first tenth, beyond what is allowed."""
    after, end = rows[ROUNDS // 10 - 1], rows[-1]
    rooms = [name for name in end if name not in ("messages", "seconds")]
    return {
        room: f"{after[room]} to {end[room]} MiB"
        for room in rooms
        if end[room] > after[room] * ALLOWED_SHARE + ALLOWED_MIB
    }


def measure() -> dict[str, Any]:
    """MiB by room after each round, and the rooms that grew (none: met)."""
    with tempfile.TemporaryDirectory(prefix="mailstead-bench-") as folder:
        rows = asyncio.run(soak(Path(folder)))
    return {"messages": MESSAGES, "grew": grown(rows) or "none", "rounds": rows}
