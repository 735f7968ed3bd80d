"""A power cut at any step of a writer, for tests: `with power_cut(steps) as cut: write()`.

Replaces the `os` functions that change a disk. The step after `steps` raises PowerCut, and so does every later one, so
that no clean-up runs that a machine without power could not run. Then the disk is put into a state that POSIX allows:
what was written but not fsynced is gone, and of the creations, renames and removals in folders that were not fsynced
since, `names_lost` are: "none", "all", or "older", all but the last (a file system may write names in any order).
Covers small files written through `os`; not mmap, not SQLite.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

NAMES_LOST = ("none", "all", "older")
CHANGING = ("open", "write", "fsync", "fchmod", "rename", "replace", "mkdir", "symlink", "unlink", "rmdir", "truncate")


class PowerCut(BaseException):
    """The machine stopped here."""


class Disk:
    """Counts steps and remembers what a cut would take away."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.happened = False
        self.done: list[str] = []
        self._real = {name: getattr(os, name) for name in CHANGING}
        self._paths: dict[int, str] = {}
        self._unsynced: dict[str, None] = {}
        self._undo: list[tuple[str, Callable[[], None]]] = []

    def step(self, name: str, path: str) -> None:
        if self.left == 0:
            self.happened = True
        if self.happened:
            raise PowerCut(f"before {name} {path}")
        self.left -= 1
        self.done.append(f"{name} {Path(path).name}")

    def at(self, path: Any, dir_fd: int | None) -> str:
        text = os.fsdecode(path)
        return text if dir_fd is None or os.path.isabs(text) else os.path.join(self._paths[dir_fd], text)

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self.at(path, dir_fd)
        creates = bool(flags & os.O_CREAT) and not os.path.lexists(name)
        if flags & (os.O_CREAT | os.O_TRUNC):
            self.step("open", name)
        descriptor: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        self._paths[descriptor] = name
        if creates:
            self._names_changed(name, lambda: os.path.lexists(name) and self._real["unlink"](name))
            self._unsynced[name] = None
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        self.step("write", self._paths.get(descriptor, "?"))
        self._unsynced[self._paths[descriptor]] = None
        written: int = self._real["write"](descriptor, data)
        return written

    def fsync(self, descriptor: int) -> None:
        path = self._paths[descriptor]
        self.step("fsync", path)
        self._real["fsync"](descriptor)
        self._unsynced.pop(path, None)
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]

    def fchmod(self, descriptor: int, mode: int) -> None:
        self.step("fchmod", self._paths[descriptor])
        self._real["fchmod"](descriptor, mode)

    def rename(self, source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        old, new = self.at(source, src_dir_fd), self.at(target, dst_dir_fd)
        self.step("rename", new)
        restore = self._keep(new)
        self._real["rename"](old, new)
        if old in self._unsynced:
            del self._unsynced[old]
            self._unsynced[new] = None

        def undo() -> None:
            self._real["rename"](new, old)
            restore()

        self._names_changed(new, undo)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        name = self.at(path, dir_fd)
        if not os.path.lexists(name):
            self.step("mkdir", name)
            self._names_changed(name, lambda: shutil.rmtree(name, ignore_errors=True))
        self._real["mkdir"](path, mode, dir_fd=dir_fd)

    def symlink(self, target: Any, link: Any, *rest: Any, dir_fd: int | None = None) -> None:
        name = self.at(link, dir_fd)
        self.step("symlink", name)
        self._real["symlink"](target, name)
        self._names_changed(name, lambda: self._real["unlink"](name))

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        name = self.at(path, dir_fd)
        self.step("unlink", name)
        restore = self._keep(name)
        self._real["unlink"](name)
        self._names_changed(name, restore)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        name = self.at(path, dir_fd)
        self.step("rmdir", name)
        self._real["rmdir"](name)
        self._names_changed(name, lambda: self._real["mkdir"](name))

    def truncate(self, path: Any, length: int) -> None:
        raise AssertionError("not modelled")

    replace = rename

    def _keep(self, name: str) -> Callable[[], None]:
        """How to bring back what is at `name` now."""
        if os.path.islink(name):
            link = os.readlink(name)
            return lambda: self._real["symlink"](link, name)
        if os.path.isfile(name):
            content, mode = Path(name).read_bytes(), os.stat(name).st_mode

            def restore() -> None:
                Path(name).write_bytes(content)
                Path(name).chmod(mode & 0o7777)

            return restore
        return lambda: None

    def _names_changed(self, name: str, undo: Callable[[], Any]) -> None:
        self._undo.append((os.path.dirname(name), undo))

    def lose(self, names_lost: str) -> None:
        """Take away what the disk had not promised to keep."""
        for path in self._unsynced:
            if os.path.isfile(path) and not os.path.islink(path):
                Path(path).write_bytes(b"")
        lost = {"none": [], "all": self._undo, "older": self._undo[:-1]}[names_lost]
        for _, undo in reversed(lost):
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                undo()


@contextlib.contextmanager
def power_cut(steps: int, *, names_lost: str = "none") -> Iterator[Disk]:
    """Let `steps` changes of the disk happen, then cut the power; `disk.happened` says whether it came to that."""
    disk = Disk(steps)
    with contextlib.ExitStack() as patched:
        for name in CHANGING:
            patched.enter_context(mock.patch.object(os, name, getattr(disk, name)))
        with contextlib.suppress(PowerCut):
            yield disk
    if disk.happened:
        disk.lose(names_lost)
