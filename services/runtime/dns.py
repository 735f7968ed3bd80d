"""DNS look-ups through the stack's own resolver, with dnspython loaded at the first question.

`Lookup` is what policies are given; tests pass `ZoneLookup`, a dictionary.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from services.protocol.dns_lookup import (
    Answer,
    Asking,
    DnsError,
    NoAnswer,
    NoSuchName,
    Question,
    Result,
    TemporaryFailure,
)
from services.runtime.listener import host_and_port

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.resolver

__all__ = [
    "DnsError",
    "Lookup",
    "NoAnswer",
    "NoSuchName",
    "Resolver",
    "TemporaryFailure",
    "ZoneLookup",
    "ask",
    "settle",
]

SECONDS = 10  # for one question with its retries: a slow zone must not hold a session longer than a command


class Lookup(Protocol):
    """The questions a mail server asks. Each raises NoSuchName, NoAnswer or TemporaryFailure."""

    async def mx(self, domain: str) -> list[tuple[int, str]]:
        """(preference, exchange) pairs, the name without its last dot; a null MX is (0, "")."""

    async def addresses(self, host: str) -> list[str]:
        """IPv6 and IPv4 addresses as texts, v6 first."""

    async def ipv4(self, host: str) -> list[str]:
        """Addresses of its A records alone."""

    async def ipv6(self, host: str) -> list[str]:
        """Addresses of its AAAA records alone."""

    async def txt(self, name: str) -> list[bytes]:
        """One joined string per TXT record."""

    async def ptr(self, address: str) -> list[str]:
        """Names of an address."""


async def ask(lookup: Lookup, question: Question) -> Answer:
    """The answer to one question, in the form that `protocol/dns_lookup.py` gives. Raises as `Lookup` does."""
    match question.kind:
        case "A":
            return await lookup.ipv4(question.name)
        case "AAAA":
            return await lookup.ipv6(question.name)
        case "MX":
            return await lookup.mx(question.name)
        case "TXT":
            return await lookup.txt(question.name)
        case "PTR":
            return await lookup.ptr(question.name)


async def settle(asking: Asking[Result], lookup: Lookup) -> Result:
    """Drive a policy's questions to its decision. The caller bounds the time (`asyncio.timeout`)."""
    try:
        question = next(asking)
        while True:
            try:
                answer = await ask(lookup, question)
            except DnsError as error:
                question = asking.throw(error)
            else:
                question = asking.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result


class Resolver:
    """`Lookup` by dnspython at `server` (host:port; the host may be a name; "" = /etc/resolv.conf)."""

    def __init__(self, server: str = "") -> None:
        """Nothing is asked or imported yet."""
        self._server = server
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._at = ""

    async def mx(self, domain: str) -> list[tuple[int, str]]:
        """See `Lookup.mx`."""
        answer = await self._ask(domain, "MX")
        return sorted((record.preference, record.exchange.to_text(omit_final_dot=True).strip(".")) for record in answer)

    async def addresses(self, host: str) -> list[str]:
        """See `Lookup.addresses`."""
        found = await asyncio.gather(self._ask(host, "AAAA"), self._ask(host, "A"), return_exceptions=True)
        texts: list[str] = []
        failures: list[BaseException] = []
        for answer in found:
            if isinstance(answer, BaseException):
                failures.append(answer)
            else:
                texts += [record.address for record in answer]
        if not texts:
            # A temporary failure of either family outweighs the other's "none": the host may well have an address.
            raise next((each for each in failures if isinstance(each, TemporaryFailure)), failures[0])
        return texts

    async def ipv4(self, host: str) -> list[str]:
        """See `Lookup.ipv4`."""
        return [record.address for record in await self._ask(host, "A")]

    async def ipv6(self, host: str) -> list[str]:
        """See `Lookup.ipv6`."""
        return [record.address for record in await self._ask(host, "AAAA")]

    async def txt(self, name: str) -> list[bytes]:
        """See `Lookup.txt`."""
        return [b"".join(record.strings) for record in await self._ask(name, "TXT")]

    async def ptr(self, address: str) -> list[str]:
        """See `Lookup.ptr`."""
        name = ipaddress.ip_address(address).reverse_pointer
        return [record.target.to_text(omit_final_dot=True) for record in await self._ask(name, "PTR")]

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer:
        import dns.exception
        import dns.name
        import dns.resolver

        try:
            resolver = await self._open()
            return await resolver.resolve(name, kind, lifetime=SECONDS, search=False, raise_on_no_answer=True)
        except dns.resolver.NXDOMAIN:
            raise NoSuchName(f"{name} does not exist") from None
        except dns.resolver.NoAnswer:
            raise NoAnswer(f"{name} has no {kind} record") from None
        except (dns.name.LabelTooLong, dns.name.EmptyLabel, dns.name.NameTooLong, UnicodeError):
            raise NoSuchName(f"{name} is not a name that DNS can hold") from None
        except dns.exception.Timeout:
            self._at = ""
            raise TemporaryFailure(f"no answer for {kind} of {name} within {SECONDS} seconds") from None
        except (dns.exception.DNSException, OSError) as error:
            self._at = ""  # the resolver's container may have come back under another address
            raise TemporaryFailure(f"asking for {kind} of {name}: {error}") from None

    async def _open(self) -> dns.asyncresolver.Resolver:
        import dns.asyncresolver

        if not self._server:
            self._resolver = self._resolver or dns.asyncresolver.Resolver()
            return self._resolver
        if self._resolver is None or not self._at:
            host, port = host_and_port(self._server)
            loop = asyncio.get_running_loop()
            entries = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            # unbound listens on IPv4 alone, whatever other addresses Docker gives its container.
            self._at = str(min(entries, key=lambda entry: entry[0] != socket.AF_INET)[4][0])
            self._resolver = dns.asyncresolver.Resolver(configure=False)
            self._resolver.nameservers = [self._at]
            self._resolver.port = port
            # RFC 6840 §5.7: AD in a query asks for the answer's AD bit; unbound validates.
            self._resolver.use_edns(0, 0, 1232)
        return self._resolver


class ZoneLookup:
    """`Lookup` from a dictionary `{(name, type): [values]}`; a value that is an exception is raised. For tests."""

    def __init__(self, zone: Mapping[tuple[str, str], list[object]]) -> None:
        """Names are lower-case without a last dot; MX values are (preference, name), TXT values bytes."""
        self._zone = zone

    def _find(self, name: str, kind: str) -> list[object]:
        name = name.lower().rstrip(".")
        if (name, kind) in self._zone:
            values = self._zone[name, kind]
            for value in values:
                if isinstance(value, Exception):
                    raise value
            return values
        if any(known == name for known, _ in self._zone):
            raise NoAnswer(f"{name} has no {kind} record")
        raise NoSuchName(f"{name} does not exist")

    async def mx(self, domain: str) -> list[tuple[int, str]]:
        """See `Lookup.mx`."""
        return sorted(self._find(domain, "MX"))  # type: ignore[arg-type]

    async def addresses(self, host: str) -> list[str]:
        """See `Lookup.addresses`."""
        found: list[str] = []
        for kind in ("AAAA", "A"):
            try:
                found += [str(value) for value in self._find(host, kind)]
            except NoAnswer:
                continue
        if not found:
            raise NoAnswer(f"{host} has no address")
        return found

    async def ipv4(self, host: str) -> list[str]:
        """See `Lookup.ipv4`."""
        return [str(value) for value in self._find(host, "A")]

    async def ipv6(self, host: str) -> list[str]:
        """See `Lookup.ipv6`."""
        return [str(value) for value in self._find(host, "AAAA")]

    async def txt(self, name: str) -> list[bytes]:
        """See `Lookup.txt`."""
        return [value if isinstance(value, bytes) else str(value).encode() for value in self._find(name, "TXT")]

    async def ptr(self, address: str) -> list[str]:
        """See `Lookup.ptr`."""
        return [str(value) for value in self._find(ipaddress.ip_address(address).reverse_pointer, "PTR")]
