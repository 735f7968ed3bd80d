"""The updater room: checks when they are due, keeps its report, answers admin, and asks Docker only through the filter.

Docker is a scripted server on loopback that answers as docker-filter lets Docker answer; the check's process is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
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
from services.runtime.internal_http import BadRequest, Client, PeerRefused, Request, Response, Routes, serving
from services.runtime.process import Context
from services.runtime.values import Settings, WrongSetting
from services.updater import history, plan, room, steps, task, watch

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
        if unversioned == "/containers/c/json":
            labels = {"com.docker.compose.service": "imap"}
            config = {"Image": NAME, "Labels": labels}
            state = {"Status": "running", "Running": True}
            return 200, {"Id": "c", "Name": "/house-imap-1", "Image": ID, "Config": config, "State": state}
        if unversioned in (f"/images/{ID}/json", f"/images/{NAME}/json"):
            return 200, {"Id": ID, "RepoDigests": self.repo_digests}
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


def looked(here: Context, secret: str) -> dict[str, Any]:
    """What the process answers, without the process."""
    settings = dataclasses.asdict(here.settings)
    return task.answer_to(
        {"task": "look", "settings": settings, "secret": secret, "schedule": "30 4 * * *", "now": NOON}
    )


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
    found = looked(context(tmp_path, docker), docker.secret)
    assert [image["state"] for image in found["images"]] == [state]
    assert words in found["images"][0]["error"]
    assert found["error"] == ""


def test_a_wrong_secret_is_the_reports_error(tmp_path: Path, docker: FakeDocker) -> None:
    found = looked(context(tmp_path, docker), "wrong")
    assert found["images"] == [] and "did not answer" in found["error"]


Script = Callable[[dict[str, Any]], dict[str, Any]]


def updater(here: Context, answer: Script, seen: list[str] | None = None) -> watch.Updater:
    """An Updater whose processes are `answer`; the names of their tasks go to `seen`."""

    async def ask(question: dict[str, Any], seconds: float) -> dict[str, Any]:
        if seen is not None:
            seen.append(question["task"])
        return answer(question)

    return watch.Updater(here, ask)


def found(**changes: Any) -> dict[str, Any]:
    """A look's answer."""
    image = {"service": "imap", "image": NAME, "running": OLD, "registry": NEW, "state": plan.NEWER, "error": ""}
    return {"next": NOON + 3600, "images": [image], "due": False, "error": "", **changes}


def test_docker_away_keeps_the_last_report_and_says_why(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        answers = [found(), found(images=[], error="Docker did not answer", next=NOON + 200)]
        it = updater(here, lambda _: answers.pop(0))
        await it.look()
        await it.look()
        assert [image["service"] for image in it.images] == ["imap"]
        assert it.error == "Docker did not answer" and it.next == NOON + 200
        assert isinstance(here.events, Record)
        assert [line["outcome"] for line in here.events.lines] == ["info", "error"]
        docker.secret = "another"  # the filter refuses: the containers are not known either
        response = await room.Answers(here, it).report(None)  # type: ignore[arg-type]
        assert "Docker did not answer" in response.json()["error"] and "not known" in response.json()["error"]

    asyncio.run(story())


def test_the_report_outlives_a_restart_and_a_damaged_one_is_made_anew(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        now = NOON
        here = context(tmp_path, docker)
        here.clock = lambda: now
        seen: list[str] = []

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            return found(next=now + 3600)

        first = updater(here, answer, seen)
        await first.prepare()
        assert first.next == now, "without a report: at once"
        await first.look()
        second = updater(here, answer, seen)
        await second.prepare()
        assert (second.checked, second.next) == (now, now + 3600)
        now += watch.STALE_SECONDS + 1
        third = updater(here, answer, seen)
        await third.prepare()
        assert third.next == now, "the machine was off over the last one"
        (tmp_path / "report.json").write_text("{")
        fourth = updater(here, answer, seen)
        await fourth.prepare()
        assert fourth.checked == 0
        assert seen == ["next", "look", "next", "next", "next"]

    asyncio.run(story())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a list that grows is waited for, not an event
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def following(it: watch.Updater) -> AsyncIterator[None]:
    task = asyncio.create_task(it.follow())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_look_that_is_due_is_taken_once(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        here.clock = lambda: NOON
        seen: list[str] = []
        it = updater(here, lambda _: found(), seen)
        it.next = NOON - 1
        async with following(it):
            await until(lambda: seen)
            for _ in range(20):
                await asyncio.sleep(0)
            assert seen == ["look"], "the next one is an hour away"
            it.want_look()
            await until(lambda: len(seen) == 2)

    asyncio.run(story())


def test_a_look_that_finds_something_due_runs_it_and_looks_again(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        here.clock = lambda: NOON
        seen: list[dict[str, Any]] = []
        due = [True, False]

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            seen.append(question)
            if question["task"] == "look":
                return found(due=due.pop(0))
            history.add(str(tmp_path), an_entry(question["id"], steps.COMMITTED))
            return {"outcome": steps.COMMITTED}

        it = updater(here, answer)
        async with following(it):
            await until(lambda: len(seen) == 3)
        assert [question["task"] for question in seen] == ["look", "run", "look"]
        assert seen[1]["wait"] is True and seen[1]["services"] is None and seen[1]["source"] == steps.REGISTRY
        assert isinstance(here.events, Record)
        (update,) = [line for line in here.events.lines if line["kind"] == "update"]
        assert update["outcome"] == "info" and "committed" in update["reason"] and "1.5 seconds" in update["reason"]

    asyncio.run(story())


def an_entry(identity: str, outcome: str, *, told: bool = True) -> dict[str, Any]:
    return {"id": identity, "outcome": outcome, "reason": "", "services": ["imap"], "seconds_closed": 1.5,
            "source": "registry", "images": [], history.TOLD: told}  # fmt: skip


def test_an_interrupted_run_is_ended_before_anything_else_however_long_it_takes(
    tmp_path: Path, docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "RECOVER_PAUSES", (0.0,))

    async def story() -> None:
        here = context(tmp_path, docker)
        here.clock = lambda: NOON
        seen: list[str] = []
        tries = iter(["unsettled", "failed", "done"])
        troubles = []

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            if question["task"] == "look":
                return found()
            troubles.append(it.trouble)
            outcome = next(tries)
            if outcome == "done":
                it.journal.remove()
                history.add(str(tmp_path), an_entry("u1", steps.ROLLED_BACK))
                return {"outcome": steps.ROLLED_BACK}
            return {outcome: "Docker does not answer"}

        it = updater(here, answer, seen)
        it.journal.append({"what": "begin", "id": "u1", "source": "registry", "services": None, "wait": False})
        with pytest.raises(watch.Busy):
            it.want_run(steps.REGISTRY, None)
        assert (it.under_way() or {})["id"] == "u1"
        async with following(it):
            await until(lambda: "look" in seen)
        assert seen == ["recover"] * 3 + ["look"] and troubles == ["", *["Docker does not answer"] * 2]
        assert it.under_way() is None
        assert isinstance(here.events, Record)
        assert [line["outcome"] for line in here.events.lines if line["kind"] == "update"] == ["error"]

    asyncio.run(story())


def test_a_run_that_could_not_even_begin_is_in_the_history(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        here.clock = lambda: NOON
        it = updater(here, lambda q: found() if q["task"] == "look" else {"unsettled": "Docker did not answer"})
        it.next = NOON + 100
        identity = it.want_run(steps.LOCAL, ["imap"])
        with pytest.raises(watch.Busy):
            it.want_run(steps.REGISTRY, None)
        run = it.under_way() or {}
        assert (run["id"], run["state"], run["steps"]) == (identity, steps.RUNNING, [])
        async with following(it):
            await until(lambda: history.read(str(tmp_path)))
        (entry,) = history.read(str(tmp_path))
        assert (entry["id"], entry["outcome"], entry["reason"]) == (identity, steps.FAILED, "Docker did not answer")

    asyncio.run(story())


def test_a_missing_secret_fails_the_run_and_not_the_room(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        here.clock = lambda: NOON
        it = updater(here, lambda _: found())
        it.next = NOON + 100
        (tmp_path / "secrets" / "docker-filter+updater").unlink()
        here.secrets = secrets.Secrets(str(tmp_path / "secrets"))
        it.want_run(steps.LOCAL, None)
        async with following(it):
            await until(lambda: history.read(str(tmp_path)))
        assert history.read(str(tmp_path))[0]["outcome"] == steps.FAILED
        assert "docker-filter" in (await it.plan(steps.LOCAL, None))["error"]

    asyncio.run(story())


def test_results_are_told_to_admin_once_and_kept_until_it_is_there(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        told: list[dict[str, Any]] = []
        away = True

        async def result(request: Any) -> Response:
            told.append(request.json())
            return Response.error(503, "not now") if away else Response.of({})

        routes = Routes()
        routes.add("POST", "/v1/update/result", result, allow=("updater",))
        admin = dataclasses.replace(here, room="admin")
        async with serving(admin, routes, "127.0.0.1:0") as listener:
            here.settings = replace(here.settings, admin_url=f"http://127.0.0.1:{listener.port}")
            it = updater(here, lambda _: found())
            history.add(str(tmp_path), an_entry("u1", steps.FAILED, told=False))
            history.add(str(tmp_path), an_entry("u2", steps.COMMITTED, told=False))
            await it.tell()
            assert [each["id"] for each in told] == ["u1"], "in order: the next waits for the first"
            away = False
            await it.tell()
            await it.tell()
        assert [each["id"] for each in told] == ["u1", "u1", "u2"]
        assert "told" not in told[0]

    asyncio.run(story())


def test_admin_asks_for_runs_and_is_refused_nonsense(tmp_path: Path, docker: FakeDocker) -> None:
    async def story() -> None:
        here = context(tmp_path, docker)
        it = updater(here, lambda q: {"plan": [{"service": q["services"][0]}]} if q["services"] else {"error": "no"})
        answers = room.Answers(here, it)

        def request(value: Any) -> Request:
            return Request("POST", "/v1/run", {}, {}, json.dumps(value).encode(), "admin")

        dry = await answers.run(request({"dry": True, "local": False, "services": ["imap"]}))
        assert (dry.status, dry.json()) == (200, {"plan": [{"service": "imap"}]})
        assert (await answers.run(request({"dry": True}))).status == 503
        for wrong in ([], {"dry": 1}, {"local": "yes"}, {"services": "imap"}, {"services": ["a b"]}, {"services": [1]}):
            with pytest.raises(BadRequest):
                await answers.run(request(wrong))
        assert (await answers.rollback(request({}))).status == 409
        begun = await answers.run(request({"dry": False, "local": True, "services": None}))
        assert begun.status == 202 and len(begun.json()["id"]) == 16
        assert (await answers.run(request({}))).status == 409
        history.add(str(tmp_path), an_entry("u1", steps.COMMITTED))
        listed = (await answers.history(request({}))).json()["updates"]
        assert [entry["id"] for entry in listed] == ["u1"] and "told" not in listed[0]
        assert (await answers.rollback(request({}))).status == 409, "one is wanted already"

    asyncio.run(story())


@pytest.mark.parametrize("output", ["", "no json", "[1"])
def test_a_process_that_breaks_is_an_answer(output: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\nprintf '%s' '{output}'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert "status 3" in asyncio.run(watch.in_process({}, 10))["failed"]


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert "did not end" in asyncio.run(watch.in_process({}, 0.2))["failed"]


@pytest.mark.parametrize("schedule", ["", "daily", "30 4 * *", "99 4 * * *", "30 4 31 2 *"])
def test_a_line_that_is_none_ends_the_start_with_one_sentence(
    schedule: str, tmp_path: Path, docker: FakeDocker
) -> None:
    async def story() -> None:
        await room.serve(context(tmp_path, docker, update_schedule=schedule))

    with pytest.raises(WrongSetting, match="UPDATE_SCHEDULE") as caught:
        asyncio.run(story())
    assert "\n" not in str(caught.value)
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
