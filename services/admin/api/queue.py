"""The outgoing queue and the bans: asked of the rooms that own them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.parts import Parts
from services.admin.send_test import send_test

Identity = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]


class TestMessage(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    to: Annotated[str, Field(max_length=400, examples=["anna@family.example"])]
    sender: Annotated[str, Field(max_length=400)] | None = None  # an account's address; without it an administrator's


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["queue"], responses=ERRORS)
    operations = parts.operations
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/queue")
    async def list_queue(actor: asking, limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> dict[str, Any]:
        """What waits to be sent."""
        answer = await operations.queue(limit)
        return answer if isinstance(answer, dict) else {"messages": []}

    @routes.post("/queue/retry")
    async def retry_all(actor: asking) -> dict[str, Any]:
        """Try everything again now."""
        return {"retried": True, "answer": await operations.change_queue(actor, "retry", None)}

    @routes.post("/queue/release")
    async def release_all(actor: asking) -> dict[str, Any]:
        """Let everything go on that is held back: after a restore, once you have looked at it."""
        return {"released": True, "answer": await operations.change_queue(actor, "release", None)}

    @routes.get("/queue/{identity}")
    async def show(actor: asking, identity: Identity) -> dict[str, Any]:
        """One message, with what each server said at each attempt."""
        answer = await operations.queued(identity)
        return answer if isinstance(answer, dict) else {}

    @routes.post("/queue/{identity}/{action}")
    async def change(actor: asking, identity: Identity, action: Literal["retry", "hold", "release"]) -> dict[str, Any]:
        """Try one message again, hold it back, or let it go on."""
        return {"id": identity, "action": action, "answer": await operations.change_queue(actor, action, identity)}

    @routes.delete("/queue/{identity}")
    async def drop(actor: asking, identity: Identity) -> dict[str, Any]:
        """Drop a message: it is not sent, and nobody is told."""
        return {"id": identity, "action": "drop", "answer": await operations.change_queue(actor, "drop", identity)}

    @routes.get("/bans")
    async def list_bans(actor: asking) -> dict[str, Any]:
        """Who is refused for a while after wrong passwords, and by which rooms."""
        bans, notes = await operations.bans()
        return {"bans": bans, "notes": notes}

    @routes.delete("/bans/{key:path}")
    async def unban(actor: asking, key: Annotated[str, Path(max_length=400)]) -> dict[str, Any]:
        """Lift the bans of an address or an account."""
        parts.bans.forget(key)
        return {"lifted": key, "notes": await operations.unban(actor, key)}

    @routes.post("/test-message", status_code=202)
    async def test_message(actor: asking, body: TestMessage) -> dict[str, Any]:
        """Send a test message through queue and signature; `trace` tells what becomes of it."""
        context = parts.context
        trace = await send_test(operations, parts.peers, context.settings.hostname, body.to, body.sender, context.clock)
        return {"trace": trace, "to": body.to}

    return routes
