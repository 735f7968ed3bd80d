"""The SMTP server engine: one class on `aiosmtpd.smtp.SMTP`, driven by the sans-IO session.

aiosmtpd gives the Session, the Envelope and the handler's hooks; its StreamReader loop is replaced by
`protocol/smtp_session.py`, since that loop costs eight to ten times a lean one and keeps bare line ends, whole messages
in memory, and one timer over all of DATA. Used by smtp-in (port 25, LMTP) and smtp-out (submission, forwards):
`runtime.listener.listen(lambda: Engine(handler, config), address)`, or `listen_tls` with an `EngineDoor` where TLS is
implicit.

How a connection runs. `data_received` feeds the session and pumps: events are taken one by one and their hooks called.
A hook that answers at once costs no task; for one that waits, a task is made and no event is taken until it is done.
Replies are collected and written once per burst (RFC 2920 §3.2). A lost connection never cancels a hook: a commit
that began is finished, its reply has nobody to go to.

The engine records what it decides itself: refused connections (limits), `tls`, commands refused by grammar, order or
limit, and `disconnect`. The handler records its verdicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiosmtpd import smtp as aiosmtpd

from services.protocol import reply as replies
from services.protocol import smtp_events as events
from services.protocol.proxy_header import ProxyHeader
from services.protocol.reply import Reply
from services.protocol.smtp_session import SmtpSession, State
from services.protocol.smtp_states import IN_BODY
from services.runtime import disk
from services.runtime.events import new_trace_id
from services.smtp.door import EngineDoor
from services.smtp.handler import BodySink, Connections, EngineConfig, Handler, Recipient
from services.smtp.inlet import Inlet
from services.smtp.record import Record
from services.smtp.session import Envelope, Session
from services.smtp.wire import Wire

__all__ = ["Connections", "Engine", "EngineConfig", "EngineDoor", "Envelope", "Handler", "Recipient", "Session"]

# Input kept while a hook is waited for. More than any group of commands; the rest waits in the kernel.
MAX_UNREAD = 1 << 16


class Engine(aiosmtpd.SMTP):
    """One connection."""

    session: Session
    envelope: Envelope

    def __init__(self, handler: Handler, config: EngineConfig, proxied: ProxyHeader | None = None) -> None:
        """`config` is shared by all connections of the listener; `proxied` says whom a proxy has carried here.

        aiosmtpd's own __init__ is left out on purpose: it makes a StreamReader and reflects over the handler each time.
        """
        self.handler = handler
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.session, self.envelope = Session(self.loop), Envelope()
        self._smtp = SmtpSession(config.offer, secured=config.implicit_tls)
        self._wire = Wire(self.loop, config, self._late)
        self._record = Record(config.events, self.session.trace)
        self._task: asyncio.Task[None] | None = None  # of what is waited for
        self._busy = False  # a hook, a handshake or a drain is waited for
        self._over = False  # all is done and counted out
        self._eof = False
        self._finishing: Reply | None = None  # what is said at the end of the message in flight
        self._unread = 0
        self._inlet = Inlet()
        self._messages = 0
        self._proxied = proxied

    # --- asyncio's side: see asyncio.Protocol ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.session.peer = self._wire.open(cast(asyncio.Transport, transport))
        if self._proxied is not None:
            self.session.carried(self._proxied)
        self._record.peer = self.session.peer[0]
        config = self.config
        refusal = config.refusal(self._record.peer)
        config.connections.add(self, self._record.peer)
        if refusal is not None:
            self._record.refusal("", refusal)
            self._close_with(refusal)
        else:
            if config.implicit_tls:
                self._secured()
            else:
                self._look_at_trust()
            # Two turns of the loop: what the peer sent without waiting for the greeting is read before it.
            self.loop.call_soon(self.loop.call_soon, self._greet)

    def data_received(self, data: bytes) -> None:
        self._smtp.receive(data)
        if self._smtp.state in IN_BODY:
            self._wire.flows(len(data))
        if self._busy or self._smtp.state is State.GREETING:
            self._unread += len(data)
            if self._unread > MAX_UNREAD:
                self._wire.pause_reading()
        else:
            self._pump()

    def eof_received(self) -> bool:
        """See asyncio.Protocol. The peer sends no more; what it sent is still answered, where the transport can."""
        self._eof = True
        if not self._busy:
            self._pump()
        return not self.session.tls and not self._wire.lost

    def connection_lost(self, error: Exception | None) -> None:
        self._wire.lose()
        if not self._busy:
            self._end()

    def pause_writing(self) -> None:
        """The peer does not read its replies: take no more commands until it does."""
        self._wire.stuck = True
        self._wire.pause_reading()

    def resume_writing(self) -> None:
        self._wire.stuck = False
        if not self._busy:
            self._wire.resume_reading()
            self._pump()

    def finish(self, reply: Reply = replies.SHUTTING_DOWN) -> None:
        """A message in flight is finished, then `reply` and the end."""
        self._finishing = reply
        if not self._busy and self._smtp.state is not State.BODY:
            self._close_with(reply)

    def abort(self) -> None:
        """Cut the connection; a hook that runs is left to end."""
        self._wire.abort()

    def _look_at_trust(self) -> None:
        """Whether the peer is a relay of the owner's, as far as is known now: TLS may bring a certificate."""
        if self.session.is_of(self.config.forwarders, self._wire.certificate):
            self._smtp.trusted = True
            self._record.trusted()

    # --- the pump ---------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        if self._wire.lost or self._smtp.state is not State.GREETING:
            return
        self._ask("CONNECT", self._connected)

    def _connected(self, refusal: Any) -> None:
        if refusal is not None and refusal.code >= 400:
            self._close_with(refusal)
        else:
            talked_first = self._smtp.next_event()
            if talked_first is None:
                self._wire.write(self._smtp.greet())
            else:
                self._react(talked_first)
            self._pump()

    def _pump(self) -> None:
        """Take events until a hook is waited for, the input is used up, or the session is over."""
        try:
            while not self._busy and not self._wire.stuck:
                event = self._smtp.next_event()
                if event is None:
                    break
                self._react(event)
        except Exception as error:
            self._close_with(self._bug(error, "the SMTP session"))
            return
        self._wire.flush()
        if not self._busy:
            if self._smtp.state is State.CLOSED or self._eof:
                self._wire.close()
            elif self._finishing and self._smtp.state is not State.BODY:
                self._close_with(self._finishing)

    def _react(self, event: events.Event) -> None:
        if self._smtp.state is not State.BODY:  # a command must be whole in time; a body must go on, and not too slowly
            self._wire.wait(self.config.command_timeout)
        _REACTIONS[type(event)](self, event)

    def _reply(self, *answers: Reply) -> None:
        self._wire.write(self._smtp.send(*answers))

    def _close_with(self, reply: Reply) -> None:
        self._wire.write(self._smtp.close(reply))
        self._wire.close()

    # --- hooks ------------------------------------------------------------------------------------------------

    def _ask(self, hook: str, then: Callable[[Any], None], *arguments: object) -> None:
        """Call the handler's hook; `then` gets what it answers, or 451 when it raised."""
        try:
            result = getattr(self.handler, "handle_" + hook)(self, self.session, self.envelope, *arguments)
        except Exception as error:
            result = self._bug(error, f"handling {hook}")
        if result is None or type(result) is Reply or not isinstance(result, Awaitable):
            then(result)
        else:
            self._await(result, f"handling {hook}", then)

    def _await(self, awaited: Awaitable[Any], doing: str, then: Callable[[Any], None]) -> None:
        self._busy = True
        self._task = self.loop.create_task(self._later(awaited, doing, then))

    async def _later(self, awaited: Awaitable[Any], doing: str, then: Callable[[Any], None]) -> None:
        try:
            result = await awaited
        except Exception as error:
            result = self._bug(error, doing)
        self._task = None
        self._continue(then, result)

    def _continue(self, then: Callable[[Any], None], result: Any) -> None:
        """What was waited for has come."""
        self._busy, self._unread = False, 0
        try:
            then(result)
        except Exception as error:
            self._close_with(self._bug(error, "the SMTP session"))
        if self._wire.lost:
            self._end()
        elif not self._busy:
            self._wire.resume_reading()
            self._pump()

    def _bug(self, error: BaseException, doing: str) -> Reply:
        identity = new_trace_id()
        self.config.bug(identity, error, doing)
        return replies.INSUFFICIENT_STORAGE if disk.is_full(error) else replies.temporary(identity)

    # --- what each event leads to, in the RFC's order -----------------------------------------------------------

    def _on_answer(self, event: events.Answer) -> None:
        if event.reply.code >= 400:
            self._record.refusal(event.verb, event.reply, self.envelope.trace)
        self._reply(event.reply)

    def _on_hello(self, event: events.Hello) -> None:
        def answered(refusal: Reply | None) -> None:
            if refusal is not None and refusal.code >= 400:
                self._reply(refusal)
                return
            self.session.helo = self.session.host_name = event.hostname
            self.session.extended_smtp = event.verb != "HELO"
            self._forget_envelope()
            usual = replies.hello(self.config.hostname) if event.verb == "HELO" else self._smtp.extensions()
            self._reply(refusal or usual)

        self._ask("HELO" if event.verb == "HELO" else "EHLO", answered, event.hostname)

    def _on_starttls(self, event: events.StartTls) -> None:
        self._reply(replies.READY_FOR_TLS)
        if self._smtp.state is not State.TLS:
            return  # something was sent behind STARTTLS: cut off

        self._start_tls()

    def _on_authenticate(self, event: events.Authenticate) -> None:
        def answered(reply: Reply) -> None:
            self.session.authenticated = reply.code == 235
            self._reply(reply)

        self._ask("AUTH", answered, event.mechanism, event.credentials)

    def _on_xclient(self, event: events.XClient) -> None:
        self._record.client("XCLIENT", self.session.xclient(event.told))
        self._forget_envelope()
        greeting = replies.greeting(self.config.hostname)
        # What the first CONNECT could not judge can be judged now.
        self._ask("CONNECT", lambda no: self._close_with(no) if no and no.code >= 400 else self._reply(greeting))

    def _on_xforward(self, event: events.XForward) -> None:
        self._record.client("XFORWARD", self.session.xforward(event.told))
        self._reply(replies.OK)

    def _on_mail(self, event: events.Mail) -> None:
        envelope = self.envelope = Envelope() if self.envelope.trace else self.envelope
        envelope.trace = event.params.trace or new_trace_id()

        def answered(reply: Reply) -> None:
            if reply.code < 400:
                envelope.sender, envelope.params = event.path, event.params
                envelope.mail_from, envelope.smtp_utf8 = event.path.address, event.params.smtputf8
            self._reply(reply)

        self._ask("MAIL", answered, event.path, event.params)

    def _on_rcpt(self, event: events.Rcpt) -> None:
        def answered(reply: Reply) -> None:
            if reply.code < 400:
                self.envelope.recipients.append(Recipient(event.path, event.params))
                self.envelope.rcpt_tos.append(event.path.address)
            self._reply(reply)

        self._ask("RCPT", answered, event.path, event.params)

    def _on_data(self, event: events.Data) -> None:
        self._ask("DATA_BEGIN", lambda result: self._reply(self._begin(result) or replies.START_BODY))

    def _on_bdat(self, event: events.Bdat) -> None:
        # RFC 3030 §2: a refusal is said when the chunk has been read.
        self._ask("DATA_BEGIN", lambda result: self._smtp.begin_chunks(self._begin(result)))

    def _begin(self, result: Reply | BodySink) -> Reply | None:
        """What DATA_BEGIN answered: a refusal, or where the body goes."""
        if isinstance(result, Reply):
            return result
        self.envelope.sink = result
        self._inlet.open(result)
        return None

    def _on_chunk(self, event: events.Chunk) -> None:
        self.envelope.size += len(event.data)
        try:
            drained = self._inlet.write(event.data)
        except Exception as error:
            self._spoil(self._bug(error, "writing the body"))
            return
        if drained is not None:
            self._wire.pause_reading()
            self._await(drained, "writing the body", lambda fault: self._spoil(fault) if fault else None)

    def _on_end_of_chunk(self, event: events.EndOfChunk) -> None:
        fault = event.fault or self._inlet.fault
        if fault is not None:
            self._record.refusal("BDAT", fault, self.envelope.trace)
        self._reply(fault or replies.chunk_taken(event.octets))

    def _on_end_of_body(self, event: events.EndOfBody) -> None:
        fault = event.fault or self._inlet.fault
        if fault is None and self._inlet.take() is not None:
            self._ask("DATA", self._taken)
            return
        refusal = fault or replies.SHUTTING_DOWN
        self._record.refusal("DATA", refusal, self.envelope.trace, size=event.size)
        self._taken(refusal)

    def _taken(self, answer: Reply | list[Reply]) -> None:
        """After the body: SMTP has one reply, LMTP one per recipient (RFC 2033 §4.2)."""
        count = len(self.envelope.recipients) if self.config.lmtp else 1
        answers = [answer] * count if isinstance(answer, Reply) else answer
        if len(answers) != count:
            raise ValueError(f"{len(answers)} replies for {count} recipients")
        self._messages += 1
        self._forget_envelope()
        self._reply(*answers)

    def _on_reset(self, event: events.Reset) -> None:
        self._forget_envelope()
        self._reply(replies.OK)

    def _forget_envelope(self) -> None:
        self._wire.flowed()
        self.session.forwarded = None  # XFORWARD_README: said anew for each message
        if self._inlet.sink is not None:
            self._spoil(replies.NO_RECIPIENTS)  # RSET or EHLO between two chunks: its words go to nobody
        self._inlet.fault = None
        if self.envelope.trace:  # an unused one will do
            self.envelope = Envelope()

    def _spoil(self, fault: Reply) -> None:
        """The message will be refused; the reply waits for its end."""
        try:
            self._inlet.spoil(fault)
        except Exception as error:
            self._bug(error, "dropping a body")

    # --- TLS, time and the end --------------------------------------------------------------------------------

    def _start_tls(self) -> None:
        self._busy = True
        self._wire.stop_for_tls()
        self._task = self.loop.create_task(self._handshake())

    async def _handshake(self) -> None:
        try:
            if self._smtp.unread:
                raise ConnectionAbortedError("input in clear behind STARTTLS")
            await self._wire.start_tls(self)
        except OSError as error:  # ssl.SSLError and TimeoutError are OSErrors
            self._record.emit("tls", "error", reason=f"the TLS handshake failed: {error}")
            self._task, self._busy = None, False
            self._wire.abort()
            self._wire.lose()  # asyncio does not report the loss of a connection whose handshake failed
            self._end()
            return
        self._secured()
        self._task = None
        self._continue(self._forget_what_was_clear, None)

    def _forget_what_was_clear(self, _: None) -> None:
        """RFC 3207 §4.2."""
        self._smtp.secure()
        self.session.begin_anew()
        self._forget_envelope()

    def _secured(self) -> None:
        """TLS is there."""
        session = self.session
        session.tls_version, session.tls_cipher = self._wire.tls_names()
        session.tls = True
        session.ssl = {"version": session.tls_version, "cipher": session.tls_cipher}
        self._record.emit("tls", "accept", version=session.tls_version, cipher=session.tls_cipher)
        self._look_at_trust()

    def _late(self, session_over: bool) -> None:
        """The wire's clock ran out: for what is awaited now, or for the whole session."""
        if self._busy:
            return  # the peer waits for us; hooks and handshakes have limits of their own
        reply = replies.SESSION_TOO_LONG if session_over else replies.TIMED_OUT
        if self._inlet.sink is not None:
            self._record.refusal("DATA", reply, self.envelope.trace)
        self._close_with(reply)

    def _end(self) -> None:
        """The connection is gone and nothing of it runs."""
        if self._over:
            return
        self._over = True
        self._spoil(replies.SHUTTING_DOWN)  # a body without its end
        self.config.connections.remove(self, self.session.peer[0])
        self._record.disconnect(self._wire.age(), self._messages, self._smtp.last_words)
        self._ask("DISCONNECT", lambda _: None)


_REACTIONS: dict[type, Callable[[Engine, Any], None]] = {
    events.Answer: Engine._on_answer,
    events.Hello: Engine._on_hello,
    events.StartTls: Engine._on_starttls,
    events.Authenticate: Engine._on_authenticate,
    events.XClient: Engine._on_xclient,
    events.XForward: Engine._on_xforward,
    events.Mail: Engine._on_mail,
    events.Rcpt: Engine._on_rcpt,
    events.Data: Engine._on_data,
    events.Bdat: Engine._on_bdat,
    events.Chunk: Engine._on_chunk,
    events.EndOfChunk: Engine._on_end_of_chunk,
    events.Spoilt: lambda engine, event: engine._spoil(event.fault),
    events.EndOfBody: Engine._on_end_of_body,
    events.Reset: Engine._on_reset,
    events.Quit: lambda engine, event: engine._reply(replies.goodbye(engine.config.hostname)),
}
