"""What the API and the page are given: this room's parts, made once by `room.py`."""

from __future__ import annotations

from dataclasses import dataclass

from services.admin.access import Access
from services.admin.internal import BanExchange
from services.admin.operations import Operations
from services.admin.overview import Overview
from services.admin.peers import Peers
from services.admin.sessions import Sessions
from services.admin.tail import Tail
from services.admin.updates import Updates
from services.directory.changes import Directories
from services.runtime.process import Context


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the admin room."""

    context: Context
    directories: Directories
    operations: Operations
    access: Access
    sessions: Sessions
    peers: Peers
    overview: Overview
    bans: BanExchange
    tail: Tail
    updates: Updates
