"""How everything is: asks every room at once and says in one sentence whether mail flows.

For the home page, the API and `mailstead status`. `verdict` is pure; `Overview.now` gathers what it needs, with short
time-outs, and never raises for a room that is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from services.admin.duties import Duties
from services.admin.operations import Operations
from services.admin.peers import PeerAway, Peers, PeerSaid, RoomHealth
from services.admin.phrases import say
from services.admin.text import _, ngettext
from services.directory.quotas import level
from services.runtime.process import Context

# Without any of these mail stands still; the others keep it going for a while.
CARRYING = ("smtp-in", "smtp-out", "imap", "dkim")
QUEUE_SHOWN = 1000
LATE_SECONDS = 3600.0
EXPIRY_DAYS = 7


def verdict(
    rooms: Sequence[RoomHealth],
    *,
    waiting: int = 0,
    oldest: float = 0.0,
    expires_in: float | None = None,
    held: bool = False,
) -> tuple[str, str]:
    """(`ok` | `trouble` | `down`, one sentence). `waiting`: messages in the queue, the `oldest` that many seconds old;
    `expires_in`: seconds until the certificate ends; `held`: an update is under way, and its rooms may well be away."""
    if held:
        return "trouble", _("Mail waits outside for an update.")
    gone = [room for room in rooms if room.room in CARRYING and room.state in ("away", "starting")]
    if starting := [room.room for room in gone if room.state == "starting"]:
        return "down", _("Mail does not flow yet, still starting: {rooms}.").format(rooms=", ".join(starting))
    if gone:
        names = ", ".join(room.room for room in gone)
        return "down", _("Mail does not flow, no answer from: {rooms}.").format(rooms=names)
    failing = [(room.room, why) for room in rooms for why in room.problems or _odd(room)]
    if failing:
        room, why = failing[0]
        sentence = _("Mail flows, but {room} is not well: {why}.").format(room=room, why=say(why.rstrip(".")))
        if len(failing) > 1:
            more = len(failing) - 1
            sentence += " " + ngettext(
                "{count} more problem is listed below.", "{count} more problems are listed below.", more
            ).format(count=more)
        return "trouble", sentence
    if expires_in is not None and expires_in <= 0:
        return "trouble", _("Mail flows, but the certificate has ended: clients complain.")
    if expires_in is not None and expires_in < EXPIRY_DAYS * 86_400:
        hours = int(expires_in / 3600)
        ends = ngettext(
            "Mail flows, but the certificate ends in {hours} hour.",
            "Mail flows, but the certificate ends in {hours} hours.",
            hours,
        )
        return "trouble", ends.format(hours=hours)
    if waiting and oldest > LATE_SECONDS:
        hours = int(oldest / 3600)
        time_waited = ngettext("{count} hour", "{count} hours", hours).format(count=hours)
        sentence = ngettext(
            "Mail flows, but {count} message waits to be sent, the oldest for {time}.",
            "Mail flows, but {count} messages wait to be sent, the oldest for {time}.",
            waiting,
        )
        return "trouble", sentence.format(count=_count(waiting), time=time_waited)
    if waiting:
        sentence = ngettext(
            "Mail flows: every service is well; {count} message is being sent.",
            "Mail flows: every service is well; {count} messages are being sent.",
            waiting,
        )
        return "ok", sentence.format(count=_count(waiting))
    return "ok", _("Mail flows: every service is well, and nothing waits.")


class Overview:
    """Gathers."""

    def __init__(
        self, context: Context, operations: Operations, duties: Duties, peers: Peers, held: Callable[[], str]
    ) -> None:
        """Asks nothing before `now`. `held` gives the id of the update that mail waits for, "" without one."""
        self._context, self._operations, self._duties, self._peers = context, operations, duties, peers
        self._held = held

    async def now(self) -> dict[str, Any]:
        """Everything that `status` shows."""
        rooms, queue, certificate, report, accounts, domains = await asyncio.gather(
            self._peers.every_health(),
            self._or_why("smtp-out", "/v1/queue", {"limit": str(QUEUE_SHOWN)}),
            self._or_why("acme", "/v1/status"),
            self._or_why("updater", "/v1/report"),
            self._operations.accounts(),
            self._operations.domains(),
        )
        own = RoomHealth("admin", "ok", dict(self._context.health.parts))
        rooms = sorted([*rooms, own], key=lambda room: (room.room not in CARRYING, room.room))
        messages = queue.get("messages", []) if isinstance(queue, dict) else []
        now = self._context.clock()
        oldest = max((now - float(message.get("created", now)) for message in messages), default=0.0)
        ends = certificate.get("not_after") if isinstance(certificate, dict) else None
        expires_in = float(ends) - now if isinstance(ends, int | float) and ends else None
        state, sentence = verdict(
            rooms, waiting=len(messages), oldest=oldest, expires_in=expires_in, held=bool(self._held())
        )
        return {
            "state": state,
            "sentence": sentence,
            "rooms": [
                {"room": room.room, "state": _state(room), "problems": room.problems or _odd(room)} for room in rooms
            ],
            "queue": {"messages": len(messages), "oldest_seconds": int(oldest), "error": queue.get("error", "")},
            "certificate": certificate,
            "updates": report,
            "accounts": len(accounts),
            "full": [
                {"address": each.account.address, "percent": each.used_bytes * 100 // each.account.quota_bytes}
                for each in accounts
                if each.used_bytes is not None and level(each.used_bytes, each.account.quota_bytes)
            ],
            "domains": [domain.name for domain in domains],
            "owed": self._duties.problem,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        }

    async def _or_why(self, room: str, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(3):
                answer = await self._peers.ask(room, "GET", path, query=query)
        except (PeerAway, PeerSaid, TimeoutError) as error:
            return {"error": str(error) or f"{room} does not answer"}
        return answer if isinstance(answer, dict) else {"error": f"{room} gave an odd answer"}


def _state(room: RoomHealth) -> str:
    return "failing" if room.problems and room.state == "ok" else room.state


def _odd(room: RoomHealth) -> list[str]:
    return [] if room.state == "ok" else [f"it is {room.state}"]


def _count(messages: int) -> str:
    return f"{QUEUE_SHOWN - 1}+" if messages >= QUEUE_SHOWN else str(messages)
