"""The disks that a power cut may leave of a recording: a model of what a file system promises, and no more.

- Octets written into a file are down by an fsync or fdatasync of it, or by a sync of all. Of the writes after that, each
  may be there or not, whole or its first sectors only or as zeros, in any order.
- A change of names (create, link, rename, remove) is down by an fsync of a folder that it touches, or, as journaling
  file systems have it, of the file itself. Before that it may have happened or not; those of one file happen in order.
- A rename is one change: never both names, never none.

`cuts` gives places to cut, `survivor` builds one disk.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.faults.recording import Change, Names, Recording, Resize, Synced, Told, Write

SECTOR = 512


def cuts(recording: Recording) -> list[int]:
    """Numbers of changes done when the power goes: after each that may make a difference."""
    return [0] + [
        index + 1 for index, change in enumerate(recording.changes) if not isinstance(change, Told)
    ] + [len(recording.changes)]  # fmt: skip


def told_before(recording: Recording, cut: int) -> list[str]:
    """What had been told when the power went."""
    return [change.what for change in recording.changes[:cut] if isinstance(change, Told)]


def survivor(recording: Recording, cut: int, lost: str, chance: Random, target: Path) -> Path:
    """Build in `target` a disk that a cut after `cut` changes may leave; `lost`: "all", "none" or "some" of what may be."""
    changes = recording.changes[:cut]
    synced: dict[int | None, int] = {}
    for index, change in enumerate(changes):
        if isinstance(change, Synced):
            synced[change.node] = index
    everything = synced.get(None, -1)

    def down(node: int, index: int) -> bool:
        return max(synced.get(node, -1), everything) > index

    entries = {number: dict(node.entries) for number, node in recording.nodes.items() if node.folder}
    for change in _kept_names(changes, down, lost, chance):
        for folder, name, node in change.entries:
            if node is None:
                entries[folder].pop(name, None)
            else:
                entries[folder][name] = node
    contents: dict[int, bytearray] = {}
    for index, change in enumerate(changes):
        if isinstance(change, (Write, Resize)):
            content = contents.setdefault(change.node, bytearray(recording.nodes[change.node].content))
            _apply(content, change, "none" if down(change.node, index) else lost, chance)
    _build(recording, 1, target, entries, contents, {})
    return target


def _kept_names(changes: Sequence[Change], down, lost: str, chance: Random) -> list[Names]:  # type: ignore[no-untyped-def]
    """The changes of names that have happened, in order."""
    of_node: dict[int, list[int]] = {}
    for index, change in enumerate(changes):
        if isinstance(change, Names):
            of_node.setdefault(change.node, []).append(index)
    kept: list[int] = []
    for node, indices in of_node.items():
        least = 0
        for position, index in enumerate(indices):
            change = changes[index]
            assert isinstance(change, Names)
            if down(node, index) or any(down(folder, index) for folder, _, _ in change.entries):
                least = position + 1
        count = {"all": least, "none": len(indices), "some": chance.randint(least, len(indices))}[lost]
        kept += indices[:count]
    return [change for index in sorted(kept) if isinstance(change := changes[index], Names)]


def _apply(content: bytearray, change: Write | Resize, lost: str, chance: Random) -> None:
    if lost == "all" or (lost == "some" and chance.random() < 0.4):
        return
    if isinstance(change, Resize):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    data = change.data
    if lost == "some" and chance.random() < 0.3:
        # Torn: sectors are written whole, a write of many is not.
        edge = -change.at % SECTOR
        edges = [0, *range(edge or SECTOR, len(data), SECTOR), len(data)]
        data = data[: edges[bisect_right(edges, chance.randint(0, len(data))) - 1]]
    elif lost == "some" and chance.random() < 0.15:
        data = bytes(len(data))  # the file has grown, what was to stand there has not come
    content.extend(bytes(max(0, change.at - len(content))))
    content[change.at : change.at + len(data)] = data


def _build(
    recording: Recording, number: int, path: Path, entries: dict[int, dict[str, int]],
    contents: dict[int, bytearray], built: dict[int, Path],
) -> None:  # fmt: skip
    node = recording.nodes[number]
    if node.link:
        path.symlink_to(node.link)
    elif node.folder:
        if number in built:
            return  # two names of one folder come from changes of its parents lost out of order
        built[number] = path
        path.mkdir(exist_ok=True)
        for name, child in entries[number].items():
            _build(recording, child, path / name, entries, contents, built)
    elif number in built:
        os.link(built[number], path)
    else:
        built[number] = path
        path.write_bytes(contents.get(number, node.content))
