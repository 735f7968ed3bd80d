"""The stack's resolver as a `Lookup`, with a memory: what was asked is not asked again while its TTL lasts.

unbound has a cache too, in the next container; going there and reading its message costs 200 µs of CPU, remembering 2,
and one message asks for the same few names that the one before it asked for. What does not exist is remembered as
RFC 2308 says; a temporary failure never: it is asked again. One question that many ask at once goes out once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable
from typing import Any

from services.protocol.dns_lookup import DnsError, Kind, NoAnswer, NoSuchName
from services.runtime.dns_wire import Exchange, Found

# A record that its owner corrects works here within the hour, whatever TTL it had.
MAX_TTL = 3600
# RFC 2308 §5 allows up to three hours; a name that was made a moment too late should not be gone for so long.
MAX_NEGATIVE_TTL = 900
MAX_OCTETS = 4 << 20  # of all that is remembered
MAX_ENTRY_OCTETS = 16_384
_ENTRY_OCTETS = 400  # key, tuple and dictionary of a small entry, measured with sys.getsizeof
_VALUE_OCTETS = 90

Key = tuple[str, Kind]


class Memory:
    """Answers and absences by question, bounded in octets; the oldest go first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MAX_OCTETS) -> None:
        """`clock` counts seconds and never goes back."""
        self._clock, self._most = clock, most
        self._entries: dict[Key, tuple[float, Found, int]] = {}
        self.octets = 0

    def __len__(self) -> int:
        """How many questions are remembered, those that ran out included."""
        return len(self._entries)

    def get(self, key: Key) -> Found | None:
        """What is known and still holds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] > self._clock():
            return entry[1]
        self._drop(key)
        return None

    def put(self, key: Key, found: Found) -> None:
        """Remember for its TTL, which RFC 2181 §8 bounds below too: one with the top bit set is zero."""
        ttl = min(found.ttl, MAX_NEGATIVE_TTL if found.missing else MAX_TTL)
        octets = _ENTRY_OCTETS + len(key[0]) + sum(map(_octets, found.values))
        if ttl <= 0 or octets > MAX_ENTRY_OCTETS:
            return
        self._drop(key)
        self._entries[key] = (self._clock() + ttl, found, octets)
        self.octets += octets
        while self.octets > self._most:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        if entry := self._entries.pop(key, None):
            self.octets -= entry[2]


def _octets(value: Any) -> int:
    return _VALUE_OCTETS + (len(value) if isinstance(value, str | bytes) else len(value[1]))


class Resolver:
    """`Lookup` at `server` (host:port; the host may be a name; "" = /etc/resolv.conf)."""

    def __init__(self, server: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is asked or imported yet."""
        self._exchange = Exchange(server)
        self._memory = Memory(clock)
        self._asked: dict[Key, asyncio.Future[Found | None]] = {}
        self.questions = 0  # that went to the resolver

    def close(self) -> None:
        """Close the socket; the resolver can be used again."""
        self._exchange.close()

    async def mx(self, domain: str) -> list[tuple[int, str]]:
        """See `Lookup.mx`."""
        return list(await self._find(domain, "MX"))

    async def addresses(self, host: str) -> list[str]:
        """See `Lookup.addresses`."""
        found = await asyncio.gather(self._find(host, "AAAA"), self._find(host, "A"), return_exceptions=True)
        texts: list[str] = []
        failures: list[BaseException] = []
        for answer in found:
            if isinstance(answer, BaseException):
                failures.append(answer)
            else:
                texts += answer
        if not texts:
            # A temporary failure of either family outweighs the other's "none": the host may well have an address.
            raise next((each for each in failures if not isinstance(each, NoAnswer | NoSuchName)), failures[0])
        return texts

    async def ipv4(self, host: str) -> list[str]:
        """See `Lookup.ipv4`."""
        return list(await self._find(host, "A"))

    async def ipv6(self, host: str) -> list[str]:
        """See `Lookup.ipv6`."""
        return list(await self._find(host, "AAAA"))

    async def txt(self, name: str) -> list[bytes]:
        """See `Lookup.txt`."""
        return list(await self._find(name, "TXT"))

    async def ptr(self, address: str) -> list[str]:
        """See `Lookup.ptr`."""
        return list(await self._find(ipaddress.ip_address(address).reverse_pointer, "PTR"))

    async def _find(self, name: str, kind: Kind) -> tuple[Any, ...]:
        key = (name.lower().removesuffix("."), kind)
        found = self._memory.get(key)
        while found is None:
            if asked := self._asked.get(key):
                found = await asyncio.shield(asked)  # None: whoever asked for us was cancelled
                continue
            found = await self._ask(key)
        match found.missing:
            case "name":
                raise NoSuchName(f"{name[:100]} does not exist")
            case "record":
                raise NoAnswer(f"{name[:100]} has no {kind} record")
        return found.values

    async def _ask(self, key: Key) -> Found:
        asked: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._asked[key] = asked
        self.questions += 1
        try:
            found = await self._exchange.ask(*key)
        except DnsError as error:
            if not asked.cancelled():
                asked.set_exception(type(error)(*error.args))
                asked.exception()  # that nobody else waited is no fault
            raise
        except BaseException:
            if not asked.done():
                asked.set_result(None)
            raise
        else:
            self._memory.put(key, found)
            if not asked.done():
                asked.set_result(found)
            return found
        finally:
            del self._asked[key]
