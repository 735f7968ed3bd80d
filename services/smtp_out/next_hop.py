"""Where a message goes next: our own smtp-in, the relay, or a domain's mail servers, in the order they are to be tried.

`destination_of` names what shares connections and troubles; the queue stores it per recipient. `Hops.find` turns it
into servers when an attempt is made, so that a changed relay or MX counts at once. Raises `NoRoute` with the words that
the sender will read where there is none. Never connects.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.protocol.smtp_remote import RemoteReply
from services.runtime.dns import Lookup, NoAnswer, NoSuchName, TemporaryFailure
from services.runtime.listener import host_and_port
from services.runtime.values import Settings

LOCAL = "local"
RELAY = "relay"
# Before the destination of a forward: a lane of its own, so that what a target thinks of the mail that others wrote, or
# a day's number that is used up, never holds back the people of the house; and the other way round.
FORWARD = "forward:"
# A domain with more servers than this has some that answer; trying all of twenty would hold a slot for ten minutes.
MAX_HOPS = 8
# A zone may name thousands of servers, each of which takes ten seconds to be not found.
MAX_NAMES = 20
NAMES_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Hop:
    """One server to try: `host` is connected to (an address, or a name where the system resolves it), `name` is what
    it is called."""

    host: str
    port: int
    name: str

    def __str__(self) -> str:
        return self.name if self.host == self.name else f"{self.name} [{self.host}]"


class NoRoute(Exception):
    """There is no server to try. `reply` says why; its class says whether there may be one later."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.reply = RemoteReply(code, (text,))


class LocalDomains(Protocol):
    """What is asked of the directory."""

    def is_local(self, domain: str, /) -> bool: ...


def destination_of(address: str, directory: LocalDomains, settings: Settings, kind: str = "submission") -> str:
    """`local`, `relay`, or the domain (lower case); for a forward with `forward:` before it."""
    domain = address.rpartition("@")[2].lower()
    if directory.is_local(domain):
        return LOCAL
    if kind != "forward":
        return RELAY if settings.relay_host else domain
    return FORWARD + (RELAY if settings.relay_host and settings.forward_route != "direct" else domain)


def route_of(destination: str) -> str:
    """Where a destination's mail goes, whatever lane it is in."""
    return destination.removeprefix(FORWARD)


def relay_address(settings: Settings) -> tuple[str, int]:
    """RELAY_HOST in the forms docker-mailserver's users know: `host`, `host:port`, `[host]`, `[host]:port`, and
    `[2001:db8::1]:port`. Brackets round a name mean "no MX lookup" to Postfix; a relay never has one here.

    Raises ValueError with a sentence for the owner.
    """
    text = settings.relay_host.strip()
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if not closed or not host or rest == ":" or (rest and not rest.startswith(":")):
            raise ValueError(f"RELAY_HOST={text!r} is not host, host:port or [host]:port")
    elif text.count(":") > 1:
        host, port = text, ""  # an IPv6 address without brackets
    else:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"RELAY_HOST={text!r}: {port!r} is not a port")
    return host.removeprefix("IPv6:"), int(port) if port else settings.relay_port


class Hops:
    """Finds servers; DNS and chance are passed in."""

    def __init__(
        self, settings: Settings, lookup: Lookup, shuffle: Callable[[list[str]], None] = random.shuffle
    ) -> None:
        self._settings, self._lookup, self._shuffle = settings, lookup, shuffle

    async def find(self, destination: str) -> list[Hop]:
        """The servers for `destination`, best first, at least one. Raises NoRoute."""
        destination = route_of(destination)
        if destination == LOCAL:
            host, port = host_and_port(self._settings.lmtp_address)
            return [Hop(host, port, host)]
        if destination == RELAY:
            return await self._relay()
        if destination.startswith("["):
            return [self._literal(destination)]
        return await self._direct(destination)

    async def _relay(self) -> list[Hop]:
        if not self._settings.relay_host:
            raise NoRoute(451, "4.3.5 There is no relay any more")
        host, port = relay_address(self._settings)
        if _is_address(host):
            return [Hop(host, port, host)]
        try:
            addresses = await self._lookup.addresses(host)
        except (NoSuchName, NoAnswer):
            # A name of the house (/etc/hosts, another container) that public DNS does not know: the system may.
            return [Hop(host, port, host)]
        except TemporaryFailure as error:
            raise NoRoute(451, f"4.4.3 The relay's name cannot be looked up now: {error}") from None
        return [Hop(address, port, host) for address in addresses[:MAX_HOPS]]

    def _literal(self, destination: str) -> Hop:
        """RFC 5321 §4.1.3: `[192.0.2.1]` or `[IPv6:2001:db8::1]`."""
        text = destination[1:-1]
        text = text[5:] if text[:5].lower() == "ipv6:" else text
        if not _is_address(text):
            raise NoRoute(550, f"5.1.2 {destination} is not an address")
        return Hop(text, self._settings.mx_port, destination)

    async def _direct(self, domain: str) -> list[Hop]:
        """RFC 5321 §5.1."""
        hops: list[Hop] = []
        later: TemporaryFailure | None = None
        names = await self._exchanges(domain)
        if len(names) > MAX_NAMES:
            later = TemporaryFailure(f"it has {len(names)} of them")
        begun = asyncio.get_running_loop().time()
        for name in names[:MAX_NAMES]:
            if len(hops) >= MAX_HOPS or (later and asyncio.get_running_loop().time() - begun > NAMES_SECONDS):
                break
            try:
                addresses = await self._lookup.addresses(name)
            except TemporaryFailure as error:
                later = error
                continue
            except (NoSuchName, NoAnswer):
                continue
            hops += [Hop(address, self._settings.mx_port, name) for address in addresses]
        if self._settings.out_ipv6 == "no":
            # A refusal for want of a PTR is permanent: it would be the answer, and IPv4 would never be tried.
            hops = [hop for hop in hops if ":" not in hop.host] or hops
        if hops:
            return hops[:MAX_HOPS]
        if later is not None:
            raise NoRoute(451, f"4.4.3 The mail servers of {domain} cannot be looked up now: {later}")
        raise NoRoute(550, f"5.4.4 No mail server of {domain} has an address")

    async def _exchanges(self, domain: str) -> list[str]:
        """The names of the domain's mail servers, best first, without those that come after ourselves."""
        try:
            records = await self._lookup.mx(domain)
        except NoSuchName:
            raise NoRoute(550, f"5.1.2 The domain {domain} does not exist") from None
        except NoAnswer:
            return [domain]  # RFC 5321 §5.1: the implicit MX
        except TemporaryFailure as error:
            raise NoRoute(451, f"4.4.3 The mail servers of {domain} cannot be looked up now: {error}") from None
        if any(name in ("", ".") for _, name in records):
            # RFC 7505 §4.1: a null MX says that the domain takes no mail; 556 and 5.1.10 are its codes.
            raise NoRoute(556, f"5.1.10 The domain {domain} takes no mail")
        own = min((preference for preference, name in records if self._is_us(name)), default=None)
        if own is not None:
            # RFC 5321 §5.1: ourselves and everybody behind us are cut, else mail would go round in circles.
            records = [(preference, name) for preference, name in records if preference < own]
            if not records:
                raise NoRoute(550, f"5.4.6 The mail server of {domain} is this one, which does not serve that domain")
        return self._in_order(records)

    def _in_order(self, records: list[tuple[int, str]]) -> list[str]:
        """By preference; at random within one, as RFC 5321 §5.1 spreads the load."""
        names: list[str] = []
        for preference in sorted({preference for preference, _ in records}):
            equal = sorted({name.lower().rstrip(".") for value, name in records if value == preference})
            self._shuffle(equal)
            names += [name for name in equal if name not in names]
        return names

    def _is_us(self, name: str) -> bool:
        return name.lower().rstrip(".") == self._settings.hostname


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
