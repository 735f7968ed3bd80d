"""IDLE (RFC 2177): a client that waits to be told. Lives from the continuation request to DONE, without a task.

Made by the connection. What changes comes from `watch` as a poke; what is told comes from the session, as with any
command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.imap.session import Session
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Simple, Tagged

if TYPE_CHECKING:
    from services.imap.connection import Connection


class Idle:
    """One IDLE in progress."""

    __slots__ = ("_connection", "_session", "_tag", "_unwatch", "stale")

    def __init__(self, connection: Connection, session: Session, tag: bytes) -> None:
        """Begin: from here on the client is told."""
        self._connection, self._session, self._tag = connection, session, tag
        self.stale = False  # something changed and was not told yet
        self._unwatch = None
        account = connection.account
        assert account is not None
        connection.wire.write(respond.continuation(b"idling"))
        connection.await_line(self._ends)
        if session.selected is not None:
            self._unwatch = connection.desk.watches.add(account, session.selected.mailbox, self.poke)
            # What came between the last answer and the watch.
            self.poke()

    def poke(self) -> None:
        """Something changed. Told now, or after the task in hand, or when a slow client reads again."""
        self.stale = True
        connection = self._connection
        if not (connection.busy or connection.wire.congested or connection.wire.closing or connection.wire.lost):
            self.stale = False
            connection.start(self._tell())

    async def _tell(self) -> None:
        connection, session = self._connection, self._session
        account = connection.account
        assert account is not None
        octets = await account.run(lambda: b"".join(session.updates(expunge=True)))
        connection.wire.write(octets)
        if b" EXISTS\r\n" in octets and session.selected is not None:
            connection.emit("idle-notified", mailbox=session.selected.mailbox.name, messages=len(session.selected))

    def _ends(self, line: bytes) -> None:
        connection = self._connection
        self.close()
        connection.idle = None
        if line.strip(b" ").upper() == b"DONE":
            connection.start(connection.perform(Tagged(self._tag, "IDLE", Simple("IDLE")), self._session))
        else:
            connection.fault(self._tag, "expected DONE")

    def close(self) -> None:
        """Wait no longer."""
        self.stale = False
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
