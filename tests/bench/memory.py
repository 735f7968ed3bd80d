"""How much memory the rooms take when nothing happens: PSS after thirty seconds of idling.

PSS shares a page's size among those who map it, so the sum over rooms is what the house takes of the machine. Three
ways to run: the seven rooms as seven processes (the bar: 200 MiB), all in one (95 MiB), and, where Docker is there and
a stack runs, the seven containers (`containers`). Called by scripts/bench; settings are the defaults.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from services import __main__ as single  # noqa: E402
from services.runtime import secrets  # noqa: E402
from services.runtime.values import Settings  # noqa: E402

SEVEN_BAR, SINGLE_BAR = 200.0, 95.0  # MiB
IDLE_SECONDS = 30
READY_SECONDS = 40
FOLDERS = ("mail_dir", "state_dir", "spool_dir", "admin_dir", "routing_dir", "auth_dir", "certs_dir", "dkim_dir")


def pss(pid: int) -> float:
    """MiB of one process with all its descendants."""
    total = 0.0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) / 1024
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += pss(int(child))
    return total


def variables(settings: Settings) -> dict[str, str]:
    """The environment that makes a room read back `settings`."""
    return {name.upper(): str(value) for name, value in dataclasses.asdict(settings).items() if value not in ("", None)}


@contextlib.contextmanager
def seven_rooms(
    folder: Path, settings: Settings | None = None, ports: dict[str, int] | None = None
) -> Iterator[dict[str, int]]:
    """The rooms as processes of their own on loopback; room → pid, once all are healthy.

    `ports` are the single process's by name; they are filled in where the caller gives an empty dict.
    """
    ports = {} if ports is None else ports
    ports.update(single._free_ports())
    housed = dataclasses.replace(single._housed(settings or Settings(), str(folder), ports), single_process=False)
    for room in single.ROOMS:
        os.makedirs(os.path.join(housed.events_dir, room))
        os.makedirs(os.path.join(housed.room_dir, room))
    for name in FOLDERS:
        os.makedirs(getattr(housed, name), exist_ok=True)
    secrets.make(housed.secrets_dir, secrets.every_name())
    processes: dict[str, subprocess.Popen[bytes]] = {}
    plain = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    try:
        for room in single.ROOMS:
            own = dataclasses.replace(
                housed,
                http_listen=f"127.0.0.1:{ports[f'http-{room}']}",
                room_dir=os.path.join(housed.room_dir, room),
                docker_url="" if room == "updater" else housed.docker_url,
            )
            with (folder / f"{room}.log").open("wb") as log:
                processes[room] = subprocess.Popen(
                    [sys.executable, "-m", f"services.{room.replace('-', '_')}"],
                    cwd=ROOT, env={**plain, **variables(own)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
        for room in single.ROOMS:
            wait_healthy(room, ports[f"http-{room}"], folder)
        yield {room: process.pid for room, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_healthy(room: str, port: int, folder: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{room} is not healthy:\n{(folder / f'{room}.log').read_text()}")
        time.sleep(0.1)


def containers(project: str = "mailstead") -> dict[str, float]:
    """Room → MiB of each running container of a Compose project; empty without one."""
    listed = subprocess.run(
        ["docker", "ps", "--filter", f"label=com.docker.compose.project={project}",
         "--format", '{{.ID}} {{.Label "com.docker.compose.service"}}'],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {}
    for line in listed.stdout.splitlines():
        container, service = line.split()
        pid = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.Pid}}", container], capture_output=True, text=True, check=True
        )
        found[service] = round(pss(int(pid.stdout)), 1)
    return found


def measure(idle: float = IDLE_SECONDS) -> dict[str, Any]:
    """All figures; `ours` is the sum of seven processes and `single` that of the one."""
    from house import House

    with tempfile.TemporaryDirectory(prefix="mailstead-bench-") as folder:
        seven_folder = Path(folder, "seven")
        seven_folder.mkdir()
        with seven_rooms(seven_folder) as pids:
            time.sleep(idle)
            rooms = {room: round(pss(pid), 1) for room, pid in pids.items()}
        house = House(Path(folder, "single")).start()
        try:
            time.sleep(idle)
            assert house.process
            one = round(pss(house.process.pid), 1)
        finally:
            house.stop()
    result: dict[str, Any] = {
        "ours": round(sum(rooms.values()), 1),
        "bar": SEVEN_BAR,
        "single": one,
        "single_bar": SINGLE_BAR,
        "unit": "MiB PSS",
        "rooms": rooms,
        "settings": {"idle_seconds": idle, "python": sys.version.split()[0], "values": "defaults"},
    }
    in_containers = containers()
    if in_containers:
        result["containers"] = in_containers
    return result


if __name__ == "__main__":
    print(json.dumps(measure()))
