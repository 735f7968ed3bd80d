"""Whether an error says that a disk is full: no fault of ours and none of the peer's; it passes when space is freed."""

from __future__ import annotations

import errno

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_MOST_CAUSES = 5


def is_full(error: BaseException | None) -> bool:
    """True for an OSError of a full disk or quota, for SQLite's word for it, and for an error caused by one."""
    for _ in range(_MOST_CAUSES):
        if error is None:
            break
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        # By its name, so that rooms without a database need not load SQLite.
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return True
        error = error.__cause__
    return False
