"""The tokens of IMAP commands (RFC 3501 §9, RFC 9051 §9): a scanner over one complete command, literals included.

`imap_reader` collects a command's octets; `imap_commands` and its siblings read them with a `Scanner` and make one
value per command. Pure: bytes in, values out. The only exception raised is `BadSyntax`, whose text is for the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import TypeVar

from services.protocol.imap_responses import MONTHS

# Lists and search keys within each other. Clients nest three deep; a parser that recurses must know where to stop.
MAX_NESTING = 50

Item = TypeVar("Item")


class BadSyntax(ValueError):
    """A command that is not in the grammar; the text says why, for the tagged BAD."""


class BadMailboxName(BadSyntax):
    """A string that the grammar allows but that names no mailbox: NO [CANNOT] (RFC 5530)."""


# ATOM-CHAR is 7 bit and none of ( ) { SP CTL % * " \ ]; an astring may have ], a list-mailbox % * ] too.
_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_ASTRING = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
_LIST_MAILBOX = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
# Octets of 8 bit are let through: RFC 6855 has them, and passwords typed in UTF-8 by old clients do too.
_QUOTED = re.compile(rb'"([^"\\\r\n\x00]*(?:\\["\\][^"\\\r\n\x00]*)*)"')
_UNQUOTE = re.compile(rb"\\(.)")
_LITERAL = re.compile(rb"(~?)\{(\d{1,19})\+?\}\r?\n")
_NUMBER = re.compile(rb"\d{1,20}")
_FLAG = re.compile(rb'\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_DATE = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")
_DATE_TIME = re.compile(
    rb"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"
)
_MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(MONTHS, 1)}


class Scanner:
    """A position in one command. Each reader takes exactly its token; `space` and `end` are read by name."""

    __slots__ = ("data", "nesting", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        """`data` is the command without its final line end; literals stand in it as they came."""
        self.data = data
        self.position = position
        self.nesting = 0

    # --- structure

    def peek(self, text: bytes) -> bool:
        """Whether `text` stands here."""
        return self.data.startswith(text, self.position)

    def accept(self, text: bytes) -> bool:
        """Take `text` if it stands here."""
        if not self.data.startswith(text, self.position):
            return False
        self.position += len(text)
        return True

    def expect(self, text: bytes, what: str) -> None:
        """Take `text` or raise."""
        if not self.accept(text):
            raise BadSyntax(f"expected {what}")

    def space(self) -> None:
        """Exactly one SP (§9); some clients send two, and no meaning hangs on it."""
        self.expect(b" ", "a space")
        while self.accept(b" "):
            pass

    @property
    def at_end(self) -> bool:
        """Whether nothing but blanks follows; a trailing blank is common and harmless."""
        return not self.data[self.position :].strip(b" ") if self.peek(b" ") else self.position >= len(self.data)

    def end(self) -> None:
        """Raise unless the command ends here."""
        if not self.at_end:
            raise BadSyntax("unexpected text after the arguments")

    def take(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        """Take what matches or raise."""
        match = pattern.match(self.data, self.position)
        if match is None:
            raise BadSyntax(f"expected {what}")
        self.position = match.end()
        return match.group()

    def listed(self, item: Callable[[], Item], what: str, *, empty: bool = False) -> list[Item]:
        """A parenthesised list of items."""
        self.expect(b"(", f"a list of {what}")
        found: list[Item] = []
        if empty and self.accept(b")"):
            return found
        while True:
            found.append(item())
            if self.accept(b")"):
                return found
            self.space()

    def deeper(self) -> None:
        """Count one level of nesting; the caller subtracts it again."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise BadSyntax("nested too deeply")

    # --- words and strings

    def tag(self) -> bytes:
        """§9 tag."""
        return self.take(_TAG, "a tag")

    def atom(self, what: str = "an atom") -> bytes:
        """§9 atom."""
        return self.take(_ATOM, what)

    def word(self, what: str) -> bytes:
        """An atom that is a keyword of the grammar, in upper case."""
        return self.take(_ATOM, what).upper()

    def string(self, what: str = "a string") -> bytes:
        """§9 string: quoted or literal."""
        if self.peek(b'"'):
            match = _QUOTED.match(self.data, self.position)
            if match is None:
                raise BadSyntax("a quoted string is not closed, or has a character that needs a literal")
            self.position = match.end()
            text = match.group(1)
            return _UNQUOTE.sub(rb"\1", text) if b"\\" in text else text
        match = _LITERAL.match(self.data, self.position)
        if match is None:
            raise BadSyntax(f"expected {what}")
        if match.group(1):
            raise BadSyntax("literal8 is not supported here")
        start = match.end()
        end = start + int(match.group(2))
        text = self.data[start:end]
        if len(text) != end - start:
            raise BadSyntax("a literal is cut short")
        if b"\0" in text:
            raise BadSyntax("NUL is not allowed in a literal")  # §9 CHAR8
        self.position = end
        return text

    def astring(self, what: str = "a string or atom") -> bytes:
        """§9 astring."""
        if self.peek(b'"') or self.peek(b"{") or self.peek(b"~{"):
            return self.string(what)
        return self.take(_ASTRING, what)

    def nstring(self, what: str) -> bytes | None:
        """§9 nstring."""
        if self.peek(b'"') or self.peek(b"{"):
            return self.string(what)
        if self.word(what) == b"NIL":
            return None
        raise BadSyntax(f"expected {what} or NIL")

    def list_mailbox(self) -> bytes:
        """§9 list-mailbox: a pattern."""
        if self.peek(b'"') or self.peek(b"{"):
            return self.string("a pattern")
        return self.take(_LIST_MAILBOX, "a pattern")

    # --- numbers, flags, dates

    def number(self, what: str = "a number", most: int = (1 << 32) - 1) -> int:
        """§9 number: unsigned, 32 bits."""
        value = int(self.take(_NUMBER, what))
        if value > most:
            raise BadSyntax(f"{what} is too large")
        return value

    def flag(self) -> str:
        """§9 flag: `\\Seen` in its usual spelling, or a keyword as written."""
        text = self.take(_FLAG, "a flag").decode("ascii")
        if not text.startswith("\\"):
            return text
        known = _SYSTEM_FLAGS.get(text.lower())
        if known is None:
            raise BadSyntax(f"there is no system flag {text}")
        return known

    def flag_list(self) -> tuple[str, ...]:
        """§9 flag-list; each flag once."""
        return tuple(dict.fromkeys(self.listed(self.flag, "flags", empty=True)))

    def date(self) -> date:
        """§9 date, quoted or not."""
        quoted = self.accept(b'"')
        match = _DATE.match(self.data, self.position)
        if match is None:
            raise BadSyntax("expected a date such as 1-Feb-2026")
        self.position = match.end()
        if quoted:
            self.expect(b'"', "a closing quote")
        day, month, year = match.groups()
        try:
            return date(int(year), _MONTH_NUMBERS[month.lower()], int(day))
        except (KeyError, ValueError):
            raise BadSyntax("there is no such date") from None

    def date_time(self) -> float:
        """§9 date-time, as seconds since the epoch."""
        text = self.string("a date and time")
        match = _DATE_TIME.fullmatch(text)
        if match is None:
            raise BadSyntax('expected a date and time such as " 1-Feb-2026 12:00:00 +0100"')
        day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
        try:
            zone = timezone(-offset if sign == b"-" else offset)
            # A leap second has no place on the clock: it is the second before (POSIX §4.16 does alike).
            when = datetime(
                int(year),
                _MONTH_NUMBERS[month.lower()],
                int(day),
                int(hour),
                int(minute),
                min(int(second), 59),
                0,
                zone,
            )
        except (KeyError, ValueError):
            raise BadSyntax("there is no such date and time") from None
        return when.timestamp()


_SYSTEM_FLAGS = {name.lower(): name for name in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")}
