"""The journal of the run that is under way: one file, an entry a line, each durable before the step that it names.

There is a run exactly while the file is there. A power cut in the middle of a line leaves a torn tail: the line does
not count, and the next writer cuts it off. A damaged line before the last one ends the reading there too, because
whatever followed was written by a hand that had read it otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from services.storage.atomic import fsync_folder, write_all

NAME = "journal.jsonl"
MOST_BYTES = 1 << 20  # a run of 20 containers writes some 8 KiB


class Journal:
    """Reads and appends; used by the run's process alone, read by the room."""

    def __init__(self, folder: str, clock: Callable[[], float]) -> None:
        """`folder` is the room's own; `clock` gives epoch seconds."""
        self._path = os.path.join(folder, NAME)
        self._folder, self._clock = folder, clock

    def there(self) -> bool:
        """Whether a run is under way."""
        return os.path.exists(self._path)

    def read(self) -> list[dict[str, Any]]:
        """The entries that are whole; none where there is no journal. Raises OSError."""
        return self._whole()[0]

    def append(self, entry: dict[str, Any]) -> None:
        """Add an entry, durably, with the time. Raises OSError."""
        known, length = self._whole()
        new = not self.there()
        line = json.dumps({"at": self._clock(), **entry}, separators=(",", ":")).encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.ftruncate(descriptor, length)  # a torn tail
            os.lseek(descriptor, length, os.SEEK_SET)
            try:
                write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                # The caller goes by what it was told: a `commit` that failed must not be found at the next start.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, length)
                raise
        finally:
            os.close(descriptor)
        if new or not known:
            fsync_folder(self._folder)

    def remove(self) -> None:
        """End the run, durably. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        fsync_folder(self._folder)

    def _whole(self) -> tuple[list[dict[str, Any]], int]:
        """The whole entries and the number of bytes they take."""
        try:
            with open(self._path, "rb") as file:
                data = file.read(MOST_BYTES)
        except FileNotFoundError:
            return [], 0
        entries: list[dict[str, Any]] = []
        length = 0
        for line in data.splitlines(keepends=True):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if not isinstance(entry, dict):
                break
            entries.append(entry)
            length += len(line)
        return entries, length
