"""HTTP between rooms: only the pair's secret opens it, limits hold, faults are named by id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.runtime import secrets
from services.runtime.events import NoEvents
from services.runtime.health import Health
from services.runtime.internal_http import (
    BadRequest,
    Client,
    PeerRefused,
    PeerUnavailable,
    Request,
    Response,
    Routes,
    serving,
)
from services.runtime.process import Context
from services.runtime.values import Settings


class World:
    """The dkim room's endpoints on loopback, and its peers as clients."""

    def __init__(self, folder: Path) -> None:
        secrets.make(str(folder), secrets.every_name())
        self.secrets = secrets.Secrets(str(folder))
        self.context = Context("dkim", Settings(), NoEvents(), self.secrets, Health("dkim"))
        self.routes = Routes()
        self.seen: list[Request] = []
        self.routes.add("POST", "/v1/sign/{name}", self.sign, allow=("smtp-out",), max_body=1000)
        self.port = 0

    async def sign(self, request: Request) -> Response:
        self.seen.append(request)
        if request.body == b"wrong":
            raise BadRequest("no header")
        if request.body == b"bug":
            raise ZeroDivisionError("secret detail")
        return Response.of({"got": len(request.body), **request.params, **request.query})

    def client(self, room: str, timeout: float = 5) -> Client:
        return Client(room, self.secrets, "dkim", f"http://127.0.0.1:{self.port}", timeout=timeout)


def play(tmp_path: Path, story: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        world = World(tmp_path)
        async with serving(world.context, world.routes, "127.0.0.1:0") as listener:
            world.port = listener.port
            await story(world)

    asyncio.run(whole())


def test_a_peer_with_the_secret_is_served_on_one_kept_connection(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        client = world.client("smtp-out")
        for _ in range(3):
            answer = await client.request("POST", "/v1/sign/a%2Fb", body=b"x" * 999, query={"q": "ö &="})
            assert answer.json() == {"got": 999, "name": "a/b", "q": "ö &="}
        assert len(client._idle) == 1
        assert world.seen[0].room == "smtp-out"
        client.close()

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("room", "method", "path", "body", "status"),
    [
        ("admin", "POST", "/v1/sign/x", b"", 403),
        ("smtp-out", "GET", "/v1/sign/x", b"", 405),
        ("smtp-out", "POST", "/v1/other", b"", 404),
        ("smtp-out", "POST", "/v1/sign/x", b"y" * 1001, 413),
        ("smtp-out", "POST", "/v1/sign/x", b"wrong", 400),
        ("smtp-out", "POST", "/v1/sign/x", b"bug", 500),
    ],
)
def test_what_is_refused(tmp_path: Path, room: str, method: str, path: str, body: bytes, status: int) -> None:
    async def story(world: World) -> None:
        with pytest.raises(PeerRefused) as caught:
            await world.client(room).request(method, path, body=body)
        assert caught.value.response.status == status
        assert "secret detail" not in str(caught.value)

    play(tmp_path, story)


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Mailstead-Room: smtp-out\r\n",
        "Mailstead-Room: smtp-out\r\nAuthorization: Bearer \r\n",
        "Mailstead-Room: smtp-out\r\nAuthorization: Bearer " + "0" * 64 + "\r\n",
        "Mailstead-Room: ../dkim\r\nAuthorization: Bearer x\r\n",
        "Mailstead-Room: smtp-in\r\nAuthorization: Bearer \xff\r\n",
    ],
)
def test_without_the_secret_nothing_but_health_answers(tmp_path: Path, headers: str) -> None:
    async def story(world: World) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(f"POST /v1/sign/x HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n{headers}\r\n".encode("latin-1"))
        assert b" 401 " in await reader.readline()
        writer.close()
        assert world.seen == []

    play(tmp_path, story)


def test_health_is_open_and_true(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async def ask() -> tuple[bytes, dict[str, object]]:
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            return head.split()[1], json.loads(body)

        assert (await ask())[0] == b"503"
        world.context.health.ready()
        assert await ask() == (b"200", {"room": "dkim", "state": "ok", "parts": {}})
        world.context.health.fail("keys", "the volume is read-only")
        assert (await ask())[0] == b"503"

    play(tmp_path, story)


def test_garbage_and_early_ends_leave_the_server_standing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for garbage in (
            b"",
            b"\x16\x03\x01\x02\x00",
            b"GET " + b"a" * 100_000,
            b"POST /v1/sign/x HTTP/1.1\r\nHost: d\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(garbage)
            writer.write_eof()
            await reader.read()
            writer.close()
        assert (await world.client("smtp-out").request("POST", "/v1/sign/x", body=b"1")).status == 200

    play(tmp_path, story)


def test_a_restarted_peer_is_reached_on_a_fresh_connection(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        client = world.client("smtp-out")
        await client.request("POST", "/v1/sign/x", body=b"1")
        client._idle[0].writer.transport.abort()
        assert (await client.request("POST", "/v1/sign/x", body=b"2")).json()["got"] == 1

    play(tmp_path, story)


def test_an_absent_peer_is_unavailable(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        client = Client("smtp-out", world.secrets, "dkim", "http://127.0.0.1:1", timeout=1)
        with pytest.raises(PeerUnavailable):
            await client.request("GET", "/v1/sign/x")

    play(tmp_path, story)
