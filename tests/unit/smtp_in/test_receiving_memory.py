"""Fifty messages of 25 MB at once through the room's own process: its memory stays below 120 MB.

The real thing with real sizes, in a process of its own since a test's own memory is no measure. It writes 1.3 GB into
the test's folder and removes them.
"""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.runtime import secrets
from tests.receivingroom import ISSUED, Conversation, ReceivingRoom

SESSIONS = 50
OCTETS = 25_000_000
BOUND = 120_000_000
LINE = b"0123456789abcdef" * 4 + b"\r\n"
CHUNK = LINE * 4000

ROOM = """
import asyncio, sys
from services.runtime.health import Health
from services.runtime.events import NoEvents
from services.runtime.process import Context, new_runner
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from services.smtp_in.room import serve

async def main(folder):
    at = "127.0.0.1:0"
    settings = Settings(
        mail_domain="example.test", mail_dir=folder + "/mail", routing_dir=folder + "/routing", room_dir=folder,
        certs_dir=folder + "/certs", secrets_dir=folder + "/secrets", smtp_listen=at, lmtp_listen=at, http_listen=at,
        smtp_proxy_listen=at,
        imap_url="http://127.0.0.1:9", forward_address="127.0.0.1:9", disk_reserve_percent=0, max_connections_per_peer=99,
    )
    context = Context("smtp-in", settings, NoEvents(), Secrets(settings.secrets_dir), Health("smtp-in"))
    serving = asyncio.create_task(serve(context))
    while not context.health.started:
        await asyncio.sleep(0.01)
    print(context.ports["smtp"], flush=True)
    await serving

with new_runner() as runner:
    runner.run(main(sys.argv[1]))
"""


def most_memory(pid: int) -> int:
    """The largest resident set that the process ever had, in octets."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("the kernel does not tell")


async def send_all(port: int) -> list[str]:
    """All sessions in step, so that every message is half here at the same time."""
    sessions = [Conversation(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(SESSIONS)]
    for session in sessions:
        await session.reply()
        answer = await session.say("EHLO x", "MAIL FROM:<a@b.test>", "RCPT TO:<anna@example.test>", "DATA")
        assert answer.startswith("354")
        session.writer.write(b"Subject: large\r\n\r\n")
    for _ in range(OCTETS // len(CHUNK) + 1):
        for session in sessions:
            session.writer.write(CHUNK)
        await asyncio.gather(*(session.writer.drain() for session in sessions))
    for session in sessions:
        session.writer.write(b".\r\n")

    async def last(session: Conversation) -> str:
        async with asyncio.timeout(300):
            return (await session.reader.readline()).decode()

    answers = await asyncio.gather(*(last(session) for session in sessions))
    for session in sessions:
        session.close()
    return answers


def test_fifty_messages_of_25_mb_at_once(tmp_path: Path) -> None:
    for name in ("mail/example.test/anna/new", "routing", "auth", "certs/1", "secrets"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "certs/1/fullchain.pem").write_bytes(ISSUED.chain)
    (tmp_path / "certs/1/privkey.pem").write_bytes(ISSUED.key)
    (tmp_path / "certs/current").symlink_to("1")
    secrets.make(str(tmp_path / "secrets"), secrets.every_name())
    ReceivingRoom(tmp_path).publish()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3]), "MALLOC_ARENA_MAX": "2"}
    process = subprocess.Popen(
        [sys.executable, "-c", ROOM, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    new = tmp_path / "mail/example.test/anna/new"
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        idle = most_memory(process.pid)
        began = time.monotonic()
        answers = asyncio.run(send_all(port))
        print(f"{most_memory(process.pid) / 1e6:.0f} MB (idle {idle / 1e6:.0f}) in {time.monotonic() - began:.1f} s")
        assert [answer[:9] for answer in answers] == ["250 2.6.0"] * SESSIONS
        assert most_memory(process.pid) < BOUND
        sizes = [path.stat().st_size for path in new.iterdir()]
        assert len(sizes) == SESSIONS
        assert min(sizes) > OCTETS
    finally:
        process.kill()
        process.wait()
        for path in new.iterdir():
            path.unlink()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-s"]))
