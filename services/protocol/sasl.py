"""The server's side of SASL PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login), for SMTP and IMAP.

A mechanism takes the client's responses and gives the next challenge or the credentials. It never checks a password:
the room does, with what `PasswordCredentials` carries. SCRAM needs the room's stored keys half-way and comes as one
more class with the same two steps.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Protocol

# RFC 4616 §2 bounds authcid, authzid and passwd by nothing; 1 KiB each is far beyond what a person or a client makes
# and keeps a guesser from making argon2 hash megabytes.
MAX_FIELD = 1024


class SaslError(ValueError):
    """The client's response is malformed; the text says how."""


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """What PLAIN and LOGIN carry. `login` is the authentication identity, as sent."""

    login: str
    password: str = field(repr=False)


class Mechanism(Protocol):
    """One log-in in progress."""

    name: str

    def start(self, initial: bytes | None) -> bytes | PasswordCredentials:
        """Take the initial response (None: the client sent none). A challenge, or the credentials."""

    def respond(self, response: bytes) -> bytes | PasswordCredentials:
        """Take the answer to the last challenge. Raises SaslError."""


class Plain:
    """`[authzid] NUL authcid NUL passwd`."""

    name = "PLAIN"

    def start(self, initial: bytes | None) -> bytes | PasswordCredentials:
        """See `Mechanism.start`."""
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | PasswordCredentials:
        """See `Mechanism.respond`."""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise SaslError("PLAIN is [authzid] NUL authcid NUL passwd (RFC 4616 section 2)")
        acting_as, login, password = (_text(part) for part in parts)
        # To act as somebody else is never granted here: an authzid that differs is refused, not ignored.
        if acting_as and acting_as.lower() != login.lower():
            raise SaslError("acting as another user is not offered")
        return _credentials(login, password)


class Login:
    """Two prompts. Clients look at the order only, but old ones wait for exactly these words."""

    name = "LOGIN"

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._login: str | None = None

    def start(self, initial: bytes | None) -> bytes | PasswordCredentials:
        """See `Mechanism.start`."""
        return b"Username:" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | PasswordCredentials:
        """See `Mechanism.respond`."""
        if self._login is None:
            self._login = _text(response)
            return b"Password:"
        return _credentials(self._login, _text(response))


MECHANISMS: dict[str, type[Plain] | type[Login]] = {"PLAIN": Plain, "LOGIN": Login}


def decode_base64(text: bytes) -> bytes:
    """Base64 by RFC 4648 §4, padded and without other characters; raises SaslError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslError("not base64") from None


def encode_base64(data: bytes) -> str:
    """As a challenge carries it."""
    return base64.b64encode(data).decode("ascii")


def _text(value: bytes) -> str:
    if len(value) > MAX_FIELD:
        raise SaslError(f"a field is longer than {MAX_FIELD} octets")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise SaslError("not UTF-8") from None
    if "\0" in text:
        raise SaslError("NUL in a field")
    return text


def _credentials(login: str, password: str) -> PasswordCredentials:
    if not login or not password:
        raise SaslError("user name or password is empty")
    return PasswordCredentials(login, password)
