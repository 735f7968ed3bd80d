"""One client's connection: octets in, commands taken in order, octets out.

An asyncio.Protocol without a task of its own: a thousand clients that wait cost a thousand small objects. Input goes to
the reader; each whole command either is answered at once or becomes a task, and until that is done nothing more is
taken (RFC 3501 §5.5: in order is always right). Long answers go out in chunks, each made on the account's thread while
the client can take it. `entry` sees to TLS and log-in, `literals` to what comes as a literal, `idle` to IDLE.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, cast

from services.imap import literals
from services.imap.entry import Entry
from services.imap.faults import CutShort, Gone, Refusal, refusal_for, unexpected
from services.imap.handlers import login
from services.imap.idle import Idle
from services.imap.perform import perform
from services.imap.session import Session
from services.imap.wire import Wire
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Authenticate, BadCommand, ClientId, Enable, Login, Simple, Tagged
from services.protocol.imap_parse import parse
from services.protocol.imap_reader import Command, CommandReader, Event, Faulty, Line, LiteralAnnounced, LiteralChunk
from services.protocol.lines import HTTP_METHODS
from services.runtime.events import new_trace_id
from services.runtime.hold import HELD

if TYPE_CHECKING:
    from services.imap.accounts import Account
    from services.imap.desk import Desk

# Octets made before the thread is given up, and how long it is held at most.
CHUNK, TURN_SECONDS = 262_144, 0.05
# Input kept while a command is carried out; the rest waits in the kernel.
MAX_UNREAD = 262_144


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_answer",
        "_deadline",
        "_ending",
        "_entry",
        "_eof",
        "_errors",
        "account",
        "appending",
        "busy",
        "desk",
        "idle",
        "peer",
        "reader",
        "secure",
        "session",
        "trace",
        "wire",
    )  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.reader = CommandReader()
        self.wire: Wire
        self.peer = ""
        self.trace = new_trace_id()
        self.secure = False
        self.busy = False  # something is being carried out
        self.account: Account | None = None
        self.session: Session | None = None
        self.appending: literals.Appending | None = None
        self.idle: Idle | None = None
        self._entry: Entry | None = Entry(self)
        self._answer: Callable[[bytes], None] | None = None  # takes the next line
        self._errors = 0
        self._eof = False
        self._ending = ""  # BYE with these words after the command in hand
        self._deadline = 0.0

    # --- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or say why not."""
        self.wire = Wire(self.desk.loop, cast(asyncio.Transport, transport))  # uvloop's is one by its methods only
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) else "local"
        self.await_login()
        if transport.get_extra_info("ssl_object") is not None:
            self.secured()
        refused = self.desk.peers.add(self)
        if refused:
            self.emit("connect", outcome="reject", reason=refused)
            self.end(refused, b"UNAVAILABLE")
        else:
            self.greet()

    def secured(self) -> None:
        """TLS is there."""
        self.secure = True
        version, cipher = self.wire.tls_names()
        self.emit("tls", version=version, cipher=cipher)

    def data_received(self, data: bytes) -> None:
        """Octets."""
        self.reader.feed(data)
        if not self.busy:
            self._pump()
        elif self.reader.buffered > MAX_UNREAD:
            self.wire.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more. What it sent is answered first, as scripts expect that end with their input.

        TLS has no half-closed connections.
        """
        self._eof = True
        return self.busy and not self.secure

    def connection_lost(self, error: Exception | None) -> None:
        """Give everything back. A command that is being carried out is finished, its answer has nobody to go to."""
        self.wire.lose()
        self.desk.peers.remove(self)
        if self.idle is not None:
            self.idle.close()
        if not self.busy:
            self._let_go()

    def pause_writing(self) -> None:
        """The client is slower than we are."""
        self.wire.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.wire.resume_writing()
        if self.idle is not None and self.idle.stale:
            self.idle.poke()

    # --- the room's calls

    def sweep(self, now: float) -> None:
        """End what is late."""
        if self.wire.stalled(now):
            self.emit("disconnect", outcome="reject", reason="the client does not read what it asked for")
            self.wire.abort()
        elif now > self._deadline and not self.busy and not self.wire.closing:
            # RFC 3501 §5.4: at least 30 minutes, and BYE first.
            self.end("too long without a command" if self.session else "too long without a log-in")

    @property
    def address(self) -> str:
        """The account that is logged in, or ""."""
        return self.session.address if self.session is not None else ""

    def finish(self, text: str) -> None:
        """Say BYE, after the command in hand."""
        self._ending = text
        if not self.busy:
            self.end(text, b"UNAVAILABLE")

    def abort(self) -> None:
        """Cut it."""
        self.wire.abort()

    # --- what entry, literals and idle ask for

    def greet(self) -> None:
        """The first line, once it can be sent."""
        hold = self.desk.hold
        ban = self.desk.gate.banned(self.peer)
        if hold is not None and (held := hold.refusal(self.peer)):
            # RFC 5530 UNAVAILABLE: the client asks again. Sessions that are open go on.
            self.emit("connect", outcome="defer", reason=held)
            self.end(HELD, b"UNAVAILABLE")
        elif ban is not None:
            self.emit("connect", outcome="reject", reason=f"address banned: {ban.reason}")
            self.end("too many wrong passwords; try again later", b"UNAVAILABLE")
        else:
            self.wire.write(respond.greeting(b"Mailstead ready", self._capabilities()))

    def end(self, text: str, code: bytes = b"") -> None:
        """BYE and close."""
        if not self.wire.closing:
            self.wire.write(respond.bye(text.encode("ascii", "replace"), code))
            self.wire.close()

    def await_login(self) -> None:
        """The time to log in begins now."""
        self._deadline = self.desk.loop.time() + self.desk.login_timeout

    def await_line(self, answer: Callable[[bytes], None]) -> None:
        """Give the next line to `answer` instead of taking it for a command."""
        self._answer = answer
        self.reader.lines(True)

    @property
    def may_log_in(self) -> bool:
        """Whether a password may be sent now."""
        return self.secure or self.desk.plaintext_login

    def logged_in(self, tag: bytes, account: Account, session: Session) -> None:
        """The client is who it says."""
        self.account, self.session = account, session
        self._entry = None
        self._errors = 0
        self._deadline = self.desk.loop.time() + self.desk.idle_timeout
        # RFC 3501 §6.2.2: the capabilities of the new state, so that no client has to ask.
        self.wire.write(respond.ok(tag, b"logged in", b"CAPABILITY " + self._capabilities()))

    def fault(self, tag: bytes, text: str) -> None:
        """BAD, and the end after too many of them."""
        self.refuse(tag, Refusal(text, condition=b"BAD"))

    def refuse(self, tag: bytes, refusal: Refusal) -> None:
        """A tagged refusal; a BAD, or anything before the log-in, counts against the client."""
        self.wire.write(respond.status(tag, refusal.condition, refusal.text, refusal.code))
        if refusal.condition == b"BAD" or self.session is None:
            self._errors += 1
            if self._errors >= self.desk.max_errors:
                self.emit("disconnect", outcome="reject", reason="too many bad commands")
                self.end("too many bad commands")

    def refusal_for(self, error: Exception, doing: str) -> Refusal:
        """The answer to any fault; ours are recorded."""
        known = refusal_for(error)
        if known is not None:
            return known
        identity = new_trace_id()
        self.desk.context.bug(identity, error, doing, conn=self.trace, peer=self.peer)
        return unexpected(error, identity)

    def emit(self, kind: str, *, outcome: str = "info", **fields: Any) -> None:
        """Record an event of this connection."""
        self.desk.context.events.emit(
            kind, self.trace, outcome=outcome, peer=self.peer, account=self.address, service="imap", **fields
        )

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry out what has to be waited for; nothing more is taken until it is done."""
        self.busy = True
        self.desk.start(self._guarded(work))

    async def perform(self, tagged: Tagged, session: Session) -> None:
        """Answer one command of the session."""
        account = self.account
        assert account is not None
        steps = perform(session, tagged, self._bug)
        done = False
        while not done:
            octets, done = await account.run(lambda: _advance(steps))
            notes, session.notes = session.notes, []
            for kind, fields in notes:
                self.emit(kind, outcome="info", **fields)
            if session.lessons:
                lessons, session.lessons = session.lessons, []
                self.desk.teach(session.address, lessons)
            self.wire.write(octets)
            # Also at the end: a client that sends ahead and reads nothing is answered no further.
            await self.wire.drain()

    # --- taking input

    def _pump(self) -> None:
        """Take events until one has to be waited for."""
        while not (self.busy or self.wire.closing or self.wire.lost):
            event = self.reader.next_event()
            if event is None:
                break
            if self.session is not None:
                self._deadline = self.desk.loop.time() + self.desk.idle_timeout
            self._take(event)
        if not self.busy and self.reader.buffered <= MAX_UNREAD:
            self.wire.resume_reading()

    def _take(self, event: Event) -> None:
        if isinstance(event, Command):
            self._command(event.octets)
        elif isinstance(event, Line):
            self._line(event.octets)
        elif isinstance(event, LiteralAnnounced):
            literals.announced(self, event)
        elif isinstance(event, LiteralChunk):
            if self.appending is not None:
                self.appending.take(self, event.octets)
        elif isinstance(event, Faulty):
            if self._answer is not None:
                self._line(event.reason.encode("ascii"))  # not what is awaited, whatever that is
                return
            # Behind a message: the line has no tag of its own, and the next command is not its end.
            tag = event.tag if self.appending is None else self.appending.give_up(self)
            self.fault(tag or b"*", event.reason)

    def _line(self, octets: bytes) -> None:
        answer, self._answer = self._answer, None
        self.reader.lines(False)
        if answer is not None:
            answer(octets)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ConnectionResetError, asyncio.CancelledError):
            self.wire.abort()
        except Gone as gone:
            self.end(str(gone))
        except CutShort as cut:
            # In the middle of a literal: whatever came next would be read as part of the message.
            self.desk.context.bug(new_trace_id(), cut, "sending a message", conn=self.trace, peer=self.peer)
            self.wire.abort()
        except Exception as error:
            refusal = self.refusal_for(error, "in an IMAP session")
            self.end(refusal.text.decode("ascii"), refusal.code)
        finally:
            self.busy = False
            if self.wire.lost:
                self._let_go()
            elif self._ending:
                self.end(self._ending, b"UNAVAILABLE")
            else:
                if self.idle is not None and self.idle.stale:
                    self.idle.poke()
                if not self.busy:
                    self._pump()
                if self._eof and not self.busy:
                    self.wire.close()

    def _let_go(self) -> None:
        if self.appending is not None:
            self.appending.close()
            self.appending = None
        self.session = None
        if self.account is not None:
            self.desk.accounts.release(self.account)
            self.account = None

    def _bug(self, identity: str, error: Exception, doing: str) -> None:
        """Called on the account's thread."""
        self.desk.loop.call_soon_threadsafe(
            lambda: self.desk.context.bug(identity, error, doing, conn=self.trace, peer=self.peer)
        )

    # --- commands

    def _command(self, octets: bytes) -> None:
        if self.appending is not None and self.session is not None:
            appending, self.appending = self.appending, None
            appending.end(self, self.session, octets)
            return
        try:
            tagged = parse(octets)
        except BadCommand as error:
            if self.session is None and error.tag.decode("ascii", "replace") in HTTP_METHODS:
                self.end("this is no web server")
                return
            condition = b"NO" if error.code else b"BAD"
            self.refuse(error.tag, Refusal(str(error), error.code, condition))
            return
        if self.session is not None:
            self._errors = 0  # only in a row do they tell a broken client from one with a command that we do not have
        command = tagged.command
        if isinstance(command, Simple) and self._simple(tagged.tag, command.name):
            return
        if isinstance(command, ClientId):
            if command.fields:
                self.emit("client", client=_described(command))
            self.wire.write(login.server_id() + respond.ok(tagged.tag, b"ID completed"))
        elif isinstance(command, Login | Authenticate):
            if self._entry is None:
                self.fault(tagged.tag, "already logged in")
            else:
                self._entry.log_in(tagged.tag, command)
        elif self.session is None:
            self.fault(tagged.tag, "log in first")
        elif isinstance(command, Enable):
            # RFC 5161 §3.1: what is unknown is passed over; nothing of ours needs enabling.
            self.wire.write(respond.enabled(()) + respond.ok(tagged.tag, b"ENABLE completed"))
        else:
            self.start(self.perform(tagged, self.session))

    def _simple(self, tag: bytes, name: str) -> bool:
        """Commands without arguments that need no thread; whether this was one."""
        if name == "CAPABILITY":
            self.wire.write(respond.capability(self._capabilities()) + respond.ok(tag, b"CAPABILITY completed"))
        elif name == "LOGOUT":
            self.wire.write(respond.bye(b"logging out") + respond.ok(tag, b"LOGOUT completed"))
            self.wire.close()
        elif name == "STARTTLS":
            if self._entry is None:
                self.fault(tag, "STARTTLS cannot be used now")
            else:
                self._entry.starttls(tag)
        elif name == "NOOP" and self.session is None:
            self.wire.write(respond.ok(tag, b"NOOP completed"))
        elif name == "NAMESPACE" and self.session is not None:
            self.wire.write(login.namespace() + respond.ok(tag, b"NAMESPACE completed"))
        elif name == "IDLE" and self.session is not None:
            self.idle = Idle(self, self.session, tag)
        else:
            return False
        return True

    def _capabilities(self) -> bytes:
        return login.capabilities(
            secure=self.may_log_in,
            can_start_tls=not self.secure and self.desk.tls is not None,
            logged_in=self.session is not None,
        )


def _advance(steps: Iterator[bytes]) -> tuple[bytes, bool]:
    """What the steps make until there is enough of it, or until others should have their turn; whether that was all."""
    out: list[bytes] = []
    size = 0
    end = time.monotonic() + TURN_SECONDS
    for octets in steps:
        out.append(octets)
        size += len(octets)
        if size >= CHUNK or time.monotonic() > end:
            return b"".join(out), False
    return b"".join(out), True


def _described(command: ClientId) -> str:
    """A client's ID for the record; it may say what it likes, in 500 characters."""
    pairs = (name + b"=" + (value or b"") for name, value in command.fields)
    return b" ".join(pairs).decode("utf-8", "replace")[:500]
