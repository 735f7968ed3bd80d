"""admin's side of an update over the internal HTTP: hold, release, snapshot, settled, gate, result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable
from services.updater.engine import AdminAway, AdminRefused

GATE_SECONDS = 120.0  # two letters through a slow machine


class AdminRoom:
    """`engine.Admin` for the room's client; `result` is for the room, which tells what a run came to."""

    def __init__(self, client: Client) -> None:
        """`client` asks admin; its time-out must leave room for GATE_SECONDS."""
        self._client = client

    async def hold(self, update: str, seconds: int) -> list[str]:
        """See `engine.Admin`."""
        answer = await self._ask("hold", {"id": update, "seconds": seconds})
        return [str(room) for room in answer.get("away", ())]

    async def release(self, update: str) -> None:
        """See `engine.Admin`."""
        await self._ask("release", {"id": update})

    async def snapshot(self, update: str) -> None:
        """See `engine.Admin`."""
        await self._ask("snapshot", {"id": update})

    async def settled(self, update: str, outcome: str) -> None:
        """See `engine.Admin`."""
        await self._ask("settled", {"id": update, "outcome": outcome})

    async def gate(self, update: str) -> str:
        """See `engine.Admin`."""
        answer = await self._ask("gate", {"id": update})
        if answer.get("passed") is True:
            return ""
        failed = [step for step in answer.get("steps", ()) if step.get("reason")]
        return "; ".join(f"{step.get('step')}: {step['reason']}" for step in failed) or "it did not pass"

    async def result(self, entry: Mapping[str, Any]) -> None:
        """Hand over what a run came to; raises AdminAway and AdminRefused."""
        await self._ask("result", entry)

    async def _ask(self, what: str, value: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = (await self._client.post(f"/v1/update/{what}", value)).json()
        except PeerUnavailable as error:
            raise AdminAway(str(error)) from None
        except PeerRefused as error:
            # 5xx: it is starting, or something behind it is away; 4xx: it will not.
            kind = AdminAway if error.response.status >= 500 else AdminRefused
            raise kind(f"admin answered {error}") from None
        except ValueError:
            raise AdminAway("admin's answer is no JSON") from None
        return answer if isinstance(answer, dict) else {}
