"""A docker for the tests of scripts/update: images and containers in one JSON file, the updater's answers, and a plug to
pull. Run as `docker` by the scripts; imported by the tests, which write and read the file.

`gate` says how the updater's run ends. `crash` names a call by its first words: when it comes for the first time, the
script that made it and everything it started is killed, before or after the call was done.
"""

from __future__ import annotations

import json
import os
import signal
import sys

TYPE_CHECKING = False  # `typing`, `pathlib` and `subprocess` take longer to load than a call takes
if TYPE_CHECKING:
    from typing import Any

STATE = os.environ.get("FAKE_DOCKER", "")
PREFIX = "ghcr.io/mailstead/"
LAST = ("docker-filter", "updater")


class Docker:
    """One call."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.images: dict[str, str] = state["images"]
        self.containers: dict[str, dict[str, str]] = state["containers"]

    def run(self, arguments: list[str]) -> int:
        first, *rest = arguments
        handler = getattr(self, f"on_{first}", None)
        return handler(rest) if handler else 0

    def on_ps(self, arguments: list[str]) -> int:
        print("\n".join(f"id-{service}" for service in self.containers))
        return 0

    def on_inspect(self, arguments: list[str]) -> int:
        for each in arguments[2:]:
            service = each.removeprefix("id-")
            container = self.containers[service]
            print(f"stack-{service}-1", service, container["name"], container["image"])
        return 0

    def on_image(self, arguments: list[str]) -> int:
        _, _, template, wanted = arguments
        image = self.images.get(wanted, wanted if wanted in self.images.values() else "")
        if not image:
            return 1
        print(self.state["sources"].get(image, "unknown") if "mailstead.source" in template else image)
        return 0

    def on_tag(self, arguments: list[str]) -> int:
        source, name = arguments
        self.images[name] = self.images.get(source, source)
        return 0

    def on_rmi(self, arguments: list[str]) -> int:
        return 0 if self.images.pop(arguments[0], None) else 1

    def on_build(self, arguments: list[str]) -> int:
        """Not Docker's: the test's scripts/up builds the release VERSION under the tag it is told."""
        tag, version = arguments
        for kind in ("mailstead", "unbound"):
            image = f"{kind}-{version}"
            self.images[f"{PREFIX}{kind}:{tag}"] = image
            self.state["sources"][image] = "sum"
        return 0

    def on_up(self, arguments: list[str]) -> int:
        """Not Docker's: what the test's scripts/up does at the end."""
        for container in self.containers.values():
            container["image"] = self.images[container["name"]]
        return 0

    def on_compose(self, arguments: list[str]) -> int:
        service = arguments[-1]
        if service == "setup":
            return 0  # it runs and ends
        container = self.containers[service]
        container["image"] = self.images[container["name"]]
        return 0

    def on_exec(self, arguments: list[str]) -> int:
        name, *command = [each for each in arguments if each != "-i"]
        if command == ["healthcheck"]:
            service = name.removeprefix("stack-").removesuffix("-1")
            return int(service == self.state["sick"] and self.containers[service]["image"].endswith("2"))
        if command[0] == "python3":
            # Nothing is written: who answers at the other end of the pipe has the last word.
            os.execv(sys.executable, [sys.executable, *command[1:]])
        assert command[:3] == ["mailstead", "--json", "update"], command
        return self.updater(command[3:])

    def updater(self, arguments: list[str]) -> int:
        if arguments == ["run", "--local"]:
            return self.replace()
        print(
            json.dumps({"updates": self.state["history"]} if arguments == ["history"] else {"run": self.state["run"]})
        )
        if arguments == ["status"] and self.state["run"]:
            # Seen once, it ends.
            self.state["history"].insert(0, self.state["run"] | {"outcome": "committed", "started": 4e9})
            for container in self.containers.values():
                container["image"] = self.images[container["name"]]
            self.state["run"] = None
        return 0

    def replace(self) -> int:
        if self.state["gate"] == "busy":
            print("mailstead: error: an update is running", file=sys.stderr)
            return 1
        changed = [
            service for service, container in self.containers.items()
            if service not in LAST and container["image"] != self.images[container["name"]]
        ]  # fmt: skip
        outcome = self.state["gate"] if changed else "nothing"
        if outcome == "committed":
            for service in changed:
                self.containers[service]["image"] = self.images[self.containers[service]["name"]]
        identity = f"run{len(self.state['history']) + 1}"
        reason = "" if outcome == "committed" else "the gate: no letter came back"
        entry = {
            "id": identity, "started": 4e9, "ended": 4e9, "outcome": outcome, "services": changed,
            "reason": reason, "seconds_closed": 2.5, "steps": [],
        }  # fmt: skip
        self.state["history"].insert(0, entry)
        print(json.dumps({"id": identity}))
        return 0


def write(state: dict[str, Any]) -> None:
    """In one step: the reader at the other end of a pipe starts at the same time."""
    partial = f"{STATE}.{os.getpid()}"
    with open(partial, "w") as file:
        json.dump(state, file)
    os.replace(partial, STATE)


def main() -> int:
    with open(STATE) as file:
        state = json.load(file)
    arguments = sys.argv[1:]
    call = " ".join(arguments)
    when, _, wanted = state["crash"].partition(" ")
    crash = bool(wanted) and call.startswith(wanted)
    state["calls"].append(call)
    if crash:
        state["crash"] = ""
    if crash and when == "before":
        write(state)
        os.killpg(os.getpgid(0), signal.SIGKILL)
    status = Docker(state).run(arguments)
    write(state)
    if crash:
        os.killpg(os.getpgid(0), signal.SIGKILL)
    return status


if __name__ == "__main__":
    sys.exit(main())
