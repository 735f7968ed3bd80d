"""The SMTP client against a scripted server on loopback: sessions, TLS, log-in, transactions, and every way to break."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.protocol.smtp_client import Message, Phase, RecipientResult
from services.protocol.smtp_remote import ProtocolFault
from services.smtp.client import (
    BodyUnreadable,
    ConnectionLost,
    Refused,
    SmtpClient,
    Target,
    Timeouts,
    Tls,
    TlsFailed,
    connect,
    file_chunks,
)
from tests.certificates import issue
from tests.remote import CLOSE, EXTENSIONS, RESET, STALL, Remote

QUICK = Timeouts(connect=2, greeting=0.2, command=0.2, data=0.2, block=0.2, final=0.2, quit=0.05)
MESSAGE = Message("anna@home.test", ("bob@far.test",), size=20)
ISSUED = issue("mx.far.test", lasts=3650 * 86_400, begins=-3650 * 86_400)


def server_context(folder: Path) -> ssl.SSLContext:
    (folder / "chain.pem").write_bytes(ISSUED.chain)
    (folder / "key.pem").write_bytes(ISSUED.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return context


def client_context(verify: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if verify:
        context.load_verify_locations(cadata=ISSUED.chain.decode())
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def body_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def opened(remote: Remote, **target: Any) -> SmtpClient:
    return await connect(Target("127.0.0.1", remote.port, **target), "mail.home.test", QUICK)


async def sent(remote: Remote, message: Message = MESSAGE, *chunks: bytes, **target: Any) -> list[RecipientResult]:
    client = await opened(remote, **target)
    results = await client.deliver(message, body_of(*(chunks or (b"Subject: x\r\n\r\nhello\r\n",))))
    await client.quit()
    return list(results)


def on(remote: Remote, test: Callable[[Remote], Awaitable[None]]) -> None:
    async def run() -> None:
        async with remote:
            await test(remote)

    asyncio.run(run())


def test_a_message_arrives() -> None:
    async def test(remote: Remote) -> None:
        (result,) = await sent(remote)
        assert result.delivered and result.reply.text == "250 2.0.0 taken" and result.phase is Phase.FINAL
        assert remote.messages[0].body == b"Subject: x\r\n\r\nhello\r\n"
        assert remote.commands == [
            "EHLO mail.home.test", "MAIL FROM:<anna@home.test> SIZE=20", "RCPT TO:<bob@far.test>", "DATA", "QUIT",
        ]  # fmt: skip

    on(Remote(), test)


def test_helo_where_ehlo_is_unknown() -> None:
    async def test(remote: Remote) -> None:
        (result,) = await sent(remote)
        assert result.delivered and remote.commands[1] == "HELO mail.home.test"
        assert "MAIL FROM:<anna@home.test>" in remote.commands  # no SIZE: nothing was offered

    on(Remote({"EHLO": "502 5.5.1 what?"}), test)


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        ({"CONNECT": "554 go away"}, Phase.GREETING),
        ({"CONNECT": "421 busy"}, Phase.GREETING),
        ({"EHLO": "421 busy"}, Phase.HELLO),
        ({"EHLO": "450 later"}, Phase.HELLO),
        ({"EHLO": "550 no", "HELO": "550 no"}, Phase.HELLO),
    ],
)
def test_a_session_that_is_refused(script: dict[str, str], phase: Phase) -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(Refused) as refused:
            await opened(remote)
        assert refused.value.phase is phase

    on(Remote(script), test)


@pytest.mark.parametrize("answer", [CLOSE, RESET, STALL])
@pytest.mark.parametrize("command", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY"])
def test_a_connection_that_breaks(command: str, answer: object) -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(ConnectionLost) as lost:
            await sent(remote)
        assert lost.value.in_doubt is (command == "BODY")

    on(Remote({command: answer}), test)


@pytest.mark.parametrize("answer", ["hello", "99 x", "250", "25x ok", "250-more\r\n251 other", "\xff\x00"])
def test_what_is_no_reply(answer: str) -> None:
    async def test(remote: Remote) -> None:
        if answer == "250":
            assert (await sent(remote))[0].delivered  # a reply without a text is one
            return
        with pytest.raises(ProtocolFault):
            await sent(remote)

    on(Remote({"MAIL": answer}), test)


def test_replies_without_end_are_cut_off() -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(ProtocolFault):
            await sent(remote)

    on(Remote({"MAIL": "\r\n".join(["250-x"] * 1000)}), test)
    on(Remote({"MAIL": "250 " + "x" * 5000}), test)


def test_a_flood_does_not_fill_memory() -> None:
    async def test(remote: Remote) -> None:
        client = await opened(remote)
        async with asyncio.timeout(2):
            while not client.closed:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    # A server that talks and talks while we wait for our next message's turn.
    on(Remote({"EHLO": "250 ok\r\n" + "250 more\r\n" * 200_000}), test)


REPLIES = {
    "RCPT TO:<ok@far.test>": "250 2.1.5 ok",
    "RCPT TO:<gone@far.test>": "550 5.1.1 no such user",
    "RCPT TO:<full@far.test>": "452 4.2.2 mailbox full",
}


@pytest.mark.parametrize("extensions", [EXTENSIONS, ()])
def test_each_recipient_has_its_own_reply(extensions: tuple[str, ...]) -> None:
    async def test(remote: Remote) -> None:
        to = ("gone@far.test", "ok@far.test", "full@far.test")
        gone, ok, full = await sent(remote, Message("anna@home.test", to))
        assert ok.delivered and not gone.delivered and not full.delivered
        assert (gone.reply.code, gone.reply.enhanced, gone.phase) == (550, "5.1.1", Phase.RCPT)
        assert full.reply.temporary
        assert remote.messages[0].recipients == ["RCPT TO:<ok@far.test>"]

    on(Remote(REPLIES, extensions=extensions), test)


@pytest.mark.parametrize("extensions", [EXTENSIONS, ()])
def test_mail_refused_refuses_all_and_the_session_lives_on(extensions: tuple[str, ...]) -> None:
    async def test(remote: Remote) -> None:
        client = await opened(remote)
        first = await client.deliver(Message("a@home.test", ("b@far.test", "c@far.test")), body_of(b"x"))
        assert [(each.reply.code, each.phase) for each in first] == [(550, Phase.MAIL)] * 2
        assert (await client.deliver(MESSAGE, body_of(b"x")))[0].delivered
        await client.quit()

    script = {"MAIL FROM:<a@": "550 5.7.1 not you", "RCPT TO:<b@": "503 no MAIL", "RCPT TO:<c@": "503 no MAIL"}
    on(Remote(script, extensions=extensions), test)


def test_many_recipients_are_pipelined_in_batches() -> None:
    async def test(remote: Remote) -> None:
        to = tuple(f"p{number}@far.test" for number in range(350))
        results = await sent(remote, Message("anna@home.test", to))
        assert all(each.delivered for each in results) and len(remote.messages[0].recipients) == 350

    on(Remote(), test)


@pytest.mark.parametrize(("reply", "code"), [("451 4.3.0 later", 451), ("554 5.5.1 no", 554), ("250 what?", 451)])
def test_data_refused(reply: str, code: int) -> None:
    async def test(remote: Remote) -> None:
        (result,) = await sent(remote)
        assert result.reply.code == code and result.phase is Phase.DATA and not result.delivered
        assert "RSET" in remote.commands

    on(Remote({"DATA": reply}), test)


@pytest.mark.parametrize(("reply", "delivered"), [("250 ok", True), ("451 later", False), ("554 spam", False)])
def test_the_final_reply_decides(reply: str, delivered: bool) -> None:
    async def test(remote: Remote) -> None:
        assert (await sent(remote))[0].delivered is delivered

    on(Remote({"BODY": reply}), test)


def test_lmtp_answers_for_each_recipient() -> None:
    async def test(remote: Remote) -> None:
        message = Message("anna@home.test", ("a@home.test", "b@home.test", "c@home.test"), trace="0123456789abcdef")
        a, b, c = await sent(remote, message, lmtp=True)
        assert a.delivered and c.delivered and b.reply.text == "452 4.2.2 full"
        assert remote.commands[0] == "LHLO mail.home.test" and "XTRACE=0123456789abcdef" in remote.commands[1]

    on(Remote({"BODY RCPT TO:<b@": "452 4.2.2 full"}, lmtp=True, extensions=("XMAILSTEAD 1",)), test)


def test_a_trace_goes_only_to_who_knows_it() -> None:
    async def test(remote: Remote) -> None:
        await sent(remote, Message("a@home.test", ("b@far.test",), trace="0123456789abcdef"))
        assert not any("XTRACE" in command for command in remote.commands)

    on(Remote(), test)


def test_too_large_is_not_even_asked() -> None:
    async def test(remote: Remote) -> None:
        (result,) = await sent(remote, Message("a@home.test", ("b@far.test",), size=2000))
        assert result.ours and result.reply.code == 552 and not any(c.startswith("MAIL") for c in remote.commands)

    on(Remote(extensions=("SIZE 1000",)), test)


UTF8 = [
    # message, extensions, enhanced code or "" for delivered
    (Message("a@home.test", ("b@far.test",), eight_bit=True), ("8BITMIME",), ""),
    (Message("a@home.test", ("b@far.test",), eight_bit=True), (), ""),
    (Message("a@home.test", ("b@far.test",), smtputf8=True), ("SMTPUTF8",), ""),
    (Message("a@home.test", ("b@far.test",), smtputf8=True), (), "5.6.9"),
    (Message("ä@home.test", ("b@far.test",)), (), "5.6.7"),
    (Message("ä@home.test", ("b@far.test",)), ("SMTPUTF8",), ""),
    (Message("a@home.test", ("ü@far.test",)), (), "5.6.7"),
    (Message("a@home.test", ("ü@far.test",)), ("SMTPUTF8",), ""),
]


@pytest.mark.parametrize(("message", "extensions", "code"), UTF8)
def test_eight_bit_and_utf8(message: Message, extensions: tuple[str, ...], code: str) -> None:
    async def test(remote: Remote) -> None:
        (result,) = await sent(remote, message)
        assert result.delivered is (not code)
        if code:
            assert result.reply.enhanced == code and result.ours
        else:
            mail = remote.messages[0].mail
            assert ("BODY=8BITMIME" in mail) is (message.eight_bit and bool(extensions))
            assert ("SMTPUTF8" in mail) is ("SMTPUTF8" in extensions)

    on(Remote(extensions=extensions), test)


def test_a_break_in_the_body_says_what_the_server_said() -> None:
    async def test(remote: Remote) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0)
                yield b"x" * 998 + b"\r\n"

        client = await opened(remote)
        with pytest.raises((Refused, ConnectionLost)) as broken:
            await client.deliver(MESSAGE, endless())
        assert client.closed and not getattr(broken.value, "in_doubt", False)

    on(Remote(body_bytes=100_000), test)


def test_an_answer_before_the_end_of_the_body() -> None:
    async def early(reply: str) -> Exception:
        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 x\r\n")
            for answer in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n" + reply.encode() + b"\r\n"):
                await reader.readline()
                writer.write(answer)
            await reader.read()
            writer.close()

        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        client = await connect(Target("127.0.0.1", port), "h", QUICK)

        async def slow() -> AsyncIterator[bytes]:
            for _ in range(5):
                await asyncio.sleep(0.01)
                yield b"line\r\n"

        try:
            await client.deliver(MESSAGE, slow())
        except Exception as error:
            return error
        finally:
            listening.close()
        raise AssertionError("it was taken for delivered")

    refused = asyncio.run(early("552 5.3.4 too big"))
    assert isinstance(refused, Refused) and refused.reply.code == 552
    assert isinstance(asyncio.run(early("250 2.0.0 delivered, believe me")), ProtocolFault)


def test_our_own_fault_in_the_body_sends_no_final_dot() -> None:
    async def test(remote: Remote) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield b"half\r\n"
            raise OSError("the disk")

        client = await opened(remote)
        with pytest.raises(BodyUnreadable):
            await client.deliver(MESSAGE, failing())
        await asyncio.sleep(0.02)
        assert remote.messages == [] and client.closed

    on(Remote(), test)


def test_words_out_of_turn_are_not_taken_for_answers() -> None:
    async def test(remote: Remote) -> None:
        client = await opened(remote)
        assert (await client.deliver(MESSAGE, body_of(b"x")))[0].delivered
        await asyncio.sleep(0.02)
        with pytest.raises(ConnectionLost, match="out of turn"):
            await client.deliver(MESSAGE, body_of(b"x"))

    on(Remote({"BODY": "250 2.0.0 taken\r\n250 2.0.0 and the next one too"}), test)


def test_a_line_break_in_an_address_is_never_sent() -> None:
    async def test(remote: Remote) -> None:
        client = await opened(remote)
        with pytest.raises(ValueError, match="line break"):
            await client.deliver(Message("a@home.test", ("b@far.test>\r\nRCPT TO:<c@far.test",)), body_of(b"x"))
        client.abort()

    on(Remote(), test)


def test_nobody_there() -> None:
    async def run() -> None:
        async with Remote() as remote:
            port = remote.port
        with pytest.raises(ConnectionLost, match="cannot connect"):
            await connect(Target("127.0.0.1", port), "h", QUICK)

    asyncio.run(run())


# --- log-in


def offering(*mechanisms: str) -> tuple[str, ...]:
    return (*EXTENSIONS, f"AUTH {' '.join(mechanisms)}")


@pytest.mark.parametrize(
    ("extensions", "script", "commands"),
    [
        (offering("PLAIN", "LOGIN"), {}, ["AUTH PLAIN AHVzZXIAc2VjcmV0"]),
        (
            offering("LOGIN", "CRAM-MD5"),
            {"AUTH LOGIN": "334 VXNlcm5hbWU6", "dXNlcg==": "334 UGFzc3dvcmQ6", "c2VjcmV0": "235 in"},
            ["AUTH LOGIN", "dXNlcg==", "c2VjcmV0"],
        ),
        ((*EXTENSIONS, "AUTH=PLAIN"), {}, ["AUTH PLAIN AHVzZXIAc2VjcmV0"]),
    ],
)
def test_log_in(extensions: tuple[str, ...], script: dict[str, str], commands: list[str]) -> None:
    async def test(remote: Remote) -> None:
        client = await opened(remote, user="user", password="secret", private_network=True)
        assert remote.commands[1:] == commands
        await client.quit()

    on(Remote(script, extensions=extensions), test)


@pytest.mark.parametrize("reply", ["535 5.7.8 wrong", "454 4.7.0 later", "334 more?"])
def test_log_in_refused(reply: str) -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(Refused) as refused:
            await opened(remote, user="user", password="secret", private_network=True)
        assert refused.value.phase is Phase.AUTH

    on(Remote({"AUTH": reply, "*": "501 cancelled"}, extensions=offering("PLAIN")), test)


def test_a_password_is_not_sent_in_plain_text() -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(TlsFailed, match="password"):
            await opened(remote, user="user", password="secret")
        assert not any(command.startswith("AUTH") for command in remote.commands)

    on(Remote(extensions=offering("PLAIN")), test)


# --- TLS


def test_starttls_and_a_new_ehlo(tmp_path: Path) -> None:
    async def test(remote: Remote) -> None:
        client = await opened(remote, tls=Tls.STARTTLS, context=client_context(True), name="mx.far.test")
        assert client.encrypted and client.tls_version.startswith("TLSv1")
        assert (await client.deliver(MESSAGE, body_of(b"x")))[0].delivered and remote.messages[0].tls
        assert remote.commands[:3] == ["EHLO mail.home.test", "STARTTLS", "EHLO mail.home.test"]
        await client.quit()

    on(Remote(tls=server_context(tmp_path)), test)


def test_implicit_tls(tmp_path: Path) -> None:
    async def test(remote: Remote) -> None:
        target = {"tls": Tls.IMPLICIT, "context": client_context(True), "name": "mx.far.test"}
        client = await opened(remote, user="u", password="p", **target)
        assert client.encrypted and (await client.deliver(MESSAGE, body_of(b"x")))[0].delivered
        await client.quit()

    on(Remote(tls=server_context(tmp_path), implicit_tls=True, extensions=offering("PLAIN")), test)


@pytest.mark.parametrize("mode", [Tls.STARTTLS, Tls.IMPLICIT])
def test_a_wrong_name_or_unknown_ca_is_refused(mode: Tls, tmp_path: Path) -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(TlsFailed, match="certificate is not accepted"):
            await opened(remote, tls=mode, context=client_context(True), name="other.test")
        with pytest.raises(TlsFailed, match="certificate is not accepted"):
            await opened(remote, tls=mode, context=ssl.create_default_context(), name="mx.far.test")

    on(Remote(tls=server_context(tmp_path), implicit_tls=mode is Tls.IMPLICIT), test)


def test_opportunistic_goes_on_without(tmp_path: Path) -> None:
    async def plain(remote: Remote) -> None:
        client = await opened(remote, tls=Tls.OPPORTUNISTIC, context=client_context())
        assert not client.encrypted and (await client.deliver(MESSAGE, body_of(b"x")))[0].delivered
        await client.quit()

    on(Remote(), plain)
    on(Remote({"STARTTLS": "454 4.7.0 not now"}, tls=server_context(tmp_path)), plain)


def test_required_tls_is_required(tmp_path: Path) -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(TlsFailed):
            await opened(remote, tls=Tls.STARTTLS, context=client_context())

    on(Remote(), test)
    on(Remote({"STARTTLS": "454 4.7.0 not now"}, tls=server_context(tmp_path)), test)


def test_replies_injected_before_the_handshake_are_not_believed(tmp_path: Path) -> None:
    async def test(remote: Remote) -> None:
        with pytest.raises(ProtocolFault, match="before the handshake"):
            await opened(remote, tls=Tls.STARTTLS, context=client_context())

    on(Remote({"STARTTLS": "220 go\r\n250-evil\r\n250 AUTH PLAIN"}, tls=server_context(tmp_path)), test)


def test_a_server_that_speaks_no_tls_after_220() -> None:
    async def run() -> None:
        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 x\r\n")
            await reader.readline()
            writer.write(b"250-x\r\n250 STARTTLS\r\n")
            await reader.readline()
            writer.write(b"220 go\r\n")
            await reader.read(10)
            writer.write(b"500 what is this\r\n")
            writer.close()

        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(TlsFailed, match="handshake"):
            await connect(Target("127.0.0.1", port, tls=Tls.STARTTLS, context=client_context()), "h", QUICK)
        listening.close()

    asyncio.run(run())


def test_file_chunks(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "message"
        path.write_bytes(b"skipped" + b"x" * 200_000)
        chunks = [chunk async for chunk in file_chunks(str(path), 7, b"head")]
        assert b"".join(chunks) == b"head" + b"x" * 200_000 and max(map(len, chunks)) <= 65536

    asyncio.run(run())
