"""What the engine itself writes into the record: refusals by grammar, order or limit, TLS, and the end of a connection.

One per connection, made by the engine. The rooms' verdicts are recorded by their handlers.
"""

from __future__ import annotations

from services.protocol.reply import NO_RECIPIENTS, Reply
from services.protocol.smtp_true_client import Client
from services.runtime.events import Events, Json

# The record's kind for a command; what is no command counts to the connection.
_KINDS = {
    "HELO": "helo", "EHLO": "helo", "LHLO": "helo", "STARTTLS": "tls", "AUTH": "login", "XCLIENT": "connect",
    "XFORWARD": "mail", "MAIL": "mail", "RCPT": "rcpt", "DATA": "data", "BDAT": "data",
}  # fmt: skip


class Record:
    """`conn` is the connection's trace id."""

    __slots__ = ("_conn", "_events", "peer")

    def __init__(self, events: Events, conn: str) -> None:
        """`peer` is set once it is known."""
        self._events, self._conn = events, conn
        self.peer = ""

    def emit(self, kind: str, outcome: str, **fields: Json) -> None:
        """Something about the connection."""
        self._events.emit(kind, self._conn, outcome=outcome, peer=self.peer, **fields)

    def refusal(self, verb: str, reply: Reply, trace: str = "", **fields: Json) -> None:
        """`verb` was refused with `reply`; `trace` is the message's, where there is one.

        A DATA without recipients decides nothing: a client that pipelines says it behind a RCPT that was put off
        (RFC 2920 §3.1), and the record's last word must be that the message may come again.
        """
        outcome = "info" if reply is NO_RECIPIENTS else "reject" if reply.permanent else "defer"
        self._events.emit(
            _KINDS.get(verb, "connect"),
            trace or self._conn,
            outcome=outcome,
            conn=self._conn,
            peer=self.peer,
            stage=verb,
            reply=str(reply),
            reason=reply.text,
            **fields,
        )

    def trusted(self) -> None:
        """The peer is a relay of the owner's."""
        reason = "a mail server that the owner named: the client is whom it says it has the mail from"
        self.emit("connect", "info", stage="forwarder", rules="trusted-forwarder", reason=reason)

    def client(self, verb: str, client: Client) -> None:
        """A trusted relay named whom it has the connection or the message from."""
        self.emit("connect", "info", stage=verb, client=client.address, helo=client.helo, name=client.name)

    def disconnect(self, seconds: float, messages: int, last_words: Reply | None) -> None:
        """The connection is gone; `last_words` is what it was cut off with."""
        outcome = "info" if last_words is None else "defer"
        reply = None if last_words is None else str(last_words)
        self.emit("disconnect", outcome, ms=int(seconds * 1000), messages=messages, reply=reply)
