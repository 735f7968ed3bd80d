"""`python -m tests.fuzz [TARGET...] [--seconds N] [--seed N] [--input FILE]`: see scripts/fuzz."""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.fuzz.running import Run, once, run
from tests.fuzz.targets import TARGETS


def one(name: str, seconds: float, seed: int) -> Run:
    return run(TARGETS[name], seconds, seed)


def main() -> int:
    """Run the targets side by side; 0 when all are clean."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=300, help="for each target (300)")
    parser.add_argument("--seed", type=int, default=None, help="the same one gives the same inputs")
    parser.add_argument("--input", type=Path, help="only this file's octets, for one target")
    given = parser.parse_args()
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown or (given.input and len(given.targets) != 1):
        parser.error(f"no target {unknown[0]}" if unknown else "--input needs the name of one target")
    if given.input:
        failure = once(TARGETS[given.targets[0]], given.input.read_bytes())
        print(failure or "well")
        return 1 if failure else 0
    seed = int(time.time()) if given.seed is None else given.seed
    names = given.targets or list(TARGETS)
    print(f"{len(names)} targets, {given.seconds:g} s each, --seed {seed}", flush=True)
    failed = 0
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as processes:
        for done in processes.map(one, names, [given.seconds] * len(names), [seed] * len(names)):
            state = "FAILED" if done.failure else "clean"
            print(f"{done.name:24} {done.inputs:9} inputs {done.seconds:6.0f} s  {state}", flush=True)
            if done.failure:
                failed += 1
                print(f"{done.failure}\nAgain: scripts/fuzz {done.name} --input {done.path}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
