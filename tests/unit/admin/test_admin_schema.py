"""The API against its own description: schemathesis asks all that the description allows, and much that it does not.

By number of examples and with a seed, so that two runs ask the same; longer runs are made by hand:
`st run URL/api/v1/openapi.json -H "Authorization: Bearer ..." --max-time 600`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from admin_room import AdminRoom, token

SEED = "20260"
EXAMPLES = "4"
# What an address, a name or a password is, JSON Schema cannot say: 422 with a sentence is the answer to those.
NOT_CHECKED = "positive_data_acceptance"


def test_no_question_is_answered_by_a_fault_or_by_what_is_not_documented(
    new_room: Callable[..., AdminRoom], tmp_path: Path
) -> None:
    room = new_room(log_level="error")
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{room.url}/api/v1/openapi.json",
        "-H", f"Authorization: {token(room)['Authorization']}",
        "--seed", SEED, "--max-examples", EXAMPLES, "--generation-database", "none", "--continue-on-failure",
        "--phases", "examples,coverage,fuzzing,stateful", "--exclude-checks", NOT_CHECKED,
        "--warnings", "off", "--no-color",
        "--exclude-path", "/api/v1/update/gate",  # sends letters and waits 25 s for each of them
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "generated" in done.stdout and "Tested: 0" not in done.stdout, done.stdout[-2_000:]
    assert not [event for event in room.recorded() if event["kind"] == "bug"]
