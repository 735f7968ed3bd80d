"""What a room says of its own state at GET /health, so that a check costs no Python start."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Health:
    """A room is healthy once `ready` was called and no part has failed since.

    `parts` maps a part's name ("certificate", "listener 25") to what is wrong with it; "" means it is well.
    """

    room: str
    started: bool = False
    parts: dict[str, str] = field(default_factory=dict)

    def ready(self) -> None:
        """Every listener is open."""
        self.started = True

    def fail(self, part: str, why: str) -> None:
        """`part` does not work; `why` is a sentence for the owner."""
        self.parts[part] = why

    def ok(self, part: str) -> None:
        """`part` works."""
        self.parts[part] = ""

    @property
    def healthy(self) -> bool:
        """True when started and no part has failed."""
        return self.started and not any(self.parts.values())

    def report(self) -> dict[str, object]:
        """`{"room", "state": "ok" | "starting" | "failing", "parts": {name: why}}`."""
        state = "ok" if self.healthy else "failing" if self.started else "starting"
        return {"room": self.room, "state": state, "parts": dict(self.parts)}
