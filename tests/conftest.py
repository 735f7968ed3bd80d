"""What every test run shares: the counts that scripts/test adds up.

Each part's own fixtures are in its own conftest. Nothing here makes a test pass or fail.
"""

import os
from pathlib import Path
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write `passed failed` for scripts/test, which runs several pytests and prints one sum."""
    run = os.environ.get("MAILSTEAD_TEST_RUN")
    if not run:
        return
    stats = terminalreporter.stats
    failed = len(stats.get("failed", [])) + len(stats.get("error", []))
    Path(run, "counts").write_text(f"{len(stats.get('passed', []))} {failed}\n")
