"""Questions to the stack's resolver over UDP, over TCP where an answer does not fit; messages are read by dnspython.

dnspython's own asynchronous resolver costs 390 µs of CPU a question: it makes a socket, two tasks and a message object
for each. Here questions share a socket and are written by hand, answers are checked before they are read, and a
question costs less than half of it. Called by `runtime/dns_resolver.py` alone, which knows what was asked before.

Who could forge an answer must be on the network between us and unbound, in the next container; still every question
has a random number, a socket serves only so many of them before the next has another port, the kernel drops what does
not come from the resolver's address, and an answer must repeat the question (RFC 5452 §9).

dnspython is loaded at the first question.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Literal

from services.protocol.dns_lookup import Kind, NoSuchName, TemporaryFailure
from services.protocol.idn import a_labels
from services.runtime.listener import host_and_port

# For one question with its retries: a slow zone must not hold a session longer than a command. unbound itself gives up
# later, so the last wait is the longest.
WAITS = (2.0, 3.0, 5.0)
QUESTIONS_PER_SOCKET = 100
# An answer of 64 KB can hold 4,000 records, which would hold the loop for 60 ms; nobody's honest one has a quarter.
MAX_ANSWER = 16_384

_TYPES: dict[Kind, int] = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
# Recursion desired; RFC 6840 §5.7: AD in a question asks for the answer's AD bit. One question, one additional record.
_HEADER = struct.Struct("!HHHHHH")
_FLAGS = 0x0120
# RFC 6891 §6.1.2: the root, OPT, 1232 octets, which fit any path unfragmented; no DNSSEC records wanted.
_EDNS = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
_TRUNCATED = 0x0200
_NO_ERROR, _FORMAT_ERROR, _SERVER_FAILURE, _NO_NAME, _NOT_IMPLEMENTED, _REFUSED = range(6)


@dataclass(frozen=True, slots=True)
class Found:
    """What a question brought: values in the form of `protocol/dns_lookup.py`, or what is missing. `ttl` in seconds."""

    values: tuple[Any, ...]
    missing: Literal["", "name", "record"]
    ttl: int


def wire_name(name: str) -> bytes:
    """A name as DNS sends it (RFC 1035 §3.1); every dot of the text parts labels. Raises NoSuchName.

    No escapes: what SPF's macros or a client made of a name is asked for as it is.
    """
    try:
        text = name if name.isascii() else a_labels(name)
    except ValueError:
        text = ""
    labels = text.removesuffix(".").encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels) or sum(map(len, labels)) + len(labels) > 254:
        raise NoSuchName(f"{name[:100]} is not a name that DNS can hold")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


class Exchange:
    """Asks one resolver: `server` is host:port, whose host may be a name; "" is /etc/resolv.conf."""

    def __init__(self, server: str = "", waits: tuple[float, ...] = WAITS) -> None:
        """Nothing is asked or opened yet. `waits`: seconds that each attempt has."""
        self._server, self._waits = server, waits
        self._addresses: list[tuple[str, int]] = []
        self._socket: _Socket | None = None

    def close(self) -> None:
        """Close the socket; a question that waits for its answer fails."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def ask(self, name: str, kind: Kind) -> Found:
        """One question. Raises NoSuchName for what is no name, TemporaryFailure for what got no answer."""
        question = wire_name(name) + struct.pack("!HH", _TYPES[kind], 1)
        problem = f"no answer within {sum(self._waits):.0f} seconds"
        edns = _EDNS
        for attempt, wait in enumerate(self._waits):
            try:
                address = await self._address(attempt)
                data = await self._datagram(address, question, edns, wait)
                if _HEADER.unpack_from(data)[1] & _TRUNCATED:
                    async with asyncio.timeout(wait):
                        data = await self._stream(address, question, edns)
            except TimeoutError:
                self._forget()
                continue
            except OSError as error:
                # The resolver's container may have come back under another address.
                self._forget()
                problem = error.strerror or str(error)
                continue
            code = data[3] & 15
            if code in (_NO_ERROR, _NO_NAME):
                return read_answer(data, kind, name)
            if code in (_FORMAT_ERROR, _NOT_IMPLEMENTED) and edns:
                edns = b""  # RFC 6891 §7: an old resolver, such as some home routers are
                continue
            problem = {_SERVER_FAILURE: "the resolver could not find out", _REFUSED: "the resolver refuses"}.get(
                code, f"the resolver answers with the error {code}"
            )
            if code != _REFUSED:
                break  # unbound has tried for long enough
        raise TemporaryFailure(f"{kind} of {name[:100]}: {problem}")

    def _forget(self) -> None:
        self._addresses = []
        self.close_when_done()

    def close_when_done(self) -> None:
        """The next question has a new socket; this one closes after its last answer."""
        if self._socket is not None:
            self._socket.retire()
            self._socket = None

    async def _address(self, attempt: int) -> tuple[str, int]:
        if not self._addresses:
            self._addresses = await self._find_addresses()
        return self._addresses[attempt % len(self._addresses)]

    async def _find_addresses(self) -> list[tuple[str, int]]:
        if not self._server:
            import dns.resolver

            system = dns.resolver.Resolver()
            return [(str(server), system.port) for server in system.nameservers]
        host, port = host_and_port(self._server)
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        # unbound listens on IPv4 alone, whatever other addresses Docker gives its container.
        first = min(entries, key=lambda entry: entry[0] != socket.AF_INET)
        return [(str(first[4][0]), port)]

    async def _datagram(self, address: tuple[str, int], question: bytes, edns: bytes, wait: float) -> bytes:
        loop = asyncio.get_running_loop()
        at = self._socket
        if at is None or not at.serves(address, loop):
            self.close_when_done()
            at = self._socket = _Socket(address, loop)
        number, answer = at.send(question, edns)
        try:
            async with asyncio.timeout(wait):
                return await answer
        finally:
            at.done(number)

    async def _stream(self, address: tuple[str, int], question: bytes, edns: bytes) -> bytes:
        """RFC 7766: the same over TCP, each message after its length in two octets."""
        number = int.from_bytes(os.urandom(2))
        reader, writer = await asyncio.open_connection(*address)
        try:
            message = _message(number, question, edns)
            writer.write(struct.pack("!H", len(message)) + message)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            if length > MAX_ANSWER:
                raise OSError(f"an answer of more than {MAX_ANSWER} octets")
            data = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise OSError("the resolver closed the connection") from None
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not answers(data, number, question):
            raise OSError("the resolver answered something else")
        return data


def _message(number: int, question: bytes, edns: bytes) -> bytes:
    return _HEADER.pack(number, _FLAGS, 1, 0, 0, int(bool(edns))) + question + edns


class _Socket:
    """One connected UDP socket and the questions that wait on it."""

    def __init__(self, address: tuple[str, int], loop: asyncio.AbstractEventLoop) -> None:
        self._address, self._loop = address, loop
        self._left = QUESTIONS_PER_SOCKET
        self._waiting: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}
        self._retired = False
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(address)  # the kernel chooses the port, and drops what comes from elsewhere
        except OSError:
            self._socket.close()
            raise
        loop.add_reader(self._socket.fileno(), self._readable)

    def serves(self, address: tuple[str, int], loop: asyncio.AbstractEventLoop) -> bool:
        return self._left > 0 and self._address == address and self._loop is loop

    def send(self, question: bytes, edns: bytes) -> tuple[int, asyncio.Future[bytes]]:
        number = int.from_bytes(os.urandom(2))
        while number in self._waiting:
            number = int.from_bytes(os.urandom(2))
        self._left -= 1
        with contextlib.suppress(BlockingIOError):  # the socket's buffer is full: as if it were lost on the way
            self._socket.send(_message(number, question, edns))
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = (question, answer)
        return number, answer

    def done(self, number: int) -> None:
        del self._waiting[number]
        if self._retired and not self._waiting:
            self.close()

    def retire(self) -> None:
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        if not self._loop.is_closed() and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(OSError("the resolver's socket was closed"))

    def _readable(self) -> None:
        for _ in range(QUESTIONS_PER_SOCKET):
            try:
                data = self._socket.recv(MAX_ANSWER)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # ICMP: nobody listens there. All who wait would wait in vain.
                for _, answer in self._waiting.values():
                    if not answer.done():
                        answer.set_exception(OSError(error.errno, error.strerror))
                return
            waiting = self._waiting.get(int.from_bytes(data[:2]))
            if waiting and not waiting[1].done() and answers(data, int.from_bytes(data[:2]), waiting[0]):
                waiting[1].set_result(data)


def answers(data: bytes, number: int, question: bytes) -> bool:
    """Whether it is the response to this question (RFC 5452 §9.1): number, kind of message, and the question again."""
    if len(data) < 12:
        return False
    got, flags, questions = _HEADER.unpack_from(data)[:3]
    if got != number or flags & 0xF800 != 0x8000:
        return False
    if questions == 0:
        return flags & 15 in (_FORMAT_ERROR, _SERVER_FAILURE, _NOT_IMPLEMENTED, _REFUSED)
    # Neither the lengths of labels nor our types and class are letters: lower() touches the name alone.
    return questions == 1 and data[12 : 12 + len(question)].lower() == question.lower()


def read_answer(data: bytes, kind: Kind, name: str) -> Found:
    """What a message holds that `answers()` found to be one for this question. Raises TemporaryFailure."""
    import dns.exception
    import dns.message

    try:
        message = dns.message.from_wire(data)
        assert isinstance(message, dns.message.QueryMessage)  # by its opcode, which answers() looked at
        chain = message.resolve_chaining()
    except (dns.exception.DNSException, ValueError, AssertionError) as error:
        raise TemporaryFailure(f"{kind} of {name[:100]}: an answer that cannot be read: {error}") from None
    if chain.answer is not None:
        return Found(_values(chain.answer, kind), "", chain.minimum_ttl)
    # RFC 2308 §5: what does not exist is remembered as long as its SOA says; without one not at all.
    ttl = chain.minimum_ttl if any(each.rdtype == 6 for each in message.authority) else 0
    return Found((), "name" if data[3] & 15 == _NO_NAME else "record", ttl)


def _values(records: Any, kind: Kind) -> tuple[Any, ...]:
    match kind:
        case "TXT":
            return tuple(b"".join(record.strings) for record in records)
        case "MX":
            return tuple(
                sorted(
                    (record.preference, record.exchange.to_text(omit_final_dot=True).strip(".")) for record in records
                )
            )
        case "PTR":
            return tuple(record.target.to_text(omit_final_dot=True) for record in records)
        case _:
            return tuple(record.address for record in records)
