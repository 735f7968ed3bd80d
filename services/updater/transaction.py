"""Drives one run down the table of `steps`, and back where need be; the journal holds each step before it is taken.

`run` begins one, `recover` ends one that was interrupted. Both leave the house either wholly old or wholly new, the
listeners open, the copy of the directory settled, an entry in the history and no journal; or raise Unsettled, when the
engine or admin could not be reached for long: `recover` is to be called again then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from services.updater import history, steps
from services.updater.engine import (
    AdminAway,
    AdminRefused,
    EngineRefused,
    EngineUnavailable,
    Failed,
    Nothing,
)
from services.updater.journal import Journal
from services.updater.steps import Run
from services.updater.work import Tools, Work

# Undoing and finishing try again for this long in one go: an engine that restarts is back by then.
PATIENCE_SECONDS = 60.0
# A release that admin does not take: the lease ends by itself, sooner than this matters.
RELEASE_SECONDS = 15.0
PAUSE_SECONDS = 0.5

REASONS = (Failed, EngineUnavailable, EngineRefused, AdminAway, AdminRefused, OSError)


class Unsettled(Exception):
    """Undoing or finishing must go on later; the text says what it waits for."""


class Transaction:
    """One run, or the end of one that was interrupted."""

    def __init__(self, journal: Journal, tools: Tools) -> None:
        """`journal` holds at most one run."""
        self._journal, self._tools = journal, tools
        self._entries: list[dict[str, Any]] = []
        self._work = Work(tools, Run(), self._record)
        self._renewal: asyncio.Task[None] | None = None

    async def run(self, identity: str, source: str, services: Sequence[str] | None, *, wait: bool) -> str:
        """A whole run; its outcome. `wait`: nobody asked for it, so the minimum age and the modes count.

        Raises Unsettled, and OSError when not even the journal's first line could be written.
        """
        begin = {"what": "begin", "id": identity, "source": source, "wait": wait}
        self._record({**begin, "services": None if services is None else list(services)})
        for step in steps.BEFORE:
            try:
                self._record({"what": "start", "step": step.name})
                reason = await self._work.do(step.name)
                self._record({"what": "end", "step": step.name, "reason": reason})
            except Nothing as nothing:
                return await self._back(str(nothing), steps.NOTHING)
            except REASONS as error:
                return await self._back(str(error) or repr(error))
            except Exception as error:  # a bug of ours must not leave the house half done
                return await self._back(f"internal error in {step.name}: {error!r}")
            if step.name == "hold":
                self._renewal = asyncio.create_task(self._work.renew())
        try:
            self._record({"what": "commit"})
        except OSError as error:
            return await self._back(f"the journal could not be written: {error}")
        return await self._finish()

    async def recover(self) -> str:
        """End the run that the journal holds; its outcome, "" when there is none. Raises Unsettled."""
        try:
            entries = self._journal.read()
            run = steps.told(entries)
        except (KeyError, TypeError, ValueError):
            raise Unsettled("the journal cannot be understood: a newer version wrote it") from None
        if not run.id:
            self._journal.remove()
            return ""
        self._entries = entries
        self._work.run = run
        if run.closed():
            self._renewal = asyncio.create_task(self._work.renew())
        try:
            if run.committed:
                return await self._finish()
            if run.outcome:
                return await self._back(run.back, run.outcome)
            return await self._back(f"the updater was stopped during {run.step or 'its start'}")
        finally:
            await self._stop_renewing()

    # --- the two ways to the end ------------------------------------------------------------------------------------
    async def _back(self, reason: str, outcome: str = "") -> str:
        """Undo what was begun, the last first."""
        run = self._work.run
        outcome = outcome or (steps.ROLLED_BACK if run.touched else steps.FAILED)
        if not run.outcome:
            self._note({"what": "back", "reason": reason, "outcome": outcome})
        for name in self._work.run.to_undo():
            remark = await self._surely(name, self._work.undo, "undoing")
            self._note({"what": "undone", "step": name, "reason": remark})
            if name == "hold":
                await self._stop_renewing()
        return await self._end(outcome, reason)

    async def _finish(self) -> str:
        """Do what follows the commit."""
        for name in self._work.run.to_finish():
            self._note({"what": "start", "step": name})
            remark = await self._surely(name, self._work.do, "after the commit,")
            self._note({"what": "end", "step": name, "reason": remark})
            if name == "release":
                await self._stop_renewing()
        return await self._end(steps.COMMITTED, "")

    async def _surely(self, name: str, action: Any, doing: str) -> str:
        """`action(name)` until it succeeds; raises Unsettled after PATIENCE_SECONDS of trying."""
        clocks = self._tools.clocks
        started, pause = clocks.steady(), PAUSE_SECONDS
        while True:
            try:
                return str(await action(name))
            except AdminRefused as error:
                return f"admin refused: {error}"  # asking again would not change it
            except REASONS as error:
                waited = clocks.steady() - started
                if name in ("hold", "release") and isinstance(error, AdminAway) and waited >= RELEASE_SECONDS:
                    return f"the hold ends by itself: {error}"
                if waited >= PATIENCE_SECONDS:
                    raise Unsettled(f"{doing} {name}: {error}") from error
            await clocks.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _end(self, outcome: str, reason: str) -> str:
        now = self._tools.clocks.now()
        try:
            history.add(self._tools.folder, history.entry_of(self._work.run, outcome, reason, now))
            self._journal.remove()
        except OSError as error:
            raise Unsettled(f"the history could not be written: {error}") from error
        return outcome

    # --- the journal ------------------------------------------------------------------------------------------------
    def _record(self, entry: dict[str, Any]) -> None:
        """Write `entry` durably, then count with it. Raises OSError."""
        self._journal.append(entry)
        self._count({"at": self._tools.clocks.now(), **entry})

    def _note(self, entry: dict[str, Any]) -> None:
        """`_record` on the way to the end: a full disk must not stop it, and every step there may be repeated."""
        with contextlib.suppress(OSError):
            self._journal.append(entry)
        self._count({"at": self._tools.clocks.now(), **entry})

    def _count(self, entry: dict[str, Any]) -> None:
        self._entries.append(entry)
        self._work.run = steps.told(self._entries)

    async def _stop_renewing(self) -> None:
        if self._renewal:
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
            self._renewal = None
