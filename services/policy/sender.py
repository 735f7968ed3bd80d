"""Who may send as whom.

The rule is one sentence: an account may send as every address whose mail it would receive. `routes.resolve` answers
that, so it covers the account's own address, `+tag`, each alias that leads to it over any number of steps, a shared
list (each member may answer as the list), and a catch-all for addresses that nobody else has. Its own address is its
own even where an alias sends its mail elsewhere. Addresses of a domain alias are those of the domain it stands for.

Checked are the envelope sender (MAIL) and every address of From and Sender: From is what the recipient sees, and what
DKIM signs for. The null sender is for reports made by servers, not for people.

From is read leniently by many programs, each in its own way, so a From that one program reads as mine and another as
somebody else's is possible. Therefore every piece of it that looks like an address must be the account's, not only
those that our reader takes for the author; only quoted names and comments may hold others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.message.addresses import addresses
from services.message.from_domain import like_addresses, outside_quotes
from services.policy.routes import RoutedAccount, Routing, RoutingDirectory, canonical, normalise, resolve, without_tag


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """Why not, as a sentence for the person who sends."""

    reason: str


def may_send_as(account: str, address: str, directory: RoutingDirectory[RoutedAccount]) -> bool:
    """Whether `account` (its address) may use `address`."""
    asked = canonical(normalise(address), directory)
    if account in (asked, without_tag(asked)):
        return True
    found = resolve(asked, directory)
    return isinstance(found, Routing) and any(mailbox.address == account for mailbox in found.mailboxes)


def check_envelope(account: str, sender: str, directory: RoutingDirectory[RoutedAccount]) -> NotAllowed | None:
    """MAIL FROM."""
    if not sender:
        return NotAllowed("the null sender is for delivery reports, not for people")
    if not may_send_as(account, sender, directory):
        return NotAllowed(f"{account} may not send as {sender}")
    return None


def check_header(
    account: str,
    authors: Sequence[bytes],
    senders: Sequence[bytes],
    directory: RoutingDirectory[RoutedAccount],
) -> NotAllowed | None:
    """The values of the From fields (`authors`) and Sender fields, unfolded or not. No From at all is allowed here:
    submission then adds one."""
    if len(authors) > 1:
        # RFC 5322 §3.6: exactly one. Programs differ on which of two they show.
        return NotAllowed("the message has more than one From field")
    if len(senders) > 1:
        return NotAllowed("the message has more than one Sender field")
    for name, values in (("From", authors), ("Sender", senders)):
        for value in values:
            found = author_addresses(value)
            if found is None:
                return NotAllowed(f"the {name} field cannot be read as addresses")
            for address in found:
                if not may_send_as(account, address, directory):
                    return NotAllowed(f"{account} may not send as {address}, which is in the {name} field")
    return None


def author_addresses(value: bytes) -> list[str] | None:
    """Every address of a From or Sender field, and everything that some program might take for one; the first is the
    author that our reader sees. None where there is none, or where it cannot be read."""
    found: list[str] = []
    for entry in addresses(value):
        if entry.mailbox is None or entry.host is None:
            return None  # a group (RFC 6854): nobody is named, so nobody answers for it
        if entry.host in (b"MISSING_DOMAIN", b"SYNTAX_ERROR") or entry.mailbox == b"MISSING_MAILBOX":
            return None
        try:
            found.append(f"{entry.mailbox.decode()}@{entry.host.decode()}")
        except UnicodeDecodeError:
            return None
    if not found:
        return None
    visible = outside_quotes(value)
    if visible is None:
        return None
    for piece in like_addresses(visible):
        try:
            found.append(piece.decode().strip("<>"))
        except UnicodeDecodeError:
            return None
    return list(dict.fromkeys(found))
