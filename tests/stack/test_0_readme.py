"""The README, typed as it stands: every block is run on a new stack, in its order, and prints what it shows.

Left out is the run of all tests, which this is part of. The block that runs without Docker is typed in a clone of its own.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import guides
import pytest
from guides import Block
from stack import Stack, copy_tree
from test_1_guides import type_block

TYPED = [
    block
    for block in guides.blocks(guides.README)
    if block.info in guides.TYPED and "scripts/test" not in block.text and "-m venv" not in block.text
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("block", TYPED, ids=lambda block: block.place)
def test_it_works_as_written(stack: Stack, home: Path, block: Block) -> None:
    assert type_block(stack, home, block).strip(), "a command says what it did"


def test_there_were_commands_to_run() -> None:
    assert sum(block.text.count("\n") for block in TYPED) >= 4


def test_without_docker_as_written(tmp_path: Path) -> None:
    """Packages from PyPI by their sums, then every room in one process. Only the ports are other ones than written."""
    (block,) = [block for block in guides.blocks(guides.README) if "-m venv" in block.text]
    clone = tmp_path / "clone"
    copy_tree(clone)
    python = Path(sys.base_prefix) / "bin"  # the README asks for 3.11; this machine's python3 may be older
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"{block.text.rstrip()} --ports auto"], cwd=clone, text=True,
        env={**os.environ, "PATH": f"{python}:{os.environ['PATH']}"}, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout
        ready = next((json.loads(line) for line in process.stdout if line.startswith('{"ready"')), None)
        assert ready and ready["login"] == "admin@example.test"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(30) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
