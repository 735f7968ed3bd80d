"""Which part of an address stands for one sender: itself, or the network that one customer or provider has. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# Loopback, link-local, and what RFC 1918, RFC 6598 and RFC 4193 set aside for houses, tunnels and containers.
_HOUSES = tuple(
    ipaddress.ip_network(each)
    for each in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


@lru_cache(4096)
def in_the_house(address: str) -> bool:
    """Whether `address` is of a machine in the house or its tunnels: DNS has no name for it, and nobody counts it.

    That is no trust: such a machine may be broken into, or a gateway behind which the whole world is.
    """
    try:
        parsed = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in _HOUSES if network.version == parsed.version)


@lru_cache(4096)
def network_of(address: str, v4: int, v6: int) -> str:
    """The network of `address` with `v4` or `v6` leading bits, as text; what is no address is returned as it is.

    An IPv4 address mapped into IPv6 (::ffff:192.0.2.1, as a socket for both families gives it) is an IPv4 address.
    """
    try:
        parsed = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    bits = v4 if parsed.version == 4 else v6
    return str(ipaddress.ip_network((parsed, bits), strict=False)) if bits < parsed.max_prefixlen else str(parsed)
