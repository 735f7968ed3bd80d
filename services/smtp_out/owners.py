"""Whom a forward concerns in this house, and the letter to the administrator about a day's forwards.

smtp-in writes the alias that a forward was for on top of it (`Delivered-To`); the published directory says whose it is:
the first mailbox that the alias also leads to, else the first administrator.
"""

from __future__ import annotations

from services.directory.lookup import Directory
from services.message.date import header_date
from services.message.dsn import field_value
from services.policy.routes import Routing, resolve


def owner_of(header: bytes, directory: Directory) -> str:
    """The account to tell about a forward with this header; "" where there is none. Raises DirectoryUnavailable."""
    alias = field_value(header, b"delivered-to").strip("<>")
    found = resolve(alias, directory) if alias else None
    if isinstance(found, Routing):
        for account in found.mailboxes:
            if account.enabled:
                return account.address
    return administrator(directory)


def administrator(directory: Directory) -> str:
    """The first enabled administrator; "" where there is none. Raises DirectoryUnavailable."""
    return next((each.address for each in directory.accounts() if each.administrator and each.enabled), "")


def nearly_used_up(to: str, *, limit: int, count: int, server: str, sender: str, identity: str, now: float) -> bytes:
    """The letter, with CRLF."""
    lines = [
        f"From: Mailstead <{sender}>",
        f"To: <{to}>",
        f"Subject: {count} of {limit} forwards are used up today",
        f"Date: {header_date(now)}",
        f"Message-ID: <{identity}@{server}>",
        "Auto-Submitted: auto-generated",  # RFC 3834 §5
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"Aliases that lead outside have forwarded {count} messages today (UTC). After",
        f"{limit} (FORWARD_PER_DAY in env/queue.env) the rest waits in the queue until tomorrow;",
        "nothing is lost, and your own mail is not affected.",
        "",
        "What was forwarded, and for which alias: mailstead trace ALIAS",
        "A catch-all that leads outside forwards what spammers try: an account here, with",
        "Junk, may serve better.",
        "",
        server,
        "",
    ]
    return "\r\n".join(lines).encode("ascii", "replace")
