"""`python -m tests.bench NAME [--json]`: run one figure and print it."""

import argparse
import importlib
import json
import platform
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("name")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    module = importlib.import_module(f"tests.bench.{arguments.name.replace('-', '_')}")
    result: dict[str, Any] = {"bench": arguments.name, **machine(), **module.measure()}
    if arguments.json:
        print(json.dumps(result))
    else:
        show(result)


def machine() -> dict[str, Any]:
    """Where and when, so that a figure is never quoted without."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{len(cpus) or '?'} x {cpus[0] if cpus else platform.machine()}, Linux {platform.release()}",
    }


def show(value: Any, indent: str = "") -> None:
    """Nested values as indented lines."""
    for name, item in value.items():
        if isinstance(item, dict):
            print(f"{indent}{name}:")
            show(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            print(f"{indent}{name}:")
            for row in item:
                print(f"{indent}  " + "  ".join(f"{key}={each}" for key, each in row.items()))
        else:
            print(f"{indent}{name}: {item}")


if __name__ == "__main__":
    main()
