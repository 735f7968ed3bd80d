"""The Docker engine on its unix socket: a connection a request, with limits on what it answers and how long it takes.

h11 parses. One request a connection: no answer can belong to another question.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import h11

READ_BYTES = 1 << 16
HEADER_BYTES = 64 * 1024
LONGEST_ANSWER = 8 << 20  # a list of a few hundred containers is 1 MiB
CONNECT_SECONDS = 5
ANSWER_SECONDS = 90  # a registry that hangs is given up by the engine in about 60
QUIET_SECONDS = 300  # between two words of a pull: a large layer is unpacked silently on a slow card
PULL_SECONDS = 3600
LONGEST_PROGRESS = 64 << 20


class EngineUnavailable(Exception):
    """The engine did not answer: not there, too slow, or the connection broke."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The engine's answer, whole."""

    status: int
    body: bytes
    content_type: str = "application/json"

    def json(self) -> Any:
        """The body as JSON; raises EngineUnavailable, since an engine that answers otherwise is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise EngineUnavailable("the engine's answer is not JSON") from None


@dataclass(slots=True)
class Progress:
    """The engine's answer to a pull, in pieces as they come."""

    status: int
    pieces: AsyncIterator[bytes]


class Engine:
    """Asks the engine behind one socket."""

    def __init__(self, socket: str) -> None:
        """`socket` is the path."""
        self._socket = socket

    async def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None,
        *, seconds: float = ANSWER_SECONDS,
    ) -> Answer:  # fmt: skip
        """One request, whole within `seconds`; raises EngineUnavailable. `path` goes out as it is."""
        try:
            async with asyncio.timeout(seconds), self._line(method, path, query, body) as line:
                response = await line.head()
                pieces, size = [], 0
                async for piece in line.body():
                    size += len(piece)
                    if size > LONGEST_ANSWER:
                        raise EngineUnavailable("the engine's answer is too large")
                    pieces.append(piece)
                return Answer(response.status_code, b"".join(pieces), _content_type(response))
        except (OSError, TimeoutError, h11.ProtocolError) as error:
            raise EngineUnavailable(f"the Docker engine did not answer: {error or 'not in time'}") from None

    @contextlib.asynccontextmanager
    async def pull(self, repository: str, tag: str) -> AsyncIterator[Progress]:
        """Pull an image; the engine ends the pull when the connection closes. Raises EngineUnavailable."""
        try:
            async with (
                asyncio.timeout(PULL_SECONDS),
                self._line("POST", "/images/create", {"fromImage": repository, "tag": tag}, None) as line,
            ):
                response = await line.head()
                yield Progress(response.status_code, line.progress())
        except (OSError, TimeoutError, h11.ProtocolError) as error:
            raise EngineUnavailable(f"the Docker engine did not answer: {error or 'not in time'}") from None

    @contextlib.asynccontextmanager
    async def _line(
        self, method: str, path: str, query: Mapping[str, str] | None, body: object
    ) -> AsyncIterator[_Line]:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=READ_BYTES)
        try:
            line = _Line(reader)
            target = path + ("?" + urlencode(query) if query else "")
            content = b"" if body is None else json.dumps(body).encode()
            headers = [("Host", "docker"), ("Connection", "close"), ("Content-Length", str(len(content)))]
            if body is not None:
                headers.append(("Content-Type", "application/json"))
            request = h11.Request(method=method, target=target, headers=headers)
            pieces = (line.protocol.send(each) for each in (request, h11.Data(data=content), h11.EndOfMessage()))
            writer.write(b"".join(piece or b"" for piece in pieces))
            await writer.drain()
            yield line
        finally:
            writer.close()


class _Line:
    """One connection, after the request."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_BYTES)

    async def _event(self) -> Any:
        while (event := self.protocol.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(QUIET_SECONDS):
                self.protocol.receive_data(await self._reader.read(READ_BYTES))
        return event

    async def head(self) -> h11.Response:
        while isinstance(event := await self._event(), h11.InformationalResponse):
            if event.status_code == 101:
                break  # the connection would be another protocol's from here on
        if not isinstance(event, h11.Response):
            raise ConnectionResetError("it closed before it answered")
        return event

    async def body(self) -> AsyncIterator[bytes]:
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise ConnectionResetError("it closed in the middle of an answer")
            yield bytes(event.data)

    async def progress(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self.body():
            size += len(piece)
            if size > LONGEST_PROGRESS:
                raise ConnectionResetError("it says too much")
            yield piece


def _content_type(response: h11.Response) -> str:
    kinds = [value for name, value in response.headers if name == b"content-type"]
    return kinds[0].decode("latin-1") if kinds else "application/json"
