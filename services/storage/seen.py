"""Whether a folder has changed since we last read it, by its modification time: one `fstat` instead of a listing.

Used by folder and account. Every name made, renamed or removed in a folder sets its time, from a clock that ticks each
1 to 10 ms (each second on some file systems): what happens within one tick after a listing leaves the time as it was.
So a time younger than a tick when we looked is not believed yet. Times set by our own renames are taken over, as
listing 10,000 names after each STORE would cost 10 ms; another program's change in that very tick would be missed, so a
folder whose time was taken over is listed again after a minute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_TICK = 20_000_000  # ns; CONFIG_HZ=100 has ticks of 10 ms
_COARSE_TICK = 2_000_000_000  # FAT, ext3 and others without nanoseconds
_ADOPTED_SECONDS = 60.0


class Seen:
    """What we know of one folder's time. `verified`: the time as of a listing that can be believed, else 0."""

    __slots__ = ("_adopted", "_descriptor", "_looked", "_unsure", "time")

    def __init__(self, descriptor: int, verified: int = 0) -> None:
        """`verified` as remembered from an earlier run."""
        self._descriptor = descriptor
        self.time = verified
        self._unsure = False
        self._adopted = False
        self._looked = time.monotonic()

    @property
    def verified(self) -> int:
        """What may be remembered beyond this run; 0 = look."""
        return 0 if self._unsure or self._adopted else self.time

    def now(self) -> int:
        """The folder's time, in ns."""
        return os.fstat(self._descriptor).st_mtime_ns

    def is_other(self, *, patient: bool) -> bool:
        """True if the folder has to be listed. `patient`: not again within one tick (for folders that are large)."""
        now = self.now()
        if now != self.time:
            return True
        if self._unsure:
            return not patient or not 0 <= time.time_ns() - now < _tick(now)
        return self._adopted and time.monotonic() - self._looked > _ADOPTED_SECONDS

    def listed(self, before: int, started: int) -> None:
        """The folder was listed; its time was `before` and the clock `started` (ns) when that began."""
        self.time = before
        # A time in the future (the clock was set back) cannot come again by a tick: any change sets an earlier one.
        self._unsure = 0 <= started - before < _tick(before)
        self._adopted = False
        self._looked = time.monotonic()

    def forget(self) -> None:
        """It has to be listed at the next look."""
        self.time = 0

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around changes of our own: they are no reason to list the folder, unless it was one before."""
        same = self.now() == self.time
        try:
            yield
        finally:
            if same:
                self.time = self.now()
                self._adopted = True


def _tick(stamp: int) -> int:
    return _TICK if stamp % 1_000_000_000 else _COARSE_TICK
