"""The pages of the server itself: updates, bans, and the list of changes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.admin.access import Actor
from services.admin.advice import advice
from services.admin.event_index import INDEX_PROBLEMS
from services.admin.parts import Parts
from services.admin.peers import PeerAway, PeerSaid
from services.admin.phrases import say
from services.admin.text import _
from services.admin.updates import PlannedStep
from services.admin.web.pages import SURE, Form, Pages, notify

CHANGES_SHOWN = 100
HISTORY_SHOWN = 20
NEWER = ("newer", "pulled")  # states of an image that an update would replace


def add_to(app: FastAPI, pages: Pages, parts: Parts) -> None:
    """Add the pages to `app`."""
    views = ServerViews(pages, parts)
    for path, page in (
        ("/updates", views.updates),
        ("/bans", views.bans),
        ("/changes", views.changes),
        ("/verdicts", views.verdicts),
    ):
        app.add_route(path, pages.page(page), methods=["GET"], include_in_schema=False)
    for path, change in (("/updates", views.change_updates), ("/bans", views.unban)):
        app.add_route(path, pages.change(change), methods=["POST"], include_in_schema=False)


class ServerViews:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations

    # --- updates ---------------------------------------------------------------------------------------------------

    async def updates(self, request: Request, actor: Actor, plan: list[PlannedStep] | None = None) -> Response:
        """GET /updates."""
        report, history, problem = None, [], ""
        try:
            report, history = await self._parts.updates.status(), await self._parts.updates.history()
        except (PeerAway, PeerSaid) as error:
            problem = str(error)
        return self._pages.render(
            request, "updates.html", actor, report=report, problem=problem, plan=plan,
            newer=sum(image.state in NEWER for image in report.images) if report else 0,
            history=history[:HISTORY_SHOWN], title=_("Updates"),
        )  # fmt: skip

    async def change_updates(self, request: Request, actor: Actor, form: Form) -> str | Response:
        """POST /updates."""
        action = form.get("action", "")
        if action == "check":
            await self._parts.updates.check(actor)
            notify(actor.session, "done", _("The images are being compared; this page shows it in a minute."))
        elif action == "dry":
            return await self.updates(request, actor, plan=await self._parts.updates.plan())
        elif action == "run":
            await self._parts.updates.run(actor)
            notify(actor.session, "done", _("The update has begun. Mail waits outside for a few seconds meanwhile."))
        elif action == "rollback":
            if SURE not in form:
                return self._pages.confirm(
                    request, actor, form, title=_("Go back to before the last update?"),
                    text=_("The images from before it are started again. Mail and the queue stay as they are."),
                    button=_("Go back"),
                )  # fmt: skip
            await self._parts.updates.rollback(actor)
            notify(actor.session, "done", _("The images from before the last update are being started."))
        else:
            notify(actor.session, "error", _("Nothing was chosen."))
        return "/updates"

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

    # --- verdicts --------------------------------------------------------------------------------------------------

    async def verdicts(self, request: Request, actor: Actor) -> Response:
        """GET /verdicts?days=..."""
        asked = request.query_params.get("days", "")
        days = int(asked) if asked in ("1", "7", "30") else 7
        counted, problem = None, ""
        try:
            counted = await self._parts.tail.verdicts(days)
        except INDEX_PROBLEMS as error:
            problem = str(error)
        return self._pages.render(
            request, "verdicts.html", actor, counted=counted, problem=problem, days=days, cause=_cause,
            title=_("Verdicts"),
        )  # fmt: skip

    # --- changes ---------------------------------------------------------------------------------------------------

    async def changes(self, request: Request, actor: Actor) -> Response:
        """GET /changes?before=..."""
        before = request.query_params.get("before", "")
        at = int(before) if before.isascii() and before.isdigit() and len(before) < 18 else 0
        found: list[dict[str, Any]] = []
        problem = ""
        self._parts.context.events.flush()  # whoever has just changed something looks for it here
        try:
            found = await self._parts.tail.changes(CHANGES_SHOWN, at)
        except INDEX_PROBLEMS as error:
            problem = str(error)
        older = found[-1]["t"] if len(found) == CHANGES_SHOWN else 0
        return self._pages.render(
            request, "changes.html", actor, changes=found, problem=problem, older=older, title=_("Changes")
        )


def _cause(rule: str) -> str:
    """What a rule means."""
    return _(advice(rule).cause)
