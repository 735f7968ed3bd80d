"""scripts/lib/docker.sh: which packages bring Docker and Compose v2 on which distribution, with an apt of our own."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
APT_CACHE = """#!/bin/sh
# What `apt-cache policy NAME` says on the distribution whose packages are in the file beside this.
version=$(sed -n "s/^$2 //p" "$(dirname "$0")/packages")
[ -z "$version" ] || printf '%s:\\n  Installed: (none)\\n  Candidate: %s\\n' "$2" "$version"
"""
# An installation makes the commands: `docker` answers once docker.io is there, Compose once its plugin is.
APT_GET = """#!/bin/bash
folder=$(dirname "$0")
printf '%s\\n' "$*" >>"$folder/log"
for package in "$@"; do
    version=$(sed -n "s/^$package //p" "$folder/packages")
    case $package in
    docker.io | docker-compose | docker-compose-v2) printf '%s' "${version#*:}" >"$folder/has-$package" ;;
    esac
done
"""
DOCKER = """#!/bin/bash
folder=$(dirname "$0")
case $1 in
info) [[ -e $folder/has-docker.io ]] ;;
compose)
    for package in docker-compose-v2 docker-compose; do
        [[ ! -e $folder/has-$package ]] || exec cat "$folder/has-$package"
    done
    exit 1
    ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for name, text in {"apt-cache": APT_CACHE, "apt-get": APT_GET, "docker": DOCKER}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def installed(
    machine: Path, script: str, packages: dict[str, str]
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """`script` on a distribution with `packages`: what came of it, and the packages that apt was asked to install."""
    (machine / "packages").write_text("".join(f"{name} {version}\n" for name, version in packages.items()))
    (machine / "log").write_text("")
    # Here there may be a real engine: neither its command nor its socket counts.
    lines = f'set -euo pipefail\n. {ROOT}/scripts/lib/docker.sh\nstart_engine() {{ :; }}\nas_root() {{ "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", lines + script], env={"PATH": f"{machine}:/usr/bin:/bin"}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    asked = [line for line in (machine / "log").read_text().splitlines() if line.startswith("install")]
    return done, [word for line in asked for word in line.split() if not word.startswith("-") and word != "install"]


DEBIAN_12 = {"docker.io": "20.10.24+dfsg1-1+deb12u1", "iptables": "1.8.9-2", "docker-compose": "1.29.2-3"}
DEBIAN_13 = {
    "docker.io": "26.1.5+dfsg1-9",
    "docker-cli": "26.1.5+dfsg1-9",
    "docker-compose": "2.26.1-4",
    "docker-buildx": "0.13.1",
}
UBUNTU = {
    "docker.io": "28.2.2-0ubuntu1", "docker-compose-v2": "2.37.1+ds1-0ubuntu2", "docker-compose": "1.29.2-6",
    "docker-buildx": "0.21.3",
}  # fmt: skip


@pytest.mark.parametrize(
    ("packages", "wanted"),
    [
        (DEBIAN_13, ["docker-compose", "docker-buildx"]),
        (UBUNTU, ["docker-compose-v2", "docker-buildx"]),
        ({**UBUNTU, "docker-compose-v2": "1:2.37.1"}, ["docker-compose-v2", "docker-buildx"]),
    ],
)
def test_compose_comes_from_the_distribution(machine: Path, packages: dict[str, str], wanted: list[str]) -> None:
    done, asked = installed(machine, "ensure_compose", packages)
    assert done.returncode == 0, done.stderr
    assert asked == wanted


def test_a_compose_that_is_too_old_is_refused(machine: Path) -> None:
    done, _ = installed(machine, "ensure_compose", {**UBUNTU, "docker-compose-v2": "2.20.2"})
    assert done.returncode == 1 and "Docker Compose 2.20.2 is too old: 2.24 or newer is needed" in done.stderr


def test_where_only_compose_1_is_packaged_the_next_release_is_asked(machine: Path) -> None:
    script = 'compose_of_next_release() { printf 2.26.1 >"$(dirname "$(command -v docker)")/has-docker-compose"; }\nensure_compose'
    done, asked = installed(machine, script, DEBIAN_12)
    assert done.returncode == 0, done.stderr
    assert asked == []


def test_a_compose_that_is_there_is_taken_as_it_is(machine: Path) -> None:
    (machine / "has-docker-compose").write_text("v2.40.0-desktop.1")
    done, asked = installed(machine, "ensure_compose", {})
    assert done.returncode == 0 and asked == []


@pytest.mark.parametrize(
    ("packages", "wanted"),
    [
        (DEBIAN_12, ["docker.io", "iptables", "ca-certificates"]),
        (DEBIAN_13, ["docker.io", "iptables", "ca-certificates", "docker-cli"]),
        (UBUNTU, ["docker.io", "iptables", "ca-certificates"]),
    ],
)
def test_the_engine_comes_from_the_distribution(machine: Path, packages: dict[str, str], wanted: list[str]) -> None:
    script = "without_engine\nensure_engine"
    # A machine that has an engine shows none here: neither dockerd in PATH nor its socket.
    hide = 'without_engine() { command() { [[ $* != "-v dockerd" ]] && builtin command "$@"; }; }\n'
    done, asked = installed(machine, f"SOCKET={machine}/no-socket\n{hide}{script}", packages)
    assert done.returncode == 0, done.stderr
    assert asked == wanted


def test_an_engine_that_answers_is_taken_as_it_is(machine: Path) -> None:
    (machine / "has-docker.io").write_text("29.0.0")
    done, asked = installed(machine, "ensure_engine", {})
    assert done.returncode == 0 and asked == []
