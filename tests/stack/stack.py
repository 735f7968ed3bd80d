"""The real containers beside the test world: started, looked at and changed as their owner would.

A Stack works in a copy of this tree, so that tests edit `env/` without touching what a person has there, with a
project name, subnet and loopback ports of its own. Used by tests/stack and by tests/bench/start.py.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mailclients
from mailclients import until

ROOT = Path(__file__).parents[2]
WORLD = ROOT / "tests" / "stack" / "world"
PASSWORD = "correct horse battery staple"
RELAY_LOGIN = ("family@relay.test", "relay s3cret")
ROOMS = ("smtp-in", "smtp-out", "imap", "dkim", "acme", "admin", "updater", "docker-filter")
CONTAINERS = (*ROOMS, "unbound")
PORTS = {
    "smtp": "SMTP_PORT", "submission": "SUBMISSION_PORT", "submissions": "SUBMISSIONS_PORT", "imap": "IMAP_PORT",
    "imaps": "IMAPS_PORT", "http": "HTTP_PORT", "https": "HTTPS_PORT", "admin": "ADMIN_PORT",
    "proxy": "PROXY_PORT",
}  # fmt: skip


def sh(*command: str, stdin: bytes = b"", cwd: Path = ROOT, env: dict[str, str] | None = None,
       seconds: float = 300) -> mailclients.Outcome:  # fmt: skip
    """Run a program to its end; both its streams together."""
    done = subprocess.run(
        command, input=stdin, cwd=cwd, env=env, timeout=seconds, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    return mailclients.Outcome(done.returncode, done.stdout.decode("utf-8", "replace"))


def must(done: mailclients.Outcome) -> str:
    assert done.status == 0, done.output
    return done.output


def world_image() -> str:
    """The world's image, built unless one with exactly these contents is there; its name carries their hash."""
    total = hashlib.sha256()
    for path in sorted(path for path in WORLD.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(WORLD)} {path.stat().st_mode:o}\n".encode() + path.read_bytes())
    image = f"mailstead-world:{total.hexdigest()[:16]}"
    if sh("docker", "image", "inspect", image).status != 0:
        must(sh("docker", "build", "--quiet", "--tag", image, str(WORLD), seconds=600))
    return image


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def free_subnet() -> str:
    """The first three numbers of a /24 that no network and no route of this machine has."""
    networks = sh("docker", "network", "ls", "-q").output.split()
    taken = sh("docker", "network", "inspect", *networks).output + sh("ip", "route").output
    # By chance, so that two runs at once do not both take the first one.
    thirds = random.sample(range(100, 250), 150)
    return next(f"10.214.{third}" for third in thirds if f"10.214.{third}." not in taken)


def copy_tree(target: Path) -> None:
    """This tree as a clone would have it, with what is not committed yet."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, names):
        source = ROOT / name.decode()
        if source.is_file():
            (target / name.decode()).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name.decode(), follow_symlinks=False)


class Stack:
    """One Compose project in a copy of the tree."""

    def __init__(self, folder: Path, project: str, *, world: bool = True) -> None:
        self.folder, self.project, self.world = folder, project, world
        self.subnet = free_subnet()
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.output = ""  # what scripts/up printed last
        copy_tree(folder)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "MAILSTEAD_"))},
            "COMPOSE_PROJECT_NAME": project,
            "MAILSTEAD_SUBNET": self.subnet,
            # Two working copies can be tested at once when each builds images of another tag.
            "MAILSTEAD_VERSION": os.environ.get("MAILSTEAD_TEST_VERSION", "0.1.0"),
        }
        self.host = {
            **{PORTS[name]: str(port) for name, port in self.ports.items()},
            "BIND_ADDRESS": "127.0.0.1",
            "MAILSTEAD_SUBNET": self.subnet,
        }
        if world:
            image = world_image()
            authority = folder / "relay" / "ca.crt"
            authority.parent.mkdir(mode=0o755)
            authority.write_text(must(sh("docker", "run", "--rm", "--entrypoint", "cat", image, "/etc/world/ca.crt")))
            self.host["MAILSTEAD_RELAY_DIR"] = str(authority.parent)
            self.environment["MAILSTEAD_WORLD"] = image
            self.environment["COMPOSE_FILE"] = "compose.yaml:tests/stack/compose.world.yaml"
            self.write_env("dns", {"DNS_FORWARD_TO": f"{self.subnet}.140", "DNS_VALIDATE": "no"})
        self.write_env("ports", self.host)

    # --- the owner's hands ----------------------------------------------------------------------------------------
    def write_env(self, name: str, values: dict[str, str]) -> None:
        """Replace env/<name>.env, as its owner would with an editor."""
        (self.folder / "env" / f"{name}.env").write_text("".join(f"{key}={value}\n" for key, value in values.items()))

    def script(self, name: str, *arguments: str, stdin: bytes = b"", seconds: float = 600) -> mailclients.Outcome:
        return sh(f"scripts/{name}", *arguments, stdin=stdin, cwd=self.folder, env=self.environment, seconds=seconds)

    def up(self) -> str:
        """`scripts/up`, which must succeed; what it printed."""
        self.output = must(self.script("up"))
        return self.output

    def compose(self, *arguments: str, stdin: bytes = b"") -> mailclients.Outcome:
        return sh("docker", "compose", *arguments, stdin=stdin, cwd=self.folder, env=self.environment)

    def down(self) -> None:
        """Remove every container, network and volume of the project."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "3")

    def command(self, *arguments: str, stdin: str = "") -> str:
        return must(self.script("mailstead", *arguments, stdin=stdin.encode()))

    def asked(self, *arguments: str) -> Any:
        return json.loads(self.command("--json", *arguments))

    def settle(self) -> None:
        """Wait until every room has seen a change of the directory: they look at its snapshots once a second."""
        time.sleep(1.1)

    def account(self, address: str) -> str:
        self.command("account", "add", address, PASSWORD)
        self.settle()
        return address

    # --- the containers -------------------------------------------------------------------------------------------
    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def execute(self, service: str, *command: str, stdin: bytes = b"") -> mailclients.Outcome:
        return sh("docker", "exec", "-i", self.container(service), *command, stdin=stdin)

    def inspect(self, service: str) -> Any:
        return json.loads(must(sh("docker", "inspect", self.container(service))))[0]

    def started(self) -> dict[str, str]:
        """Service → when its container was started: equal before and after when nothing was restarted."""
        return {service: self.inspect(service)["State"]["StartedAt"] for service in CONTAINERS}

    def logs(self, service: str) -> str:
        return sh("docker", "logs", self.container(service)).output

    # --- mail -----------------------------------------------------------------------------------------------------
    def receive(self, sender: str, *recipients: str, message: bytes) -> str:
        return mailclients.deliver(self.ports["smtp"], sender, list(recipients), message)

    def submit(self, account: str, *recipients: str, message: bytes) -> str:
        return mailclients.deliver(
            self.ports["submissions"], account, list(recipients), message, login=(account, PASSWORD), tls="tls"
        )

    def letter(self, account: str, message_id: str, **more: Any) -> bytes:
        return mailclients.wait_for_letter(self.ports["imaps"], account, PASSWORD, message_id, **more)

    # --- the world ------------------------------------------------------------------------------------------------
    def sent_from_outside(self, sender: str, recipient: str, message: bytes) -> None:
        """Give the outside's Postfix a message to deliver by the world's DNS."""
        must(self.execute("world-outside", "sendmail", "-f", sender, recipient, stdin=message.replace(b"\r\n", b"\n")))

    def arrived_outside(self, message_id: str, seconds: float = 30) -> str:
        """The message as the outside's Maildir has it, once it is there."""
        path = until(
            lambda: self.execute(
                "world-outside", "grep", "-rlF", "--", f"Message-ID: {message_id}", "/var/mail/world/all/new"
            ).output.strip() if self.execute("world-outside", "test", "-d", "/var/mail/world/all/new").status == 0 else "",
            seconds, every=0.3,
        )  # fmt: skip
        return must(self.execute("world-outside", "cat", path.splitlines()[0]))

    def publish_dkim(self, domain: str) -> None:
        """Put into the world's DNS what `mailstead dkim show` tells the owner to put there."""
        knotc = ("knotc", "-c", "/etc/knot/world.conf")
        must(self.execute("world-dns", *knotc, "zone-begin", domain))
        for record in self.asked("dkim", "show", domain)["records"]:
            owner = record["name"].rstrip(".") + "."
            chunks = " ".join(f'"{chunk}"' for chunk in record["chunks"])
            added = self.execute("world-dns", *knotc, "zone-set", domain, owner, "60", record["type"], chunks)
            assert added.status == 0 or "already exists" in added.output, added.output
        must(self.execute("world-dns", *knotc, "zone-commit", domain))


def results(message: str, server: str) -> str:
    """The Authentication-Results header of one server in a message, unfolded; "" without one."""
    head = re.sub(r"\r?\n[ \t]+", " ", message.replace("\r\n", "\n").partition("\n\n")[0])
    found = re.findall(rf"^Authentication-Results: {re.escape(server)};(.*)$", head, re.M)
    return found[0] if found else ""


@contextlib.contextmanager
def running(folder: Path, project: str, *, world: bool = True) -> Iterator[Stack]:
    stack = Stack(folder, project, world=world)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


def seconds_of(action: Any) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started
