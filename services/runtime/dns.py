"""DNS as rooms use it: `Lookup` is what they ask, `settle` drives a policy's questions with one.

`Resolver` (dns_resolver.py) is the stack's own resolver, with a memory; `Recorded` notes what was asked for the record;
tests pass `ZoneLookup`, a dictionary.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

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
from services.runtime.dns_resolver import Resolver

__all__ = [
    "DnsError",
    "Lookup",
    "NoAnswer",
    "NoSuchName",
    "Recorded",
    "Resolver",
    "TemporaryFailure",
    "ZoneLookup",
    "ask",
    "settle",
]

# Of one message in the record: SPF's limits allow more than a hundred questions, and a TXT record 64 KB.
RECORDED_LINES = 40
RECORDED_CHARACTERS = 200

Value = TypeVar("Value")


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


class Recorded:
    """A `Lookup` that notes each question with its answer, one line each, for the record of a message.

    `TXT example.org → v=spf1 -all`; `A gone.example → no such name`. What a policy asked for twice stands there once.
    """

    def __init__(self, lookup: Lookup) -> None:
        """Asks `lookup`; nothing is noted yet."""
        self._lookup = lookup
        self._lines: dict[str, str] = {}
        self._more = 0

    @property
    def lines(self) -> list[str]:
        """At most 40 lines of at most 200 characters, in the order in which answers came."""
        lines = list(self._lines.values())
        return [*lines, f"... and {self._more} more questions"] if self._more else lines

    async def mx(self, domain: str) -> list[tuple[int, str]]:
        """See `Lookup.mx`."""
        return await self._noted(
            "MX", domain, self._lookup.mx(domain), lambda found: f"{found[0]} {found[1] or '(takes no mail)'}"
        )

    async def addresses(self, host: str) -> list[str]:
        """See `Lookup.addresses`."""
        return await self._noted("A, AAAA", host, self._lookup.addresses(host), str)

    async def ipv4(self, host: str) -> list[str]:
        """See `Lookup.ipv4`."""
        return await self._noted("A", host, self._lookup.ipv4(host), str)

    async def ipv6(self, host: str) -> list[str]:
        """See `Lookup.ipv6`."""
        return await self._noted("AAAA", host, self._lookup.ipv6(host), str)

    async def txt(self, name: str) -> list[bytes]:
        """See `Lookup.txt`."""
        return await self._noted("TXT", name, self._lookup.txt(name), lambda found: found.decode("utf-8", "replace"))

    async def ptr(self, address: str) -> list[str]:
        """See `Lookup.ptr`."""
        return await self._noted("PTR", address, self._lookup.ptr(address), str)

    async def _noted(
        self, kind: str, name: str, asking: Awaitable[list[Value]], shown: Callable[[Value], str]
    ) -> list[Value]:
        try:
            answer = await asking
        except NoSuchName:
            self._note(kind, name, "no such name")
            raise
        except NoAnswer:
            self._note(kind, name, f"no {kind} record")
            raise
        except DnsError as error:
            self._note(kind, name, f"no answer now ({error})")
            raise
        # A name may have thousands of records; only what fits the line is written out.
        self._note(kind, name, ", ".join(shown(each) for each in answer[:RECORDED_CHARACTERS]))
        return answer

    def _note(self, kind: str, name: str, answer: str) -> None:
        key = f"{kind} {name}"
        if key in self._lines:
            return
        if len(self._lines) >= RECORDED_LINES - 1:
            self._more += 1
            return
        line = f"{key[:RECORDED_CHARACTERS]} → {answer}"
        if len(line) > RECORDED_CHARACTERS:
            line = line[: RECORDED_CHARACTERS - 3] + "..."
        self._lines[key] = line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


class ZoneLookup:
    """`Lookup` from a dictionary `{(name, type): [values]}`; a value that is an exception is raised. For tests."""

    def __init__(self, zone: Mapping[tuple[str, str], list[object]]) -> None:
        """Names are lower-case without a last dot; MX values are (preference, name), TXT values bytes."""
        self._zone = zone

    def close(self) -> None:
        """As `Resolver.close`; nothing is open."""

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
