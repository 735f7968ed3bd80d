"""Tells imap which files are new, so that a client in IDLE hears of them at once.

Off the reply's path: `add` only remembers, a task posts what has come together. A hint that is lost is no loss: imap
watches the folders and rescans. Never waits for imap, never keeps more than `MOST`.
"""

from __future__ import annotations

import asyncio

from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable

MOST = 5_000  # of a few hundred octets each; beyond, a rescan is cheaper than the list
BATCH = 500
# After a post the next waits this long: under load twenty requests a second carry everything, and the first of a quiet
# time goes at once.
PAUSE = 0.05
# imap restarts: it rescans when it is back, so that hints in between need not be kept.
AWAY_PAUSE = 1.0


class Hints:
    """`client` talks to imap; `pause` and `away_pause` are seconds."""

    def __init__(self, client: Client, *, pause: float = PAUSE, away_pause: float = AWAY_PAUSE) -> None:
        """Nothing to tell yet; `run` tells."""
        self._client = client
        self._pause, self._away_pause = pause, away_pause
        self._waiting: list[dict[str, str]] = []
        self._wake = asyncio.Event()
        self.lost = 0

    def __len__(self) -> int:
        """How many wait to be told."""
        return len(self._waiting)

    def add(self, account: str, mailbox: str, name: str) -> None:
        """A file `name` is new in `mailbox` of `account`."""
        if len(self._waiting) >= MOST:
            self.lost += 1
            return
        self._waiting.append({"account": account, "mailbox": mailbox, "name": name})
        self._wake.set()

    async def run(self) -> None:
        """Tell imap until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._pause if await self.flush() else self._away_pause)

    async def flush(self) -> bool:
        """Tell imap what waits; False when it did not listen."""
        self._wake.clear()
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                await self._client.post("/v1/hint", {"items": batch})
            except (PeerUnavailable, PeerRefused):
                self.lost += len(batch) + len(self._waiting)
                self._waiting.clear()
                return False
        return True
