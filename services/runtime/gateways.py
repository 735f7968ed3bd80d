"""The addresses of the default gateways: whoever arrives from one may be anybody.

Docker's userland proxy, a router that masquerades inwards, and (before engine 27) every IPv6 peer of a bridge network
arrive as the gateway. Such an address is nobody's: no room bans it, trusts it or counts it as one peer.
"""

from __future__ import annotations

import socket
import struct

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


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
