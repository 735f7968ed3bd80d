"""The grammar of SPF records (RFC 7208 §4.6.1, §5, §6, §12): a TXT string in, a `Record` out, or a `RecordError`.

The whole record is read before a term of it is evaluated, since an error anywhere makes the result permerror
(RFC 7208 §4.6). Pure; linear in the length of the record. Called by `policy/spf.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

from services.policy.spf_macro import MacroError, MacroString, domain_spec, macro_string

Qualifier = Literal["pass", "fail", "softfail", "neutral"]
Name = Literal["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"]

# RFC 7208 §3.4 wants records under 512 octets; flattened ones of 4 KB are met. TXT can hold 64 KB, and ten of those
# included by one another would cost a second of the loop for one message.
MAX_RECORD = 16_384
_CACHED_RECORD = 1_024  # octets: what a stranger can have remembered stays below a MiB
_CACHED_RECORDS = 512

_QUALIFIERS: dict[str, Qualifier] = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_VERSION = b"v=spf1"
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_MECHANISM = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)(.*)", re.DOTALL)
# RFC 7208 §5.6: no leading zeros; what is out of range is refused with them.
_DUAL_CIDR = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?", re.DOTALL)
_CIDR = re.compile(r"([^/]*)(?:/(0|[1-9][0-9]{0,2}))?")
_ADDRESS_LIKE = re.compile(r"[0-9]+(?:\.[0-9]+){3}(?:/.*)?", re.DOTALL)


class RecordError(ValueError):
    """permerror: not a record that RFC 7208 allows. The text is a sentence for the owner."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One mechanism with its qualifier.

    `target` is the domain-spec of include, a, mx, ptr and exists, empty where the current domain is meant. `network` is
    the address of ip4 and ip6 as a number. `prefix4` and `prefix6` are the bits that count, of a, mx, ip4 and ip6.
    """

    text: str
    result: Qualifier
    name: Name
    target: MacroString = ()
    network: int = 0
    prefix4: int = 32
    prefix6: int = 128


@dataclass(frozen=True, slots=True)
class Record:
    """Directives in their order; `redirect` and `explanation` are domain-specs, empty where there is none."""

    directives: tuple[Directive, ...]
    redirect: MacroString = ()
    explanation: MacroString = ()


def select(answer: Sequence[bytes]) -> list[bytes]:
    """The SPF records among a domain's TXT records: none, one, or too many (RFC 7208 §4.5)."""
    return [
        text for text in answer if text[:6].lower() == _VERSION and (len(text) == 6 or text[6:7] == b" ")
    ]  # ABNF's quoted strings have no case (RFC 5234 §2.3), so V=SPF1 is one


def parse(text: bytes) -> Record:
    """Read one record that `select` chose. Raises RecordError."""
    if len(text) > MAX_RECORD:
        raise RecordError(f"it is longer than {MAX_RECORD} octets")
    return _remembered(text) if len(text) <= _CACHED_RECORD else _parse(text)


def _parse(text: bytes) -> Record:
    try:
        # RFC 7208 §3.1: US-ASCII. RFC 7208 §4.6.1: terms are separated by spaces alone, so a tab or a line end is
        # part of a term, and no term may hold one.
        terms = text[len(_VERSION) :].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise RecordError("it has characters outside ASCII") from None
    directives: list[Directive] = []
    modifiers: dict[str, MacroString] = {}
    for term in terms:
        if not term:
            continue
        try:
            if found := _MODIFIER.fullmatch(term):
                _modifier(found[1].lower(), found[2], modifiers)
            else:
                directives.append(_directive(term))
        except MacroError as error:
            raise RecordError(f"{_shown(term)} is wrong: {_shown(str(error), 120)}") from None
    return Record(tuple(directives), modifiers.get("redirect", ()), modifiers.get("exp", ()))


_remembered = lru_cache(_CACHED_RECORDS)(_parse)


def _modifier(name: str, value: str, modifiers: dict[str, MacroString]) -> None:
    if name not in ("redirect", "exp"):
        macro_string(value)  # RFC 7208 §6: unknown modifiers are ignored, but must be macro-strings
        return
    if name in modifiers:
        raise RecordError(f"{name}= stands there twice")  # RFC 7208 §6
    # An empty exp= is permerror as an empty redirect= is: the grammar of §6.2 wins over
    # half a sentence there, as the published tests have it.
    modifiers[name] = domain_spec(value)


def _directive(term: str) -> Directive:
    result = _QUALIFIERS.get(term[0])
    found = _MECHANISM.fullmatch(term[1:] if result else term)
    name, rest = (found[1].lower(), found[2]) if found else ("", "")
    result = result or "pass"
    match name:
        case "all":
            if rest:
                raise MacroError("nothing may follow all")
            return Directive(term, result, "all")
        case "include" | "exists":
            if not rest.startswith(":"):
                raise MacroError("a domain name is missing")
            return Directive(term, result, name, domain_spec(rest[1:]))
        case "ptr":
            return Directive(term, result, name, _optional_target(rest))
        case "a" | "mx":
            cidr = _DUAL_CIDR.fullmatch(rest)
            assert cidr is not None  # its first group takes anything
            prefix4 = _prefix(cidr[2], 32)
            return Directive(term, result, name, _optional_target(cidr[1]), 0, prefix4, _prefix(cidr[3], 128))
        case "ip4":
            network, prefix = _network(rest, IPv4Address, 32)
            return Directive(term, result, name, (), network, prefix)
        case "ip6":
            network, prefix = _network(rest, IPv6Address, 128)
            return Directive(term, result, name, (), network, 32, prefix)
        case _:
            raise RecordError(f"{_shown(term)} is no mechanism of SPF")


def _optional_target(text: str) -> MacroString:
    if not text:
        return ()
    if not text.startswith(":"):
        raise MacroError("after its name only a colon and a domain, or a length such as /24 may stand")
    if _ADDRESS_LIKE.fullmatch(text[1:]):
        raise MacroError("an address stands where a domain belongs: that would be ip4")
    return domain_spec(text[1:])


def _network(rest: str, form: type[IPv4Address] | type[IPv6Address], bits: int) -> tuple[int, int]:
    found = _CIDR.fullmatch(rest[1:]) if rest.startswith(":") else None
    if found is None:
        raise MacroError(f"an address, and a length of 0 to {bits} after it, belong there")
    try:
        # Python's addresses may carry a zone; those of RFC 4291 §2.2 do not.
        network = int(form("" if "%" in found[1] else found[1]))
    except AddressValueError:
        shown = _shown(found[1])
        raise MacroError(f"{shown} is no IPv4 address" if bits == 32 else f"{shown} is no IPv6 address") from None
    return network, _prefix(found[2], bits)


def _prefix(text: str | None, bits: int) -> int:
    length = bits if text is None else int(text)
    if length > bits:
        raise MacroError(f"/{length} is more than /{bits}")
    return length


def _shown(text: str, most: int = 60) -> str:
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= most else text[:most] + "..."
