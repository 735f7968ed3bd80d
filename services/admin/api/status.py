"""How everything is, and a copy of the directory for backups."""

import asyncio
import os
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

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

    @routes.get("/backup/directory", response_class=Response)
    async def backup_directory(actor: asking) -> Response:
        """A consistent copy of directory.db, with password hashes."""
        content = await asyncio.to_thread(_copy, parts)
        headers = {"Content-Disposition": 'attachment; filename="directory.db"'}
        return Response(content, media_type="application/vnd.sqlite3", headers=headers)

    return routes


def _copy(parts: Parts) -> bytes:
    path = os.path.join(parts.context.settings.admin_dir, "directory.copy")
    if os.path.exists(path):
        os.unlink(path)
    try:
        parts.directories.database.copy_to(path)
        with open(path, "rb") as file:
            return file.read()
    finally:
        os.unlink(path)
