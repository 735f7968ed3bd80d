"""Macros of SPF: the strings with `%{...}` in records and explanations, read once and written out per message.

    macro-string   a tuple of literal texts and `Macro`s, made by `macro_string`
    domain-spec    a macro-string that ends as a domain name does, made by `domain_spec`

`expand` writes one out with the facts of a message, `target_name` as a name to ask DNS for. Pure, and linear in the
length of what is read. Called by `policy/spf_record.py` and `policy/spf.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

Address = IPv4Address | IPv6Address

MAX_NAME = 253  # RFC 7208 §7.3: characters of an expanded domain name; more are cut off at the left
MAX_LABEL = 63  # RFC 1035 §2.3.4

# RFC 7208 §7.1: visible characters but "%".
_LITERAL = r"[!-$&-~]+"
_MACRO = r"%\{(?P<letter>[A-Za-z])(?P<digits>[0-9]*)(?P<reverse>[rR]?)(?P<delimiters>[.\-+,/_=]*)\}"
_TOKEN = re.compile(rf"(?P<literal>{_LITERAL})|{_MACRO}|%(?P<escape>[%_-])|(?P<space> +)")
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
_LETTERS = frozenset("slodiphv")
# RFC 7208 §7.2: in explanations only.
_EXPLANATION_LETTERS = _LETTERS | frozenset("crt")
# RFC 7208 §7.1: an ALPHA somewhere, or a hyphen that is neither first nor last. What is not "all digits" is one of the
# two where it neither begins nor ends with a hyphen.
_TOP_LABEL = re.compile(r"(?![0-9]+\Z)[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?")
_MANY = 1 << 30  # parts of a macro without a number: all


class MacroError(ValueError):
    """Not the grammar of RFC 7208 §7.1; the text says what and where."""


@dataclass(frozen=True, slots=True)
class Macro:
    """`%{letter parts reverse delimiters}`. `escape`: the letter was upper-case, so the value is URL-escaped."""

    letter: str
    parts: int = _MANY
    reverse: bool = False
    delimiters: str = "."
    escape: bool = False


MacroString = tuple[str | Macro, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the letters stand for (RFC 7208 §7.2)."""

    ip: Address
    local: str
    sender_domain: str
    helo: str
    domain: str = ""
    validated: str = "unknown"
    receiver: str = "unknown"
    now: float = 0.0

    def value(self, letter: str) -> str:
        """The value of a lower-case letter, before it is cut, reversed or escaped."""
        match letter:
            case "s":
                return f"{self.local}@{self.sender_domain}"
            case "l":
                return self.local
            case "o":
                return self.sender_domain
            case "d":
                return self.domain
            case "i":
                return dotted(self.ip)
            case "p":
                return self.validated
            case "v":
                return "in-addr" if self.ip.version == 4 else "ip6"
            case "h":
                return self.helo
            case "c":
                return str(self.ip)
            case "r":
                return self.receiver
            case _:
                return str(int(self.now))


def dotted(ip: Address) -> str:
    """The value of `%{i}`: a dotted quad, or the 32 nibbles of an IPv6 address with dots between."""
    return str(ip) if ip.version == 4 else ".".join(ip.exploded.replace(":", "").upper())


def macro_string(text: str, *, explanation: bool = False) -> MacroString:
    """Read a macro-string; with `explanation` one of an exp= record, which may have spaces and the letters c, r and t.

    Raises MacroError.
    """
    return _read(text, explanation)[0]


def _read(text: str, explanation: bool = False) -> tuple[MacroString, bool]:
    """The macro-string, and whether it ends with a macro-expand."""
    found: list[str | Macro] = []
    token: re.Match[str] | None = None
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or (token["space"] and not explanation):
            raise MacroError(f"{_excerpt(text, position)} is no macro and no visible ASCII character")
        found.append(_part(token, _EXPLANATION_LETTERS if explanation else _LETTERS))
        position = token.end()
    return tuple(found), token is not None and token[0].startswith("%")


def domain_spec(text: str) -> MacroString:
    """Read a domain-spec: it ends with a macro, or with a dot and a top label. Raises MacroError."""
    if not text:
        raise MacroError("a domain name is missing")
    found, ends_with_macro = _read(text)
    if ends_with_macro:
        return found
    _, dot, label = str(found[-1]).removesuffix(".").rpartition(".")
    if not dot or not _TOP_LABEL.fullmatch(label):
        raise MacroError(f"{_excerpt(text)} is not a domain name with a dot in it")
    return found


def letters(parts: MacroString) -> frozenset[str]:
    """Which macro letters are in it, in lower case."""
    return frozenset(part.letter for part in parts if isinstance(part, Macro))


def expand(parts: MacroString, facts: Facts) -> str:
    """Write out a macro-string."""
    return "".join(part if isinstance(part, str) else _value(part, facts) for part in parts)


def target_name(parts: MacroString, facts: Facts) -> str:
    """Write out a domain-spec as a name for DNS, without a last dot and cut to 253 characters."""
    name = expand(parts, facts).removesuffix(".")
    if len(name) > MAX_NAME:
        # RFC 7208 §7.3: whole labels with their dots, from the left.
        dot = name.find(".", len(name) - MAX_NAME - 1)
        name = name[dot + 1 :]
    return name


def is_name(name: str) -> bool:
    """Whether DNS can be asked for it: ASCII, no empty label, none longer than 63 octets.

    RFC 7208 §4.3 (and its silence in §4.8): what is not never matches.
    """
    return (
        name.isascii() and 0 < len(name) <= MAX_NAME and all(0 < len(label) <= MAX_LABEL for label in name.split("."))
    )


def _part(token: re.Match[str], allowed: frozenset[str]) -> str | Macro:
    if token["escape"]:
        return _ESCAPES[token["escape"]]
    if not token["letter"]:
        return token[0]
    letter = token["letter"].lower()
    if letter not in allowed:
        raise MacroError(f"{token[0]} is no macro that may stand there")
    # RFC 7208 §7.3: a number that is given is not zero. Nine digits are more than any name has labels.
    parts = int(token["digits"][-9:]) if token["digits"] else _MANY
    if token["digits"] and not token["digits"].strip("0"):
        raise MacroError(f"{token[0]} asks for no part of its value")
    if len(token["digits"].lstrip("0")) > 9:
        parts = _MANY
    return Macro(letter, parts, bool(token["reverse"]), token["delimiters"] or ".", token["letter"].isupper())


def _value(macro: Macro, facts: Facts) -> str:
    value = facts.value(macro.letter)
    if macro.parts != _MANY or macro.reverse or macro.delimiters != ".":
        if len(macro.delimiters) == 1:
            pieces = value.split(macro.delimiters)
        else:
            pieces = re.split(f"[{re.escape(macro.delimiters)}]", value)
        if macro.reverse:
            pieces.reverse()
        # RFC 7208 §7.3: the right-hand parts, after reversal; joined by dots whatever split them.
        value = ".".join(pieces[-macro.parts :])
    # RFC 7208 §7.3: all but the unreserved characters of RFC 3986, which are what quote() leaves with "~".
    return quote(value, safe="~", errors="replace") if macro.escape else value


def _excerpt(text: str, position: int = 0) -> str:
    piece = text[position : position + 40]
    return piece if piece.isascii() and piece.isprintable() else ascii(piece)
