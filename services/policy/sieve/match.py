"""Comparators (RFC 4790, RFC 5051) and match types (RFC 5228 §2.7, RFC 5231): does a value fit a key, and how.

Called by `tests`. Values and keys are octets, UTF-8 where they are text: RFC 5228 §2.7.1 makes a character of the two
comparators of the base one octet, so "?" is one octet for them. There are no regular expressions made of what people
write: a pattern is cut at its "*", and each piece is found at its first place, which is both right (RFC 5229 §3.2: each
wildcard takes as little as it can, from the left) and done in time length × pattern, whatever is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from services.message.text import fold

# Octets that a run may look at, all in all: a second or so. Fifty conditions over a large header take a thousandth.
MAX_WORK = 400_000_000
# In the same measure: what a comparison costs beside its octets; an octet of a pattern with "?", to be compiled and to
# be compared at each place of a value; an octet to be folded (RFC 5051).
_COMPARISON, _COMPILED, _COMPARED, _FOLDED = 500, 4_000, 2, 20
_NUMBER = re.compile(rb"[0-9]+")


class TooMuchWork(Exception):
    """The script takes more time than a message may cost."""


class Work:
    """What is left of a run's budget."""

    def __init__(self, octets: int = MAX_WORK) -> None:
        self.left = octets

    def spend(self, octets: int) -> None:
        """Raises TooMuchWork."""
        self.left -= octets + _COMPARISON
        if self.left < 0:
            raise TooMuchWork


@dataclass(frozen=True, slots=True)
class How:
    """`kind`: is, contains, matches, value or count; `relation` for the last two."""

    kind: str = "is"
    comparator: str = "i;ascii-casemap"
    relation: str = ""


def matched(values: Iterable[bytes], keys: Sequence[bytes], how: How, work: Work) -> tuple[bytes, ...] | None:
    """What the wildcards stand for in the first value that fits a key, the whole value before it; () where the match
    type has none; None where nothing fits."""
    if how.kind == "count":
        # RFC 5231 §4.2
        values = (b"%d" % sum(1 for _ in values),)
    folds = _FOLDED if how.comparator == "i;unicode-casemap" else 1
    for value in values:
        work.spend(len(value) * folds)
        mapped = _mapped(value, how)
        for key in keys:
            found = _fits(value, mapped, key, how, work)
            if found is not None:
                return found
    return None


def _fits(value: bytes, mapped: str, key: bytes, how: How, work: Work) -> tuple[bytes, ...] | None:
    work.spend(len(value) + len(key) * (_FOLDED if how.comparator == "i;unicode-casemap" else 1))
    if how.kind == "matches":
        if b"?" in key:
            # An expression is made of it, and compared octet by octet.
            work.spend(len(key) * (_COMPILED + len(value) * _COMPARED))
        spans = _spans(mapped, _pieces(_mapped(key, how)))
        if spans is None:
            return None
        if how.comparator == "i;unicode-casemap":
            # Folding changes lengths: what was folded is all that can be told.
            return (value, *(mapped[begin:end].encode("utf-8", "replace") for begin, end in spans))
        return (value, *(value[begin:end] for begin, end in spans))
    mapped_key = _mapped(key, how)
    if how.kind == "contains":
        return () if mapped_key in mapped else None
    if how.comparator == "i;ascii-numeric":
        order = _numeric_order(value, key)
    else:
        order = (mapped > mapped_key) - (mapped < mapped_key)
    if how.kind == "is":
        return () if order == 0 else None
    return () if _related(order, how.relation) else None


def _mapped(octets: bytes, how: How) -> str:
    """The characters that a comparator sees: octets (RFC 5228 §2.7.1), or those of Unicode."""
    if how.comparator == "i;ascii-casemap":
        return octets.upper().decode("latin-1")  # RFC 4790 §9.2.1: to upper case, which matters to the order of "_"
    if how.comparator == "i;unicode-casemap":
        return fold(octets.decode("utf-8", "replace"))
    return octets.decode("latin-1")


def _numeric_order(value: bytes, key: bytes) -> int:
    """RFC 4790 §9.1.1: the digits at the beginning; without any it is greater than every number."""
    found, wanted = _NUMBER.match(value), _NUMBER.match(key)
    if found is None or wanted is None:
        return (found is None) - (wanted is None)
    # By length first: no conversion of thousands of digits.
    first, second = found[0].lstrip(b"0"), wanted[0].lstrip(b"0")
    a, b = (len(first), first), (len(second), second)
    return (a > b) - (a < b)


def _related(order: int, relation: str) -> bool:
    return {
        "gt": order > 0,
        "ge": order >= 0,
        "lt": order < 0,
        "le": order <= 0,
        "eq": order == 0,
        "ne": order != 0,
    }[relation]


# --- :matches

STAR = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """Characters between two stars: `literal`, or an expression of the same length with "?" at the places `ones`."""

    literal: str
    length: int
    expression: re.Pattern[str] | None = None
    ones: tuple[int, ...] = ()

    def at(self, value: str, position: int) -> bool:
        if self.expression is None:
            return value.startswith(self.literal, position)
        return self.expression.match(value, position) is not None

    def first(self, value: str, position: int) -> int:
        if self.expression is None:
            return value.find(self.literal, position)
        found = self.expression.search(value, position)
        return -1 if found is None else found.start()


@lru_cache(256)
def _pieces(pattern: str) -> tuple[_Piece | None, ...]:
    """A pattern's pieces and stars (None), in their order."""
    pieces: list[_Piece | None] = []
    literal: list[str] = []
    ones: list[int] = []

    def end() -> None:
        if ones:
            wild = set(ones)
            expression = "".join("." if at in wild else re.escape(each) for at, each in enumerate(literal))
            pieces.append(_Piece("", len(literal), re.compile(expression, re.DOTALL), tuple(ones)))
        elif literal:
            pieces.append(_Piece("".join(literal), len(literal)))
        literal.clear()
        ones.clear()

    characters = iter(pattern)
    for character in characters:
        if character == "*":
            end()
            pieces.append(STAR)
        elif character == "?":
            ones.append(len(literal))
            literal.append("?")
        else:
            literal.append(next(characters, "\\") if character == "\\" else character)
    end()
    return tuple(pieces)


def _spans(value: str, pieces: tuple[_Piece | None, ...]) -> list[tuple[int, int]] | None:
    """Where each wildcard lies in `value`; None where the pattern does not fit."""
    spans: list[tuple[int, int]] = []
    position = 0
    floating = False  # behind a star, whose span begins at `position`
    for number, piece in enumerate(pieces):
        if piece is None:
            if floating:
                spans.append((position, position))  # of two stars the first takes nothing
            floating = True
            continue
        begin = position
        if floating and number == len(pieces) - 1:
            begin = len(value) - piece.length  # the last piece of all ends where the value ends
            if begin < position or not piece.at(value, begin):
                return None
        elif floating:
            begin = piece.first(value, position)
            if begin < 0:
                return None
        elif not piece.at(value, position):
            return None
        if floating:
            spans.append((position, begin))
        spans += [(begin + one, begin + one + 1) for one in piece.ones]
        position, floating = begin + piece.length, False
    if floating:
        spans.append((position, len(value)))
        position = len(value)
    return spans if position == len(value) else None
