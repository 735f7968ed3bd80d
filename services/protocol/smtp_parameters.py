"""MAIL's and RCPT's parameters: `KEYWORD=value` behind the path (RFC 5321 §4.1.2), and xtext (RFC 3461 §4).

One reader per keyword, in a table; a keyword that EHLO did not offer is refused with 555. Called by `smtp_syntax.py`
for the server's session and by `smtp_client.py` to write what is handed on. ENVID and ORCPT are kept as they were
sent, in xtext: the next server must get them unchanged (RFC 3461 §5.2.1), and `decode_xtext` gives the text for a
report. Raises `Refused` for the peer's faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from services.protocol import reply as replies
from services.protocol.smtp_paths import Refused, parse_address

# RFC 3461 §4.2 and §4.4, in octets as sent.
MAX_ORCPT = 500
MAX_ENVID = 100
# What a report may be asked for, in the order in which it is handed on (RFC 3461 §4.1).
NOTIFY = ("SUCCESS", "FAILURE", "DELAY")

# RFC 6531 §4.1: with SMTPUTF8, a value may hold UTF-8 (of those we know, ORCPT's: RFC 6533 §3).
_PARAMETER = re.compile("(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[!-<>-~\u00a0-\U0010ffff]+))?\\Z")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+\Z")
# RFC 6533 §3: utf-8-addr-xtext and utf-8-addr-unitext in one; a character by its number is \x{...}.
_UTF8_ADDRESS = re.compile("(?:[!-*,-<>-\\[\\]-~\u00a0-\U0010ffff]|\\\\x\\{[0-9A-F]{1,6}\\})+\\Z")
_TRACE = re.compile(r"[0-9a-z]{16}\Z")


@dataclass(frozen=True, slots=True)
class MailParameters:
    """MAIL's parameters that the session understood; all others were refused with 555."""

    size: int | None = None  # RFC 1870: octets, as declared
    body: str = ""  # RFC 6152: "", 7BIT or 8BITMIME
    smtputf8: bool = False  # RFC 6531
    auth: str | None = None  # RFC 4954 §5: the identity a trusted client vouches for, decoded; "" for <>
    trace: str = ""  # XTRACE, our own: between rooms only
    ret: str = ""  # RFC 3461 §4.3: "", FULL or HDRS
    envid: str = ""  # RFC 3461 §4.4: xtext as sent
    requiretls: bool = False  # RFC 8689 §2


@dataclass(frozen=True, slots=True)
class RcptParameters:
    """RCPT's parameters that the session understood; all others were refused with 555."""

    notify: str = ""  # RFC 3461 §4.1: "", NEVER, or of SUCCESS,FAILURE,DELAY in this order
    orcpt: str = ""  # RFC 3461 §4.2: `type;address`, the address in xtext as sent (RFC 6533 §3 for the type utf-8)


NO_MAIL_PARAMETERS = MailParameters()
NO_RCPT_PARAMETERS = RcptParameters()


def mail_parameters(text: str, offered: frozenset[str]) -> MailParameters:
    """What follows MAIL's path; `offered` names the keywords that EHLO's answer allows. Raises Refused."""
    return MailParameters(**_read(text, offered, _MAIL))


def rcpt_parameters(text: str, offered: frozenset[str], smtputf8: bool) -> RcptParameters:
    """What follows RCPT's path; `smtputf8` as MAIL said. Raises Refused."""
    values = _read(text, offered, _RCPT)
    # RFC 6533 §3: raw UTF-8 only where SMTPUTF8 was asked for.
    if not smtputf8 and not str(values.get("orcpt", "")).isascii():
        raise Refused(replies.NEEDS_SMTPUTF8)
    return RcptParameters(**values)


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


def original_recipient(orcpt: str) -> tuple[str, str]:
    """Type and address of an ORCPT that was accepted, both as a report writes them (RFC 3464 §2.3.1)."""
    kind, _, address = orcpt.partition(";")
    if kind.lower() == "utf-8":
        return kind, re.sub(r"\\x\{([0-9A-F]+)\}", lambda match: chr(int(match[1], 16)), address)
    return kind, decode_xtext(address)


def ascii_orcpt(orcpt: str) -> str:
    """An ORCPT for a server without SMTPUTF8: RFC 6533 §3, each character beyond ASCII by its number."""
    return "".join(letter if letter.isascii() else f"\\x{{{ord(letter):X}}}" for letter in orcpt)


def _read(text: str, offered: frozenset[str], readers: dict[str, Reader]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for keyword, value in _parameters(text):
        reader = readers.get(keyword)
        if reader is None or keyword not in offered:
            raise Refused(replies.unknown_parameter(keyword))
        values[_FIELDS.get(keyword) or keyword.lower()] = reader(value)
    return values


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


# --- one reader per keyword: its value (None: no "=") to what is kept


Reader = Callable[[str | None], Any]


def _size(value: str | None) -> int:
    # RFC 1870 §3: 1 to 20 digits.
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise Refused(replies.syntax("SIZE is a number of octets"))
    return int(value)


def _body(value: str | None) -> str:
    # RFC 3030 §3's BINARYMIME is not offered: its bodies have no lines, and every other part of this house has.
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise Refused(replies.syntax("BODY is 7BIT or 8BITMIME"))
    return body


def _without_value(keyword: str) -> Reader:
    def read(value: str | None) -> bool:
        if value is not None:
            raise Refused(replies.syntax(f"{keyword} has no value"))
        return True

    return read


def _auth(value: str | None) -> str:
    # RFC 4954 §5: <> or a mailbox as xtext.
    if value == "<>":
        return ""
    try:
        return parse_address(decode_xtext(value or "")).address
    except ValueError:
        raise Refused(replies.syntax("AUTH is <> or an address as xtext")) from None


def _trace(value: str | None) -> str:
    if value is None or not _TRACE.match(value):
        raise Refused(replies.syntax("XTRACE is a trace id"))
    return value


def _ret(value: str | None) -> str:
    ret = (value or "").upper()
    if ret not in ("FULL", "HDRS"):
        raise Refused(replies.syntax("RET is FULL or HDRS"))
    return ret


def _envid(value: str | None) -> str:
    if not value or len(value) > MAX_ENVID or not _printable_xtext(value):
        raise Refused(replies.syntax(f"ENVID is printable ASCII as xtext, at most {MAX_ENVID} octets"))
    return value


def _notify(value: str | None) -> str:
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    # RFC 3461 §4.1: NEVER stands alone.
    if not all(word in NOTIFY for word in words):
        raise Refused(replies.syntax("NOTIFY is NEVER, or of SUCCESS,FAILURE,DELAY"))
    return ",".join(word for word in NOTIFY if word in words)


def _orcpt(value: str | None) -> str:
    kind, _, address = (value or "").partition(";")
    well_formed = _UTF8_ADDRESS.match(address) if kind.lower() == "utf-8" else address and _printable_xtext(address)
    if not well_formed or not _ADDRESS_TYPE.match(kind) or len((value or "").encode()) > MAX_ORCPT:
        raise Refused(replies.syntax(f"ORCPT is type;address as xtext, at most {MAX_ORCPT} octets"))
    try:
        # A number may be that of a line end, of half a character, or of none.
        fit = original_recipient(value or "")[1].isprintable()
    except (ValueError, OverflowError):
        fit = False
    if not fit:
        raise Refused(replies.syntax("ORCPT has a character that no address has"))
    return value or ""


def _printable_xtext(value: str) -> bool:
    """RFC 3461 §4: before it was encoded it was printable ASCII; a line end in it would end up in a report's header."""
    try:
        text = decode_xtext(value)
    except ValueError:
        return False
    return text.isascii() and text.isprintable()


_MAIL: dict[str, Reader] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _without_value("SMTPUTF8"),
    "AUTH": _auth,
    "RET": _ret,
    "ENVID": _envid,
    "REQUIRETLS": _without_value("REQUIRETLS"),
    "XTRACE": _trace,
}
_RCPT: dict[str, Reader] = {"NOTIFY": _notify, "ORCPT": _orcpt}
_FIELDS = {"XTRACE": "trace"}  # the others are named as their keyword
