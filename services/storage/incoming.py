"""One message's body while it arrives: memory for the small, an unnamed file for the large.

Made by `Deliveries.incoming`, `AccountStore.incoming` and the spool; written by the SMTP engine (as its BodySink) or by
the IMAP session. The file is made with O_TMPFILE: it has no name, so an abort, a crash or a `kill -9` leaves nothing
behind. 256 KiB in memory: nearly all mail without attachments, and 50 sessions at once hold 13 MB.

A body is what came, but for its beginning: `replace_front` takes out header fields that a stranger may not bring. Then
the file is read from behind what was replaced, and nothing of it is written a second time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import Executor

from services.storage.atomic import write_all

MEMORY_LIMIT = 262_144
# A writer that never awaits `drain` is made to write by itself here, so that memory stays bounded in any case.
_UNDRAINED = 4
_PIECE = 1 << 18
_MOST_PIECES = 512  # IOV_MAX is 1024


class Incoming:
    """Octets in, to be copied into one or more files later. One writer at a time; not thread-safe."""

    __slots__ = (
        "_closed", "_descriptor", "_folder", "_from", "_front", "_holds", "_in_file", "_limit", "_pending",
        "_pending_size", "_pool", "size",
    )  # fmt: skip

    def __init__(self, staging_dir: str, memory_limit: int = MEMORY_LIMIT, pool: Executor | None = None) -> None:
        self.size = 0
        self._folder = staging_dir
        self._limit = memory_limit
        self._pool = pool
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._descriptor = -1
        self._in_file = 0
        self._front = b""  # stands for the first `_from` octets of the file
        self._from = 0
        self._holds = 0
        self._closed = False

    @property
    def in_file(self) -> bool:
        """True once the body has outgrown memory."""
        return self._descriptor >= 0

    def write(self, chunk: bytes) -> None:
        """Take octets. Raises OSError only where `drain` is not awaited and the disk refuses."""
        self._pending.append(bytes(chunk))  # no copy of what is bytes already
        self._pending_size += len(chunk)
        self.size += len(chunk)
        if self._pending_size > _UNDRAINED * self._limit:
            self.flush()

    async def drain(self) -> None:
        """Let what is beyond the memory limit reach the file, off the loop. Raises OSError where the disk refuses."""
        if self._pending_size > self._limit or (self._descriptor >= 0 and self._pending_size >= _PIECE):
            await asyncio.get_running_loop().run_in_executor(self._pool, self.flush)

    def flush(self) -> None:
        """Write everything held in memory to the file, making it if need be. Blocks."""
        if self._descriptor < 0:
            self._descriptor = unnamed_file(self._folder)
        pieces, self._pending, self._pending_size = self._pending, [], 0
        for start in range(0, len(pieces), _MOST_PIECES):
            write_all(self._descriptor, b"".join(pieces[start : start + _MOST_PIECES]))
        self._in_file += sum(map(len, pieces))

    def head(self, octets: int) -> bytes:
        """The first `octets` octets."""
        if self._descriptor >= 0:
            if self._in_file < octets and self._pending:
                self.flush()
            left = octets - len(self._front)
            return self._front[:octets] + (os.pread(self._descriptor, left, self._from) if left > 0 else b"")
        taken: list[bytes] = []
        left = octets
        for piece in self._pending:
            taken.append(piece[:left])
            left -= len(piece)
            if left <= 0:
                break
        return b"".join(taken)

    def replace_front(self, octets: int, front: bytes) -> None:
        """From now on the body begins with `front` where its first `octets` octets were; not while it is written.

        For a header, which `head` has given: short, and in memory by then. Blocks only where it is in the file and part
        of what goes is not.
        """
        if not 0 <= octets <= self.size:
            raise ValueError(f"{octets} of {self.size} octets cannot be replaced")
        if self._descriptor < 0:
            whole = b"".join(self._pending)
            self._pending = [front, whole[octets:]]
            self._pending_size = self.size = len(front) + len(whole) - octets
            return
        self.flush()
        inside = octets - len(self._front)
        self._front = front if inside >= 0 else front + self._front[octets:]
        self._from += max(0, inside)
        self.size = len(self._front) + self._in_file - self._from

    def chunks(self, size: int = _PIECE) -> Iterator[bytes]:
        """The whole body in order, in pieces of any length up to about `size`. Blocks where it is in the file."""
        position = self._from
        if self._front:
            yield self._front
        while position < self._in_file and (piece := os.pread(self._descriptor, size, position)):
            yield piece
            position += len(piece)
        yield from self._pending

    def copy_to(self, target: int, before: bytes = b"") -> None:
        """Write `before` and the body at the current position of `target`; large bodies do not pass through Python."""
        if self._descriptor < 0 and len(self._pending) < _MOST_PIECES:
            pieces = [before, *self._pending]
            total = sum(map(len, pieces))
            if total != len(before) + self.size:
                raise OSError(errno.EBADF, "the body was closed before it was copied")
            if (written := os.writev(target, pieces)) < total:
                write_all(target, memoryview(b"".join(pieces))[written:])
            return
        self.flush()
        if before or self._front:
            write_all(target, before + self._front)
        copy_octets(self._descriptor, target, self._in_file - self._from, self._from)

    def link_to(self, folder: int, name: str) -> bool:
        """Give the file itself a name, where it lies on the same file system; False = copy it instead."""
        if self._descriptor < 0 or self._from or self._front:
            return False
        self.flush()
        try:
            os.link(f"/proc/self/fd/{self._descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ENOENT, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
                return False
            raise
        return True

    def descriptor(self) -> int:
        """The open file as it was received, -1 while all is in memory."""
        return self._descriptor

    def hold(self) -> None:
        """Keep the octets until `release`, whatever `close` says: a commit outlives a cancelled connection."""
        self._holds += 1

    def release(self) -> None:
        """End one `hold`."""
        self._holds -= 1
        if self._closed:
            self.close()

    def close(self) -> None:
        """Free memory and file, once nobody holds it. Idempotent."""
        self._closed = True
        if self._holds > 0:
            return
        self._pending, self._pending_size = [], 0
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._in_file = self._from = 0
        self._front = b""

    abort = close

    def __del__(self) -> None:
        self.close()


def unnamed_file(folder: str) -> int:
    """A descriptor for reading and writing a file in `folder` that goes with its last descriptor. Raises OSError."""
    try:
        # 0660: see delivery.py on why the mail group may write message files. Without O_EXCL it can be linked later.
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o660)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    name = os.path.join(folder, f"body.{secrets.token_hex(8)}")  # NFS, FUSE and old overlays
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
    os.unlink(name)
    return descriptor


def copy_octets(source: int, target: int, octets: int, start: int = 0) -> None:
    """Copy `octets` of `source` from `start` to the current position of `target`, in the kernel where it can."""
    done = 0
    while done < octets:
        try:
            count = os.copy_file_range(source, target, octets - done, offset_src=start + done)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
                raise
            break
        if not count:
            break
        done += count
    while done < octets and (piece := os.pread(source, min(1 << 20, octets - done), start + done)):
        write_all(target, piece)
        done += len(piece)
    if done < octets:
        raise OSError(errno.EIO, "the staged body is shorter than what was written to it")
