"""How faults become tagged responses: the client's, the passing ones, and ours.

Handlers raise `Refusal`, stores raise their own errors, anything else is a bug. `refusal_for` makes one answer of each;
the text of an unexpected exception never reaches a client, only the id under which it was recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.runtime.disk import is_full
from services.storage.errors import (
    BadName,
    Busy,
    LimitReached,
    MailboxExists,
    MailboxInUse,
    MailboxMissing,
    MailboxUnderItself,
    MessageGone,
    OverQuota,
    StorageError,
)


@dataclass(frozen=True, slots=True)
class Done:
    """The tagged OK of a command: its text and response code."""

    text: bytes
    code: bytes = b""


class Refusal(Exception):
    """A tagged NO or BAD."""

    def __init__(self, text: str, code: bytes = b"", condition: bytes = b"NO") -> None:
        super().__init__(text)
        self.text = text.encode("ascii", "replace")
        self.code, self.condition = code, condition


class NotNow(Refusal):
    """BAD: the command makes no sense in this state."""

    def __init__(self, text: str) -> None:
        super().__init__(text, condition=b"BAD")


class Gone(Exception):
    """The session cannot go on: BYE with this text, and the connection closes."""


class CutShort(Exception):
    """A literal whose length the client was told cannot be sent whole: nothing can follow but the end."""


# RFC 5530 and RFC 9051 §7.1 response codes.
_ANSWERS: tuple[tuple[type[StorageError], bytes, str], ...] = (
    (BadName, b"CANNOT", "that cannot be the name of a mailbox here"),
    (MailboxMissing, b"NONEXISTENT", "there is no such mailbox"),
    (MailboxExists, b"ALREADYEXISTS", "there is a mailbox of that name"),
    (MailboxUnderItself, b"CANNOT", "a mailbox cannot become its own child"),
    (MailboxInUse, b"CANNOT", "this mailbox cannot be deleted"),
    (MessageGone, b"EXPUNGEISSUED", "some of the messages no longer exist"),
    (OverQuota, b"OVERQUOTA", "there is no room left for this"),
    (LimitReached, b"LIMIT", "there are as many of these as there can be"),
    (Busy, b"UNAVAILABLE", "the mailbox is in use elsewhere; try again in a moment"),
)


def refusal_for(error: Exception) -> Refusal | None:
    """The answer to a fault that is the client's or passes by itself; None for everything else."""
    if isinstance(error, Refusal):
        return error
    for kind, code, text in _ANSWERS:
        if isinstance(error, kind):
            return Refusal(text, code)
    if is_full(error):
        return Refusal("the disk is full", b"OVERQUOTA")
    return None


def unexpected(error: Exception, identity: str) -> Refusal:
    """The answer to a fault of the disk, or of ours, that was recorded as `identity`."""
    if isinstance(error, OSError | StorageError):
        return Refusal(f"this cannot be done at the moment [{identity}]", b"UNAVAILABLE")
    return Refusal(f"internal error {identity}", b"SERVERBUG")
