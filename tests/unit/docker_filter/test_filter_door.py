"""The door and the desk behind it, octet by octet: who may ask, what reaches the engine, and in which words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import IMAGE, NEWER, PROJECT, REPOSITORY, SECRET_VALUE, ScriptedEngine, container, image, image_id

from services.docker_filter import requests, room
from services.runtime import secrets
from services.runtime.health import Health
from services.runtime.process import Context
from services.runtime.values import Settings

IMAP, SMTP, OTHER, FILTER = "1" * 64, "2" * 64, "3" * 64, "4" * 64
NAME = f"{PROJECT}-imap-1"
CREATE = {"Image": NEWER, "Labels": {"mailstead.update": "x7", "mailstead.source": NAME}}


class Record:
    """An `Events` that remembers."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.lines.append({"kind": kind, "outcome": outcome, **fields})


@dataclass
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Filter:
    context: Context
    engine: ScriptedEngine
    record: Record

    async def octets(self, data: bytes) -> bytes:
        """Send exactly these octets (`{secret}` is the pair's), read until it closes or answers no more."""
        secret = self.context.secrets.pair("docker-filter", "updater").encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.context.ports["docker"])
        writer.write(data.replace(b"{secret}", secret))
        writer.write_eof()
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return answer

    async def ask(self, method: str, target: str, body: Any = None, more: str = "") -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: d\r\nAuthorization: Bearer {{secret}}\r\nConnection: close\r\n{more}"
        )
        length = f"Content-Length: {len(content)}\r\n" if content else ""
        answer = await self.octets(f"{head}{length}\r\n".encode("latin-1") + content)
        first, _, rest = answer.partition(b"\r\n\r\n")
        return Answer(int(first.split(b" ")[1]), rest)


def started(number: str, service: str, **more: Any) -> dict[str, Any]:
    return container(int(number, 16), service, **more)


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Filter]:
    engine = ScriptedEngine()
    engine.containers = [
        started(IMAP, "imap"), started(SMTP, "smtp-in"), started(OTHER, "imap", project="other"),
        started(FILTER, "docker-filter"),
    ]  # fmt: skip
    socket = str(folder / "docker.sock")
    server = await asyncio.start_unix_server(engine.connection, socket)
    secrets.make(str(folder / "secrets"), secrets.every_name())
    settings = replace(Settings(), docker_socket=socket, docker_listen="127.0.0.1:0", http_listen="127.0.0.1:0")
    record = Record()
    context = Context(
        "docker-filter", settings, record, secrets.Secrets(str(folder / "secrets")), Health("docker-filter"),
        clock=lambda: 1_700_000_000.0,
    )  # fmt: skip
    task = asyncio.create_task(room.serve(context))
    while not context.health.started:
        await asyncio.sleep(0.005)
        if task.done():
            await task
    engine.asked.clear()
    try:
        yield Filter(context, engine, record)
    finally:
        context.stop.set()
        await task
        server.close()


def test_questions_reach_the_engine_in_the_filters_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            listing = (await filter_.ask("GET", "/v1.44/containers/json?all=0&filters=%7B%7D")).json()
            assert {entry["Id"] for entry in listing} == {IMAP, SMTP, FILTER}
            asked = "GET /containers/json?all=1&filters=%7B%22label%22%3A+%5B%22com.docker.compose.project%3Dmailstead%22%5D%7D"
            assert filter_.engine.asked == [asked]
            for target in ("/version", "/_ping", f"/images/{IMAGE}/json", f"/images/{image_id(1)}/json",
                           f"/distribution/{IMAGE}/json", f"/containers/{NAME}/json", f"/containers/{IMAP}/json"):  # fmt: skip
                assert (await filter_.ask("GET", target)).status == 200, target
            assert filter_.record.lines == []

    asyncio.run(story())


def test_an_inspection_shows_no_secret_and_can_be_compared(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            one = await filter_.ask("GET", f"/containers/{NAME}/json")
            two = await filter_.ask("GET", f"/containers/{PROJECT}-smtp-in-1/json")
            assert SECRET_VALUE.encode() not in one.body and b"token@logs" not in one.body
            assert one.json()["Config"]["Env"] == two.json()["Config"]["Env"]
            assert one.json()["Config"]["Env"][1].startswith("RELAY_PASSWORD=sha256:")

    asyncio.run(story())


HEALTH_CHECKS: list[tuple[list[str] | None, bool, list[dict[str, Any]], bool | None, list[str] | None]] = [
    (["CMD", "healthcheck"], True, [{"Running": False, "ExitCode": 0}], True, ["healthcheck"]),
    (["CMD", "healthcheck", "x"], True, [{"Running": False, "ExitCode": 3}], False, ["healthcheck", "x"]),
    (["CMD-SHELL", "exit 1"], True, [{"Running": False, "ExitCode": 1}], False, ["/bin/sh", "-c", "exit 1"]),
    (["CMD", "healthcheck"], False, [], False, None),
    (["NONE"], True, [], None, None),
    (None, True, [], None, None),
]


@pytest.mark.parametrize(("test", "runs", "states", "healthy", "command"), HEALTH_CHECKS)
def test_a_containers_own_health_check_is_run_and_no_other_command(
    tmp_path: Path, test: Any, runs: bool, states: list[Any], healthy: bool | None, command: Any
) -> None:
    async def story() -> None:
        async with running(tmp_path) as it:
            imap = it.engine.containers[0]
            imap["Config"]["Healthcheck"] = {"Test": test} if test else None
            imap["State"]["Running"] = runs
            it.engine.answers[f"/containers/{imap['Id']}/exec"] = (201, {"Id": "e1"})
            it.engine.answers["/exec/e1/start"] = (200, None)
            it.engine.answers["/exec/e1/json"] = (200, states[0] if states else {})
            answer = await it.ask("GET", f"/v1.41/containers/{NAME}/health?cmd=sh")
            assert (answer.status, answer.json()["healthy"]) == (200, healthy)
            ran = [body for method, body in it.engine.bodies if method.endswith("/exec")]
            assert ran == ([{"Cmd": command}] if command else [])

    asyncio.run(story())


@pytest.mark.parametrize("target", [f"/containers/{OTHER}/health", "/containers/nobody/health"])
def test_nobody_elses_health_check_is_run(tmp_path: Path, target: str) -> None:
    async def story() -> None:
        async with running(tmp_path) as it:
            assert (await it.ask("GET", target)).status == 403
            assert it.engine.changes == []

    asyncio.run(story())


@pytest.mark.parametrize(
    "target",
    [
        "/containers/other-imap-1/json", f"/containers/{OTHER}/json", "/containers/1111/json", f"/containers/{'1' * 12}/json",
        "/containers/mailstead-.map-1/json", "/containers/nobody/json", "/images/debian:trixie-slim/json",
        f"/images/{image_id(7)}/json", "/images/other/app:1/json", "/distribution/other/app:1/json",
        "/distribution/ghcr.io/mailsteadx/app:1/json", "/distribution/evil.example/ghcr.io/mailstead/app:1/json",
    ],
)  # fmt: skip
def test_what_is_not_the_projects_is_not_shown(tmp_path: Path, target: str) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            filter_.engine.images.append(image(7, "debian:trixie-slim"))
            answer = await filter_.ask("GET", target)
            assert answer.status == 403 and "message" in answer.json(), answer
            assert not [line for line in filter_.engine.asked if "distribution" in line]

    asyncio.run(story())


def test_the_same_image_that_a_container_names_may_be_pulled_though_it_is_not_the_registrys(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            filter_.engine.containers[1]["Config"]["Image"] = "docker.io/rspamd/rspamd:3"
            pull = "/images/create?fromImage=docker.io/rspamd/rspamd&tag="
            assert (await filter_.ask("POST", pull + "3")).status == 200
            assert (await filter_.ask("POST", pull + "4")).status == 403
            assert filter_.engine.changes == ["POST /images/create?fromImage=docker.io%2Frspamd%2Frspamd&tag=3"]

    asyncio.run(story())


def test_a_pulls_progress_is_passed_on_and_errors_in_it_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            filter_.engine.progress = [b'{"status":"Pulling"}\r\n', b'{"error":"manifest unknown"}\r\n']
            answer = await filter_.ask("POST", f"/images/create?fromImage={REPOSITORY}&tag=0.2.0")
            assert answer.status == 200
            assert b'{"status":"Pulling"}' in answer.body and b'{"error":"manifest unknown"}' in answer.body
            assert filter_.record.lines[0]["outcome"] == "accept"

    asyncio.run(story())


def test_a_successor_is_the_old_container_with_another_image(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            answer = await filter_.ask("POST", f"/containers/create?name={NAME}-next-x7", CREATE)
            assert answer.status == 201, answer
            made, old = filter_.engine.created[0], filter_.engine.containers[0]
            assert made["Image"] == NEWER and made["HostConfig"] == old["HostConfig"]
            assert made["Env"] == [f"RELAY_PASSWORD={SECRET_VALUE}"] and made["Cmd"] == old["Config"]["Cmd"]
            assert made["Labels"]["com.docker.compose.image"] == image_id(2)
            assert made["Labels"]["mailstead.update-id"] == "x7" and made["Labels"]["mailstead.update-source"] == IMAP
            assert filter_.engine.changes[1] == "POST /networks/mailstead_two/connect"
            assert [line["outcome"] for line in filter_.record.lines] == ["accept"]

    asyncio.run(story())


def test_the_whole_exchange_of_a_container(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            for method, target, body in (
                ("POST", f"/containers/create?name={NAME}-next-x7", CREATE),
                ("POST", f"/containers/{NAME}/stop?t=20", None),
                ("POST", f"/containers/{NAME}/rename?name={NAME}-before-x7", None),
                ("POST", f"/containers/{NAME}-next-x7/rename?name={NAME}", None),
                ("POST", f"/containers/{NAME}/start", None),
                ("POST", f"/images/{image_id(1)}/tag?repo={REPOSITORY}&tag=before-x7", None),
                ("DELETE", f"/containers/{NAME}-before-x7", None),
            ):
                assert (await filter_.ask(method, target, body)).status < 300, target
            names = {each["Name"] for each in filter_.engine.containers}
            assert f"/{NAME}" in names and not [name for name in names if "next" in name or "before" in name]
            assert filter_.engine.changes[2] == f"POST /containers/{IMAP}/stop?t=20"

    asyncio.run(story())


def test_what_the_engine_makes_otherwise_is_removed_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            filter_.engine.spoil = lambda made: {**made, "HostConfig": {**made["HostConfig"], "ReadonlyRootfs": False}}
            answer = await filter_.ask("POST", f"/containers/create?name={NAME}-next-x7", CREATE)
            assert answer.status == 409 and b"HostConfig.ReadonlyRootfs" in answer.body
            assert filter_.engine.changes[-1].startswith("DELETE /containers/")
            assert len(filter_.engine.containers) == 4

    asyncio.run(story())


def test_a_network_that_cannot_be_joined_leaves_no_half_container(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            filter_.engine.answers["/networks/mailstead_two/connect"] = (500, {"message": "no address left"})
            answer = await filter_.ask("POST", f"/containers/create?name={NAME}-next-x7", CREATE)
            assert answer.status == 500 and answer.json() == {"message": "no address left"}
            assert len(filter_.engine.containers) == 4

    asyncio.run(story())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (f"{NAME}-next-x7", {**CREATE, "HostConfig": {"Privileged": True}}),
        (f"{NAME}-next-x7", {**CREATE, "Image": "debian:trixie-slim"}),
        (f"{NAME}-next-x7", {**CREATE, "Image": "ghcr.io/mailstead/unbound:0.1.0"}),
        (f"{NAME}-next-x7", {**CREATE, "Image": image_id(2)}),
        (f"{NAME}-next-x8", CREATE), (NAME, CREATE), ("anything", CREATE), (f"{NAME}-before-x7", CREATE),
        (f"{PROJECT}-smtp-in-1-next-x7", CREATE),
        (f"{PROJECT}-docker-filter-1-next-x7",
         {**CREATE, "Labels": {**CREATE["Labels"], "mailstead.source": f"{PROJECT}-docker-filter-1"}}),
        ("other-imap-1-next-x7", {**CREATE, "Labels": {**CREATE["Labels"], "mailstead.source": "other-imap-1"}}),
    ],
)  # fmt: skip
def test_any_other_create_changes_nothing(tmp_path: Path, name: str, body: Any) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            assert (await filter_.ask("POST", f"/containers/create?name={name}", body)).status == 403
            assert filter_.engine.changes == []
            assert filter_.record.lines[0]["outcome"] == "reject"

    asyncio.run(story())


HEAD = b"GET /version HTTP/1.1\r\nHost: d\r\n"
BEARER = b"Authorization: Bearer {secret}\r\n"


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (HEAD + b"\r\n", 401),
        (HEAD + b"Authorization: Bearer wrong\r\n\r\n", 401),
        (HEAD + b"Authorization: {secret}\r\n\r\n", 401),
        (HEAD + b"Authorization: bearer {secret}\r\n\r\n", 401),
        (HEAD + BEARER + b"Authorization: Bearer wrong\r\n\r\n", 401),
        (HEAD + BEARER + BEARER + b"\r\n", 401),
        (HEAD + BEARER + b"Upgrade: tcp\r\nConnection: Upgrade\r\n\r\n", 403),
        (HEAD + BEARER + b"Content-Length: 2\r\n\r\n{}", 403),
        (HEAD + BEARER + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 403),
        (HEAD + BEARER + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 403),
        (HEAD + BEARER + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n", 400),
        (HEAD + BEARER + b"Transfer-Encoding: identity\r\n\r\n", 400),
        (HEAD + BEARER + b"Expect: 100-continue\r\n\r\n", 403),
        (HEAD + BEARER + b"Host: e\r\n\r\n", 400),
        (HEAD + b"Authorization : Bearer {secret}\r\n\r\n", 400),
        (HEAD + BEARER + b"A: b\x00c\r\n\r\n", 400),
        (HEAD + BEARER + b"A: " + b"b" * 40_000 + b"\r\n\r\n", 400),
        (b"GET /version\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET http://d/version HTTP/1.1\r\nHost: d\r\n" + BEARER + b"\r\n", 403),
        (b"CONNECT d:80 HTTP/1.1\r\nHost: d\r\n" + BEARER + b"\r\n", 403),
        (b"OPTIONS * HTTP/1.1\r\nHost: d\r\n" + BEARER + b"\r\n", 403),
        (b"HEAD /version HTTP/1.1\r\nHost: d\r\n" + BEARER + b"\r\n", 403),
        (b"GET /ver\x00sion HTTP/1.1\r\nHost: d\r\n" + BEARER + b"\r\n", 400),
        (f"POST /containers/create?name=x HTTP/1.1\r\nHost: d\r\n{BEARER.decode()}"
         f"Content-Length: {requests.LONGEST_BODY + 1}\r\n\r\n".encode(), 413),
    ],
)  # fmt: skip
def test_no_way_of_asking_opens_more(tmp_path: Path, octets: bytes, status: int) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            answer = await filter_.octets(octets)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
            assert answer.count(b"HTTP/1.1 ") == 1, "it closed"
            assert filter_.engine.asked == []

    asyncio.run(story())


def test_each_request_on_a_connection_is_judged_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            first = b"GET /_ping HTTP/1.1\r\nHost: d\r\n" + BEARER + b"\r\n"
            for second, status in (
                (HEAD + b"\r\n", 401),
                (b"POST /build HTTP/1.1\r\nHost: d\r\n" + BEARER + b"\r\n", 403),
                (HEAD + BEARER + b"\r\n", 200),
            ):
                answer = await filter_.octets(first + second + first)
                assert answer.startswith(b"HTTP/1.1 200") and f"HTTP/1.1 {status}".encode() in answer
                assert answer.count(b"HTTP/1.1 ") == (3 if status == 200 else 2), "after a refusal it closes"

    asyncio.run(story())


def test_refusals_are_recorded_but_cannot_flood_the_record(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            for _ in range(130):
                await filter_.ask("POST", "/build")
            assert len(filter_.record.lines) == 120
            line = filter_.record.lines[0]
            assert line["outcome"] == "reject" and line["asked"] == "POST /build" and "Bearer" not in str(line)

    asyncio.run(story())


def test_an_engine_that_is_away_shows_in_health_and_answers(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            (tmp_path / "docker.sock").unlink()
            answer = await filter_.ask("GET", "/version")
            assert answer.status == 502 and "did not answer" in answer.json()["message"]
            await room.look(filter_.context, room.Engine(filter_.context.settings.docker_socket))
            assert not filter_.context.health.healthy
            assert "docker" in filter_.context.health.report()["parts"]

    asyncio.run(story())


@pytest.mark.parametrize("damage", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", b"rubbish\r\n\r\n",
                                    b"HTTP/1.1 101 Switching\r\nUpgrade: tcp\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"])  # fmt: skip
def test_a_broken_answer_of_the_engine_is_a_502(tmp_path: Path, damage: bytes) -> None:
    async def story() -> None:
        async with running(tmp_path) as filter_:
            path = tmp_path / "broken.sock"

            async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(damage)
                writer.close()

            server = await asyncio.start_unix_server(broken, str(path))
            (tmp_path / "docker.sock").unlink()
            (tmp_path / "docker.sock").symlink_to(path)
            assert (await filter_.ask("GET", "/containers/json")).status == 502
            server.close()

    asyncio.run(story())
