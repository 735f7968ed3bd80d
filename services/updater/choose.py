"""What a run takes on: the plan over what is there now, and what of it is left once its images have arrived.

Blocking, like the engine it asks: called beside the loop, and for a plan that is only shown.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace

from services.updater import history, plan, steps
from services.updater.engine import Engine, Failed, Nothing
from services.updater.modes import WATCH, Orders, mode_of
from services.updater.steps import Replacement
from services.updater.survey import survey


def choose(
    engine: Engine, orders: Orders, folder: str, source: str, services: Sequence[str] | None, automatic: bool
) -> tuple[list[plan.Line], dict[str, str]]:
    """A line per container, and what each image name means now: what undoing gives back.

    A run by hand takes what is only watched too. Raises EngineUnavailable, Failed and Nothing.
    """
    if not automatic:
        orders = replace(orders, mode=WATCH)
    facts = survey(engine, orders, registries=source == steps.REGISTRY)
    modes = {each.id: mode_of(each.labels, orders) for each in facts.standings}
    before = _images_before(engine, folder) if source == steps.BEFORE_UPDATE else {}
    lines = plan.lines(facts, source, modes, services, before)
    if automatic:
        lines = plan.automatic(lines, modes, history.refused(history.read(folder)))
    names = dict(facts.here)
    if source == steps.LOCAL:
        # The name has moved already. If the new image is no good, `docker compose up -d` must not start it.
        names |= {each.image: each.image_id for each in facts.standings}
    return lines, names


def _images_before(engine: Engine, folder: str) -> dict[str, str]:
    """Service → the image it ran before the last committed update. Raises Nothing or Failed."""
    last = history.last_committed(history.read(folder))
    if last is None:
        raise Nothing("there is no update to take back")
    images = {str(each["service"]): str(each["from"]) for each in last["images"]}
    for service, image in images.items():
        if engine.image(image) is None:
            raise Failed(f"{service}: the image it ran before {last['id']} is no longer on this machine")
    return images


def arrived(engine: Engine, image: str, replacements: Sequence[Replacement], youngest: float) -> list[Replacement]:
    """`replacements` with the id of the image that was pulled; without those that need not or may not have it.

    `youngest`: an image made after this epoch second is not taken. Raises Failed.
    """
    found = engine.image(image)
    if found is None:
        raise Failed(f"{image} was pulled, but is not there")
    kept = []
    for each in replacements:
        if each.image != image:
            kept.append(each)
        elif each.old != found.id and made_at(found.created) <= youngest:
            kept.append(replace(each, new=found.id))
    return kept


def made_at(created: str) -> float:
    """Docker's date of an image in epoch seconds; one that cannot be read counts as old."""
    try:
        # Docker gives nanoseconds, which Python 3.11 does not read.
        return datetime.datetime.fromisoformat(created[:19]).replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        return 0.0
