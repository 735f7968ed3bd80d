"""Whom the owner trusts to say where a connection or a message comes from: by address, by certificate, or by both.

Nothing is trusted because it comes from a private range (ARCHITECTURE, rule 6), and no gateway's address is: many peers
may arrive from it (`gateway.py`). Made by a room from its settings, asked by the engine.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

from services.protocol.smtp_true_client import plain_address

_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")


class Peers:
    """Addresses and networks."""

    def __init__(self, text: str) -> None:
        """Separated by commas or spaces, as a setting has them. Raises ValueError with the word that is neither."""
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for word in text.replace(",", " ").split():
            try:
                self._networks.append(ipaddress.ip_network(word.strip("[]"), strict=False))
            except ValueError:
                raise ValueError(f"{word!r} is not an address or a network") from None

    def __bool__(self) -> bool:
        """Whether anybody is named."""
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        """Whether `address` is named; what is no address is not."""
        plain = plain_address(str(address))
        if not self._networks or not plain:
            return False
        value = ipaddress.ip_address(plain)
        return any(value.version == network.version and value in network for network in self._networks)


class Forwarders:
    """Mail servers of the owner's that hand on mail to us."""

    def __init__(self, addresses: str = "", certificates: str = "", nobodys: frozenset[str] = frozenset()) -> None:
        """As the settings have them; `nobodys` are addresses that many peers may arrive from. Raises ValueError."""
        self.addresses = Peers(addresses)
        self._nobodys = nobodys
        self._fingerprints: set[str] = set()
        for word in certificates.replace(",", " ").split():
            fingerprint = word.replace(":", "").lower()
            if not _FINGERPRINT.match(fingerprint):
                raise ValueError(f"{word!r} is not the SHA-256 fingerprint of a certificate (64 hexadecimal digits)")
            self._fingerprints.add(fingerprint)

    def __bool__(self) -> bool:
        """Whether anybody is named."""
        return bool(self.addresses or self._fingerprints)

    @property
    def by_certificate(self) -> bool:
        """Whether a certificate is asked for."""
        return bool(self._fingerprints)

    def trusts(self, address: str, certificate: bytes | None) -> bool:
        """Whether the peer at `address` who showed `certificate` (DER) is one of them.

        An address alone is the owner's consent. Where fingerprints are named as well, both must be right.
        """
        if self._fingerprints:
            if certificate is None or hashlib.sha256(certificate).hexdigest() not in self._fingerprints:
                return False
            return not self.addresses or address in self.addresses
        return address in self.addresses and address not in self._nobodys
