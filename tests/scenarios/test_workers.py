"""Two workers of smtp-in as processes behind one port: both take mail, one may die, a hold reaches both, stop is whole."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

from services.runtime.internal_http import Client, PeerUnavailable
from services.runtime.process import Context
from services.runtime.values import Settings
from tests.receivingroom import Conversation, ReceivingRoom

ROOT = Path(__file__).parents[2]
LETTER = b"Subject: x\r\n\r\nhello\r\n"
PATIENCE = 20.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


class Workers(ReceivingRoom):
    """The room as a process of its own, with the neighbours of `ReceivingRoom` in this one."""

    process: asyncio.subprocess.Process

    async def _run_room(self, values: dict[str, Any]) -> None:
        smtp, proxy, lmtp, http = free_ports(4)
        values |= {
            "smtp_listen": f"127.0.0.1:{smtp}", "smtp_proxy_listen": f"127.0.0.1:{proxy}",
            "lmtp_listen": f"127.0.0.1:{lmtp}", "http_listen": f"127.0.0.1:{http}",
            "events_dir": str(self.folder / "events"), "smtp_workers": 2,
        }  # fmt: skip
        settings = Settings(**values)
        changed = {
            name: value for name, value in dataclasses.asdict(settings).items() if value != getattr(Settings(), name)
        }
        environment = {name.upper(): str(value) for name, value in changed.items()}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.smtp_in", cwd=ROOT, env={"PATH": os.environ["PATH"], **environment}
        )
        self.context = Context("smtp-in", settings, self.events, self.secrets, health=None)  # type: ignore[arg-type]
        self.context.ports.update(smtp=smtp, proxy=proxy, lmtp=lmtp, http=http)
        self.admin = Client("admin", self.secrets, "smtp-in", f"http://127.0.0.1:{http}")
        try:
            await self.until(lambda status: status["workers"] == 2)
        except TimeoutError:
            self.process.kill()
            raise

    async def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((await self.admin.request("GET", "/v1/status")).body))
        except PeerUnavailable:
            return {"workers": 0}

    async def until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while not reached(status := await self.status()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return status

    def pids(self) -> list[int]:
        return [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children())]

    def record(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for path in sorted((self.folder / "events" / "smtp-in").iterdir()):
            lines += [json.loads(line) for line in path.read_bytes().splitlines()]
        return lines

    async def stop(self) -> None:
        self.admin.close()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), PATIENCE) == 0


@contextlib.asynccontextmanager
async def two_workers(folder: Path) -> AsyncIterator[Workers]:
    async with Workers(folder) as room:
        yield room


async def deliver(room: Workers, sessions: int, messages: int) -> None:
    """So many sessions one after the other in each of some tasks at once, a message each."""

    async def one() -> None:
        for _ in range(messages):
            client = await room.client()
            answer = await client.send("a@sender.test", ["anna@example.test"], LETTER)
            assert answer.startswith("250"), answer
            client.close()

    await asyncio.gather(*(one() for _ in range(sessions)))


def test_both_take_mail_and_one_record_has_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with two_workers(tmp_path) as room:
            await deliver(room, 8, 8)
            status = await room.until(lambda status: status["messages"] == 64)
            assert status["workers"] == 2
            letters = room.messages()
            assert len(letters) == 64 and len(set(letters)) == 64  # each has a trace of its own
            assert not list((room.mail / ".incoming").glob("*Q*"))
        rows = {path.name.partition("-")[2] for path in (tmp_path / "events" / "smtp-in").iterdir()}
        assert rows == {"", "1.jsonl"}, "a row of segments for each worker"
        taken = [line for line in room.record() if line["kind"] == "delivered"]
        assert len(taken) == 64

    asyncio.run(run())


def test_a_worker_that_dies_is_missed_and_replaced(tmp_path: Path) -> None:
    async def run() -> None:
        async with two_workers(tmp_path) as room:
            first, second = room.pids()
            os.kill(second, signal.SIGKILL)
            await room.until(lambda status: status["workers"] == 1)
            await deliver(room, 2, 3)  # the other goes on alone
            health = await asyncio.to_thread(_health, room.port("http"))
            assert "worker 1" in json.dumps(health), health
            await room.until(lambda status: status["workers"] == 2)
            assert room.pids()[0] == first and room.pids()[1] != second
            await deliver(room, 4, 4)
            assert len(room.messages()) == 22

    asyncio.run(run())


def test_the_others_do_not_outlive_the_first(tmp_path: Path) -> None:
    async def run() -> None:
        room = Workers(tmp_path)
        try:
            async with room:
                others = [psutil.Process(pid) for pid in room.pids()[1:]]
                os.kill(room.process.pid, signal.SIGKILL)
                _, alive = await asyncio.to_thread(psutil.wait_procs, others, PATIENCE)
                assert not alive
        except AssertionError:
            assert room.process.returncode == -signal.SIGKILL  # what `stop` found

    asyncio.run(run())


def test_a_hold_reaches_each_worker_before_it_is_answered(tmp_path: Path) -> None:
    async def run() -> None:
        async with two_workers(tmp_path) as room:
            await room.admin.post("/v1/hold", {"id": "update1", "seconds": 60, "account": ""})
            for _ in range(12):  # the kernel deals them out: with twelve, both were asked
                assert (await _first_word(room)).startswith(("421", "220 mail.example.test"))
            # The hold exempts the address that asked for it, which on loopback is everybody's; so it is looked up.
            lease = json.loads((tmp_path / "room" / "hold.json").read_text())
            assert lease["id"] == "update1"
            await room.admin.post("/v1/release", {"id": "update1"})
            await deliver(room, 4, 2)

    asyncio.run(run())


async def _first_word(room: Workers) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port("smtp"))
    conversation = Conversation(reader, writer)
    try:
        return await conversation.reply()
    finally:
        conversation.close()


def _health(port: int) -> Any:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
