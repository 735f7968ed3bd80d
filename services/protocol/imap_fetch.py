"""FETCH's attributes (RFC 3501 §6.4.5, §9 fetch-att): sections, partials, macros, as values.

Called by `imap_commands`. Each section carries the label under which its data go out, so nothing is formatted twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from services.protocol.imap_responses import astring
from services.protocol.imap_syntax import BadSyntax, Scanner

SectionText = Literal["", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"]

# Deeper than any message is parsed (message/mime.py MAX_DEPTH), shallower than a line is long.
MAX_PART_NUMBERS = 200
MAX_ITEMS = 200

_SIMPLE = frozenset(
    (b"FLAGS", b"UID", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE", b"BODY", b"BODYSTRUCTURE"),
)
_MACROS: dict[bytes, tuple[bytes, ...]] = {
    b"ALL": (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE"),
    b"FAST": (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"),
    b"FULL": (b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE", b"BODY"),
}
_NAME = re.compile(rb"[A-Za-z0-9.]+")
_PARTS = re.compile(rb"[1-9][0-9]{0,8}(?:\.[1-9][0-9]{0,8})*")
_TEXT = re.compile(rb"[A-Za-z.]+")


@dataclass(frozen=True, slots=True)
class Section:
    """What of a message: `part` numbers (empty: the whole), then which text of it. `fields` are in lower case."""

    part: tuple[int, ...] = ()
    text: SectionText = ""
    fields: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class BodyItem:
    """One BODY[...] item. `label` is what stands before the data; `partial` (first octet, at most so many)."""

    section: Section
    label: bytes
    peek: bool
    partial: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FetchItems:
    """What a FETCH asks for: names of `_SIMPLE` items, and sections, in the order of the command."""

    items: tuple[bytes | BodyItem, ...]

    @property
    def seen(self) -> bool:
        """Whether the command sets \\Seen (§6.4.5: without .PEEK)."""
        return any(isinstance(item, BodyItem) and not item.peek for item in self.items)


# RFC 3501's names for what RFC 822 servers had.
_OLD: dict[bytes, BodyItem] = {
    b"RFC822": BodyItem(Section(), b"RFC822", False),
    b"RFC822.HEADER": BodyItem(Section(text="HEADER"), b"RFC822.HEADER", True),
    b"RFC822.TEXT": BodyItem(Section(text="TEXT"), b"RFC822.TEXT", False),
}


def fetch_items(scanner: Scanner) -> FetchItems:
    """§6.4.5: a macro, one item, or a list of items."""
    if scanner.peek(b"("):
        found = scanner.listed(lambda: _item(scanner), "items")
    else:
        start = scanner.position
        name = scanner.take(_NAME, "an item to fetch").upper()
        if name in _MACROS:
            return FetchItems(_MACROS[name])
        scanner.position = start
        found = [_item(scanner)]
    if len(found) > MAX_ITEMS:
        raise BadSyntax("too many items")
    return FetchItems(tuple(dict.fromkeys(found)))


def _item(scanner: Scanner) -> bytes | BodyItem:
    name = scanner.take(_NAME, "an item to fetch").upper()
    if scanner.peek(b"[") and name in (b"BODY", b"BODY.PEEK"):
        return _body(scanner, peek=name == b"BODY.PEEK")
    if name in _SIMPLE:
        return name
    if name in _OLD:
        return _OLD[name]
    raise BadSyntax(f"there is no FETCH item {name.decode('ascii')}")


def _body(scanner: Scanner, *, peek: bool) -> BodyItem:
    scanner.expect(b"[", "a section")
    part: tuple[int, ...] = ()
    text: SectionText = ""
    fields: list[bytes] = []
    label = b""
    match = _PARTS.match(scanner.data, scanner.position)
    if match is not None:
        label = match.group()
        part = tuple(map(int, label.split(b".")))
        if len(part) > MAX_PART_NUMBERS:
            raise BadSyntax("there is no part so deep")
        scanner.position = match.end()
        if scanner.accept(b"."):
            label += b"."
            text = _section_text(scanner, within=True)
    elif not scanner.peek(b"]"):
        text = _section_text(scanner, within=False)
    label += text.encode("ascii")
    if text.startswith("HEADER.FIELDS"):
        scanner.space()
        fields = scanner.listed(lambda: scanner.astring("a header field's name"), "header field names")
        label += b" (%s)" % b" ".join([astring(name.upper()) for name in fields])
    scanner.expect(b"]", "the end of the section")
    label = b"BODY[%s]" % label
    partial = None
    if scanner.accept(b"<"):
        first = scanner.number("an offset", most=(1 << 63) - 1)
        scanner.expect(b".", "a dot in the partial")
        count = scanner.number("a length", most=(1 << 63) - 1)
        if count == 0:
            raise BadSyntax("a partial of no octets")  # §9 partial: nz-number
        scanner.expect(b">", "the end of the partial")
        partial = (first, count)
        # §7.4.2: the answer names the origin octet alone.
        label += b"<%d>" % first
    return BodyItem(Section(part, text, frozenset(name.lower() for name in fields)), label, peek, partial)


def _section_text(scanner: Scanner, *, within: bool) -> SectionText:
    text = scanner.take(_TEXT, "a section's text").upper()
    if text == b"HEADER":
        return "HEADER"
    if text == b"HEADER.FIELDS":
        return "HEADER.FIELDS"
    if text == b"HEADER.FIELDS.NOT":
        return "HEADER.FIELDS.NOT"
    if text == b"TEXT":
        return "TEXT"
    # §6.4.5: MIME is a part's own header, so it needs a part.
    if text == b"MIME" and within:
        return "MIME"
    raise BadSyntax(f"there is no section {text.decode('ascii')}")
