"""The engine on a socket: hooks that wait, fail and outlive their peer; time, back-pressure, limits, TLS, the end."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.runtime.listener import listen
from services.smtp.engine import Engine
from services.smtp.handler import EngineConfig, peer_key
from tests.dialogues.test_smtp_dialogues import client_context, server_context
from tests.receivingroom import Conversation, Recorded

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Sink:
    """Keeps a body; `drain` waits while `full`."""

    def __init__(self) -> None:
        self.body, self.aborted = b"", False
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.drains = 0
        self.broken = False

    def write(self, chunk: bytes) -> None:
        if self.broken:
            raise OSError("the disk is gone, at /secret/path")
        self.body += chunk

    async def drain(self) -> None:
        self.drains += 1
        await self.go_on.wait()

    def abort(self) -> None:
        self.aborted = True


class Hooks:
    """Says yes to everything, or what `answers` has for a hook: a value, an exception, or a function that is called."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.called: list[str] = []
        self.sinks: list[Sink] = []
        self.finished: list[bytes] = []

    def say(self, hook: str, usual: Any, *arguments: Any) -> Any:
        self.called.append(hook)
        answer = self.answers.get(hook, usual)
        if isinstance(answer, Exception):
            raise answer
        return answer(*arguments) if callable(answer) else answer

    def handle_CONNECT(self, *a: Any) -> Any:
        return self.say("CONNECT", None, *a)

    def handle_EHLO(self, *a: Any) -> Any:
        return self.say("EHLO", None, *a)

    handle_HELO = handle_EHLO

    def handle_AUTH(self, *a: Any) -> Any:
        return self.say("AUTH", replies.AUTHENTICATED, *a)

    def handle_MAIL(self, *a: Any) -> Any:
        return self.say("MAIL", replies.SENDER_OK, *a)

    def handle_RCPT(self, *a: Any) -> Any:
        return self.say("RCPT", replies.RECIPIENT_OK, *a)

    def handle_DATA_BEGIN(self, *a: Any) -> Any:
        return self.say("DATA_BEGIN", self.sink, *a)

    def sink(self, *_: Any) -> Sink:
        self.sinks.append(Sink())
        return self.sinks[-1]

    def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        return self.say("DATA", self.take, server, session, envelope)

    def take(self, server: Any, session: Any, envelope: Any) -> Reply:
        self.finished.append(envelope.sink.body)
        return replies.OK

    def handle_DISCONNECT(self, *a: Any) -> Any:
        return self.say("DISCONNECT", None, *a)


class Bench:
    """A listener with `Hooks`, and what it reported."""

    def __init__(self, **config: Any) -> None:
        self.hooks = Hooks()
        self.events = Recorded()
        self.bugs: list[tuple[str, BaseException, str]] = []
        values: dict[str, Any] = {"hostname": "mail.test", "size_limit": 50_000_000, "events": self.events}
        self.config = EngineConfig(**(values | {"bug": lambda *bug: self.bugs.append(bug)} | config))
        self.port = 0

    async def connect(self) -> Conversation:
        conversation = Conversation(*await asyncio.open_connection("127.0.0.1", self.port))
        self.open.append(conversation)
        return conversation

    async def client(self) -> Conversation:
        conversation = await self.connect()
        assert (await conversation.reply()).startswith("220")
        assert (await conversation.say("LHLO x" if self.config.lmtp else "EHLO x")).startswith("250")
        return conversation

    async def in_body(self) -> Conversation:
        conversation = await self.client()
        assert (await conversation.say("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")).startswith("354")
        return conversation

    open: list[Conversation]


@contextlib.asynccontextmanager
async def serving(bench: Bench) -> AsyncIterator[Bench]:
    bench.open = []
    listener = await listen(lambda: Engine(bench.hooks, bench.config), "127.0.0.1:0")
    bench.port = listener.port
    try:
        yield bench
    finally:
        listener.close()
        for each in bench.open:
            each.close()
        await bench.config.connections.drain(2)


def run(
    story: Callable[[Bench], Awaitable[None]],
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **config: Any,
) -> None:
    async def play() -> None:
        async with asyncio.timeout(20), serving(Bench(**config)) as bench:
            await story(bench)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(play())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def soon(answer: Any) -> Any:
    await asyncio.sleep(0.001)
    if isinstance(answer, Exception):
        raise answer
    return answer


# --- hooks


@pytest.mark.parametrize("factory", LOOPS)
def test_hooks_may_answer_at_once_or_later(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(bench: Bench) -> None:
        for hook in ("CONNECT", "EHLO", "DISCONNECT"):
            bench.hooks.answers[hook] = lambda *_: soon(None)
        for hook in ("MAIL", "RCPT", "DATA"):
            bench.hooks.answers[hook] = lambda *_: soon(replies.OK)
        bench.hooks.answers["DATA_BEGIN"] = lambda *_: soon(bench.hooks.sink())
        client = await bench.in_body()
        assert await client.say("text\r\n.", "QUIT") == "221 2.0.0 mail.test closing the connection"
        assert await client.reader.read() == b""
        await until(lambda: "DISCONNECT" in bench.hooks.called)
        assert bench.hooks.called == ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA_BEGIN", "DATA", "DISCONNECT"]

    run(story, factory)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("hook", ["EHLO", "MAIL", "RCPT", "DATA_BEGIN", "DATA"])
def test_an_exception_in_a_hook_is_451_with_an_id_and_nothing_of_its_text(hook: str, later: bool) -> None:
    async def story(bench: Bench) -> None:
        error = ValueError("the password is hunter2")
        conversation = await bench.client()
        bench.hooks.answers[hook] = (lambda *_: soon(error)) if later else error
        answer = ""
        for line in ("EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", "text\r\n."):
            answer = await conversation.say(line)
            if answer.startswith("4"):
                break
        ((identity, reported, doing),) = bench.bugs
        assert answer == f"451 4.3.0 an error here, try again later ({identity})"
        assert (reported, hook in doing) == (error, True)
        assert await conversation.say("NOOP") == "250 2.0.0 OK"

    run(story)


def test_an_exception_at_connect_turns_the_peer_away_for_now() -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.answers["CONNECT"] = ValueError("x")
        client = await bench.connect()
        assert (await client.reply()).startswith("451 4.3.0")
        assert await client.reader.read() == b""

    run(story)


def test_a_hook_that_breaks_its_contract_is_a_bug_not_a_hang() -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.answers["DATA"] = lambda *_: soon([replies.OK, replies.OK, replies.OK])
        client = await bench.in_body()
        assert (await client.say(".")).startswith("451 4.3.0")
        assert await client.reader.read() == b""
        assert bench.bugs

    run(story, lmtp=True)


def test_a_refusal_at_connect() -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.answers["CONNECT"] = Reply(554, "5.7.1", "not you")
        client = await bench.connect()
        assert await client.reply() == "554 5.7.1 not you"
        assert await client.reader.read() == b""

    run(story)


def test_the_facts_that_hooks_are_given() -> None:
    async def story(bench: Bench) -> None:
        seen: list[Any] = []

        def data(server: Any, session: Any, envelope: Any) -> Reply:
            seen.extend([session, envelope])
            return replies.OK

        bench.hooks.answers["DATA"] = data
        client = await bench.client()
        await client.say("MAIL FROM:<a@b> SIZE=4 BODY=8BITMIME", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "DATA", "text\r\n.")
        session, envelope = seen
        assert (session.peer[0], session.helo, session.extended_smtp, session.tls) == ("127.0.0.1", "x", True, False)
        assert len(session.trace) == len(envelope.trace) == 16
        assert session.trace != envelope.trace
        assert (envelope.sender.address, envelope.mail_from, envelope.params.size) == ("a@b", "a@b", 4)
        assert [each.path.address for each in envelope.recipients] == envelope.rcpt_tos == ["c@d", "e@f"]
        assert (envelope.size, envelope.sink.body) == (6, b"text\r\n")

    run(story)


def test_each_message_has_an_envelope_of_its_own() -> None:
    async def story(bench: Bench) -> None:
        seen: list[Any] = []

        def mail(server: Any, session: Any, envelope: Any, path: Any, params: Any) -> Reply:
            seen.append(envelope)
            return replies.SENDER_OK

        bench.hooks.answers["MAIL"] = mail
        client = await bench.client()
        for _ in range(2):
            await client.send("a@b", ["c@d"], b"x\r\n")
        await client.say("MAIL FROM:<a@b>", "RSET", "MAIL FROM:<a@b>", "RCPT TO:<c@d>")
        assert len({id(envelope) for envelope in seen}) == len({envelope.trace for envelope in seen}) == 4
        assert [len(envelope.recipients) for envelope in seen] == [1, 1, 0, 1]

    run(story)


# --- the body


def test_a_sink_that_lags_is_waited_for_and_the_peer_with_it() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.in_body()
        (sink,) = bench.hooks.sinks
        sink.go_on.clear()
        body = b"0123456789abcdef" * 4 + b"\r\n"
        client.writer.write(body * 500_000 + b".\r\n")  # 33 MB
        await until(lambda: sink.drains)
        await asyncio.sleep(0.03)
        held = len(sink.body)
        assert held < 4_000_000
        sink.go_on.set()
        assert (await client.reply()).startswith("250")
        assert bench.hooks.finished == [body * 500_000]
        assert sink.drains > 20

    run(story)


def test_a_sink_that_breaks_refuses_the_message_for_now() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.in_body()
        (sink,) = bench.hooks.sinks
        sink.broken = True
        client.writer.write(b"text\r\n" * 1000)
        await until(lambda: sink.aborted)
        assert (await client.say(".")).startswith("451 4.3.0")
        assert "secret" not in (await client.say("NOOP"))
        assert not bench.hooks.finished

    run(story)


def test_a_refused_body_is_given_back_before_its_end() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.in_body()
        client.writer.write(b"x" * 3000)
        (sink,) = bench.hooks.sinks
        await until(lambda: sink.aborted)
        assert (await client.say("\r\n.")).startswith("552")
        assert bench.events.of("data", outcome="reject", stage="DATA")[0]["reply"].startswith("552 5.3.4")

    run(story, size_limit=2000)


# --- peers that go away


def test_an_early_end_never_cancels_a_commit() -> None:
    """aiosmtpd cancels the handler when the peer hangs up: half a commit."""

    async def story(bench: Bench) -> None:
        committing, go_on, done = asyncio.Event(), asyncio.Event(), []

        async def commit(*_: Any) -> Reply:
            committing.set()
            await go_on.wait()
            done.append(True)
            return replies.OK

        bench.hooks.answers["DATA"] = commit
        client = await bench.in_body()
        client.writer.write(b"text\r\n.\r\n")
        await committing.wait()
        client.writer.transport.abort()
        await asyncio.sleep(0.01)
        assert len(bench.config.connections) == 1  # it still counts: a stop waits for it
        assert "DISCONNECT" not in bench.hooks.called
        go_on.set()
        await until(lambda: "DISCONNECT" in bench.hooks.called)
        assert done
        assert not bench.hooks.sinks[0].aborted
        assert len(bench.config.connections) == 0

    run(story)


def test_a_lost_connection_drops_the_body() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.in_body()
        client.writer.write(b"half a mess")
        await asyncio.sleep(0.01)
        client.writer.transport.abort()
        await until(lambda: "DISCONNECT" in bench.hooks.called)
        assert bench.hooks.sinks[0].aborted
        assert not bench.hooks.finished
        assert "DATA" not in bench.hooks.called

    run(story)


@pytest.mark.parametrize("factory", LOOPS)
def test_what_was_sent_before_the_end_is_answered(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(bench: Bench) -> None:
        bench.hooks.answers["MAIL"] = lambda *_: soon(replies.SENDER_OK)
        client = await bench.client()
        client.writer.write(b"NOOP\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        client.writer.write_eof()
        assert [line[:3] for line in (await client.reader.read()).splitlines()] == [b"250"] * 3

    run(story, factory)


# --- time


def test_a_command_must_come_in_time() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.client()
        client.writer.write(b"NO")  # half a command is no command
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.reader.read() == b""
        await until(lambda: bench.events.of("disconnect"))
        assert bench.events.of("disconnect", outcome="defer")[0]["reply"].startswith("421 4.4.2")

    run(story, command_timeout=0.05)


def test_a_body_may_take_longer_than_a_command_while_it_goes_on() -> None:
    """aiosmtpd has one timer over all of DATA."""

    async def story(bench: Bench) -> None:
        client = await bench.in_body()
        for _ in range(10):
            client.writer.write(b"x\r\n")
            await asyncio.sleep(0.02)
        assert (await client.say(".")).startswith("250")
        client = await bench.in_body()
        client.writer.write(b"x\r\n")
        assert (await client.reply()).startswith("421 4.4.2")
        await until(lambda: bench.hooks.sinks[1].aborted)
        assert bench.events.of("data", outcome="defer")

    run(story, command_timeout=0.1, data_timeout=0.1)


@pytest.mark.parametrize("chunks", [False, True])
def test_a_body_that_trickles_is_ended(chunks: bool) -> None:
    """An octet now and then would hold a place for the hour that a session may last."""

    async def story(bench: Bench) -> None:
        client = await bench.client()
        if chunks:
            await client.say("MAIL FROM:<a@b>", "RCPT TO:<c@d>")
        else:
            await client.say("MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")
        said = b""
        for _ in range(200):
            client.writer.write(b"BDAT 1\r\nx" if chunks else b"x")
            await asyncio.sleep(0.15 if chunks else 0.02)
            said = bytes(client.reader._buffer)  # type: ignore[attr-defined]
            if b"421 4.4.2" in said:
                break
        assert b"421 4.4.2" in said
        await until(lambda: bench.hooks.sinks[0].aborted)

    run(story, command_timeout=5 if chunks else 0.2, data_timeout=0.2, chunking=True)


def test_a_message_that_is_refused_anyway_may_still_be_sent_to_its_end() -> None:
    """Who was cut off in it would send it again for days."""

    async def story(bench: Bench) -> None:
        client = await bench.in_body()
        for _ in range(12):
            client.writer.write(b"bare\n" + b"x" * 200 + b"\r\n")
            await asyncio.sleep(0.02)
        client.writer.write(b".\r\n")
        assert (await client.reply()).startswith("550")

    run(story, command_timeout=0.1, data_timeout=0.1)


def test_a_session_has_an_end() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.client()
        answer = ""
        while not answer.startswith("421"):
            answer = await client.say("NOOP")
            await asyncio.sleep(0.01)
        assert answer == str(replies.SESSION_TOO_LONG)

    run(story, session_timeout=0.1, max_idle_commands=10_000)


def test_a_slow_hook_is_not_the_peers_fault() -> None:
    async def story(bench: Bench) -> None:
        async def slow(*_: Any) -> Reply:
            await asyncio.sleep(0.15)
            return replies.OK

        client = await bench.client()
        bench.hooks.answers["DATA"] = slow
        assert (await client.send("a@b", ["c@d"], b"x\r\n")).startswith("250")

    run(story, command_timeout=0.05, data_timeout=0.05)


def test_who_reads_no_replies_is_cut_off_and_costs_no_memory() -> None:
    async def story(bench: Bench) -> None:
        raw = socket.create_connection(("127.0.0.1", bench.port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        await loop.sock_sendall(raw, b"EHLO x\r\n")
        await asyncio.sleep(0.01)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200_000_000:
                await loop.sock_sendall(raw, b"VRFY somebody\r\n" * 1000)
                sent += 14_000
        assert sent < 200_000_000
        await until(lambda: len(bench.config.connections) == 0)
        raw.close()

    run(story, command_timeout=0.1, max_idle_commands=10**9)


# --- limits and the stop


def test_peers_are_counted_by_address_and_by_network() -> None:
    assert peer_key("192.0.2.1") == "192.0.2.1"
    assert peer_key("2001:db8:0:1::5") == peer_key("2001:db8:0:1:ffff::9")
    assert peer_key("2001:db8:0:1::5") != peer_key("2001:db8:0:2::5")
    assert peer_key("fe80::1%eth0") == peer_key("fe80::2%eth1")


def test_a_shared_address_has_no_limit_of_its_own() -> None:
    async def story(bench: Bench) -> None:
        for _ in range(3):
            await bench.client()
        assert len(bench.config.connections) == 3

    run(story, max_connections_per_peer=1, shared_peers=frozenset({"127.0.0.1"}))


@pytest.mark.parametrize("factory", LOOPS)
def test_a_stop_ends_the_idle_and_waits_for_messages(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(bench: Bench) -> None:
        idle, busy = await bench.client(), await bench.in_body()
        stopping = asyncio.create_task(bench.config.connections.drain(5))
        assert (await idle.reply()).startswith("421 4.3.2")
        assert await idle.reader.read() == b""
        assert not stopping.done()
        assert (await busy.say("text\r\n.")).startswith("250")
        assert (await busy.reply()).startswith("421 4.3.2")
        await stopping
        assert bench.hooks.finished == [b"text\r\n"]

    run(story, factory)


def test_a_stop_has_an_end() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.in_body()
        await bench.config.connections.drain(0.02)
        with contextlib.suppress(ConnectionError):
            assert await client.reader.read() == b""
        await until(lambda: len(bench.config.connections) == 0)

    run(story)


# --- TLS


@pytest.mark.parametrize("factory", LOOPS)
def test_starttls(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(bench: Bench) -> None:
        seen: list[Any] = []
        bench.hooks.answers["MAIL"] = lambda server, session, *_: (seen.append(session), replies.SENDER_OK)[1]
        client = await bench.client()
        assert (await client.say("STARTTLS")).startswith("220")
        await client.writer.start_tls(client_context(), server_hostname="localhost")
        assert (await client.say("EHLO y", "MAIL FROM:<a@b>")).startswith("250")
        (session,) = seen
        assert (session.tls, session.helo, session.tls_version) == (True, "y", "TLSv1.3")
        assert bench.events.of("tls", outcome="accept")[0]["cipher"] == session.tls_cipher
        assert (await client.say("RCPT TO:<c@d>", "DATA")).startswith("354")
        client.writer.write(b"0123456789\r\n" * 300_000)
        assert (await client.say(".")).startswith("250")
        assert len(bench.hooks.finished[0]) == 3_600_000

    run(story, factory, tls=server_context)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_failed_handshake_is_recorded_and_leaves_nothing(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def story(bench: Bench) -> None:
        client = await bench.client()
        assert (await client.say("STARTTLS")).startswith("220")
        client.writer.write(b"this is no ClientHello\r\n")
        with contextlib.suppress(ConnectionError):
            await client.reader.read()
        await until(lambda: len(bench.config.connections) == 0)
        assert bench.events.of("tls", outcome="error")
        assert bench.hooks.called.count("DISCONNECT") == 1

    run(story, factory, tls=server_context)


def test_nothing_said_in_clear_is_read_as_if_tls_had_carried_it() -> None:
    """CVE-2011-0411, with the injected command in a segment of its own, right behind the 220."""

    async def story(bench: Bench) -> None:
        client = await bench.client()
        client.writer.write(b"STARTTLS\r\n")
        await asyncio.sleep(0)
        client.writer.write(b"MAIL FROM:<injected@b>\r\n")
        said = await client.reader.read()
        assert not said.count(b"250")
        await until(lambda: len(bench.config.connections) == 0)
        assert "MAIL" not in bench.hooks.called

    run(story, tls=server_context)


def test_a_client_that_refuses_the_certificate_does_no_harm() -> None:
    async def story(bench: Bench) -> None:
        client = await bench.client()
        assert (await client.say("STARTTLS")).startswith("220")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.writer.start_tls(ssl.create_default_context(), server_hostname="localhost")
        await until(lambda: len(bench.config.connections) == 0)
        assert (await (await bench.client()).say("NOOP")).startswith("250")

    run(story, tls=server_context)


class Pipe(asyncio.Transport):
    """A transport without a network."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.said, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.said += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


WORDS = [
    b"EHLO x\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n", b".\r\n", b"\n", b"\r", b"QUIT\r\n",
    b"RSET\r\n", b"AUTH PLAIN ", b"AGEAYg==\r\n", b"*\r\n", b"\0", b"\xff", b"text\r\n", b"..", b"x" * 300_000,
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.binary(max_size=8), max_size=20), st.booleans(), st.booleans())
def test_no_bytes_find_a_bug(pieces: list[bytes], lmtp: bool, later: bool) -> None:
    async def story() -> None:
        bench = Bench(lmtp=lmtp, auth=("PLAIN",), auth_requires_tls=False, size_limit=500_000)
        if later:
            bench.hooks.answers.update(MAIL=lambda *_: soon(replies.OK), DATA=lambda *_: soon(replies.OK))
        engine, pipe = Engine(bench.hooks, bench.config), Pipe()
        engine.connection_made(pipe)
        for _ in range(3):
            await asyncio.sleep(0)
        for piece in pieces:
            if pipe.closed:
                break
            engine.data_received(piece)
            await asyncio.sleep(0.002 if later else 0)
        engine.connection_lost(None)
        await until(lambda: not bench.config.connections.open)
        assert not bench.bugs
        assert len(bench.hooks.sinks) == len(bench.hooks.finished) * (not later) + sum(
            sink.aborted for sink in bench.hooks.sinks
        ) + (bench.hooks.called.count("DATA") if later else 0)

    asyncio.run(story())
