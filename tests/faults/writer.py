"""What the recorded writers have in common: `Writer`, and the entry that runs one under strace.

python -m tests.faults.writer NAME ROOT TOLD      (called by power_cuts through recording.record)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.recording import tell

Promises = list[dict[str, Any]]
Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Writer:
    """One writer of the house: `prepare` makes what is there before (down), `write` is recorded and tells what it has
    promised, `check` opens what a cut left as the next start would, and holds it to the promises."""

    what: str
    prepare: Callable[[Path], None]
    write: Callable[[Path, Tell], None]
    check: Callable[[Path, Promises], None]


def writers() -> dict[str, Writer]:
    """Every writer by its name."""
    from tests.faults import mail_writers, small_writers, update_writers, whole_writers

    return {**mail_writers.WRITERS, **small_writers.WRITERS, **update_writers.WRITERS, **whole_writers.WRITERS}


def main() -> None:
    name, root, told = sys.argv[1:]
    writers()[name].write(Path(root), lambda **what: tell(told, **what))


def promises(told: list[str]) -> Promises:
    """What a recording was told, parsed."""
    return [json.loads(line) for line in told]


if __name__ == "__main__":
    main()
