"""The queue's messages on disk: one file each, complete and durable before anybody is told that we have it.

    spool/tmp/ID    being received; removed at start, since nobody was told of it
    spool/msg/ID    whole; the queue's state (`queue.py`) says whether it is wanted
    spool/lock      held by the one process that owns the spool
    spool/held      made by scripts/restore: what is found in the queue waits for the owner's release

A message is received body first and signed last, and the signature goes on top. So a file may begin with room for the
header: `Draft` writes the body behind it, the header goes right in front of the body at the end, and `Spooled.start`
says where the message begins. `tail -c +N` shows it.

smtp-out's submission, forwards and reports write drafts; the queue's attempts read. File work runs in threads; `write`
alone runs on the loop and only collects.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass

# Collected before it goes to the file: the engine drains after each MiB, so most messages are one write at the end.
MEMORY_BYTES = 1 << 18
READ_BYTES = 1 << 16
# A report quotes header fields up to here; longer ones are cut (RFC 3464 §2 wants the header, not the whole of it).
HEADER_BYTES = 1 << 16


class SpoolOwned(OSError):
    """Another process has this spool."""


class HeaderTooLong(ValueError):
    """The header is larger than the room kept for it: a fault of the caller."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A durable message: its file is `name`, the message begins at `start` and has `size` octets."""

    name: str
    start: int
    size: int


class Spool:
    """The folder. Making one takes the lock, and removes what a crash left half-written."""

    def __init__(self, folder: str) -> None:
        """Raises SpoolOwned where another process has it, OSError where the volume is missing."""
        self.folder = folder
        self._tmp = os.path.join(folder, "tmp")
        self._msg = os.path.join(folder, "msg")
        for name in (folder, self._tmp, self._msg):
            os.makedirs(name, mode=0o700, exist_ok=True)
        self._lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SpoolOwned(f"another process owns the queue in {folder}") from None
        for entry in os.scandir(self._tmp):
            os.unlink(entry.path)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # --- held after a restore

    @property
    def restored(self) -> bool:
        """Whether this spool came out of a backup and nobody has looked at it yet."""
        return os.path.exists(os.path.join(self.folder, "held"))

    def looked_at(self) -> None:
        """The restored queue is held now, row by row: the mark has done its work."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, "held"))
        self.sync_folder()

    # --- writing

    def draft(self, name: str, *, room: int = 0, watch: Callable[[bytes], None] | None = None) -> Draft:
        """A message to be received. `room` octets are kept for its header where the body has to be written before the
        header is known; `watch` is called with each piece of the body, in a thread."""
        return Draft(os.path.join(self._tmp, name), os.path.join(self._msg, name), name, room, watch)

    def sync_folder(self) -> None:
        """Make the names in it durable; one call covers every commit before it."""
        for path in (self._msg, self.folder):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a message; it is no fault when it is gone. Not synced: a file that comes back is found at start."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._msg, name))

    # --- reading

    def names(self) -> Iterator[str]:
        """Every message's file, unordered."""
        with os.scandir(self._msg) as entries:
            for entry in entries:
                yield entry.name

    def exists(self, spooled: Spooled) -> bool:
        """Whether the file is still there."""
        return os.path.exists(self._path(spooled))

    async def chunks(self, spooled: Spooled) -> AsyncGenerator[bytes, None]:
        """The message, in pieces. Raises FileNotFoundError, and EOFError where the file is shorter than it was."""
        descriptor = await asyncio.to_thread(os.open, self._path(spooled), os.O_RDONLY | os.O_CLOEXEC)
        try:
            at, left = spooled.start, spooled.size
            while left:
                chunk = await asyncio.to_thread(os.pread, descriptor, min(left, READ_BYTES), at)
                if not chunk:
                    raise EOFError(f"{spooled.name} ends {left} octets too early")
                at, left = at + len(chunk), left - len(chunk)
                yield chunk
        finally:
            os.close(descriptor)

    def header(self, spooled: Spooled) -> bytes:
        """The header block with its empty line, or as much of it as a report quotes; b"" where the file is gone."""
        try:
            descriptor = os.open(self._path(spooled), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            start = os.pread(descriptor, min(spooled.size, HEADER_BYTES), spooled.start)
        finally:
            os.close(descriptor)
        end = start.find(b"\r\n\r\n")
        if end >= 0:
            return start[: end + 4]
        lines, line_end, _ = start.rpartition(b"\r\n")  # the field that was cut is left out
        return lines + line_end + b"\r\n"

    def _path(self, spooled: Spooled) -> str:
        return os.path.join(self._msg, spooled.name)


class Draft:
    """One message on its way in: `write` and `drain` while it arrives, `settle`, then `commit` or `abort`."""

    def __init__(self, partial: str, whole: str, name: str, room: int, watch: Callable[[bytes], None] | None) -> None:
        self.name = name
        self.size = 0  # of the body so far
        self.eight_bit = False
        self._partial, self._whole, self._watch = partial, whole, watch
        # A multiple of the block size keeps the body's writes aligned; the room itself stays a hole in the file.
        self._room = -(-room // 4096) * 4096
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._tail = b""
        self._end = 0  # where the file ends so far
        self._descriptor = -1
        self._made = False  # there is a partial file to take away
        self._closed = False

    def write(self, chunk: bytes) -> None:
        """Take more of the body; nothing is written yet."""
        self._pieces.append(chunk)
        self._waiting += len(chunk)
        self.size += len(chunk)
        if not self.eight_bit and not chunk.isascii():
            self.eight_bit = True

    async def drain(self) -> None:
        """Write what has been collected, when it is worth a write. Raises OSError."""
        if self._waiting >= MEMORY_BYTES:
            await asyncio.to_thread(self._write_out)

    async def settle(self) -> None:
        """The body is complete: let `watch` see the rest of it."""
        self._tail = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        if self._watch is not None and self._tail:
            if len(self._tail) < READ_BYTES:
                self._watch(self._tail)  # a hop to a thread costs more than hashing a short mail
            else:
                await asyncio.to_thread(self._watch, self._tail)

    async def commit(self, header: bytes) -> Spooled:
        """Put `header` on top and make the file durable. Its name is durable after `Spool.sync_folder`, which the
        queue calls once for all that are added together. Raises HeaderTooLong, OSError; the draft is gone then."""
        work = asyncio.ensure_future(asyncio.to_thread(self._commit, header))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The thread cannot be stopped; what it finishes nobody was told of, so it is taken away again.
            work.add_done_callback(lambda _: self._take_back())
            raise
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Forget it; idempotent, and nothing after `commit` has succeeded."""
        if self._closed:
            return
        self._closed = True
        self._pieces.clear()
        self._tail = b""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._partial)

    def _take_back(self) -> None:
        self.abort()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._whole)

    def _open(self, at: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._partial, flags, 0o600)
        self._made = True
        self._end = at

    def _write_out(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        if self._descriptor < 0:
            self._open(self._room)
        if self._watch is not None:
            self._watch(data)
        self._append(data)

    def _append(self, data: bytes) -> None:
        self._end += write_all(self._descriptor, data, self._end)

    def _commit(self, header: bytes) -> Spooled:
        if self._descriptor < 0:
            start = 0
            self._open(0)
            self._append(header + self._tail)
        else:
            start = self._room - len(header)
            if start < 0:
                raise HeaderTooLong(f"{len(header)} octets of header, room for {self._room}")
            self._append(self._tail)
            write_all(self._descriptor, header, start)
        os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        # A name that is there already would be another message's: never replaced.
        os.link(self._partial, self._whole)
        os.unlink(self._partial)
        self._closed = True
        self._tail = b""
        return Spooled(self.name, start, self._end - start)


def write_all(descriptor: int, data: bytes, at: int) -> int:
    """Write all of `data` at the offset `at`; a full disk may take part of it and raise only at the next write."""
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], at + done)
    return done
