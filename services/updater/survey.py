"""Asks the engine and the registries what `plan` needs to know, once for all containers."""

from __future__ import annotations

from services.updater import plan
from services.updater.engine import Engine, EngineRefused, Image
from services.updater.modes import OFF, Orders, mode_of
from services.updater.plan import Facts, Refused


def survey(engine: Engine, orders: Orders, *, registries: bool) -> Facts:
    """The facts about every container of the project; registries are asked unless `registries` is false.

    No registry is asked about a container whose mode is off. Raises EngineUnavailable; what a registry or the engine
    refuses is a fact.
    """
    standings = engine.standings()
    images: dict[str, Image | None] = {}

    def image(reference: str) -> Image | None:
        if reference not in images:
            try:
                images[reference] = engine.image(reference)
            except EngineRefused:
                images[reference] = None  # an image that docker-filter does not show: one of another registry's
        return images[reference]

    here, digests = {}, {}
    for each in standings:
        for reference in (each.image_id, each.image):
            if found := image(reference):
                digests[found.id] = found.repo_digests
        if found := image(each.image):
            here[each.image] = found.id
    looked_at = [each for each in standings if mode_of(each.labels, orders) != OFF]
    asked = plan.questions(looked_at, digests) if registries else []
    return Facts(standings, digests, here, {name: _registry(engine, name) for name in asked})


def _registry(engine: Engine, image: str) -> str | Refused:
    try:
        return engine.registry_digest(image)
    except EngineRefused as error:
        return Refused(error.status, error.words)
