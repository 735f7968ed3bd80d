"""What constant arguments may say: comparators, relations, header names, addresses, mailboxes, date parts.

Called by `check` for what is written in the script; `run` calls the same for what a variable turned out to hold. Each
function gives sentences about what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from services.policy.sieve.language import COMPARATORS
from services.policy.sieve.values import IDENTIFIER, Text, Value
from services.protocol.smtp_syntax import parse_address

# RFC 5231 §4
RELATIONS = ("gt", "ge", "lt", "le", "eq", "ne")
# RFC 5260 §4.2
DATE_PARTS = (
    "year", "month", "day", "date", "julian", "hour", "minute", "second", "time", "iso8601", "std11", "zone", "weekday",
)  # fmt: skip
ENVELOPE_PARTS = ("from", "to")
# RFC 5228 §5.1: an address test is for fields that hold addresses. Those of the RFC, and those that programs write.
ADDRESS_FIELDS = frozenset(
    b"from to cc bcc sender reply-to resent-from resent-to resent-cc resent-bcc resent-sender resent-reply-to"
    b" return-path errors-to disposition-notification-to return-receipt-to apparently-to delivered-to envelope-to"
    b" x-envelope-to x-original-to x-forwarded-to mail-followup-to mail-reply-to abuse-reports-to x-complaints-to"
    b" list-owner approved".split()
)
_ZONE = re.compile(rb"[+-](?:[01][0-9]|2[0-3])[0-5][0-9]")
_FIELD_NAME = re.compile(rb"[!-9;-~]{1,200}")
_ANGLE = re.compile(r"[^<>]*<([^<>]*)>\s*")
# RFC 5230 §4.1 and RFC 6131 §2 leave the bounds to the site: nobody is answered more than every half hour, nor
# remembered for longer than a year.
LEAST_SECONDS, MOST_SECONDS = 1_800, 366 * 86_400
DAY = 86_400
# RFC 5321 §4.5.3.1.3 for an address; a folder name has 255 octets.
MAX_MAILBOX = 1_000


def match_type(tags: dict[str, Value], required: Iterable[str]) -> Iterator[str]:
    """Comparator, relation, index of any test."""
    comparator = tags.get("comparator", b"i;ascii-casemap")
    name = comparator.decode("utf-8", "replace") if isinstance(comparator, bytes) else ""
    if name not in COMPARATORS:
        yield "the comparator is not one of " + ", ".join(COMPARATORS)
    elif name not in ("i;octet", "i;ascii-casemap") and f"comparator-{name}" not in required:
        yield f'the comparator {name} needs require "comparator-{name}"'
    if name == "i;ascii-numeric" and ("contains" in tags or "matches" in tags):
        yield "i;ascii-numeric compares whole numbers: it has no :contains and no :matches"  # RFC 4790 §9.1
    for kind in ("count", "value"):
        if kind in tags:
            relation = tags[kind]
            if not isinstance(relation, bytes) or relation.decode("utf-8", "replace").lower() not in RELATIONS:
                yield f":{kind} takes one of " + ", ".join(RELATIONS)
    if "last" in tags and "index" not in tags:
        yield ":last needs :index"  # RFC 5260 §6
    if tags.get("index") == 0:
        yield ":index counts from 1"


def header_names(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """The first argument: names of header fields."""
    for name in _constant(arguments[0]):
        if not _FIELD_NAME.fullmatch(name):
            yield f'"{_shown(name)}" is not the name of a header field'


def header(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """The header test."""
    yield from header_names(tags, arguments)


def address(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """The address test."""
    for name in _constant(arguments[0]):
        if name.lower() not in ADDRESS_FIELDS:
            yield f'address cannot look at "{_shown(name)}": it holds no addresses; use header'


def envelope(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5228 §5.4: an unknown part is an error."""
    for part in _constant(arguments[0]):
        if part.decode("utf-8", "replace").lower() not in ENVELOPE_PARTS:
            yield f'an envelope has no part "{_shown(part)}" here: from and to are known'


def size(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5228 §5.9."""
    if not tags:
        yield "size needs :over or :under"


def body(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5173 §5.2: a content type is `type`, `type/subtype` or empty."""
    return iter(())


def date(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5260 §4."""
    yield from header_names(tags, arguments)
    yield from _date_part(tags, arguments[1])


def currentdate(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5260 §5."""
    yield from _date_part(tags, arguments[0])


def _date_part(tags: dict[str, Value], part: Value | None) -> Iterator[str]:
    if isinstance(part, bytes) and part.decode("utf-8", "replace").lower() not in DATE_PARTS:
        yield f'"{_shown(part)}" is no part of a date: ' + ", ".join(DATE_PARTS)
    zone = tags.get("zone")
    if isinstance(zone, bytes) and not _ZONE.fullmatch(zone):
        yield ':zone takes an offset such as "+0800"'


def redirect(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5228 §4.2."""
    for value in _constant(arguments[0]):
        if mail_address(value) is None:
            yield f'"{_shown(value)}" is not a mail address'


def fileinto(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5228 §4.1."""
    yield from mailboxes(tags, arguments)


def mailboxes(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """Names of mailboxes."""
    for name in _constant(arguments[0]):
        if mailbox_name(name) is None:
            yield f'"{_shown(name)}" cannot be the name of a folder'


def set_variable(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5229 §4: the name is a constant."""
    name = arguments[0]
    if not isinstance(name, tuple | int) and name is not None:
        yield from variable_name(name)


def variable_name(name: Text) -> Iterator[str]:
    """RFC 5229 §3: an identifier; numbers are match variables, a dot would be a namespace."""
    if not isinstance(name, bytes):
        yield "the name of a variable cannot hold a variable"
    elif b"." in name:
        yield f'"{_shown(name)}": there are no namespaces of variables'
    elif not IDENTIFIER.fullmatch(name):
        yield f'"{_shown(name)}" is not the name of a variable'


def vacation(tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
    """RFC 5230 §4."""
    for value in _constant(tags.get("from")):
        if mail_address(value) is None:
            yield f'"{_shown(value)}" is not a mail address'


def mail_address(value: bytes) -> str | None:
    """`value` as an address, None where it is none. `Name <address>` is taken as well: people copy it so."""
    try:
        text = value.decode("utf-8").strip()
        if match := _ANGLE.fullmatch(text):
            text = match[1]
        return parse_address(text).address
    except ValueError:
        return None


def mailbox_name(value: bytes) -> str | None:
    """`value` as the name of a mailbox, None where it cannot be one; the levels are the store's to judge."""
    try:
        name = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return name if 0 < len(value) <= MAX_MAILBOX and name.isprintable() else None


def _constant(value: Value | None) -> Iterator[bytes]:
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, bytes):
            yield each


def _shown(octets: bytes) -> str:
    text = octets[:60].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)
