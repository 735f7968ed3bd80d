"""What the junk filter has learned: asked of the imap room, which keeps it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.parts import Parts


def router(parts: Parts) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["junk"], responses=ERRORS)
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/junk")
    async def junk(actor: asking, account: Annotated[str | None, Query(max_length=400)] = None) -> dict[str, Any]:
        """Messages sorted as junk and as good, known senders, and the published model, of one account or all."""
        answer = await parts.operations.junk(account)
        return answer if isinstance(answer, dict) else {"accounts": []}

    return routes
