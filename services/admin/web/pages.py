"""What every page shares: templates, the log-in check, forms with their token, notices, static files."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from starlette.responses import RedirectResponse, Response

from services.admin.access import Actor
from services.admin.parts import Parts
from services.admin.peers import PeerAway, PeerSaid
from services.admin.sessions import COOKIE, Session
from services.admin.text import _
from services.directory.addresses import InvalidName
from services.directory.database import DatabaseUnusable
from services.directory.errors import DirectoryError, NotFound
from services.directory.passwords import WeakPassword
from services.directory.publish import PublicationFailed

HERE = os.path.dirname(__file__)
FORM_TOKEN = "form_token"  # noqa: S105 - a field's name
# What a person can mend or must know; anything else is a fault of ours, with an id.
TOLD = (
    InvalidName, WeakPassword, DirectoryError, PublicationFailed, PeerAway, PeerSaid, DatabaseUnusable,
)  # fmt: skip
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Form = dict[str, str]
Page = Callable[[Request, Actor], Awaitable[Response]]
Change = Callable[[Request, Actor, Form], Awaitable[str]]


class Pages:
    """Renders pages for whoever is logged in."""

    def __init__(self, parts: Parts) -> None:
        """Reads the static files; templates are compiled when first used."""
        self.parts = parts
        self._static = {name: _read(name) for name in sorted(os.listdir(os.path.join(HERE, "static")))}
        self._environment = Environment(
            loader=FileSystemLoader(os.path.join(HERE, "templates")),
            autoescape=True,
            undefined=ChainableUndefined,  # a field that an older room does not send yet is empty, not a fault
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Callable[..., str]] = {
            "size": size_text, "time": time_text, "micros": micros_text, "days": days_text,
        }  # fmt: skip
        self._environment.filters.update(filters)
        self._environment.globals.update(_=_, static=self.static_url, hostname=parts.context.settings.hostname)

    def render(self, template: str, actor: Actor | None, status: int = 200, **values: Any) -> Response:
        """A page; the session's notices are shown on it and gone."""
        session = actor.session if actor else None
        notices, token = [], ""
        if session is not None:
            notices, session.notices = session.notices, []
            token = session.form_token
        text = self._environment.get_template(template).render(
            actor=actor.name if actor else "", notices=notices, form_token=token, **values
        )
        return Response(text, status, media_type="text/html")

    def page(self, show: Page) -> Callable[[Request], Awaitable[Response]]:
        """A route for who is logged in; others are sent to the log-in and come back."""

        async def route(request: Request) -> Response:
            actor = await self._actor(request)
            if actor is None:
                target = request.url.path if request.method == "GET" else "/"
                return RedirectResponse("/login" + (f"?next={target}" if target != "/" else ""), 303)
            if not actor.administrator:
                return self._forbidden(actor)
            try:
                return await show(request, actor)
            except TOLD as error:
                status, title = (404, _("Not there")) if isinstance(error, NotFound) else (503, _("Not now"))
                return self.render("problem.html", actor, status, problem=str(error), title=title)

        return route

    def change(self, do: Change) -> Callable[[Request], Awaitable[Response]]:
        """A route for a form: `do` makes the change and gives where to go next; errors become notices there."""

        async def route(request: Request) -> Response:
            actor = await self._actor(request)
            if actor is None or actor.session is None:
                return RedirectResponse("/login", 303)
            if not actor.administrator:
                return self._forbidden(actor)
            form = await read_form(request)
            if not actor.session.is_form_token(form.get(FORM_TOKEN, "")):
                problem = _("This form is not from this log-in. Go back, reload the page, and try again.")
                return self.render("problem.html", actor, 403, problem=problem, title=_("Not sent"))
            try:
                target = await do(request, actor, form)
            except TOLD as error:
                notify(actor.session, "error", str(error))
                target = form.get("back", "/")
            return RedirectResponse(local_target(target), 303)

        return route

    def static_url(self, name: str) -> str:
        """The address of a static file; another content has another one, so that it may be kept for ever."""
        return f"/static/{name}?{self._static[name][1]}"

    async def static_file(self, request: Request) -> Response:
        """GET /static/{name}."""
        found = self._static.get(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        content, version, kind = found
        lasting = "public, max-age=31536000, immutable" if request.url.query == version else "no-cache"
        return Response(content, media_type=kind, headers={"Cache-Control": lasting})

    def _forbidden(self, actor: Actor) -> Response:
        problem = _("This page is for administrators.")
        return self.render("problem.html", actor, 403, problem=problem, title=_("Not for this account"))

    async def _actor(self, request: Request) -> Actor | None:
        peer = request.client.host if request.client else ""
        return await self.parts.access.by_session(request.cookies.get(COOKIE, ""), peer)


def notify(session: Session | None, kind: str, text: str) -> None:
    """Show `text` on the next page; `kind` is done, error, note or secret."""
    if session is not None:
        session.notices = [*session.notices[-9:], (kind, text)]


async def read_form(request: Request) -> Form:
    """The fields of a posted form; the last of equal names counts. Bounded by the shell."""
    body = (await request.body()).decode("utf-8", "replace")
    return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=100))


def local_target(target: str) -> str:
    """`target` where it is a path of this page, else the home page: no link leads a log-in elsewhere."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and target.isprintable() else "/"


def size_text(size: object) -> str:
    """Bytes as a person reads them; a dash for what is no number."""
    if not isinstance(size, int | float):
        return "–"
    number, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"


def time_text(seconds: object) -> str:
    """Seconds since 1970 as UTC; the script shows it in the reader's own time. "" for what is no time."""
    if not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def micros_text(micros: int) -> str:
    """Microseconds since 1970 as UTC with milliseconds."""
    return time_text(micros / 1e6)[:-1] + f".{micros // 1000 % 1000:03d}Z"


def days_text(seconds: float) -> str:
    """A length of time, roughly."""
    if seconds >= 2 * 86_400:
        return _("{count} days").format(count=int(seconds / 86_400))
    if seconds >= 2 * 3600:
        return _("{count} hours").format(count=int(seconds / 3600))
    return _("{count} minutes").format(count=int(seconds / 60))


def _read(name: str) -> tuple[bytes, str, str]:
    with open(os.path.join(HERE, "static", name), "rb") as file:
        content = file.read()
    version = base64.b32encode(hashlib.sha256(content).digest())[:10].decode().lower()
    return content, version, KINDS[os.path.splitext(name)[1]]
