"""The tar: written in one pass with a sum for each file, read in one pass and held to these sums.

Not thread-safe, not seekable: the tar may be as large as all mail, so neither side keeps it. The last member,
SHA256SUMS, has a line for each file in the order of the files; without it the tar is not whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from services.backup.contents import SUMS

BUFFER = 1 << 20
# A line of SHA256SUMS is remembered by this much of its own sum: 16 MB for a million messages.
REMEMBERED = 16


class DamagedBackup(Exception):
    """The tar is not one of ours, cut off, or not as it was written; the text says where."""


class Writer:
    """Adds members to a tar on `output`."""

    def __init__(self, output: IO[bytes], sums: IO[bytes]) -> None:
        """`sums` is an empty temporary file; its lines are too many for the memory of a small machine."""
        self._tar = tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=BUFFER)  # noqa: SIM115
        self._sums = sums
        self.files = 0
        self.octets = 0

    def folder(self, name: str, state: os.stat_result) -> None:
        """A folder with its owner and mode."""
        self._tar.addfile(_member(name, tarfile.DIRTYPE, state))

    def link(self, name: str, target: str, state: os.stat_result) -> None:
        """A symbolic link."""
        member = _member(name, tarfile.SYMTYPE, state)
        member.linkname = target
        self._tar.addfile(member)

    def file(self, name: str, path: str) -> None:
        """The file at `path`, as long as it is now; what is appended meanwhile is left out. Follows no link.

        Raises FileNotFoundError; DamagedBackup where the file got shorter while it was read.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as source:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                return  # a FIFO or device that somebody put there is not mail
            member = _member(name, tarfile.REGTYPE, state)
            member.size = state.st_size
            self._add(member, source)

    def data(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """A file with these octets, root's."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode
        self._add(member, io.BytesIO(content))

    def close(self) -> None:
        """Write the sums and end the tar."""
        member = tarfile.TarInfo(SUMS)
        member.size, member.mode = self._sums.tell(), 0o600
        self._sums.seek(0)
        self._tar.addfile(member, self._sums)
        self._tar.close()

    def _add(self, member: tarfile.TarInfo, source: _Reads) -> None:
        summed = _Summed(source, member.size)
        try:
            self._tar.addfile(member, summed)
        except OSError as error:
            if summed.left:
                raise DamagedBackup(f"{member.name} got shorter while it was copied") from error
            raise
        self._sums.write(_line(summed.sum.hexdigest(), member.name))
        self.files += 1
        self.octets += member.size


@dataclass(frozen=True, slots=True)
class Member:
    """What a reader gets: the header and, for a file, its contents to be read to the end."""

    info: tarfile.TarInfo
    contents: _Reads | None


def members(source: IO[bytes]) -> Iterator[Member]:
    """Each member of the tar on `source`; after the last one the sums are compared.

    The caller reads every file's contents. Raises DamagedBackup.
    """
    seen = bytearray()
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=BUFFER) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # a stream needs no index, and a million would stay
                if info.name == SUMS:
                    _compare(seen, tar.extractfile(info))
                    return
                if not info.isreg():
                    yield Member(info, None)
                    continue
                contents = tar.extractfile(info)
                assert contents is not None
                summed = _Summed(contents, info.size)
                yield Member(info, summed)
                while summed.read(BUFFER):
                    pass
                if summed.left:
                    raise DamagedBackup(f"{info.name} is cut off")
                seen += hashlib.sha256(_line(summed.sum.hexdigest(), info.name)).digest()[:REMEMBERED]
    except (tarfile.TarError, EOFError) as error:
        raise DamagedBackup(f"not a whole tar: {error}") from None
    raise DamagedBackup(f"it ends without {SUMS}: the backup was cut off")


class _Reads(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Summed:
    """Reads at most `left` octets from `source` and sums them."""

    def __init__(self, source: _Reads, left: int) -> None:
        self._source, self.left = source, left
        self.sum = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        try:
            chunk = self._source.read(min(size, self.left) if size >= 0 else self.left)
        except tarfile.TarError as error:
            raise DamagedBackup(f"not a whole tar: {error}") from None
        self.left -= len(chunk)
        self.sum.update(chunk)
        return chunk


def _member(name: str, kind: bytes, state: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = stat.S_IMODE(state.st_mode)
    member.uid, member.gid, member.mtime = state.st_uid, state.st_gid, int(state.st_mtime)
    return member


def _line(digest: str, name: str) -> bytes:
    """A line as `sha256sum` writes it; a name with a line end is escaped by a leading backslash."""
    raw = name.encode("utf-8", "surrogateescape")
    escaped = raw.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != raw else b"") + digest.encode("ascii") + b"  " + escaped + b"\n"


def _compare(seen: bytearray, sums: IO[bytes] | None) -> None:
    assert sums is not None
    place = 0
    for line in sums:
        here = seen[place : place + REMEMBERED]
        if not here:
            raise DamagedBackup(f"{_named(line)} is missing")
        if hashlib.sha256(line).digest()[:REMEMBERED] != here:
            raise DamagedBackup(f"{_named(line)} is not as it was written")
        place += REMEMBERED
    if place != len(seen):
        raise DamagedBackup(f"it has files that {SUMS} does not name")


def _named(line: bytes) -> str:
    return line.partition(b"  ")[2].rstrip(b"\n").decode("utf-8", "replace") or "a file"
