"""Every writer of the house, its system calls recorded: what it promised is there after a power cut at invented moments.

A sample; `python -m tests.faults power-cuts` tries every moment.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults import writer as every_writer
from tests.faults.power_cuts import try_writer
from tests.faults.recording import Synced, record
from tests.faults.survivors import survivor


@pytest.mark.parametrize("name", every_writer.writers())
def test_what_was_promised_survives(name: str) -> None:
    tried = try_writer(name, every_writer.writers()[name], most_cuts=8, disks=1, seed=random.randrange(1 << 30))
    assert not tried.broken
    assert tried.changes > 3


FORGETFUL = """
import os, sys
root, told = sys.argv[1:]
with open(root + "/new", "w") as file:
    file.write("x" * 5000)
    file.flush()
    os.fsync(file.fileno())
os.rename(root + "/new", root + "/kept")
if "{folder}":
    folder = os.open(root, os.O_RDONLY)
    os.fsync(folder)
with open(root + "/kept", "a") as file:
    file.write("y" * 5000)
open(told, "a").write("promised\\n")
"""


@pytest.mark.parametrize("folder", ["yes", ""])
def test_the_model_finds_what_was_not_made_durable(tmp_path: Path, folder: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "program.py").write_text(FORGETFUL.replace("{folder}", folder))
    recording = record(tmp_path, tmp_path / "disk", str(tmp_path / "program.py"))
    assert recording.told == ["promised"]
    assert any(isinstance(change, Synced) for change in recording.changes)
    chance = random.Random(5)
    states = set()
    for number in range(60):
        left = survivor(recording, len(recording.changes), "some", chance, tmp_path / f"left{number}")
        states.add(tuple(sorted((path.name, path.stat().st_size) for path in left.iterdir())))
    names = {name for state in states for name, _ in state}
    assert names == ({"kept"} if folder else {"kept", "new"}), "a rename is down by its folder's fsync alone"
    sizes = {size for state in states for _, size in state}
    assert 10_000 in sizes and 5000 in sizes and len(sizes) > 2, "what was appended is there, or not, or torn"
