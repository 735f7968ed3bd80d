"""The updater room: checks when they are due, keeps its report, answers admin, and asks Docker only through the filter.

Docker is a scripted server on loopback that answers as docker-filter lets Docker answer; the check's process is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.runtime import secrets
from services.runtime.health import Health
from services.runtime.internal_http import Client, PeerRefused
from services.runtime.process import Context
from services.runtime.values import Settings
from services.updater import check, plan, room

ID = "sha256:" + "a" * 64
OLD = "sha256:" + "1" * 64
NEW = "sha256:" + "2" * 64
NAME = "ghcr.io/mailstead/mailstead:0.1.0"
NOON = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


class Record:
    """An `Events` that remembers."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.lines.append({"kind": kind, "outcome": outcome, **fields})


class FakeDocker:
    """What docker-filter lets through; anything else is 403 and remembered."""

    def __init__(self) -> None:
        self.secret = ""
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.registry: tuple[int, dict[str, Any]] = (200, {"Descriptor": {"digest": NEW}})
        self.repo_digests = [f"ghcr.io/mailstead/mailstead@{OLD}"]
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = fake.answer(self.path.partition("?")[0], self.headers.get("Authorization", ""))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def answer(self, path: str, authorization: str) -> tuple[int, Any]:
        if authorization != f"Bearer {self.secret}":
            self.refused.append(path)
            return 401, {"message": "no"}
        self.asked.append(path)
        unversioned = path.removeprefix("/v1.44")
        if unversioned == "/version":
            return 200, {"ApiVersion": "1.44", "MinAPIVersion": "1.44"}
        if unversioned == "/containers/json":
            labels = {"com.docker.compose.service": "imap", "com.docker.compose.oneoff": "False"}
            entry = {"Id": "c", "Image": NAME, "ImageID": ID, "State": "running", "Status": "Up 3 minutes (healthy)"}
            return 200, [{**entry, "Labels": labels}]
        if unversioned == f"/images/{ID}/json":
            return 200, {"RepoDigests": self.repo_digests}
        if unversioned == f"/distribution/{NAME}/json":
            return self.registry
        self.refused.append(path)
        return 403, {"message": "no"}


@pytest.fixture
def docker() -> Iterator[FakeDocker]:
    fake = FakeDocker()
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()


def context(folder: Path, docker: FakeDocker | None, **changes: Any) -> Context:
    secrets.make(str(folder / "secrets"), secrets.every_name())
    known = secrets.Secrets(str(folder / "secrets"))
    url = ""
    if docker:
        docker.secret, url = known.pair("updater", "docker-filter"), f"tcp://127.0.0.1:{docker.port}"
    settings = replace(Settings(), docker_url=url, room_dir=str(folder), http_listen="127.0.0.1:0", **changes)
    return Context("updater", settings, Record(), known, Health("updater"))


@contextlib.asynccontextmanager
async def running(context: Context) -> AsyncIterator[Client]:
    """The whole room; yields admin's client."""
    task = asyncio.create_task(room.serve(context))
    while not context.health.started:
        await asyncio.sleep(0.005)
        if task.done():
            await task
    yield Client("admin", context.secrets, "updater", f"http://127.0.0.1:{context.ports['http']}")
    context.stop.set()
    await task


async def report_once(admin: Client, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The report, as soon as it is the wanted one."""
    async with asyncio.timeout(30):
        while True:
            report: dict[str, Any] = (await admin.request("GET", "/v1/report")).json()
            if wanted(report):
                return report
            await asyncio.sleep(0.02)


def test_a_check_goes_from_the_engine_to_the_report(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        async with running(here) as admin:
            report = await report_once(admin, lambda report: report["checked"])  # it is not waited for until the night
            assert report["images"] == [
                {"service": "imap", "image": NAME, "running": OLD, "registry": NEW, "state": plan.NEWER, "error": ""}
            ]
            assert report["containers"] == [
                {"service": "imap", "state": "running", "health": "healthy", "started": "Up 3 minutes"}
            ]
            assert report["error"] == ""
            assert report["next"] > report["checked"]
            assert isinstance(here.events, Record)
            assert [(line["kind"], line["outcome"], line["newer"]) for line in here.events.lines] == [
                ("update-check", "info", ["imap"])
            ]
            assert docker.refused == [], "every question carried the pair's secret and is one that the filter knows"
            # The engine's own version was found out, not assumed: engine 29 refuses 1.41.
            assert f"/v1.44/distribution/{NAME}/json" in docker.asked

    asyncio.run(story())


def test_admin_can_have_it_checked_now(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        (tmp_path / "report.json").write_text(
            json.dumps({"checked": 4_000_000_000.0, "error": "", "images": []})  # young enough not to look at the start
        )
        async with running(context(tmp_path, docker)) as admin:
            assert (await admin.request("GET", "/v1/report")).json()["checked"] == 4_000_000_000.0
            assert (await admin.request("POST", "/v1/check")).status == 202
            assert (await report_once(admin, lambda report: report["checked"] != 4_000_000_000.0))["images"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("registry", "repo_digests", "state", "words"),
    [
        ((500, {"message": "dial tcp: connection refused"}), None, plan.UNKNOWN, "not reachable"),
        ((429, {"message": "toomanyrequests"}), None, plan.UNKNOWN, "asks to wait"),
        ((200, {"nothing": "useful"}), None, plan.UNKNOWN, "could not be asked"),
        ((200, {"Descriptor": {"digest": OLD}}), None, plan.CURRENT, ""),
        ((500, {"message": "never asked"}), [], plan.LOCAL, ""),
    ],
)
def test_what_a_registry_answers_is_reported_not_raised(
    tmp_path: Path, docker: FakeDocker, registry: Any, repo_digests: list[str] | None, state: str, words: str
) -> None:
    docker.registry = registry
    if repo_digests is not None:
        docker.repo_digests = repo_digests
    context(tmp_path, docker)
    found = check.look({"url": f"tcp://127.0.0.1:{docker.port}", "secret": docker.secret})
    assert [image["state"] for image in found["images"]] == [state]
    assert words in found["images"][0]["error"]
    assert found["error"] == ""


def test_a_wrong_secret_is_the_reports_error(tmp_path: Path, docker: FakeDocker) -> None:
    context(tmp_path, docker)
    found = check.look({"url": f"tcp://127.0.0.1:{docker.port}", "secret": "wrong"})
    assert found["images"] == [] and "did not answer" in found["error"]


def test_docker_away_keeps_the_last_report_and_says_why(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        answers = [{"next": NOON + 100, "images": [{"service": "imap", **dict.fromkeys(("image", "running", "registry", "error"), ""), "state": plan.CURRENT}], "error": ""}, {"next": NOON + 200, "images": [], "error": "Docker did not answer"}]  # fmt: skip

        async def ask(question: dict[str, Any]) -> dict[str, Any]:
            return answers.pop(0)

        updater = room.Updater(here, ask)
        await updater.check()
        await updater.check()
        assert [image["service"] for image in updater.images] == ["imap"]
        assert updater.error == "Docker did not answer" and updater.next == NOON + 200
        assert isinstance(here.events, Record)
        assert [line["outcome"] for line in here.events.lines] == ["info", "error"]
        docker.secret = "another"  # the filter refuses: the containers are not known either
        response = await room.Answers(here, updater).report(None)  # type: ignore[arg-type]
        assert "Docker did not answer" in response.json()["error"] and "not known" in response.json()["error"]

    asyncio.run(story())


def test_the_report_outlives_a_restart_and_a_damaged_one_is_made_anew(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        now = NOON
        here = context(tmp_path, docker)
        here.clock = lambda: now
        asked: list[bool] = []

        async def ask(question: dict[str, Any]) -> dict[str, Any]:
            asked.append(question["look"])
            return {"next": now + 3600} | ({"images": [], "error": ""} if question["look"] else {})

        first = room.Updater(here, ask)
        await first.prepare()
        assert first.next == now, "without a report: at once"
        await first.check()
        second = room.Updater(here, ask)
        await second.prepare()
        assert (second.checked, second.next) == (now, now + 3600)
        now += room.STALE_SECONDS + 1
        third = room.Updater(here, ask)
        await third.prepare()
        assert third.next == now, "the machine was off over the last one"
        (tmp_path / "report.json").write_text("{")
        fourth = room.Updater(here, ask)
        await fourth.prepare()
        assert fourth.checked == 0
        assert asked == [False, True, False, False, False]

    asyncio.run(story())


def test_a_check_that_is_due_is_made_once(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        now = NOON
        here = context(tmp_path, docker)
        here.clock = lambda: now
        made = asyncio.Semaphore(0)

        async def ask(question: dict[str, Any]) -> dict[str, Any]:
            made.release()
            return {"next": now + 3600, "images": [], "error": ""}

        updater = room.Updater(here, ask)
        updater.next = NOON - 1
        task = asyncio.create_task(updater.follow())
        async with asyncio.timeout(5):
            await made.acquire()
        for _ in range(20):
            await asyncio.sleep(0)
        assert made.locked(), "the next one is an hour away"
        updater.want()
        async with asyncio.timeout(5):
            await made.acquire()
        task.cancel()

    asyncio.run(story())


@pytest.mark.parametrize("output", ["", "no json", "[1"])
def test_a_check_process_that_breaks_is_an_error_in_the_report(
    output: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\nprintf '%s' '{output}'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    answer = asyncio.run(room.in_process({}))
    assert answer["images"] == [] and "status 3" in answer["error"]


def test_a_check_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(room, "CHECK_SECONDS", 0.2)
    assert "did not end" in asyncio.run(room.in_process({}))["error"]


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ("30 4 * * *", 6 * 3600 + 16 * 60 + 40),  # 04:30 UTC, from 22:13:20 the evening before
        ("*/15 * * * *", 100),
        ("14 22 * * *", 40),
        ("13 22 * * *", 24 * 3600 - 20),  # due in this minute already: tomorrow
    ],
)
def test_the_next_check_is_when_the_cron_line_says_in_utc(schedule: str, seconds: int) -> None:
    assert check.next_time(schedule, NOON) - NOON == seconds


@pytest.mark.parametrize("schedule", ["", "daily", "30 4 * *", "99 4 * * *", "30 4 31 2 *"])
def test_a_line_that_is_none_ends_the_start_with_one_sentence(
    schedule: str, tmp_path: Path, docker: FakeDocker
) -> None:
    async def story() -> None:
        await room.serve(context(tmp_path, docker, update_schedule=schedule))

    with pytest.raises(room.WrongSchedule, match="UPDATE_SCHEDULE") as caught:
        asyncio.run(story())
    assert isinstance(caught.value, OSError) and "\n" not in str(caught.value)
    assert "five cron fields" in str(caught.value)


def test_without_docker_it_says_so_and_checks_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(context(tmp_path, None)) as admin:
            report = (await admin.request("GET", "/v1/report")).json()
            assert report["images"] == [] and "without Docker" in report["error"]
            with pytest.raises(PeerRefused) as caught:
                await admin.request("POST", "/v1/check")
            assert caught.value.response.status == 409

    asyncio.run(story())


def test_nobody_but_admin_may_ask(tmp_path: Path) -> None:
    async def story() -> None:
        here = context(tmp_path, None)
        async with running(here):
            filter_ = Client("docker-filter", here.secrets, "updater", f"http://127.0.0.1:{here.ports['http']}")
            with pytest.raises(PeerRefused) as caught:
                await filter_.request("GET", "/v1/report")
            assert caught.value.response.status == 403

    asyncio.run(story())


def test_the_idle_room_has_not_loaded_the_docker_sdk(tmp_path: Path) -> None:
    """25 MiB that only the check's process pays."""
    code = "import sys, services.updater.room; print([m for m in ('docker', 'requests', 'apscheduler') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
