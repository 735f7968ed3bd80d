"""Whether this machine's clock can be believed: a Raspberry Pi has none of its own, and boots in the past.

What is signed, dated or made for a year would be wrong for good: DKIM's `t=`, a certificate of 1970, a message in the
queue that is 56 years old once the time comes. So dkim, acme and smtp-out ask here first and wait; health says why, and
they go on by themselves.

The clock is not believed while it says less than when this software was made, nor, in the first minutes after boot,
while it says less than when the room last saw it. The second ends with those minutes: by then a time server was asked,
and a clock that once was ahead must not stop anybody until that day comes. An hour or two behind is no harm and is
what a machine comes back with that saves the time at shutdown (fake-hwclock, systemd-timesyncd).

Owns `last-seen` in the room's folder: seconds since the epoch, as text. Not made durable: an old one only helps less.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

from services.runtime.hold import since_boot
from services.runtime.process import Context

# 2026-11-01, moved on with each release. Debian 13's systemd sets a clock without battery to its own year at least, so
# an older day would not tell.
MADE = 1_793_491_200
# How far behind is no harm. fake-hwclock saves once an hour.
SLACK_SECONDS = 2 * 3600
# Since boot; a time server is asked within seconds of the network coming up, and routers take their minutes too.
SETTLE_SECONDS = 600.0
KEEP_SECONDS = 600.0
LOOK_SECONDS = 2.0
FILE = "last-seen"
PART = "clock"


class Clock:
    """One room's judgement of the machine's clock."""

    def __init__(self, context: Context, boot: Callable[[], float] = since_boot) -> None:
        """Reads when the room last saw a clock that it believed."""
        self._context, self._boot = context, boot
        self._path = os.path.join(context.settings.room_dir, FILE)
        self._last = self._read()

    def problem(self) -> str:
        """Why the clock is not believed, a sentence for the owner; "" when it is."""
        now = self._context.clock()
        if now >= MADE and (now >= self._last - SLACK_SECONDS or self._boot() >= SETTLE_SECONDS):
            return ""
        least = max(MADE, self._last) if self._boot() < SETTLE_SECONDS else MADE
        said, wanted = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(each)) for each in (max(0.0, now), least))
        return f"the clock is not set yet: it says {said} UTC, and it was {wanted} before; waiting for a time server"

    async def watch(self) -> None:
        """Keep health true about the clock, and what is kept of it, until cancelled."""
        kept = 0.0
        while True:
            problem = self.tell()
            if not problem and self._boot() - kept >= KEEP_SECONDS:
                kept = self._boot()
                self.keep()
            await asyncio.sleep(LOOK_SECONDS)

    def tell(self) -> str:
        """`problem`, told to health, and to the log where that has changed."""
        problem, told = self.problem(), self._context.health.parts.get(PART, "")
        if problem:
            self._context.health.fail(PART, problem)
            if not told:
                self._context.log("warning", problem)
        elif told:
            self._context.health.ok(PART)
            self._context.log("info", "the clock is set")
        return problem

    def keep(self) -> None:
        """Remember what the clock says: also where it went back, which is right once the first minutes are over."""
        self._last = self._context.clock()
        with contextlib.suppress(OSError):  # a full disk: what was kept before serves
            with open(self._path + ".new", "w", encoding="ascii") as file:
                file.write(f"{self._last:.0f}\n")
            os.replace(self._path + ".new", self._path)

    def _read(self) -> float:
        with contextlib.suppress(OSError, ValueError), open(self._path, encoding="ascii") as file:
            return float(int(file.read(32)))
        return 0.0
