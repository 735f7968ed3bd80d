"""Updates: what is new, replace it, go back, what was done; and whether mail flows right now."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.mail_gate import GateReport
from services.admin.parts import Parts
from services.admin.updates import PlannedStep, UpdateEntry, UpdateStatus

Service = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9_.-]*$", examples=["imap"])]


class NewRun(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    dry: bool = Field(default=False, description="only say what would be done")
    local: bool = Field(default=False, description="to images that lie here already, built on the spot")
    services: list[Service] | None = Field(
        default=None, min_length=1, max_length=50, description="default: those whose labels let it"
    )


class Checking(BaseModel):
    checking: bool


class Run(BaseModel):
    """What was begun (`id`), or with `dry` what would be done (`plan`)."""

    id: str = ""
    plan: list[PlannedStep] = []


class History(BaseModel):
    updates: list[UpdateEntry]


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/update", tags=["updates"], responses=ERRORS)
    updates = parts.updates
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/status")
    async def show_status(actor: asking) -> UpdateStatus:
        """What is new, what is under way, and whether mail is held for it."""
        return await updates.status()

    @routes.post("/check", status_code=202)
    async def check(actor: asking) -> Checking:
        """Compare the images with their registries now."""
        await updates.check(actor)
        return Checking(checking=True)

    @routes.post("/run", status_code=202, responses={200: {"model": Run, "description": "With `dry`: the plan"}})
    async def run(actor: asking, body: NewRun, response: Response) -> Run:
        """Begin an update, or with `dry` say what it would do (200). 409 while one is under way."""
        if body.dry:
            response.status_code = 200
            return Run(plan=await updates.plan(local=body.local, services=body.services))
        return Run(id=await updates.run(actor, local=body.local, services=body.services))

    @routes.post("/rollback", status_code=202)
    async def rollback(actor: asking) -> Run:
        """Begin to go back to the images before the last committed update. 409 while one is under way."""
        return Run(id=await updates.rollback(actor))

    @routes.get("/history")
    async def history(actor: asking) -> History:
        """The updates that have ended, the newest first."""
        return History(updates=await updates.history())

    @routes.post("/gate")
    async def gate(actor: asking) -> GateReport:
        """Try now whether mail flows: in, out, read, deleted. Takes up to 25 seconds."""
        return await updates.gate(actor)

    return routes
