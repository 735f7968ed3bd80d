"""How everything is: `status`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.event_index import INDEX_PROBLEMS
from services.admin.parts import Parts


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["status"], responses=ERRORS)
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/status")
    async def status(actor: asking) -> dict[str, Any]:
        """One sentence that says whether mail flows; each room, the queue, the certificate, the images, and what was
        decided about incoming mail in the last day."""
        found = await parts.overview.now()
        try:
            found["judged"] = (await parts.tail.verdicts(1)).messages
        except INDEX_PROBLEMS:
            found["judged"] = {}  # `status` says so where it tells of this room
        return found

    return routes
