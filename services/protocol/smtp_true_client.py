"""Who a message really comes from, where a relay or a proxy stands between: a value, and nothing that decides.

`smtp/engine.py` keeps one per session beside the peer; policies judge by it. The peer is who opened the connection:
limits, bans and trust go by that. `client` is whom SPF, DNSBL and the rest are about.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

# How the client is known: it is the peer itself (""), or who said so.
Via = Literal["", "proxy", "xclient", "xforward", "received"]


@dataclass(frozen=True, slots=True)
class Client:
    """`address` is an IP address as `ipaddress` writes it, "" where the relay does not know it: then nothing is judged.

    `helo` is what the client called itself at the relay, `name` what the relay found by DNS; "" each where unknown.
    """

    address: str
    helo: str = ""
    name: str = ""
    via: Via = ""


def plain_address(text: str) -> str:
    """`text` as `ipaddress` writes it, an IPv4 address in an IPv6 one by itself; "" where it is no address.

    `IPv6:` before it (RFC 5321 §4.1.3) is allowed, a zone is not: it means something on one machine only.
    """
    if len(text) > 64:
        return ""
    if text[:5].upper() == "IPV6:":
        text = text[5:]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return ""
        return str(address.ipv4_mapped or address)
    return str(address)
