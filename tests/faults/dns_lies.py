"""DNS that is dead, slow or lies, while mail goes out and comes in.

    python -m tests.faults dns-lies [--messages 20] [MODE ...]

For each way of `LIES` a house gets mail for outside: it must wait (or, where DNS is only slow, arrive), nothing may
crash, no thread or descriptor may stay behind; mail from outside is taken meanwhile. Then DNS tells the truth again,
and every message arrives once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
from fakes import FakeMailServer, Script
from house import House
from mailclients import letter, until

Answer = Callable[["LyingDns", bytes], list[bytes]]
# An answer later than this is given up by whoever asks: dnspython asks anew after 2 s.
SLOW_SECONDS = 2.5


def truth(server: LyingDns, query: bytes) -> list[bytes]:
    """outside.test and its mail server; nothing else exists. Not to be remembered: the next answer may be a lie."""
    asked = dns.message.from_wire(query)
    response = dns.message.make_response(asked, recursion_available=True)
    question = asked.question[0]
    name, kind = question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name
    values = {("outside.test", "MX"): "10 mx.outside.test.", ("mx.outside.test", "A"): "127.0.0.1"}
    if (name, kind) in values:
        response.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, values[name, kind]))
    elif name not in ("outside.test", "mx.outside.test"):
        response.set_rcode(dns.rcode.NXDOMAIN)
    return [response.to_wire()]


def servfail(server: LyingDns, query: bytes) -> list[bytes]:
    """The resolver cannot find out."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.set_rcode(dns.rcode.SERVFAIL)
    return [response.to_wire()]


def slow(server: LyingDns, query: bytes) -> list[bytes]:
    """The truth, late."""
    time.sleep(SLOW_SECONDS)
    return truth(server, query)


def garbage(server: LyingDns, query: bytes) -> list[bytes]:
    """The right number, then noise; an empty datagram; half a header; a name that points at itself."""
    return [
        query[:2] + os.urandom(200), b"", query[:7], query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + b"\xc0\x0c" * 20,
    ]  # fmt: skip


def wrong_number(server: LyingDns, query: bytes) -> list[bytes]:
    """A good answer to a question that was not asked: as who guesses at numbers sends."""
    (answer,) = truth(server, query)
    (number,) = struct.unpack("!H", query[:2])
    return [struct.pack("!H", (number + step) & 0xFFFF) + answer[2:] for step in range(1, 40)]


def other_question(server: LyingDns, query: bytes) -> list[bytes]:
    """The right number, another question."""
    response = dns.message.make_response(dns.message.make_query("evil.test", "MX"))
    response.id = dns.message.from_wire(query).id
    return [response.to_wire()]


def truncated(server: LyingDns, query: bytes) -> list[bytes]:
    """Ask by TCP; and there nobody speaks."""
    response = dns.message.make_response(dns.message.from_wire(query))
    response.flags |= dns.flags.TC
    return [response.to_wire()]


def circle(server: LyingDns, query: bytes) -> list[bytes]:
    """A name that is another name for the first."""
    asked = dns.message.from_wire(query)
    response = dns.message.make_response(asked, recursion_available=True)
    owner = asked.question[0].name
    other = dns.name.from_text("circle.test")
    for here, there in ((owner, other), (other, owner)):
        response.answer.append(dns.rrset.from_text(here, 60, "IN", "CNAME", there.to_text()))
    return [response.to_wire()]


def huge(server: LyingDns, query: bytes) -> list[bytes]:
    """Two thousand mail servers, by TCP; each of them cannot be found out."""
    asked = dns.message.from_wire(query)
    if asked.question[0].rdtype.name != "MX":
        return servfail(server, query)
    response = dns.message.make_response(asked, recursion_available=True)
    if not server.by_tcp:
        response.flags |= dns.flags.TC
        return [response.to_wire()]
    names = [f"10 mx{number}.outside.test." for number in range(2000)]
    response.answer.append(dns.rrset.from_text(asked.question[0].name, 60, "IN", "MX", *names))
    return [response.to_wire(max_size=65535)]


def dead(server: LyingDns, query: bytes) -> list[bytes]:
    """Silence."""
    return []


LIES: dict[str, Answer] = {
    "dead": dead, "servfail": servfail, "garbage": garbage, "wrong-number": wrong_number,
    "other-question": other_question, "truncated": truncated, "circle": circle, "huge": huge, "slow": slow,
}  # fmt: skip


class LyingDns:
    """UDP and TCP on one port; `answer` may be changed at any time."""

    def __init__(self) -> None:
        self.answer: Answer = truth
        self.asked = 0
        self._here = threading.local()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._udp.getsockname()[1]}"
        self._tcp = socket.create_server(self._udp.getsockname())
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    @property
    def by_tcp(self) -> bool:
        """Whether the question at hand came by TCP."""
        return getattr(self._here, "tcp", False)

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, peer = self._udp.recvfrom(4096)
                self.asked += 1
                threading.Thread(target=self._answer_udp, args=(query, peer), daemon=True).start()

    def _answer_udp(self, query: bytes, peer: object) -> None:
        with contextlib.suppress(OSError):
            for answer in self.answer(self, query):
                self._udp.sendto(answer, peer)  # type: ignore[arg-type]

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                threading.Thread(target=self._answer_tcp, args=(connection,), daemon=True).start()

    def _answer_tcp(self, connection: socket.socket) -> None:
        self._here.tcp = True
        connection.settimeout(20)
        with contextlib.suppress(OSError, struct.error), connection:
            (size,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
            query = connection.recv(size, socket.MSG_WAITALL)
            if self.answer is truncated:
                connection.recv(1)  # silence, until the other side has had enough
            for answer in self.answer(self, query):
                connection.sendall(struct.pack("!H", len(answer)) + answer)


def held(house: House) -> tuple[int, int]:
    """(descriptors, threads) of the house's process."""
    assert house.process
    process = Path(f"/proc/{house.process.pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def try_lie(house: House, ann: str, server: LyingDns, outside: FakeMailServer, name: str, count: int) -> str:
    """One way of lying; what was seen."""
    server.answer, asked = LIES[name], server.asked
    sent = [letter(ann, f"p{number}@outside.test") for number in range(count)]
    for each in sent:
        house.submit(ann, "friend@outside.test", message=each.message)

    def waiting() -> bool:
        queue = house.asked("queue", "list")["messages"]
        mine = [each for each in queue if each["sender"] == ann]
        said = [recipient for each in mine for recipient in each["recipients"]]
        tried = [recipient for recipient in said if recipient["attempts"]]
        assert not any(recipient["state"] == "failed" for recipient in said), said
        return len(mine) == count and bool(tried) and all("looked up" in each["last_reply"] for each in tried)

    coming = letter("friend@outside.test", ann)
    started = time.monotonic()
    house.receive("friend@outside.test", ann, message=coming.message)
    taken = time.monotonic() - started
    house.letter(ann, coming.message_id)
    if name != "slow":
        until(waiting, 90, 0.5)
        assert not [one for one in sent if any(one.message_id.encode() in each.message for each in outside.received)]
    questions = server.asked - asked
    server.answer = truth
    house.command("queue", "retry", "--all")
    ours = {each.message_id for each in sent}

    def arrived() -> Counter[str]:
        return Counter(one for each in outside.received for one in ours if one.encode() in each.message)

    until(lambda: set(arrived()) == ours, 90, 0.5)
    assert set(arrived().values()) == {1}
    until(lambda: not house.asked("queue", "list")["messages"], 30, 0.5)
    return f"{count} arrived once; {questions} questions; mail in meanwhile {taken:.2f} s"


def nothing_left(house: House, before: tuple[int, int]) -> None:
    """Descriptors and threads are as before, but for a connection or two that wait for the next message."""
    with contextlib.suppress(AssertionError):
        until(lambda: held(house)[0] <= before[0] + 6 and held(house)[1] <= before[1] + 4, 30, 0.5)
    assert held(house)[0] <= before[0] + 6 and held(house)[1] <= before[1] + 4, (held(house), before)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults dns-lies")
    parser.add_argument("modes", nargs="*", choices=[*LIES, []])
    parser.add_argument("--messages", type=int, default=20)
    given = parser.parse_args(arguments)
    server, outside = LyingDns(), FakeMailServer(Script())
    with tempfile.TemporaryDirectory(prefix="mailstead-dns-") as folder:
        house = House(Path(folder), {"RESOLVER": server.address, "MX_PORT": str(outside.port), "RETRY_FIRST": "1"})
        try:
            house.start()
            ann = house.account()
            try_lie(house, ann, server, outside, "slow", 8)  # so that pools and caches are as they will be
            before = held(house)
            for name in given.modes or LIES:
                started = time.monotonic()
                told = try_lie(house, ann, server, outside, name, given.messages)
                nothing_left(house, before)
                print(
                    f"{name:15} {told}; {held(house)} descriptors and threads, {before} before;  held, {time.monotonic() - started:.1f} s",
                    flush=True,
                )
            assert "Traceback" not in house.log, house.log[-4000:]
        finally:
            house.kill()
            server.close()
            outside.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
