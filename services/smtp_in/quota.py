"""Is there room in the mailbox? Asked at RCPT, and at the final dot where the size was not known before.

imap publishes what each account with a quota holds (`storage/usage_file`), a second or two after every change; nobody
is waited for. What this process has delivered since then, and what is on its way in through other sessions, is added.
An account of which nothing is known (just given a quota, imap is starting) takes mail.

`452 4.2.2`: the sender's server tries again, for days, and the owner has been written to (`admin/quota_letters`). Not
refused for good: there may be room in an hour. Exempt are postmaster and abuse (RFC 5321 §4.5.1: somebody must answer),
and an account's own letter to itself from inside, which tells it that it is full. A list with a full member goes to all
the same while that one is over by no more than a tenth: others' mail should not wait for one person's photographs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from services.policy.routes import ROLE_NAMES, split_address
from services.policy.verdict import Reason, Verdict
from services.protocol.reply import Reply
from services.storage.personal import Reader
from services.storage.usage_file import LARGEST, NAME, decode

# RFC 3463 §3.3: X.2.2, mailbox full. 452 by RFC 5321 §4.2.3.
FULL = Reply(452, "4.2.2", "the mailbox is full, try again later")
OVER = 1.1  # of the quota, for members of a list
# Longer than imap takes to count again, however busy; then what was delivered is in its number.
COUNTED_SECONDS = 120.0
# A letter to oneself that says so is a page of text, and there are two of them (`admin/quota_letters`). More would be a
# way to keep mail beyond the quota after all.
OWN_LETTER = 64 * 1024
OWN_LETTERS = 3


class Quotaed(Protocol):
    """What must be known of an account."""

    @property
    def address(self) -> str: ...

    @property
    def quota_bytes(self) -> int: ...


@dataclass(slots=True)
class _Delivered:
    at: float
    octets: int


class Quotas:
    """For one process. `clock` is the wall's, which imap's files are dated by."""

    def __init__(
        self, personal_dir: str, clock: Callable[[], float], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads nothing yet."""
        self._files = Reader(personal_dir, NAME, decode, most=LARGEST, clock=monotonic)
        self._clock = clock
        self._delivered: dict[str, deque[_Delivered]] = {}
        self._coming: dict[str, WeakKeyDictionary[object, int]] = {}
        self._own: dict[str, tuple[int, int]] = {}  # address → day, letters beyond the quota

    def at_rcpt(
        self, recipient: str, sender: str, accounts: Iterable[Quotaed], size: int, holder: object, *, inside: bool
    ) -> Verdict | None:
        """The verdict where there is no room for `size` more octets (0: not said); else None, and they are held for
        `holder`, the envelope, until it is gone or `delivered`."""
        limited = [each for each in accounts if each.quota_bytes]
        if not limited:
            return None
        if split_address(recipient)[0] not in ROLE_NAMES:
            allowed = OVER if len(limited) > 1 else 1.0
            for account in limited:
                held = self.held(account.address)
                if held is not None and held + max(size, 1) > allowed * account.quota_bytes:
                    if inside and sender.lower() == account.address and self._own_letter(account.address, size):
                        continue
                    return _full(account, held)
        for account in limited:
            self._coming.setdefault(account.address, WeakKeyDictionary())[holder] = size
        return None

    def _own_letter(self, address: str, size: int) -> bool:
        """Whether a full account may have one more letter of its own today."""
        today = int(self._clock() // 86_400)
        day, letters = self._own.get(address, (today, 0))
        letters = letters if day == today else 0
        if size > OWN_LETTER or letters >= OWN_LETTERS:
            return False
        self._own[address] = today, letters + 1
        return True

    def at_the_end(self, accounts: Iterable[Quotaed], size: int, holder: object) -> Verdict | None:
        """The verdict where one account's mail turned out to be larger than was said, and does not fit."""
        for account in accounts:
            if account.quota_bytes:
                held = self.held(account.address, but=holder)
                if held is not None and held + size > OVER * account.quota_bytes:
                    return _full(account, held)
        return None

    def delivered(self, address: str, octets: int, holder: object) -> None:
        """A copy of `octets` lies there now; what `holder` held is given back."""
        if (coming := self._coming.get(address)) is None:
            return  # no quota
        if holder is not None:
            coming.pop(holder, None)
        self._delivered.setdefault(address, deque()).append(_Delivered(self._clock(), octets))

    def held(self, address: str, *, but: object = None) -> int | None:
        """Octets that the account holds or is about to; None where that is not known. `but` leaves one envelope out."""
        usage = self._files.get(address)
        if usage is None:
            return None
        now, since = self._clock(), self._delivered.get(address, deque())
        # At the same moment: counted twice rather than not at all. A clock that was set back must not keep them.
        while since and (since[0].at < usage.at or not 0 <= now - since[0].at < COUNTED_SECONDS):
            since.popleft()
        coming = self._coming.get(address)
        on_the_way = sum(octets for holder, octets in list(coming.items()) if holder is not but) if coming else 0
        return usage.octets + sum(each.octets for each in since) + on_the_way


def _full(account: Quotaed, held: int) -> Verdict:
    quota = account.quota_bytes
    text = f"{account.address} holds {held >> 20} of {quota >> 20} MiB: there is no room for it"
    return Verdict("rcpt", "defer", FULL, (Reason("quota", text),))
