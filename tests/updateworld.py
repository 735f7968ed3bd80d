"""A world for updates without Docker: an engine with containers, images and names, an admin, and faults on demand.

Every call on either, and every write of the journal, is a moment at which the power may go: before it has its effect,
or after. From then on nothing answers, as for a process that is gone; `World.again` is the next start.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from services.updater.engine import (
    SERVICE_LABEL,
    SUCCESSOR_LABEL,
    AdminAway,
    EngineRefused,
    Image,
    Standing,
)
from services.updater.journal import Journal
from services.updater.modes import Orders
from services.updater.transaction import Transaction
from services.updater.work import Clocks, Tools

REGISTRY = "ghcr.io/mailstead"
MAILSTEAD, UNBOUND = f"{REGISTRY}/mailstead:0.1.0", f"{REGISTRY}/unbound:0.1.0"
SERVICES = {
    "admin": MAILSTEAD, "imap": MAILSTEAD, "smtp-in": MAILSTEAD, "unbound": UNBOUND,
    "docker-filter": MAILSTEAD, "updater": MAILSTEAD,
}  # fmt: skip
REPLACED = ("admin", "imap", "smtp-in", "unbound")
ORDERS = Orders(mode="update", schedule="30 4 * * *", cleanup=True, restart=True, named_only=False, min_age_hours=0)
NOW = 1_700_000_000.0


class PowerCut(BaseException):
    """The process is gone."""


@dataclass(slots=True)
class Box:
    """One container of the fake engine."""

    id: str
    name: str
    image: str
    image_id: str
    labels: dict[str, str]
    running: bool = True
    status: str = "running"
    restarts: int = 0
    exit_code: int = 0


@dataclass(slots=True)
class World:
    """Everything that outlives a process of ours."""

    folder: str
    orders: Orders = ORDERS
    boxes: dict[str, Box] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # image name → id
    images: dict[str, Image] = field(default_factory=dict)
    registry: dict[str, str] = field(default_factory=dict)  # image name → the id that a pull brings
    held: set[str] = field(default_factory=set)
    snapshots: set[str] = field(default_factory=set)
    closed: list[str] = field(default_factory=list)  # the calls while anything was held
    calls: list[str] = field(default_factory=list)
    cut_at: int | None = None  # the moment of the power cut; each call has two, before and after its effect
    moment: int = 0
    dead: bool = False
    time: float = NOW
    # What is wrong: image id → why it is unhealthy, or ends; call → what it raises, that many times.
    unhealthy: dict[str, str] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    gate_says: str = ""
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    meanwhile: dict[str, Callable[[World], None]] = field(default_factory=dict)
    health_seconds: float = 60.0
    made: int = 0
    identity: int = 0

    @classmethod
    def at(cls, folder: object, **changes: Any) -> World:
        """A house of six containers, both images with something newer in their registry."""
        world = cls(str(folder), **changes)
        for name in (MAILSTEAD, UNBOUND):
            world.images[f"old {name}"] = Image(f"old {name}", "2023-01-01T00:00:00Z", (f"{_repository(name)}@old",))
            world.images[f"new {name}"] = Image(f"new {name}", "2023-11-01T00:00:00Z", (f"{_repository(name)}@new",))
            world.names[name] = f"old {name}"
            world.registry[name] = f"new {name}"
        for service, image in SERVICES.items():
            world.box(service, image)
        return world

    def box(self, service: str, image: str, **labels: str) -> Box:
        """One more running container, as Compose makes it."""
        self.identity += 1
        box = Box(
            f"id{self.identity}", f"house-{service}-1", image, self.names[image], {SERVICE_LABEL: service, **labels}
        )
        self.boxes[box.id] = box
        return box

    # --- the process ----------------------------------------------------------------------------------------------
    def transaction(self) -> Transaction:
        """A new process of ours."""
        self.dead = False
        return Transaction(CutJournal(self), self.tools())

    def tools(self) -> Tools:
        """What a run works with here."""
        clocks = Clocks(lambda: self.time, lambda: self.time, self._sleep)
        return Tools(FakeEngine(self), FakeAdmin(self), self.orders, self.folder, self.health_seconds, clocks, _at_once)

    def run(self, source: str = "registry", services: Iterable[str] | None = None, *, wait: bool = False) -> str:
        """A whole run; "cut" when the power went."""
        self.made += 1
        asked = None if services is None else list(services)
        return self._do(lambda: self.transaction().run(f"u{self.made}", source, asked, wait=wait))

    def recover(self) -> str:
        """The next start; "cut" when the power went again."""
        return self._do(lambda: self.transaction().recover())

    def _do(self, action: Callable[[], Any]) -> str:
        async def story() -> str:
            return str(await action())

        try:
            return asyncio.run(story())
        except PowerCut:
            return "cut"

    async def _sleep(self, seconds: float) -> None:
        self.time += seconds
        if seconds >= 30:
            await asyncio.Event().wait()  # the renewal of a hold: these runs are over before it is due
        await asyncio.sleep(0)

    def point(self) -> None:
        """A moment at which the power may go."""
        if self.dead or self.moment == self.cut_at:
            self.dead = True
            raise PowerCut
        self.moment += 1

    def call(self, name: str, *about: str) -> None:
        """The beginning of a call: faults first, then somebody else's doing."""
        self.point()
        self.calls.append(" ".join((name, *about)))
        if self.held:
            self.closed.append(name)
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        if name in self.meanwhile:
            self.meanwhile.pop(name)(self)

    # --- what a test asks ------------------------------------------------------------------------------------------
    def serving(self) -> dict[str, tuple[str, bool]]:
        """Container name → (the image that it runs, whether it runs)."""
        return {box.name: (box.image_id, box.running) for box in self.boxes.values()}

    def snapshot(self) -> dict[str, Box]:
        """A copy of all containers."""
        return {identity: dataclasses.replace(box) for identity, box in self.boxes.items()}


async def _at_once(call: Callable[..., Any], /, *arguments: Any) -> Any:
    return call(*arguments)


def _repository(image: str) -> str:
    return image.rpartition(":")[0]


class CutJournal(Journal):
    """The journal, with moments at which the power goes: before a write, in the middle, after."""

    def __init__(self, world: World) -> None:
        super().__init__(world.folder, lambda: world.time)
        self._world = world

    def append(self, entry: dict[str, Any]) -> None:
        self._world.point()
        if self._world.moment == self._world.cut_at:
            with open(self._path, "ab") as file:
                file.write(b'{"at": 1, "what": "commit')  # a torn line
        self._world.point()
        super().append(entry)
        self._world.point()

    def remove(self) -> None:
        self._world.point()
        super().remove()
        self._world.point()


class FakeEngine:
    """`engine.Engine` with docker-filter's refusals that a run could meet."""

    def __init__(self, world: World) -> None:
        self.world = world

    def standings(self) -> list[Standing]:
        self.world.call("standings")
        return [self._standing(box) for box in self.world.boxes.values()]

    def container(self, identity: str) -> Standing | None:
        self.world.call("container", identity)
        for box in self.world.boxes.values():
            if identity in (box.id, box.name):
                return self._standing(box)
        return None

    def image(self, reference: str) -> Image | None:
        self.world.call("image", reference)
        return self.world.images.get(self.world.names.get(reference, reference))

    def registry_digest(self, reference: str) -> str:
        self.world.call("registry_digest", reference)
        digests = self.world.images[self.world.registry[reference]].repo_digests
        return digests[0].partition("@")[2]

    def pull(self, reference: str) -> None:
        self.world.call("pull", reference)
        self.world.names[reference] = self.world.registry[reference]
        self.world.point()

    def tag(self, image: str, repository: str, tag: str) -> None:
        self.world.call("tag", image, tag)
        if image not in self.world.images:
            raise EngineRefused(404, "no such image")
        self.world.names[f"{repository}:{tag}"] = image
        self.world.point()

    def remove_image(self, reference: str) -> None:
        self.world.call("remove_image", reference)
        identity = self.world.names.get(reference, reference)
        if reference == identity and any(box.image_id == identity for box in self.world.boxes.values()):
            raise EngineRefused(409, "in use")
        self.world.names.pop(reference, None)
        if identity not in self.world.names.values() and not any(
            box.image_id == identity for box in self.world.boxes.values()
        ):
            del self.world.images[identity]
        self.world.point()

    def create(self, name: str, image: str, update: str, source: str) -> str:
        self.world.call("create", name)
        self._free(name)
        old = self.world.boxes[source]
        made = self.world.box(old.labels[SERVICE_LABEL], image)
        made.name, made.running, made.status = name, False, "created"
        made.labels = {**old.labels, SUCCESSOR_LABEL: update}
        self.world.point()
        return made.id

    def rename(self, identity: str, name: str) -> None:
        self.world.call("rename", identity, name)
        self._free(name)
        self._box(identity).name = name
        self.world.point()

    def start(self, identity: str) -> None:
        box = self._box(identity)
        self.world.call("start", box.name)
        for other in self.world.boxes.values():
            if other.running and other.id != identity and other.labels[SERVICE_LABEL] == box.labels[SERVICE_LABEL]:
                raise EngineRefused(409, f"{other.name} is running: two at once would share its mail")
        box.running, box.status = True, "running"
        if box.image_id in self.world.ending:
            box.running, box.status, box.exit_code = False, "exited", 1
        self.world.point()

    def stop(self, identity: str, seconds: int | None = None) -> None:
        box = self._box(identity)
        self.world.call("stop", box.name)
        box.running, box.status = False, "exited"
        self.world.point()

    def remove(self, identity: str) -> None:
        self.world.call("remove", identity)
        box = self._box(identity)
        if box.running:
            raise EngineRefused(409, f"{box.name} runs")
        del self.world.boxes[identity]
        self.world.point()

    def healthy(self, identity: str) -> str:
        box = self._box(identity)
        self.world.call("healthy", box.name)
        return self.world.unhealthy.get(box.image_id, "")

    def _box(self, identity: str) -> Box:
        if identity not in self.world.boxes:
            raise EngineRefused(404, f"No such container: {identity}")
        return self.world.boxes[identity]

    def _free(self, name: str) -> None:
        if any(box.name == name for box in self.world.boxes.values()):
            raise EngineRefused(409, f"the name {name} is in use")

    def _standing(self, box: Box) -> Standing:
        return Standing(
            box.id, box.name, box.image, box.image_id, box.labels, box.running, box.status, box.exit_code, box.restarts
        )


class FakeAdmin:
    """`engine.Admin`; away while no container of admin runs."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def hold(self, update: str, seconds: int) -> list[str]:
        self._call("hold")
        self.world.held.add(update)
        self.world.point()
        return []

    async def release(self, update: str) -> None:
        self._call("release")
        self.world.held.discard(update)
        self.world.point()

    async def snapshot(self, update: str) -> None:
        self._call("snapshot")
        self.world.snapshots.add(update)
        self.world.point()

    async def settled(self, update: str, outcome: str) -> None:
        self._call(f"settled {outcome}")
        self.world.snapshots.discard(update)
        self.world.point()

    async def gate(self, update: str) -> str:
        self._call("gate")
        return self.world.gate_says

    def _call(self, name: str) -> None:
        self.world.call(name)
        if not any(box.running for box in self.world.boxes.values() if box.labels[SERVICE_LABEL] == "admin"):
            raise AdminAway("admin at admin:8000: connection refused")
