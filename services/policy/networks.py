"""Which part of an address stands for one sender: itself, or the network that one customer or provider has. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


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
