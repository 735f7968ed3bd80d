"""The README, typed as it stands: every command in its blocks is run on a new stack, in its order.

Left out are the two commands that the whole run is made of (scripts/up, scripts/test) and the block that runs without
Docker, which the scenarios do. The backup goes to a folder of the test's own instead of /root.
"""

import re
import shlex
from pathlib import Path

import pytest
from stack import ROOT, Stack, must, sh

BLOCKS = re.findall(r"^[ ]*```sh\n(.*?)^[ ]*```", (ROOT / "README.md").read_text(), re.M | re.S)
COMMANDS = [
    line.strip()
    for block in BLOCKS
    if "-m venv" not in block
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() not in ("", "scripts/up", "scripts/test") and not line.strip().startswith("#")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("command", COMMANDS, ids=[f"{number} {line}" for number, line in enumerate(COMMANDS)])
def test_it_works_as_written(stack: Stack, folder: Path, command: str) -> None:
    words = [word.replace("/root/", f"{folder}/") for word in shlex.split(command, comments=True)]
    told = must(sh(*words, cwd=stack.folder, env=stack.environment))
    assert told.strip(), "a command says what it did"


def test_there_were_commands_to_run() -> None:
    assert len(COMMANDS) > 8
