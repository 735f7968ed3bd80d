"""Who is told when a mailbox changes: sessions in IDLE, and each session before its next tagged reply.

Called by the store after a change is in state.db, on the thread that made it; listeners hand it to their own loop
(`loop.call_soon_threadsafe`). `LocalNotifier` reaches the sessions of one process; several machines put another
implementation behind `Notifier`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction changed in one mailbox. UIDs ascend. `origin`: what the caller gave to know its own."""

    account: str
    mailboxid: str
    modseq: int
    added: tuple[int, ...] = ()
    flagged: tuple[int, ...] = ()
    expunged: tuple[int, ...] = ()
    origin: object = None


Listener = Callable[[Change], None]


class Notifier(Protocol):
    """Carries changes from the one that made them to those who look at the mailbox."""

    def subscribe(self, account: str, mailboxid: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for each change of the mailbox until the result is called; "" is any of the account, and ""
        for both any at all."""

    def publish(self, change: Change) -> None:
        """Tell the listeners; a listener that raises does not keep it from the others."""


class LocalNotifier:
    """`Notifier` within one process."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, str], list[Listener]] = {}
        self._lock = threading.Lock()

    def subscribe(self, account: str, mailboxid: str, listener: Listener) -> Callable[[], None]:
        """See Notifier."""
        key = (account, mailboxid)
        with self._lock:
            # A new list each time: `publish` goes through one without holding the lock.
            self._listeners[key] = [*self._listeners.get(key, ()), listener]

        def stop() -> None:
            with self._lock:
                left = [other for other in self._listeners.get(key, ()) if other is not listener]
                if left:
                    self._listeners[key] = left
                else:
                    self._listeners.pop(key, None)

        return stop

    def publish(self, change: Change) -> None:
        """See Notifier."""
        with self._lock:
            told = [
                *self._listeners.get((change.account, change.mailboxid), ()),
                *self._listeners.get((change.account, ""), ()),
                *self._listeners.get(("", ""), ()),
            ]
        for listener in told:
            with contextlib.suppress(Exception):  # a session that is just ending must not undo another one's STORE
                listener(change)
