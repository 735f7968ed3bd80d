"""What is done without a mailbox and off the account's thread: CAPABILITY, ID, ENABLE, NAMESPACE, LOGOUT, and the words
of the log-in (RFC 3501 §6.1, §6.2; RFC 2971, RFC 5161, RFC 2342). The log-in itself is `gate`'s, the conversation is
the connection's."""

from __future__ import annotations

from services.imap.faults import Refusal
from services.imap.handlers.mailboxes import DELIMITER
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Login
from services.protocol.sasl import PasswordCredentials, Plain, SaslError

# What is whole, and nothing else. Before the log-in what matters there (RFC 3501 §7.2.1), after it all of it.
ALWAYS = b"IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE"
MECHANISMS = b"AUTH=PLAIN AUTH=LOGIN"
LOGGED_IN = b"NAMESPACE UIDPLUS MOVE SPECIAL-USE CHILDREN UNSELECT"
NAME = b"Mailstead"


def capabilities(*, secure: bool, can_start_tls: bool, logged_in: bool) -> bytes:
    """§7.2.1. Without TLS no way to log in is offered (§11.1): a password would go over the net in the clear."""
    if logged_in:
        return b"%s %s" % (ALWAYS, LOGGED_IN)
    words = [ALWAYS]
    if can_start_tls:
        words.append(b"STARTTLS")
    words.append(MECHANISMS if secure else b"LOGINDISABLED")
    return b" ".join(words)


def login_credentials(command: Login) -> PasswordCredentials:
    """LOGIN's arguments under the same bounds as SASL's. Raises Refusal."""
    try:
        found = Plain().respond(b"\0%s\0%s" % (command.user, command.password))
    except SaslError as error:
        raise Refusal(str(error), b"AUTHENTICATIONFAILED") from None
    assert isinstance(found, PasswordCredentials)
    return found


def server_id() -> bytes:
    """RFC 2971: the name; versions are for the owner's page, not for strangers."""
    return respond.server_id(((b"name", NAME),))


def namespace() -> bytes:
    """RFC 2342: one namespace of one's own, without a prefix."""
    return respond.namespace(b"", DELIMITER)
