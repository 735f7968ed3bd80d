"""The scanners' clients against servers that speak their protocols, well and badly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from services.policy import scanning
from services.runtime.values import Settings
from services.smtp_in.scanners.choice import chosen
from services.smtp_in.scanners.clamav import ClamAV
from services.smtp_in.scanners.finding import ANSWER_OCTETS, Finding, Letter, Scanner
from services.smtp_in.scanners.rspamd import Rspamd
from services.smtp_in.scanners.spamassassin import SpamAssassin

BODY = b"From: a@example.org\r\nSubject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000
LETTER = Letter(
    len(BODY), False, lambda: iter([BODY[:100], BODY[100:]]), "0trace0000000000", "192.0.2.7", "mx.example.org",
    "a@example.org", ("ann@example.test", "bob@example.test"),
)  # fmt: skip

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def scanned(make: Callable[[str, int, float], Scanner], serve: Serve, letter: Letter = LETTER) -> Finding:
    """What a scanner's client makes of a server."""

    async def run() -> Finding:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await make("127.0.0.1", port, 5.0).scan(letter)

    return asyncio.run(run())


async def instream(reader: asyncio.StreamReader) -> bytes:
    assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
    found = b""
    while length := int.from_bytes(await reader.readexactly(4), "big"):
        found += await reader.readexactly(length)
    return found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"stream: OK\0", Finding("clamav")),
        (b"stream: OK\n", Finding("clamav")),
        (b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Finding("clamav", virus="Win.Test.EICAR_HDB-1")),
        (b"stream: two\nlines FOUND\0", Finding("clamav", virus="two?lines")),
        (
            b"INSTREAM size limit exceeded. ERROR\0",
            Finding("clamav", problem="the message is larger than what clamav reads (StreamMaxLength)"),
        ),
        (b"what?\0", Finding("clamav", problem="clamav cannot be asked: it said 'what?'")),
        (b"", Finding("clamav", problem="clamav cannot be asked: it said ''")),
        (
            b"x" * 5000,
            Finding("clamav", problem="clamav cannot be asked: its answer has more than 4096 octets"),
        ),
    ],
)
def test_clamav(answer: bytes, expected: Finding) -> None:
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await instream(reader))
        writer.write(answer)

    assert scanned(ClamAV, serve) == expected
    assert seen == [BODY], "every octet, once"


def test_clamav_that_closes_while_we_still_send_is_heard() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        writer.write(b"INSTREAM size limit exceeded. ERROR\0")

    found = scanned(ClamAV, serve)
    assert found.problem.startswith(("the message is larger", "clamav cannot be asked")) and not found.virus


def spamd(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (
            await reader.readuntil(b"\r\n\r\n") == f"SYMBOLS SPAMC/1.5\r\nContent-length: {len(BODY)}\r\n\r\n".encode()
        )
        assert await reader.readexactly(len(BODY)) == BODY
        writer.write(answer)

    return serve


@pytest.mark.parametrize(
    ("answer", "share", "rules", "problem"),
    [
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 15.0 / 5.0\r\n\r\nA,B, C\r\n",
            3.0,
            ("A", "B", "C"),
            "",
        ),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.0 / 5.0\r\n\r\n\r\n", -0.2, (), ""),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1.0 / 0.0\r\n\r\n", 10.0, (), ""),
        (b"SPAMD/1.1 76 Bad header line\r\n\r\n", 0.0, (), "it said 'SPAMD/1.1 76 Bad header line'"),
        (b"SPAMD/1.1 0 EX_OK\r\n\r\n", 0.0, (), "its answer has no line Spam: with a score"),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / inf\r\n\r\n", 0.0, (), "its answer has no line Spam: with a score"),
        (b"x" * 10_000, 0.0, (), "it broke off after Separator is not found, and chunk exceed the limit"),
        (b"", 0.0, (), "it broke off after 0 bytes read on a total of undefined expected bytes"),
    ],
)
def test_spamassassin(answer: bytes, share: float, rules: tuple[str, ...], problem: str) -> None:
    found = scanned(SpamAssassin, spamd(answer))
    assert found == Finding(
        "spamassassin", share, rules, problem=f"spamassassin cannot be asked: {problem}" if problem else ""
    )


RSPAMD = {
    "score": 9.0, "required_score": 15, "action": "add header", "thresholds": {"add header": 6.0, "reject": 15.0},
    "symbols": {"SMALL": {"score": 0.1}, "LARGE": {"score": 7.5}, "NEGATIVE": {"score": -2.0}}, "is_skipped": False,
}  # fmt: skip


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(json.dumps(RSPAMD).encode()), Finding("rspamd", 1.5, ("LARGE", "NEGATIVE", "SMALL"))),
        (
            b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(RSPAMD).encode(),
            Finding("rspamd", 1.5, ("LARGE", "NEGATIVE", "SMALL")),
        ),
        (http(b'{"score": 3.0}'), Finding("rspamd", 0.5)),
        (http(b'{"score": 3.0, "is_skipped": true}'), Finding("rspamd")),
        (http(b'{"score": 0, "is_skipped": true, "action": "reject"}'), Finding("rspamd", 2.0)),
        (http(b'{"score": 1.0, "action": "add header"}'), Finding("rspamd", 1.0)),
        (http(b"{}", "503 Later"), "it said 'HTTP/1.1 503 Later'"),
        (http(b"[]"), "its answer is not what it documents"),
        (http(b"{" * 100_000), "its answer is not what it documents"),
        (http(b'{"score": 1e400}'), "its score is inf"),
        (http(b'{"score": 1, "symbols": {"A": 1}}'), "its answer is not what it documents"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", "its answer has 999999999 octets"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", "it broke off after 1 of 10 octets"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "its answer comes in chunks"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (ANSWER_OCTETS + 1), f"its answer has more than {ANSWER_OCTETS} octets"),
    ],
    ids=range(15),
)
def test_rspamd(answer: bytes, expected: Finding | str) -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        assert await reader.readexactly(len(BODY)) == BODY
        writer.write(answer)

    hostile = replace(LETTER, helo="x\r\nEvil: 1", sender="a@b\r\nIP: 127.0.0.1")
    found = scanned(Rspamd, serve, hostile)
    if isinstance(expected, str):
        assert found.problem.startswith(f"rspamd cannot be asked: {expected}"), found
        assert found == Finding("rspamd", problem=found.problem)
    else:
        assert found == expected
    lines = heads[0].split("\r\n")
    assert [line for line in lines if line.startswith("Rcpt: ")] == ["Rcpt: ann@example.test", "Rcpt: bob@example.test"]
    assert [line for line in lines if line.startswith("IP: ")] == ["IP: 192.0.2.7"], "a sender adds no header"
    assert not any(line.startswith("Evil") for line in lines)


@pytest.mark.parametrize("make", [ClamAV, SpamAssassin, Rspamd])
def test_a_scanner_that_is_not_there_is_told(make: Callable[[str, int, float], Scanner]) -> None:
    found = asyncio.run(make("127.0.0.1", 1, 5.0).scan(LETTER))
    assert found.problem.startswith(f"{found.scanner} cannot be asked: ")


@pytest.mark.parametrize("make", [ClamAV, SpamAssassin, Rspamd])
def test_a_scanner_that_says_nothing_is_not_waited_for_long(make: Callable[[str, int, float], Scanner]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass

    found = scanned(lambda host, port, _: make(host, port, 0.05), serve)
    assert found.problem == f"{found.scanner} gave no answer within 0.05 seconds"


@pytest.mark.parametrize("make", [SpamAssassin, Rspamd])
def test_a_large_message_is_not_scanned_for_junk(make: Callable[[str, int, float], Scanner]) -> None:
    found = asyncio.run(make("127.0.0.1", 1, 5.0).scan(replace(LETTER, size=50_000_000)))
    assert found == Finding(found.scanner)


def test_a_body_in_a_file_is_read_off_the_loop() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await instream(reader) == BODY
        writer.write(b"stream: OK\0")

    assert scanned(ClamAV, serve, replace(LETTER, in_file=True)) == Finding("clamav")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"spam_scanner": "rspamd"}, ["rspamd"]),
        ({"spam_scanner": "spamassassin", "virus_scanner": "clamav"}, ["spamassassin", "clamav"]),
    ],
)
def test_the_settings_choose(changes: dict[str, str], names: list[str]) -> None:
    assert [scanner.name for scanner in chosen(replace(Settings(), **changes))] == names


@pytest.mark.parametrize(
    ("share", "weight"), [(0.0, 0.0), (1.0, 5.0), (0.5, 2.5), (9.0, 10.0), (-9.0, -1.5), (-0.1, -0.5)]
)
def test_what_a_score_counts(share: float, weight: float) -> None:
    assert scanning.score("rspamd", share, ["A"], 5.0).weight == weight
