"""What a command teaches the junk filter: which messages it said to be junk or good, or only read and kept.

Handlers call these after a command has succeeded; they note a `Lesson` in the session and do nothing else, so no
command waits for the filter. The connection hands the lessons to `trainer.py`. Taught is what people do in mail
programs:

- MOVE and COPY into Junk, APPEND there, and the keywords `$Junk` and `Junk` (Apple Mail, Thunderbird): junk.
- MOVE and COPY out of Junk to anywhere but Trash, `$NotJunk` and `NonJunk` on what is taken for junk: good.
- `\\Seen` outside Junk, Trash, Sent and Drafts: good, if it is still there some minutes later.
- `\\Answered`: good, and its sender is known. APPEND into Sent: its recipients are known.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.imap.lesson import Kind, Lesson
from services.imap.session import Session
from services.storage.errors import StorageError

# Of one command; "mark all as read" over 100,000 messages teaches no more than its newest.
MOST_OF_ONE = 200

_JUNK_WORDS = frozenset(("$junk", "junk"))
_GOOD_WORDS = frozenset(("$notjunk", "nonjunk", "notjunk"))
# Where a mailbox has no special use (RFC 6154): names that mail programs give.
_BY_NAME = {
    "junk": "\\Junk", "spam": "\\Junk", "junk e-mail": "\\Junk", "junk email": "\\Junk", "bulk mail": "\\Junk",
    "垃圾邮件": "\\Junk", "trash": "\\Trash", "deleted items": "\\Trash", "deleted messages": "\\Trash",
    "已删除邮件": "\\Trash", "sent": "\\Sent", "sent items": "\\Sent", "sent messages": "\\Sent", "drafts": "\\Drafts",
}  # fmt: skip


def transferred(session: Session, source: str, target: str, uids: Sequence[int]) -> None:
    """COPY and MOVE; `uids` are those in `target`."""
    left, came = role(session, source), role(session, target)
    if came == "\\Junk" and left != "\\Junk":
        _teach(session, "junk", target, uids)
    elif left == "\\Junk" and came not in ("\\Junk", "\\Trash"):
        _teach(session, "good", target, uids)


def appended(session: Session, mailbox: str, uids: Sequence[int]) -> None:
    """APPEND."""
    place = role(session, mailbox)
    if place == "\\Junk":
        _teach(session, "junk", mailbox, uids)
    elif place == "\\Sent":
        _teach(session, "sent", mailbox, uids)


def flagged(session: Session, mailbox: str, mode: str, flags: Sequence[str], uids: Sequence[int]) -> None:
    """STORE, and FETCH that sets `\\Seen`; `uids` are those whose flags are other than before."""
    if not uids or not flags:
        return
    words = {flag.lower() for flag in flags}
    if mode == "-":
        if words & _JUNK_WORDS:
            _teach(session, "unmarked", mailbox, uids)
        return
    if words & _JUNK_WORDS:
        _teach(session, "junk", mailbox, uids)
        return
    if words & _GOOD_WORDS:
        _teach(session, "unmarked", mailbox, uids)
        return
    # A mailbox's place is asked for only where it matters: most STOREs set flags of no meaning here.
    if words & {"\\seen", "\\answered"} and not role(session, mailbox):
        _teach(session, "answered" if "\\answered" in words else "kept", mailbox, uids)


def role(session: Session, mailbox: str) -> str:
    """The mailbox's special use, by its name where it has none; "" for INBOX and any other."""
    try:
        given = session.store.special_use(mailbox)
    except StorageError:
        return ""  # renamed meanwhile
    return given or _BY_NAME.get(mailbox.lower(), "")


def _teach(session: Session, kind: Kind, mailbox: str, uids: Sequence[int]) -> None:
    if uids:
        session.lessons.append(Lesson(kind, mailbox, tuple(uids[-MOST_OF_ONE:])))
