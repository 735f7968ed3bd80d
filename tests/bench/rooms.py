"""What the long measurements share: the owner's commands on seven rooms, and mail clients that keep a connection."""

import asyncio
import base64
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery staple"
SECONDS = 60  # longest wait for one answer: a machine under full load is slow, not dead


def command(folder: Path, *arguments: str) -> str:
    """`mailstead ARGUMENTS` on the data folder; what it printed. The rooms see a change within a second."""
    done = subprocess.run(
        [sys.executable, "-m", "services.admin.cli", "--data", folder, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    time.sleep(1.2)
    return done.stdout


class Line:
    """One connection of a line protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def smtp(self, sent: bytes = b"", expect: int = 2) -> bytes:
        """Send, and return the reply's last line; fails when its first digit is another than `expect`."""
        if sent:
            self.writer.write(sent)
        async with asyncio.timeout(SECONDS):
            while True:
                line = await self.reader.readline()
                assert line[:1] == b"%d" % expect, (sent[:60], line)
                if line[3:4] == b" ":
                    return line

    async def imap(self, sent: bytes) -> None:
        """Send a command under the tag `a` and read to its OK; what it answers is read and dropped."""
        self.writer.write(b"a " + sent + b"\r\n")
        async with asyncio.timeout(SECONDS):
            while not (line := await self.reader.readline()).startswith(b"a "):
                assert line, "the connection was closed"
                if line.endswith(b"}\r\n"):
                    await self.reader.readexactly(int(line[line.rindex(b"{") + 1 : -3]))
        assert line.startswith(b"a OK"), line


@asynccontextmanager
async def dialled(port: int, *, tls: bool = False) -> AsyncIterator[Line]:
    """A connection to a loopback port; certificates are self-signed here, nobody verifies them."""
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


async def deliver(line: Line, sender: str, recipient: str, message: bytes) -> None:
    """One message on an open SMTP session, its commands in one burst (RFC 2920)."""
    line.writer.write(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
    await line.smtp()
    await line.smtp()
    await line.smtp(expect=3)
    await line.smtp(message + b".\r\n")


def plain(account: str) -> bytes:
    """AUTH PLAIN with PASSWORD (RFC 4616)."""
    return b"AUTH PLAIN " + base64.b64encode(f"\0{account}\0{PASSWORD}".encode()) + b"\r\n"
