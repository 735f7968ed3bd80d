"""Twenty thousand strangers who hold their connections: what they cost, and how long one honest client then waits.

200 loopback addresses open 100 connections each to one listener, read its greeting and say no more; the limits are raised
so that all are let in. Then one more client delivers a message (25) or logs in and reads it (143). Then, with the default
limits, one address opens connections until it is turned away. Called by scripts/bench; bounded to 20,000 sockets and about
two minutes. Where the machine allows a process fewer than 20,200 open files, the crowd is as large as that lets it be.
"""

import contextlib
import dataclasses
import imaplib
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import mailclients  # noqa: E402

from services.runtime.values import Settings  # noqa: E402
from tests.bench.memory import pss, seven_rooms  # noqa: E402
from tests.bench.rooms import PASSWORD, command  # noqa: E402

ADDRESSES, EACH = 200, 100
SECONDS_BAR, MIB_BAR = 2.0, 300.0
SPARE_FILES = 200  # what a room opens beside its connections
ANN = "ann@example.test"
RAISED = dataclasses.replace(Settings(), max_connections=25_000, max_connections_per_peer=200)


def connect(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))


def greeting(connection: socket.socket) -> bytes:
    """The first line of what a listener says; b"" when it closed without a word."""
    line = b""
    while not line.endswith(b"\n") and (more := connection.recv(512)):
        line += more
    return line


@contextlib.contextmanager
def held(port: int, each: int) -> Iterator[float]:
    """All the strangers inside, `each` from an address; how many seconds they took to come in."""
    with contextlib.ExitStack() as crowd:
        started = time.monotonic()
        for number in range(ADDRESSES):
            source = f"127.9.{number // 100}.{number % 100 + 1}"
            inside = [crowd.enter_context(connect(port, source)) for _ in range(each)]
            for connection in inside:
                line = greeting(connection)
                assert line.startswith((b"220", b"* OK")), line
        yield time.monotonic() - started


def turned_away(port: int) -> tuple[int, str]:
    """How many connections one address was given under the limits, and what the next was told."""
    with contextlib.ExitStack() as opened:
        for number in range(1000):
            line = greeting(opened.enter_context(connect(port, "127.8.0.1")))
            if not line.startswith((b"220", b"* OK")):
                return number, line.decode().strip()
    raise AssertionError("one address was never turned away")


def seconds(port: int, *, smtp: bool) -> float:
    """What one honest client waits for its whole errand."""
    started = time.monotonic()
    if smtp:
        mailclients.deliver(port, "a@far.test", [ANN], mailclients.letter("a@far.test", ANN).message)
    else:
        with imaplib.IMAP4("127.0.0.1", port, timeout=20) as client:
            client.starttls(mailclients.trusting())
            client.login(ANN, PASSWORD)
            client.select("INBOX")
    return time.monotonic() - started


def measure() -> dict[str, Any]:
    """Per listener: MiB before and with the crowd, seconds of the honest client, and what the limits say."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the rooms inherit it
    each = EACH if hard == resource.RLIM_INFINITY else min(EACH, (hard - SPARE_FILES) // ADDRESSES)
    result: dict[str, Any] = {"connections": ADDRESSES * each, "seconds_bar": SECONDS_BAR, "mib_bar": MIB_BAR}
    with tempfile.TemporaryDirectory(prefix="mailstead-bench-") as folder:
        ports: dict[str, int] = {}
        with seven_rooms(Path(folder, "raised"), RAISED, ports) as pids:
            command(Path(folder, "raised"), "account", "add", ANN, PASSWORD)
            for room, port in (("smtp-in", ports["smtp"]), ("imap", ports["imap"])):
                smtp = room == "smtp-in"
                seconds(port, smtp=smtp)
                before = pss(pids[room])
                with held(port, each) as coming:
                    waited = max(seconds(port, smtp=smtp) for _ in range(3))
                    result[room] = {
                        "mib_before": round(before, 1),
                        "mib": round(pss(pids[room]), 1),
                        "honest_seconds": round(waited, 2),
                        "seconds_to_come_in": round(coming, 1),
                    }
        with seven_rooms(Path(folder, "default"), Settings(), ports):
            for room, port in (("smtp-in", ports["smtp"]), ("imap", ports["imap"])):
                let_in, words = turned_away(port)
                result[f"{room}_default_limits"] = {"one_address": let_in, "next": words}
    return result
