"""The resolver: what is asked, what is believed, what is remembered, what is noted."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nameserver import NameServer, Zone

from services.protocol.dns_lookup import Asking, Question
from services.runtime.dns import (
    DnsError,
    NoAnswer,
    NoSuchName,
    Recorded,
    Resolver,
    TemporaryFailure,
    ZoneLookup,
    settle,
)
from services.runtime.dns_resolver import MAX_NEGATIVE_TTL, MAX_TTL, Memory
from services.runtime.dns_wire import Exchange, Found, answers, read_answer, wire_name

ZONE: Zone = {
    ("a.test", "A"): ["192.0.2.1"],
    ("two.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.test", "AAAA"): ["2001:db8::1"],
    ("a.test", "MX"): ["20 b.test.", "10 a.test."],
    ("null.test", "MX"): ["0 ."],
    ("a.test", "TXT"): ['"v=spf1 " "-all"', '"\\195\\188"'],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["a.test."],
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR"): ["six.test."],
    ("alias.test", "CNAME"): ["other.test."],
    ("other.test", "CNAME"): ["a.test."],
    ("dangling.test", "CNAME"): ["gone.test."],
    ("circle.test", "CNAME"): ["circle.test."],
    ("a-b_c.test", "TXT"): ['"x"'],
    ("fail.test", "TXT"): "SERVFAIL",
    ("refused.test", "TXT"): "REFUSED",
    ("long.test", "TXT"): "TC",
    ("long.test", "TXT after TC"): ['"over TCP"'],
    ("old.test", "TXT"): "NOEDNS",
    ("old.test", "TXT after NOEDNS"): ['"old"'],
    ("xn--bcher-kva.test", "A"): ["192.0.2.9"],
}
QUICK = (0.2, 0.2, 0.2)
QUICKEST = (0.05, 0.05)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def story(play: Callable[[NameServer, Resolver], Awaitable[Any]], zone: Zone | None = None, **words: Any) -> NameServer:
    async def run() -> NameServer:
        clock = words.pop("clock", Clock())
        waits = words.pop("waits", QUICK)
        async with NameServer(zone or ZONE, **words) as server:
            resolver = Resolver(server.server, clock)
            resolver._exchange = Exchange(server.server, waits)
            try:
                await play(server, resolver)
            finally:
                resolver.close()
            return server

    return asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (lambda r: r.ipv4("two.test"), {"192.0.2.1", "192.0.2.2"}),
        (lambda r: r.ipv4("A.Test."), ["192.0.2.1"]),
        (lambda r: r.ipv6("a.test"), ["2001:db8::1"]),
        (lambda r: r.addresses("a.test"), ["2001:db8::1", "192.0.2.1"]),
        (lambda r: r.mx("a.test"), [(10, "a.test"), (20, "b.test")]),
        (lambda r: r.mx("null.test"), [(0, "")]),
        (lambda r: r.txt("a.test"), {b"v=spf1 -all", b"\xc3\xbc"}),
        (lambda r: r.txt("a-b_c.test"), [b"x"]),
        (lambda r: r.ptr("192.0.2.1"), ["a.test"]),
        (lambda r: r.ptr("2001:db8::1"), ["six.test"]),
        (lambda r: r.ipv4("alias.test"), ["192.0.2.1"]),
        (lambda r: r.ipv4("bücher.test"), ["192.0.2.9"]),
        (lambda r: r.txt("long.test"), [b"over TCP"]),
        (lambda r: r.txt("old.test"), [b"old"]),
        (lambda r: r.txt("gone.test"), NoSuchName("gone.test does not exist")),
        (lambda r: r.txt("dangling.test"), NoSuchName("dangling.test does not exist")),
        (lambda r: r.mx("a-b_c.test"), NoAnswer("a-b_c.test has no MX record")),
        (lambda r: r.addresses("gone.test"), NoSuchName("gone.test does not exist")),
        (lambda r: r.txt("fail.test"), TemporaryFailure("TXT of fail.test: the resolver could not find out")),
        (lambda r: r.txt("refused.test"), TemporaryFailure("TXT of refused.test: the resolver refuses")),
        (lambda r: r.txt("a..test"), NoSuchName("a..test is not a name that DNS can hold")),
        (lambda r: r.txt("a" * 64 + ".test"), NoSuchName("a" * 64 + ".test is not a name that DNS can hold")),
        (lambda r: r.txt(".".join(["abcdefg"] * 32)), NoSuchName(".".join(["abcdefg"] * 32)[:100] + " is not a name that DNS can hold")),
        (lambda r: r.txt(""), NoSuchName(" is not a name that DNS can hold")),
        (lambda r: r.txt("\udcff.test"), NoSuchName("\udcff.test is not a name that DNS can hold")),
    ],
)  # fmt: skip
def test_questions(ask: Callable[[Resolver], Awaitable[Any]], found: Any) -> None:
    async def play(server: NameServer, resolver: Resolver) -> None:
        for _ in range(2):  # the second time from memory
            if isinstance(found, DnsError):
                with pytest.raises(DnsError) as caught:
                    await ask(resolver)
                assert (type(caught.value), str(caught.value)) == (type(found), str(found))
            else:
                answer = await ask(resolver)
                assert (set(answer) if isinstance(found, set) else answer) == found  # name servers turn sets round

    story(play)


def test_what_is_known_is_not_asked_again() -> None:
    clock = Clock()

    async def play(server: NameServer, resolver: Resolver) -> None:
        async def ask(name: str) -> int:
            before = len(server.asked)
            try:
                (await resolver.txt(name)).clear()  # what a caller does with its list stays with it
            except DnsError:
                pass
            return len(server.asked) - before

        assert [await ask("a.test") for _ in range(3)] == [1, 0, 0]
        assert [await ask("A.TEST.") for _ in range(3)] == [0, 0, 0]
        assert [await ask("gone.test") for _ in range(3)] == [1, 0, 0]
        assert [await ask("alias.test") for _ in range(2)] == [1, 0]
        assert [await ask("fail.test") for _ in range(2)] == [1, 1]  # a failure is not knowledge
        clock.now += 29
        assert [await ask(name) for name in ("a.test", "gone.test", "alias.test")] == [0, 0, 0]
        clock.now += 2  # the SOA's minimum is 30, its own TTL 60 (RFC 2308 §5)
        assert [await ask(name) for name in ("a.test", "gone.test")] == [0, 1]
        clock.now += 270
        assert await ask("a.test") == 1

    story(play, clock=clock)


@pytest.mark.parametrize(("ttl", "soa_ttl", "minimum"), [(0, 0, 30), (0, 60, 0)])
def test_nothing_is_remembered_that_should_not_be(ttl: int, soa_ttl: int, minimum: int) -> None:
    async def play(server: NameServer, resolver: Resolver) -> None:
        for _ in range(2):
            await resolver.txt("a.test")
            with pytest.raises(NoSuchName):
                await resolver.txt("gone.test")
        assert len(server.asked) == 4

    story(play, ttl=ttl, soa_ttl=soa_ttl, minimum=minimum)


def test_a_question_that_many_ask_at_once_goes_out_once() -> None:
    async def play(server: NameServer, resolver: Resolver) -> None:
        answers = await asyncio.gather(*(resolver.txt("a.test") for _ in range(50)))
        assert len(server.asked) == 1 and all(answer == answers[0] for answer in answers)
        failed = await asyncio.gather(*(resolver.txt("fail.test") for _ in range(50)), return_exceptions=True)
        assert len(server.asked) == 2 and {type(each) for each in failed} == {TemporaryFailure}
        with pytest.raises(TemporaryFailure):
            await resolver.txt("fail.test")

    story(play)


def test_who_asked_first_may_be_cancelled() -> None:
    async def play(server: NameServer, resolver: Resolver) -> None:
        server.held = asyncio.Event()
        first = asyncio.ensure_future(resolver.txt("a-b_c.test"))
        others = [asyncio.ensure_future(resolver.txt("a-b_c.test")) for _ in range(3)]
        await server.asks(1)
        others[0].cancel()
        first.cancel()
        await asyncio.wait([first, others[0]])
        assert first.cancelled() and others[0].cancelled()
        await server.asks(2)
        server.held.set()
        assert await asyncio.gather(*others[1:]) == [[b"x"]] * 2
        assert len(server.asked) == 2

    story(play, waits=(5.0,))


# --- what is believed ---------------------------------------------------------------------------------------------------


def forged(answer: bytes) -> list[bytes]:
    """Answers that are none of ours, then none at all."""
    number = struct.unpack("!H", answer[:2])[0]
    return [
        b"",
        answer[:11],
        struct.pack("!H", number ^ 1) + answer[2:],
        answer[:2] + bytes((answer[2] & 0x7F,)) + answer[3:],  # a query
        answer[:2] + bytes((answer[2] | 0x08,)) + answer[3:],  # another opcode
        answer.replace(b"\1a\4test", b"\1b\4test", 1),
        answer[:4] + b"\0\0" + answer[6:],  # no question
    ]


def test_what_does_not_answer_the_question_is_not_believed() -> None:
    async def play(server: NameServer, resolver: Resolver) -> None:
        server.mangle = forged
        with pytest.raises(TemporaryFailure, match="no answer within 0 seconds"):
            await resolver.txt("a.test")
        server.mangle = lambda answer: [*forged(answer), answer]
        assert len(await resolver.txt("a.test")) == 2

    story(play, waits=QUICKEST)


def test_an_answer_from_elsewhere_is_not_seen() -> None:
    """The socket is connected: a datagram with the right number from another port never arrives."""

    async def play(server: NameServer, resolver: Resolver) -> None:
        loop = asyncio.get_running_loop()
        other, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))

        def elsewhere(answer: bytes) -> list[bytes]:
            other.sendto(answer, server.clients[-1])
            return []

        server.mangle = elsewhere
        with pytest.raises(TemporaryFailure):
            await resolver.txt("a.test")
        other.close()

    story(play, waits=QUICKEST)


def test_a_lost_datagram_is_sent_again_from_another_port() -> None:
    async def play(server: NameServer, resolver: Resolver) -> None:
        left = [[], [b"garbage"]]
        server.mangle = lambda answer: left.pop() if left else [answer]
        assert await resolver.ipv6("a.test") == ["2001:db8::1"]
        assert len(server.asked) == 3 and len(set(server.clients)) == 3

    story(play, waits=(0.05, 0.05, 5.0))


def test_a_socket_serves_only_so_many_questions() -> None:
    async def play(server: NameServer, resolver: Resolver) -> None:
        await asyncio.gather(*(resolver.txt(f"n{n}.test") for n in range(250)), return_exceptions=True)
        assert len(server.asked) == 250 and len(set(server.clients)) == 3

    story(play, waits=(5.0,))


def test_a_resolver_that_is_away_is_said_at_once_and_found_again() -> None:
    async def run() -> None:
        async with NameServer(ZONE) as server:
            port = server.port
        resolver = Resolver(f"127.0.0.1:{port}")
        with pytest.raises(TemporaryFailure, match="Connection refused"):
            await asyncio.wait_for(resolver.txt("a.test"), 1)
        again = NameServer(ZONE)
        loop = asyncio.get_running_loop()
        import nameserver

        udp, _ = await loop.create_datagram_endpoint(lambda: nameserver._Datagrams(again), ("127.0.0.1", port))
        assert await resolver.txt("a-b_c.test") == [b"x"]
        resolver.close()
        udp.close()

    asyncio.run(run())


def test_a_resolver_can_be_used_in_another_loop() -> None:
    """Tests and commands run several."""
    resolver = Resolver("")
    for _ in range(2):

        async def run() -> None:
            async with NameServer(ZONE, ttl=0) as server:
                resolver._exchange._addresses = [("127.0.0.1", server.port)]
                assert await resolver.txt("a-b_c.test") == [b"x"]

        asyncio.run(run())
    resolver.close()


def test_an_answer_that_is_too_long_is_notread_answer() -> None:
    zone: Zone = {("big.test", "TXT"): "TC", ("big.test", "TXT after TC"): [f'"{n:05}{"x" * 200}"' for n in range(90)]}

    async def play(server: NameServer, resolver: Resolver) -> None:
        with pytest.raises(TemporaryFailure, match="more than 16384 octets"):
            await resolver.txt("big.test")

    story(play, zone)


def test_an_alias_that_leads_to_itself_is_no_answer() -> None:
    query = dns.message.make_query("circle.test", "TXT")
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text("circle.test.", 300, "IN", "CNAME", "circle.test."))
    with pytest.raises(TemporaryFailure, match="cannot be read"):
        read_answer(response.to_wire(), "TXT", "circle.test")


@given(st.binary(max_size=200), st.binary(max_size=80))
def test_any_octets_are_an_answer_or_a_temporary_failure(head: bytes, tail: bytes) -> None:
    query = dns.message.make_query("a.test", "TXT")
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text("a.test.", 300, "IN", "TXT", '"v=spf1 -all"'))
    wire = response.to_wire()
    question = wire[12:24]
    assert answers(wire, response.id, question) and not answers(wire, response.id ^ 1, question)
    flags = wire[:2] + bytes((wire[2] | 0x04, wire[3] | 0x80))
    for data in (head, wire[:12] + head, wire[:24] + head, flags + wire[4:24] + head + tail, wire + tail):
        if answers(data, response.id, question):
            try:
                assert isinstance(read_answer(data, "TXT", "a.test"), Found)
            except TemporaryFailure:
                pass


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_not(name: str) -> None:
    try:
        made = wire_name(name)
    except NoSuchName:
        return
    assert len(made) <= 255 and made.endswith(b"\0")


# --- memory -------------------------------------------------------------------------------------------------------------


def test_memory_has_limits() -> None:
    clock = Clock()
    memory = Memory(clock, 10_000)
    memory.put(("a.test", "TXT"), Found((b"x",), "", 1 << 31))
    memory.put(("b.test", "TXT"), Found((), "name", 1 << 31))
    clock.now += MAX_NEGATIVE_TTL
    assert memory.get(("b.test", "TXT")) is None and memory.get(("a.test", "TXT")) is not None
    clock.now += MAX_TTL - MAX_NEGATIVE_TTL
    assert memory.get(("a.test", "TXT")) is None and len(memory) == 0 and memory.octets == 0
    roomy = Memory(clock)
    roomy.put(("big.test", "TXT"), Found((b"x" * 20_000,), "", 60))
    assert len(roomy) == 0
    for number in range(1000):
        memory.put((f"n{number}.test", "A"), Found(("192.0.2.1",), "", 60))
        memory.put((f"n{number}.test", "A"), Found(("192.0.2.1",), "", 60))
        memory.put((f"n{number}.test", "MX"), Found(((10, "a.test"),), "", 60))
        assert 0 < memory.octets <= 10_000
    assert memory.get(("n999.test", "A")) and not memory.get(("n0.test", "A"))


# --- the record ---------------------------------------------------------------------------------------------------------


def test_questions_are_noted_for_the_record() -> None:
    zone = ZoneLookup(
        {
            ("a.test", "TXT"): [b"v=spf1 -all", b"\xc3\xbc \x1b[31m"],
            ("a.test", "MX"): [(0, "")],
            ("b.test", "MX"): [(10, "x.test")],
            ("a.test", "A"): ["192.0.2.1"],
            ("7.2.0.192.in-addr.arpa", "PTR"): ["a.test"],
            ("away.test", "A"): [TemporaryFailure("no answer")],
            ("long.test", "TXT"): [b"x" * 500],
        }
    )

    def policy() -> Asking[None]:
        for name, kind in [
            ("a.test", "TXT"), ("a.test", "TXT"), ("a.test", "MX"), ("b.test", "MX"), ("a.test", "A"), ("a.test", "AAAA"),
            ("192.0.2.7", "PTR"), ("gone.test", "A"), ("away.test", "A"), ("long.test", "TXT"),
        ]:  # fmt: skip
            try:
                yield Question(name, kind)  # type: ignore[arg-type]
            except DnsError:
                pass

    async def run() -> None:
        recorded = Recorded(zone)
        await settle(policy(), recorded)
        assert recorded.lines == [
            "TXT a.test → v=spf1 -all, ü ?[31m",
            "MX a.test → 0 (takes no mail)",
            "MX b.test → 10 x.test",
            "A a.test → 192.0.2.1",
            "AAAA a.test → no AAAA record",
            "PTR 192.0.2.7 → a.test",
            "A gone.test → no such name",
            "A away.test → no answer now (no answer)",
            f"TXT long.test → {'x' * 181}...",
        ]
        assert await recorded.addresses("a.test") == ["192.0.2.1"]
        assert recorded.lines[-1] == "A, AAAA a.test → 192.0.2.1"
        for number in range(60):
            with pytest.raises(NoSuchName):
                await recorded.ipv4(f"{'n' * 250}{number}.test")
        assert len(recorded.lines) == 40 and recorded.lines[-1] == "... and 31 more questions"
        assert all(len(line) <= 200 for line in recorded.lines)

    asyncio.run(run())
