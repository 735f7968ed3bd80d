"""Account folders: made, put aside, purged; with the modes that let smtp-in add mail but neither list nor read it.

Called by the imap room, which owns the mail volume's account folders (uid MAIL_UID). `new` and `tmp` are 2730: the mail
group may add files and neither list nor read them. Domain folders and folder roots are 2710: it passes through, and can
neither make nor rename folders. `cur` is 2700. setgid hands the mail group on to what is made inside.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from services.storage.errors import BadName
from services.storage.folder_names import from_folder, to_folder
from services.storage.paths import FOLDER, account_parts, safe_part

# docker-mailserver's five, in its spelling; `account.SPECIAL_USE` gives them their flags.
FIRST_MAILBOXES = ("Drafts", "Sent", "Junk", "Trash", "Archive")
ROOT_MODE = 0o2710
MODES = {"cur": 0o2700, "new": 0o2730, "tmp": 0o2730}
RETIRED = ".deleted"


def provision(mail_dir: str, address: str) -> bool:
    """Make the account's Maildir with Drafts, Sent, Junk, Trash and Archive; True if anything was made.

    Idempotent, and safe on a docker-mailserver tree mounted as it is: nothing is removed or renamed, modes are set on
    what is there, and only on folders of our own uid. The five are made with the account only: a mailbox that its owner
    deleted stays deleted. Raises BadName, OSError.
    """
    domain, local = account_parts(address)
    volume = os.open(mail_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        made = False
        below = _enter(volume, domain, ROOT_MODE)
        try:
            is_new = not _is_maildir(below, local)
            account = _enter(below, local, ROOT_MODE)
            try:
                made |= make_folder(account)
                folders = [to_folder(name) for name in FIRST_MAILBOXES] if is_new else _subfolders(account)
                for folder in folders:
                    made |= make_mailbox(account, folder)
            finally:
                os.close(account)
            os.fsync(below)
        finally:
            os.close(below)
        os.fsync(volume)
        return made
    finally:
        os.close(volume)


def make_mailbox(account: int, folder: str) -> bool:
    """Make the Maildir++ folder `folder` in an open account folder, durably; True if anything was missing."""
    here = _enter(account, folder, ROOT_MODE)
    try:
        made = make_folder(here)
        # Maildir++: this file tells delivery programs that it is a subfolder of a Maildir, not one of its own.
        with contextlib.suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open("maildirfolder", flags, 0o600, dir_fd=here))
            os.fsync(here)
            made = True
    finally:
        os.close(here)
    os.fsync(account)
    return made


def make_folder(maildir: int) -> bool:
    """Make what is missing of cur, new and tmp in an open Maildir, durably, and set the modes."""
    made = False
    for part, mode in MODES.items():
        # cur last: a Maildir is one once it has cur, and then it can be delivered into.
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o700, dir_fd=maildir)
            made = True
        descriptor = os.open(part, FOLDER, dir_fd=maildir)
        try:
            _set_mode(descriptor, mode)
        finally:
            os.close(descriptor)
    os.fsync(maildir)
    return made


def retire(mail_dir: str, address: str, now: float) -> str:
    """Move the account's mail to `.deleted/<address>.<epoch>`; the new path, "" if there was none. Raises OSError.

    Likewise, with `state_dir` in place of `mail_dir`, what the IMAP store remembers of it (close the store before): an
    account made anew by the same address is another one. So for `purge` and `purge_retired`.
    """
    domain, local = account_parts(address)
    volume = os.open(mail_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        retired = _enter(volume, RETIRED, 0o700)
        try:
            name = f"{safe_part(address)}.{int(now)}"
            try:
                below = os.open(domain, FOLDER, dir_fd=volume)
            except FileNotFoundError:
                return ""
            try:
                os.rename(local, name, src_dir_fd=below, dst_dir_fd=retired)
                os.fsync(retired)
                os.fsync(below)
            except FileNotFoundError:
                return ""
            finally:
                os.close(below)
        finally:
            os.close(retired)
        return os.path.join(mail_dir, RETIRED, name)
    finally:
        os.close(volume)


def purge(mail_dir: str, address: str) -> None:
    """Remove the account's mail for good, retired copies included."""
    domain, local = account_parts(address)
    root = os.path.join(mail_dir, domain, local)
    if os.path.lexists(root):
        shutil.rmtree(root)
    for name, owner, _ in _retired(mail_dir):
        if owner == safe_part(address):
            shutil.rmtree(os.path.join(mail_dir, RETIRED, name))


def purge_retired(mail_dir: str, before: float) -> list[str]:
    """Remove mail that was retired before the time `before`; the folder names removed."""
    gone = [name for name, _, since in _retired(mail_dir) if since < before]
    for name in gone:
        shutil.rmtree(os.path.join(mail_dir, RETIRED, name))
    return gone


def _retired(mail_dir: str) -> list[tuple[str, str, int]]:
    try:
        names = os.listdir(os.path.join(mail_dir, RETIRED))
    except FileNotFoundError:
        return []
    parsed = [(name, *name.rpartition(".")[::2]) for name in names]
    return [(name, owner, int(since)) for name, owner, since in parsed if since.isdecimal()]


def _subfolders(account: int) -> list[str]:
    with os.scandir(account) as entries:
        folders = [one.name for one in entries if one.name.startswith(".") and one.is_dir(follow_symlinks=False)]
    return [name for name in folders if from_folder(name) is not None and _is_maildir(account, name)]


def _is_maildir(parent: int, name: str) -> bool:
    try:
        os.stat(f"{name}/cur", dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _enter(parent: int, name: str, mode: int) -> int:
    """Open a folder below `parent`, making it if it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    try:
        descriptor = os.open(name, FOLDER, dir_fd=parent)
    except NotADirectoryError as error:  # a file, or a link, which we do not follow
        raise BadName(f"{name} is not a folder") from error
    _set_mode(descriptor, mode)
    return descriptor


def _set_mode(descriptor: int, mode: int) -> None:
    """The mode we need, on folders that are ours; a tree of another owner keeps what its owner chose."""
    status = os.fstat(descriptor)
    if status.st_mode & 0o7777 != mode:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, mode)
