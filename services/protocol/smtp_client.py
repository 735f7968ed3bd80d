"""The client's side of SMTP and LMTP: replies in, commands out, no socket.

The generators `greet`, `start_tls`, `log_in`, `deliver` and `quit_session` tell one session in the RFC's order: each
yields what is to be done (`Send`, `Receive`, `StartTls`, `SendBody`) and is sent the reply where it asked for one.
`smtp/client.py` drives them on asyncio, with the replies of `smtp_remote.py` and the bodies of `smtp_body.py`. Never
decides when to try again, never opens a file.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, TypeVar

from services.protocol.smtp_parameters import NO_RCPT_PARAMETERS, RcptParameters, ascii_orcpt
from services.protocol.smtp_remote import RemoteReply

# RCPT commands sent before their replies are read. Their replies (about 60 octets each) must fit into the two sides'
# socket buffers, else both ends wait for ever (RFC 2920 §3.1).
PIPELINED_RECIPIENTS = 100


class Phase(Enum):
    """What a reply is awaited for; the driver has a time-out for each (RFC 5321 §4.5.3.2)."""

    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    FINAL = "final"
    RESET = "reset"
    QUIT = "quit"


# --- what a generator asks of its driver


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Give the next reply, as the value of the yield."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin TLS now. What came in before the handshake and was not asked for must be refused by the driver."""


@dataclass(frozen=True, slots=True)
class SendBody:
    """Stream the body through a BodyEncoder, with its end."""


Action = Send | Receive | StartTls | SendBody
_T = TypeVar("_T")
Steps: TypeAlias = Generator[Action, RemoteReply | None, _T]


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server offered: extension keyword in capitals → its parameters. HELO leaves it empty."""

    extensions: Mapping[str, str] = field(default_factory=dict)
    banner: str = ""

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.extensions

    @property
    def size(self) -> int | None:
        """The largest message it takes in octets; None where it does not say (RFC 1870 §4: 0 is no limit too)."""
        text = self.extensions.get("SIZE", "")
        return int(text) or None if text.isdigit() and len(text) < 20 else None

    def limit(self, name: str) -> int | None:
        """A limit of RFC 9422 (`RCPTMAX`, `MAILMAX`); None where the server says none, or nothing that makes sense."""
        for word in self.extensions.get("LIMITS", "").split():
            key, _, value = word.partition("=")
            # RFC 9422 §4: one to six digits, not zero.
            if key.upper() == name and value.isascii() and value.isdigit() and len(value) <= 6:
                return int(value) or None
        return None

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """SASL mechanisms. `AUTH=LOGIN`, of servers older than RFC 4954, counts too."""
        return tuple(self.extensions.get("AUTH", "").upper().split())


class Refused(Exception):
    """The server refuses the session itself; `phase` says where, `reply` in which words."""

    def __init__(self, phase: Phase, reply: RemoteReply) -> None:
        super().__init__(f"{phase.value}: {reply.text}")
        self.phase = phase
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Message:
    """The envelope of one transaction, and what must be known of the body before it is sent.

    `size` in octets, as sent. `smtputf8`: header fields hold UTF-8, or the client asked for SMTPUTF8 with addresses
    that do. `trace` goes only to our own rooms (XTRACE).

    `ret`, `envid` and each recipient's part of `dsn` (address → NOTIFY, ORCPT) go to servers that offer DSN (RFC 3461)
    and to no other; what the sender is told then is the caller's (§5.2.2). `requiretls` (RFC 8689): the message goes to
    a server that offers it, or not at all; that the connection is encrypted and its server the right one is the
    caller's too.
    """

    sender: str
    recipients: tuple[str, ...]
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    trace: str = ""
    ret: str = ""
    envid: str = ""
    requiretls: bool = False
    dsn: Mapping[str, RcptParameters] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """What became of one recipient: `reply` is the one that decided, `phase` the command it answered.

    `ours`: no server said it; this client found that asking would be useless or wrong.
    """

    address: str
    phase: Phase
    reply: RemoteReply
    ours: bool = False

    @property
    def delivered(self) -> bool:
        return self.phase is Phase.FINAL and self.reply.code // 100 == 2


Result = tuple[RecipientResult, ...]


def _command(line: str) -> Send:
    """One command. A CR or LF inside would be a second command in the peer's eyes: a bug of ours, never sent."""
    if "\r" in line or "\n" in line or "\0" in line:
        raise ValueError("a line break inside an SMTP command")
    return Send(line.encode("utf-8") + b"\r\n")


def _ask(line: str, phase: Phase) -> Steps[RemoteReply]:
    yield _command(line)
    return (yield from _receive(phase))


def _receive(phase: Phase) -> Steps[RemoteReply]:
    reply = yield Receive(phase)
    if reply is None:
        raise RuntimeError("the driver answered Receive without a reply")
    if reply.code == 421 and phase not in (Phase.FINAL, Phase.QUIT):
        # RFC 5321 §3.8: the server closes now, whatever was asked; nothing further can be read from it.
        raise Refused(phase, reply)
    return reply


def greet(name: str, *, lmtp: bool = False) -> Steps[Greeting]:
    """Read the greeting, say EHLO, or HELO where EHLO is not known. Raises Refused."""
    banner = yield from _receive(Phase.GREETING)
    if banner.code != 220:
        # RFC 5321 §3.1: 554 instead of 220 is "no SMTP service here".
        raise Refused(Phase.GREETING, banner)
    return (yield from hello(name, lmtp=lmtp, banner=banner.text))


def hello(name: str, *, lmtp: bool = False, banner: str = "") -> Steps[Greeting]:
    """EHLO or LHLO, also anew after STARTTLS (RFC 3207 §4.2: what was offered before it is forgotten)."""
    reply = yield from _ask(f"{'LHLO' if lmtp else 'EHLO'} {name}", Phase.HELLO)
    if reply.code == 250:
        return Greeting(_extensions(reply.lines[1:]), banner)
    if lmtp or not reply.permanent:
        raise Refused(Phase.HELLO, reply)
    # RFC 5321 §3.2: a server without extensions; any 5xx, since old ones say 500, 502 or 550 here.
    reply = yield from _ask(f"HELO {name}", Phase.HELLO)
    if reply.code != 250:
        raise Refused(Phase.HELLO, reply)
    return Greeting({}, banner)


def _extensions(lines: Iterable[str]) -> dict[str, str]:
    offered: dict[str, str] = {}
    for line in lines:
        keyword, _, parameters = line.partition(" ")
        if keyword.upper().startswith("AUTH="):
            keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
        keyword = keyword.upper()
        offered[keyword] = f"{offered.get(keyword, '')} {parameters}".strip()
    return offered


def start_tls(name: str, *, lmtp: bool = False) -> Steps[Greeting]:
    """STARTTLS and a new EHLO. Raises Refused where the server will not, with the old session still usable."""
    reply = yield from _ask("STARTTLS", Phase.STARTTLS)
    if reply.code != 220:
        raise Refused(Phase.STARTTLS, reply)
    yield StartTls()
    return (yield from hello(name, lmtp=lmtp))


def log_in(greeting: Greeting, user: str, password: str) -> Steps[None]:
    """AUTH PLAIN, else LOGIN. The caller has TLS, or a private network. Raises Refused."""
    offered = greeting.mechanisms
    if "PLAIN" in offered or "LOGIN" not in offered:
        # Offered nothing, or only what we do not speak: PLAIN is asked for and the server's refusal is the answer.
        token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        reply = yield from _ask(f"AUTH PLAIN {token}", Phase.AUTH)
    else:
        reply = yield from _ask("AUTH LOGIN", Phase.AUTH)
        for answer in (user, password):
            if reply.code != 334:
                break
            reply = yield from _ask(base64.b64encode(answer.encode()).decode(), Phase.AUTH)
    if reply.code == 334:
        # RFC 4954 §4: a challenge we have nothing to say to is cancelled.
        reply = yield from _ask("*", Phase.AUTH)
    if reply.code != 235:
        raise Refused(Phase.AUTH, reply)


def unsuitable(message: Message, greeting: Greeting) -> RemoteReply | None:
    """Why this message is not worth sending to this server at all, in the words of a reply; None where it is.

    8-bit bodies go to servers without 8BITMIME as they are. RFC 6152 §3 wants them converted or returned; converting
    would break the signature, and the servers that still lack the keyword pass the eighth bit on (Exim and qmail have
    sent so for twenty years).
    """
    if greeting.size is not None and message.size > greeting.size:
        # RFC 1870 §6.1: not asked again for each retry, and not sent for nothing.
        return RemoteReply(552, (f"5.3.4 The message has {message.size} bytes; this server takes {greeting.size}",))
    if "SMTPUTF8" not in greeting and (message.smtputf8 or not message.sender.isascii()):
        # RFC 6531 §3.2: must not be sent to a server that does not offer it. RFC 5248: 5.6.9 and 5.6.7.
        code = "5.6.9" if message.sender.isascii() else "5.6.7"
        return RemoteReply(550, (f"{code} The message needs SMTPUTF8, which this server does not offer",))
    if message.requiretls and "REQUIRETLS" not in greeting:
        # RFC 8689 §4.2.1 and §5: never to a server that does not promise to protect it further.
        return RemoteReply(550, ("5.7.30 The sender requires TLS all the way, and this server does not offer that",))
    return None


def deliver(message: Message, greeting: Greeting, *, lmtp: bool = False) -> Steps[Result]:
    """MAIL, RCPT, DATA: one message to this server; a result for each recipient, in their order. Raises Refused (421).

    With PIPELINING, MAIL and the first RCPTs leave together; DATA goes alone after the last reply: a server that
    accepts DATA although it refused every recipient (RFC 2920 §3.1) would have to be sent an empty message.
    """
    if (reply := unsuitable(message, greeting)) is not None:
        return tuple(RecipientResult(address, Phase.MAIL, reply, ours=True) for address in message.recipients)
    results: dict[str, RecipientResult] = {}
    wanted: list[str] = []
    most = greeting.limit("RCPTMAX")  # RFC 9422 §4.2: it counts those that are refused too
    for address in dict.fromkeys(message.recipients):
        if not address.isascii() and "SMTPUTF8" not in greeting:
            text = "5.6.7 The address needs SMTPUTF8, which this server does not offer"
            results[address] = RecipientResult(address, Phase.RCPT, RemoteReply(553, (text,)), ours=True)
        elif len(wanted) == most:
            text = f"4.5.3 This server takes {most} recipients in one message; this one goes with the next"
            results[address] = RecipientResult(address, Phase.RCPT, RemoteReply(452, (text,)), ours=True)
        else:
            wanted.append(address)
    if wanted:
        yield from _envelope(message, wanted, greeting, results)
    accepted = [address for address in wanted if address not in results]
    if accepted:
        yield from _data(accepted, results, lmtp=lmtp)
    elif wanted:
        # The transaction is open where MAIL was taken and no recipient was; the next message needs a closed one.
        yield from _ask("RSET", Phase.RESET)
    return tuple(results[address] for address in dict.fromkeys(message.recipients))


def _envelope(
    message: Message, wanted: list[str], greeting: Greeting, results: dict[str, RecipientResult]
) -> Steps[None]:
    """MAIL and RCPT; whoever is refused is in `results` afterwards."""
    pipelining = "PIPELINING" in greeting
    commands = [_rcpt(address, message, greeting) for address in wanted]
    yield _command(_mail(message, greeting, wanted))
    if not pipelining:
        mail = yield from _receive(Phase.MAIL)
    for start in range(0, len(wanted), PIPELINED_RECIPIENTS if pipelining else 1):
        batch = slice(start, start + (PIPELINED_RECIPIENTS if pipelining else 1))
        if (not pipelining or start) and not mail.positive:
            break
        yield Send(b"".join(_command(command).data for command in commands[batch]))
        if pipelining and not start:
            mail = yield from _receive(Phase.MAIL)
        for address in wanted[batch]:
            reply = yield from _receive(Phase.RCPT)
            if not reply.positive:
                # RFC 5321 §4.5.3.1.10: 552 to RCPT was the old way to say "too many recipients now": as 452.
                results[address] = RecipientResult(address, Phase.RCPT, reply)
    if not mail.positive:
        for address in wanted:
            results[address] = RecipientResult(address, Phase.MAIL, mail)


def _mail(message: Message, greeting: Greeting, wanted: Iterable[str]) -> str:
    words = [f"MAIL FROM:<{message.sender}>"]
    if "SIZE" in greeting and message.size:
        words.append(f"SIZE={message.size}")
    if message.eight_bit and "8BITMIME" in greeting:
        words.append("BODY=8BITMIME")
    utf8 = message.smtputf8 or not message.sender.isascii() or not all(address.isascii() for address in wanted)
    if utf8 and "SMTPUTF8" in greeting:
        words.append("SMTPUTF8")
    if "DSN" in greeting:
        if message.ret:
            words.append(f"RET={message.ret}")
        if message.envid:
            words.append(f"ENVID={message.envid}")
    if message.requiretls:
        words.append("REQUIRETLS")
    if message.trace and "XMAILSTEAD" in greeting:
        words.append(f"XTRACE={message.trace}")
    return " ".join(words)


def _rcpt(address: str, message: Message, greeting: Greeting) -> str:
    asked = message.dsn.get(address, NO_RCPT_PARAMETERS)
    words = [f"RCPT TO:<{address}>"]
    if "DSN" in greeting:
        if asked.notify:
            words.append(f"NOTIFY={asked.notify}")
        if asked.orcpt:
            # RFC 3461 §5.2.1: handed on as it came.
            words.append(f"ORCPT={asked.orcpt if 'SMTPUTF8' in greeting else ascii_orcpt(asked.orcpt)}")
    return " ".join(words)


def _data(accepted: list[str], results: dict[str, RecipientResult], *, lmtp: bool) -> Steps[None]:
    reply = yield from _ask("DATA", Phase.DATA)
    if reply.code != 354:
        # A 2xx here is no leave to send (RFC 5321 §4.3.2): a server that out of step is asked again later.
        shown = reply if not reply.positive else RemoteReply(451, (f"4.5.0 DATA was answered with {reply.text}",))
        for address in accepted:
            results[address] = RecipientResult(address, Phase.DATA, shown)
        yield from _ask("RSET", Phase.RESET)
        return
    yield SendBody()
    # RFC 2033 §4.2: LMTP answers the final dot once for each recipient it took, in their order.
    reply = yield from _receive(Phase.FINAL)
    for number, address in enumerate(accepted):
        if lmtp and number:
            reply = yield from _receive(Phase.FINAL)
        results[address] = RecipientResult(address, Phase.FINAL, reply)


def quit_session() -> Steps[None]:
    """QUIT; the reply changes nothing any more."""
    yield from _ask("QUIT", Phase.QUIT)
