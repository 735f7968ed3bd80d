"""Paths and addresses of SMTP (RFC 5321 §4.1.2, RFC 6531 §3.3), and `Refused`, how a reader says no.

One compiled grammar instead of a parser by hand: what it does not match is refused with the reply that says how it
should look. Used by `smtp_syntax.py` for commands, and by the client and the rooms to read and write addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from services.protocol.reply import Reply

# RFC 5321 §4.5.3.1.1-3, in octets.
MAX_LOCAL = 64
MAX_DOMAIN = 255
MAX_PATH = 256
MAX_LABEL = 63

_NON_ASCII = "\u00a0-\U0010ffff"  # RFC 6531 §3.3, without the C1 controls
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_NON_ASCII}-]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = rf'"(?P<quoted>(?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*)"'
# RFC 5321's sub-domain has no underscore; senders named after hosts with one exist, and DNS answers for them.
_LABEL = rf"[A-Za-z0-9_{_NON_ASCII}]+(?:-+[A-Za-z0-9_{_NON_ASCII}]+)*"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_MAILBOX = rf"(?:(?P<local>{_DOT_STRING})|{_QUOTED})@(?:(?P<domain>{_DOMAIN})|(?P<literal>\[[!-Z^-~]*\]))"
# RFC 5321 §3.3, appendix C: a source route is accepted and ignored.
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_PATH = re.compile(rf"<{_ROUTE}{_MAILBOX}>(?: +|\Z)")
_ADDRESS = re.compile(rf"{_MAILBOX}\Z")
_DOT_STRING_ONLY = re.compile(rf"{_DOT_STRING}\Z")
NULL_PATH = re.compile(r"<>(?: +|\Z)")
POSTMASTER_PATH = re.compile(r"<(?P<local>postmaster)>(?: +|\Z)", re.IGNORECASE)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}\Z")


class Refused(Exception):
    """The peer's fault, with the reply that names it."""

    def __init__(self, reply: Reply) -> None:
        """`reply` is what the peer is told."""
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Path:
    """A reverse- or forward-path. `local` is without quotes, `domain` as sent (a literal keeps its brackets).

    The null sender is `Path("", "")`; `<postmaster>` is `Path("postmaster", "")` (RFC 5321 §4.5.1).
    """

    local: str
    domain: str

    @property
    def address(self) -> str:
        """As it stands between < and >: quoted where the local part needs it, "" for the null sender."""
        if not self.domain:
            return self.local
        return f"{quote_local(self.local)}@{self.domain}"

    @property
    def ascii(self) -> bool:
        """False when the address needs SMTPUTF8."""
        return self.local.isascii() and self.domain.isascii()

    def __str__(self) -> str:
        """With its brackets."""
        return f"<{self.address}>"


NULL = Path("", "")


def parse_address(text: str) -> Path:
    """Read `local@domain` without brackets; raises ValueError. For settings, aliases and headers, not for commands."""
    match = _ADDRESS.match(text)
    path = _checked(match) if match else None
    if path is None or isinstance(path, str):
        raise ValueError(f"{text!r} is not an address")
    return path


def quote_local(local: str) -> str:
    """A local part as it is written: a dot-string, or quoted (RFC 5321 §4.1.2)."""
    if _DOT_STRING_ONLY.match(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_path(text: str, refusal: Callable[[str], Reply]) -> tuple[Path, re.Match[str]]:
    """The path that `text` begins with, and its match; raises Refused with what `refusal` makes of the fault."""
    match = _PATH.match(text)
    if not match:
        raise Refused(refusal("an address looks like <local@domain>, with its brackets"))
    path = _checked(match)
    if isinstance(path, str):
        raise Refused(refusal(path))
    return path, match


def _checked(match: re.Match[str]) -> Path | str:
    """The path of a match, or what is wrong with it beyond the grammar: lengths, IP addresses."""
    local, domain = match["local"], match["domain"]
    if local is None:
        local = re.sub(r"\\(.)", r"\1", match["quoted"])
        if not local:
            return "the local part is empty"
    if len(local) > MAX_LOCAL or (not local.isascii() and len(local.encode()) > MAX_LOCAL):
        return f"the local part is longer than {MAX_LOCAL} octets"
    if domain is None:
        domain = match["literal"]
        return (
            Path(local, domain) if _literal(domain[1:-1]) else "an address literal is [192.0.2.1] or [IPv6:2001:db8::1]"
        )
    if len(domain) > 60 or not domain.isascii():  # shorter ones cannot break a limit
        octets = len(domain.encode())
        if octets > MAX_DOMAIN or octets + len(local.encode()) + 1 > MAX_PATH - 2:
            return f"an address has at most {MAX_PATH - 2} octets"
        if any(len(label.encode()) > MAX_LABEL for label in domain.split(".")):
            return f"a part of a domain name has at most {MAX_LABEL} octets"
    return Path(local, domain)


def _literal(text: str) -> bool:
    if text[:5].upper() != "IPV6:":
        return _IPV4.match(text) is not None
    import ipaddress  # rare enough that an idle room need not carry it

    try:
        # A zone ("fe80::1%eth0") is an address of one machine only.
        return "%" not in text and bool(ipaddress.IPv6Address(text[5:]))
    except ValueError:
        return False
