"""What the directory holds, as values: domains, accounts, aliases.

Addresses are in their stored form (`addresses.py`): lower case, domains as A-labels. Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

# The part before @ of the mail gate's account: nobody else may have it, and nobody judges its mail.
GATE = "mailstead-gate"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain whose mail stays here. `alias_of`: the domain as which its addresses answer; "": they are its own."""

    name: str
    created: float = 0.0
    alias_of: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """One mailbox and who may use it.

    `login` is a user name, unique in the stack, that may be used instead of the address; "" where there is none.
    A disabled account (`enabled` False) neither logs in, sends nor receives: mail for it is refused as for a disabled
    mailbox (5.2.1), so that its sender hears of it; what is in it stays. `quota_bytes` 0 is no limit. `deleted_at`:
    its mail is kept for 30 days from then on and nothing else of it is in use; snapshots do not hold such accounts.
    """

    address: str
    domain: str
    local: str
    login: str = ""
    enabled: bool = True
    administrator: bool = False
    quota_bytes: int = 0
    deleted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """Mail for `source` goes to `target`; several rows with one source make a list.

    `source` is an address of a local domain, or `@domain`: every address of it that is neither account nor alias.
    """

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a log-in is checked against. The hash of a disabled account is "", which no password matches."""

    account: Account
    password_hash: str


@dataclass(frozen=True, slots=True)
class Duty:
    """Something that a change still owes to another room.

    `kind` and `subject`: provision an address (its mailbox is to be made), remove-mail of an address (`detail` keep or
    purge), keys for a domain.
    """

    kind: str
    subject: str
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class Fact:
    """What a room told admin; `identity` makes telling it twice harmless.

    `kind`: last-used; usage (`size` in bytes, `messages`); rehash (`password_hash` in the place of `replaces`).
    """

    identity: str
    kind: str
    account: str
    at: float
    size: int = 0
    messages: int = 0
    replaces: str = ""
    password_hash: str = ""
