"""The mail gate where the directory itself is at fault: a step that failed, never an exception."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.admin.mail_gate import MailGate
from services.directory.passwords import Passwords
from services.runtime.events import NoEvents
from services.runtime.health import Health
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from tests.unit.admin.admin_room import FakePeers


class Broken:
    """A directory whose disk does not answer."""

    def domains(self) -> Any:
        raise sqlite3.OperationalError("disk I/O error")


def test_a_directory_that_cannot_be_read_is_a_step_that_failed(tmp_path: Path) -> None:
    context = Context("admin", Settings(), NoEvents(), Secrets(str(tmp_path)), Health("admin"))
    directories: Any = SimpleNamespace(database=Broken())
    holding: Any = SimpleNamespace(held="")
    peers: Any = FakePeers()
    gate = MailGate(context, directories, Passwords(), holding, peers)
    report = asyncio.run(gate.run("u1"))
    assert not report.passed
    assert [(each.step, each.outcome) for each in report.steps] == [
        ("rooms", "passed"), ("account", "failed"), ("clean up", "failed"),
    ]  # fmt: skip
    assert "disk I/O error" in report.steps[1].reason
