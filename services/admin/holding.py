"""Holding the stack for an update: the rooms that face the world, and the directory, are closed and opened together.

admin has a hold of its own (`runtime/hold.py`: a lease, over restarts too) and passes each on to smtp-in, smtp-out and
imap. A room that does not answer (it is just being replaced) is asked again until it does: its successor starts held
by what lies in its own folder, but would not hear of the end. After a restart of admin every room is asked anew, since
the address that is exempt is the one that asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from services.admin.peers import PeerAway, Peers, PeerSaid
from services.runtime.hold import MOST_SECONDS, Hold
from services.runtime.process import Context

ROOMS = ("smtp-in", "smtp-out", "imap")
ASK_SECONDS = 3.0  # a room that is being replaced must not hold up the others
RETRY_SECONDS = 1.0
CLOSED = "an update is running: nothing can be changed until it is over; try again in a minute"


class Holding:
    """Holds and releases; its task is `run`."""

    def __init__(self, context: Context, hold: Hold, peers: Peers, account: Callable[[], Awaitable[str]]) -> None:
        """`account` gives the mail gate's, whose letters are let through."""
        self._context, self._hold, self._peers, self._account = context, hold, peers, account
        # Room → the id that it is still to be released from, or None where it is still to be held.
        self._owed: dict[str, str | None] = dict.fromkeys(ROOMS) if hold.lease else {}
        self._until = 0.0  # a release is owed no longer than a lease can run
        self._wake = asyncio.Event()

    def closed(self) -> str:
        """Why the directory cannot be changed now; "" where it can."""
        return CLOSED if self._hold.lease else ""

    @property
    def held(self) -> str:
        """The id of the update that everything is held for; "" without one."""
        lease = self._hold.lease
        return lease.id if lease else ""

    async def close_directory(self, identity: str, seconds: float) -> None:
        """Close the directory alone: the first thing that an update does. Raises OSError."""
        await self._hold.take(identity, seconds)

    async def hold(self, identity: str, seconds: float) -> dict[str, list[str]]:
        """Close everything, or renew that. `held` and `away` name the rooms. Raises OSError."""
        if not await self._hold.take(identity, seconds):
            return {"held": [], "away": []}  # a late question: the update is over
        return await self._everywhere(None)

    async def ask_again(self) -> dict[str, list[str]]:
        """Tell every room once more where the gate comes from."""
        return await self._everywhere(None)

    async def release(self, identity: str) -> dict[str, list[str]]:
        """Open everything that is held for `identity`. `released` and `away` name the rooms."""
        await self._hold.release(identity)
        self._until = asyncio.get_running_loop().time() + MOST_SECONDS
        answer = await self._everywhere(identity)
        return {"released": answer["held"], "away": answer["away"]}

    async def run(self) -> None:
        """Ask the rooms that did not answer again, until cancelled."""
        while True:
            if not self._owed:
                self._wake.clear()
                await self._wake.wait()
            await asyncio.sleep(RETRY_SECONDS)
            for room, identity in list(self._owed.items()):
                over = identity is None and not self._hold.lease
                late = identity is not None and asyncio.get_running_loop().time() > self._until
                done = over or late or await self._told(room, identity)
                # Something else may have become due meanwhile.
                if done and self._owed.get(room, identity) == identity:
                    self._owed.pop(room, None)

    async def _everywhere(self, identity: str | None) -> dict[str, list[str]]:
        self._owed = {}
        told = await asyncio.gather(*(self._told(room, identity) for room in ROOMS))
        away = [room for room, answered in zip(ROOMS, told, strict=True) if not answered]
        self._owed = dict.fromkeys(away, identity)
        self._wake.set()
        return {"held": [room for room in ROOMS if room not in away], "away": away}

    async def _told(self, room: str, identity: str | None) -> bool:
        path, value = "/v1/release", dict[str, Any](id=identity)
        if identity is None:
            lease = self._hold.lease
            if lease is None:
                return True
            path, value = "/v1/hold", {"id": lease.id, "seconds": self._hold.left(), "account": await self._account()}
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await self._peers.ask(room, "POST", path, value)
        except (PeerAway, PeerSaid, TimeoutError) as error:
            self._context.log("debug", f"{room} did not take {path}: {error or 'no answer in time'}")
            return False
        return True
