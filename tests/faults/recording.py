"""What a process did to a disk, in order: its system calls as `strace` saw them, read into changes of files and names.

Covers everything that changes a file or a folder through a system call, also SQLite's own writes, threads and child
processes. Not covered: writes through a shared memory map (SQLite's `-shm`, which is made anew after a restart), owners,
modes and times (they count as done).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,read,lseek,write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,"
    "fsync,fdatasync,sync,syncfs,sync_file_range,ftruncate,truncate,fallocate,rename,renameat,renameat2,link,linkat,"
    "symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,clone,clone3,fork,vfork,chdir,fchdir"
)
LONGEST = 1 << 22  # octets of one write that strace shows
AT_FDCWD = -100

_LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded: its text after the parenthesis, and its result."""

    thread: int
    name: str
    arguments: str
    result: int

    @property
    def texts(self) -> list[bytes]:
        """The octets of its quoted arguments, in order."""
        return [bytes.fromhex(found.replace("\\x", "")) for found in _TEXT.findall(self.arguments)]

    @property
    def words(self) -> list[str]:
        """Its arguments in strace's words, quoted ones as ""; structures fall apart at their commas."""
        return [word.strip() for word in _TEXT.sub('""', self.arguments).split(",")]


def calls(lines: Iterator[str]) -> Iterator[Call]:
    """The calls of a trace in the order in which they ended, those that failed left out."""
    unfinished: dict[int, tuple[str, str]] = {}
    for line in lines:
        found = _LINE.match(line)
        if not found:
            continue
        thread, resumed, name, rest = int(found[1]), found[2], found[3], found[4]
        if resumed:
            name, begun = unfinished.pop(thread, (resumed, ""))
            if name == "close":
                continue
            rest = begun + rest
        elif rest.endswith("<unfinished ...>"):
            begun = rest.removesuffix("<unfinished ...>")
            unfinished[thread] = (name, begun)
            if name == "close":  # its number is free at once: another thread may have it before this one returns
                yield Call(thread, name, begun.strip(" )"), 0)
            continue
        arguments, closed, result = rest.rpartition(") ")
        value = re.match(r" *= +(-?\d+|0x[0-9a-f]+)", result)
        if closed and value and not value[1].startswith("-"):
            yield Call(thread, name, arguments, int(value[1], 0))


# --- changes of the disk


@dataclass(slots=True)
class Node:
    """A file or a folder. `content` is what it has before the recording."""

    folder: bool
    content: bytes = b""
    entries: dict[str, int] = field(default_factory=dict)
    link: str = ""  # of a symbolic link


@dataclass(frozen=True, slots=True)
class Write:
    """Octets written into a file."""

    node: int
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file cut, or made longer by zeros."""

    node: int
    size: int


@dataclass(frozen=True, slots=True)
class Names:
    """One change of names: entries (folder, name, node or None for removed), of a node."""

    node: int
    entries: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or folder is down; node None: everything is."""

    node: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """What the process told the outside at this moment."""

    what: str


Change = Write | Resize | Names | Synced | Told


@dataclass
class Recording:
    """The disk below `root` before, and every change of it in order. Nodes are numbered from 1, the root's number."""

    nodes: dict[int, Node]
    changes: list[Change]

    @property
    def told(self) -> list[str]:
        return [change.what for change in self.changes if isinstance(change, Told)]


class _File:
    """An open file: shared by descriptors that were duplicated."""

    __slots__ = ("append", "at", "node")

    def __init__(self, node: int | None, append: bool) -> None:
        self.node, self.append, self.at = node, append, 0


class _Reader:
    """Follows the calls of all processes and keeps the tree as it is at each moment."""

    def __init__(self, root: Path, told: Path) -> None:
        self.root, self.told = str(root), str(told)
        self.nodes: dict[int, Node] = {}
        self.live: dict[int, bytearray] = {}
        self.changes: list[Change] = []
        self._files: dict[int, dict[int, _File]] = {}  # thread → descriptors; threads of one process share one
        self._paths: dict[int, dict[int, str]] = {}  # thread → descriptor → the path it was opened by
        self._copy(root, {})

    def _copy(self, path: Path, known: dict[int, int]) -> int:
        inode = path.lstat().st_ino
        if inode in known:
            return known[inode]
        number = known[inode] = self._node(folder=path.is_dir() and not path.is_symlink())
        node = self.nodes[number]
        if path.is_symlink():
            node.link = os.readlink(path)
        elif node.folder:
            node.entries = {entry.name: self._copy(entry, known) for entry in sorted(path.iterdir())}
        else:
            node.content = path.read_bytes()
            self.live[number] = bytearray(node.content)
        return number

    def _node(self, *, folder: bool, link: str = "") -> int:
        number = len(self.nodes) + 1
        self.nodes[number] = Node(folder, link=link)
        self.live[number] = bytearray()
        return number

    # --- the tree as it is now: kept beside the nodes, whose entries stay those of before

    def follow(self, trace: Iterator[str]) -> Recording:
        self.tree = {number: dict(node.entries) for number, node in self.nodes.items() if node.folder}
        for call in calls(trace):
            handle = getattr(self, "_" + call.name, None)
            if handle:
                handle(call)
        return Recording(self.nodes, self.changes)

    def _of(self, thread: int) -> tuple[dict[int, _File], dict[int, str]]:
        # A thread may be seen before the call that made it has returned; a process made by fork comes after its own.
        if thread not in self._files:
            first = next(iter(self._files), thread)
            self._files[thread], self._paths[thread] = self._files.get(first, {}), self._paths.get(first, {})
        return self._files[thread], self._paths[thread]

    def _absolute(self, call: Call, folder: str, path: bytes) -> str:
        text = os.fsdecode(path)
        if not text.startswith("/"):
            base = str(ROOT) if folder == "AT_FDCWD" else self._of(call.thread)[1].get(int(folder), "?")
            text = os.path.join(base, text)
        return os.path.normpath(text)

    def _place(self, path: str) -> tuple[int, str] | None:
        """(folder's node, name) of a path below the root."""
        below = os.path.relpath(path, self.root)
        if below.startswith("..") or below == ".":
            return None
        *folders, name = below.split("/")
        number = 1
        for index, folder in enumerate(folders):
            inner = self.tree.get(number, {}).get(folder)
            if inner is None:
                return None
            if self.nodes[inner].link:
                start = os.path.join(self.root, *folders[:index], self.nodes[inner].link)
                return self._place(os.path.normpath(os.path.join(start, *folders[index + 1 :], name)))
            number = inner
        return number, name

    def _at(self, path: str) -> int | None:
        if path == self.root:
            return 1
        place = self._place(path)
        if place is None:
            return None
        found = self.tree[place[0]].get(place[1])
        if found is not None and self.nodes[found].link:
            return self._at(os.path.normpath(os.path.join(os.path.dirname(path), self.nodes[found].link)))
        return found

    def _change(self, node: int, *entries: tuple[int, str, int | None]) -> None:
        for folder, name, target in entries:
            if target is None:
                self.tree[folder].pop(name, None)
            else:
                self.tree[folder][name] = target
        self.changes.append(Names(node, entries))

    # --- descriptors

    def _openat(self, call: Call) -> None:
        words = call.words
        self._opened(call, self._absolute(call, words[0], call.texts[0]), words[2])

    def _open(self, call: Call) -> None:
        self._opened(call, self._absolute(call, "AT_FDCWD", call.texts[0]), call.words[1])

    def _creat(self, call: Call) -> None:
        self._opened(call, self._absolute(call, "AT_FDCWD", call.texts[0]), "O_CREAT|O_TRUNC")

    def _opened(self, call: Call, path: str, flags: str) -> None:
        files, paths = self._of(call.thread)
        paths[call.result] = path
        node: int | None
        if "O_TMPFILE" in flags and self._at(path) is not None:
            node = self._node(folder=False)
        else:
            node = self._at(path)
            place = self._place(path)
            if node is None and place and "O_CREAT" in flags:
                node = self._node(folder=False)
                self._change(node, (*place, node))
        files[call.result] = _File(node, "O_APPEND" in flags)
        if node is not None and "O_TRUNC" in flags and self.live[node]:
            self._resized(node, 0)

    def _close(self, call: Call) -> None:
        files, paths = self._of(call.thread)
        files.pop(int(call.words[0]), None)
        paths.pop(int(call.words[0]), None)

    def _dup(self, call: Call) -> None:
        files, paths = self._of(call.thread)
        old = int(call.words[0])
        if old in files:
            files[call.result], paths[call.result] = files[old], paths.get(old, "?")

    _dup2 = _dup3 = _dup

    def _fcntl(self, call: Call) -> None:
        if "F_DUPFD" in call.words[1]:
            self._dup(call)

    def _clone(self, call: Call) -> None:
        files, paths = self._of(call.thread)
        if call.result and "CLONE_FILES" not in call.arguments:
            self._files[call.result], self._paths[call.result] = dict(files), dict(paths)

    _clone3 = _fork = _vfork = _clone

    def _file(self, call: Call, word: int = 0) -> _File | None:
        return self._of(call.thread)[0].get(int(call.words[word]))

    def _lseek(self, call: Call) -> None:
        if file := self._file(call):
            file.at = call.result

    def _read(self, call: Call) -> None:
        if file := self._file(call):
            file.at += call.result

    # --- contents

    def _wrote(self, call: Call, data: bytes, at: int | None = None) -> None:
        file = self._file(call)
        if file is None:
            return
        if self._of(call.thread)[1].get(int(call.words[0])) == self.told:
            self.changes += [Told(line) for line in data.decode().splitlines()]
            return
        data = data[: call.result]
        if file.node is None or not data:
            return
        live = self.live[file.node]
        where = at if at is not None else len(live) if file.append else file.at
        if at is None:
            file.at = where + len(data)
        live.extend(bytes(max(0, where - len(live))))
        live[where : where + len(data)] = data
        self.changes.append(Write(file.node, where, data))

    def _write(self, call: Call) -> None:
        self._wrote(call, call.texts[0])

    def _pwrite64(self, call: Call) -> None:
        self._wrote(call, call.texts[0], int(call.words[-1]))

    def _writev(self, call: Call) -> None:
        self._wrote(call, b"".join(call.texts))

    def _pwritev(self, call: Call) -> None:
        words = call.words
        self._wrote(call, b"".join(call.texts), int(words[-1] if call.name == "pwritev" else words[-2]))

    _pwritev2 = _pwritev

    def _copy_file_range(self, call: Call) -> None:
        words = call.words
        source, target = self._file(call, 0), self._file(call, 2)
        if source is None or target is None or target.node is None:
            return
        offset = re.search(r"\[(\d+)\]", words[1])
        start = int(offset[1]) if offset else source.at
        data = bytes(self.live[source.node][start : start + call.result]) if source.node else b""
        assert len(data) == call.result, "a copy from outside of the recorded folder"
        if not offset:
            source.at += call.result
        there = re.search(r"\[(\d+)\]", words[3])
        moved = Call(call.thread, call.name, words[2], call.result)
        self._wrote(moved, data, int(there[1]) if there else None)

    def _sendfile(self, call: Call) -> None:
        target, source = self._file(call, 0), self._file(call, 1)
        if source is None or target is None or target.node is None:
            return
        offset = re.search(r"\[(\d+)\]", call.words[2])
        start = int(offset[1]) if offset else source.at
        assert source.node, "a copy from outside of the recorded folder"
        data = bytes(self.live[source.node][start : start + call.result])
        self._wrote(Call(call.thread, call.name, call.words[0], call.result), data)

    def _resized(self, node: int, size: int) -> None:
        live = self.live[node]
        del live[size:]
        live.extend(bytes(size - len(live)))
        self.changes.append(Resize(node, size))

    def _ftruncate(self, call: Call) -> None:
        file = self._file(call)
        if file and file.node is not None:
            self._resized(file.node, int(call.words[1]))

    def _truncate(self, call: Call) -> None:
        node = self._at(self._absolute(call, "AT_FDCWD", call.texts[0]))
        if node is not None:
            self._resized(node, int(call.words[1]))

    def _fallocate(self, call: Call) -> None:
        file, words = self._file(call), call.words
        if file and file.node is not None and words[1] == "0":
            self._resized(file.node, max(len(self.live[file.node]), int(words[2]) + int(words[3])))

    # --- what is down

    def _fsync(self, call: Call) -> None:
        file = self._file(call)
        if file and file.node is not None:
            self.changes.append(Synced(file.node))

    _fdatasync = _fsync

    def _sync(self, call: Call) -> None:
        self.changes.append(Synced(None))

    _syncfs = _sync

    # --- names

    def _renameat(self, call: Call) -> None:
        words, texts = call.words, call.texts
        self._renamed(self._absolute(call, words[0], texts[0]), self._absolute(call, words[2], texts[1]))

    _renameat2 = _renameat

    def _rename(self, call: Call) -> None:
        here, there = (self._absolute(call, "AT_FDCWD", text) for text in call.texts)
        self._renamed(here, there)

    def _renamed(self, here: str, there: str) -> None:
        old, new = self._place(here), self._place(there)
        if old is None or new is None:
            assert old is None and new is None, f"{here} moved over the edge of the recorded folder"
            return
        node = self.tree[old[0]][old[1]]
        self._change(node, (*old, None), (*new, node))

    def _linkat(self, call: Call) -> None:
        words, texts = call.words, call.texts
        source = self._absolute(call, words[0], texts[0])
        if opened := re.fullmatch(r"/proc/(?:self|\d+)/fd/(\d+)", source):
            file = self._of(call.thread)[0].get(int(opened[1]))
            node = file.node if file else None
        else:
            node = self._at(source)
        place = self._place(self._absolute(call, words[2], texts[1]))
        if node is not None and place:
            self._change(node, (*place, node))

    def _link(self, call: Call) -> None:
        here, there = (self._absolute(call, "AT_FDCWD", text) for text in call.texts)
        node, place = self._at(here), self._place(there)
        if node is not None and place:
            self._change(node, (*place, node))

    def _symlinkat(self, call: Call) -> None:
        target, link = call.texts
        self._linked(target, self._absolute(call, call.words[1], link))

    def _symlink(self, call: Call) -> None:
        target, link = call.texts
        self._linked(target, self._absolute(call, "AT_FDCWD", link))

    def _linked(self, target: bytes, link: str) -> None:
        if place := self._place(link):
            node = self._node(folder=False, link=os.fsdecode(target))
            self._change(node, (*place, node))

    def _gone(self, path: str) -> None:
        place = self._place(path)
        if place and (node := self.tree[place[0]].get(place[1])):
            self._change(node, (*place, None))

    def _unlinkat(self, call: Call) -> None:
        self._gone(self._absolute(call, call.words[0], call.texts[0]))

    def _unlink(self, call: Call) -> None:
        self._gone(self._absolute(call, "AT_FDCWD", call.texts[0]))

    _rmdir = _unlink

    def _mkdirat(self, call: Call) -> None:
        self._made(self._absolute(call, call.words[0], call.texts[0]))

    def _mkdir(self, call: Call) -> None:
        self._made(self._absolute(call, "AT_FDCWD", call.texts[0]))

    def _made(self, path: str) -> None:
        if place := self._place(path):
            node = self._node(folder=True)
            self.tree[node] = {}
            self._change(node, (*place, node))

    def _chdir(self, call: Call) -> None:
        raise AssertionError("a writer that changes its folder is not followed")

    _fchdir = _chdir


def record(scratch: Path, root: Path, *command: str, seconds: float = 120) -> Recording:
    """Run `python COMMAND... ROOT TOLD` under strace and read what it did below `root`; it must end with status 0."""
    trace, told = scratch / "trace", scratch / "told"
    told.touch()
    reader = _Reader(root, told)
    done = subprocess.run(
        ["strace", "-f", "-qq", "-xx", "-s", str(LONGEST), "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none",
         "-o", str(trace), sys.executable, *command, str(root), str(told)],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    with trace.open() as lines:
        recording = reader.follow(lines)
    same(root, reader)
    return recording


def same(root: Path, reader: _Reader) -> None:
    """Hold the followed tree to the real one: what was read wrongly would make the cuts meaningless."""

    def compare(path: Path, number: int) -> None:
        node = reader.nodes[number]
        if node.link:
            assert os.readlink(path) == node.link, path
        elif node.folder:
            found = {entry.name for entry in path.iterdir()}
            assert found == set(reader.tree[number]), (path, found ^ set(reader.tree[number]))
            for name in sorted(found):
                compare(path / name, reader.tree[number][name])
        elif not path.name.endswith("-shm"):
            assert path.read_bytes() == reader.live[number], path

    compare(root, 1)


def tell(told: str, **what: object) -> None:
    """Called by a recorded process: say that this is promised from now on."""
    with open(told, "a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")
