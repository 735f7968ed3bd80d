"""Every shell script of the tree parses, passes shellcheck, and stops at its first error."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("scripts", ".ci", "images", "tests")


def is_shell(path: Path) -> bool:
    if not path.is_file() or path.suffix in (".py", ".pyc"):
        return False
    with path.open("rb") as file:
        first = file.readline(80)
    return path.suffix == ".sh" or (first.startswith(b"#!") and first.split(b"/")[-1].split()[-1] in (b"sh", b"bash"))


SCRIPTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if is_shell(path))
# What is run, not sourced. A health check is a question: each of its steps answers by its own status.
PROGRAMS = [script for script in SCRIPTS if script.suffix != ".sh" and script.name != "healthcheck"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_it_parses(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True, timeout=20)


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    # SC2317 takes every function that only a trap calls for unreachable.
    found = subprocess.run(
        ["shellcheck", "--external-sources", "--exclude=SC2317", "--source-path", ROOT, script],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("script", PROGRAMS, ids=name)
def test_it_stops_at_its_first_error_and_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111, "not executable"
    text = script.read_text()
    assert "set -eu" in text or "exec " in text.splitlines()[-1], "neither set -eu nor one exec"
