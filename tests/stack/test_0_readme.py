"""The README, typed as it stands: every block is run on a new stack, in its order, and prints what it shows.

Left out are the run of all tests, which this is part of, and the block that runs without Docker, which the scenarios do.
"""

from pathlib import Path

import guides
import pytest
from guides import Block
from stack import Stack
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
