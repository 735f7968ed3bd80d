"""SMTP's arguments: paths, parameters, xtext (RFC 5321 §4.1.2, RFC 6531 §3.3, RFC 3461 §4).

One compiled grammar instead of a parser by hand: what it does not match is refused with the reply that says how it
should look. Called by the server session with a line that is already valid UTF-8 without controls, and by the client
and the rooms to write addresses. Raises `Refused` for the peer's faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.protocol import reply as replies
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
_NULL = re.compile(r"<>(?: +|\Z)")
_POSTMASTER = re.compile(r"<(?P<local>postmaster)>(?: +|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(r"(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[!-<>-~]+))?\Z")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}\Z")
_HELLO = re.compile(r"[!-~]{1,255}\Z")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_TRACE = re.compile(r"[0-9a-z]{16}\Z")


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


@dataclass(frozen=True, slots=True)
class MailParameters:
    """MAIL's parameters that the session understood; all others were refused with 555."""

    size: int | None = None  # RFC 1870: octets, as declared
    body: str = ""  # RFC 6152: "", 7BIT or 8BITMIME
    smtputf8: bool = False  # RFC 6531
    auth: str | None = None  # RFC 4954 §5: the identity a trusted client vouches for, decoded; "" for <>
    trace: str = ""  # XTRACE, our own: between rooms only


@dataclass(frozen=True, slots=True)
class RcptParameters:
    """RCPT's parameters: none is offered yet (RFC 3461 will fill it)."""


NO_RCPT_PARAMETERS = RcptParameters()


def parse_mail(argument: str, offered: frozenset[str]) -> tuple[Path, MailParameters]:
    """Read what follows `MAIL`: `FROM:<path> parameters`. Raises Refused.

    `offered` names the parameters that EHLO's answer allows.
    """
    text = _after_keyword(argument, "FROM:", "MAIL FROM:<address>")
    match = _NULL.match(text)
    if match:
        path = NULL
    else:
        path, match = _path(text, replies.bad_sender)
    parameters = _mail_parameters(text[match.end() :], offered) if match.end() < len(text) else MailParameters()
    if not path.ascii and not parameters.smtputf8:
        raise Refused(replies.NEEDS_SMTPUTF8)
    return path, parameters


def parse_rcpt(argument: str, smtputf8: bool) -> tuple[Path, RcptParameters]:
    """Read what follows `RCPT`: `TO:<path> parameters`; `smtputf8` as MAIL said. Raises Refused."""
    text = _after_keyword(argument, "TO:", "RCPT TO:<address>")
    match = _POSTMASTER.match(text)
    if match:
        path = Path(match["local"], "")
    else:
        path, match = _path(text, replies.bad_recipient)
    for keyword, _ in _parameters(text[match.end() :]):
        raise Refused(replies.unknown_parameter(keyword))
    if not path.ascii and not smtputf8:
        raise Refused(replies.NEEDS_SMTPUTF8)
    return path, NO_RCPT_PARAMETERS


def parse_address(text: str) -> Path:
    """Read `local@domain` without brackets; raises ValueError. For settings, aliases and headers, not for commands."""
    match = _ADDRESS.match(text)
    path = _checked(match) if match else None
    if path is None or isinstance(path, str):
        raise ValueError(f"{text!r} is not an address")
    return path


def parse_hello(argument: str) -> str:
    """Read HELO's, EHLO's or LHLO's name; raises Refused.

    RFC 5321 §4.1.1.1 wants a domain or a literal. Printers, phones and scanners send bare names and worse, and what
    they say proves nothing: anything printable in one word passes here, policy may judge it.
    """
    if not _HELLO.match(argument):
        raise Refused(replies.syntax("say EHLO and your host name"))
    return argument


def quote_local(local: str) -> str:
    """A local part as it is written: a dot-string, or quoted (RFC 5321 §4.1.2)."""
    if _DOT_STRING_ONLY.match(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


def encode_xtext(text: str) -> str:
    """RFC 3461 §4: + and = and all that is not printable ASCII as +HH."""
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode()
    )


def decode_xtext(text: str) -> str:
    """Undo `encode_xtext`; raises ValueError."""
    if not _XTEXT.match(text):
        raise ValueError("not xtext")
    pieces = text.split("+")
    octets = pieces[0].encode() + b"".join(bytes([int(p[:2], 16)]) + p[2:].encode() for p in pieces[1:])
    return octets.decode()


def _after_keyword(argument: str, keyword: str, example: str) -> str:
    if argument[: len(keyword)].upper() != keyword:
        raise Refused(replies.syntax(f"say {example}"))
    # RFC 5321 §3.3 permits no space after the colon; scanners and scripts send one, and every large server takes it.
    return argument[len(keyword) :].lstrip(" ")


def _path(text: str, refusal: Callable[[str], Reply]) -> tuple[Path, re.Match[str]]:
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


def _parameters(text: str) -> Iterator[tuple[str, str | None]]:
    """Keyword (upper case) and value of each; raises Refused for bad syntax and repetition."""
    seen: set[str] = set()
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAMETER.match(word)
        if not match:
            raise Refused(replies.syntax("a parameter is KEYWORD or KEYWORD=value"))
        keyword = match["keyword"].upper()
        if keyword in seen:
            raise Refused(replies.syntax(f"parameter {keyword} is given twice"))
        seen.add(keyword)
        yield keyword, match["value"]


def _mail_parameters(text: str, offered: frozenset[str]) -> MailParameters:
    size: int | None = None
    body = trace = ""
    smtputf8 = False
    auth: str | None = None
    for keyword, value in _parameters(text):
        if keyword not in offered:
            raise Refused(replies.unknown_parameter(keyword))
        if keyword == "SIZE":
            # RFC 1870 §3: 1 to 20 digits.
            if value is None or not (value.isascii() and value.isdigit()) or len(value) > 20:
                raise Refused(replies.syntax("SIZE is a number of octets"))
            size = int(value)
        elif keyword == "BODY":
            body = (value or "").upper()
            if body not in ("7BIT", "8BITMIME"):
                raise Refused(replies.syntax("BODY is 7BIT or 8BITMIME"))
        elif keyword == "SMTPUTF8":
            if value is not None:
                raise Refused(replies.syntax("SMTPUTF8 has no value"))
            smtputf8 = True
        elif keyword == "AUTH":
            auth = _vouched(value)
        elif keyword == "XTRACE":
            if value is None or not _TRACE.match(value):
                raise Refused(replies.syntax("XTRACE is a trace id"))
            trace = value
        else:
            raise Refused(replies.unknown_parameter(keyword))
    return MailParameters(size, body, smtputf8, auth, trace)


def _vouched(value: str | None) -> str:
    # RFC 4954 §5: <> or a mailbox as xtext.
    if value == "<>":
        return ""
    try:
        return parse_address(decode_xtext(value or "")).address
    except ValueError:
        raise Refused(replies.syntax("AUTH is <> or an address as xtext")) from None
