"""What every page shares: templates, the log-in check, forms with their token, notices, static files."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Request
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from starlette.responses import RedirectResponse, Response

from services.admin.access import Actor
from services.admin.parts import Parts
from services.admin.peers import PeerAway, PeerSaid
from services.admin.phrases import say
from services.admin.sessions import COOKIE, Session
from services.admin.text import ENGLISH, LANGUAGES, _, language, negotiated, ngettext, speak
from services.admin.web.formats import clock, day, domain_text, length_text, size_text, stranger, when
from services.admin.web.words import MENU, OWN_MENU, action_word, door_word, kind_word, room_word, state_word, step_word
from services.directory.addresses import InvalidName
from services.directory.database import DatabaseUnusable
from services.directory.errors import DirectoryError, Exists, NotFound, Refused
from services.directory.passwords import WeakPassword
from services.directory.publish import PublicationFailed
from services.runtime.events import new_trace_id

HERE = os.path.dirname(__file__)
FORM_TOKEN = "form_token"  # noqa: S105 - a field's name
LANGUAGE_COOKIE = "mailstead-language"
SURE = "sure"  # the field that the page of confirmation adds
LIVE_HEADER = "x-live"  # sent by the script's own refresh
# What a person can mend or must know; anything else is a fault of ours, with an id.
TOLD = (
    InvalidName, WeakPassword, DirectoryError, PublicationFailed, PeerAway, PeerSaid, DatabaseUnusable,
)  # fmt: skip
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Form = dict[str, str]
Page = Callable[[Request, Actor], Awaitable[Response]]
Change = Callable[[Request, Actor, Form], Awaitable["str | Response"]]


class Wrong(Exception):
    """A form that is not accepted: field → what is wrong with it, in the reader's language."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(fields.values()))
        self.fields = dict(fields)


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
        shown: dict[str, Callable[..., str]] = {
            "size": size_text, "when": when, "day": day, "clock": clock, "lasting": length_text,
            "readable": domain_text, "say": say, "room": room_word, "state": state_word, "kind": kind_word,
            "step": step_word, "action": action_word, "door": door_word, "stranger": stranger,
        }  # fmt: skip
        self._environment.filters.update(shown)
        self._environment.globals.update(
            _=_, ngettext=ngettext, static=self.static_url, hostname=parts.context.settings.hostname,
            languages=LANGUAGES, menu=MENU, own_menu=OWN_MENU,
        )  # fmt: skip

    # --- answers ---------------------------------------------------------------------------------------------------

    def render(
        self, request: Request, template: str, actor: Actor | None, status: int = 200, **values: Any
    ) -> Response:
        """A page; the session's notices are shown on it and gone. `form`, `errors`: those of a form that failed."""
        session = actor.session if actor else None
        notices, token = [], ""
        if session is not None:
            if LIVE_HEADER not in request.headers:
                notices, session.notices = session.notices, []
            token = session.form_token
        given: dict[str, Any] = {"form": {}, "errors": {}, "form_token": token, **values}
        text = self._environment.get_template(template).render(
            actor=actor, notices=notices, language=language(), here=request.url.path, address=_address(request), **given
        )
        headers = {"Content-Language": language(), "Vary": "Accept-Language, Cookie"}
        return Response(text, status, media_type="text/html", headers=headers)

    def problem(self, request: Request, actor: Actor | None, status: int, title: str, text: str) -> Response:
        """A page that says what is the matter."""
        return self.render(request, "problem.html", actor, status, title=title, problem=text)

    def confirm(self, request: Request, actor: Actor, form: Form, *, title: str, text: str, button: str) -> Response:
        """Ask whether it is meant: the same form again, with SURE in it. Works without a script."""
        fields = {name: value for name, value in form.items() if name not in (FORM_TOKEN, SURE)}
        return self.render(
            request, "confirm.html", actor, title=title, text=text, button=button, fields=fields, sure=SURE,
            back=local_target(form.get("back", "/")),
        )  # fmt: skip

    # --- routes ----------------------------------------------------------------------------------------------------

    def page(self, show: Page, *, anyone: bool = False) -> Callable[[Request], Awaitable[Response]]:
        """A route for administrators, with `anyone` for every account; strangers log in first and come back."""

        async def answer(request: Request, actor: Actor) -> Response:
            try:
                return await show(request, actor)
            except TOLD as error:
                status, title = (404, _("Not there")) if isinstance(error, NotFound) else (503, _("Not now"))
                return self.problem(request, actor, status, title, say(str(error)))

        async def route(request: Request) -> Response:
            actor = await self.actor(request)
            if actor is None:
                target = _address(request) if request.method == "GET" else "/"
                return RedirectResponse("/login" + (f"?next={quote(target)}" if target != "/" else ""), 303)
            if not (anyone or actor.administrator):
                return self._forbidden(request, actor)
            return await self._guarded(request, actor, answer)

        return route

    def change(
        self, do: Change, *, anyone: bool = False, show: Callable[..., Awaitable[Response]] | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        """A route for a form. `do` makes the change and gives where to go next, or a page that asks.

        What it raises is told: on the page that has the form (`show`, with `form` and `errors`), which keeps what was
        typed; without `show` as a notice where the form's `back` leads.
        """

        async def answer(request: Request, actor: Actor) -> Response:
            form = await read_form(request)
            if actor.session is None or not actor.session.is_form_token(form.get(FORM_TOKEN, "")):
                text = _("This form is not from this log-in. Go back, reload the page, and try again.")
                return self.problem(request, actor, 403, _("Not sent"), text)
            try:
                target = await do(request, actor, form)
                return target if isinstance(target, Response) else RedirectResponse(local_target(target), 303)
            except Wrong as wrong:
                status, errors = 422, wrong.fields
            except TOLD as error:
                status, errors = _status(error), {"": say(str(error))}
            if show is not None:
                with contextlib.suppress(NotFound):  # what the page is about may be what is not there
                    again = await show(request, actor, form=form, errors=errors)
                    again.status_code = status
                    return again
            notify(actor.session, "error", "; ".join(errors.values()))
            return RedirectResponse(local_target(form.get("back", "/")), 303)

        async def route(request: Request) -> Response:
            actor = await self.actor(request)
            if actor is None or actor.session is None:
                return RedirectResponse("/login", 303)
            if not (anyone or actor.administrator):
                return self._forbidden(request, actor)
            return await self._guarded(request, actor, answer)

        return route

    async def actor(self, request: Request) -> Actor | None:
        """Who asks; from here on the request is answered in their language."""
        used = LIVE_HEADER not in request.headers
        actor = await self.parts.access.by_session(request.cookies.get(COOKIE, ""), peer_of(request), used=used)
        chosen = (actor.language if actor else "") or request.cookies.get(LANGUAGE_COOKIE, "")
        accepted = request.headers.get("accept-language", "")
        speak(chosen if chosen in LANGUAGES else negotiated(accepted) if accepted else ENGLISH)
        return actor

    def _forbidden(self, request: Request, actor: Actor) -> Response:
        text = _("This page is for administrators.")
        return self.problem(request, actor, 403, _("Not for this account"), text)

    async def _guarded(self, request: Request, actor: Actor, answer: Page) -> Response:
        try:
            return await answer(request, actor)
        except Exception as error:
            bug = new_trace_id()
            self.parts.context.bug(bug, error, f"{request.method} {request.url.path}")
            text = _("An error of this server, recorded as {id}.").format(id=bug)
            return self.problem(request, actor, 500, _("Something went wrong"), text)

    # --- static files ----------------------------------------------------------------------------------------------

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


@contextlib.contextmanager
def beside(fields: Mapping[type[Exception], str]) -> Iterator[None]:
    """Tell an error of one of these kinds beside its field."""
    try:
        yield
    except tuple(fields) as error:
        name = next(field for kind, field in fields.items() if isinstance(error, kind))
        raise Wrong({name: say(str(error))}) from error


def notify(session: Session | None, kind: str, text: str) -> None:
    """Show `text` on the next page; `kind` is done, error, note or secret."""
    if session is not None:
        session.notices = [*session.notices[-9:], (kind, text)]


async def read_form(request: Request) -> Form:
    """The fields of a posted form; the last of equal names counts. Bounded by the shell."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=100))
    except ValueError:
        return {}  # more fields than any form of ours has: its token is not found, and it is refused


def peer_of(request: Request) -> str:
    """The address that the request came from."""
    return request.client.host if request.client else ""


def local_target(target: str) -> str:
    """`target` where it is a path of this page, else the home page: no link leads a log-in elsewhere."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and target.isprintable() else "/"


def referring(request: Request, form: Form) -> str:
    """Where a form that stands on every page came from."""
    return local_target(form.get("back", "") or urlsplit(request.headers.get("referer", "")).path)


def _address(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _status(error: Exception) -> int:
    kinds = ((InvalidName, 422), (WeakPassword, 422), (NotFound, 404), (Exists, 409), (Refused, 409))
    return next((status for kind, status in kinds if isinstance(error, kind)), 503)


def _read(name: str) -> tuple[bytes, str, str]:
    with open(os.path.join(HERE, "static", name), "rb") as file:
        content = file.read()
    version = base64.b32encode(hashlib.sha256(content).digest())[:10].decode().lower()
    return content, version, KINDS[os.path.splitext(name)[1]]
