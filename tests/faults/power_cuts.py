"""The power goes at any moment of any writer; what is left is started again and held to what had been promised.

    python -m tests.faults power-cuts [--writers NAME ...] [--cuts N] [--disks N]

Each writer of `writer.writers()` runs once under strace (`recording`); for each place to cut (all, or `--cuts` of them
at random) disks that the cut may leave are built (`survivors`): all lost that may be, none, and `--disks` invented ones.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.recording import Recording, record
from tests.faults.survivors import cuts, survivor, told_before
from tests.faults.writer import Writer, promises, writers


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one writer. `broken`: (cut, what was lost, the complaint)."""

    changes: int
    cuts: int
    disks: int
    seconds: float
    broken: list[tuple[int, str, str]]


def recorded(name: str, writer: Writer, scratch: Path) -> Recording:
    """The writer's one recorded run."""
    root = scratch / "disk"
    root.mkdir(parents=True)
    writer.prepare(root)
    return record(scratch, root, "-m", "tests.faults.writer", name)


def try_writer(name: str, writer: Writer, *, most_cuts: int, disks: int, seed: int = 1) -> Tried:
    """Record, cut, check."""
    started = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="mailstead-cut-"))
    chance = random.Random(seed)
    broken: list[tuple[int, str, str]] = []
    tried = 0
    try:
        recording = recorded(name, writer, scratch)
        places = cuts(recording)
        if len(places) > most_cuts:
            places = [*sorted(chance.sample(places, most_cuts - 1)), len(recording.changes)]
        for place in places:
            told = promises(told_before(recording, place))
            for lost in ("all", "none", *["some"] * disks):
                tried += 1
                left = survivor(recording, place, lost, chance, scratch / "left")
                try:
                    writer.check(left, told)
                except Exception as error:
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    broken.append((place, lost, f"{error!r} ({last.filename.rpartition('/')[2]}:{last.lineno})"))
                shutil.rmtree(left)
        return Tried(len(recording.changes), len(places), tried, time.monotonic() - started, broken)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults power-cuts")
    parser.add_argument("--writers", nargs="*", default=[])
    parser.add_argument("--cuts", type=int, default=400, help="places to cut, at most, for each writer")
    parser.add_argument("--disks", type=int, default=3, help="invented disks for each cut, beside two")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    failed = 0
    for name, writer in writers().items():
        if given.writers and name not in given.writers:
            continue
        tried = try_writer(name, writer, most_cuts=given.cuts, disks=given.disks, seed=given.seed)
        failed += len(tried.broken)
        print(
            f"{name:13} {writer.what:55} {tried.changes:5} changes {tried.cuts:4} cuts {tried.disks:5} disks"
            f" {tried.seconds:6.1f} s  {f'{len(tried.broken)} BROKEN' if tried.broken else 'held'}",
            flush=True,
        )
        for complaint, count in Counter(text for _, _, text in tried.broken).most_common(5):
            print(f"    {count} x {complaint}")
            place, lost = next((place, lost) for place, lost, text in tried.broken if text == complaint)
            print(f"      first after {place} changes, lost: {lost}")
    return 1 if failed else 0
