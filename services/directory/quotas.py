"""Who is to be told that a mailbox is nearly full: once at 90 %, once when it is full, and anew after there was room.

`QuotaChanges` are verbs of `changes.py`'s `Directories`, in a file of their own. Nothing of it is published: what is
used now smtp-in reads from imap's own files (`storage/usage_file`), the quota itself stands with the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.directory.database import Database

NEARLY_FULL = 0.9
# Mail that does not fit is refused a little before the last octet: from here on a photograph's worth is.
FULL = 0.98
# So that a mailbox which goes up and down by one message does not get a letter each time.
ROOM_AGAIN = 0.85


@dataclass(frozen=True, slots=True)
class QuotaLetter:
    """One that is due. `level` is 1 for nearly full, 2 for full; sizes in octets."""

    address: str
    level: int
    used: int
    quota: int


class QuotaChanges:
    """What is remembered of letters."""

    database: Database

    def due_quota_letters(self) -> list[QuotaLetter]:
        """Letters that nobody has had yet, of accounts that are in use."""
        with self.database.lock:
            rows = self.database.connection.execute(
                "SELECT address, used_bytes, quota_bytes, quota_told FROM accounts "
                "WHERE deleted_at IS NULL AND enabled AND quota_bytes > 0 AND used_bytes IS NOT NULL ORDER BY address"
            ).fetchall()
        letters = [QuotaLetter(address, level(used, quota), used, quota) for address, used, quota, _ in rows]
        return [letter for letter, row in zip(letters, rows, strict=True) if letter.level > row[3]]

    def quota_letter_sent(self, letter: QuotaLetter) -> None:
        """It is on its way; the next of this account comes at the next level, or after there was room."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE accounts SET quota_told = ? WHERE address = ? AND deleted_at IS NULL",
                (letter.level, letter.address),
            )

    def forget_quota_letters(self) -> None:
        """Accounts with room again, or without a quota, are told anew the next time."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE accounts SET quota_told = 0 WHERE quota_told > 0 AND "
                "(quota_bytes = 0 OR coalesce(used_bytes, 0) < ? * quota_bytes)",
                (ROOM_AGAIN,),
            )


def level(used: int, quota: int) -> int:
    """0: there is room, or no quota; 1: nearly full; 2: full."""
    if quota <= 0 or used < NEARLY_FULL * quota:
        return 0
    return 2 if used >= FULL * quota else 1
