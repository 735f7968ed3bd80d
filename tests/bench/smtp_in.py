"""Durable messages a second through smtp-in, beside Debian's Postfix in the same run.

Load: Postfix's own smtp-source, 5 KB messages, one message a connection; a round ends when every file is in `new`.
Rounds of both sides alternate, since a machine's speed drifts; the ratio is of the medians. Ours runs as in its
container: no capability, mail folders it may only add to (2730), directory snapshot, events and the TLS offer on. Run
as root, on loopback, bounded to about two minutes.
"""

import contextlib
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from services import __main__ as single  # noqa: E402
from services.directory.models import Account, Domain  # noqa: E402
from services.directory.publish import Contents, Publisher  # noqa: E402
from services.runtime import secrets  # noqa: E402
from services.runtime.values import Settings  # noqa: E402
from services.storage.provision import provision  # noqa: E402
from tests.bench.memory import pss, variables, wait_healthy  # noqa: E402
from tests.bench.postfix import Postfix  # noqa: E402
from tests.certificates import issue  # noqa: E402

SESSIONS = (1, 10, 50)
MESSAGES = 2000
ROUNDS = 3
OCTETS = 5120
PLAIN = ("-l", str(OCTETS), "-f", "sender@load.test")
BAR = 1.5  # times Postfix, at 10 and 50 sessions
WORKERS = 2  # as many as the machine that the figures are from has processors
RECIPIENT = "user@bench.test"
MAIL_UID = MAIL_GID = 5000


@contextlib.contextmanager
def smtp_in(folder: Path, certificate: tuple[bytes, bytes], **chosen: Any) -> Iterator[tuple[int, int, Path]]:
    """Our room as a process; its port, pid and the user's Maildir. `chosen` are settings, MAIL_CHECKS=off if none is."""
    ports = single._free_ports()
    settings = dataclasses.replace(
        single._housed(Settings(mail_domain="bench.test"), str(folder), ports),
        single_process=False,
        http_listen=f"127.0.0.1:{ports['http-smtp-in']}",
        room_dir=str(folder / "room"),
        # All the load comes from one address.
        **{"max_connections_per_peer": 200, "mail_checks": "off", "smtp_workers": WORKERS, **chosen},
    )
    for name in ("mail_dir", "routing_dir", "auth_dir", "certs_dir", "room_dir"):
        os.makedirs(getattr(settings, name))
    os.makedirs(os.path.join(settings.events_dir, "smtp-in"))
    secrets.make(settings.secrets_dir, secrets.every_name())
    publish(settings)
    install(Path(settings.certs_dir), certificate)
    open_to_the_mail_group(settings)
    program = [sys.executable, "-m", "services.smtp_in"]
    if os.geteuid() == 0:
        # As in its container: no capability, so that root is an ordinary member of the mail group here.
        program = ["setpriv", f"--groups=0,{MAIL_GID}", "--bounding-set=-all", "--inh-caps=-all", *program]
    plain = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            program, cwd=ROOT, env={**plain, **variables(settings)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_healthy("smtp-in", ports["http-smtp-in"], folder.parent / "ours-logs")
        yield ports["smtp"], process.pid, Path(settings.mail_dir) / "bench.test" / "user"
    finally:
        process.terminate()
        process.wait(20)


def publish(settings: Settings) -> None:
    """The routing snapshot that admin would publish for one account."""
    account = Account(
        address=RECIPIENT, domain="bench.test", local="user", login="user", enabled=True, administrator=True,
        quota_bytes=0, deleted_at=None,
    )  # fmt: skip
    publisher = Publisher(settings.routing_dir, settings.auth_dir)
    generation = publisher.next_generation(0)
    publisher.prepare(Contents(generation, [Domain("bench.test", 0.0)], [account], [], {RECIPIENT: "*"}))
    publisher.link(generation)
    provision(settings.mail_dir, RECIPIENT)


def install(folder: Path, certificate: tuple[bytes, bytes]) -> None:
    (folder / "1").mkdir()
    (folder / "1/fullchain.pem").write_bytes(certificate[0])
    (folder / "1/privkey.pem").write_bytes(certificate[1])
    (folder / "current").symlink_to("1")


def open_to_the_mail_group(settings: Settings) -> None:
    """Owners and modes as `setup` and the imap room leave them: the mail is another user's, its group may add."""
    if os.geteuid() != 0:
        return
    for parent, folders, files in os.walk(settings.mail_dir):
        for path in [parent, *(os.path.join(parent, name) for name in files + folders)]:
            mode = os.stat(path).st_mode & 0o7777
            os.chown(path, MAIL_UID, MAIL_GID)
            os.chmod(path, mode)  # chown takes the setgid bit away
    os.chmod(settings.mail_dir, 0o2710)
    staging = os.path.join(settings.mail_dir, ".incoming")
    os.makedirs(staging, exist_ok=True)
    os.chown(staging, 0, MAIL_GID)
    os.chmod(staging, 0o2700)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its descendants, dead ones too."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])
    return total


def count(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(1 for _ in entries)


def one_round(
    port: int, pids: Sequence[int], maildir: Path, sessions: int, message: Sequence[str] = PLAIN
) -> dict[str, float]:
    """Send `MESSAGES` and wait for the last file; `pids` are the side's processes, `message` says which to send."""
    new = maildir / "new"
    before = count(new) if new.exists() else 0
    cpu = sum(map(cpu_seconds, pids))
    start = time.perf_counter()
    load = subprocess.run(
        ["smtp-source", "-s", str(sessions), "-m", str(MESSAGES), *message, "-t", RECIPIENT, f"127.0.0.1:{port}"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if load.returncode:
        raise SystemExit(f"smtp-source: {load.stderr.strip()}")
    while count(new) - before < MESSAGES:
        if time.perf_counter() - start > 180:
            raise SystemExit(f"only {count(new) - before} of {MESSAGES} arrived")
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    return {"per_second": MESSAGES / seconds, "cpu_per_1000": (sum(map(cpu_seconds, pids)) - cpu) / MESSAGES * 1000}


def measure() -> dict[str, Any]:
    """One row per number of sessions."""
    issued = issue("mail.bench.test", now=time.time())
    certificate = (issued.chain, issued.key)
    folder = Path(tempfile.mkdtemp(prefix="mailstead-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        return _measured(folder, certificate)
    finally:
        shutil.rmtree(folder)


def _measured(folder: Path, certificate: tuple[bytes, bytes]) -> dict[str, Any]:
    (folder / "ours").mkdir()
    peer = Postfix(folder / "postfix", single._free_ports()["smtp"], certificate[0] + certificate[1])
    peer.start()
    try:
        with smtp_in(folder / "ours", certificate) as (port, pid, maildir):
            rows = in_turn({"ours": (port, [pid], maildir), "peer": (peer.port, [peer.pid], peer.maildir)})
            memory = round(pss(pid), 1)
    finally:
        peer.stop()
    return {
        "rows": rows,
        "bar": BAR,
        "met": all(each["ratio"] >= BAR for each in rows if each["sessions"] != 1),
        "memory_mib": memory,
        "settings": {
            "ours": f"{WORKERS} workers, MAIL_CHECKS=off, fsync of each file before 250 and of the rename, events on, STARTTLS offered, no capability",
            "peer": f"Postfix {Postfix.version()}, Debian's master.cf, fsync as built in, STARTTLS offered",
            "load": f"smtp-source, {MESSAGES} messages of {OCTETS} octets, one a connection, {ROUNDS} rounds in turn",
        },
    }


Side = tuple[int, Sequence[int], Path]


def in_turn(sides: dict[str, Side], *message: Sequence[str]) -> list[dict[str, Any]]:
    """One row per number of sessions; rounds of both sides alternate."""
    rows = []
    for side in sides.values():
        one_round(*side, 10, *message)  # not counted: caches fill, Postfix starts its processes
    for sessions in SESSIONS:
        rounds: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
        for number in range(ROUNDS):
            for name in ("ours", "peer") if number % 2 else ("peer", "ours"):
                rounds[name].append(one_round(*sides[name], sessions, *message))
        rows.append(row(sessions, rounds))
    return rows


def row(sessions: int, rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    def median(side: str, what: str) -> float:
        return statistics.median(each[what] for each in rounds[side])

    ours, peer = median("ours", "per_second"), median("peer", "per_second")
    return {
        "sessions": sessions,
        "ours": round(ours),
        "peer": round(peer),
        "ratio": round(ours / peer, 2),
        "ours_range": [round(min(each["per_second"] for each in rounds["ours"])), round(max(each["per_second"] for each in rounds["ours"]))],
        "peer_range": [round(min(each["per_second"] for each in rounds["peer"])), round(max(each["per_second"] for each in rounds["peer"]))],
        "ours_cpu_per_1000": round(median("ours", "cpu_per_1000"), 2),
        "peer_cpu_per_1000": round(median("peer", "cpu_per_1000"), 2),
    }  # fmt: skip
