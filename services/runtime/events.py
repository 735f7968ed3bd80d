"""The record: each room appends what it decided as JSON lines to segments in its own folder.

One writer per file, nothing on a reply's path waits for it: lines are collected in memory and written by the loop
twice a second, at 64 KiB, and when a reader asks (`flush`). A crash may lose the last half second of the record, never
mail. admin tails the folders into its index. Line: `{"t": epoch µs, "room", "kind", "trace", "outcome", ...}`.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from typing import Protocol

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"] | list[str] | tuple[str, ...] | list[int]

SEGMENT_BYTES = 1 << 20  # small enough that retention by deleting whole segments is fine-grained
BUFFER_BYTES = 1 << 16
FIELD_CHARACTERS = 2000  # a peer's words are quoted, not hoarded
# Made once: json.dumps makes one a call where its arguments are not the defaults, and seven lines go with each message.
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread over the telephone


def new_trace_id(now: float | None = None) -> str:
    """16 characters that sort by time: 48 bits of milliseconds, 32 random bits."""
    number = (int((time.time() if now is None else now) * 1000) & (1 << 48) - 1) << 32 | random.getrandbits(32)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))


def is_trace_id(text: str) -> bool:
    """True for a text of the form that `new_trace_id` gives."""
    return len(text) == 16 and all(character in _ALPHABET for character in text)


class Events(Protocol):
    """Where a room says what it decided and why."""

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Json) -> None:
        """Record one decision. `outcome`: info, accept, reject, defer, junk or error. Never raises, never waits."""

    def flush(self) -> None:
        """Let what is recorded be read by others at once; by itself that takes half a second. Never raises."""


class NoEvents:
    """An `Events` that forgets; for tests and tools."""

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Json) -> None:
        """Forget."""

    def flush(self) -> None:
        """Nothing is kept."""


class EventLog:
    """`Events` on disk: `<folder>/<start µs>.jsonl`, rotated by size, the oldest deleted by age and total size.

    A worker beside the first writes `<start µs>-<worker>.jsonl`, and each keeps its own in bounds.
    """

    def __init__(
        self,
        folder: str,
        room: str,
        *,
        days: int = 30,
        total_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.time,
        disk_full: Callable[[], bool] = lambda: False,
        writer: int = 0,
        writers: int = 1,
    ) -> None:
        """`folder` must exist. `disk_full` says when the record must give way to mail (ARCHITECTURE, rule 5).

        `writer` is this one's number of `writers`; the first also clears away what workers left that are no more.
        """
        self._writer, self._writers = writer, writers
        self._folder, self._room, self._days, self._total = folder, room, days, total_bytes
        self._clock, self._disk_full = clock, disk_full
        self._lines: list[bytes] = []
        self._waiting = 0
        self._dropped = 0
        self._file = -1
        self._written = 0

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Json) -> None:
        """See `Events.emit`."""
        record = {
            "t": int(self._clock() * 1e6), "room": self._room, "kind": kind, "trace": trace, "outcome": outcome
        }  # fmt: skip
        for name, value in fields.items():
            if value is None or value == "":
                continue
            record[name] = value[:FIELD_CHARACTERS] if isinstance(value, str) else value
        try:
            line = _ENCODER.encode(record).encode() + b"\n"
        except (TypeError, ValueError):
            line = json.dumps({**record, **{k: repr(v)[:200] for k, v in fields.items()}}).encode() + b"\n"
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is collected. A full or broken disk drops lines and counts them; mail goes on."""
        if not self._lines:
            return
        lines, self._lines, self._waiting = self._lines, [], 0
        try:
            if self._disk_full():
                raise OSError("below the disk reserve")
            if self._file < 0 or self._written >= SEGMENT_BYTES:
                self._open_segment()
            if self._dropped:
                lines.insert(0, self._note_of_dropped())
            data = b"".join(lines)
            # A short write (disk full) leaves a cut line; readers skip what does not parse.
            self._written += os.write(self._file, data)
            self._dropped = 0
        except OSError:
            self._dropped += len(lines)

    def close(self) -> None:
        """Flush and close the segment."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _note_of_dropped(self) -> bytes:
        reason = f"{self._dropped} lines of this record were dropped: the disk was full"
        note = {"t": int(self._clock() * 1e6), "room": self._room, "kind": "bug", "trace": "", "outcome": "error"}
        return json.dumps({**note, "reason": reason}).encode() + b"\n"

    def _open_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        # After a clock that was set back too: readers take the last name for the one that is still written.
        newest = max((_started(name) for name in self._segments()), default=0)
        suffix = f"-{self._writer}" if self._writer else ""
        name = f"{max(int(self._clock() * 1e6), newest + 1):017d}{suffix}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(os.path.join(self._folder, name), flags, 0o640)
        self._written = os.fstat(self._file).st_size
        self._retain(name)

    def _segments(self) -> list[str]:
        """This writer's, and the first one's also those of workers that are no more."""
        return [
            name
            for name in os.listdir(self._folder)
            if name.endswith(".jsonl")
            and ((number := writer_of(name)) == self._writer or (not self._writer and number >= self._writers))
        ]

    def _retain(self, current: str) -> None:
        oldest = int((self._clock() - self._days * 86_400) * 1e6)
        kept = 0
        for name in sorted(self._segments(), reverse=True):
            path = os.path.join(self._folder, name)
            kept += os.stat(path).st_size
            # A segment's age is its start; its successor's start bounds its end, so deleting is late, never early.
            if name != current and (kept > self._total or _started(name) < oldest):
                os.unlink(path)


def writer_of(name: str) -> int:
    """The number of the worker that wrote the segment `name`."""
    number = name.partition(".")[0].partition("-")[2]
    return int(number) if number.isdigit() else 0


def _started(name: str) -> int:
    text = name.partition(".")[0].partition("-")[0]
    return int(text) if text.isdigit() else 0
