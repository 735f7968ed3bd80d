"""Facts that a room tells admin: who logged in, a stronger hash, a ban, how much mail there is.

Snapshots are read-only, so what a room learns goes this way: `post` collects a fact in memory and returns (it stands on
a log-in's path), a task writes the collected ones to a file and sends them to admin, `POST /v1/facts`. While admin is
away they are kept, over restarts too; admin takes each id once, so that sending again is safe. Bounded: a newer "last
used" of an account replaces the waiting one, and past the limit the oldest "last used" goes first, then the oldest.

Owns one file of JSON lines in the room's own folder. Called by smtp-out and imap; never raises into a log-in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from services.runtime.events import Json, new_trace_id
from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable

if TYPE_CHECKING:
    from services.runtime.process import Context

MOST = 10_000  # about 2 MB; a household makes a few dozen a day
PER_REQUEST = 500  # well below the 1 MiB that admin takes at once
WRITE_SECONDS = 0.5  # facts that a crash may lose; none of them is mail
RETRY_FIRST, RETRY_MOST = 1.0, 60.0

Fact = dict[str, Any]


class FactQueue:
    """The facts of one room on their way to admin; its task is `run`."""

    def __init__(self, context: Context, path: str, *, client: Client | None = None) -> None:
        """`path` is the file that keeps them; its folder exists. `client` asks admin (tests pass their own)."""
        self._context, self._path = context, path
        self._client = client or Client(context.room, context.secrets, "admin", context.settings.admin_url)
        self._waiting: dict[str, Fact] = {}  # by id, in the order they came
        self._unwritten: list[str] = []
        self._newest_use: dict[str, str] = {}  # account → id of its waiting "last used"
        self._wake = asyncio.Event()
        self._torn = False  # the file ends in the middle of a line
        self._load()

    def __len__(self) -> int:
        return len(self._waiting)

    def post(self, kind: str, account: str, **fields: Json) -> None:
        """Tell admin. `kind`: last-used, rehash (hash, replaces), ban (key, ban_kind, until, reason), usage (bytes,
        messages). Durable within half a second."""
        identity = new_trace_id()
        self._take({"id": identity, "kind": kind, "account": account, "at": self._context.clock(), **fields})
        self._unwritten.append(identity)
        self._wake.set()

    async def run(self) -> None:
        """Write and send until the room stops; what is not sent then is on disk."""
        wait = RETRY_FIRST
        stopping = asyncio.create_task(self._context.stop.wait())
        try:
            while not self._context.stop.is_set():
                if not self._waiting:
                    await _first(stopping, asyncio.create_task(self._wake.wait()), None)
                self._wake.clear()
                await _first(stopping, None, WRITE_SECONDS)  # a burst is one write and one request
                await asyncio.to_thread(self._append, self._collected())
                if self._waiting and not await self._send():
                    await _first(stopping, None, wait)
                    wait = min(wait * 2, RETRY_MOST)
                else:
                    wait = RETRY_FIRST
        finally:
            stopping.cancel()
            self._append(self._collected())
            self._client.close()

    def _collected(self) -> list[Fact]:
        names, self._unwritten = self._unwritten, []
        return [self._waiting[name] for name in names if name in self._waiting]

    def _append(self, facts: list[Fact]) -> None:
        """Append facts to the file, durable. On a full disk they stay in memory, and admin still hears of them."""
        if not facts:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                lines = b"\n" * self._torn + _lines(facts)
                self._torn = True
                self._torn = os.write(descriptor, lines) < len(lines)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._context.log("warning", f"facts for admin are not on disk: {error}")

    async def _send(self) -> bool:
        """One request; True where admin has taken it (or will never take it)."""
        facts = list(self._waiting.values())[:PER_REQUEST]
        try:
            await self._client.post("/v1/facts", {"facts": facts})
        except PeerUnavailable:
            return False
        except PeerRefused as error:
            if error.response.status >= 500 or error.response.status in (401, 403, 426):
                return False  # it is broken, or of another version, for now
            # 400: a fact that this admin will never understand must not hold up all that follow.
            self._context.log("warning", f"admin refused {len(facts)} facts: {error}")
        for fact in facts:
            self._drop(fact["id"])
        # What came during the request is written here too, and not once more by the next turn.
        self._unwritten = []
        await asyncio.to_thread(self._rewrite, list(self._waiting.values()))
        return True

    def _take(self, fact: Fact) -> None:
        if fact["kind"] == "last-used":
            if (older := self._newest_use.get(fact["account"])) is not None:
                self._drop(older)
            self._newest_use[fact["account"]] = fact["id"]
        self._waiting[fact["id"]] = fact
        if len(self._waiting) > MOST:
            self._drop(next(iter(self._newest_use.values()), next(iter(self._waiting))))

    def _drop(self, identity: str) -> None:
        fact = self._waiting.pop(identity, None)
        if fact and self._newest_use.get(fact["account"]) == identity:
            del self._newest_use[fact["account"]]

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                content = file.read()
        except OSError:
            return
        # A power cut may leave half a line at the end: the next one must not be added to it.
        self._torn = not content.endswith(b"\n")
        for line in content.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                fact = json.loads(line)
                if isinstance(fact["id"], str) and isinstance(fact["kind"], str) and isinstance(fact["account"], str):
                    self._take(fact)
        if self._waiting:
            self._wake.set()

    def _rewrite(self, facts: list[Fact]) -> None:
        """Leave in the file what still waits. After a crash before this, admin meets known ids and skips them."""
        partial = self._path + ".new"
        try:
            if not facts:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
                self._torn = False
                return
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_lines(facts))
                file.flush()
                os.fsync(descriptor)
            os.replace(partial, self._path)
            self._torn = False
        except OSError as error:
            self._context.log("warning", f"facts for admin are not on disk: {error}")


def _lines(facts: list[Fact]) -> bytes:
    return b"".join(json.dumps(fact, separators=(",", ":")).encode() + b"\n" for fact in facts)


async def _first(stopping: asyncio.Task[bool], other: asyncio.Task[bool] | None, seconds: float | None) -> None:
    """Wait for the stop, for `other`, or for `seconds`."""
    waiting = {stopping} if other is None else {stopping, other}
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if other is not None:
        other.cancel()
