"""The pages that look: log-in, home, queue, trace, bans. Those of accounts and domains are in `directory_views.py`."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from services.admin.access import Actor, Denied
from services.admin.event_index import INDEX_PROBLEMS
from services.admin.parts import Parts
from services.admin.sessions import COOKIE
from services.admin.stories import sentences
from services.admin.text import _
from services.admin.web import directory_views
from services.admin.web.pages import Form, Pages, local_target, notify, read_form

QUEUE_SHOWN = 200
STORIES_SHOWN = 20


def add_to(app: FastAPI, parts: Parts) -> None:
    """Add every page to `app`."""
    pages = Pages(parts)
    views = Views(pages, parts)
    app.add_route("/static/{name}", pages.static_file, include_in_schema=False)
    app.add_route("/login", views.show_login, methods=["GET"], include_in_schema=False)
    app.add_route("/login", views.log_in, methods=["POST"], include_in_schema=False)
    for path, page in (("/", views.home), ("/queue", views.queue), ("/bans", views.bans), ("/trace", views.trace)):
        app.add_route(path, pages.page(page), methods=["GET"], include_in_schema=False)
    for path, change in (
        ("/logout", views.log_out), ("/queue", views.change_queue), ("/bans", views.unban),
        ("/updates", views.check_updates),
    ):  # fmt: skip
        app.add_route(path, pages.change(change), methods=["POST"], include_in_schema=False)
    directory_views.add_to(app, pages, parts)


class Views:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations

    # --- log-in ----------------------------------------------------------------------------------------------------

    async def show_login(self, request: Request) -> Response:
        """GET /login."""
        if await self._parts.access.by_session(request.cookies.get(COOKIE, "")):
            return RedirectResponse("/", 303)
        target = local_target(request.query_params.get("next", "/"))
        return self._pages.render("login.html", None, problem="", typed="", next=target)

    async def log_in(self, request: Request) -> Response:
        """POST /login."""
        form = await read_form(request)
        name, target = form.get("name", ""), local_target(form.get("next", "/"))
        peer = request.client.host if request.client else ""
        try:
            account = await self._parts.access.log_in(peer, name, form.get("password", ""))
        except Denied as error:
            return self._pages.render("login.html", None, error.status, problem=str(error), typed=name, next=target)
        token = await self._parts.access.open_session(account)
        response = RedirectResponse(target, 303)
        response.set_cookie(
            COOKIE, token, httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
        )
        return response

    async def log_out(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /logout."""
        self._parts.sessions.close(request.cookies.get(COOKIE, ""))
        return "/login"

    # --- home ------------------------------------------------------------------------------------------------------

    async def home(self, request: Request, actor: Actor) -> Response:
        """GET /."""
        overview = await self._parts.overview.now()
        return self._pages.render("home.html", actor, overview=overview, title=_("Home"))

    async def check_updates(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /updates."""
        await self._parts.peers.ask("updater", "POST", "/v1/check")
        notify(actor.session, "done", _("The images are being compared; reload in a minute."))
        return "/"

    # --- queue and bans ---------------------------------------------------------------------------------------------

    async def queue(self, request: Request, actor: Actor) -> Response:
        """GET /queue."""
        answer = await self._operations.queue(QUEUE_SHOWN)
        messages = answer.get("messages", []) if isinstance(answer, dict) else []
        return self._pages.render("queue.html", actor, messages=messages, shown=QUEUE_SHOWN, title=_("Queue"))

    async def change_queue(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /queue."""
        action, identity = form.get("action", ""), form.get("id", "")
        for_all = action in ("retry", "release")
        if action not in ("retry", "hold", "release", "drop") or not (identity or for_all):
            notify(actor.session, "error", _("Nothing was chosen."))
            return "/queue"
        await self._operations.change_queue(actor, action, identity or None)
        words = {
            "retry": _("It is tried again now."),
            "hold": _("It is held back until you let it go."),
            "release": _("It goes on its way."),
            "drop": _("It is dropped."),
        }
        notify(actor.session, "done", words[action])
        return "/queue"

    async def bans(self, request: Request, actor: Actor) -> Response:
        """GET /bans."""
        bans, notes = await self._operations.bans()
        return self._pages.render("bans.html", actor, bans=bans, notes=notes, title=_("Bans"))

    async def unban(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /bans."""
        key = form.get("key", "")
        self._parts.bans.forget(key)
        for note in await self._operations.unban(actor, key):
            notify(actor.session, "note", note)
        notify(actor.session, "done", _("{key} may log in again.").format(key=key))
        return "/bans"

    # --- trace -----------------------------------------------------------------------------------------------------

    async def trace(self, request: Request, actor: Actor) -> Response:
        """GET /trace?q=..."""
        query = request.query_params.get("q", "")[:1000].strip()
        stories, problem = [], ""
        if query:
            try:
                stories = await self._parts.tail.stories(query, STORIES_SHOWN, fresh=True)
            except INDEX_PROBLEMS as error:
                problem = str(error)
        told = [(story.summary(), list(zip(story.events, sentences(story.events), strict=True))) for story in stories]
        return self._pages.render("trace.html", actor, query=query, stories=told, problem=problem, title=_("Trace"))
