"""Opens the sockets that a room listens on.

TLS from the first byte (465, 993) has an accept loop of its own, `listen_tls`. The obvious ways do not serve:
`create_server(ssl=...)` shakes hands with whoever comes before anybody could refuse, and upgrading a plain connection
loses a ClientHello that came with it, since uvloop begins to read right after `connection_made` whatever that says.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from services.runtime.tls import ContextNow

# Handshakes at once in one listener; who comes then waits in the kernel's queue. Each costs 100 KiB and a core 1 ms.
MAX_HANDSHAKES = 128
# A handshake over a bad mobile link takes seconds; a stranger who never ends one holds a place no longer than this.
HANDSHAKE_SECONDS = 30.0
# After running out of descriptors or memory: long enough not to spin, short enough that nobody gives up.
ACCEPT_PAUSE = 0.1
BACKLOG = 1024  # a burst of reconnecting clients after a restart; the kernel caps it at somaxconn


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port` or `:port` (an empty host is every address); raises ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def bind(address: str, *, shared: bool = False) -> list[socket.socket]:
    """Sockets bound to `address`, which may be several separated by commas, the one for the world first.

    An empty host is one socket for v4 and one for v6 where the kernel has IPv6. An address that an earlier wildcard
    covers on the same port needs none of its own. `shared`: other processes of this user may bind it too, and the
    kernel deals connections out to all (SO_REUSEPORT). Raises OSError with the address in its text, so that the owner
    sees which port is taken.
    """
    sockets: list[socket.socket] = []
    everywhere: set[tuple[int, int]] = set()  # family and port that a wildcard has
    with contextlib.ExitStack() as on_failure:
        for part in address.split(","):
            host, port = host_and_port(part.strip())
            for family, name in _families(host, port):
                if (family, port) in everywhere:
                    continue
                try:
                    opened = socket.socket(family, socket.SOCK_STREAM)
                except OSError:
                    continue  # a kernel without IPv6
                on_failure.callback(opened.close)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    # One socket per family: peers on v4 must not show as ::ffff:192.0.2.1 in records and bans.
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    opened.bind((name, port or (sockets[0].getsockname()[1] if sockets else 0)))
                except OSError as error:
                    if family == socket.AF_INET6 and sockets and not host:
                        opened.close()
                        continue  # IPv6 is switched off in this container
                    raise OSError(error.errno, f"cannot listen on {part.strip()}: {error.strerror}") from None
                opened.setblocking(False)
                sockets.append(opened)
                if name in ("0.0.0.0", "::") and port:
                    everywhere.add((family, port))
        on_failure.pop_all()
    return sockets


def _families(host: str, port: int) -> list[tuple[int, str]]:
    """Address family and numeric address of each socket that `host` asks for."""
    if not host:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
    found = [(int(entry[0]), str(entry[4][0])) for entry in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)]
    return found[:1] if port == 0 else found


def with_port(address: str, port: int) -> str:
    """`address`, with `port` where it left the choice to the kernel."""
    parts = [part.strip() for part in address.split(",")]
    return ",".join(part[:-1] + str(port) if part.endswith(":0") else part for part in parts)


class Listener:
    """The servers on one address; closing it stops accepting, open connections live on."""

    def __init__(self, servers: Collection[asyncio.Server | TlsServer], port: int) -> None:
        """`port` is the one the kernel gave."""
        self.servers = servers
        self.port = port

    def close(self) -> None:
        """Stop accepting."""
        for server in self.servers:
            server.close()


async def listen(
    factory: Callable[[], asyncio.BaseProtocol], address: str, *, backlog: int = BACKLOG, shared: bool = False
) -> Listener:
    """Serve `factory`'s protocols on `address` (`host:port`; port 0: any free one); `shared` as `bind` has it."""
    loop = asyncio.get_running_loop()
    sockets = bind(address, shared=shared)
    servers = [await loop.create_server(factory, sock=each, backlog=backlog) for each in sockets]
    return Listener(servers, sockets[0].getsockname()[1])


class Door(Protocol):
    """Who says what happens to a connection before there is a protocol for it."""

    def admit(self, peer: str, handshaking: Collection[str]) -> bool:
        """May `peer` (an address) come in? `handshaking` are the peers whose handshakes are under way."""

    def failed(self, peer: str, error: OSError) -> None:
        """`peer`'s handshake failed."""


async def listen_tls(
    factory: Callable[[], asyncio.BaseProtocol],
    address: str,
    context: ContextNow,
    door: Door,
    *,
    backlog: int = BACKLOG,
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> Listener:
    """`listen` with TLS from the first byte: protocols are made, and `connection_made` called, after the handshake."""
    sockets = bind(address)
    servers = []
    for each in sockets:
        each.listen(backlog)
        servers.append(TlsServer(each, factory, context, door, handshake_seconds))
    return Listener(servers, sockets[0].getsockname()[1])


class TlsServer:
    """One socket's accept loop and the handshakes under way."""

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        context: ContextNow,
        door: Door,
        handshake_seconds: float,
        plain: Callable[[socket.socket], Awaitable[None]] | None = None,
    ) -> None:
        """Begins to accept. `plain` is given each connection that does not begin as TLS does, before it is closed."""
        self._factory, self._context, self._door, self._seconds = factory, context, door, handshake_seconds
        self._plain = plain
        self._loop = asyncio.get_running_loop()
        self._socket = listening
        self._handshakes: dict[asyncio.Task[None], str] = {}
        self._places = asyncio.Semaphore(MAX_HANDSHAKES)
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Stop accepting and give up the handshakes under way."""
        self._accepting.cancel()
        for task in self._handshakes:
            task.cancel()

    async def _accept(self) -> None:
        try:
            while True:
                await self._places.acquire()
                try:
                    connection, address = await self._loop.sock_accept(self._socket)
                except OSError:
                    self._places.release()
                    await asyncio.sleep(ACCEPT_PAUSE)
                    continue
                peer = str(address[0])
                if not self._door.admit(peer, self._handshakes.values()):
                    self._places.release()
                    connection.close()
                    continue
                task = self._loop.create_task(self._handshake(connection, peer))
                self._handshakes[task] = peer
                task.add_done_callback(self._ended)
        finally:
            self._socket.close()

    async def _handshake(self, connection: socket.socket, peer: str) -> None:
        connection.setblocking(False)
        # What TCP servers of both loops set: a reply must not wait for the ACK of the one before.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._plain is not None and not await self._begins_as_tls(connection):
                await self._plain(connection)
                connection.close()
                return
            await self._loop.connect_accepted_socket(
                self._factory, connection, ssl=self._context(), ssl_handshake_timeout=self._seconds
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are
            connection.close()
            self._door.failed(peer, error)
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _begins_as_tls(self, connection: socket.socket) -> bool:
        """Look at the first octet and leave it where it is. Raises TimeoutError, OSError."""
        readable = asyncio.Event()
        self._loop.add_reader(connection, readable.set)
        try:
            async with asyncio.timeout(self._seconds):
                await readable.wait()
        finally:
            self._loop.remove_reader(connection)
        return connection.recv(1, socket.MSG_PEEK) == b"\x16"  # RFC 8446 §5.1: a record of type handshake

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._handshakes[task]
        self._places.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a TLS connection could not be served", "exception": error})
