"""A name server on loopback for tests: UDP and TCP at one port, answers from a dictionary, faults by name.

`zone`: (lower-case name, type) → texts of records, or a fault: a string such as "SERVFAIL". A name that has other types
has no such record; any other does not exist. Each absence comes with a SOA of `soa_ttl` and `minimum`.
"""

import asyncio
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = dict[tuple[str, str], list[str] | str]


class NameServer:
    def __init__(self, zone: Zone, ttl: int = 300, soa_ttl: int = 60, minimum: int = 30) -> None:
        self.zone, self.ttl, self.soa_ttl, self.minimum = zone, ttl, soa_ttl, minimum
        self.asked: list[tuple[str, str, str]] = []  # name, type, "udp" or "tcp"
        self.clients: list[tuple[str, int]] = []
        self.without_edns = 0
        self.mangle: Callable[[bytes], list[bytes]] = lambda answer: [answer]
        self.held: asyncio.Event | None = None  # answers wait for it
        self.port = 0
        self._more = asyncio.Condition()

    async def asks(self, count: int) -> None:
        """Wait until so many questions have come."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.asked) >= count)

    async def __aenter__(self) -> "NameServer":
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        self.port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    async def tell(self) -> None:
        async with self._more:
            self._more.notify_all()

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length), "tcp")
        writer.write(len(answer).to_bytes(2) + answer)
        writer.close()

    def answer(self, data: bytes, way: str) -> bytes:
        query = dns.message.from_wire(data)
        self.without_edns += query.edns < 0
        question = query.question[0]
        name, kind = question.name.to_text(True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, way))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        found = self.zone.get((name.lower(), kind), None)
        while found is None and (alias := self.zone.get((name.lower(), "CNAME"))):
            response.answer.append(dns.rrset.from_text(f"{name}.", self.ttl, "IN", "CNAME", *alias))
            name = alias[0].rstrip(".")
            found = self.zone.get((name.lower(), kind), None)
        if found == "TC" and way == "udp":
            response.flags |= dns.flags.TC
        elif found == "NOEDNS" and query.edns >= 0:
            response.set_rcode(dns.rcode.FORMERR)
        elif isinstance(found, str) and found in ("SERVFAIL", "REFUSED"):
            response.set_rcode(dns.rcode.from_text(found))
        elif isinstance(found, str):
            found = self.zone[name.lower(), f"{kind} after {found}"]
        if isinstance(found, list) and found:
            response.answer.append(dns.rrset.from_text_list(f"{name}.", self.ttl, "IN", kind, found))
        elif found is None or found == []:
            if all(known != name.lower() for known, _ in self.zone):
                response.set_rcode(dns.rcode.NXDOMAIN)
            if self.minimum:
                soa = f"ns.test. root.test. 1 2 3 4 {self.minimum}"
                response.authority.append(dns.rrset.from_text("test.", self.soa_ttl, "IN", "SOA", soa))
        return response.to_wire(max_size=65535)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.clients.append(addr)
        answers = self._server.mangle(self._server.answer(data, "udp"))
        if self._server.held is None:
            self._send(answers, addr)
        else:
            loop = asyncio.get_running_loop()
            self._telling = loop.create_task(self._server.tell())
            waiting = loop.create_task(self._server.held.wait())
            waiting.add_done_callback(lambda _: self._send(answers, addr))

    def _send(self, answers: list[bytes], addr: tuple[str, int]) -> None:
        for answer in answers:
            self._transport.sendto(answer, addr)  # type: ignore[attr-defined]
