"""Is a peer's address its own, or that of a gateway which all peers seem to come from?

Docker's userland proxy, a router that masquerades inwards, and (before engine 27) every IPv6 peer of a bridge network
arrive as the default gateway. Such an address is nobody's: it earns no trust, no ban and no limit by peer, and SPF says
nothing about it. Used by smtp-in and smtp-out. Reads /proc/net once at start; `Watch` is pure.
"""

from __future__ import annotations

import socket
import struct

# So many connections from the gateway and from nobody else: before, it may be the owner who tries the port.
CERTAIN_AFTER = 20
_NO_ADDRESS = "0" * 32


def default_gateways(v4: str = "/proc/net/route", v6: str = "/proc/net/ipv6_route") -> frozenset[str]:
    """The addresses of the default gateways; empty where the kernel tells none."""
    found: set[str] = set()
    for line in _lines(v4)[1:]:
        # Iface Destination Gateway Flags RefCnt Use Metric Mask ...; addresses are host-endian hex.
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000" and fields[2] != "00000000":
            found.add(socket.inet_ntoa(struct.pack("=I", int(fields[2], 16))))
    for line in _lines(v6):
        # destination, its prefix length, source, its prefix length, next hop, metric ...
        fields = line.split()
        if len(fields) > 4 and fields[:2] == [_NO_ADDRESS, "00"] and fields[4] != _NO_ADDRESS:
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[4])))
    return frozenset(found)


class Watch:
    """Finds out whether everybody arrives from a gateway."""

    def __init__(self, gateways: frozenset[str]) -> None:
        """`gateways` as `default_gateways` gives them."""
        self._gateways = gateways
        self._from_gateway = 0
        self._decided = not gateways
        self.collapsed = ""  # the gateway's address, once it is certain

    def saw(self, peer: str) -> bool:
        """Count a connection; True once, when it became certain."""
        if self._decided:
            return False
        if peer not in self._gateways:
            self._decided = True  # a true address arrived: peers are told apart
            return False
        self._from_gateway += 1
        if self._from_gateway < CERTAIN_AFTER:
            return False
        self._decided, self.collapsed = True, peer
        return True


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
