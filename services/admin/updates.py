"""Updates as an administrator sees them: what is new, replace it, go back, what was done. Once for page, API, CLI.

The updater room does all of it; this asks it, and makes values of what it says, whatever its version says. Errors are
`peers.py`'s: PeerAway, and PeerSaid with 409 where an update is under way already or nothing is there to go back to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.admin.access import Actor
from services.admin.holding import Holding
from services.admin.mail_gate import GateReport, MailGate
from services.admin.peers import Peers
from services.runtime.events import new_trace_id
from services.runtime.process import Context

MOST_STEPS = 500  # of one update; ten containers make a hundred
MOST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """One step of an update. `outcome` is "" while it is under way."""

    step: str
    at: float
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class UpdateRun:
    """The update under way. `since`: when it began, in seconds since 1970."""

    id: str
    state: str
    step: str
    since: float
    steps: list[UpdateStep] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ImageReport:
    """How one container's image compares with its registry's. `state`: current, newer, local, unknown, ..."""

    service: str
    image: str
    running: str
    registry: str
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class ContainerReport:
    """One container of the stack; `started` in Docker's words."""

    service: str
    state: str
    health: str
    started: str


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Everything about updates now. `held`: the id of the update that mail waits for, "" while it flows."""

    mode: str
    checked: float
    next: float
    error: str
    held: str
    run: UpdateRun | None
    images: list[ImageReport]
    containers: list[ContainerReport]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What an update would do with one service."""

    service: str
    image: str
    current: str
    wanted: str
    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class UpdateEntry:
    """One update that has ended. `outcome`: committed, rolled-back, failed or nothing. `seconds_closed`: how long mail
    was told to come back."""

    id: str
    started: float
    ended: float
    outcome: str
    services: list[str]
    reason: str
    seconds_closed: float
    steps: list[UpdateStep] = field(default_factory=list)


class Updates:
    """The verbs."""

    def __init__(self, context: Context, peers: Peers, holding: Holding, gate: MailGate) -> None:
        """Nothing is asked before a verb is called."""
        self._context, self._peers, self._holding, self._gate = context, peers, holding, gate

    async def status(self) -> UpdateStatus:
        """What is new, and what is under way. Raises PeerAway, PeerSaid."""
        report = _object(await self._peers.ask("updater", "GET", "/v1/report"))
        return UpdateStatus(
            _text(report, "mode"), _number(report, "checked"), _number(report, "next"), _text(report, "error"),
            self._holding.held, _run(report.get("run")),
            [ImageReport(*(_text(each, name) for name in ImageReport.__slots__)) for each in _list(report, "images")],
            [
                ContainerReport(*(_text(each, name) for name in ContainerReport.__slots__))
                for each in _list(report, "containers")
            ],
        )  # fmt: skip

    async def check(self, actor: Actor) -> None:
        """Compare the images with their registries now; `status` tells when `checked` moves."""
        await self._peers.ask("updater", "POST", "/v1/check", {})
        self._record(actor, "asked for a look at the registries")

    async def plan(self, *, local: bool = False, services: Sequence[str] | None = None) -> list[PlannedStep]:
        """What `run` would do; nothing is done."""
        asked = {"dry": True, "local": local, "services": list(services) if services else None}
        answer = _object(await self._peers.ask("updater", "POST", "/v1/run", asked))
        return [
            PlannedStep(
                _text(each, "service"), _text(each, "image"), _text(each, "from"), _text(each, "to"),
                _text(each, "action"), _text(each, "reason"),
            )
            for each in _list(answer, "plan")
        ]  # fmt: skip

    async def run(self, actor: Actor, *, local: bool = False, services: Sequence[str] | None = None) -> str:
        """Begin an update of all services or some; its id. `local`: to images that lie here already.

        admin itself is replaced on the way: who asks again meanwhile finds nobody for some seconds.
        """
        asked = {"dry": False, "local": local, "services": list(services) if services else None}
        identity = _text(_object(await self._peers.ask("updater", "POST", "/v1/run", asked)), "id")
        self._record(actor, f"began the update {identity}", update=identity)
        return identity

    async def rollback(self, actor: Actor) -> str:
        """Begin to go back to the images before the last update that was committed; its id."""
        identity = _text(_object(await self._peers.ask("updater", "POST", "/v1/rollback", {})), "id")
        self._record(actor, f"began to go back to the images before the last update ({identity})", update=identity)
        return identity

    async def history(self) -> list[UpdateEntry]:
        """The updates that have ended, the newest first."""
        answer = _object(await self._peers.ask("updater", "GET", "/v1/history"))
        found = [entry_of(each) for each in _list(answer, "updates")]
        return sorted(found, key=lambda entry: -entry.started)

    async def gate(self, actor: Actor) -> GateReport:
        """Try now whether mail flows: the gate that decides about updates."""
        report = await self._gate.run(new_trace_id())
        self._record(actor, f"tried whether mail flows: {'it does' if report.passed else 'it does not'}")
        return report

    def _record(self, actor: Actor, what: str, **fields: Any) -> None:
        self._context.events.emit(
            "admin-change",
            new_trace_id(),
            outcome="accept",
            by=actor.name,
            via=actor.via,
            peer=actor.peer,
            reason=what,
            **fields,
        )


def entry_of(value: object) -> UpdateEntry:
    """A history entry as the updater writes it; what is missing or odd in it is empty."""
    given = _object(value)
    services = given.get("services")
    return UpdateEntry(
        _text(given, "id"), _number(given, "started"), _number(given, "ended"), _text(given, "outcome"),
        [str(each)[:MOST_TEXT] for each in services[:MOST_STEPS]] if isinstance(services, list) else [],
        _text(given, "reason"), _number(given, "seconds_closed"), _steps(given),
    )  # fmt: skip


def _run(value: object) -> UpdateRun | None:
    if not isinstance(value, dict):
        return None
    return UpdateRun(
        _text(value, "id"), _text(value, "state"), _text(value, "step"), _number(value, "since"), _steps(value)
    )


def _steps(value: Mapping[str, Any]) -> list[UpdateStep]:
    return [
        UpdateStep(_text(each, "step"), _number(each, "at"), _text(each, "outcome"), _text(each, "reason"))
        for each in _list(value, "steps")[:MOST_STEPS]
    ]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = value.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    return "" if found is None else str(found)[:MOST_TEXT]


def _number(value: Mapping[str, Any], name: str) -> float:
    found = value.get(name)
    return float(found) if isinstance(found, int | float) and abs(found) < 1e12 else 0.0
