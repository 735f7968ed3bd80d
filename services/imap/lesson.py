"""A lesson for the junk filter: noted in a session by `lessons`, carried out by `trainer`."""

from __future__ import annotations

from typing import Literal, NamedTuple

# junk and good: a person said so; unmarked: a mark as junk was taken away, or a mark as good given; kept: read, and to
# be looked at again; answered: it was; sent: the account wrote it.
Kind = Literal["junk", "good", "unmarked", "kept", "answered", "sent"]


class Lesson(NamedTuple):
    """`uids` of `mailbox` as they are now."""

    kind: Kind
    mailbox: str
    uids: tuple[int, ...]
