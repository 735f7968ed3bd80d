"""The server's side of an SMTP or LMTP session, without IO: bytes in, events out, replies in, bytes out.

Used by `smtp/engine.py` as h11 is by a web server:

    session.receive(data)                 # what the network brought
    event = session.next_event()          # None: wait for more; else decide about it ...
    transport.write(session.send(reply))  # ... and say so: every event but Chunk waits for exactly one reply

The session knows grammar, order and limits. Whatever needs no decision it answers itself (`Answer`). Who may log in,
send or receive is decided by whoever reads the events.

How the order of commands is kept. A state says what has been agreed so far; `AFTER` has an entry for each command that
is allowed in a state, with the state that follows when the reply is positive. A refused command changes nothing. What
has no entry is 503. Two states are left by other means: BODY by the final dot, AUTH by the end of the exchange.

    CONNECTED --EHLO--> READY --MAIL--> MAIL --RCPT--> RCPT --DATA--> BODY --end--> READY

Reads of a group (RFC 2920): commands may arrive many at once, except that nothing may follow EHLO, STARTTLS, AUTH and
DATA before their reply: what would follow is not yet known to be command, TLS or body. Whoever does not wait is cut off
(CVE-2011-0411 is what happens otherwise).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from services.protocol import reply as replies
from services.protocol import sasl
from services.protocol.lines import HTTP_METHODS, BodyFault, BodyReader, LineFault, LineReader
from services.protocol.reply import Reply
from services.protocol.smtp_events import (
    Answer,
    Authenticate,
    Chunk,
    Data,
    EndOfBody,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    Spoilt,
    StartTls,
)
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_syntax import Refused, parse_hello, parse_mail, parse_rcpt

# RFC 5321 §4.5.3.1.4 says 512 octets; MAIL grows by 26 for SIZE, 500 for AUTH, and by UTF-8 in both addresses.
MAX_COMMAND_LINE = 2048
# RFC 4954 §4: base64 of what a mechanism may need, 12288 octets with CRLF.
MAX_AUTH_LINE = 12288


class State(enum.Enum):
    """What has been agreed so far."""

    GREETING = "greeting"  # the peer must wait for our first word
    CONNECTED = "connected"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    BODY = "body"
    AUTH = "auth"
    TLS = "tls"
    CLOSED = "closed"


_BETWEEN = (State.CONNECTED, State.READY, State.MAIL, State.RCPT)

AFTER: dict[str, dict[State, State]] = {
    # RFC 5321 §4.1.4: a later EHLO clears a transaction, as RSET does.
    "HELO": dict.fromkeys(_BETWEEN, State.READY),
    "EHLO": dict.fromkeys(_BETWEEN, State.READY),
    "LHLO": dict.fromkeys(_BETWEEN, State.READY),
    # RFC 3207 §4.2: the client starts again from EHLO, and so do we.
    "STARTTLS": {State.READY: State.TLS},
    "AUTH": {State.READY: State.AUTH},
    "MAIL": {State.READY: State.MAIL},
    "RCPT": {State.MAIL: State.RCPT, State.RCPT: State.RCPT},
    "DATA": {State.RCPT: State.BODY},
    "RSET": {
        State.CONNECTED: State.CONNECTED,
        State.READY: State.READY,
        State.MAIL: State.READY,
        State.RCPT: State.READY,
    },
    "NOOP": {state: state for state in _BETWEEN},
    "HELP": {state: state for state in _BETWEEN},
    "VRFY": {state: state for state in _BETWEEN},
    "EXPN": {state: state for state in _BETWEEN},
    "QUIT": dict.fromkeys(_BETWEEN, State.CLOSED),
}
ENDS_GROUP = frozenset({"HELO", "EHLO", "LHLO", "STARTTLS", "AUTH", "DATA"})
IDLE = frozenset({"NOOP", "HELP", "VRFY", "EXPN", "RSET", "HELO", "EHLO", "LHLO"})


_HELLOS = frozenset({"HELO", "EHLO", "LHLO"})
_NOT_TAKEN = frozenset({"BDAT", "TURN", "ETRN", "ATRN", "SEND", "SOML", "SAML", "BURL"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class SmtpSession:
    """One connection's session. The owner sends a greeting first, and calls `secure` after a TLS handshake."""

    __slots__ = (
        "_body", "_errors", "_idle_commands", "_incoming", "_lines", "_mechanism", "_parameters", "_rcpt_parameters",
        "_recipients", "_size", "_smtputf8", "_spoilt", "_waiting", "authenticated", "extended", "last_words", "offer",
        "secured", "state",
    )  # fmt: skip

    def __init__(self, offer: Offer, *, secured: bool = False) -> None:
        """`secured`: TLS is already there."""
        self.offer = offer
        self.state = State.GREETING
        self.secured = secured
        self.authenticated = False
        self.extended = False  # EHLO or LHLO was said
        self.last_words: Reply | None = None  # what the session was cut off with
        self._lines = LineReader()
        self._body: BodyReader | None = None
        self._incoming = b""  # of the body, not read yet
        self._mechanism: sasl.Mechanism | None = None
        self._waiting: tuple[str, State] | None = None  # the command whose reply is awaited; the state after a yes
        self._spoilt: Reply | None = None
        self._size = self._recipients = self._errors = self._idle_commands = 0
        self._smtputf8 = False
        self._parameters = offer.mail_parameters(secured=secured)
        self._rcpt_parameters = offer.rcpt_parameters()

    # --- what the owner calls ---------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what the network brought."""
        if self.state is State.BODY:
            self._incoming = self._incoming + data if self._incoming else data
        elif self.state is not State.CLOSED:
            self._lines.feed(data)

    def next_event(self) -> Event | None:
        """What happened next; None while more must be received, or a reply is awaited, or the session is over."""
        state = self.state
        if self._waiting is not None or state is State.CLOSED or state is State.TLS:
            return None
        if state is State.BODY:
            return self._body_event()
        if state is State.GREETING:
            return None if self._lines.empty else self._answer(replies.TALKED_FIRST, close=True)
        line = self._lines.next(MAX_AUTH_LINE if self.offer.auth else MAX_COMMAND_LINE)
        if line is None:
            return None
        if isinstance(line, LineFault):
            return self._faulty(line)
        if state is State.AUTH:
            return self._auth_response(line)
        try:
            return self._command(line)
        except Refused as refused:
            return self._answer(refused.reply, _verb(line))

    def greet(self) -> bytes:
        """The greeting; commands are read from now on."""
        self.state = State.CONNECTED
        return replies.greeting(self.offer.hostname, self.offer.lmtp).encode()

    def send(self, *answers: Reply) -> bytes:
        """Answer the event that waits: one reply, or in LMTP one per recipient after the body.

        Returns the bytes to send; afterwards `state` is CLOSED when the connection must be closed behind them.
        """
        if self._waiting is None or not answers:
            raise RuntimeError("no event waits for this reply")
        verb, after = self._waiting
        self._waiting = None
        if verb in ENDS_GROUP and not self._lines.empty:
            return self._cut_off()
        reply = answers[0]
        if after is State.CLOSED or reply.code < 400:
            self.state = after
            if verb == "RCPT":
                self._recipients += 1
            elif verb == "DATA":
                self._body, self._incoming, self._size, self._spoilt = BodyReader(), b"", 0, None
            elif verb == "AUTH" and reply.code == 235:
                self.authenticated = True
        data = reply.encode() if len(answers) == 1 else b"".join(each.encode() for each in answers)
        return data + self._too_much(verb, reply)

    @property
    def unread(self) -> bool:
        """True when there is input that no event was made of: right before a handshake it would be in clear."""
        return not self._lines.empty

    def secure(self) -> None:
        """The TLS handshake is done. RFC 3207 §4.2: what was said before is void, what came since `send` is not."""
        self.state = State.CONNECTED
        self.secured = True
        self._parameters = self.offer.mail_parameters(secured=True)
        self.authenticated = self.extended = False

    def close(self, reply: Reply) -> bytes:
        """End the session with `reply` (a timeout, a stop); nothing is read any more."""
        self.state, self._waiting, self.last_words = State.CLOSED, None, reply
        return reply.encode()

    def extensions(self) -> Reply:
        """The usual answer to EHLO and LHLO."""
        return self.offer.reply(secured=self.secured, authenticated=self.authenticated)

    # --- commands, in the RFC's order -------------------------------------------------------------------------

    def _command(self, line: bytes) -> Event:
        text = _text(line)
        verb, _, argument = text.partition(" ")
        verb, argument = verb.upper(), argument.strip(" ")
        allowed = AFTER.get(verb)
        if verb in _NOT_TAKEN:
            # BDAT's data follow it at once: they must not be read as commands.
            return self._answer(replies.NOT_IMPLEMENTED, close=verb == "BDAT")
        # RFC 2033 §4.1: LHLO instead of HELO and EHLO, and only there.
        if allowed is None or (verb in _HELLOS and (verb == "LHLO") is not self.offer.lmtp):
            return self._answer(replies.NOT_RECOGNISED, close=verb in HTTP_METHODS)
        if len(line) > MAX_COMMAND_LINE - 2 and verb != "AUTH":
            return self._answer(replies.LINE_TOO_LONG, verb)
        if verb in ENDS_GROUP and not self._lines.empty:
            return self._answer(replies.NOT_WAITED, verb, close=True)
        after = allowed.get(self.state)
        if after is None:
            return self._answer(self._out_of_order(verb), verb)
        self._waiting = (verb, after)
        return _READ[verb](self, argument)

    def _out_of_order(self, verb: str) -> Reply:
        if self.state is State.CONNECTED:
            return replies.bad_sequence("say LHLO first" if self.offer.lmtp else "say EHLO first")
        if verb == "DATA" and self.state is State.MAIL:
            return replies.NO_RECIPIENTS  # RFC 5321 §3.3
        if verb == "MAIL":
            return replies.bad_sequence("a sender was already given")
        if verb in ("RCPT", "DATA"):
            return replies.bad_sequence("say MAIL first")
        return replies.bad_sequence(f"{verb} is not possible inside a transaction")

    def _hello(self, verb: str, argument: str) -> Event:
        hostname = parse_hello(argument)
        self.extended = verb != "HELO"
        return Hello(verb, hostname)

    def _starttls(self, argument: str) -> Event:
        _no_argument("STARTTLS", argument)
        if self.secured:
            raise Refused(replies.bad_sequence("TLS is already there"))
        if not self.offer.starttls:
            raise Refused(replies.NOT_IMPLEMENTED)
        return StartTls()

    def _auth(self, argument: str) -> Event:
        name, _, initial = argument.partition(" ")
        if not self.offer.auth:
            raise Refused(replies.NOT_IMPLEMENTED)
        if self.authenticated:
            raise Refused(replies.bad_sequence("already logged in"))
        if self.offer.auth_requires_tls and not self.secured:
            raise Refused(replies.LOGIN_NEEDS_TLS)
        name = name.upper()
        if not name:
            raise Refused(replies.syntax("say AUTH and a mechanism"))
        if name not in self.offer.auth or name not in sasl.MECHANISMS:
            raise Refused(replies.MECHANISM_UNKNOWN)
        self._mechanism = sasl.MECHANISMS[name]()
        try:
            # RFC 4954 §4: "=" is an initial response of no bytes.
            first = None if not initial else b"" if initial == "=" else sasl.decode_base64(initial.encode())
            return self._auth_step(self._mechanism.start(first))
        except sasl.SaslError:
            raise Refused(replies.LOGIN_MALFORMED) from None

    def _auth_response(self, line: bytes) -> Event:
        mechanism, self._mechanism, self.state = self._mechanism, None, State.READY
        self._waiting = ("AUTH", State.READY)
        if not self._lines.empty:
            return self._answer(replies.NOT_WAITED, "AUTH", close=True)
        if line == b"*":
            return self._answer(replies.LOGIN_CANCELLED, "AUTH")
        assert mechanism is not None
        try:
            step = mechanism.respond(sasl.decode_base64(line))
        except sasl.SaslError:
            return self._answer(replies.LOGIN_MALFORMED, "AUTH")
        self._mechanism = mechanism
        return self._auth_step(step)

    def _auth_step(self, step: bytes | sasl.PasswordCredentials) -> Event:
        assert self._mechanism is not None
        if isinstance(step, bytes):
            self._waiting = ("AUTH", State.AUTH)
            return Answer(replies.challenge(sasl.encode_base64(step)), "AUTH")
        name, self._mechanism = self._mechanism.name, None
        self._waiting = ("AUTH", State.READY)
        return Authenticate(name, step)

    def _mail(self, argument: str) -> Event:
        offer = self.offer
        if offer.require_auth and not self.authenticated:
            tls_first = offer.auth_requires_tls and not self.secured
            raise Refused(replies.TLS_FIRST if tls_first else replies.LOGIN_FIRST)
        path, params = parse_mail(argument, self._parameters)
        # RFC 1870 §6.1: a size declared too large is refused before the body travels.
        if params.size is not None and params.size > offer.size_limit:
            raise Refused(replies.MESSAGE_TOO_BIG)
        self._recipients, self._smtputf8 = 0, params.smtputf8
        return Mail(path, params)

    def _rcpt(self, argument: str) -> Event:
        path, params = parse_rcpt(argument, self._smtputf8, self._rcpt_parameters)
        if self._recipients >= self.offer.max_recipients:
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        return Rcpt(path, params)

    def _data(self, argument: str) -> Event:
        _no_argument("DATA", argument)
        return Data()

    def _rset(self, argument: str) -> Event:
        _no_argument("RSET", argument)
        return Reset()

    def _vrfy(self, argument: str) -> Event:
        if not argument:
            raise Refused(replies.syntax("say VRFY and an address"))
        return Answer(replies.CANNOT_VERIFY, "VRFY")

    def _expn(self, argument: str) -> Event:
        raise Refused(replies.NOT_IMPLEMENTED)  # RFC 5321 §7.3: it would tell who is on a list

    def _quit(self, argument: str) -> Event:
        _no_argument("QUIT", argument)
        return Quit()

    # --- the body ---------------------------------------------------------------------------------------------

    def _body_event(self) -> Event | None:
        body = self._body
        assert body is not None
        if self._incoming and body.rest is None and body.fault is not BodyFault.FALSE_END:
            data, self._incoming = self._incoming, b""
            chunk = body.feed(data)
            # What is not handed on counts too: it bounds how long a body that is refused anyway is read.
            self._size += len(chunk) if body.fault is None else len(data)
            if self._spoilt is None:
                if body.fault is not None:
                    self._spoilt = replies.BARE_LINE_END_IN_BODY
                elif self._size > self.offer.size_limit:
                    self._spoilt = replies.MESSAGE_TOO_BIG
                if self._spoilt is not None:
                    return Spoilt(self._spoilt)
                if chunk:
                    return Chunk(chunk)
        # Who goes on to twice of what is allowed reads no reply: better cut off than read for an hour.
        endless = self._spoilt is not None and self._size > 2 * self.offer.size_limit + (1 << 20)
        if body.rest is None and body.fault is not BodyFault.FALSE_END and not endless:
            return None
        close = body.rest is None
        self._body = None
        if body.rest:
            self._lines.feed(body.rest)
        self._idle_commands = 0
        self.state = State.READY
        self._waiting = ("", State.CLOSED if close else State.READY)
        return EndOfBody(self._size, self._spoilt, close)

    # --- answers of the session's own -------------------------------------------------------------------------

    def _answer(self, reply: Reply, verb: str = "", *, close: bool = False) -> Answer:
        self._mechanism = None
        # A session that is cut off reads nothing more: what follows is not answered line by line.
        if close:
            self._lines.take_rest()
        self._waiting = (verb, State.CLOSED if close else self.state)
        return Answer(reply, verb, close)

    def _faulty(self, fault: LineFault) -> Answer:
        verb = ""
        if self.state is State.AUTH:
            self.state, verb = State.READY, "AUTH"
        if fault is LineFault.TOO_LONG:
            return self._answer(replies.LOGIN_TOO_LONG if verb else replies.LINE_TOO_LONG)
        return self._answer(replies.BARE_LINE_END, close=fault is LineFault.ONLY_BARE)

    def _cut_off(self) -> bytes:
        self._lines.take_rest()
        return self.close(replies.NOT_WAITED)

    def _too_much(self, verb: str, reply: Reply) -> bytes:
        """421 behind a reply that was one error, or one idle command, too many."""
        if self.state is State.CLOSED:
            return b""
        if verb == "" and reply.code < 400:
            # A message was taken. A list server on one long connection meets a stale address now and then.
            self._errors = 0
        elif reply.code >= 500:
            self._errors += 1
            if self._errors >= self.offer.max_errors:
                return self.close(replies.TOO_MANY_ERRORS)
        elif verb in IDLE:
            self._idle_commands += 1
            if self._idle_commands >= self.offer.max_idle_commands:
                return self.close(replies.TOO_MANY_IDLE_COMMANDS)
        return b""


_READ: dict[str, Callable[[SmtpSession, str], Event]] = {
    "HELO": lambda session, argument: session._hello("HELO", argument),
    "EHLO": lambda session, argument: session._hello("EHLO", argument),
    "LHLO": lambda session, argument: session._hello("LHLO", argument),
    "STARTTLS": SmtpSession._starttls,
    "AUTH": SmtpSession._auth,
    "MAIL": SmtpSession._mail,
    "RCPT": SmtpSession._rcpt,
    "DATA": SmtpSession._data,
    "RSET": SmtpSession._rset,
    "NOOP": lambda session, argument: Answer(replies.OK, "NOOP"),
    "HELP": lambda session, argument: Answer(replies.HELP, "HELP"),
    "VRFY": SmtpSession._vrfy,
    "EXPN": SmtpSession._expn,
    "QUIT": SmtpSession._quit,
}


def _text(line: bytes) -> str:
    """A command line as text; raises Refused. RFC 5321 §4.1.1: white space before CRLF is tolerated."""
    try:
        text = line.rstrip(b" \t").decode()
    except UnicodeDecodeError:
        raise Refused(replies.NOT_ASCII) from None
    if not text.isprintable() and _CONTROL.search(text):
        raise Refused(replies.NOT_ASCII)
    return text


def _verb(line: bytes) -> str:
    verb = line.partition(b" ")[0].upper().decode("ascii", "replace")
    return verb if verb in AFTER else ""


def _no_argument(verb: str, argument: str) -> None:
    if argument:
        raise Refused(replies.syntax(f"{verb} takes no argument"))
