"""What each step of `steps.BEFORE` and `steps.AFTER` does to the house, and what undoing it does.

Every method may be called again after a power cut at any point inside it: it looks at how things stand and does what is
missing. Containers are named by id, which nothing can take from under us; whoever else changed the stack meanwhile
(`scripts/up`, `docker compose down`) is noticed by their ids and names, and is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from services.updater import history, plan, steps
from services.updater.choose import arrived, choose
from services.updater.engine import (
    DEPENDS_LABEL,
    Admin,
    AdminAway,
    AdminRefused,
    Engine,
    EngineRefused,
    Failed,
    Moved,
    Nothing,
    Standing,
)
from services.updater.looking import require_untouched, require_well, strangers_in, successors_in
from services.updater.modes import Orders
from services.updater.steps import Replacement, Run

LEASE_SECONDS = 120  # a hold ends by itself when nobody renews it: a dead updater leaves nobody closed
RENEW_SECONDS = 30.0
PULL_SECONDS = 1800.0  # one image over a slow line; the old ones serve meanwhile
FAILED_SECONDS = 5  # a successor that is taken back gets this long to stop: it was closed, nobody was in the middle
POLL_SECONDS = 0.25  # health is asked this often: each asking starts a short program in the container

T = TypeVar("T")


class Aside(Protocol):
    """Runs a blocking call beside the loop: `asyncio.to_thread`, or at once in tests."""

    def __call__(self, call: Callable[..., T], /, *arguments: Any) -> Awaitable[T]:
        """The call's result."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time as a run sees it; tests have their own."""

    now: Callable[[], float]
    steady: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run works with. `folder` holds history.json; `health_seconds` bounds the two gates together."""

    engine: Engine
    admin: Admin
    orders: Orders
    folder: str
    health_seconds: float
    clocks: Clocks
    aside: Aside = asyncio.to_thread


class Work:
    """The steps of one run; `do` and `undo` find them by name."""

    def __init__(self, tools: Tools, run: Run, record: Callable[[dict[str, Any]], None]) -> None:
        """`record` writes to the journal and keeps `run` up to date."""
        self._tools, self.run, self._record = tools, run, record
        self._engine, self._admin, self._clocks = tools.engine, tools.admin, tools.clocks
        self._deadline = 0.0  # of health and gate, on the steady clock

    async def do(self, step: str) -> str:
        """Do `step`; a remark for the history. Raises Failed, Nothing, and what the engine and admin raise."""
        return await {
            "check": self._check,
            "pull": self._pull,
            "create": self._create,
            "hold": self._hold,
            "snapshot": self._snapshot,
            "replace": self._replace,
            "health": self._health,
            "gate": self._gate,
            "release": self._release,
            "settle": self._settle,
            "keep": self._keep,
            "remove": self._remove,
            "clean": self._clean,
        }[step]()

    async def undo(self, step: str) -> str:
        """Undo `step`, begun or done; a remark. Raises what the engine and admin raise: try again then."""
        undo = {
            "pull": self._undo_pull,
            "create": self._undo_create,
            "hold": self._release,
            "snapshot": self._undo_snapshot,
            "replace": self._undo_replace,
        }.get(step)
        return await undo() if undo else ""

    # --- before the house is closed -------------------------------------------------------------------------------
    async def _check(self) -> str:
        run = self.run
        lines, names = await self._tools.aside(
            choose, self._engine, self._tools.orders, self._tools.folder, run.source, run.services, run.wait
        )
        unknown = [line for line in lines if line.action == plan.ASK]
        if unknown:
            raise Failed(f"{unknown[0].standing.service}: {unknown[0].reason}")
        chosen = [line for line in lines if line.action == plan.REPLACE]
        if not chosen:
            raise Nothing("there is nothing newer")
        services = [line.standing.service for line in chosen]
        if len(set(services)) < len(services):
            raise Moved("a service has two containers: somebody else is changing the stack")
        replacements = [
            Replacement(
                service=line.standing.service,
                name=line.standing.name,
                container=line.standing.id,
                image=line.standing.image,
                old=line.standing.image_id,
                new="" if run.source == steps.REGISTRY else line.to,
                digest=line.digest,
                needs=steps.needs_of(line.standing.labels.get(DEPENDS_LABEL, ""), services),
            )
            for line in chosen
        ]
        self._record(steps.planned(replacements, {each.image: names.get(each.image, "") for each in replacements}))
        return ", ".join(services)

    async def _pull(self) -> str:
        run, orders = self.run, self._tools.orders
        replacements = list(run.replacements)
        for image in dict.fromkeys(each.image for each in replacements):
            if run.source == steps.REGISTRY:
                try:
                    async with asyncio.timeout(PULL_SECONDS):
                        await self._tools.aside(self._engine.pull, image)
                except EngineRefused as error:
                    raise Failed(f"{image}: {plan.explain(plan.Refused(error.status, error.words))}") from None
                except TimeoutError:
                    raise Failed(f"{image} was not fetched within {PULL_SECONDS:.0f} seconds") from None
                oldest = self._clocks.now() - 3600 * orders.min_age_hours if run.wait else float("inf")
                replacements = await self._tools.aside(arrived, self._engine, image, replacements, oldest)
            elif run.source == steps.BEFORE_UPDATE:
                wanted = next(each.new for each in replacements if each.image == image)
                await self._tools.aside(self._engine.tag, wanted, plan.repository_of(image), plan.tag_of(image))
        self._record(steps.planned(replacements, run.names))
        if not replacements:
            raise Nothing("what is newer is younger than UPDATE_MIN_AGE" if run.wait else "there is nothing newer")
        if run.source == steps.REGISTRY and not orders.restart:
            self._record({"what": "undone", "step": "pull", "reason": "the images stay"})
            raise Nothing("pulled; WATCHTOWER_NO_RESTART leaves the containers to `docker compose up -d`")
        return ", ".join(dict.fromkeys(each.image for each in replacements))

    async def _undo_pull(self) -> str:
        run = self.run
        strangers = {each.image_id for each in strangers_in(await self._standings(), run)}
        back = []
        for image, before in run.names.items():
            now = await self._tools.aside(self._engine.image, image)
            if before and now and now.id != before and now.id not in strangers:
                await self._tools.aside(self._engine.tag, before, plan.repository_of(image), plan.tag_of(image))
                back.append(image)
        return ", ".join(back)

    async def _create(self) -> str:
        run = self.run
        require_untouched(await self._standings(), run)
        for each in steps.ordered(run.replacements):
            await self._tools.aside(self._engine.rename, each.container, each.aside(run.id))
            await self._tools.aside(self._engine.create, each.name, each.image, run.id, each.container)
        made = successors_in(await self._standings(), run)
        for each in run.replacements:
            if each.service not in made or made[each.service].image_id != each.new:
                raise Moved(f"{each.image} came to mean another image while its containers were made")
        return ", ".join(each.name for each in run.replacements)

    async def _undo_create(self) -> str:
        run = self.run
        for made in successors_in(await self._standings(), run).values():
            if made.running:
                await self._tools.aside(self._engine.stop, made.id, FAILED_SECONDS)
            await self._tools.aside(self._engine.remove, made.id)
        lost = []
        for each in run.replacements:
            old = await self._tools.aside(self._engine.container, each.container)
            if old is None:
                lost.append(each.service)
            elif old.name != each.name:
                if await self._tools.aside(self._engine.container, each.name) is None:
                    await self._tools.aside(self._engine.rename, each.container, each.name)
                else:
                    lost.append(f"{each.service} (the old one is {old.name}, remove it when it is of no more use)")
        return f"changed by somebody else meanwhile: {', '.join(lost)}" if lost else ""

    # --- the house is closed ----------------------------------------------------------------------------------------
    async def _hold(self) -> str:
        away = await self._admin.hold(self.run.id, LEASE_SECONDS)
        return f"no answer from {', '.join(away)}" if away else ""

    async def renew(self) -> None:
        """Keep the hold alive until cancelled; admin may be away while it is replaced itself, or of a version that
        knows no hold."""
        while True:
            await self._clocks.sleep(RENEW_SECONDS)
            with contextlib.suppress(AdminAway, AdminRefused):
                await self._admin.hold(self.run.id, LEASE_SECONDS)

    async def _snapshot(self) -> str:
        await self._admin.snapshot(self.run.id)
        return ""

    async def _undo_snapshot(self) -> str:
        await self._admin.settled(self.run.id, steps.ROLLED_BACK)
        return ""

    async def _replace(self) -> str:
        run = self.run
        standings = await self._standings()
        require_untouched(standings, run)
        made = successors_in(standings, run)
        if missing := [each.service for each in run.replacements if each.service not in made]:
            raise Moved(f"the successor of {missing[0]} is gone: somebody else changed the stack")
        first, *later = steps.waves(run.replacements)
        for wave in reversed(later):
            await gathered(self._tools.aside(self._engine.stop, each.container) for each in wave)
        await gathered(self._exchange(each, made[each.service]) for each in first)
        for wave in later:
            needed = {name for each in wave for name, need in each.needs.items() if need == "service_healthy"}
            self._deadline = self._clocks.steady() + self._tools.health_seconds
            await self._until_healthy([made[name] for name in sorted(needed)])
            await gathered(self._tools.aside(self._engine.start, made[each.service].id) for each in wave)
        return ""

    async def _exchange(self, replacement: Replacement, successor: Standing) -> None:
        await self._tools.aside(self._engine.stop, replacement.container)
        await self._tools.aside(self._engine.start, successor.id)

    async def _undo_replace(self) -> str:
        run = self.run
        standings = await self._standings()
        made = successors_in(standings, run)
        await gathered(self._tools.aside(self._engine.stop, each.id) for each in made.values() if each.running)
        taken = {each.service for each in strangers_in(standings, run)}
        there = {each.id for each in standings}
        await gathered(
            self._tools.aside(self._engine.start, each.container)
            for each in run.replacements
            if each.container in there and each.service not in taken
        )
        return f"left to whoever replaced them meanwhile: {', '.join(sorted(taken))}" if taken else ""

    async def _health(self) -> str:
        self._deadline = self._clocks.steady() + self._tools.health_seconds
        made = successors_in(await self._standings(), self.run)
        await self._until_healthy([made[each.service] for each in self.run.replacements if each.service in made])
        return ""

    async def _gate(self) -> str:
        while True:
            try:
                reason = await self._admin.gate(self.run.id)
                break
            except AdminAway as error:
                await self._require_standing()
                if self._clocks.steady() >= self._deadline:
                    raise Failed(f"the mail gate could not be asked: {error}") from None
                await self._clocks.sleep(POLL_SECONDS)
        if reason:
            raise Failed(f"the mail gate: {reason}")
        await self._require_standing()  # whoever fell over while the letters went through
        return ""

    async def _require_standing(self) -> None:
        """Every new container is there and well, and nobody else has come. Raises Failed."""
        standings = await self._standings()
        require_untouched(standings, self.run)
        made = successors_in(standings, self.run)
        for each in self.run.replacements:
            if each.service not in made:
                raise Moved(f"the new container of {each.service} is gone: somebody else changed the stack")
            require_well(made[each.service])

    async def _until_healthy(self, containers: Sequence[Standing]) -> None:
        """Until each says that it is well. Raises Failed at the deadline, and as soon as one has ended."""
        waiting = {each.id: each.service for each in containers}
        while waiting:
            asked = list(waiting)
            answers = await gathered(self._illness(identity, waiting[identity]) for identity in asked)
            ill = {identity: words for identity, words in zip(asked, answers, strict=True) if words}
            waiting = {identity: waiting[identity] for identity in ill}
            if waiting and self._clocks.steady() >= self._deadline:
                identity, service = next(iter(waiting.items()))
                seconds = self._tools.health_seconds
                raise Failed(f"{service} is not healthy after {seconds:.0f} seconds: {ill[identity]}")
            if waiting:
                await self._clocks.sleep(POLL_SECONDS)

    async def _illness(self, identity: str, service: str) -> str:
        """What a container's own check says against it, "" when it is well. Raises Failed when it has ended."""
        standing = await self._tools.aside(self._engine.container, identity)
        if standing is None:
            raise Moved(f"the new container of {service} is gone: somebody else changed the stack")
        require_well(standing)
        return await self._tools.aside(self._engine.healthy, identity)

    # --- after the commit -------------------------------------------------------------------------------------------
    async def _release(self) -> str:
        await self._admin.release(self.run.id)
        return ""

    async def _settle(self) -> str:
        await self._admin.settled(self.run.id, steps.COMMITTED)
        return ""

    async def _keep(self) -> str:
        remarks = []
        for each in _one_per_image(self.run.replacements):
            try:
                name = plan.repository_of(each.image)
                await self._tools.aside(self._engine.tag, each.old, name, steps.kept_as(self.run.id))
            except EngineRefused as error:
                remarks.append(f"the old image of {each.service} is kept without a name: {error.words}")
        return "; ".join(remarks)

    async def _remove(self) -> str:
        remarks = []
        for each in self.run.replacements:
            old = await self._tools.aside(self._engine.container, each.container)
            if old is None:
                continue
            try:
                await self._tools.aside(self._engine.stop, each.container)
                await self._tools.aside(self._engine.remove, each.container)
            except EngineRefused as error:
                remarks.append(f"{old.name} could not be removed: {error.words}")
        return "; ".join(remarks)

    async def _clean(self) -> str:
        """Images of earlier updates: those kept for a rollback that is no longer offered, and those refused."""
        if not self._tools.orders.cleanup:
            return ""
        kept = {each.old for each in self.run.replacements} | {each.new for each in self.run.replacements}
        removed = 0
        for entry in history.read(self._tools.folder):
            for image in entry.get("images", ()):
                kept_name = f"{plan.repository_of(image['image'])}:{steps.kept_as(entry['id'])}"
                removed += await self._discard(kept_name)
                if entry["outcome"] != steps.COMMITTED and image["to"] not in kept:
                    removed += await self._discard(image["to"])
        return f"{removed} removed" if removed else ""

    async def _discard(self, reference: str) -> int:
        """Remove an image's name; 1 if that was possible. An image that is in use stays."""
        try:
            if not reference or await self._tools.aside(self._engine.image, reference) is None:
                return 0
            await self._tools.aside(self._engine.remove_image, reference)
        except EngineRefused:
            return 0
        return 1

    async def _standings(self) -> list[Standing]:
        return await self._tools.aside(self._engine.standings)


def _one_per_image(replacements: Iterable[Replacement]) -> list[Replacement]:
    found: dict[str, Replacement] = {}
    for each in replacements:
        found.setdefault(plan.repository_of(each.image), each)
    return list(found.values())


async def gathered(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All at once, all to their end; then the first error is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
