"""IMAP commands as values: one frozen dataclass for each form of command (RFC 3501 §6 and extensions).

Made by `imap_parse`, carried out by the imap room's handlers. SEARCH's keys are in `imap_search`, FETCH's items in
`imap_fetch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from services.protocol.imap_fetch import FetchItems
from services.protocol.imap_search import Key
from services.protocol.imap_sets import SequenceSet


@dataclass(frozen=True, slots=True)
class Simple:
    """A command without arguments; `name` in upper case: CAPABILITY, NOOP, LOGOUT, STARTTLS, CHECK, CLOSE, IDLE..."""

    name: str


@dataclass(frozen=True, slots=True)
class Authenticate:
    """§6.2.2; `initial` is RFC 4959's initial response, still in base64, b"" for "=", None where there was none."""

    mechanism: str
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Login:
    """§6.2.3."""

    user: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Enable:
    """RFC 5161."""

    names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ClientId:
    """RFC 2971 ID; pairs of field and value, None for NIL."""

    fields: tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Select:
    """§6.3.1, §6.3.2 (EXAMINE: `read_only`)."""

    mailbox: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class OnMailbox:
    """CREATE, DELETE, SUBSCRIBE, UNSUBSCRIBE."""

    name: str
    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename:
    """§6.3.5."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ListMailboxes:
    """§6.3.8 LIST, §6.3.9 LSUB. `only_special` and `return_special` are RFC 6154's options."""

    reference: str
    patterns: tuple[str, ...]
    subscribed: bool = False
    only_special: bool = False


@dataclass(frozen=True, slots=True)
class StatusOf:
    """§6.3.10."""

    mailbox: str
    items: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Append:
    """§6.3.11 up to its literal; `date` in seconds since the epoch."""

    mailbox: str
    flags: tuple[str, ...]
    date: float | None


@dataclass(frozen=True, slots=True)
class Expunge:
    """§6.4.3, and RFC 4315's UID EXPUNGE with `uids`."""

    uids: SequenceSet | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """§6.4.4."""

    key: Key
    uid: bool


@dataclass(frozen=True, slots=True)
class Fetch:
    """§6.4.5."""

    numbers: SequenceSet
    items: FetchItems
    uid: bool


@dataclass(frozen=True, slots=True)
class Store:
    """§6.4.6."""

    numbers: SequenceSet
    mode: Literal["+", "-", "="]
    silent: bool
    flags: tuple[str, ...]
    uid: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """§6.4.7 COPY, RFC 6851 MOVE."""

    numbers: SequenceSet
    mailbox: str
    move: bool
    uid: bool


Command = (
    Simple | Authenticate | Login | Enable | ClientId | Select | OnMailbox | Rename | ListMailboxes | StatusOf | Append
    | Expunge | Search | Fetch | Store | Transfer
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tagged:
    """A command with its tag. `name` is for logs and texts: `UID FETCH`. `command` is a `Command`, or what the room has
    made of one (an APPEND whose message has arrived)."""

    tag: bytes
    name: str
    command: Any


class BadCommand(Exception):
    """A command that cannot be parsed; `tag` is b"*" where it has none that can be used.

    `code` is a response code, given where the fault is not the grammar's: then the answer is NO.
    """

    def __init__(self, tag: bytes, text: str, name: str = "", code: bytes = b"") -> None:
        super().__init__(text)
        self.tag, self.name, self.code = tag, name, code
