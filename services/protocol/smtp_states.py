"""The order of SMTP's commands, as a table: which is allowed when, and what follows.

How the order of commands is kept. A state says what has been agreed so far; `AFTER` has an entry for each command that
is allowed in a state, with the state that follows when the reply is positive. A refused command changes nothing. What
has no entry is 503. Two states are left by other means: BODY by the body's end, AUTH by the end of the exchange.

    CONNECTED --EHLO--> READY --MAIL--> MAIL --RCPT--> RCPT --DATA--> BODY --end--> READY
                                                       RCPT --BDAT--> BODY --end of chunk--> CHUNKS --BDAT--> BODY

Used by `smtp_session.py`.
"""

from __future__ import annotations

import enum

from services.protocol import reply as replies
from services.protocol.reply import Reply


class State(enum.Enum):
    """What has been agreed so far."""

    GREETING = "greeting"  # the peer must wait for our first word
    CONNECTED = "connected"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    BODY = "body"  # of DATA, or a chunk
    CHUNKS = "chunks"  # a chunk came, and not the last
    AUTH = "auth"
    TLS = "tls"
    CLOSED = "closed"


IN_BODY = (State.BODY, State.CHUNKS)
_BETWEEN = (State.CONNECTED, State.READY, State.MAIL, State.RCPT, State.CHUNKS)

AFTER: dict[str, dict[State, State]] = {
    # RFC 5321 §4.1.4: a later EHLO clears a transaction, as RSET does.
    "HELO": dict.fromkeys(_BETWEEN, State.READY),
    "EHLO": dict.fromkeys(_BETWEEN, State.READY),
    "LHLO": dict.fromkeys(_BETWEEN, State.READY),
    # RFC 3207 §4.2: the client starts again from EHLO, and so do we.
    "STARTTLS": {State.READY: State.TLS},
    "AUTH": {State.READY: State.AUTH},
    # Both READMEs: outside of a transaction. XCLIENT begins the session anew, as STARTTLS does.
    "XCLIENT": {State.CONNECTED: State.CONNECTED, State.READY: State.CONNECTED},
    "XFORWARD": {State.CONNECTED: State.CONNECTED, State.READY: State.READY},
    "MAIL": {State.READY: State.MAIL},
    "RCPT": {State.MAIL: State.RCPT, State.RCPT: State.RCPT},
    "DATA": {State.RCPT: State.BODY},
    # RFC 3030 §2: not after DATA, and DATA not after it.
    "BDAT": {State.RCPT: State.BODY, State.CHUNKS: State.BODY},
    "RSET": {
        State.CONNECTED: State.CONNECTED,
        State.READY: State.READY,
        State.MAIL: State.READY,
        State.RCPT: State.READY,
        State.CHUNKS: State.READY,
    },
    "NOOP": {state: state for state in _BETWEEN},
    "HELP": {state: state for state in _BETWEEN},
    "VRFY": {state: state for state in _BETWEEN},
    "EXPN": {state: state for state in _BETWEEN},
    "QUIT": dict.fromkeys(_BETWEEN, State.CLOSED),
}
ENDS_GROUP = frozenset({"HELO", "EHLO", "LHLO", "STARTTLS", "AUTH", "XCLIENT", "DATA"})
EMPTY_CHUNK = "BDAT 0"  # it brings a message no further
FAILED_CHUNK = "BDAT again"  # RFC 3030 §2: it was in the pipeline behind one that was refused, which is no new error
IDLE = frozenset({"NOOP", "HELP", "VRFY", "EXPN", "RSET", "HELO", "EHLO", "LHLO", "XCLIENT", "XFORWARD", EMPTY_CHUNK})

OF_RELAYS = frozenset({"XCLIENT", "XFORWARD"})  # to anybody else they are no commands
HELLOS = frozenset({"HELO", "EHLO", "LHLO"})
NOT_TAKEN = frozenset({"TURN", "ETRN", "ATRN", "SEND", "SOML", "SAML", "BURL"})


def out_of_order(verb: str, state: State, lmtp: bool) -> Reply:
    """What is said to a command that is known, but has no place in `state`."""
    if state is State.CONNECTED:
        return replies.bad_sequence("say LHLO first" if lmtp else "say EHLO first")
    if verb in ("DATA", "BDAT") and state is State.MAIL:
        return replies.NO_RECIPIENTS  # RFC 5321 §3.3
    if verb == "MAIL":
        return replies.bad_sequence("a sender was already given")
    if state is State.CHUNKS:
        return replies.bad_sequence("go on with BDAT, or say RSET")  # RFC 3030 §2
    if verb in ("RCPT", "DATA", "BDAT"):
        return replies.bad_sequence("say MAIL first")
    return replies.bad_sequence(f"{verb} is not possible inside a transaction")
