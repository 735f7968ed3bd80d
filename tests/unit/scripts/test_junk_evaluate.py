"""`scripts/mailstead junk evaluate`: two paths of the host become two read-only mounts, all else is handed on."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKER = """#!/bin/sh
case "$1 $2" in
"compose config") printf 'x/unbound:1\\nx/mailstead:1\\n' ;;
*) for word in "$@"; do printf '%s\\n' "$word"; done ;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}


def said(docker: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "mailstead"), *words],
        cwd=folder,
        env=docker,
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_folders_become_mounts(tmp_path: Path, docker: dict[str, str]) -> None:
    (tmp_path / "my good").mkdir()
    (tmp_path / "junk").mkdir()
    done = said(
        docker, tmp_path, "junk", "evaluate", "--trained", "200", "my good", "--json", "./junk", "--threshold=4"
    )
    words = done.stdout.splitlines()
    assert words[words.index("x/mailstead:1") + 1 :] == [
        "junk", "evaluate", "--trained", "200", "/mail/0", "--json", "/mail/1", "--threshold=4",
    ]  # fmt: skip
    assert f"type=bind,source={tmp_path}/my good,target=/mail/0,readonly" in words
    assert f"type=bind,source={tmp_path}/junk,target=/mail/1,readonly" in words
    assert words[words.index("--network") + 1] == "none"


def test_a_folder_that_is_not_there(tmp_path: Path, docker: dict[str, str]) -> None:
    done = said(docker, tmp_path, "junk", "evaluate", "nothing", "junk")
    assert (done.returncode, done.stderr) == (1, "mailstead: there is no nothing\n")


def test_everything_else_goes_to_the_stack(tmp_path: Path, docker: dict[str, str]) -> None:
    for words in (["junk", "status"], ["junk", "evaluate", "--help"], ["status"]):
        done = said(docker, tmp_path, *words)
        assert done.stdout.splitlines() == ["compose", "exec", "-T", "admin", "mailstead", *words]
