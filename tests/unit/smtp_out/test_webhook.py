"""The webhook: one POST to the owner's address and nowhere else, whatever is answered."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.runtime.dns import ZoneLookup
from services.smtp_out import webhook
from services.smtp_out.webhook import NotPosted, post
from tests.certificates import issue
from tests.unit.smtp_out.sendingroom import sending

LOOKUP = ZoneLookup({("hooks.test", "A"): ["127.0.0.1"], (f"{'a' * 64}.test", "A"): ["127.0.0.1"]})
TOKEN = "s3cret-token"


class Server:
    """Answers every request with `answer`; `requests` are what came, head and body."""

    def __init__(self, answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n", tls: ssl.SSLContext | None = None) -> None:
        self.answer, self.tls = answer, tls
        self.requests: list[tuple[str, Any]] = []

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            self.requests.append((head, json.loads(await reader.readexactly(length))))
            writer.write(self.answer)
            await writer.drain()
        finally:
            writer.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def test_the_result_is_posted_as_json_with_what_the_address_says() -> None:
    async def story() -> None:
        async with Server(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nbody") as server:
            url = f"http://ann:p%20w@hooks.test:{server.port}/a b/{TOKEN}?x=1"
            assert await post(url, {"id": "u1", "reason": "größer"}, LOOKUP) == 200
            ((head, value),) = server.requests
            assert value == {"id": "u1", "reason": "größer"}
            lines = head.split("\r\n")
            assert lines[0] == f"POST /a%20b/{TOKEN}?x=1 HTTP/1.1"
            assert f"Host: hooks.test:{server.port}" in lines and "Authorization: Basic YW5uOnAgdw==" in lines

    run(story)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "redirect"),
        (b"HTTP/1.1 500 Oops\r\n\r\n", "answered 500"),
        (b"", "no answer"),
        (b"SSH-2.0-x\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 100 Continue\r\n" + b"X: y\r\n" * 200, "no end"),
        (b"HTTP/1.1 " + b"9" * 20_000, "broke off"),
    ],
)
def test_an_answer_that_is_none_is_told_without_the_token(answer: bytes, why: str) -> None:
    async def story() -> None:
        async with Server(answer) as server:
            with pytest.raises(NotPosted, match=why) as caught:
                await post(f"http://127.0.0.1:{server.port}/{TOKEN}", {}, LOOKUP)
            assert TOKEN not in str(caught.value) and len(server.requests) == 1

    run(story)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://hooks.test/", "no http or https"), ("http://hooks.test:99999/", "no http or https"),
        ("http://nowhere.test/x", "is not found"), ("http://127.0.0.1:9/x", "127.0.0.1 port 9"),
    ],
)  # fmt: skip
def test_an_address_that_leads_nowhere(url: str, why: str) -> None:
    async def story() -> None:
        with pytest.raises(NotPosted, match=why):
            await post(url, {}, LOOKUP)

    run(story)


def test_a_name_that_tls_cannot_say_is_no_fault_of_ours() -> None:
    async def story() -> None:
        async with Server() as server:
            with pytest.raises(NotPosted, match="port"):
                await post(f"https://{'a' * 64}.test:{server.port}/", {}, LOOKUP)

    run(story)


def test_https_wants_a_certificate_that_is_right(tmp_path: Path) -> None:
    issued = issue("hooks.test")
    (tmp_path / "chain").write_bytes(issued.chain)
    (tmp_path / "key").write_bytes(issued.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "chain", tmp_path / "key")

    async def story() -> None:
        async with Server(tls=serving) as server:
            with pytest.raises(NotPosted, match=r"(?i)certificate"):
                await post(f"https://hooks.test:{server.port}/", {}, LOOKUP)
            trusting = ssl.create_default_context(cadata=issued.chain.decode())
            assert await post(f"https://hooks.test:{server.port}/", {}, LOOKUP, trusting) == 204

    run(story)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "SECONDS", 0.1)

    async def story() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        with pytest.raises(NotPosted, match="no answer within"):
            await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {}, LOOKUP)
        server.close()

    run(story)


def test_the_room_posts_to_its_own_address_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            Server() as named, Server() as other,
            sending(tmp_path, update_webhook_url=f"http://127.0.0.1:{named.port}/{TOKEN}") as room,
        ):  # fmt: skip
            body = {"id": "u1", "webhook": f"http://127.0.0.1:{other.port}/", "url": f"http://127.0.0.1:{other.port}/"}
            assert await room.ask("POST", "/v1/webhook", json.dumps(body).encode()) == {"posted": "127.0.0.1"}
            assert len(named.requests) == 1 and not other.requests
            named.answer = b"HTTP/1.1 503 Later\r\n\r\n"
            assert await room.ask("POST", "/v1/webhook", b"{}") == 502
            assert await room.ask("POST", "/v1/webhook", b"[]") == 400

    run(story)


def test_without_an_address_nothing_is_posted(tmp_path: Path) -> None:
    async def story() -> None:
        async with sending(tmp_path) as room:
            assert await room.ask("POST", "/v1/webhook", b'{"id": "u1"}') == {"posted": ""}

    run(story)
