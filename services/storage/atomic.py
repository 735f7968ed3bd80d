"""Small files that are either wholly there or not at all, also after a power cut.

Called by everything here that writes a file of its own (keywords, markers) and by rooms for their small state. The
order is always: write beside, fsync the file, rename over, fsync the folder. Never renames before the data is down:
ext4 with delayed allocation would otherwise leave an empty file under the good name.
"""

from __future__ import annotations

import contextlib
import os
import secrets


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every octet; `os.write` may take fewer. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def fsync_folder(path: str | int) -> None:
    """Make the names in a folder durable (creations, renames, removals). `path` may be an open descriptor."""
    if isinstance(path, int):
        os.fsync(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durable(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`, durably; readers see the old content or the new. Raises OSError."""
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_durable_at(descriptor, name, data, mode)
    finally:
        os.close(descriptor)


def write_durable_at(folder: int, name: str, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """`write_durable` for `name` in an open folder. `mode` holds whatever the umask.

    `durable` False: for what is soon made again. Readers see old or new all the same, but for a power cut, which may
    leave it empty.
    """
    beside = f".{name[:200]}.{secrets.token_hex(6)}"
    descriptor = os.open(
        beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder
    )
    try:
        try:
            os.fchmod(descriptor, mode)
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise
    if durable:
        os.fsync(folder)


def replace_symlink(link: str, target: str) -> None:
    """Let `link` point to `target` from one moment to the next, durably: readers find the old one or the new."""
    folder = os.path.dirname(link) or "."
    beside = f"{link}.{secrets.token_hex(6)}"
    os.symlink(target, beside)
    try:
        os.rename(beside, link)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    fsync_folder(folder)
