"""How long `scripts/up` takes on a built image until every container is healthy; the bar is 15 seconds.

The first start (empty volumes: keys and certificate are made, the first administrator too) and the next one are timed,
each from no container at all. Runs a project of its own and removes it. Called by scripts/bench; needs Docker.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "stack")]

from stack import CONTAINERS, Stack, must, seconds_of, sh  # noqa: E402

BAR = 15.0  # seconds
ROUNDS = 3


def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """`ours` is the slowest of all timed starts, in seconds."""
    with tempfile.TemporaryDirectory(prefix="mailstead-bench-") as folder:
        (Path(folder) / "tree").mkdir()
        stack = Stack(Path(folder) / "tree", f"mailstead-bench-{os.getpid()}", world=False)
        try:
            stack.up()  # builds the images where they are not ready
            first, again = [], []
            for _ in range(rounds):
                stack.down()
                first.append(round(seconds_of(stack.up), 1))
                must(stack.compose("down", "--timeout", "10"))
                again.append(round(seconds_of(stack.up), 1))
        finally:
            stack.down()
    engine = sh("docker", "version", "--format", "{{.Server.Version}}").output.strip()
    return {
        "ours": max(first + again),
        "bar": BAR,
        "unit": "s",
        "first_start": first,
        "next_start": again,
        "settings": {"containers": len(CONTAINERS), "rounds": rounds, "engine": engine, "volumes": "empty, then kept"},
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
