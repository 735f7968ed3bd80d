"""Asking the other rooms: JSON over the internal HTTP, with errors in the owner's words.

Every request has a short timeout: a page that waits for a dead room tells nobody anything.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable
from services.runtime.process import Context

ROOMS = ("smtp-in", "smtp-out", "imap", "dkim", "acme", "updater")
SECONDS = 10.0
_SECONDS = {"updater": 28.0}  # a plan asks registries; a room gives up after 30
HEALTH_SECONDS = 3.0


class PeerAway(Exception):
    """The room does not answer."""


class PeerSaid(Exception):
    """The room answered with an error: `status`, and its words as the text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class RoomHealth:
    """`state`: ok, starting, failing or away; `parts` says what is wrong where."""

    room: str
    state: str
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence each."""
        return [f"{part}: {why}" if part else why for part, why in self.parts.items() if why]


class Peers:
    """The clients of this room; one connection or two to each other room."""

    def __init__(self, context: Context) -> None:
        """Connections are opened when they are needed."""
        settings = context.settings
        urls = (
            settings.smtp_in_url, settings.smtp_out_url, settings.imap_url, settings.dkim_url, settings.acme_url,
            settings.updater_url,
        )  # fmt: skip
        self._clients = {
            room: Client(context.room, context.secrets, room, url, timeout=_SECONDS.get(room, SECONDS), keep=2)
            for room, url in zip(ROOMS, urls, strict=True)
        }

    async def ask(
        self, room: str, method: str, path: str, value: object = None, *, query: dict[str, str] | None = None
    ) -> Any:
        """The answer's JSON (None where it has none). Raises PeerAway, PeerSaid."""
        body = b"" if value is None else json.dumps(value).encode()
        return await self._exchange(room, method, path, body, query, None)

    async def send(
        self, room: str, path: str, body: bytes, *, query: dict[str, str], headers: dict[str, str] | None = None
    ) -> Any:
        """POST bytes; the answer's JSON. Raises PeerAway, PeerSaid."""
        return await self._exchange(room, "POST", path, body, query, headers)

    async def put(self, room: str, path: str, body: bytes) -> Any:
        """PUT bytes; the answer's JSON. Raises PeerAway, PeerSaid."""
        return await self._exchange(room, "PUT", path, body, None, None)

    async def _exchange(
        self,
        room: str,
        method: str,
        path: str,
        body: bytes,
        query: dict[str, str] | None,
        headers: dict[str, str] | None,
    ) -> Any:
        try:
            answer = await self._clients[room].request(method, path, body=body, query=query, headers=headers)
            return answer.json() if answer.body else None
        except PeerUnavailable as error:
            raise PeerAway(f"{room} does not answer: {error}") from None
        except PeerRefused as error:
            raise PeerSaid(error.response.status, f"{room}: {_words(error)}") from None
        except ValueError:
            raise PeerSaid(502, f"{room} gave an answer that is not JSON") from None

    async def health(self, room: str) -> RoomHealth:
        """How a room is. Never raises."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                answer = await self.ask(room, "GET", "/health")
        except PeerSaid as error:  # 503 carries the same report as 200
            answer = error.args[0].partition(": ")[2]
            try:
                answer = json.loads(answer)
            except ValueError:
                return RoomHealth(room, "failing", {"": str(error)})
        except (PeerAway, TimeoutError) as error:
            return RoomHealth(room, "away", {"": str(error) or f"{room} does not answer"})
        if not isinstance(answer, dict) or not isinstance(answer.get("parts"), dict):
            return RoomHealth(room, "failing", {"": f"{room} gave an odd answer"})
        parts = {str(part): str(why) for part, why in answer["parts"].items()}
        return RoomHealth(room, str(answer.get("state", "failing")), parts)

    async def every_health(self) -> list[RoomHealth]:
        """How all rooms are, asked at once."""
        return list(await asyncio.gather(*(self.health(room) for room in ROOMS)))

    def close(self) -> None:
        """Close what is open."""
        for client in self._clients.values():
            client.close()


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="@")


def _words(error: PeerRefused) -> str:
    """What the peer said: its `error`, else the body as it is."""
    try:
        value = error.response.json()
    except ValueError:
        value = None
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        return str(value["error"])
    return error.response.body[:2000].decode("utf-8", "replace")
