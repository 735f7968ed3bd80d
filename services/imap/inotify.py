"""Linux's inotify by ctypes: one descriptor for the process, a callback per folder.

Used by `watch` for mailboxes that somebody looks at. It works on one machine only and on local file systems only; what
it misses the rescan finds.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable

IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW = 0x1000000, 0x2000000
# A Maildir changes by names that come and go; contents never change.
MASK = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_DONT_FOLLOW
_EVENT = struct.Struct("iIII")
_READ = 65_536


class Inotify:
    """Folders under watch; opened with the first one."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._libc: ctypes.CDLL | None = None
        self._callbacks: dict[int, set[Callable[[], None]]] = {}

    def add(self, folder: str, callback: Callable[[], None]) -> int:
        """Call `callback` on the loop when names in `folder` change; the watch's number, -1 where it cannot be."""
        libc = self._open()
        if libc is None:
            return -1
        number: int = libc.inotify_add_watch(self._descriptor, os.fsencode(folder), MASK)
        if number >= 0:
            self._callbacks.setdefault(number, set()).add(callback)
        return number

    def remove(self, number: int, callback: Callable[[], None]) -> None:
        """End one `add`."""
        callbacks = self._callbacks.get(number)
        if callbacks is None:
            return
        callbacks.discard(callback)
        if not callbacks:
            # Two names of one folder share a number, so the kernel's watch goes with the last of them.
            del self._callbacks[number]
            if self._libc is not None:
                self._libc.inotify_rm_watch(self._descriptor, number)

    def close(self) -> None:
        """Let the descriptor go."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._callbacks.clear()

    def _open(self) -> ctypes.CDLL | None:
        if self._descriptor >= 0:
            return self._libc
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            return None
        if self._descriptor < 0:
            return None  # fs.inotify.max_user_instances
        self._libc = libc
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return libc

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except (BlockingIOError, InterruptedError):
            return
        changed: set[int] = set()
        position = 0
        while position + _EVENT.size <= len(data):
            number, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            if mask & IN_Q_OVERFLOW:
                changed.update(self._callbacks)  # the kernel lost count: look everywhere
            elif not mask & IN_IGNORED:
                changed.add(number)
        for number in changed:
            for callback in tuple(self._callbacks.get(number, ())):
                callback()
