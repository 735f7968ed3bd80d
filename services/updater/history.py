"""What became of each run: `history.json` in the room's folder, the newest first.

The run's process writes an entry before it removes the journal; writing it again after a power cut changes nothing.
The room marks an entry once admin has taken it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from services.storage.atomic import write_durable
from services.updater import steps
from services.updater.steps import Run

NAME = "history.json"
MOST_ENTRIES = 50
TOLD = "told"  # ours: whether admin has it; not shown


def read(folder: str) -> list[dict[str, Any]]:
    """The entries, the newest first; none where the file is missing or damaged (it is a record, not a state)."""
    try:
        with open(os.path.join(folder, NAME), encoding="utf-8") as file:
            entries = list(json.load(file)["updates"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def add(folder: str, entry: Mapping[str, Any]) -> None:
    """Put `entry` first, in place of one with its id. Raises OSError."""
    others = [each for each in read(folder) if each["id"] != entry["id"]]
    write(folder, [dict(entry), *others])


def write(folder: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file, durably. Raises OSError."""
    document = {"updates": list(entries)[:MOST_ENTRIES]}
    write_durable(os.path.join(folder, NAME), json.dumps(document, separators=(",", ":")).encode())


def mark_told(folder: str, identity: str) -> None:
    """admin has the entry. Raises OSError."""
    write(folder, [{**each, TOLD: each.get(TOLD) or each["id"] == identity} for each in read(folder)])


def entry_of(run: Run, outcome: str, reason: str, now: float) -> dict[str, Any]:
    """The entry for a run that ended. `images` has what a rollback, and a second thought, need to know."""
    return {
        "id": run.id,
        "started": run.started,
        "ended": now,
        "outcome": outcome,
        "source": run.source,
        "services": [each.service for each in run.replacements],
        "reason": "; ".join(filter(None, [reason, *run.notes])),
        "seconds_closed": round(run.seconds_closed(now), 3),
        "steps": run.steps,
        "images": [
            {"service": each.service, "image": each.image, "from": each.old, "to": each.new, "digest": each.digest}
            for each in run.replacements
        ],
        TOLD: outcome == steps.NOTHING,
    }


def last_committed(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The update that a rollback would take back: the newest commit, unless that was a rollback itself."""
    for entry in entries:
        if entry.get("outcome") == steps.COMMITTED:
            return None if entry.get("source") == steps.BEFORE_UPDATE else entry
    return None


def refused(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Registry digest → why it is not taken by itself again: it was rolled back, by the gate or by the owner.

    A run by hand takes it all the same. A later commit of the same digest lifts it.
    """
    found: dict[str, str] = {}
    for entry in reversed(entries):
        images = [each for each in entry.get("images", ()) if isinstance(each, dict)]
        for image in images:
            digest, new = str(image.get("digest", "")), str(image.get("to", ""))
            if entry.get("source") == steps.BEFORE_UPDATE:
                continue
            if entry.get("outcome") == steps.ROLLED_BACK and digest:
                found[digest] = f"rolled back in {entry['id']}: {entry.get('reason', '')}"
            elif entry.get("outcome") == steps.COMMITTED and digest and new:
                found.pop(digest, None)
        if entry.get("source") == steps.BEFORE_UPDATE and entry.get("outcome") == steps.COMMITTED:
            left = {str(image.get("from", "")) for image in images}
            for earlier in entries:
                for image in earlier.get("images", ()):
                    if image.get("to") in left and image.get("digest"):
                        found[str(image["digest"])] = f"taken back by hand in {entry['id']}"
    return found


def shown(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries as `GET /v1/history` has them."""
    return [{name: value for name, value in entry.items() if name != TOLD} for entry in entries]
