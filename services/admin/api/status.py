"""How everything is: `status`, and a look at the registries now."""

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

    @routes.post("/updates/check", status_code=202)
    async def check_updates(actor: asking) -> dict[str, Any]:
        """Compare the images with their registries now."""
        await parts.peers.ask("updater", "POST", "/v1/check")
        return {"checking": True}

    return routes
