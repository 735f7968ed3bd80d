"""`python -m tests.faults NAME ...`: one kind of fault in full; see the module of that name."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("kills", "power-cuts", "disk-full", "dns-lies", "outages", "updates")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m tests.faults {'|'.join(NAMES)} [...]", file=sys.stderr)
        return 2
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "stack")]
    module = importlib.import_module(f"tests.faults.{sys.argv[1].replace('-', '_')}")
    status: int = module.main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
