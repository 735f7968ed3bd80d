"""The page and the API as one ASGI application, and the shell around it that every request passes.

The shell checks the Host header (a name that an attacker points at 127.0.0.1 must not open the page: DNS rebinding) and
the Origin of changes, bounds the body, sets the security headers, and turns a fault of ours into a 500 with an id.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.admin.api import accounts, explain, guard, junk, queue, status, trace, updates
from services.admin.hosts import Hosts
from services.admin.parts import Parts
from services.admin.web import views
from services.runtime import disk
from services.runtime.events import new_trace_id
from services.runtime.process import Context

MAX_BODY = 64 * 1024  # the longest form is a few hundred bytes
API = "/api/v1"
# Nothing from elsewhere, nothing inline: what a message's subject or a peer's name brings along is text.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not no-referrer: with it browsers send `Origin: null` with every form (Fetch §3.2), which is a stranger's.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


def build(parts: Parts) -> ASGIApp:
    """The application over this room's parts."""
    app = FastAPI(
        title="Mailstead",
        version="1",
        description="Domains, accounts, aliases, queue and record of one Mailstead stack.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
    )
    for module in (accounts, queue, trace, explain, junk, status, updates):
        app.include_router(module.router(parts), prefix=API)
    guard.answer_errors(app)
    app.add_exception_handler(Exception, _fault(parts.context))
    views.add_to(app, parts)
    return Shell(app, parts.context, Hosts(parts.context.settings))


class Shell:
    """What every request passes on its way in and out."""

    def __init__(self, app: ASGIApp, context: Context, hosts: Hosts) -> None:
        """`hosts` are the names that a request may be for."""
        self._app, self._context, self._hosts = app, context, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", ()), *self._headers(scope, message)]}
            await send(message)

        if problem := self._refusal(scope, headers):
            await _answer(sending, *problem)
            return
        try:
            await self._app(scope, _bounded(receive), sending)
        except Exception as error:
            if started:
                return  # `_fault` has answered and recorded it; starlette raises it once more for the server's log
            self._context.bug(bug := new_trace_id(), error, f"{scope['method']} {scope['path']}")
            await _answer(sending, 500, f"an internal error, recorded as {bug}")

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._hosts.knows(host):
            known = ", ".join(sorted(self._hosts.names))
            return (
                421,
                f"this page is not {host[:100]!r}: open it as one of {known}, or set ADMIN_HOSTS (env/admin.env)",
            )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if scope["method"] not in ("GET", "HEAD") and origin and origin.partition("://")[2] != host:
            return 403, "a change must come from the page itself"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"more than {MAX_BODY} bytes"
        return None

    @staticmethod
    def _headers(scope: Scope, message: Message) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in message.get("headers", ())}
        added = [pair for pair in HEADERS if pair[0] not in given]
        if b"cache-control" not in given:
            added.append((b"cache-control", b"no-store"))
        return added


def _fault(context: Context) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        bug = new_trace_id()
        context.bug(bug, error, f"{request.method} {request.url.path}")
        if disk.is_full(error):
            return JSONResponse({"error": "the disk is full: nothing was changed"}, 507)
        return JSONResponse({"error": f"an internal error, recorded as {bug}"}, 500)

    return answer


def _bounded(receive: Receive) -> Receive:
    """`receive` that ends a body past MAX_BODY, whatever its headers said."""
    size = 0

    async def receiving() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise HTTPException(413, f"more than {MAX_BODY} bytes")
        return message

    return receiving


async def _answer(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
