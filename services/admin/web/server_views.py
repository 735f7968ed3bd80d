"""The pages of the server itself: updates, bans, and the list of changes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.admin.access import Actor
from services.admin.event_index import INDEX_PROBLEMS
from services.admin.parts import Parts
from services.admin.peers import PeerAway, PeerSaid
from services.admin.phrases import say
from services.admin.text import _
from services.admin.web.pages import SURE, Form, Pages, notify

CHANGES_SHOWN = 100
HISTORY_SHOWN = 20


def add_to(app: FastAPI, pages: Pages, parts: Parts) -> None:
    """Add the pages to `app`."""
    views = ServerViews(pages, parts)
    for path, page in (("/updates", views.updates), ("/bans", views.bans), ("/changes", views.changes)):
        app.add_route(path, pages.page(page), methods=["GET"], include_in_schema=False)
    for path, change in (("/updates", views.change_updates), ("/bans", views.unban)):
        app.add_route(path, pages.change(change), methods=["POST"], include_in_schema=False)


class ServerViews:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations

    # --- updates ---------------------------------------------------------------------------------------------------

    async def updates(self, request: Request, actor: Actor, plan: list[Any] | None = None) -> Response:
        """GET /updates."""
        report, history = await self._ask("/v1/report"), await self._ask("/v1/history")
        images = [image for image in report.get("images", ()) if isinstance(image, dict)]
        newer = sum(image.get("state") == "newer" for image in images)
        return self._pages.render(
            request, "updates.html", actor, report=report, newer=newer, plan=plan,
            history=list(history.get("updates", ()))[:HISTORY_SHOWN], title=_("Updates"),
        )  # fmt: skip

    async def change_updates(self, request: Request, actor: Actor, form: Form) -> str | Response:
        """POST /updates."""
        action = form.get("action", "")
        if action == "check":
            await self._parts.peers.ask("updater", "POST", "/v1/check")
            notify(actor.session, "done", _("The images are being compared; this page shows it in a minute."))
        elif action == "dry":
            answer = await self._parts.peers.ask("updater", "POST", "/v1/run", {"dry": True})
            return await self.updates(request, actor, plan=list(answer.get("plan", ())))
        elif action == "run":
            await self._operations.run_update(actor)
            notify(actor.session, "done", _("The update has begun. Mail waits outside for a few seconds meanwhile."))
        elif action == "rollback":
            if SURE not in form:
                return self._pages.confirm(
                    request, actor, form, title=_("Go back to before the last update?"),
                    text=_("The images from before it are started again. Mail and the queue stay as they are."),
                    button=_("Go back"),
                )  # fmt: skip
            await self._operations.roll_back_update(actor)
            notify(actor.session, "done", _("The images from before the last update are being started."))
        else:
            notify(actor.session, "error", _("Nothing was chosen."))
        return "/updates"

    async def _ask(self, path: str) -> dict[str, Any]:
        try:
            answer = await self._parts.peers.ask("updater", "GET", path)
        except PeerAway as error:
            return {"error": str(error)}
        except PeerSaid as error:  # an updater of before this page knows no history
            return {} if error.status == 404 else {"error": str(error)}
        return answer if isinstance(answer, dict) else {}

    # --- bans ------------------------------------------------------------------------------------------------------

    async def bans(self, request: Request, actor: Actor) -> Response:
        """GET /bans."""
        bans, notes = await self._operations.bans()
        return self._pages.render(request, "bans.html", actor, bans=bans, notes=notes, title=_("Bans"))

    async def unban(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /bans."""
        key = form.get("key", "")
        self._parts.bans.forget(key)
        for note in await self._operations.unban(actor, key):
            notify(actor.session, "note", say(note))
        notify(actor.session, "done", _("{key} may log in again.").format(key=key))
        return "/bans"

    # --- changes ---------------------------------------------------------------------------------------------------

    async def changes(self, request: Request, actor: Actor) -> Response:
        """GET /changes?before=..."""
        before = request.query_params.get("before", "")
        at = int(before) if before.isascii() and before.isdigit() and len(before) < 18 else 0
        found: list[dict[str, Any]] = []
        problem = ""
        try:
            found = await self._parts.tail.changes(CHANGES_SHOWN, at)
        except INDEX_PROBLEMS as error:
            problem = str(error)
        older = found[-1]["t"] if len(found) == CHANGES_SHOWN else 0
        return self._pages.render(
            request, "changes.html", actor, changes=found, problem=problem, older=older, title=_("Changes")
        )
