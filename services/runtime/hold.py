"""The hold: for how long a room takes no new work from the world, because an update is under way.

A hold is a lease. admin takes it for a number of seconds and renews it; an updater that died leaves nobody closed for
longer than that. It lies in the room's own folder, so that the room's successor starts held. Two stay exempt, or the
gate that decides about the update could not pass: connections from the address that asked for the hold (admin's), and
what one account (the gate's) queues.

How long is measured by the kernel's clock since boot, which nobody sets and which all containers share. The wall clock
counts only across a reboot, and then for no more than the lease's own seconds: a box without a clock battery wakes up
in the past.

    POST /v1/hold {"id", "seconds", "account"}  → {"held": id, "seconds": left}
    POST /v1/release {"id"}                     → {"held": id or ""}

Both may be repeated. A release counts for its id only, and a late question for an id that was released holds nothing.
Owns `hold.json`. smtp-in, smtp-out, imap and admin have one each; what a hold means there is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from services.runtime.internal_http import BadRequest, Request, Response, Routes

if TYPE_CHECKING:
    from services.runtime.process import Context

FILE = "hold.json"
# What the refused are told, in every protocol.
HELD = "an update is running, try again in a minute"
# The updater renews each 30 seconds; whoever asks for more than this means something else.
MOST_SECONDS = 900.0
MOST_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Lease:
    """`ends` is in seconds since the boot named `boot`; `until` is the same moment by the wall clock."""

    id: str
    seconds: float
    until: float
    boot: str
    ends: float
    exempt: str = ""
    account: str = ""


def since_boot() -> float:
    """Seconds since boot, suspended time included; the same for every process of this machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def this_boot() -> str:
    """What names this boot of the machine; "" where the kernel does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class Hold:
    """One room's hold; its task is `keep`. Not for several threads."""

    def __init__(
        self,
        context: Context,
        *,
        elapsed: Callable[[], float] = since_boot,
        boot: Callable[[], str] = this_boot,
        follows: bool = False,
    ) -> None:
        """Reads what an earlier process left. `elapsed` and `boot` are the kernel's; tests pass their own.

        `follows`: another process of the room takes and releases, and records it; this one is told (`follow`).
        """
        self._context, self._elapsed, self._boot = context, elapsed, boot()
        self._path = os.path.join(context.settings.room_dir, FILE)
        self._lease: Lease | None = None
        self._released = ""
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._began: list[Callable[[Lease], None]] = []
        self._ended: list[Callable[[], None]] = []
        self._told: list[Callable[[Lease | None], Awaitable[None]]] = []
        self._follows = follows
        self._load()

    @property
    def lease(self) -> Lease | None:
        """The lease in force."""
        lease = self._lease
        return lease if lease is not None and self.left() > 0 else None

    def left(self) -> float:
        """Seconds that the lease still runs; 0 without one."""
        lease = self._lease
        return 0.0 if lease is None else max(0.0, min(lease.ends - self._elapsed(), lease.seconds))

    def refusal(self, peer: str) -> str:
        """Why `peer` (an address) is refused now, for the record; "" where it may come in."""
        lease = self.lease
        return "" if lease is None or peer == lease.exempt else f"held for the update {lease.id}"

    def exempts(self, peer: str) -> bool:
        """Whether `peer` may come in although the room is held."""
        return not self.refusal(peer)

    def when_it_begins(self, call: Callable[[Lease], None]) -> None:
        """`call` it with each new lease; a renewal is none."""
        self._began.append(call)

    def when_it_ends(self, call: Callable[[], None]) -> None:
        """`call` it when the room opens again."""
        self._ended.append(call)

    def tell(self, call: Callable[[Lease | None], Awaitable[None]]) -> None:
        """Await `call` with each lease, a renewed one too, and with None at a release: other processes hold with us."""
        self._told.append(call)

    def follow(self, value: dict[str, Any] | None) -> None:
        """What the process that we follow holds now, as `asdict` makes it of its lease."""
        before, self._lease = self.lease, None if value is None else Lease(**value)
        self._changed.set()
        lease = self.lease
        if lease is not None and (before is None or before.id != lease.id):
            for begin in self._began:
                begin(lease)
        elif lease is None and before is not None:
            for end in self._ended:
                end()

    async def take(self, identity: str, seconds: float, *, exempt: str = "", account: str = "") -> bool:
        """Hold, or renew; durable when it returns. False for an id that was released. Raises OSError, holding nothing
        new."""
        async with self._writing:
            if identity == self._released:
                return False
            before = self.lease
            until = self._context.clock() + seconds
            lease = Lease(identity, seconds, until, self._boot, self._elapsed() + seconds, exempt, account)
            await asyncio.to_thread(self._write, asdict(lease))
            self._lease = lease
            for tell in self._told:
                await tell(lease)
        self._changed.set()
        if before is None or before.id != identity:
            self._record(identity, f"held for the update {identity}, at most {seconds:.0f} seconds unless renewed")
            for call in self._began:
                call(lease)
        return True

    async def release(self, identity: str) -> None:
        """Open again, if it is held for `identity`."""
        async with self._writing:
            lease = self._lease
            if self._released == identity or (lease is not None and lease.id != identity):
                return
            self._lease, self._released = None, identity
            try:
                await asyncio.to_thread(self._write, {"released": identity})
            except OSError as error:
                # The file's lease ends by itself; until then only a restart would find it.
                self._context.log("warning", f"the end of the hold is not on disk: {error}")
            for tell in self._told:
                await tell(None)
        self._changed.set()
        if lease is not None:
            self._record(identity, f"open again after the update {identity}")
            for call in self._ended:
                call()

    async def keep(self) -> None:
        """Open again when the lease has run out; until cancelled."""
        while True:
            self._changed.clear()
            if self._lease is None:
                await self._changed.wait()
                continue
            left = self.left()
            if left > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._changed.wait()
                continue
            identity, self._lease = self._lease.id, None
            self._record(identity, f"open again: the update {identity} did not renew its hold", outcome="error")
            for call in self._ended:
                call()

    # --- HTTP

    def add_to(self, routes: Routes) -> None:
        """Answer admin's questions."""

        async def hold(request: Request) -> Response:
            identity, seconds, account = asked(request)
            try:
                held = await self.take(identity, seconds, exempt=request.peer, account=account)
            except OSError as error:
                return Response.error(503, f"the hold cannot be kept on disk: {error}")
            return Response.of({"held": identity if held else "", "seconds": self.left()})

        async def release(request: Request) -> Response:
            await self.release(identity_of(request.json()))
            lease = self.lease
            return Response.of({"held": lease.id if lease else ""})

        routes.add("POST", "/v1/hold", hold, allow=("admin",))
        routes.add("POST", "/v1/release", release, allow=("admin",))

    # --- within

    def _record(self, identity: str, reason: str, *, outcome: str = "info") -> None:
        if self._follows:
            return
        self._context.log("info" if outcome == "info" else "warning", reason)
        self._context.events.emit("hold", identity, outcome=outcome, reason=reason)

    def _write(self, value: dict[str, Any]) -> None:
        """Replace the file, durably: write beside, fsync, rename, fsync the folder."""
        folder = os.path.dirname(self._path)
        os.makedirs(folder, exist_ok=True)
        partial = self._path + ".new"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps(value).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, self._path)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                value = json.loads(file.read(1 << 16))
            self._released = str(value.get("released", ""))
            if "id" not in value:
                return
            lease = Lease(
                str(value["id"]), _number(value["seconds"]), _number(value["until"]), str(value["boot"]),
                _number(value["ends"]), str(value["exempt"]), str(value["account"]),
            )  # fmt: skip
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # Open rather than closed: a hold protects an update, and a room that stays closed protects nobody.
            self._context.log("warning", f"{self._path} cannot be read: {error!r}")
            return
        if not self._boot or lease.boot != self._boot:
            left = min(lease.seconds, max(0.0, lease.until - self._context.clock()))
            ends = self._elapsed() + left
            lease = Lease(lease.id, left, lease.until, self._boot, ends, lease.exempt, lease.account)
        self._lease = lease
        if self.left() > 0:
            self._record(lease.id, f"held for the update {lease.id}, as the process before was")
        else:
            self._lease = None


def asked(request: Request) -> tuple[str, float, str]:
    """The id, seconds and account of a question for a hold; raises BadRequest."""
    value = request.json()
    identity = identity_of(value)
    seconds, account = value.get("seconds"), value.get("account", "")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MOST_SECONDS:
        raise BadRequest(f"seconds is a number up to {MOST_SECONDS:.0f}")
    if not isinstance(account, str) or len(account) > MOST_CHARACTERS:
        raise BadRequest("account is an address")
    return identity, float(seconds), account


def identity_of(value: object) -> str:
    """The update's id in a request's body; raises BadRequest."""
    identity = value.get("id") if isinstance(value, dict) else None
    # It names a folder in admin and a story in the record.
    if not isinstance(identity, str) or not re.fullmatch(r"[0-9a-z]{1,20}", identity):
        raise BadRequest("id is 1 to 20 lower case letters and digits")
    return identity


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number
