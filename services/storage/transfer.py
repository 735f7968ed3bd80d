"""APPEND, COPY and MOVE: files into a mailbox, all or none.

Called by account and mailbox. The order: each file whole and fsynced under its last name in cur/, fsync of cur/, one
durable commit that gives the UIDs, then memory and listeners. A crash before the commit leaves files without UIDs,
which the next look takes in as what they are: messages. (The client had no answer; it may try again.)

COPY makes a hard link where the kernel allows it, so that a 50 MB message in three mailboxes costs 50 MB. MOVE renames:
the message is in one of the two mailboxes at any moment, and after a crash in one of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.storage.atomic import write_all
from services.storage.body import bare_feeds
from services.storage.edit import Edit
from services.storage.errors import MessageGone
from services.storage.folder import Folder
from services.storage.incoming import Incoming, copy_octets
from services.storage.look import look, name_keywords
from services.storage.maildir import LETTER_BITS, join, letters_of, virtual_size
from services.storage.paths import open_message

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINK = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.EACCES)


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to APPEND. `internal_date` in seconds since the epoch; None = now."""

    body: Incoming | bytes
    flags: Sequence[str] = ()
    internal_date: float | None = None

    @property
    def octets(self) -> int:
        """The size of the file to be."""
        return self.body.size if isinstance(self.body, Incoming) else len(self.body)


def append(folder: Folder, messages: Sequence[NewMessage], origin: object) -> tuple[int, ...]:
    """The new UIDs. Raises LimitReached and BadName (keywords), OSError."""
    folder.check()
    name_keywords(folder, [name for message in messages for name in message.flags])
    opened = folder.opened
    edit = Edit(durable=True, origin=origin)
    uids = []
    with _tmp(folder) as tmp, folder.cur_seen.changing(), contextlib.ExitStack() as undo:
        for message in messages:
            bits = folder.keywords.bits(message.flags)
            date = int(opened.clock() if message.internal_date is None else message.internal_date)
            name = opened.names.next(message.octets, message.octets + _bare_feeds(message.body))
            undo.callback(_forget, name, tmp)
            _write(folder, tmp, name, message.body, date)
            file = join(name, letters_of(bits & LETTER_BITS))
            os.rename(name, file, src_dir_fd=tmp, dst_dir_fd=folder.cur)
            undo.callback(_forget, file, folder.cur)
            uids.append(edit.add(folder, file, bits, date, message.octets))
        os.fsync(folder.cur)
        edit.commit()
        undo.pop_all()
    return tuple(uids)


def copy(
    source: Folder, target: Folder, uids: Sequence[int], origin: object
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """UIDs there and here, pairwise, in the order of the source. Raises MessageGone where another program took one."""
    return _transfer(source, target, uids, origin, moving=False)


def move(
    source: Folder, target: Folder, uids: Sequence[int], origin: object
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same, and the messages leave `source`."""
    return _transfer(source, target, uids, origin, moving=True)


def _transfer(
    source: Folder, target: Folder, uids: Sequence[int], origin: object, *, moving: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    source.check()
    target.check()
    here = sorted({uid for uid in uids if source.index(uid) >= 0})
    if not here:
        return (), ()
    name_keywords(target, sorted({name for uid in here for name in _keywords(source, uid)}))
    try:
        return _attempt(source, target, here, origin, moving)
    except FileNotFoundError:
        look(source, force=True)  # renamed or expunged by another program
    try:
        if all(source.index(uid) >= 0 for uid in here):
            return _attempt(source, target, here, origin, moving)
    except FileNotFoundError:
        pass
    raise MessageGone("a message to copy was expunged")


def _attempt(
    source: Folder, target: Folder, here: Sequence[int], origin: object, moving: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    opened = source.opened
    edit = Edit(durable=True, origin=origin)
    details = opened.state.details(source.row.id, here)
    there = []
    with contextlib.ExitStack() as undo, source.cur_seen.changing(), target.cur_seen.changing():
        if moving:
            edit.remove(source, here)
        for message in details:
            at = source.index(message.uid)
            octets = source.octets[at]
            bits = target.keywords.bits(source.keywords.texts(source.flags[at]))
            name = opened.names.next(octets, virtual_size(message.file, octets))
            file = join(name, letters_of(bits & LETTER_BITS))
            if moving:
                os.rename(message.file, file, src_dir_fd=source.cur, dst_dir_fd=target.cur)
                undo.callback(_move_back, file, target.cur, message.file, source.cur)
            else:
                _link(source, target, message.file, file)
                undo.callback(_forget, file, target.cur)
            there.append(
                edit.add(
                    target, file, bits, source.dates[at], octets,
                    emailid=message.emailid or email_id(message.file), threadid=message.threadid,
                )
            )  # fmt: skip
        os.fsync(target.cur)
        if moving:
            os.fsync(source.cur)
        pairs = list(zip(here, there, strict=True))
        edit.commit(lambda: opened.cache.copy(source.row.id, target.row.id, pairs))
        undo.pop_all()
    return tuple(here), tuple(there)


def email_id(file: str) -> str:
    """RFC 8474 EMAILID of a message that was not copied: made from its base name, which is unique and stays."""
    from hashlib import sha256

    return "M" + sha256(file.partition(":2,")[0].encode("utf-8")).hexdigest()[:30]


def _keywords(folder: Folder, uid: int) -> list[str]:
    bits = folder.flags[folder.index(uid)]
    return [name for name in folder.keywords.texts(bits) if not name.startswith("\\")]


def _write(folder: Folder, tmp: int, name: str, body: Incoming | bytes, date: int) -> None:
    """The body as the file `name` in tmp/, durable, with its INTERNALDATE as modification time (as Dovecot does)."""
    codec = folder.opened.codec
    linked = codec.plain and isinstance(body, Incoming) and body.link_to(tmp, name)
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags if linked else _CREATE, 0o600, dir_fd=tmp)
    try:
        os.fchmod(descriptor, 0o600)
        if not linked:
            for piece in codec.encode(body.chunks() if isinstance(body, Incoming) else (body,)):
                write_all(descriptor, piece)
        os.utime(descriptor, (date, date))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(source: Folder, target: Folder, old: str, new: str) -> None:
    """The same file in the target too; a copy of it where the kernel allows no link to a file of another owner."""
    try:
        os.link(old, new, src_dir_fd=source.cur, dst_dir_fd=target.cur, follow_symlinks=False)
        return
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    with _tmp(target) as tmp, contextlib.ExitStack() as undo:
        descriptor = open_message(old, source.cur)
        undo.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        copied = os.open(new, _CREATE, 0o600, dir_fd=tmp)
        undo.callback(os.close, copied)
        undo.callback(_forget, new, tmp)  # once renamed it is not there
        copy_octets(descriptor, copied, status.st_size)
        os.utime(copied, ns=(status.st_mtime_ns, status.st_mtime_ns))
        os.fsync(copied)
        os.rename(new, new, src_dir_fd=tmp, dst_dir_fd=target.cur)


@contextlib.contextmanager
def _tmp(folder: Folder) -> Iterator[int]:
    descriptor = folder.open_tmp()
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _bare_feeds(body: Incoming | bytes) -> int:
    """Line feeds that a client will see as CRLF: the name says both sizes, and nobody has to count them again."""
    if isinstance(body, bytes):
        return bare_feeds(body)
    feeds, after_cr = 0, False
    for piece in body.chunks():
        feeds += bare_feeds(piece, after_cr)
        after_cr = piece[-1:] == b"\r"
    return feeds


def _forget(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _move_back(file: str, there: int, old: str, here: int) -> None:
    with contextlib.suppress(OSError):
        os.rename(file, old, src_dir_fd=there, dst_dir_fd=here)
