"""What every connection of the room shares: settings as values, the accounts, the gate, the watches, the tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from services.imap.accounts import Accounts
from services.imap.gate import Gate
from services.imap.lesson import Lesson
from services.imap.peers import Peers
from services.imap.watch import Watches
from services.runtime.hold import Hold
from services.runtime.process import Context
from services.runtime.tls import ContextNow


@dataclass(frozen=True, slots=True)
class Desk:
    """Times in seconds, sizes in octets. `plaintext_login` is for tests and benchmarks on loopback only."""

    context: Context
    accounts: Accounts
    gate: Gate
    watches: Watches
    peers: Peers
    group: asyncio.TaskGroup
    loop: asyncio.AbstractEventLoop
    tls: ContextNow | None
    max_message_size: int
    max_errors: int
    login_timeout: float
    idle_timeout: float
    plaintext_login: bool = False
    hold: Hold | None = None
    # What commands taught the junk filter; without a trainer it is let go.
    teach: Callable[[str, Sequence[Lesson]], None] = lambda address, lessons: None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that never raises; the room's group owns it."""
        self.group.create_task(work)
