"""Opens the sockets that a room listens on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

BACKLOG = 1024  # a burst of reconnecting clients after a restart; the kernel caps it at somaxconn


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port` or `:port` (an empty host is every address); raises ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def bind(address: str) -> list[socket.socket]:
    """Sockets bound to `address`: one for v4 and one for v6 where the host is empty and the kernel has IPv6.

    Raises OSError with the address in its text, so that the owner sees which port is taken.
    """
    host, port = host_and_port(address)
    families: list[tuple[int, str]]
    if host:
        families = [
            (int(entry[0]), str(entry[4][0])) for entry in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        ]
        families = families[:1] if port == 0 else families
    else:
        families = [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as on_failure:
        for family, name in families:
            try:
                opened = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                continue  # a kernel without IPv6
            on_failure.callback(opened.close)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # One socket per family: peers on v4 must not show as ::ffff:192.0.2.1 in records and bans.
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                opened.bind((name, port or (sockets[0].getsockname()[1] if sockets else 0)))
            except OSError as error:
                if family == socket.AF_INET6 and sockets and not host:
                    opened.close()
                    continue  # IPv6 is switched off in this container
                raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
            opened.setblocking(False)
            sockets.append(opened)
        on_failure.pop_all()
    return sockets


class Listener:
    """The servers on one address; closing it stops accepting, open connections live on."""

    def __init__(self, servers: list[asyncio.Server], port: int) -> None:
        """`port` is the one the kernel gave."""
        self.servers = servers
        self.port = port

    def close(self) -> None:
        """Stop accepting."""
        for server in self.servers:
            server.close()


async def listen(factory: Callable[[], asyncio.BaseProtocol], address: str, *, backlog: int = BACKLOG) -> Listener:
    """Serve `factory`'s protocols on `address` (`host:port`; port 0: any free one)."""
    loop = asyncio.get_running_loop()
    sockets = bind(address)
    servers = [await loop.create_server(factory, sock=each, backlog=backlog) for each in sockets]
    return Listener(servers, sockets[0].getsockname()[1])
