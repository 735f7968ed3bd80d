"""A stack whose images come from a registry, to be updated: runs, kills in the middle, mail meanwhile, what was left.

Used by test_6_updater.py, which tries a sample, and by `python -m tests.faults updates`, which tries every step.
"""

import contextlib
import imaplib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mailclients
from image_registry import Registry, patched_module
from mailclients import until
from stack import CONTAINERS, PASSWORD, Stack, must, sh

from tests.faults.mail_load import Flow, MailLoad

ACCOUNT = "ann@example.test"
HEALTH_SECONDS = 60
ROOM = "/var/lib/mailstead/room"
# What a run may not touch, and what it replaces.
LAST = ("docker-filter", "updater")
REPLACED = tuple(name for name in CONTAINERS if name not in LAST)

# In admin's container: ask the updater as admin does.
ASK = """
import asyncio, json, sys
from services.runtime.internal_http import Client, PeerRefused
from services.runtime.secrets import Secrets
client = Client("admin", Secrets("/run/mailstead/secrets"), "updater", "http://updater:8000", timeout=40)
try:
    print(asyncio.run(client.post(sys.argv[1], json.loads(sys.argv[2]))).body.decode())
except PeerRefused as refused:
    print(json.dumps({"refused": str(refused)}))
"""

# In the updater's container: stop the run's process the moment its journal has the wanted entry.
FREEZE = """
import json, os, signal, sys, time
wanted, path = json.loads(sys.argv[1]), "/var/lib/mailstead/room/journal.jsonl"
deadline = time.monotonic() + 120
open("/tmp/watching", "w").close()
while time.monotonic() < deadline:
    try:
        lines = open(path).read().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if wanted.items() <= entry.items():
            for name in os.listdir("/proc"):
                try:
                    if name.isdigit() and int(name) != os.getpid() and b"services.updater.task" in open(f"/proc/{name}/cmdline", "rb").read():
                        os.kill(int(name), signal.SIGSTOP)
                except OSError:
                    pass
            print("frozen", flush=True)
            sys.exit()
    time.sleep(0.0005)
"""


def unhealthy() -> dict[str, bytes | None]:
    """Every container of the new image says that it is not well."""
    return {"usr/local/bin/healthcheck": b"#!/bin/bash\necho broken by a test\nexit 1\n"}


def unsigned() -> dict[str, bytes | None]:
    """A dkim room that is healthy and answers rubbish: nothing that is sent would be signed."""
    return patched_module(
        "dkim/service.py", lambda text: re.sub(r"(async def sign\(self, request: Request\) -> Response:\n)",
                                               r'\1        return Response.of({"rubbish": True})\n', text)
    )  # fmt: skip


class UpdatingHouse:
    """The stack, its registry, and the hands of a tester."""

    def __init__(self, stack: Stack, registry: Registry) -> None:
        self.stack, self.registry = stack, registry
        self.version = stack.environment["MAILSTEAD_VERSION"]

    # --- images -----------------------------------------------------------------------------------------------------
    def newer(self, files: dict[str, bytes | None] | None = None, repository: str = "mailstead") -> str:
        """Publish a newer image; its id."""
        return self.registry.extended(f"mailstead/{repository}", self.version, files or {})[0]

    @contextlib.contextmanager
    def published_again(self) -> Iterator[None]:
        """Afterwards the registry has again what it has now."""
        names = [f"mailstead/{name}" for name in ("mailstead", "unbound")]
        before = {name: self.registry.manifest(name, self.version) for name in names}
        try:
            yield
        finally:
            self.registry.harm = ""
            for name, manifest in before.items():
                self.registry.move(name, self.version, manifest)

    # --- runs -------------------------------------------------------------------------------------------------------
    def ask(self, path: str, value: object) -> Any:
        return json.loads(must(self.stack.execute("admin", "python3", "-c", ASK, path, json.dumps(value))))

    def begin(self, **order: Any) -> str:
        """Start a run; its id."""
        answer = self.ask("/v1/run", {"dry": False, "local": False, "services": None, **order})
        assert "id" in answer, answer
        return str(answer["id"])

    def ended(self, identity: str, seconds: float = 600) -> dict[str, Any]:
        """The run's entry in the history, once there is no journal any more."""

        def look() -> dict[str, Any] | None:
            if self.stack.execute("updater", "test", "-e", f"{ROOM}/journal.jsonl").status != 1:
                return None
            read = self.stack.execute("updater", "cat", f"{ROOM}/history.json")
            entries = json.loads(read.output)["updates"] if read.status == 0 else []
            return next((entry for entry in entries if entry["id"] == identity), None)

        try:
            found = until(look, seconds, every=0.5)
        except AssertionError:
            journal = self.stack.execute("updater", "sh", "-c", f"tail -n 12 {ROOM}/journal.jsonl | cut -c1-400").output
            raise AssertionError(f"{identity} does not end: {journal}\n{self.stack.logs('updater')[-2000:]}") from None
        assert found is not None
        return found

    def run(self, **order: Any) -> dict[str, Any]:
        return self.ended(self.begin(**order))

    def killed_at(self, entry: dict[str, str], **order: Any) -> dict[str, Any]:
        """A run whose updater is killed with -9 when its journal has `entry`, and started again; how it ended."""
        container = self.stack.container("updater")
        watching = threading.Thread(
            target=lambda: seen.append(self.stack.execute("updater", "python3", "-c", FREEZE, json.dumps(entry)).output)
        )
        seen: list[str] = []
        watching.start()
        until(
            lambda: self.stack.execute("updater", "sh", "-c", "grep -l 'SIGSTOP' /proc/[0-9]*/cmdline").output.strip()
        )
        identity = self.begin(**order)
        watching.join(130)
        assert seen and "frozen" in seen[0], f"the journal never had {entry}: {seen} {self.stack.logs('updater')}"
        must(sh("docker", "kill", "--signal", "KILL", container))
        must(sh("docker", "start", container))
        return self.ended(identity)

    # --- what stands ------------------------------------------------------------------------------------------------
    def standing(self) -> dict[str, tuple[str, str]]:
        """Container name → id and image of everything in the project that runs; a stopped one stands as such."""
        listed = must(sh("docker", "ps", "-a", "--no-trunc", "--filter", f"label=com.docker.compose.project={self.stack.project}",
                         "--format", "{{.Names}} {{.ID}} {{.State}}")).splitlines()  # fmt: skip
        found = {}
        for line in listed:
            name, identity, state = line.split()
            if "-setup-" in name:
                continue
            image = must(sh("docker", "inspect", "--format", "{{.Image}}", identity)).strip()
            found[name] = (identity if state == "running" else f"{state} {identity}", image)
        return found

    def is_open(self) -> None:
        """Both doors greet as on any day."""
        until(lambda: greeting_of(self.stack.ports["smtp"]).startswith(b"220"), 20)
        client = imaplib.IMAP4_SSL(
            "127.0.0.1", self.stack.ports["imaps"], ssl_context=mailclients.trusting(), timeout=20
        )
        client.logout()

    def compose_changes(self) -> dict[str, tuple[str, str]]:
        """What `docker compose up -d` makes anew: nothing, if all is as Compose would have made it."""
        before = self.standing()
        must(self.stack.compose("up", "-d"))
        after = self.standing()
        return {name: value for name, value in after.items() if before.get(name) != value}

    # --- mail meanwhile ---------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def mail_meanwhile(self, count: int = 200, pause: float = 0.5) -> Iterator[None]:
        """Letters from outside and from the account all the time; afterwards each is there, exactly once."""
        ports = self.stack.ports
        load = MailLoad(
            [
                (Flow("in", ports["smtp"], "friend@outside.test", ACCOUNT), count // 2),
                (Flow("out", ports["submissions"], ACCOUNT, ACCOUNT, (ACCOUNT, PASSWORD)), count - count // 2),
            ],
            pause=pause,
        )
        try:
            yield
            load.finish(180)
        finally:
            load.abandon()
        wanted = {each.message_id: each.doubtful for each in load.sent}

        def missing() -> bool:
            return any(identity not in self.mailbox() for identity in wanted)

        until(lambda: not missing(), 90, every=1.0)
        copies = self.mailbox()
        wrong = {
            identity: copies[identity]
            for identity, doubtful in wanted.items()
            if not 1 <= copies[identity] <= 1 + doubtful
        }
        assert not wrong, f"copies: {wrong}"

    def mailbox(self) -> Counter[str]:
        """Message-ID → how often it is in the account's INBOX."""
        with mailclients.imap(self.stack.ports["imaps"], ACCOUNT, PASSWORD) as client:
            assert client.select("INBOX", readonly=True)[0] == "OK"
            _, parts = client.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
        heads = [part[1].decode() for part in parts if isinstance(part, tuple)]
        return Counter(match[1] for head in heads if (match := re.search(r"(?i)message-id: (<[^>]+>)", head)))


def greeting_of(port: int, tls: bool = False) -> bytes:
    """What a door says first; b"" when it is closed."""
    try:
        with socket.create_connection(("127.0.0.1", port), 3) as line:
            line.settimeout(3)
            if tls:
                with mailclients.trusting().wrap_socket(line) as secure:
                    return secure.recv(200)
            return line.recv(200)
    except OSError:
        return b""


class Doors:
    """Knocks at 25 and 993 twenty times a second; `closed` has the longest time each did not let anybody in."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.closed = {25: 0.0, 993: 0.0}
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._knock, args=(25, ports["smtp"], b"220", False), daemon=True),
            threading.Thread(target=self._knock, args=(993, ports["imaps"], b"* OK", True), daemon=True),
        ]

    def __enter__(self) -> "Doors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _knock(self, name: int, port: int, wanted: bytes, tls: bool) -> None:
        last = time.monotonic()
        while not self._end.wait(0.05):
            began = time.monotonic()
            if greeting_of(port, tls).startswith(wanted):
                # Let in at `began`; the longest time between two of those is how long a peer could have waited.
                self.closed[name] = max(self.closed[name], began - last)
                last = time.monotonic()


@contextlib.contextmanager
def updating_house(folder: Path, project: str) -> Iterator[UpdatingHouse]:
    """A running stack whose images were pushed to a registry of its own; everything is taken down at the end."""
    registry = Registry(f"{project}-registry")
    stack = Stack(folder, project)
    stack.host["MAILSTEAD_REGISTRY"] = registry.address
    stack.write_env("ports", stack.host)
    stack.write_env("updater", {"UPDATE_HEALTH_SECONDS": str(HEALTH_SECONDS), "UPDATE_MIN_AGE": "0"})
    version = stack.environment["MAILSTEAD_VERSION"]
    names = [f"{registry.address}/{name}:{version}" for name in ("mailstead", "unbound")]
    try:
        registry.start()
        for name in names:
            # Built by an earlier test of this run: scripts/up finds it current by its label.
            sh("docker", "tag", f"ghcr.io/mailstead/{name.rpartition('/')[2]}", name)
        stack.up()
        for name in names:
            must(sh("docker", "push", "--quiet", name))
        stack.account(ACCOUNT)
        yield UpdatingHouse(stack, registry)
    finally:
        stack.down()
        registry.stop()
        # Those whose tag has moved on are found by their digest alone.
        listed = sh(
            "docker", "images", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}"
        ).output
        ours = {word for word in listed.split() if word.startswith(registry.address) and "<none>" not in word}
        for name in sorted(ours):
            sh("docker", "rmi", name)
