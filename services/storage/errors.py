"""What can go wrong in the stores, as types: rooms turn them into replies and never show their text to a peer.

Raised by every module of this package, caught by rooms. `OSError` of the disk itself passes through unchanged where no
name here fits: to a room that is a temporary failure.
"""

from __future__ import annotations


class StorageError(Exception):
    """Anything this package raises on purpose."""


class BadName(StorageError):
    """An account's or mailbox's name that cannot be a folder's name here: empty part, control character, too long."""


class MailboxMissing(StorageError):
    """No such mailbox, or the account has no Maildir yet (then `provision` makes it)."""


class MailboxExists(StorageError):
    """CREATE or RENAME to a name that is taken."""


class MailboxUnderItself(StorageError):
    """A mailbox would become its own child: its name would be left without a mailbox, Sent's for example."""


class MailboxInUse(StorageError):
    """DELETE of INBOX, or of a name the store itself needs."""


class MessageGone(StorageError):
    """The message was expunged, by us or by another program, between its listing and its use."""


class OverQuota(StorageError):
    """The account's or the mailbox's limit, or the disk's reserve, would be passed: APPEND and COPY answer so."""


class LimitReached(StorageError):
    """A mailbox has no room for another keyword, or an account for another mailbox."""


class Busy(StorageError):
    """Another process holds this account's state; to a client this is temporary."""


class NewerSchema(StorageError):
    """The file was written by a newer version of this program; opening it with this one could lose what it means."""


class CorruptState(StorageError):
    """state.db cannot be read as a database; it is set aside and rebuilt from the Maildir."""


class ScriptMissing(StorageError):
    """No Sieve script of that name."""


class ScriptExists(StorageError):
    """A Sieve script would be renamed to a name that is taken."""


class ScriptActive(StorageError):
    """The active Sieve script is not deleted before another one is active, or none (RFC 5804 §2.10)."""
