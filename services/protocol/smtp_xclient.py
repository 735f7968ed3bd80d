"""XCLIENT and XFORWARD: how a relay of the owner's says whom it had the connection or the message from.

Postfix invented both (XCLIENT_README, XFORWARD_README), and nginx, Haraka and others speak them. Read only of peers
that the owner trusts; to anybody else the commands do not exist. Raises `Refused` for what is malformed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from services.protocol import reply as replies
from services.protocol.smtp_parameters import decode_xtext
from services.protocol.smtp_paths import Refused
from services.protocol.smtp_true_client import Client, plain_address

# In the order in which EHLO's answer names them.
XCLIENT = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
XFORWARD = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")
MAX_VALUE = 255  # both READMEs: octets of a value, decoded
_NO_VALUE = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?\Z")


@dataclass(frozen=True, slots=True)
class Told:
    """What one command said: attribute in capitals → its decoded value, "" for "not known"."""

    attributes: dict[str, str]

    def over(self, client: Client | None, via_xclient: bool) -> Client:
        """`client` as it is after this command: what it did not name stays (a relay may need several lines)."""
        said = self.attributes
        before = client or Client("")
        return replace(
            before,
            # A relay's own loopback is no client that could be judged.
            address=_of_somebody(said.get("ADDR", before.address)),
            helo=said.get("HELO", before.helo),
            name=said.get("NAME", before.name),
            via="xclient" if via_xclient else "xforward",
        )


def parse(argument: str, known: tuple[str, ...]) -> Told:
    """Read what follows the command: `NAME=value` words, the values in xtext. Raises Refused."""
    attributes: dict[str, str] = {}
    for word in argument.split(" "):
        if not word:
            continue
        name, separator, value = word.partition("=")
        name = name.upper()
        if not separator or name not in known or name in attributes:
            raise Refused(replies.syntax(f"say {' '.join(known)}, each once and with a value"))
        attributes[name] = _value(name, value)
    if not attributes:
        raise Refused(replies.syntax(f"say at least one of {' '.join(known)}"))
    return Told(attributes)


def _of_somebody(address: str) -> str:
    return "" if address == "::1" or address.startswith("127.") else address


def _value(name: str, encoded: str) -> str:
    if encoded.upper() in _NO_VALUE:
        return ""
    try:
        text = decode_xtext(encoded)
    except ValueError:
        text = ""
    if not text or len(text) > MAX_VALUE or not text.isascii() or not text.isprintable():
        raise Refused(replies.syntax(f"{name} is printable ASCII in xtext, at most {MAX_VALUE} octets"))
    if name in ("ADDR", "DESTADDR"):
        text = plain_address(text)
        if not text:
            raise Refused(replies.syntax(f"{name} is an IP address, IPV6: before one of IPv6, or [UNAVAILABLE]"))
    elif name in ("PORT", "DESTPORT"):
        if not text.isdigit() or len(text) > 5 or int(text) > 65535:
            raise Refused(replies.syntax(f"{name} is a port number"))
    elif name == "PROTO":
        if text.upper() not in ("SMTP", "ESMTP"):
            raise Refused(replies.syntax("PROTO is SMTP or ESMTP"))
    elif name == "NAME" and not _NAME.match(text):
        raise Refused(replies.syntax("NAME is a host name"))
    elif name == "SOURCE" and text.upper() not in ("LOCAL", "REMOTE"):
        raise Refused(replies.syntax("SOURCE is LOCAL or REMOTE"))
    return text
