"""Holds folders and secrets to the tables: makes what is missing, puts right what differs, says what it did.

Every step may be cut off by a power failure and is simply done again at the next start.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from services.runtime import secrets
from services.setup.places import Place


def hold_folder(path: str, place: Place) -> bool:
    """Give the folder `path` the owner and mode of `place`, making it when missing; True when something changed."""
    made = False
    try:
        os.mkdir(path, 0o700)
        made = True
    except FileExistsError:
        pass
    # O_NOFOLLOW: inside the mail volume a room could have planted a link in this name.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if (state.st_uid, state.st_gid) != (place.uid, place.gid):
            os.fchown(descriptor, place.uid, place.gid)
        elif stat.S_IMODE(state.st_mode) == place.mode:
            return made
        os.fchmod(descriptor, place.mode)
        # Without CAP_FSETID the kernel drops setgid silently unless the folder's group is one of ours (compose.yaml
        # names them in group_add): without it mail would arrive in the wrong group, so it must not pass unseen.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != place.mode:
            raise PermissionError(
                f"{path}: the mode {place.mode:o} could not be set: is group {place.gid} in group_add?"
            )
    finally:
        os.close(descriptor)
    return True


def hold_volumes(root: str, places: Iterable[Place]) -> list[str]:
    """Hold each volume, mounted at `<root>/<volume>`, to its place; the paths that were changed."""
    return [
        path
        for place in places
        if hold_folder(path := os.path.join(root, place.volume, place.inside).rstrip("/"), place)
    ]


def hold_secrets(root: str, owners: Sequence[tuple[str, int, int]]) -> list[str]:
    """Make missing secrets in `<root>/secrets` and give each room's volume its own; the names that were new anywhere.

    `owners`: room, uid and gid. A secret that a room's volume has but which is not its own (any more) is removed.
    """
    store = os.path.join(root, "secrets")
    changed = set(secrets.make(store, secrets.every_name()))
    for room, uid, gid in owners:
        folder = os.path.join(root, f"secrets-{room}")
        wanted = secrets.names_for(room)
        for name in wanted:
            with open(os.path.join(store, name), "rb") as file:
                value = file.read()
            if _give(folder, name, value, uid, gid):
                changed.add(name)
        for name in sorted(set(os.listdir(folder)) - set(wanted)):
            os.unlink(os.path.join(folder, name))
            changed.add(name)
    return sorted(changed)


def _give(folder: str, name: str, value: bytes, uid: int, gid: int) -> bool:
    """Put the secret `name` into a room's folder, readable by that uid alone; False when it was there already."""
    path = os.path.join(folder, name)
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            right = (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (uid, gid, 0o400)
            if right and file.read() == value:
                return False
    except FileNotFoundError:
        pass
    partial = f"{path}.new"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)
        os.fchown(file.fileno(), uid, gid)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)  # a room never reads half a secret
    return True
