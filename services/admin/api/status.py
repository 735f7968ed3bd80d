"""How everything is: `status`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.parts import Parts


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["status"], responses=ERRORS)
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/status")
    async def status(actor: asking) -> dict[str, Any]:
        """One sentence that says whether mail flows; each room, the queue, the certificate, the images."""
        return await parts.overview.now()

    return routes
