"""AUTH (RFC 4954) as the server's session reads it: which exchange begins, and what each line of it says.

Pure steps for `smtp_session.py`: each gives a challenge to send or the credentials to check, or raises `Refused`.
"""

from __future__ import annotations

from services.protocol import reply as replies
from services.protocol import sasl
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_paths import Refused

# A challenge, or the end of the exchange.
Step = bytes | sasl.PasswordCredentials


def begin(argument: str, offer: Offer, *, secured: bool, authenticated: bool) -> tuple[sasl.Mechanism, Step]:
    """Read what follows `AUTH`. Raises Refused."""
    name, _, initial = argument.partition(" ")
    if not offer.auth:
        raise Refused(replies.NOT_IMPLEMENTED)
    if authenticated:
        raise Refused(replies.bad_sequence("already logged in"))
    if offer.auth_requires_tls and not secured:
        raise Refused(replies.LOGIN_NEEDS_TLS)
    name = name.upper()
    if not name:
        raise Refused(replies.syntax("say AUTH and a mechanism"))
    if name not in offer.auth or name not in sasl.MECHANISMS:
        raise Refused(replies.MECHANISM_UNKNOWN)
    mechanism = sasl.MECHANISMS[name]()
    try:
        # RFC 4954 §4: "=" is an initial response of no bytes.
        first = None if not initial else b"" if initial == "=" else sasl.decode_base64(initial.encode())
        return mechanism, mechanism.start(first)
    except sasl.SaslError:
        raise Refused(replies.LOGIN_MALFORMED) from None


def respond(mechanism: sasl.Mechanism, line: bytes) -> Step:
    """Read a line of the exchange. Raises Refused."""
    if line == b"*":
        raise Refused(replies.LOGIN_CANCELLED)
    try:
        return mechanism.respond(sasl.decode_base64(line))
    except sasl.SaslError:
        raise Refused(replies.LOGIN_MALFORMED) from None
