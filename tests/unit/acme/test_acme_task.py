"""The short process: does what `perform` does, and fails in words."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from certificates import issue

import services
from services.acme import task
from services.acme.task import Order, TaskFailed, in_process, perform
from services.runtime.tls import ServerCertificates
from services.runtime.values import Settings

HOST = "mail.example.test"


def order(folder: Path, **values: str) -> Order:
    (folder / "certs").mkdir(exist_ok=True)
    settings = Settings(certs_dir=str(folder / "certs"), room_dir=str(folder / "room"), **values)
    return Order(settings, time.time(), str(folder / "letsencrypt"))


def manual(folder: Path) -> dict[str, str]:
    return {"ssl_type": "manual", "ssl_cert_path": str(folder / "c.pem"), "ssl_key_path": str(folder / "k.pem")}


def test_a_process_installs_and_the_room_stays_small(tmp_path: Path) -> None:
    asked = order(tmp_path)
    outcome = asyncio.run(in_process(asked))
    assert outcome.state == "installed" and outcome.certificate is not None
    assert HOST in outcome.certificate.names
    assert ServerCertificates(asked.settings.certs_dir).load()
    assert perform(asked) == type(outcome)("unchanged", "", outcome.certificate), "the same without a process"


def test_the_room_itself_never_imports_cryptography() -> None:
    program = (
        "import sys, services.acme.room; sys.exit(any(name.split('.')[0] == 'cryptography' for name in sys.modules))"
    )
    folder = os.path.dirname(services.__path__[0])
    assert subprocess.run([sys.executable, "-c", program], cwd=folder).returncode == 0


def test_an_unusable_source_tells_what_is_served_meanwhile(tmp_path: Path) -> None:
    good = issue(HOST, now=time.time())
    (tmp_path / "c.pem").write_bytes(good.chain)
    (tmp_path / "k.pem").write_bytes(good.key)
    assert perform(order(tmp_path, **manual(tmp_path))).state == "installed"
    (tmp_path / "k.pem").write_bytes(issue(HOST).key)
    outcome = asyncio.run(in_process(order(tmp_path, **manual(tmp_path))))
    assert (
        outcome.state == "incomplete" and outcome.certificate is not None and outcome.certificate.serial == good.serial
    )
    (tmp_path / "k.pem").write_bytes(b"")
    outcome = perform(order(tmp_path, **manual(tmp_path)))
    assert outcome.state == "unusable" and "has no private key" in outcome.problem
    (tmp_path / "certs" / "current" / "fullchain.pem").write_bytes(b"damaged")
    assert perform(order(tmp_path, **manual(tmp_path))).certificate is None


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    asked = order(tmp_path)
    (tmp_path / "room").write_text("a file where the CA's folder should be")
    outcome = perform(asked)
    assert outcome.state == "unusable" and "could not be written" in outcome.problem and "room" in outcome.problem


def test_a_process_that_dies_or_hangs_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskFailed, match=r"(?s)status 1: .*ssl_typo"):
        value = order(tmp_path)
        monkeypatch.setattr(task.dataclasses, "asdict", lambda each: {"settings": {"ssl_typo": 1}, "now": 0})
        asyncio.run(in_process(value))
    monkeypatch.undo()
    monkeypatch.setattr(task, "SECONDS", 0.02)
    with pytest.raises(TaskFailed, match="no answer"):
        asyncio.run(in_process(order(tmp_path)))
