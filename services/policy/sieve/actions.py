"""What a script wants done with a message (RFC 5228 §4), as values; smtp-in does it.

`run.Outcome.actions` has them in the order of the script, doubles taken out. The implicit keep is an action like any.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keep:
    """Into INBOX. `flags` as IMAP writes them, system flags too. `implicit`: because nothing else was done with it."""

    flags: tuple[str, ...] = ()
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class FileInto:
    """Into a mailbox; INBOX where it is missing and `create` does not say that it should be made.

    `special_use` (RFC 8579 §4): into the mailbox with that attribute where there is one.
    """

    mailbox: str
    flags: tuple[str, ...] = ()
    create: bool = False
    special_use: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """On to an address."""

    address: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Nothing is kept but by other actions."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Back to whoever sends. `at_smtp`: ereject, which wants a refusal rather than a letter (RFC 5429 §2.1)."""

    text: str
    at_smtp: bool


@dataclass(frozen=True, slots=True)
class Vacation:
    """Answer the sender, if `policy.sieve.answering` finds that a person may be answered, and once in `seconds`.

    `handle` names the answer for that; `mime`: `text` is a MIME entity with its own header. `addresses` are the
    script's words for "me".
    """

    text: str
    handle: str
    seconds: int
    subject: str = ""
    sender: str = ""
    addresses: tuple[str, ...] = ()
    mime: bool = False


Action = Keep | FileInto | Redirect | Discard | Reject | Vacation
