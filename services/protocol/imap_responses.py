"""IMAP responses (RFC 3501 §7, RFC 9051 §7): one function per response, values in, the exact octets out.

Called by the imap room's session and handlers, and by `message/envelope.py` for the strings within ENVELOPE and
BODYSTRUCTURE. Nothing else writes a response, so quoting, literals and line ends are decided here only. Pure.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from datetime import date

_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]*")
_ESCAPED = re.compile(rb'["\\]')
_ASTRING = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
# A quoted string with more escapes than this is longer than the literal.
_MAX_ESCAPES = 4

MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


# --- strings


def without_nul(value: bytes) -> bytes:
    """RFC 3501 §9 CHAR8: a literal may hold any octet but NUL. It goes out as 0x80, as Dovecot has it, so that sizes
    and offsets stay; the stored message keeps it."""
    return value.replace(b"\0", b"\x80")


def literal(value: bytes) -> bytes:
    """The octets behind their number; no NUL."""
    return b"{%d}\r\n%s" % (len(value), without_nul(value))


def string(value: bytes) -> bytes:
    """Quoted where RFC 3501 §4.3 lets it be (7 bit, no CR, LF or NUL), else a literal."""
    if _QUOTABLE.fullmatch(value) is not None:
        return b'"%s"' % value
    # RFC 3501 §9 TEXT-CHAR: 8-bit octets, CR, LF and NUL must not stand in quotes.
    if value.isascii() and b"\r" not in value and b"\n" not in value and b"\0" not in value:
        escaped, count = _ESCAPED.subn(rb"\\\g<0>", value)
        if count <= _MAX_ESCAPES:
            return b'"%s"' % escaped
    return literal(value)


def nstring(value: bytes | None) -> bytes:
    return b"NIL" if value is None else string(value)


def astring(value: bytes) -> bytes:
    """An atom where it can be one; `NIL` never is, since it would mean nothing at all (RFC 3501 §4.5)."""
    if _ASTRING.fullmatch(value) is not None and value.upper() != b"NIL":
        return value
    return string(value)


def paren(items: Iterable[bytes]) -> bytes:
    return b"(%s)" % b" ".join(items)


# --- status responses (§7.1)


def status(tag: bytes, condition: bytes, text: bytes, code: bytes = b"") -> bytes:
    if code:
        return b"%s %s [%s] %s\r\n" % (tag, condition, code, text)
    return b"%s %s %s\r\n" % (tag, condition, text)


def ok(tag: bytes, text: bytes, code: bytes = b"") -> bytes:
    return status(tag, b"OK", text, code)


def no(tag: bytes, text: bytes, code: bytes = b"") -> bytes:
    return status(tag, b"NO", text, code)


def bad(tag: bytes, text: bytes, code: bytes = b"") -> bytes:
    return status(tag, b"BAD", text, code)


def bye(text: bytes, code: bytes = b"") -> bytes:
    return status(b"*", b"BYE", text, code)


def greeting(text: bytes, capabilities: bytes) -> bytes:
    return ok(b"*", text, b"CAPABILITY " + capabilities)


def continuation(text: bytes = b"OK") -> bytes:
    """§7.5. Never an empty text: some clients wait for the blank behind the plus sign."""
    return b"+ %s\r\n" % text


# --- server and mailbox status (§7.2)


def capability(names: bytes) -> bytes:
    return b"* CAPABILITY %s\r\n" % names


def enabled(names: Iterable[bytes]) -> bytes:
    """RFC 5161 §3.2."""
    return b"* ENABLED%s\r\n" % b"".join(b" " + name for name in names)


def mailbox_list(attributes: Sequence[bytes], delimiter: bytes, name: bytes, *, lsub: bool = False) -> bytes:
    kind = b"LSUB" if lsub else b"LIST"
    separator = b'"%s"' % delimiter if delimiter else b"NIL"
    return b"* %s (%s) %s %s\r\n" % (kind, b" ".join(attributes), separator, astring(name))


def namespace(prefix: bytes, delimiter: bytes) -> bytes:
    """RFC 2342: one personal namespace, no other users', none shared."""
    return b'* NAMESPACE ((%s "%s")) NIL NIL\r\n' % (string(prefix), delimiter)


def mailbox_status(name: bytes, items: Iterable[tuple[bytes, int]]) -> bytes:
    return b"* STATUS %s (%s)\r\n" % (astring(name), b" ".join(b"%s %d" % item for item in items))


def search(numbers: Iterable[int]) -> bytes:
    return b"* SEARCH%s\r\n" % b"".join([b" %d" % number for number in numbers])


def flags(names: Iterable[bytes]) -> bytes:
    return b"* FLAGS (%s)\r\n" % b" ".join(names)


def server_id(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """RFC 2971 §3.2."""
    if not fields:
        return b"* ID NIL\r\n"
    return b"* ID (%s)\r\n" % b" ".join(string(name) + b" " + string(value) for name, value in fields)


# --- mailbox size and messages (§7.3, §7.4)


def exists(count: int) -> bytes:
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    return b"* %d RECENT\r\n" % count


def expunge(number: int) -> bytes:
    return b"* %d EXPUNGE\r\n" % number


def fetch(number: int, items: Iterable[bytes]) -> bytes:
    return b"* %d FETCH (%s)\r\n" % (number, b" ".join(items))


def internal_date(epoch: float) -> bytes:
    """A date-time (§9) in quotes. Always UTC: the zone a message came in is not kept, and needs not be."""
    day, seconds = divmod(int(epoch), 86_400)
    minutes, second = divmod(seconds, 60)
    return b'"%s %02d:%02d:%02d +0000"' % (_day(day), minutes // 60, minutes % 60, second)


@functools.lru_cache(maxsize=4096)
def _day(number: int) -> bytes:
    # Days since the epoch, held within what a date can say: a file's time may be anything.
    when = date.fromordinal(min(max(number + _EPOCH, 1), _LAST))
    return b"%2d-%s-%04d" % (when.day, MONTHS[when.month - 1], when.year)


_EPOCH = date(1970, 1, 1).toordinal()
_LAST = date(9999, 12, 31).toordinal()


# --- sets and response codes


def number_set(numbers: Sequence[int]) -> bytes:
    """Ascending numbers as a sequence-set, runs drawn together: `1:3,7`."""
    out: list[bytes] = []
    index, count = 0, len(numbers)
    while index < count:
        last = index
        while last + 1 < count and numbers[last + 1] == numbers[last] + 1:
            last += 1
        out.append(b"%d" % numbers[index] if last == index else b"%d:%d" % (numbers[index], numbers[last]))
        index = last + 1
    return b",".join(out)


def append_uid(validity: int, uids: Sequence[int]) -> bytes:
    """RFC 4315 §3."""
    return b"APPENDUID %d %s" % (validity, number_set(uids))


def copy_uid(validity: int, source: Sequence[int], target: Sequence[int]) -> bytes:
    """RFC 4315 §3; both in the same order."""
    return b"COPYUID %d %s %s" % (validity, number_set(source), number_set(target))
