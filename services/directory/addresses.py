"""The form in which addresses and domains are kept: the one spelling that all rooms compare.

Domains are kept as lower-case A-labels (RFC 5890 §2.3.2.1): the directory accepts 例子.中国 as typed and stores
xn--fsqu00a.xn--fiqs8s, so that one comparison serves SMTP, TLS and DNS. Local parts are kept in lower case, ASCII only:
RFC 5321 §2.4 leaves their case to us, and nobody means Anna and anna as two people. A local part becomes a folder's
name under the mail volume, therefore a slash, a NUL, a leading dot or `..` never pass.

Pure functions; raise `InvalidName` with a sentence for the owner.
"""

from __future__ import annotations

import re

from services.protocol.idn import a_labels, u_labels

MAX_LOCAL = 64  # RFC 5321 §4.5.3.1.1
MAX_ADDRESS = 254  # RFC 5321 §4.5.3.1.3: a path is 256 octets with its angle brackets
MAX_DOMAIN = 253  # RFC 1035 §2.3.4: 255 octets on the wire

# RFC 5321 §4.1.2 Dot-string, without the slash that no folder's name can hold.
_DOT_STRING = re.compile(r"[a-z0-9!#$%&'*+=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+=?^_`{|}~-]+)*")
# RFC 1123 §2.1. The underscore is no host name's, and no mail domain's.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_USER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# Bounces are sent from this name by every mail server; an account would receive the world's back-scatter as its own.
RESERVED_LOCALS = frozenset({"mailer-daemon"})


class InvalidName(ValueError):
    """Not an address, domain or user name that can be kept; the text says why."""


def ascii_domain(domain: str) -> str:
    """`domain` as lower-case A-labels; raises InvalidName where a label is not IDNA 2008. See `protocol/idn.py`."""
    try:
        return a_labels(domain)
    except ValueError as error:
        raise InvalidName(f"{domain!r} is not a domain name: {error}") from None


def readable_domain(domain: str) -> str:
    """A stored domain as its people write it (U-labels); itself where it has none, or where one is not IDNA 2008."""
    return u_labels(domain)


def domain_name(text: str) -> str:
    """The stored form of a domain as a person types it; raises InvalidName."""
    typed = text.strip().removesuffix(".")
    if not typed:
        raise InvalidName("the domain is empty")
    domain = ascii_domain(typed)
    labels = domain.split(".")
    if len(domain) > MAX_DOMAIN:
        raise InvalidName(f"the domain {domain[:40]}... is longer than {MAX_DOMAIN} characters")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise InvalidName(f"{text!r} is not a domain name: {label!r} is not a label of letters, digits and hyphens")
    if len(labels) < 2:
        raise InvalidName(f"{text!r} is a bare name; a mail domain has at least one dot, such as family.example")
    if labels[-1].isdigit():
        raise InvalidName(f"{text!r} looks like an IP address, not like a domain")
    return domain


def split(text: str) -> tuple[str, str]:
    """`text` at its last @ as (local part, domain), as typed; raises InvalidName."""
    local, at, domain = text.strip().rpartition("@")
    if not at or not local or not domain:
        raise InvalidName(f"{text!r} is not an address such as anna@family.example")
    return local, domain


def address(text: str) -> str:
    """The stored form of any address, ours or somebody else's; raises InvalidName."""
    local, domain = split(text)
    stored = f"{_local_part(local, text)}@{domain_name(domain)}"
    if len(stored) > MAX_ADDRESS:
        raise InvalidName(f"{stored[:40]}... is longer than {MAX_ADDRESS} characters")
    return stored


def account_address(text: str) -> str:
    """The stored form of an address that is to have a mailbox; raises InvalidName."""
    stored = address(text)
    local = stored.partition("@")[0]
    if "+" in local:
        # user+tag@ is user@'s mail: an account by that name would take part of another account's mail.
        raise InvalidName(f"{stored}: the part after + is a tag of the account before it; make an alias instead")
    if local in RESERVED_LOCALS:
        raise InvalidName(f"{stored}: {local} is the name that bounces come from; choose another")
    return stored


def alias_source(text: str) -> str:
    """The stored form of what an alias answers for: an address, or `@domain` for a whole domain; raises InvalidName."""
    typed = text.strip()
    if typed.startswith("@"):
        return "@" + domain_name(typed[1:])
    if typed.startswith("*@"):  # as other servers spell a catch-all
        return "@" + domain_name(typed[2:])
    return address(typed)


def user_name(text: str) -> str:
    """The stored form of a log-in name without a domain; raises InvalidName."""
    name = text.strip().lower()
    if not _USER_NAME.fullmatch(name):
        raise InvalidName(f"{text!r} is not a user name: letters, digits, dot, hyphen and underscore, at most 64")
    return name


def key(text: str) -> str:
    """`text` as lookups compare it: lower case, A-labels. Never raises; what cannot be an address finds nothing."""
    if text.isascii():
        return text.lower()
    local, at, domain = text.rpartition("@")
    try:
        found = f"{local.lower()}{at}{ascii_domain(domain)}"
    except InvalidName:
        found = text
    # Octets that were no UTF-8 arrive as lone surrogates, which no database takes; a backslash is in no stored address.
    return found.encode("utf-8", "backslashreplace").decode()


def _local_part(local: str, text: str) -> str:
    stored = local.lower()
    if len(stored) > MAX_LOCAL:
        raise InvalidName(f"{text!r}: the part before @ is longer than {MAX_LOCAL} characters")
    if not stored.isascii():
        raise InvalidName(f"{text!r}: the part before @ must be ASCII letters; many servers cannot send to others")
    if not _DOT_STRING.fullmatch(stored):
        raise InvalidName(f"{text!r}: the part before @ has a character that mail addresses here do not have")
    return stored
