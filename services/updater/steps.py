"""The update transaction as a table, and what its journal says. Pure.

A run goes down BEFORE, step by step. When one fails, or the updater was stopped in the middle, the steps that were
begun are undone from the last to the first, and everything is as it was. Once the journal holds `commit` there is no
way back: AFTER is done to its end, by the next start of the updater if need be. Each do and each undo may be repeated.

Journal entries, one JSON object a line: {"at": epoch seconds, "what": WHAT, ...} with

    begin   id, source (registry | local | before), services (those asked for, or null), wait (obey the minimum age)
    plan    replacements: the containers to replace; names: image name → the image id it had before
    start   step                        end   step, reason
    commit
    back    reason, outcome: from here on steps are undone
    undone  step, reason
    note    reason: for the history, no consequence
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# States of a run, as admin's page and CLI show them.
RUNNING, FINISHING, UNDOING = "running", "finishing", "undoing"
# How a run ended.
COMMITTED, ROLLED_BACK, FAILED, NOTHING = "committed", "rolled-back", "failed", "nothing"
# Where the new images come from: pulled, a name that was moved on this machine, or those before the last update.
REGISTRY, LOCAL, BEFORE_UPDATE = "registry", "local", "before"
# Replaced by scripts/update on the host: they are what a run itself works with, or run once.
NEVER = frozenset({"docker-filter", "updater", "setup", "backup"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it does, what undoing it does, and whether the house is closed to the world after it."""

    name: str
    does: str
    undo: str = ""
    closes: bool = False


BEFORE: tuple[Step, ...] = (
    Step("check", "ask the engine and the registries what is newer"),
    Step("pull", "fetch the images", "image names mean what they meant"),
    Step("create", "rename the old containers, make their successors", "remove the successors, give the names back"),
    Step("hold", "close the listeners to the world, hold the queue", "release", closes=True),
    Step("snapshot", "keep a copy of the directory", "settle it: an old admin has put it back at its start"),
    Step("replace", "stop the old containers, start the new ones", "stop the new ones, start the old ones"),
    Step("health", "wait until every new container says that it is well"),
    Step("gate", "a letter in, a letter out, both read"),
)
AFTER: tuple[Step, ...] = (
    Step("release", "open the listeners, let the queue go on"),
    Step("settle", "forget the copy of the directory"),
    Step("keep", "name the old images for a rollback"),
    Step("remove", "remove the old containers"),
    Step("clean", "remove images of earlier updates"),
)
STEPS: Mapping[str, Step] = {step.name: step for step in (*BEFORE, *AFTER)}


@dataclass(frozen=True, slots=True)
class Replacement:
    """One container to replace: `container` is the old one's id, `old` and `new` are image ids (`new` "": not pulled).

    `needs` is from Compose's depends_on: service → condition, of services that are replaced in the same run.
    `digest` is the registry's, "" where no registry was asked.
    """

    service: str
    name: str
    container: str
    image: str
    old: str
    new: str = ""
    digest: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)

    def aside(self, update: str) -> str:
        """The old container's name while its successor has its own."""
        return f"{self.name}-before-{update}"


@dataclass(slots=True)
class Run:
    """What the journal says of a run."""

    id: str = ""
    started: float = 0.0
    source: str = REGISTRY
    services: list[str] | None = None
    wait: bool = False
    replacements: tuple[Replacement, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    committed: bool = False
    back: str = ""
    outcome: str = ""
    closed_at: float = 0.0
    opened_at: float = 0.0
    notes: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """RUNNING, FINISHING or UNDOING."""
        return FINISHING if self.committed else UNDOING if self.outcome else RUNNING

    @property
    def step(self) -> str:
        """The step that is under way or was last."""
        return self.steps[-1]["step"] if self.steps else ""

    @property
    def touched(self) -> bool:
        """True once the house was closed: undoing it from there is a rollback, before it just a failure."""
        return "hold" in self.begun

    def closed(self) -> bool:
        """True while the listeners are held: a hold that was begun, and neither undone nor released."""
        return self.touched and "hold" not in self.undone and "release" not in self.ended

    def to_undo(self) -> list[str]:
        """The steps still to be undone, in order: the last that was begun first."""
        return [name for name in reversed(self.begun) if name not in self.undone]

    def to_finish(self) -> list[str]:
        """The steps after the commit that have not ended."""
        return [step.name for step in AFTER if step.name not in self.ended]

    def seconds_closed(self, now: float) -> float:
        """How long the listeners were closed; so far, where they still are."""
        return max(0.0, (self.opened_at or now) - self.closed_at) if self.closed_at else 0.0


def told(entries: Iterable[Mapping[str, Any]]) -> Run:
    """The run that journal entries tell of; raises KeyError, TypeError or ValueError for entries that are none."""
    run = Run()
    for entry in entries:
        _tell(run, entry, str(entry["what"]), float(entry["at"]))
    return run


def _tell(run: Run, entry: Mapping[str, Any], what: str, at: float) -> None:
    name, reason = str(entry.get("step", "")), str(entry.get("reason", ""))
    if what == "begin":
        run.id, run.started, run.source = str(entry["id"]), at, str(entry["source"])
        run.services, run.wait = entry.get("services"), bool(entry.get("wait"))
    elif what == "plan":
        run.replacements = tuple(Replacement(**each) for each in entry["replacements"])
        run.names = dict(entry["names"])
    elif what == "start":
        if name not in run.begun:
            run.begun.append(name)
        if STEPS[name].closes:
            run.closed_at = run.closed_at or at
        run.steps.append({"step": name, "at": at, "outcome": "", "reason": ""})
    elif what == "end":
        run.ended.append(name)
        _close(run, name, "done", reason)
    elif what == "commit":
        run.committed = True
        run.steps.append({"step": "commit", "at": at, "outcome": "done", "reason": ""})
    elif what == "back":
        run.back, run.outcome = reason, str(entry["outcome"])
        run.committed = False  # a commit whose writing failed may stand before it all the same
        _close(run, run.step, "failed", reason)
    elif what == "undone":
        run.undone.append(name)
        if STEPS[name].undo:
            run.steps.append({"step": f"undo {name}", "at": at, "outcome": "done", "reason": reason})
    elif what == "note":
        run.notes.append(reason)
    if (what, name) in (("end", "release"), ("undone", "hold")):
        run.opened_at = at


def _close(run: Run, name: str, outcome: str, reason: str) -> None:
    """Say how the last step came out, unless it already has."""
    for step in reversed(run.steps):
        if step["step"] == name and not step["outcome"]:
            step["outcome"], step["reason"] = outcome, reason
            return


def kept_as(update: str) -> str:
    """The tag under which an old image is kept."""
    return f"before-{update}"


def planned(replacements: Sequence[Replacement], names: Mapping[str, str]) -> dict[str, Any]:
    """The `plan` entry."""
    return {
        "what": "plan",
        "replacements": [dataclasses.asdict(each) for each in replacements],
        "names": dict(names),
    }


def needs_of(label: str, services: Iterable[str]) -> dict[str, str]:
    """Compose's label `com.docker.compose.depends_on` ("db:service_healthy:true,…") as service → condition.

    Only `services` count: the others go on as they are.
    """
    replaced = set(services)
    needs = {}
    for part in filter(None, label.split(",")):
        service, _, rest = part.partition(":")
        if service in replaced:
            needs[service] = rest.partition(":")[0] or "service_started"
    return needs


def ordered(replacements: Sequence[Replacement]) -> list[Replacement]:
    """Sorted so that each comes after those it needs; a circle (Compose refuses one) is cut at its first name."""
    by_name = {each.service: each for each in replacements}
    done: dict[str, Replacement] = {}

    def visit(service: str, above: frozenset[str]) -> None:
        if service in done or service in above or service not in by_name:
            return
        for needed in sorted(by_name[service].needs):
            visit(needed, above | {service})
        done[service] = by_name[service]

    for service in sorted(by_name):
        visit(service, frozenset())
    return list(done.values())


def waves(replacements: Sequence[Replacement]) -> list[list[Replacement]]:
    """Groups to start one after the other: all of a group may start together. Stopping goes the other way."""
    depth: dict[str, int] = {}
    for each in ordered(replacements):
        depth[each.service] = 1 + max((depth.get(needed, -1) for needed in each.needs), default=-1)
    return [
        [each for each in ordered(replacements) if depth[each.service] == level]
        for level in range(max(depth.values(), default=-1) + 1)
    ]
