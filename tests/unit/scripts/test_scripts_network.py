"""scripts/lib/network.sh: which way the listeners are connected, with a docker of our own and tables instead of /proc."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PUBLIC = "20010db8000000000000000000000001 02 40 00 80     eth0\n"
LOCAL = (
    "00000000000000000000000000000001 01 80 10 80       lo\n"
    "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n"
    "fd000000000000000000000000000002 04 40 00 82     eth0\n"
)
DOCKER = """#!/bin/sh
echo "$@" >>"$DOCKER_LOG"
case "$*" in
"version --format"*) echo "$ENGINE" ;;
"ps -aq"*) echo "$RUNNING" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that is the clone, /proc and the PATH's first entry at once."""
    for name in ("net", "env", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "net" / "if_inet6").write_text(LOCAL)
    (tmp_path / "env" / "ports.env").write_text("#BIND_ADDRESS=\n")
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    return tmp_path


def choose(machine: Path, *, ports: str = "", engine: str = "20.10.24+dfsg1", running: str = "", ipv6: bool = False,
           **environment: str) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """`choose_network`; its last line of output is NETWORK."""
    with (machine / "env" / "ports.env").open("a") as file:
        file.write(ports)
    if ipv6:
        (machine / "net" / "if_inet6").write_text(LOCAL + PUBLIC)
    libraries = "".join(f". {ROOT}/scripts/lib/{name}.sh\n" for name in ("docker", "machine", "network"))
    script = f"set -euo pipefail\n{libraries}PROC={machine}\nchoose_network mailstead\nprintf '%s\\n' \"$NETWORK\"\n"
    return subprocess.run(
        ["bash", "-c", script], cwd=machine, capture_output=True, text=True, check=False, timeout=30,
        env={
            "PATH": f"{machine}/bin:/usr/bin:/bin", "DOCKER_LOG": f"{machine}/log", "ENGINE": engine,
            "RUNNING": running, **environment,
        },
    )  # fmt: skip


def compose_file(machine: Path) -> str:
    lines = (machine / "env" / "ports.env").read_text().splitlines()
    return next((line.removeprefix("COMPOSE_FILE=") for line in lines if line.startswith("COMPOSE_FILE=")), "")


@pytest.mark.parametrize("engine", ["20.10.24+dfsg1", "26.1.5", "27.0.1", "28.5.1-ce"])
def test_without_a_public_ipv6_address_there_is_nothing_to_do(machine: Path, engine: str) -> None:
    done = choose(machine, engine=engine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bridge\n", "")
    assert compose_file(machine) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.1", "0.0.0.0"])
def test_with_another_bind_address_there_is_nothing_to_do(machine: Path, address: str) -> None:
    done = choose(machine, ports=f"BIND_ADDRESS={address}\n", ipv6=True)
    assert (done.stdout, done.stderr) == ("bridge\n", "")


@pytest.mark.parametrize("address", ["", "::", "2001:db8::1"])
def test_an_old_engine_is_warned_of_and_left_on_bridges(machine: Path, address: str) -> None:
    done = choose(machine, ports=f"BIND_ADDRESS={address}\n", ipv6=True)
    assert done.stdout == "bridge\n" and compose_file(machine) == ""
    assert "Docker 20.10.24 all IPv6 peers arrive as one address" in done.stderr
    for way in ("NETWORK_MODE=host", "BIND_ADDRESS=0.0.0.0", "NETWORK_MODE=bridge"):
        assert way in done.stderr


def test_who_chose_bridges_is_not_warned_again(machine: Path) -> None:
    done = choose(machine, ports="NETWORK_MODE=bridge\n", ipv6=True)
    assert (done.stdout, done.stderr) == ("bridge\n", "")


@pytest.mark.parametrize("mode", ["auto", "bridge"])
@pytest.mark.parametrize("engine", ["27.0.1", "28.5.1-ce", "100.1"])
def test_an_engine_that_can_is_given_ipv6_on_its_bridges(machine: Path, engine: str, mode: str) -> None:
    done = choose(machine, engine=engine, ipv6=True, ports=f"NETWORK_MODE={mode}\n")
    assert (done.stdout, done.stderr) == ("ipv6\n", "")
    assert compose_file(machine) == "compose.yaml:compose.ipv6.yaml"


def test_the_hosts_network_is_taken_when_asked_for_and_written_down(machine: Path) -> None:
    assert choose(machine, ports="NETWORK_MODE=host\n").stdout == "host\n"
    assert compose_file(machine) == "compose.yaml:compose.host.yaml"
    before = (machine / "env" / "ports.env").read_text()
    assert choose(machine).stdout == "host\n"
    assert (machine / "env" / "ports.env").read_text() == before


def test_a_running_stack_is_stopped_before_its_networks_change_and_only_then(machine: Path) -> None:
    done = choose(machine, ports="NETWORK_MODE=host\n", running="4711")
    assert "it is stopped for that" in done.stdout and done.stdout.endswith("host\n")
    assert "compose --progress quiet down" in (machine / "log").read_text()
    (machine / "log").unlink()
    choose(machine, running="4711")
    assert "down" not in (machine / "log").read_text()


def test_back_on_bridges_the_line_is_gone(machine: Path) -> None:
    ports = "COMPOSE_FILE=compose.yaml:compose.host.yaml\nNETWORK_MODE=bridge\nSMTP_PORT=2525\n"
    assert choose(machine, ports=ports).stdout == "bridge\n"
    assert compose_file(machine) == ""
    assert "SMTP_PORT=2525\n" in (machine / "env" / "ports.env").read_text()


def test_a_file_of_the_owner_stays_after_ours(machine: Path) -> None:
    ports = "COMPOSE_FILE=compose.yaml:compose.ipv6.yaml:mine.yaml\nNETWORK_MODE=host\n"
    assert choose(machine, ports=ports).stdout == "host\n"
    assert compose_file(machine) == "compose.yaml:compose.host.yaml:mine.yaml"


def test_a_compose_file_of_the_environment_is_left_alone(machine: Path) -> None:
    done = choose(machine, ports="NETWORK_MODE=host\n", COMPOSE_FILE="compose.yaml:mine.yaml")
    assert done.stdout == "bridge\n" and compose_file(machine) == ""


def test_a_wrong_mode_is_refused_with_one_line(machine: Path) -> None:
    done = choose(machine, ports="NETWORK_MODE=macvlan\n")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "NETWORK_MODE='macvlan' (env/ports.env) is not allowed: one of auto, bridge, host" in done.stderr
