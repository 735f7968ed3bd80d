"""What an SMTP server session reports: one value per command, and the body's pieces.

Made by `smtp_session.py`, acted upon by `smtp/engine.py`. Every event but `Chunk` and `Spoilt` waits for one reply,
`Bdat` for `begin_chunks`.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.protocol.reply import Reply
from services.protocol.sasl import PasswordCredentials
from services.protocol.smtp_syntax import MailParameters, Path, RcptParameters
from services.protocol.smtp_xclient import Told


@dataclass(frozen=True, slots=True)
class Hello:
    """HELO, EHLO or LHLO."""

    verb: str
    hostname: str


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS, and TLS is offered."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """The end of an AUTH exchange: check these."""

    mechanism: str
    credentials: PasswordCredentials


@dataclass(frozen=True, slots=True)
class XClient:
    """XCLIENT of a trusted relay: the session begins anew, in this client's name; answered with a greeting."""

    told: Told


@dataclass(frozen=True, slots=True)
class XForward:
    """XFORWARD of a trusted relay: whom the next message comes from."""

    told: Told


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL."""

    path: Path
    params: MailParameters


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT."""

    path: Path
    params: RcptParameters


@dataclass(frozen=True, slots=True)
class Data:
    """DATA: answered 354, the body follows."""


@dataclass(frozen=True, slots=True)
class Bdat:
    """The first BDAT of a message: its octets follow whatever is said; answered by `SmtpSession.begin_chunks`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of the body; waits for no reply."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Spoilt:
    """The body has a fault: no more Chunk comes, the end will. Waits for no reply."""

    fault: Reply


@dataclass(frozen=True, slots=True)
class EndOfChunk:
    """A BDAT's octets are here, and more of the message is to come. `fault`: it will not be taken, and this is why."""

    octets: int
    fault: Reply | None


@dataclass(frozen=True, slots=True)
class EndOfBody:
    """The final dot, or the last chunk. `fault`: the message will not be taken, and why (LMTP: for each recipient)."""

    size: int
    fault: Reply | None
    close: bool = False  # what follows cannot be told to be command or body


@dataclass(frozen=True, slots=True)
class Reset:
    """RSET of a transaction."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the session answers by itself. `verb` is "" where the line was no command."""

    reply: Reply
    verb: str = ""
    close: bool = False


Event = (
    Hello
    | StartTls
    | Authenticate
    | XClient
    | XForward
    | Mail
    | Rcpt
    | Data
    | Bdat
    | Chunk
    | Spoilt
    | EndOfChunk
    | EndOfBody
    | Reset
    | Quit
    | Answer
)
