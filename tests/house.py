"""Mailstead as one process, started and stopped by tests as a person would: `python -m services --data DIR --ports auto`.

Used by the scenarios and by tests/bench. A House is one data folder; it can be stopped, killed and started again on it.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mailclients

ROOT = Path(__file__).parents[1]
START_SECONDS = 30
PASSWORD = "correct horse battery staple"


class House:
    """One single process on one data folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, *, accounts_ahead: int = 1) -> None:
        self.folder, self.accounts_ahead = folder, accounts_ahead
        self._unused: dict[str, list[str]] = {}
        self.environment = dict(environment or {})
        self.ready: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        """Everything that the process has printed on stderr, all starts together."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def port(self, name: str) -> int:
        return int(self.ready[name])

    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR", "TZ")}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **self.environment}

    def start(self) -> "House":
        """Start and wait for the line that says ready."""
        assert self.process is None
        (self.folder / "env").mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services", "--data", self.data, "--env", self.folder / "env", "--ports", "auto"],
                cwd=self.folder, env=self.variables(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            raise AssertionError(f"not ready within {START_SECONDS} s:\n{self.log}")
        self.ready = json.loads(line)
        return self

    def stop(self) -> int:
        """End it as an init system would; its exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"did not stop within 20 s:\n{self.log}") from error
        finally:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would, as far as a process can tell."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    # --- the owner's commands -------------------------------------------------------------------------------------
    def cli(self, *arguments: str, stdin: str = "") -> mailclients.Outcome:
        """`mailstead ARGUMENTS`, as scripts/mailstead runs it inside the admin container."""
        done = subprocess.run(
            [sys.executable, "-m", "services.admin.cli", "--data", self.data, *arguments],
            cwd=self.folder, env={**self.variables()}, input=stdin.encode(), timeout=60, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return mailclients.Outcome(done.returncode, done.stdout.decode("utf-8", "replace"))

    def command(self, *arguments: str, stdin: str = "") -> str:
        """`cli` that must succeed; what it printed."""
        done = self.cli(*arguments, stdin=stdin)
        assert done.status == 0, done.output
        return done.output

    def asked(self, *arguments: str) -> Any:
        """`command` with --json, parsed."""
        return json.loads(self.command("--json", *arguments))

    def settle(self) -> None:
        """Wait until every room has seen a change of the directory: they look at its snapshots once a second."""
        time.sleep(1.1)

    def account(self, domain: str = "example.test") -> str:
        """A new account that no other test has, with PASSWORD; its address. Made a few ahead, to settle once for all."""
        unused = self._unused.setdefault(domain, [])
        if not unused:
            for _ in range(2 if domain != "example.test" else self.accounts_ahead):
                unused.append(f"u{secrets.token_hex(4)}@{domain}")
                self.command("account", "add", unused[-1], PASSWORD)
            self.settle()
        return unused.pop()

    def alias(self, source: str, *targets: str) -> str:
        """A new alias, known to every room."""
        self.command("alias", "add", source, *targets)
        self.settle()
        return source

    # --- what people do -------------------------------------------------------------------------------------------
    def receive(self, sender: str, *recipients: str, message: bytes, **more: Any) -> str:
        """Mail from the internet on port 25; the reply to the final dot."""
        return mailclients.deliver(self.port("smtp"), sender, list(recipients), message, **more)

    def submit(self, account: str, *recipients: str, message: bytes, sender: str = "", **more: Any) -> str:
        """Mail from a logged-in account on the implicit TLS port; the reply to the final dot."""
        more = {"login": (account, PASSWORD), "tls": "tls", **more}
        return mailclients.deliver(self.port("submissions"), sender or account, list(recipients), message, **more)

    def letter(self, account: str, message_id: str, **more: Any) -> bytes:
        """The message as the account reads it by IMAP, once it is there."""
        return mailclients.wait_for_letter(self.port("imaps"), account, PASSWORD, message_id, **more)

    def imap(self, account: str) -> Any:
        return mailclients.imap(self.port("imaps"), account, PASSWORD)


@contextlib.contextmanager
def running(folder: Path, environment: Mapping[str, str] | None = None, **more: Any) -> Iterator[House]:
    house = House(folder, environment, **more)
    try:
        yield house.start()
    finally:
        house.kill()


def traced(house: House, query: str, *wanted: str, seconds: float = 10) -> list[dict[str, Any]]:
    """The events that `mailstead trace QUERY` shows, once all kinds `wanted` are among them."""
    deadline = time.monotonic() + seconds
    while True:
        done = house.cli("--json", "trace", query)
        events: list[dict[str, Any]] = []
        if done.status == 0:
            events = json.loads(done.output)["events"]
        if set(wanted) <= {event["kind"] for event in events}:
            return events
        assert time.monotonic() < deadline, done.output
        time.sleep(0.1)
