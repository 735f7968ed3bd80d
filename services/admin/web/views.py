"""Log-in, the first page, the queue and the trace.

Accounts and domains are in `directory_views.py`; updates, bans and the list of changes in `server_views.py`; what
everybody sees of their own in `own_views.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import RedirectResponse, Response

from services.admin.access import Actor, Denied
from services.admin.api.explain import threshold_of
from services.admin.event_index import INDEX_PROBLEMS
from services.admin.explanation import elsewhere
from services.admin.parts import Parts
from services.admin.phrases import say
from services.admin.sessions import COOKIE
from services.admin.text import LANGUAGES, _
from services.admin.web import directory_views, junk_views, own_views, rules_views, server_views
from services.admin.web.pages import (
    FORM_TOKEN,
    LANGUAGE_COOKIE,
    SURE,
    TOLD,
    Form,
    Pages,
    local_target,
    notify,
    peer_of,
    read_form,
    referring,
)  # fmt: skip
from services.admin.web.timeline import told
from services.directory.models import Domain

QUEUE_SHOWN = 200
STORIES_SHOWN = 20
VISIT_COOKIE = "mailstead-visit"  # before a log-in there is no session for the form's token to belong to
YEAR = 365 * 86_400
RESERVED = (".test", ".example", ".invalid", ".localhost")  # RFC 2606: nobody's own domain


def add_to(app: FastAPI, parts: Parts) -> None:
    """Add every page to `app`."""
    pages = Pages(parts)
    views = Views(pages, parts)
    app.add_route("/static/{name}", pages.static_file, include_in_schema=False)
    for method, path, handler in (
        ("GET", "/login", views.show_login),
        ("POST", "/login", views.log_in),
        ("POST", "/language", views.choose_language),
        ("GET", "/", pages.page(views.home, anyone=True)),
        ("GET", "/queue", pages.page(views.queue)),
        ("GET", "/trace", pages.page(views.trace)),
        ("POST", "/logout", pages.change(views.log_out, anyone=True)),
        ("POST", "/queue", pages.change(views.change_queue)),
    ):
        app.add_route(path, handler, methods=[method], include_in_schema=False)
    for module in (directory_views, own_views, junk_views, rules_views, server_views):
        module.add_to(app, pages, parts)
    answered = app.exception_handlers[AnyHTTPException]

    async def missing(request: Request, error: Any) -> Response:
        if request.url.path.startswith("/api/"):
            return await answered(request, error)  # type: ignore[no-any-return,misc]
        actor = await pages.actor(request)
        title = _("Not there") if error.status_code == 404 else _("Not sent")
        text = _("There is no such page.") if error.status_code == 404 else str(error.detail)
        return pages.problem(request, actor, error.status_code, title, text)

    app.add_exception_handler(AnyHTTPException, missing)
    app.add_exception_handler(HTTPException, missing)


class Views:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations
        self._visits = secrets.token_bytes(32)

    # --- log-in ----------------------------------------------------------------------------------------------------

    async def show_login(self, request: Request) -> Response:
        """GET /login."""
        if await self._pages.actor(request):
            return RedirectResponse("/", 303)
        return self._login_page(request, target=local_target(request.query_params.get("next", "/")))

    async def log_in(self, request: Request) -> Response:
        """POST /login."""
        await self._pages.actor(request)  # for the language
        form = await read_form(request)
        name, target = form.get("name", ""), local_target(form.get("next", "/"))
        visit = request.cookies.get(VISIT_COOKIE, "")
        if not visit or not hmac.compare_digest(self._visit_token(visit), form.get(FORM_TOKEN, "").encode()):
            problem = _("The browser kept no cookie of this page. Allow cookies for it, and try again.")
            return self._login_page(request, 403, problem, name, target)
        try:
            account = await self._parts.access.log_in(peer_of(request), name, form.get("password", ""), anyone=True)
        except Denied as error:
            return self._login_page(request, error.status, say(str(error)), name, target)
        # A new token each time, and the one that the browser brought ends: none can be planted beforehand.
        self._parts.sessions.close(request.cookies.get(COOKIE, ""))
        token = await self._parts.access.open_session(account)
        response = RedirectResponse(target, 303)
        _keep(response, request, COOKIE, token)
        response.delete_cookie(VISIT_COOKIE, path="/login")
        return response

    async def log_out(self, request: Request, actor: Actor, form: Form) -> Response:
        """POST /logout."""
        self._parts.sessions.close(request.cookies.get(COOKIE, ""))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/")
        return response

    async def choose_language(self, request: Request) -> Response:
        """POST /language: for this browser, and for the account of whoever is logged in."""
        actor = await self._pages.actor(request)
        form = await read_form(request)
        chosen = form.get("language", "")
        if actor and (actor.session is None or not actor.session.is_form_token(form.get(FORM_TOKEN, ""))):
            return RedirectResponse("/", 303)
        response = RedirectResponse(referring(request, form), 303)
        if chosen in LANGUAGES:
            if actor:
                try:
                    await self._operations.set_language(actor, chosen)
                except TOLD as error:
                    notify(actor.session, "error", say(str(error)))
            _keep(response, request, LANGUAGE_COOKIE, chosen, YEAR)
        return response

    def _login_page(
        self, request: Request, status: int = 200, problem: str = "", typed: str = "", target: str = "/"
    ) -> Response:
        visit = request.cookies.get(VISIT_COOKIE) or secrets.token_urlsafe(16)
        page = self._pages.render(
            request, "login.html", None, status, problem=problem, form={"name": typed}, next=target,
            visit=self._visit_token(visit).decode(), title=_("Log in"),
        )  # fmt: skip
        _keep(page, request, VISIT_COOKIE, visit, path="/login")
        return page

    def _visit_token(self, visit: str) -> bytes:
        return hmac.new(self._visits, visit.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32].encode()

    # --- home ------------------------------------------------------------------------------------------------------

    async def home(self, request: Request, actor: Actor) -> Response:
        """GET /."""
        if not actor.administrator:
            return RedirectResponse("/me", 303)
        overview = await self._parts.overview.now()
        images = overview["updates"].get("images", [])
        newer = sum(image.get("state") in server_views.NEWER for image in images if isinstance(image, dict))
        steps = _next_steps(await self._operations.domains(), overview["accounts"])
        return self._pages.render(
            request, "home.html", actor, overview=overview, newer=newer, steps=steps, title=_("Home")
        )

    # --- queue -----------------------------------------------------------------------------------------------------

    async def queue(self, request: Request, actor: Actor) -> Response:
        """GET /queue."""
        answer = await self._operations.queue(QUEUE_SHOWN)
        messages = answer.get("messages", []) if isinstance(answer, dict) else []
        return self._pages.render(request, "queue.html", actor, messages=messages, shown=QUEUE_SHOWN, title=_("Queue"))

    async def change_queue(self, request: Request, actor: Actor, form: Form) -> str | Response:
        """POST /queue."""
        action, identity = form.get("action", ""), form.get("id", "")
        for_all = action in ("retry", "release")
        if action not in ("retry", "hold", "release", "drop") or not (identity or for_all):
            notify(actor.session, "error", _("Nothing was chosen."))
            return "/queue"
        if action == "drop" and SURE not in form:
            return self._pages.confirm(
                request, actor, form, title=_("Drop this message?"),
                text=_("It is not sent, and its sender is not told. This cannot be undone."), button=_("Drop"),
            )  # fmt: skip
        await self._operations.change_queue(actor, action, identity or None)
        words = {
            "retry": _("It is tried again now."),
            "hold": _("It is held back until you let it go."),
            "release": _("It goes on its way."),
            "drop": _("It is dropped."),
        }
        notify(actor.session, "done", words[action])
        return "/queue"

    # --- trace -----------------------------------------------------------------------------------------------------

    async def trace(self, request: Request, actor: Actor) -> Response:
        """GET /trace?q=..."""
        query = request.query_params.get("q", "")[:1000].strip()
        stories, problem, limit = [], "", threshold_of(self._parts)
        try:
            if query:
                stories = await self._parts.tail.stories(query, STORIES_SHOWN, fresh=True)
            else:
                stories = await self._parts.tail.latest(STORIES_SHOWN)
        except INDEX_PROBLEMS as error:
            problem = str(error)
        return self._pages.render(
            request, "trace.html", actor, query=query, stories=[told(story, limit) for story in stories],
            elsewhere=elsewhere(query, self._parts.context.settings.events_days), problem=problem, title=_("Trace"),
        )  # fmt: skip


def _keep(
    response: Response, request: Request, name: str, value: str, seconds: int | None = None, path: str = "/"
) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=secure, path=path)


def _next_steps(domains: list[Domain], accounts: int) -> list[tuple[str, str, str]]:
    """(where, what to do, why) for a house that has just been started; [] once it is lived in."""
    own = [domain.name for domain in domains if not domain.name.endswith(RESERVED)]
    steps = []
    if not own:
        steps.append(
            ("/domains", _("Add your own domain"), _("example.test is only for a first look: no mail can reach it."))
        )
    if accounts <= 1:
        steps.append(
            (
                "/accounts/new",
                _("Make an account for each person"),
                _("It is their mailbox, and what they log in with."),
            )
        )
    if own and accounts <= 1:
        steps.append(
            (
                f"/domains/{own[0]}",
                _("Set the DNS records"),
                _("Others find this server by them, and believe your mail."),
            )
        )
    return steps
