"""Snapshots of directory.db: what an update's old code finds again when it is started in the place of the new.

`snapshots/ID/` holds `directory.db`, whole, and `snapshot.json` (`{"id", "code", "at"}`: which build wrote it). It is
taken when the directory closes for the update ID and removed when the updater says how the update ended.

At a start, `put_back` looks at what is there. A snapshot of another build's is left alone: this is the new code, and it
goes on with the directory as it is. One of this very build means that the old code was started again, so the directory
goes back to it, schema and all; where nothing was changed since, that changes nothing. Mail and spool are never put
back.

While the directory is closed nobody can change it, so nothing is lost. Should it open again with a snapshot still there
(an updater that never came back), the first change marks the snapshot, durably and before the change. A marked one is
put back only where this code cannot read the directory as it is, and then what it replaces is kept aside.

A power cut leaves a snapshot whole or not there; while one is being put back it stays, and the next start does it
again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.directory.database import Database, readable
from services.storage.atomic import fsync_folder, write_durable

FOLDER, DATABASE, FACTS, CHANGED = "snapshots", "directory.db", "snapshot.json", "changed"
_PARTIAL, _GONE = ".partial", ".gone"


@dataclass(frozen=True, slots=True)
class PutBack:
    """What `put_back` did with one snapshot, in a sentence for the owner."""

    id: str
    reason: str
    warning: bool = False


class Snapshots:
    """The snapshots of one admin room. Blocking; `take` and `mark` are called with the database's lock held."""

    def __init__(self, admin_dir: str, code: Callable[[], str], clock: Callable[[], float]) -> None:
        """Removes what a power cut left half made. `code` is this build's name."""
        self._admin_dir, self._folder = admin_dir, os.path.join(admin_dir, FOLDER)
        self._code, self._clock = code, clock
        for name in _names(self._folder):
            if name.endswith((_PARTIAL, _GONE)):
                shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)
        self._unmarked = {each for each in _kept(self._folder) if not self._marked(each)}

    def take(self, identity: str, database: Database) -> None:
        """Keep the directory as it is now, durably; the second time for an id changes nothing. Raises OSError,
        sqlite3.Error."""
        folder = os.path.join(self._folder, identity)
        if os.path.isdir(folder):
            return
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        partial = folder + _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        os.mkdir(partial, 0o700)
        facts = {"id": identity, "code": self._code(), "at": self._clock()}
        write_durable(os.path.join(partial, DATABASE), database.copy())
        write_durable(os.path.join(partial, FACTS), json.dumps(facts).encode())
        os.rename(partial, folder)
        fsync_folder(self._folder)
        fsync_folder(self._admin_dir)
        self._unmarked.add(identity)

    def settle(self, identity: str) -> bool:
        """The update has ended: its snapshot goes. False where there was none."""
        self._unmarked.discard(identity)
        return _remove(self._folder, identity)

    def mark(self) -> None:
        """The directory is about to change although an update was never settled. Raises OSError."""
        for identity in sorted(self._unmarked):
            write_durable(os.path.join(self._folder, identity, CHANGED), b"")
            self._unmarked.discard(identity)

    def _marked(self, identity: str) -> bool:
        return os.path.exists(os.path.join(self._folder, identity, CHANGED))


def put_back(admin_dir: str, code: Callable[[], str]) -> list[PutBack]:
    """Before the directory is opened: put back what this build's snapshots hold. Raises OSError."""
    done = []
    folder = os.path.join(admin_dir, FOLDER)
    for identity in _kept(folder):
        snapshot = os.path.join(folder, identity)
        facts = _facts(snapshot)
        if facts is None or facts.get("code") != code():
            continue
        current = os.path.join(admin_dir, DATABASE)
        if not os.path.exists(os.path.join(snapshot, CHANGED)):
            _replace(admin_dir, snapshot, aside="")
            done.append(PutBack(identity, f"the directory is as it was before the update {identity}"))
        elif readable(current):
            _remove(folder, identity)
            text = f"the directory was changed after the update {identity} and stays as it is"
            done.append(PutBack(identity, text, warning=True))
        else:
            aside = f"{DATABASE}.after-{identity}"
            _replace(admin_dir, snapshot, aside)
            _remove(folder, identity)
            text = (
                f"this version cannot read the directory that the update {identity} left: it is as it was before the "
                f"update, and the later one is kept as {aside}"
            )
            done.append(PutBack(identity, text, warning=True))
    return done


def _replace(admin_dir: str, snapshot: str, aside: str) -> None:
    """Put the snapshot in the directory's place; `aside`, where named, is what the present one is called then."""
    current = os.path.join(admin_dir, DATABASE)
    with open(os.path.join(snapshot, DATABASE), "rb") as file:
        data = file.read()
    fresh = current + ".put-back"
    write_durable(fresh, data)
    # SQLite would apply a WAL that belongs to the present file to the one that takes its place: away with it first.
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            if aside:
                os.rename(current + suffix, os.path.join(admin_dir, aside + suffix))
            elif suffix:
                os.unlink(current + suffix)
    fsync_folder(admin_dir)
    os.rename(fresh, current)
    fsync_folder(admin_dir)


def _remove(folder: str, identity: str) -> bool:
    """Take a snapshot away: by name first, so that none is ever half there."""
    gone = os.path.join(folder, identity + _GONE)
    shutil.rmtree(gone, ignore_errors=True)
    try:
        os.rename(os.path.join(folder, identity), gone)
    except FileNotFoundError:
        return False
    fsync_folder(folder)
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _kept(folder: str) -> list[str]:
    return [name for name in _names(folder) if not name.endswith((_PARTIAL, _GONE))]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _facts(snapshot: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(snapshot, FACTS), "rb") as file:
            value = json.loads(file.read(1 << 16))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
