"""Under which names the page may be opened: what the Host header of a request may say.

A name that an attacker owns and points at this machine must not open the page, for then his script would be of the same
origin as it (DNS rebinding). So only names are taken that he cannot own: those of the settings and, where ADMIN_BIND
opens the page to a LAN or VPN, addresses as such, names without a dot, and names below the domains that no registry
gives away (RFC 6762 §3 .local, RFC 8375 home.arpa, and .internal, which ICANN has reserved in 2024).
"""

from __future__ import annotations

import ipaddress
import re

from services.runtime.values import Settings

_HOME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.(local|home\.arpa|internal)|[a-z0-9_-]{1,63}")


class Hosts:
    """The names of one installation."""

    def __init__(self, settings: Settings) -> None:
        """Names only: which port they stand with is of no interest."""
        more = (name.strip().lower() for name in settings.admin_hosts.split(","))
        listens_on = settings.admin_listen.rpartition(":")[0]
        self.names = frozenset({"127.0.0.1", "localhost", "[::1]", settings.hostname, listens_on, *more} - {""})
        self._at_home = settings.admin_tls

    def knows(self, host: str) -> bool:
        """Whether a Host header, with or without a port, names us."""
        name = re.sub(r":[0-9]{0,5}$", "", host.lower()) if not host.endswith("]") else host.lower()
        if name in self.names:
            return True
        return self._at_home and (_HOME.fullmatch(name) is not None or _is_address(name))


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name))
    except ValueError:
        return False
