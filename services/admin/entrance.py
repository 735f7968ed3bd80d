"""The page's listener where ADMIN_BIND opens it to a LAN or VPN: TLS, with the certificate of the house.

Who speaks plain HTTP there is told where the page is, in HTTP, and nothing else: a browser that is given `nas:8080`
begins with http. HSTS is never sent. With the self-made certificate it would take away the button by which a person
goes on past the warning, and it would hold for every other service under this machine's name, whatever its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Collection

from services.admin.hosts import Hosts
from services.runtime.listener import TlsServer
from services.runtime.process import Context
from services.runtime.tls import NoCertificate, ServerCertificates

# Of one address at once: a browser opens six.
MOST_HANDSHAKES = 16
HANDSHAKE_SECONDS = 10.0
PLAIN_SECONDS = 5.0
MOST_PLAIN = 8192  # of a request's head
PART = "certificate of the page"

_REQUEST = re.compile(rb"(?:GET|HEAD) (/[!-~]*) HTTP/1\.[01]\r\n")
_HOST = re.compile(rb"\r\nhost:[ \t]*([!-~]+)[ \t]*\r\n", re.IGNORECASE)


class Entrance:
    """Serves a protocol on sockets over TLS; see `runtime.listener.Door` for `admit` and `failed`."""

    def __init__(self, context: Context, hosts: Hosts) -> None:
        """Nothing is opened yet."""
        self._context, self._hosts = context, hosts
        self._certificates = ServerCertificates(context.settings.certs_dir)

    async def serve(self, sockets: list[socket.socket], factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Serve until cancelled; waits for the first certificate and follows it."""
        await self._certified()
        servers = [
            TlsServer(each, factory, self._certificates.context, self, HANDSHAKE_SECONDS, self.plain)
            for each in sockets
        ]
        try:
            await self._certificates.follow()
        finally:
            for server in servers:
                server.close()

    async def _certified(self) -> None:
        while True:
            try:
                await self._certificates.wait()
            except NoCertificate as error:
                self._context.health.fail(PART, f"the admin page waits for a certificate: {error}")
            else:
                self._context.health.ok(PART)
                return

    def admit(self, peer: str, handshaking: Collection[str]) -> bool:
        """Whether `peer` may begin another handshake."""
        return sum(other == peer for other in handshaking) < MOST_HANDSHAKES

    def failed(self, peer: str, error: OSError) -> None:
        """A browser that does not like the certificate: nothing to tell anybody."""

    async def plain(self, connection: socket.socket) -> None:
        """Answer one request in plain HTTP."""
        loop = asyncio.get_running_loop()
        head = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PLAIN_SECONDS):
                while b"\r\n\r\n" not in head and len(head) < MOST_PLAIN:
                    piece = await loop.sock_recv(connection, MOST_PLAIN - len(head))
                    if not piece:
                        break
                    head += piece
                await loop.sock_sendall(connection, redirect(head, self._hosts))


def redirect(head: bytes, hosts: Hosts) -> bytes:
    """The answer to a request in plain HTTP: where the page is if it can be told, else only that it speaks TLS."""
    request, named = _REQUEST.match(head), _HOST.search(head)
    lines = ["HTTP/1.1 400 Bad Request"]
    text = "This port speaks TLS: open it with https:// in front.\n"
    if request and named and hosts.knows(host := named[1].decode("ascii")):
        page = f"https://{host}{request[1].decode('ascii')}"
        # 307: a browser that kept a permanent one would not find the page again without TLS.
        lines = ["HTTP/1.1 307 Temporary Redirect", f"Location: {page}"]
        text = f"This port speaks TLS: open {page}\n"
    lines += [
        "Content-Type: text/plain",
        f"Content-Length: {len(text)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    body = "" if head.startswith(b"HEAD ") else text
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("ascii")
