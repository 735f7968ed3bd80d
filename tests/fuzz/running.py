"""One target for some seconds: counts, and the input that broke it, kept where it can be run again."""

import hashlib
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.fuzz.mutation import mutations

# What an input of 20 KB may cost, on a machine that has other work: a reader that is not linear needs far more.
SECONDS_EACH = 5.0
FOUND = Path(".cache/fuzz")


class TooSlow(Exception):
    """One input took longer than `SECONDS_EACH`."""


@dataclass(frozen=True, slots=True)
class Target:
    """`read` raises for an input that shows a fault; `seeds` are inputs that are well."""

    name: str
    read: Callable[[bytes], None]
    seeds: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it. `failure` is "" or what was raised, `path` where its input lies."""

    name: str
    inputs: int
    seconds: float
    failure: str = ""
    path: str = ""


def once(target: Target, octets: bytes) -> str:
    """What `octets` does to the target: "" or the failure with its traceback."""

    def too_slow(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {SECONDS_EACH:g} seconds for {len(octets)} octets")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH)
    try:
        target.read(octets)
    except Exception:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return ""


def run(target: Target, seconds: float, seed: int) -> Run:
    """Feed it until the time is over or it breaks."""
    started = time.monotonic()
    count = 0
    for octets in mutations(target.seeds, seed):
        if failure := once(target, octets):
            FOUND.mkdir(parents=True, exist_ok=True)
            path = FOUND / f"{target.name}-{hashlib.sha256(octets).hexdigest()[:16]}"
            path.write_bytes(octets)
            return Run(target.name, count, time.monotonic() - started, failure, str(path))
        count += 1
        if not count % 16 and time.monotonic() - started >= seconds:
            break
    return Run(target.name, count, time.monotonic() - started)
