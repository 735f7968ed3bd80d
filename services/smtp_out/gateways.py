"""The addresses that stand for everybody: gateways of this machine's or container's networks.

Behind a proxy that Docker keeps for published ports, every client may seem to come from the bridge's gateway. A ban of
it would lock out the house, so log-ins pass them to policy/throttle as never to be banned. Read once at start.
"""

from __future__ import annotations

import socket
import struct


def gateways(ipv4: str = "/proc/net/route", ipv6: str = "/proc/net/ipv6_route") -> list[str]:
    """Next hops of this host's routes; none where /proc does not tell."""
    found: list[str] = []
    for line in _lines(ipv4)[1:]:
        words = line.split()
        if len(words) > 2 and words[2] != "00000000":
            found.append(socket.inet_ntop(socket.AF_INET, struct.pack("=I", int(words[2], 16))))
    for line in _lines(ipv6):
        words = line.split()
        if len(words) > 4 and words[4].strip("0"):
            found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[4])))
    return sorted(set(found))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
