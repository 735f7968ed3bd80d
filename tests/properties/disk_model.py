"""A disk that loses what it has not promised: replaces the `os` functions that change one, records, cuts the power.

    with Disk(root).recording(steps=k) as disk: write()        # PowerCut after k steps; disk.cut says if it came to that
    disk.survivor(random, target)                              # one state of the disk that the cut may leave

What the model promises, and no more:

- a file's octets are those of its last fsync, or any later state that was written, or cut short
- a change of names (create, link, rename, unlink, mkdir, rmdir) is durable once a folder it touches was fsynced after
  it, or the file itself; before that it may or may not have happened. Changes of one file's names happen in their order.
- a rename is one change: never both names, never none (journaling and copy-on-write file systems). With
  `rename_is_one=False` it is durable only by an fsync of the folder it went to, or of the file.
- changes of different files are kept or lost independently, in any order

Hard links are kept (st_nlink counts them). SQLite writes past this model: its commits are recorded as whole files, the
durable ones for good, the others kept or lost from the last durable one on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

CHANGING = (
    "open", "write", "writev", "copy_file_range", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "utime",
)  # fmt: skip


class PowerCut(BaseException):
    """The machine stopped here."""


@dataclass
class Node:
    """A file or a folder, as it was at the start."""

    folder: bool
    content: bytes = b""
    entries: dict[str, int] = field(default_factory=dict)
    versions: list[tuple[int, bytes]] = field(default_factory=list)  # (step, content) of each write
    synced: list[int] = field(default_factory=list)


@dataclass
class Names:
    """One change of names: entries set (or removed: None), at a step, of a node."""

    step: int
    node: int
    entries: list[tuple[int, str, int | None]]


class Disk:
    """The recorded disk below `root`."""

    def __init__(self, root: Path, *, rename_is_one: bool = True) -> None:
        self.root = root
        self.rename_is_one = rename_is_one
        self.step_number = 0
        self.limit = -1
        self.cut = False
        self.after_step: Callable[[], None] = lambda: None
        self.nodes: dict[int, Node] = {}
        self.names: list[Names] = []
        self.commits: dict[str, list[tuple[bytes, bool]]] = {}
        self._real = {name: getattr(os, name) for name in CHANGING}
        self._ids: dict[int, int] = {}  # inode number → node; inode numbers are used again, nodes are not
        self._next = 0
        self._top = self._read(root, {})

    def _read(self, path: Path, linked: dict[int, int]) -> int:
        inode = path.lstat().st_ino
        if inode in linked:
            return linked[inode]
        number = linked[inode] = self._node(inode, folder=path.is_dir())
        node = self.nodes[number]
        if node.folder:
            node.entries = {entry.name: self._read(entry, linked) for entry in path.iterdir()}
        else:
            node.content = path.read_bytes()
        return number

    def _node(self, inode: int, *, folder: bool) -> int:
        self._next += 1
        self._ids[inode] = self._next
        self.nodes[self._next] = Node(folder)
        return self._next

    @contextlib.contextmanager
    def recording(self, steps: int = -1) -> Iterator[Disk]:
        """Record; after `steps` changes (-1: never) raise PowerCut at each further one, and end quietly."""
        self.limit = steps
        with contextlib.ExitStack() as patched:
            for name in CHANGING:
                patched.enter_context(mock.patch.object(os, name, getattr(self, "_" + name)))
            with contextlib.suppress(PowerCut):
                yield self

    def step(self) -> int:
        """Count a change that is about to happen."""
        if self.cut or self.step_number == self.limit:
            self.cut = True
            raise PowerCut
        self.step_number += 1
        return self.step_number

    def commit(self, name: str, content: bytes, durable: bool) -> None:
        """A database's content after a commit."""
        self.commits.setdefault(name, []).append((content, durable))

    # --- what os does

    def _place(self, path: Any, dir_fd: int | None) -> tuple[int, str] | None:
        """(folder's node, name) of a path; None outside of the disk."""
        text = os.fspath(path)
        parent, name = os.path.split(text)
        status = os.stat(parent or ".", dir_fd=None if os.path.isabs(text) else dir_fd)
        number = self._ids.get(status.st_ino)
        return None if number is None else (number, name)

    def _at(self, path: Any, dir_fd: int | None) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
            return self._ids.get(status.st_ino)
        return None

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        unnamed = flags & os.O_TMPFILE == os.O_TMPFILE
        place = self._place(path, dir_fd) if flags & os.O_CREAT else None
        new = place is not None and self._at(path, dir_fd) is None
        step = self.step() if new or flags & os.O_TRUNC else 0
        descriptor: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if new and place:
            number = self._node(os.fstat(descriptor).st_ino, folder=False)
            self.names.append(Names(step, number, [(*place, number)]))
        elif unnamed:
            self._node(os.fstat(descriptor).st_ino, folder=False)
        self.after_step()
        return descriptor

    def _written(self, descriptor: int, step: int) -> None:
        number = self._ids.get(os.fstat(descriptor).st_ino)
        if number is not None:
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                self.nodes[number].versions.append((step, file.read()))
        self.after_step()

    def _write(self, descriptor: int, data: Any) -> int:
        step = self.step()
        written: int = self._real["write"](descriptor, data)
        self._written(descriptor, step)
        return written

    def _writev(self, descriptor: int, pieces: Any) -> int:
        step = self.step()
        written: int = self._real["writev"](descriptor, pieces)
        self._written(descriptor, step)
        return written

    def _copy_file_range(self, source: int, target: int, count: int, **offsets: Any) -> int:
        step = self.step()
        written: int = self._real["copy_file_range"](source, target, count, **offsets)
        self._written(target, step)
        return written

    def _fsync(self, descriptor: int) -> None:
        step = self.step()
        number = self._ids.get(os.fstat(descriptor).st_ino)
        if number is not None:
            self.nodes[number].synced.append(step)
        self.after_step()

    def _rename(
        self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        here, there = self._place(source, src_dir_fd), self._place(target, dst_dir_fd)
        number = self._at(source, src_dir_fd)
        step = self.step()
        self._real["rename"](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        assert here and there and number
        self.names.append(Names(step, number, [(*here, None), (*there, number)]))
        self.after_step()

    def _link(
        self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:  # fmt: skip
        there = self._place(target, dst_dir_fd)
        step = self.step()
        self._real["link"](
            source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks
        )
        number = self._at(target, dst_dir_fd)
        assert there and number
        self.names.append(Names(step, number, [(*there, number)]))
        self.after_step()

    def _gone(self, name: str, path: Any, dir_fd: int | None) -> None:
        place, number = self._place(path, dir_fd), self._at(path, dir_fd)
        step = self.step()
        self._real[name](path, dir_fd=dir_fd)
        if place and number:
            self.names.append(Names(step, number, [(*place, None)]))
        self.after_step()

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._gone("unlink", path, dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._gone("rmdir", path, dir_fd)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        place = self._place(path, dir_fd)
        step = self.step()
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if place:
            number = self._node(os.stat(path, dir_fd=dir_fd).st_ino, folder=True)
            self.names.append(Names(step, number, [(*place, number)]))
        self.after_step()

    def _utime(self, *arguments: Any, **options: Any) -> None:
        self._real["utime"](*arguments, **options)  # times are not part of the model

    # --- what is left

    def _durable(self, change: Names) -> bool:
        folders = [folder for folder, _, _ in change.entries]
        if not self.rename_is_one:
            folders = folders[-1:]
        return any(step > change.step for number in (*folders, change.node) for step in self.nodes[number].synced)

    def survivor(self, random: Random, target: Path, lost: str = "some") -> Path:
        """Build in `target` a state that the cut may leave. `lost`: "all" that may be lost, "none", or "some"."""
        of_node: dict[int, list[Names]] = {}
        for change in self.names:
            of_node.setdefault(change.node, []).append(change)
        kept: list[Names] = []
        for changes in of_node.values():
            least = max((index + 1 for index, change in enumerate(changes) if self._durable(change)), default=0)
            kept += changes[: {"all": least, "none": len(changes), "some": random.randint(least, len(changes))}[lost]]
        entries = {number: dict(node.entries) for number, node in self.nodes.items() if node.folder}
        for change in sorted(kept, key=lambda one: one.step):
            for folder, name, number in change.entries:
                if number is None:
                    entries[folder].pop(name, None)
                else:
                    entries[folder][name] = number
        self._build(self._top, target, entries, {}, random, lost)
        for name, commits in self.commits.items():
            least = max((index for index, (_, durable) in enumerate(commits) if durable), default=-1)
            last = len(commits) - 1
            chosen = {"all": least, "none": last, "some": random.randint(least, last)}[lost]
            if chosen >= 0:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(commits[chosen][0])
        return target

    def _build(
        self, number: int, path: Path, entries: dict[int, dict[str, int]], built: dict[int, Path], random: Random, lost: str
    ) -> None:  # fmt: skip
        node = self.nodes[number]
        if node.folder:
            if number in built:
                return  # a folder has one name; two come from changes lost out of order between its parents
            built[number] = path
            path.mkdir(exist_ok=True)
            for name, child in entries[number].items():
                self._build(child, path / name, entries, built, random, lost)
        elif number in built:
            os.link(built[number], path)
        else:
            built[number] = path
            path.write_bytes(self._content(node, random, lost))

    def _content(self, node: Node, random: Random, lost: str) -> bytes:
        synced = max(node.synced, default=0)
        durable = [content for step, content in node.versions if step < synced]
        least = durable[-1] if durable else node.content
        later = [content for step, content in node.versions if step >= synced]
        if lost == "all" or not later:
            return least
        if lost == "none":
            return later[-1]
        return random.choice([least, *later, later[-1][: len(later[-1]) // 2]])
