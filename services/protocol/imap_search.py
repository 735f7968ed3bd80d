"""SEARCH's keys (RFC 3501 §6.4.4, §9 search-key) as a tree of values, strings decoded from the command's charset.

Called by `imap_commands`; the imap room's search handler evaluates the tree. Nesting is bounded by the scanner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from services.protocol.imap_sets import SequenceSet, sequence_set
from services.protocol.imap_syntax import BadSyntax, Scanner

CHARSETS = (b"UTF-8", b"US-ASCII")
# A client that ORs every address of a mailing list stays below; each key costs a pass over the mailbox.
MAX_KEYS = 5000

Comparison = Literal["before", "on", "since"]


class BadCharset(Exception):
    """§6.4.4: a charset we do not know. The answer is NO [BADCHARSET (...)], not BAD."""


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class Recent:
    """\\Recent, which is no stored flag."""


@dataclass(frozen=True, slots=True)
class HasFlag:
    """A system flag or keyword."""

    name: str


@dataclass(frozen=True, slots=True)
class Numbers:
    """Message sequence numbers."""

    numbers: SequenceSet


@dataclass(frozen=True, slots=True)
class Uids:
    """Unique identifiers."""

    uids: SequenceSet


@dataclass(frozen=True, slots=True)
class Header:
    """`text` is within the field's value; empty: the field is there."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    """`text` is within the body."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """`text` is within header or body."""

    text: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """INTERNALDATE against a day, zone and time of day disregarded."""

    comparison: Comparison
    day: date


@dataclass(frozen=True, slots=True)
class Sent:
    """The Date field against a day, zone and time of day disregarded."""

    comparison: Comparison
    day: date


@dataclass(frozen=True, slots=True)
class Size:
    """RFC822.SIZE strictly larger or smaller."""

    larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    key: Key


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of two."""

    first: Key
    second: Key


Key = (
    All | Recent | HasFlag | Numbers | Uids | Header | Body | Text | Arrived | Sent | Size | Not | And | Or
)  # fmt: skip

_FLAGS = {
    b"ANSWERED": "\\Answered",
    b"DELETED": "\\Deleted",
    b"DRAFT": "\\Draft",
    b"FLAGGED": "\\Flagged",
    b"SEEN": "\\Seen",
}
_FIELDS = {b"BCC": "bcc", b"CC": "cc", b"FROM": "from", b"SUBJECT": "subject", b"TO": "to"}
_DATES: dict[bytes, tuple[type[Arrived] | type[Sent], Comparison]] = {
    b"BEFORE": (Arrived, "before"),
    b"ON": (Arrived, "on"),
    b"SINCE": (Arrived, "since"),
    b"SENTBEFORE": (Sent, "before"),
    b"SENTON": (Sent, "on"),
    b"SENTSINCE": (Sent, "since"),
}


def charset_name(text: bytes) -> str:
    """The codec of a charset that SEARCH may name. Raises BadCharset."""
    if text.upper() not in CHARSETS:
        raise BadCharset(text.decode("ascii", "replace"))
    # US-ASCII is within UTF-8, and clients that say the one send the other.
    return "utf-8"


def search_program(scanner: Scanner, charset: str = "utf-8") -> Key:
    """§9: one or more keys, all of which must match."""
    return _Keys(scanner, charset).program()


class _Keys:
    def __init__(self, scanner: Scanner, charset: str) -> None:
        self.scanner = scanner
        self.charset = charset
        self.count = 0

    def program(self) -> Key:
        keys = [self.key()]
        while not self.scanner.at_end and not self.scanner.peek(b")"):
            self.scanner.space()
            keys.append(self.key())
        return keys[0] if len(keys) == 1 else And(tuple(keys))

    def key(self) -> Key:
        scanner = self.scanner
        self.count += 1
        if self.count > MAX_KEYS:
            raise BadSyntax("too many search keys")
        if scanner.peek(b"("):
            return self._nested(self._parenthesised)
        first = scanner.data[scanner.position : scanner.position + 1]
        if first.isdigit() or first == b"*":
            return Numbers(sequence_set(scanner))
        name = scanner.word("a search key")
        reader = _READERS.get(name)
        if reader is not None:
            return reader(self)
        if name in _FLAGS:
            return HasFlag(_FLAGS[name])
        if name.startswith(b"UN") and name[2:] in _FLAGS:
            return Not(HasFlag(_FLAGS[name[2:]]))
        if name in _FIELDS:
            return Header(_FIELDS[name], self.text())
        if name in _DATES:
            kind, comparison = _DATES[name]
            scanner.space()
            return kind(comparison, scanner.date())
        raise BadSyntax(f"there is no search key {name.decode('ascii')}")

    def _nested(self, reader: Callable[[], Key]) -> Key:
        self.scanner.deeper()
        found = reader()
        self.scanner.nesting -= 1
        return found

    def _parenthesised(self) -> Key:
        self.scanner.expect(b"(", "a parenthesis")
        found = self.program()
        self.scanner.expect(b")", "a closing parenthesis")
        return found

    def text(self) -> str:
        self.scanner.space()
        octets = self.scanner.astring("a text to search for")
        try:
            return octets.decode(self.charset)
        except UnicodeDecodeError:
            raise BadSyntax("the text is not in the charset of the command") from None

    def negated(self) -> Key:
        self.scanner.space()
        return Not(self._nested(self.key))

    def either(self) -> Key:
        self.scanner.space()
        first = self._nested(self.key)
        self.scanner.space()
        return Or(first, self._nested(self.key))

    def keyword(self) -> HasFlag:
        self.scanner.space()
        return HasFlag(self.scanner.atom("a keyword").decode("ascii"))

    def header(self) -> Header:
        self.scanner.space()
        field = self.scanner.astring("a header field's name").decode("ascii", "replace").lower()
        return Header(field, self.text())

    def octets(self) -> int:
        self.scanner.space()
        return self.scanner.number("a size", most=(1 << 63) - 1)

    def uids(self) -> Uids:
        self.scanner.space()
        return Uids(sequence_set(self.scanner))


_READERS: dict[bytes, Callable[[_Keys], Key]] = {
    b"ALL": lambda keys: All(),
    b"RECENT": lambda keys: Recent(),
    b"OLD": lambda keys: Not(Recent()),
    b"NEW": lambda keys: And((Recent(), Not(HasFlag("\\Seen")))),
    b"NOT": _Keys.negated,
    b"OR": _Keys.either,
    b"KEYWORD": _Keys.keyword,
    b"UNKEYWORD": lambda keys: Not(keys.keyword()),
    b"HEADER": _Keys.header,
    b"BODY": lambda keys: Body(keys.text()),
    b"TEXT": lambda keys: Text(keys.text()),
    b"LARGER": lambda keys: Size(True, keys.octets()),
    b"SMALLER": lambda keys: Size(False, keys.octets()),
    b"UID": _Keys.uids,
}
