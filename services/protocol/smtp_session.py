"""The server's side of an SMTP or LMTP session, without IO: bytes in, events out, replies in, bytes out.

Used by `smtp/engine.py` as h11 is by a web server:

    session.receive(data)                 # what the network brought
    event = session.next_event()          # None: wait for more; else decide about it ...
    transport.write(session.send(reply))  # ... and say so: every event but Chunk waits for exactly one reply

The session knows grammar, order (`smtp_states.py`) and limits. Whatever needs no decision it answers itself (`Answer`).
Who may log in, send or receive is decided by whoever reads the events.

BDAT's octets follow it at once (RFC 3030 §4.2), so they are read and dropped where the command is refused; a BDAT whose
length cannot be read ends the session, since nothing that follows can be told to be command or body.

Reads of a group (RFC 2920): commands may arrive many at once, except that nothing may follow EHLO, STARTTLS, AUTH and
DATA before their reply: what would follow is not yet known to be command, TLS or body. Whoever does not wait is cut off
(CVE-2011-0411 is what happens otherwise).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from services.protocol import reply as replies
from services.protocol import sasl, smtp_login
from services.protocol.lines import HTTP_METHODS, LineFault, LineReader
from services.protocol.reply import Reply
from services.protocol.smtp_events import (
    Answer,
    Authenticate,
    Bdat,
    Data,
    EndOfBody,
    EndOfChunk,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    XClient,
    XForward,
)
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_receiving import ChunkedBody, DottedBody, endless
from services.protocol.smtp_states import (
    AFTER,
    ENDS_GROUP,
    FAILED_CHUNK,
    HELLOS,
    IDLE,
    NOT_TAKEN,
    OF_RELAYS,
    State,
    out_of_order,
)
from services.protocol.smtp_syntax import Refused, parse_hello, parse_mail, parse_rcpt
from services.protocol.smtp_xclient import XCLIENT, XFORWARD
from services.protocol.smtp_xclient import parse as parse_told

__all__ = ["AFTER", "SmtpSession", "State"]

# RFC 5321 §4.5.3.1.4 says 512 octets; MAIL grows by 26 for SIZE, 500 for AUTH, and by UTF-8 in both addresses.
MAX_COMMAND_LINE = 2048
# RFC 4954 §4: base64 of what a mechanism may need, 12288 octets with CRLF.
MAX_AUTH_LINE = 12288


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class SmtpSession:
    """One connection's session. The owner sends a greeting first, and calls `secure` after a TLS handshake."""

    __slots__ = (
        "_body", "_dotted", "_errors", "_idle_commands", "_lines", "_mechanism", "_parameters", "_rcpt_parameters",
        "_recipients", "_smtputf8", "_swallowed", "_waiting", "authenticated", "extended", "last_words", "offer",
        "secured", "state", "trusted",
    )  # fmt: skip

    def __init__(self, offer: Offer, *, secured: bool = False) -> None:
        """`secured`: TLS is already there."""
        self.offer = offer
        self.state = State.GREETING
        self.secured = secured
        self.authenticated = False
        self.extended = False  # EHLO or LHLO was said
        self.trusted = False  # the owner's own relay, as whoever made this found: it may say XCLIENT and XFORWARD
        self.last_words: Reply | None = None  # what the session was cut off with
        self._lines = LineReader()
        self._body: DottedBody | ChunkedBody | None = None
        self._dotted: DottedBody | None = None  # the same, where what is received goes to it and not to `_lines`
        self._swallowed: tuple[Reply, State] | None = None  # of a chunk that nobody wants; the state it leaves
        self._mechanism: sasl.Mechanism | None = None
        self._waiting: tuple[str, State] | None = None  # the command whose reply is awaited; the state after a yes
        self._recipients = self._errors = self._idle_commands = 0
        self._smtputf8 = False
        self._parameters = offer.mail_parameters(secured=secured)
        self._rcpt_parameters = offer.rcpt_parameters()

    # --- what the owner calls ---------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what the network brought."""
        if self._dotted is not None:
            self._dotted.receive(data)
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
            return self._answer(refused.reply, _verb(line), close=_is_bdat(line))

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
                self._body = self._dotted = DottedBody(self.offer.size_limit)
            elif verb == "AUTH" and reply.code == 235:
                self.authenticated = True
        data = reply.encode() if len(answers) == 1 else b"".join(each.encode() for each in answers)
        return data + self._too_much(verb, reply)

    def begin_chunks(self, refusal: Reply | None) -> None:
        """Answer `Bdat`: the message may come, or its chunks are read and dropped and `refusal` is said to each."""
        if self._waiting is None or not isinstance(self._body, ChunkedBody):
            raise RuntimeError("no chunk waits for this")
        self._waiting = None
        if refusal is not None:
            self._body.spoil(refusal)
        self.state = State.BODY

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
        return self.offer.reply(secured=self.secured, authenticated=self.authenticated, trusted=self.trusted)

    # --- commands, in the RFC's order -------------------------------------------------------------------------

    def _command(self, line: bytes) -> Event | None:
        text = _text(line)
        verb, _, argument = text.partition(" ")
        verb, argument = verb.upper(), argument.strip(" ")
        allowed = AFTER.get(verb)
        if verb in NOT_TAKEN:
            return self._answer(replies.NOT_IMPLEMENTED)
        # RFC 2033 §4.1: LHLO instead of HELO and EHLO, and only there.
        if (
            allowed is None
            or (verb in HELLOS and (verb == "LHLO") is not self.offer.lmtp)
            or (verb in OF_RELAYS and not self.trusted)
        ):
            return self._answer(replies.NOT_RECOGNISED, close=verb in HTTP_METHODS)
        if len(line) > MAX_COMMAND_LINE - 2 and verb != "AUTH":
            return self._answer(replies.LINE_TOO_LONG, verb, close=verb == "BDAT")
        if verb == "BDAT":
            return self._bdat(argument, allowed.get(self.state))
        if verb in ENDS_GROUP and not self._lines.empty:
            return self._answer(replies.NOT_WAITED, verb, close=True)
        after = allowed.get(self.state)
        if after is None:
            return self._answer(out_of_order(verb, self.state, self.offer.lmtp), verb)
        self._waiting = (verb, after)
        return _READ[verb](self, argument)

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
        self._mechanism, step = smtp_login.begin(
            argument, self.offer, secured=self.secured, authenticated=self.authenticated
        )
        return self._auth_step(step)

    def _auth_response(self, line: bytes) -> Event:
        mechanism, self._mechanism, self.state = self._mechanism, None, State.READY
        self._waiting = ("AUTH", State.READY)
        if not self._lines.empty:
            return self._answer(replies.NOT_WAITED, "AUTH", close=True)
        assert mechanism is not None
        try:
            step = smtp_login.respond(mechanism, line)
        except Refused as refused:
            return self._answer(refused.reply, "AUTH")
        self._mechanism = mechanism
        return self._auth_step(step)

    def _auth_step(self, step: smtp_login.Step) -> Event:
        assert self._mechanism is not None
        if isinstance(step, bytes):
            self._waiting = ("AUTH", State.AUTH)
            return Answer(replies.challenge(sasl.encode_base64(step)), "AUTH")
        name, self._mechanism = self._mechanism.name, None
        self._waiting = ("AUTH", State.READY)
        return Authenticate(name, step)

    def _xclient(self, argument: str) -> Event:
        return XClient(parse_told(argument, XCLIENT))

    def _xforward(self, argument: str) -> Event:
        return XForward(parse_told(argument, XFORWARD))

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

    def _bdat(self, argument: str, after: State | None) -> Event | None:
        """RFC 3030 §2: BDAT, the octets of its chunk, and LAST where it is the message's last."""
        length, _, marker = argument.partition(" ")
        marker = marker.strip(" ").upper()
        if not self.offer.chunking:
            return self._answer(replies.NOT_IMPLEMENTED, "BDAT", close=True)
        if not (length.isascii() and length.isdigit() and len(length) <= 20):
            return self._answer(replies.CHUNK_MALFORMED, "BDAT", close=True)
        octets = int(length)
        before = self._body.size if self.state is State.CHUNKS and isinstance(self._body, ChunkedBody) else 0
        if endless(before + octets, self.offer.size_limit):
            return self._answer(replies.MESSAGE_TOO_BIG, "BDAT", close=True)
        refusal = None if marker in ("", "LAST") else replies.CHUNK_MALFORMED
        if self.state is not State.CHUNKS:
            if after is None:
                refusal = out_of_order("BDAT", self.state, self.offer.lmtp)
            self._body = ChunkedBody(self._lines, self.offer.size_limit, refusal)
            if refusal is not None:
                self._swallowed = (refusal, self.state)
        assert isinstance(self._body, ChunkedBody)
        if refusal is not None:
            self._body.spoil(refusal)
        self._body.open(octets, marker == "LAST")
        if self.state is State.RCPT and refusal is None:
            self._waiting = ("BDAT", State.BODY)
            return Bdat()
        self.state = State.BODY
        return self._body_event()

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
        event = body.next()
        if isinstance(event, EndOfBody):
            if self._swallowed is not None:
                return self._end_of_swallowed()
            if isinstance(body, DottedBody) and body.rest:
                self._lines.feed(body.rest)
            self._body = self._dotted = None
            self._idle_commands = 0
            self.state = State.READY
            self._waiting = ("", State.CLOSED if event.close else State.READY)
        elif isinstance(event, EndOfChunk):
            if self._swallowed is not None:
                return self._end_of_swallowed()
            assert isinstance(body, ChunkedBody)
            self.state = State.CHUNKS
            self._waiting = (body.kind, State.CHUNKS)
        return event

    def _end_of_swallowed(self) -> Event:
        """The octets of a refused BDAT have passed: now it is answered, and all else is as before."""
        assert self._swallowed is not None
        (refusal, self.state), self._swallowed = self._swallowed, None
        return self._answer(refusal, "BDAT")

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
            return self._answer(
                replies.LOGIN_TOO_LONG if verb else replies.LINE_TOO_LONG, close=_is_bdat(self._lines.began)
            )
        close = fault is LineFault.ONLY_BARE or _is_bdat(self._lines.began)
        return self._answer(replies.BARE_LINE_END, close=close)

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
        elif reply.code >= 500 and verb != FAILED_CHUNK:
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
    "XCLIENT": SmtpSession._xclient,
    "XFORWARD": SmtpSession._xforward,
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


def _is_bdat(line: bytes) -> bool:
    """Whether a line that cannot be read begins a chunk: its octets must not be read as commands."""
    return line[:4].upper() == b"BDAT"


def _no_argument(verb: str, argument: str) -> None:
    if argument:
        raise Refused(replies.syntax(f"{verb} takes no argument"))
