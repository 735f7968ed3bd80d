"""The door to the updater: HTTP/1.1 on :2375, one request after the other, each judged by itself.

What is refused here never reaches a rule: a wrong secret, a body where none belongs or that is too large, an upgrade,
an encoding of the transfer. After a refusal the connection closes: what else came on it was meant for another reader.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

import h11

from services.docker_filter import requests
from services.docker_filter.desk import Desk
from services.docker_filter.engine import Answer, EngineUnavailable
from services.docker_filter.requests import Ask, Refused
from services.runtime.events import new_trace_id
from services.runtime.process import Context

MAX_CONNECTIONS = 32  # one asker, who replaces a dozen containers at a time
HEADER_BYTES = 16 * 1024
REQUEST_SECONDS = 10  # from the first octet of a request to its last
IDLE_SECONDS = 75
WRITE_SECONDS = 30
READ_BYTES = 1 << 14
RECORDED_A_MINUTE = 120  # refusals that are recorded one by one: a flood must not push out the record
# Questions are not recorded: they change nothing, and admin's page asks one with every look.
_QUESTIONS = (requests.Version, requests.Ping, requests.Listing, requests.Inspection, requests.Health,
              requests.ImageInspection, requests.Distribution)  # fmt: skip


class Door:
    """Serves the connections of one listener."""

    def __init__(self, context: Context, desk: Desk, secret: str) -> None:
        """`secret` is the pair's."""
        self._context, self._desk = context, desk
        self._expected = f"Bearer {secret}".encode()
        self._open = 0
        self._minute, self._recorded = 0, 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the asker goes or is refused."""
        if self._open >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            visit = _Visit(reader, writer)
            while await self._request(visit):
                pass
        except (TimeoutError, OSError, h11.ProtocolError):
            pass  # the asker went away or does not speak HTTP: its own affair
        except asyncio.CancelledError:
            pass  # the room ends
        finally:
            self._open -= 1
            writer.close()

    async def _request(self, visit: _Visit) -> bool:
        """One request; False when the connection is to be closed."""
        try:
            request = await visit.head()
            if request is None:
                return False
            ask, body = await self._read(visit, request)
        except Refused as refused:
            self._refused(visit, refused)
            await visit.send(_message(refused.status, str(refused)), last=True)
            return False
        except h11.RemoteProtocolError:
            await visit.send(_message(400, "this is not HTTP/1.1"), last=True)
            return False
        return await self._answer(visit, ask, body)

    async def _read(self, visit: _Visit, request: h11.Request) -> tuple[Ask, bytes]:
        given = [value for name, value in request.headers if name == b"authorization"]
        if len(given) != 1 or not hmac.compare_digest(given[0], self._expected):
            raise Refused("the secret of the two containers is missing or wrong", 401)
        names = [name for name, _ in request.headers]
        if {b"upgrade", b"transfer-encoding", b"expect", b"trailer"} & set(names) or names.count(b"host") > 1:
            raise Refused("a header of this request is not allowed")
        ask = requests.read(request.method, request.target)
        length = sum(int(value) for name, value in request.headers if name == b"content-length")
        if length > (requests.LONGEST_BODY if isinstance(ask, requests.Create) else 0):
            raise (
                Refused("the body is too large", 413) if isinstance(ask, requests.Create) else Refused("it has a body")
            )
        return ask, await visit.body()

    async def _answer(self, visit: _Visit, ask: Ask, body: bytes) -> bool:
        try:
            if isinstance(ask, requests.Pull):
                await self._pull(visit, ask)
                return False
            answer = await self._desk.answer(ask, body)
        except Refused as refused:
            self._refused(visit, refused)
            await visit.send(_message(refused.status, str(refused)), last=True)
            return False
        except EngineUnavailable as error:
            answer = _message(502, str(error))
        except Exception as error:
            if isinstance(error, (TimeoutError, OSError, h11.ProtocolError)):
                raise
            bug = new_trace_id()
            self._context.bug(bug, error, type(ask).__name__)
            answer = _message(500, f"internal error {bug}")
        self._done(visit, ask, answer.status)
        return await visit.send(answer)

    async def _pull(self, visit: _Visit, ask: requests.Pull) -> None:
        async with self._desk.pulling(ask.image) as progress:
            await visit.begin(progress.status)
            async for piece in progress.pieces:
                await visit.piece(piece)
            await visit.end()
            self._done(visit, ask, progress.status)

    def _done(self, visit: _Visit, ask: Ask, status: int) -> None:
        if not isinstance(ask, _QUESTIONS):
            outcome = "accept" if status < 400 else "error"
            self._context.events.emit("docker", new_trace_id(), outcome=outcome, asked=visit.asked, status=status)

    def _refused(self, visit: _Visit, refused: Refused) -> None:
        minute = int(self._context.clock() // 60)
        if minute != self._minute:
            self._minute, self._recorded = minute, 0
        self._recorded += 1
        if self._recorded <= RECORDED_A_MINUTE:
            self._context.events.emit(
                "docker",
                new_trace_id(),
                outcome="reject",
                asked=visit.asked,
                reason=str(refused),
                status=refused.status,
            )


class _Visit:
    """One connection of the asker's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
        self.asked = ""

    async def head(self) -> h11.Request | None:
        """The next request, None when there is none any more; raises h11.RemoteProtocolError."""
        if not self._protocol.trailing_data[0]:
            async with asyncio.timeout(IDLE_SECONDS):
                self._protocol.receive_data(await self._reader.read(READ_BYTES))
        async with asyncio.timeout(REQUEST_SECONDS):
            event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        self.asked = f"{event.method.decode('ascii', 'replace')} {event.target.decode('ascii', 'replace')}"[:400]
        return event

    async def body(self) -> bytes:
        """The request's body, whose length its head has said."""
        pieces = []
        async with asyncio.timeout(REQUEST_SECONDS):
            while not isinstance(event := await self._event(), h11.EndOfMessage):
                if not isinstance(event, h11.Data):
                    raise ConnectionResetError("the asker closed in the middle of a request")
                pieces.append(bytes(event.data))
        return b"".join(pieces)

    async def send(self, answer: Answer, *, last: bool = False) -> bool:
        """Send a whole answer; False when the connection is to be closed."""
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
        if last:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=answer.status, headers=headers)
        # An answer to HEAD says its length and has no body.
        body = b"" if self.asked.startswith("HEAD ") else answer.body
        await self._write(head, h11.Data(data=body), h11.EndOfMessage())
        if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
            return False
        self._protocol.start_next_cycle()
        return True

    async def begin(self, status: int) -> None:
        """The head of an answer that comes in pieces."""
        headers = [("Content-Type", "application/json"), ("Connection", "close")]
        await self._write(h11.Response(status_code=status, headers=headers))

    async def piece(self, data: bytes) -> None:
        """A piece; raises OSError when the asker has gone."""
        await self._write(h11.Data(data=data))

    async def end(self) -> None:
        """The end of an answer in pieces."""
        await self._write(h11.EndOfMessage())

    async def _write(self, *events: Any) -> None:
        self._writer.write(b"".join(self._protocol.send(event) or b"" for event in events))
        async with asyncio.timeout(WRITE_SECONDS):
            await self._writer.drain()

    async def _event(self) -> Any:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(await self._reader.read(READ_BYTES))
        return event


def _message(status: int, why: str) -> Answer:
    """An error as Docker words it."""
    return Answer(status, json.dumps({"message": why}).encode())
