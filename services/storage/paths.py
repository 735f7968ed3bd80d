"""From an address to its folder, and the walk there: no name from outside ever leaves the mail volume.

Used by delivery, provisioning and the account store. Layout as docker-mailserver and Dovecot have it:
`<mail_dir>/<domain>/<local>/{cur,new,tmp}`. The directory already refuses most odd names; this module does not rely on
it. Every step of a walk is an `openat` with O_NOFOLLOW: smtp-in may add names to mail folders, so whoever breaks into
it could plant a symbolic link there, and the IMAP room must not follow it to its own databases or to another account.
`mail_dir` itself may be a link: it is the owner's.
"""

from __future__ import annotations

import os
import stat

from services.storage.errors import BadName, MailboxMissing

# What stays as it is in a folder's name. Everything else is written %XX, also % itself, so that two addresses never
# share a folder. RFC 5321 §4.1.2 lets a local part contain a slash.
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&'*+-=?^_`{|}~.@ ")
_LONGEST = 255  # NAME_MAX of every Linux file system

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_PATH needs no read permission: the mail folders are 2730 for smtp-in.
PASSAGE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a planted FIFO must not hang the reader; it is found by its type afterwards.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def safe_part(text: str) -> str:
    """`text` as one folder name; injective. Raises BadName where it is empty or too long.

    Bytes outside ASCII stay (UTF-8), a leading dot becomes %2E: names with a dot are the store's own (`.incoming`) and
    Maildir++ subfolders.
    """
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadName("a name with half a character") from None
    safe = b"".join(
        bytes((byte,)) if (byte in _PLAIN or byte >= 0x80) and not (byte == 0x2E and index == 0) else b"%%%02X" % byte
        for index, byte in enumerate(raw)
    )
    if not safe or len(safe) > _LONGEST:
        raise BadName("an empty or overlong part of an address")
    return safe.decode("utf-8")


def account_parts(address: str) -> tuple[str, str]:
    """`anna@family.example` → ("family.example", "anna") as folder names. Raises BadName."""
    local, at, domain = address.rpartition("@")
    if not at:
        raise BadName("an address without @")
    return safe_part(domain), safe_part(local)


def account_folder(mail_dir: str, address: str) -> str:
    """The path of the account's Maildir, for people and logs; the code itself walks with `walk`."""
    return "/".join((mail_dir, *account_parts(address)))


def walk(start: int, *parts: str, last: int = PASSAGE) -> int:
    """A descriptor of the folder `parts` below `start`, following no link. The caller closes it.

    `last` are the flags for the last part. Raises MailboxMissing where a part is not there or is not a folder.
    """
    here = start
    try:
        for number, part in enumerate(parts, 1):
            below = os.open(part, last if number == len(parts) else PASSAGE, dir_fd=here)
            if here != start:
                os.close(here)
            here = below
    except (FileNotFoundError, NotADirectoryError):
        if here != start:
            os.close(here)
        raise MailboxMissing("/".join(parts)) from None
    except OSError as error:
        if here != start:
            os.close(here)
        if error.errno == 40:  # ELOOP: a link where a folder should be
            raise MailboxMissing("/".join(parts)) from None
        raise
    return here


def open_message(name: str, folder: int) -> int:
    """A descriptor for reading the regular file `name` in `folder`.

    Raises FileNotFoundError where it is gone, or is a link, a FIFO or anything else that is not a message.
    """
    try:
        descriptor = os.open(name, READ, dir_fd=folder)
    except OSError as error:
        if error.errno in (40, 6):  # ELOOP: a link; ENXIO: a socket
            raise FileNotFoundError(name) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(name)
    return descriptor
