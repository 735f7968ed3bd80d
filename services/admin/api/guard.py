"""The API's door: who asks, for every route; and every error as `{"error": "a sentence"}` with the right status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from services.admin.access import Access, Actor, Denied
from services.admin.peers import PeerAway, PeerSaid
from services.admin.sessions import COOKIE
from services.directory.addresses import InvalidName
from services.directory.database import DatabaseUnusable
from services.directory.errors import Closed, Exists, NotFound, NotPublished, Refused
from services.directory.passwords import WeakPassword
from services.directory.publish import PublicationFailed

FORM_TOKEN_HEADER = "x-form-token"  # noqa: S105 - a header's name
STATUS: Sequence[tuple[type[Exception], int]] = (
    (InvalidName, 422),
    (WeakPassword, 422),
    (NotFound, 404),
    (Exists, 409),
    (Refused, 409),
    (Closed, 503),
    (NotPublished, 503),
    (PublicationFailed, 503),
    (PeerAway, 503),
)
# For the description (OpenAPI): what any route may answer.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}},
    }
    for status, text in {
        400: "Not a request that can be read: a body that is no JSON",
        401: "Not logged in",
        403: "Not an administrator",
        404: "Not there",
        409: "Not possible as things are",
        413: "A body of more than 64 KiB",
        421: "Opened under a name that is not ours (ADMIN_HOSTS)",
        422: "A wrong argument",
        429: "Too many wrong passwords",
        500: "A fault of ours, recorded under the id in the text",
        502: "A room gave an answer that makes no sense here",
        503: "A room that is needed is away, the disk is full, or an update is under way; nothing is half done",
    }.items()
}

Actors = Callable[[Request], Awaitable[Actor]]


def actors(access: Access) -> Actors:
    """A dependency that gives who asks, or raises Denied."""

    async def actor(request: Request) -> Actor:
        peer = request.client.host if request.client else ""
        if authorization := request.headers.get("authorization"):
            return await access.by_header(authorization, peer)
        found = await access.by_session(request.cookies.get(COOKIE, ""), peer)
        if found is None or found.session is None:
            raise Denied(401, "log in with an administrator's address and password")
        if not found.administrator:
            raise Denied(403, f"{found.name} is no administrator")
        given = request.headers.get(FORM_TOKEN_HEADER, "")
        # A cookie alone says that the browser was here before, not that its owner wanted this.
        if request.method not in ("GET", "HEAD") and not found.session.is_form_token(given):
            raise Denied(403, f"a change with the page's cookie needs the header {FORM_TOKEN_HEADER}")
        return found

    return actor


def answer_errors(app: FastAPI) -> None:
    """Give every known error its status and sentence. Unknown ones are `app.py`'s."""

    async def denied(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Denied)
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        if error.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Mailstead", charset="UTF-8"'
        return JSONResponse({"error": str(error)}, error.status, headers)

    async def wrong(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"error": "; ".join(_complaint(each) for each in error.errors())[:1000]}, 422)

    async def peer_said(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PeerSaid)
        return JSONResponse({"error": str(error)}, error.status if error.status in (400, 404, 409, 422) else 502)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # RFC 9110 §10.2.1: all methods of the resource; starlette names those of the first route with this path.
            headers["Allow"] = ", ".join(sorted(_methods(request)))
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers)

    async def disk(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": f"the database cannot be used: {error}; nothing was changed"}, 503)

    app.add_exception_handler(Denied, denied)
    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(PeerSaid, peer_said)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(DatabaseUnusable, disk)
    for kind, status in STATUS:
        app.add_exception_handler(kind, _told(status))


def _told(status: int) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def handler(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status)

    return handler


def _methods(request: Request) -> set[str]:
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return found


def _complaint(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error.get("loc", ())[1:])  # the first says body, query or path
    return f"{where}: {error.get('msg', 'wrong')}" if where else str(error.get("msg", "wrong"))
