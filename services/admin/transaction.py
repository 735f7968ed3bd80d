"""What the updater asks of admin while it replaces containers. All of it may be asked twice, by `id`.

    POST /v1/update/hold     {"id", "seconds"}  → {"held": [rooms], "away": [rooms]}; renewed while the update runs
    POST /v1/update/release  {"id"}             → {"released": [rooms], "away": [rooms]}
    POST /v1/update/snapshot {"id"}             → {"id", "code"}; the directory is closed from here on
    POST /v1/update/settled  {"id", "outcome"}  → {}; the snapshot is wanted no more
    POST /v1/update/gate     {"id"}             → {"passed", "steps": [{"step", "seconds", "outcome", "reason"}]}
    POST /v1/update/result   {a history entry}  → {}; `notices.py`

507 where the disk does not take a snapshot, 503 where it does not take a hold. The gate may take 25 seconds.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from services.admin.holding import Holding
from services.admin.mail_gate import MailGate
from services.admin.notices import Notices
from services.admin.snapshots import Snapshots
from services.directory.database import Database, DatabaseUnusable
from services.runtime.hold import asked, identity_of
from services.runtime.internal_http import BadRequest, Request, Response, Routes
from services.runtime.process import Context
from services.runtime.version import code_version

ALLOWED = ("updater",)
# How long the directory is closed by a snapshot alone: the hold that follows renews it.
SNAPSHOT_SECONDS = 120.0
OUTCOMES = ("committed", "rolled-back")


class Transaction:
    """The handlers."""

    def __init__(
        self,
        context: Context,
        database: Database,
        snapshots: Snapshots,
        holding: Holding,
        gate: MailGate,
        notices: Notices,
    ) -> None:
        """Nothing is held before it is asked for."""
        self._context, self._database, self._snapshots = context, database, snapshots
        self._holding, self._gate, self._notices = holding, gate, notices

    def add_to(self, routes: Routes) -> None:
        """The paths, for the updater alone."""
        for name, handler in (
            ("hold", self.hold), ("release", self.release), ("snapshot", self.snapshot), ("settled", self.settled),
            ("gate", self.gate),
            ("result", self._notices.result),
        ):  # fmt: skip
            routes.add("POST", f"/v1/update/{name}", handler, allow=ALLOWED)

    async def hold(self, request: Request) -> Response:
        """POST /v1/update/hold."""
        identity, seconds, _ = asked(request)
        try:
            return Response.of(await self._holding.hold(identity, seconds))
        except OSError as error:
            return Response.error(503, f"the hold cannot be kept on disk: {error}")

    async def release(self, request: Request) -> Response:
        """POST /v1/update/release."""
        return Response.of(await self._holding.release(identity_of(request.json())))

    async def snapshot(self, request: Request) -> Response:
        """POST /v1/update/snapshot."""
        identity = identity_of(request.json())
        try:
            # In this order: what is changed after the snapshot would be lost when it is put back.
            await self._holding.close_directory(identity, SNAPSHOT_SECONDS)
            await asyncio.to_thread(self._snapshots.take, identity, self._database)
        except (OSError, DatabaseUnusable) as error:
            return Response.error(507, f"the snapshot of the directory cannot be kept: {error}")
        code = await asyncio.to_thread(code_version)
        self._record(identity, f"the directory was kept as it is before the update {identity}", code=code)
        return Response.of({"id": identity, "code": code})

    async def settled(self, request: Request) -> Response:
        """POST /v1/update/settled."""
        value = request.json()
        identity = identity_of(value)
        outcome = value.get("outcome")
        if outcome not in OUTCOMES:
            raise BadRequest(f"outcome is one of {', '.join(OUTCOMES)}")
        try:
            if await asyncio.to_thread(self._snapshots.settle, identity):
                self._record(identity, f"the update {identity} is {outcome}: what was kept for it is removed")
        except OSError as error:
            return Response.error(503, f"the snapshot cannot be removed: {error}")
        return Response.of({})

    async def gate(self, request: Request) -> Response:
        """POST /v1/update/gate."""
        return Response.of(dataclasses.asdict(await self._gate.run(identity_of(request.json()))))

    def _record(self, identity: str, reason: str, **fields: Any) -> None:
        self._context.events.emit("update", identity, reason=reason, **fields)
