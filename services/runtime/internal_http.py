"""HTTP/1.1 between rooms: a few JSON endpoints behind the secret that the pair of rooms shares.

Every room serves `GET /health` openly (state, no facts about mail) and its own routes to the rooms named for each.
Header `Mailstead-Version` lets version N talk with N-1; an unknown major version is refused with 426. h11 parses; this
module adds limits, time-outs and the log-in. It never serves the outside world: admin's page is FastAPI, elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import h11

from services.runtime import disk
from services.runtime.events import new_trace_id
from services.runtime.listener import Listener, bind
from services.runtime.secrets import SecretMissing, Secrets

if TYPE_CHECKING:
    from services.runtime.process import Context

VERSION = 1
IDLE_SECONDS = 75  # a peer keeps its connection between requests at least this long
REQUEST_SECONDS = 30  # from the first header byte to the last body byte
HEADER_BYTES = 32 * 1024
MAX_BODY = 1 << 20
MAX_CONNECTIONS = 128
READ_BYTES = 1 << 16


class PeerUnavailable(Exception):
    """The other room did not answer: not there, too slow, or the connection broke. Try again later."""


class PeerRefused(Exception):
    """The other room answered with an error; `.response` is its answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status}: {response.body[:300].decode('utf-8', 'replace')}")
        self.response = response


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are lower-case; `room` is who asked, `peer` the address it came from."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    room: str
    params: dict[str, str] = field(default_factory=dict)
    peer: str = ""

    def json(self) -> Any:
        """The body as JSON; raises BadRequest."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise BadRequest("the body is not JSON") from None


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"

    @classmethod
    def of(cls, value: object, status: int = 200) -> Response:
        """`value` as JSON."""
        return cls(status, json.dumps(value, separators=(",", ":")).encode())

    @classmethod
    def error(cls, status: int, why: str) -> Response:
        """`{"error": why}`."""
        return cls.of({"error": why}, status)

    def json(self) -> Any:
        """The body as JSON; raises ValueError."""
        return json.loads(self.body)


class BadRequest(Exception):
    """A handler's word for 400; its text is told to the peer."""


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    handler: Handler
    allow: frozenset[str]
    max_body: int


class Routes:
    """Method and path to handler, with the rooms that may ask."""

    def __init__(self) -> None:
        self._routes: list[_Route] = []

    def add(self, method: str, path: str, handler: Handler, *, allow: Iterable[str], max_body: int = MAX_BODY) -> None:
        """`path` may hold `{name}` for one segment, given unquoted in `Request.params`."""
        pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))
        self._routes.append(_Route(method, pattern, handler, frozenset(allow), max_body))

    def find(self, method: str, path: str) -> tuple[_Route, dict[str, str]] | int:
        """The route and its parameters, or the status that says why there is none (404, 405)."""
        status = 404
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match and route.method == method:
                return route, {name: unquote(value) for name, value in match.groupdict().items()}
            if match:
                status = 405
        return status


class _Service:
    """Serves one room's routes."""

    def __init__(self, context: Context, routes: Routes) -> None:
        self.context, self.routes = context, routes
        self.writers: set[asyncio.StreamWriter] = set()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.writers) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self.writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (TimeoutError, OSError, h11.ProtocolError):
            pass  # the peer went away or does not speak HTTP: its own affair
        except asyncio.CancelledError:
            pass  # the room ends; Python 3.11's streams would print a traceback for a cancelled connection
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        while True:
            request = await _next_event(connection, reader, IDLE_SECONDS)
            if not isinstance(request, h11.Request):
                return
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await self._answer(connection, reader, writer, request)
            await _send_response(connection, writer, response, head=request.method == b"HEAD")
            if connection.our_state is h11.MUST_CLOSE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: h11.Request,
    ) -> Response:
        method = request.method.decode("ascii")
        target = urlsplit(request.target.decode("ascii", "replace"))
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
        if target.path == "/health" and method in ("GET", "HEAD"):
            health = self.context.health
            return Response.of(health.report(), 200 if health.healthy else 503)
        found = self.routes.find(method, target.path)
        room = self._authenticated(headers)
        if not room:
            return Response.error(401, "the secret of the two rooms is missing or wrong")
        if isinstance(found, int):
            return Response.error(found, f"no {method} {target.path}")
        route, params = found
        if room not in route.allow:
            return Response.error(403, f"{room} may not ask this")
        if headers.get("mailstead-version", "1") not in (str(VERSION), str(VERSION - 1)):
            return Response.error(426, f"this room speaks version {VERSION}")
        if connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            writer.write(connection.send(go_on) or b"")
        body = await _body(connection, reader, route.max_body)
        if body is None:
            return Response.error(413, f"more than {route.max_body} bytes")
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        address = writer.get_extra_info("peername")
        peer = str(address[0]) if isinstance(address, tuple) else ""
        return await self._handled(route, Request(method, target.path, query, headers, body, room, params, peer))

    async def _handled(self, route: _Route, request: Request) -> Response:
        try:
            return await route.handler(request)
        except BadRequest as error:
            return Response.error(400, str(error))
        except Exception as error:
            bug = new_trace_id()
            self.context.bug(bug, error, f"{request.method} {request.path}")
            if disk.is_full(error):
                return Response.error(507, "the disk is full")
            return Response.error(500, f"internal error {bug}")

    def _authenticated(self, headers: dict[str, str]) -> str:
        """The asking room's name when it knows the pair's secret, else ""."""
        room = headers.get("mailstead-room", "")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        try:
            secret = self.context.secrets.pair(self.context.room, room) if re.fullmatch(r"[a-z-]{1,20}", room) else ""
        except SecretMissing:
            return ""
        matches = secret and hmac.compare_digest(given.strip().encode("latin-1", "replace"), secret.encode())
        return room if matches and scheme.lower() == "bearer" else ""


async def serve_http(context: Context, routes: Routes, address: str | None = None) -> Listener:
    """Serve `routes` on `address` (default: the room's `http_listen`)."""
    service = _Service(context, routes)
    sockets = bind(address or context.settings.http_listen)
    servers = [await asyncio.start_server(service.connection, sock=each, limit=READ_BYTES) for each in sockets]
    return Listener(servers, sockets[0].getsockname()[1])


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader, seconds: float) -> Any:
    """The next h11 event; waits at most `seconds` for each piece."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        async with asyncio.timeout(seconds):
            connection.receive_data(await reader.read(READ_BYTES))
    return event


async def _body(connection: h11.Connection, reader: asyncio.StreamReader, limit: int) -> bytes | None:
    """The message's body, or None past `limit` bytes; raises EOFError-like OSError when the peer goes away."""
    pieces: list[bytes] = []
    size = 0
    while True:
        event = await _next_event(connection, reader, REQUEST_SECONDS)
        if isinstance(event, h11.Data):
            size += len(event.data)
            if size > limit:
                return None
            pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return b"".join(pieces)
        else:
            raise ConnectionResetError("the peer closed in the middle of a message")


async def _send_response(
    connection: h11.Connection, writer: asyncio.StreamWriter, response: Response, *, head: bool
) -> None:
    headers = [("Content-Type", response.content_type), ("Content-Length", str(len(response.body)))]
    headers.append(("Mailstead-Version", str(VERSION)))
    start = connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
    body = b"" if head else connection.send(h11.Data(data=response.body)) or b""
    writer.write(start + body + (connection.send(h11.EndOfMessage()) or b""))  # one write: no 40 ms of Nagle
    await writer.drain()


@dataclass(slots=True)
class _Line:
    """One kept connection to a peer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: h11.Connection


class Client:
    """Asks one other room; keeps up to `keep` connections open between requests."""

    def __init__(self, room: str, secrets: Secrets, peer: str, url: str, *, timeout: float = 10, keep: int = 4) -> None:
        """`room` is ours, `peer` the other's name; `timeout` bounds a whole request in seconds."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._room, self._secrets, self._peer, self._timeout, self._keep = room, secrets, peer, timeout, keep
        self._idle: list[_Line] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request; a 4xx or 5xx answer raises PeerRefused, no answer PeerUnavailable."""
        target = path + ("?" + urlencode(query) if query else "")
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._exchange(method, target, body, headers or {})
        except (OSError, TimeoutError, h11.ProtocolError, SecretMissing) as error:
            raise PeerUnavailable(
                f"{self._peer} at {self._host}:{self._port}: {error or 'no answer in time'}"
            ) from None
        if response.status >= 400:
            raise PeerRefused(response)
        return response

    async def post(self, path: str, value: object) -> Response:
        """POST `value` as JSON."""
        return await self.request("POST", path, body=json.dumps(value, separators=(",", ":")).encode())

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().writer.close()

    async def _exchange(self, method: str, target: str, body: bytes, extra: dict[str, str]) -> Response:
        while self._idle:
            line = self._idle.pop()
            if line.reader.at_eof() or line.writer.is_closing():
                line.writer.close()
                continue
            try:
                return await self._on(line, method, target, body, extra)
            except (OSError, h11.ProtocolError):
                # The peer closed the kept connection as we wrote (it restarts, or it was idle too long). Our requests
                # are idempotent by design, so once more on a fresh one is safe.
                break
        return await self._on(await self._connect(), method, target, body, extra)

    async def _connect(self) -> _Line:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=READ_BYTES)
        return _Line(reader, writer, h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_BYTES))

    async def _on(self, line: _Line, method: str, target: str, body: bytes, extra: dict[str, str]) -> Response:
        kept = False
        try:
            line.writer.write(self._encoded(line.protocol, method, target, body, extra))
            await line.writer.drain()
            response = await _next_event(line.protocol, line.reader, self._timeout)
            while isinstance(response, h11.InformationalResponse):
                response = await _next_event(line.protocol, line.reader, self._timeout)
            if not isinstance(response, h11.Response):
                raise ConnectionResetError("the peer closed before it answered")
            answer = await _body(line.protocol, line.reader, 64 << 20)
            if answer is None:
                raise ConnectionResetError("the answer is too large")
            kinds = [value for name, value in response.headers if name == b"content-type"]
            if line.protocol.our_state is h11.DONE and line.protocol.their_state is h11.DONE:
                line.protocol.start_next_cycle()
                kept = len(self._idle) < self._keep
            return Response(response.status_code, answer, kinds[0].decode("latin-1") if kinds else "")
        finally:
            if kept:
                self._idle.append(line)
            else:
                line.writer.close()

    def _encoded(self, protocol: h11.Connection, method: str, target: str, body: bytes, extra: dict[str, str]) -> bytes:
        headers = [
            ("Host", self._host or "localhost"),
            ("Authorization", f"Bearer {self._secrets.pair(self._room, self._peer)}"),
            ("Mailstead-Room", self._room),
            ("Mailstead-Version", str(VERSION)),
            ("Content-Length", str(len(body))),
            *extra.items(),
        ]
        request = h11.Request(method=method, target=quote(target, safe="/?&=%:@+,;~!$'()*[]"), headers=headers)
        pieces = [protocol.send(request), protocol.send(h11.Data(data=body)), protocol.send(h11.EndOfMessage())]
        return b"".join(piece or b"" for piece in pieces)


@contextlib.asynccontextmanager
async def serving(context: Context, routes: Routes, address: str | None = None) -> Any:
    """`serve_http` as a context manager; for rooms that only serve, and for tests."""
    listener = await serve_http(context, routes, address)
    try:
        yield listener
    finally:
        listener.close()
