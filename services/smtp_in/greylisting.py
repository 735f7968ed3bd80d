"""Greylisting in this room: the decision of `policy/greylist` over the rows of `storage/intake_store`, in a thread.

One thread and one connection a process; off (GREYLIST=no) nothing is opened. Whatever goes wrong with the file, nobody
waits for it: a letter is then taken as if its sender were known, and the log says so once an hour.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from services.policy import greylist
from services.policy.greylist import Finding, Rules, Seen
from services.policy.verdict import Reason
from services.runtime.process import Context
from services.storage.errors import StorageError
from services.storage.intake_store import IntakeStore, Row

FILE = "intake.db"
COMPLAIN_SECONDS = 3600.0


class Greylist:
    """What one process asks; made only where GREYLIST=yes."""

    def __init__(self, context: Context) -> None:
        """Nothing is opened yet."""
        self._context = context
        self._rules = Rules.of(context.settings.greylist_seconds)
        self._thread = ThreadPoolExecutor(1, "greylist")
        self._store: IntakeStore | None = None
        self._complained = float("-inf")

    async def wait(self, client: str, sender: str, helo: str, recipient: str, *, spf_pass: bool) -> Reason | None:
        """Why this sender has to come back later; None: not at all. Remembers that it tried."""
        work = partial(self._tried, client, sender, helo, recipient, spf_pass)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def delivered(self, domain: str) -> None:
        """A message of `domain` came with SPF pass and is in a mailbox: its next sender does not wait."""
        self._thread.submit(self._delivered, domain)

    async def close(self) -> None:
        """End the thread and let go of the file."""

        def end() -> None:
            if self._store is not None:
                self._store.close()
                self._store = None

        await asyncio.get_running_loop().run_in_executor(self._thread, end)
        self._thread.shutdown()

    # --- in the thread

    def _tried(self, client: str, sender: str, helo: str, recipient: str, spf_pass: bool) -> Reason | None:
        now = self._context.clock()
        keys = greylist.keys(client, sender, helo, recipient, spf_pass=spf_pass)
        found: list[Finding] = []

        def decide(rows: list[Row | None]) -> list[Row]:
            seen, elsewhere = (Seen(*row) if row else None for row in rows)
            found.append(greylist.judge(seen, elsewhere, now, self._rules))
            return [found[0].keep, found[0].keep if spf_pass else found[0].keep_elsewhere]

        try:
            store = self._open()
            if spf_pass and store.known(keys[0].who, now):
                return None
            store.tried(keys, decide, now)
        except (StorageError, OSError) as error:
            self._complain(error, now)
            return None
        return found[0].reason

    def _delivered(self, domain: str) -> None:
        now = self._context.clock()
        try:
            self._open().delivered(domain, now)
        except (StorageError, OSError) as error:
            self._complain(error, now)

    def _open(self) -> IntakeStore:
        if self._store is None:
            path = os.path.join(self._context.settings.room_dir, FILE)
            rules = self._rules
            self._store = IntakeStore(path, forget_try=rules.forget_try, forget_known=rules.forget_sender)
        return self._store

    def _complain(self, error: Exception, now: float) -> None:
        if not 0 <= now - self._complained < COMPLAIN_SECONDS:
            self._complained = now
            self._context.log("error", f"greylisting does without its file: {error}")
