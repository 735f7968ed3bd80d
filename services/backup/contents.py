"""What of each volume is kept, and in which order. Pure.

The order keeps a message that moves while we copy: first who may log in, then the queue, then the mailboxes. What
leaves the queue for a mailbox in between is in both, never in neither (the mailboxes drop what they have already).
"""

from __future__ import annotations

import re

from services.runtime.secrets import PAIRS

ROOMS = sorted({room for pair in PAIRS for room in pair})
MAIL = "mail"
STATE = "imap-state"
SPOOL = "spool"
# Copied file by file, before the queue and the mailboxes.
BEFORE = ("admin", "dkim", "certs", "secrets", *(f"room-{room}" for room in ROOMS if room != "docker-filter"))
# The record may be as late as it likes.
AFTER = tuple(f"events-{room}" for room in ROOMS)
KEPT = (*BEFORE, SPOOL, STATE, MAIL, *AFTER)
# Made again at the start, by admin from directory.db and by imap from state.db; a restore empties them.
DERIVED = ("routing", "auth", "personal")

SUMS = "SHA256SUMS"
ABOUT = "mailstead.json"
ENV = "env"
FORMAT = 1

# What each database's log and index are called beside it.
_BESIDE = re.compile(r".*\.(db|sqlite)-(wal|shm|journal)")


def derived(volume: str, name: str) -> bool:
    """True for what is made again by itself, or was left half-written by a crash; in the mail volume all is mail."""
    return volume != MAIL and (
        name in ("cache.db", "events.db") or bool(_BESIDE.fullmatch(name)) or name.endswith((".new", ".partial"))
    )


def is_database(volume: str, name: str) -> bool:
    """True for a file that must be copied by SQLite."""
    return volume != MAIL and name.endswith(".db")


def restorable(name: str) -> bool:
    """True for a member's name that a restore may write: in a volume of ours or env/, with plain parts."""
    top, _, rest = name.partition("/")
    parts = rest.split("/")
    if not rest or any(part in ("", ".", "..") for part in parts):
        return False
    if top == ENV:
        return bool(re.fullmatch(r"[a-z]+\.env", rest))
    return top in KEPT
