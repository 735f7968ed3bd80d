"""What a client wants to send as a literal: decided before it is sent (RFC 3501 §4.3, RFC 7888), and APPEND's message.

An argument is taken into its command when it is small; a message goes chunk by chunk into the store's `Incoming`,
beside the mailbox that it is for; anything else is refused. Made by the connection; an `Appending` lives as long as one
APPEND.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.imap.faults import Refusal
from services.imap.handlers.append import Arrived, refuse_before
from services.imap.session import Session
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Append, BadCommand, Tagged
from services.protocol.imap_parse import parse_append, tag_and_name
from services.protocol.imap_reader import LiteralAnnounced
from services.storage.incoming import Incoming

if TYPE_CHECKING:
    from services.imap.connection import Connection

# A literal that is an argument: names, passwords, search texts. Before the log-in only names and passwords are due.
LITERAL_LIMIT, EARLY_LITERAL_LIMIT = 65_536, 4096
# How much of a refused literal that comes without asking is read and thrown away before the connection is ended
# instead: as much as a client that does not know our limit would send in good faith.
DRAIN_FACTOR = 2
# A body is in memory up to here (`Incoming`); beyond, the disk is waited for after each such amount.
IN_MEMORY = 262_144
BEHIND = "unexpected text behind the message"


def announced(connection: Connection, event: LiteralAnnounced) -> None:
    """Decide about one literal."""
    if (appending := connection.appending) is not None:
        # MULTIAPPEND (RFC 3502), not offered. The command ends here: what follows the literal is the next one.
        _refuse(connection, event, appending.give_up(connection), Refusal(BEHIND, condition=b"BAD"))
        return
    try:
        tag, name = tag_and_name(event.octets)
        append, is_message = parse_append(event.octets) if name == "APPEND" else (None, False)
    except BadCommand as error:
        _refuse(connection, event, error.tag, Refusal(str(error), error.code, b"NO" if error.code else b"BAD"))
        return
    limit = EARLY_LITERAL_LIMIT if connection.session is None else LITERAL_LIMIT
    if event.binary:
        _refuse(connection, event, tag, Refusal("literal8 is not supported here", condition=b"BAD"))
    elif append is not None and is_message and connection.session is not None:
        connection.start(_begin(connection, connection.session, tag, append, event))
    elif event.size > limit:
        _refuse(connection, event, tag, Refusal("the literal is too long", b"TOOBIG", b"BAD"))
    else:
        connection.reader.accept()
        if event.synchronizing:
            connection.wire.write(respond.continuation())


def _refuse(connection: Connection, event: LiteralAnnounced, tag: bytes, refusal: Refusal) -> None:
    """RFC 7888 §4: what comes without asking is read and thrown away, within reason, else the connection ends."""
    most = LITERAL_LIMIT if connection.session is None else DRAIN_FACTOR * connection.desk.max_message_size
    if not event.synchronizing and event.size > most:
        connection.wire.write(respond.status(tag, refusal.condition, refusal.text, refusal.code))
        connection.end("the literal is too long", b"TOOBIG")
        return
    connection.reader.refuse()
    connection.refuse(tag, refusal)


async def _begin(connection: Connection, session: Session, tag: bytes, append: Append, event: LiteralAnnounced) -> None:
    account = connection.account
    assert account is not None

    def opened() -> Incoming:
        refuse_before(session, append, event.size, connection.desk.max_message_size)
        return session.store.incoming(IN_MEMORY)

    try:
        sink = await account.run(opened)
    except Exception as error:
        _refuse(connection, event, tag, connection.refusal_for(error, "APPEND"))
        return
    connection.appending = Appending(tag, append, sink)
    connection.reader.stream()
    if event.synchronizing:
        connection.wire.write(respond.continuation())


class Appending:
    """An APPEND whose message is arriving. Where it cannot be kept (a full disk) the rest is read and thrown away."""

    __slots__ = ("_append", "_failed", "_sink", "_tag", "_undrained")

    def __init__(self, tag: bytes, append: Append, sink: Incoming) -> None:
        self._tag, self._append, self._sink = tag, append, sink
        self._undrained = 0
        self._failed: Refusal | None = None

    def take(self, connection: Connection, octets: bytes) -> None:
        """A piece of the message."""
        if self._failed is not None:
            return
        self._sink.write(octets)
        self._undrained += len(octets)
        if self._undrained > IN_MEMORY:
            self._undrained = 0
            connection.start(self._drain(connection))

    async def _drain(self, connection: Connection) -> None:
        try:
            await self._sink.drain()
        except OSError as error:
            self._failed = connection.refusal_for(error, "APPEND")
            self.close()

    def end(self, connection: Connection, session: Session, rest: bytes) -> None:
        """The command's end: `rest` is what stood behind the message."""
        if rest.strip(b" "):
            self.close()
            connection.fault(self._tag, BEHIND)
        elif self._failed is not None:
            connection.refuse(self._tag, self._failed)
        else:
            connection.start(self._store(connection, session))

    async def _store(self, connection: Connection, session: Session) -> None:
        try:
            await connection.perform(Tagged(self._tag, "APPEND", Arrived(self._append, self._sink)), session)
        finally:
            self.close()

    def give_up(self, connection: Connection) -> bytes:
        """The command cannot be read to its end; its tag."""
        connection.appending = None
        self.close()
        return self._tag

    def close(self) -> None:
        """Forget the message."""
        self._sink.close()
