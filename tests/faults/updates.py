"""`python -m tests.faults updates [--only WORD]`: an update on the real engine, ended at every step of its journal.

The updater's container is killed with -9 at the start and the end of each step, at the commit, and at each step that is
undone (there with an image that is not healthy); after each start of it the house must be wholly old or wholly new,
open, and every letter that was offered meanwhile there exactly once. Needs Docker and the base image; takes about half an
hour on two cores. MAILSTEAD_TEST_VERSION and MAILSTEAD_TEST_PROJECT as for tests/stack.
"""

import argparse
import os
import tempfile
import time
import traceback
from pathlib import Path

from updating import UpdatingHouse, unhealthy, updating_house

from services.updater import steps

LETTERS = 200


def points() -> list[tuple[dict[str, str], bool]]:
    """Journal entry, and whether the new image is healthy."""
    found: list[tuple[dict[str, str], bool]] = []
    for step in (*steps.BEFORE, *steps.AFTER):
        found += [({"what": what, "step": step.name}, True) for what in ("start", "end")]
    found.append(({"what": "commit"}, True))
    found.append(({"what": "back"}, False))
    undone = [step.name for step in reversed(steps.BEFORE) if step.name != "gate"]
    return [*found, *(({"what": "undone", "step": name}, False) for name in undone)]


def one(house: UpdatingHouse, at: dict[str, str], healthy: bool) -> str:
    """One run that is killed at `at`; a line on how it ended. Raises AssertionError."""
    before = house.standing()
    with house.published_again(), house.mail_meanwhile(LETTERS):
        house.newer(None if healthy else unhealthy())
        entry = house.killed_at(at)
    house.is_open()
    after = house.standing()
    if entry["outcome"] == "committed":
        # The next step may have begun before the kill came, so that the end of the gate can be the commit already.
        assert healthy and set(after) == set(before) and after != before
    else:
        assert entry["outcome"] in ("failed", "rolled-back"), entry
        assert at["what"] != "commit" and at.get("step") not in {step.name for step in steps.AFTER}, entry["reason"]
        assert after == before, {name: (before.get(name), after.get(name)) for name in {*before, *after}}
    return f"{entry['outcome']}, closed for {entry['seconds_closed']:.1f} s"


def main(arguments: list[str]) -> int:
    """Run the matrix; 1 when anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults updates")
    parser.add_argument("--only", default="", help="only points whose entry contains this")
    only = parser.parse_args(arguments).only
    project = os.environ.get("MAILSTEAD_TEST_PROJECT", "mailstead-faults")
    held = broken = 0
    with tempfile.TemporaryDirectory() as folder, updating_house(Path(folder), f"{project}-second") as house:
        for at, healthy in points():
            name = " ".join(at.values())
            if only not in name:
                continue
            began = time.monotonic()
            try:
                said = one(house, at, healthy)
                held += 1
            except AssertionError:
                said = "BROKEN\n" + traceback.format_exc(limit=3)
                broken += 1
            print(f"{name:18} {said} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{held} held, {broken} broken; {LETTERS} letters each")
    return 1 if broken else 0
