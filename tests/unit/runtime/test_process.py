"""A room's process: starts with values, stops on a signal, says what it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.runtime.health import Health
from services.runtime.process import below_reserve, given_up
from services.runtime.values import Settings

ROOT = Path(__file__).resolve().parents[3]
ROOM = """
import asyncio, json, os, sys
async def serve(context):
    context.health.ready()
    context.events.emit("connect", "t")
    if context.settings.mail_domain == "fails.test":
        raise OSError(98, "cannot listen on :25: Address already in use")
    if context.settings.mail_domain == "wrong.test":
        from services.runtime.values import WrongSetting
        raise WrongSetting("SSL_CERT_PATH='' (env/tls.env) is not allowed")
    print(json.dumps([context.room, context.settings.mail_domain, dict(os.environ), "pydantic" in sys.modules]), flush=True)
    await context.stop.wait()
"""


def _start(tmp_path: Path, domain: str) -> subprocess.Popen[str]:
    package = tmp_path / "services_room"
    package.mkdir()
    (package / "smtp_in.py").write_text(ROOM)
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(package)!r}]\n"
        "from services.runtime import process, settings\n"
        "import dataclasses\n"
        "values = settings.read_environment()\n"
        "import smtp_in\n"
        "sys.exit(process.run('smtp-in', values, smtp_in.serve))\n"
    )
    environment = {"PATH": os.environ["PATH"], "MAIL_DOMAIN": domain, "EVENTS_DIR": str(tmp_path / "events")}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_signal_stops_the_room_and_its_record_is_on_disk(tmp_path: Path) -> None:
    process = _start(tmp_path, "good.test")
    assert process.stdout
    assert json.loads(process.stdout.readline())[:2] == ["smtp-in", "good.test"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    (segment,) = (tmp_path / "events" / "smtp-in").iterdir()
    assert json.loads(segment.read_text())["kind"] == "connect"


def test_a_failing_room_ends_with_status_one(tmp_path: Path) -> None:
    process = _start(tmp_path, "fails.test")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "cannot listen on :25" in errors


def test_a_setting_that_only_the_room_can_find_wrong_ends_it_as_any_wrong_setting(tmp_path: Path) -> None:
    process = _start(tmp_path, "wrong.test")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 78  # scripts/up waits no longer then
    assert errors.splitlines()[-1] == "smtp-in: error: cannot start: SSL_CERT_PATH='' (env/tls.env) is not allowed"


def test_the_executed_room_has_a_clean_environment_and_no_pydantic(tmp_path: Path) -> None:
    # A stand-in package named services.smtp_in would shadow the real one: the real `execute` runs a module of its own.
    (tmp_path / "stand_in.py").write_text(
        "import json, os, sys\n"
        "from services.runtime.process import execute, received\n"
        "if sys.argv[1:2] == ['--values']:\n"
        "    print(json.dumps([received(int(sys.argv[2])), dict(os.environ), 'pydantic' in sys.modules]))\n"
        "else:\n"
        "    import services.runtime.settings\n"
        "    execute('stand_in', {'relay_password': 'hunter2'}, os.environ['PATH'])\n"
    )
    stray = {"RELAY_PASSWORD": "hunter2", "PYTHONPATH": str(ROOT), "PYTHONDEBUG": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "stand_in"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **stray},
        capture_output=True,
        text=True,
        check=True,
    )
    values, names, heavy = json.loads(ended.stdout)
    assert values == {"relay_password": "hunter2"}
    assert set(names) - {"LC_CTYPE"} == {"PATH", "PYTHONPATH", "MALLOC_ARENA_MAX", "PYTHONUNBUFFERED"}
    assert heavy is False


@pytest.mark.parametrize(
    ("free", "percent", "least", "below"),
    [
        (49, 5, 1000, True),  # 5 % of 1000 blocks is 50
        (51, 5, 1000, False),
        (9, 5, 10, True),  # the bytes are the smaller reserve
        (11, 5, 10, False),
        (0, 0, 0, False),
    ],
)
def test_the_reserve_is_the_smaller_of_percent_and_bytes(
    monkeypatch: pytest.MonkeyPatch, free: int, percent: int, least: int, below: bool
) -> None:
    state = SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=1000)
    monkeypatch.setattr(os, "statvfs", lambda _: state)
    settings = Settings(disk_reserve_percent=percent, disk_reserve_bytes=least)
    assert below_reserve("/anywhere", settings) is below


def test_a_taken_port_is_one_line_also_out_of_a_group_of_tasks() -> None:
    taken = ExceptionGroup("unhandled", [OSError(98, "cannot listen on :25: Address already in use")])
    log: list[str] = []
    events = SimpleNamespace(emit=lambda *_, **fields: log.append(fields["reason"]))
    context = SimpleNamespace(health=Health("smtp-in"), log=lambda level, text: log.append(text), events=events)
    assert given_up(context, taken) == 1  # type: ignore[arg-type]
    assert log == ["cannot start: [Errno 98] cannot listen on :25: Address already in use"] * 2


@pytest.mark.parametrize("room", ["admin", "smtp_in", "smtp_out", "imap", "dkim", "acme", "updater"])
def test_an_argument_starts_no_second_server(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"services.{room}", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30,
        env={"PATH": os.environ["PATH"]}, check=False,
    )  # fmt: skip
    assert done.returncode == 64 and not done.stdout
    assert (
        done.stderr == f"{room.replace('_', '-')}: takes no arguments; its settings are in the env files (env/*.env)\n"
    )
