"""Is a peer's address its own, or that of a gateway which all peers seem to come from?

Docker's userland proxy, a router that masquerades inwards, and (before engine 27) every IPv6 peer of a bridge network
arrive as the default gateway. Such an address is nobody's: it earns no trust, no ban and no limit by peer, and SPF says
nothing about it. Used by smtp-in; `runtime/gateways.py` reads which addresses they are.
"""

from __future__ import annotations

# So many connections from the gateway: before, it may be the owner who tries the port.
CERTAIN_AFTER = 20


class Watch:
    """Finds out whether peers arrive from a gateway, all of them or those of one family."""

    def __init__(self, gateways: frozenset[str]) -> None:
        """`gateways` as `runtime.gateways` gives them."""
        self._gateways = gateways
        self._from_gateway = 0
        self.collapsed = ""  # the gateway's address, once it is certain

    def saw(self, peer: str) -> bool:
        """Count a connection; True once, when it became certain.

        Peers with addresses of their own beside it prove nothing: Docker's proxy carries IPv6 to a bridge without it
        while IPv4 peers keep theirs, and acme looks at the certificate from a network of its own.
        """
        if self.collapsed or peer not in self._gateways:
            return False
        self._from_gateway += 1
        if self._from_gateway < CERTAIN_AFTER:
            return False
        self.collapsed = peer
        return True
