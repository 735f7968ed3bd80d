"""How the containers of a run stand: which are its own, which somebody else made, which are well. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.updater.engine import SUCCESSOR_LABEL, Failed, Moved, Standing
from services.updater.steps import Run


def successors_in(standings: Iterable[Standing], run: Run) -> dict[str, Standing]:
    """Service → the container that this run has made for it."""
    return {each.service: each for each in standings if each.labels.get(SUCCESSOR_LABEL) == run.id and run.id}


def strangers_in(standings: Iterable[Standing], run: Run) -> list[Standing]:
    """Containers of replaced services that are neither the old one nor its successor: somebody else's."""
    ours = {each.container for each in run.replacements}
    services = {each.service for each in run.replacements}
    return [
        each
        for each in standings
        if each.service in services
        and each.id not in ours
        and each.labels.get(SUCCESSOR_LABEL) != run.id
        # What an earlier run had to leave behind is nobody's any more.
        and (each.running or "-before-" not in each.name)
    ]


def require_untouched(standings: Sequence[Standing], run: Run) -> None:
    """Every old container is there under one of its two names, and no other has come. Raises Moved."""
    there = {each.id: each for each in standings}
    for each in run.replacements:
        if each.container not in there:
            raise Moved(f"the container of {each.service} is gone: somebody else changed the stack")
        if there[each.container].name not in (each.name, each.aside(run.id)):
            raise Moved(f"{each.name} was renamed to {there[each.container].name} by somebody else")
    if others := strangers_in(standings, run):
        raise Moved(f"{others[0].service} has a container {others[0].name} that somebody else made")


def require_well(standing: Standing) -> None:
    """Raises Failed for a container that has ended, starts again and again, or is called unhealthy by Docker."""
    if standing.restarts or standing.status in ("exited", "dead", "restarting"):
        raise Failed(f"{standing.service} ended with status {standing.exit_code} after its start")
    if standing.health == "unhealthy":
        raise Failed(f"{standing.service} is unhealthy")
