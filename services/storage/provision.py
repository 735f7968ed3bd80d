"""Account folders: made by the imap room, with the modes that let smtp-in add mail but neither list nor read it."""

from __future__ import annotations


def provision(mail_dir: str, address: str) -> bool:
    """Make the account's Maildir with Drafts, Sent, Junk, Trash and Archive; True if anything was made.

    Idempotent, and safe on a docker-mailserver tree: nothing is removed, modes are set only on folders of our own uid.
    Raises BadName, OSError.
    """
    raise NotImplementedError


def retire(mail_dir: str, address: str, now: float) -> str:
    """Move the account's mail to `.deleted/<address>.<epoch>`; the new path, "" if there was none."""
    raise NotImplementedError


def purge(mail_dir: str, address: str) -> None:
    """Remove the account's mail for good, retired copies included."""
    raise NotImplementedError


def purge_retired(mail_dir: str, before: float) -> list[str]:
    """Remove retired mail whose time is before `before`; the addresses removed."""
    raise NotImplementedError
