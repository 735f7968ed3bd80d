"""Reads structured header fields: addresses (RFC 5322 §3.4), MIME types and parameters (RFC 2045 §5.1, RFC 2231).

Called by `mime` (Content-Type, to find parts) and `envelope` (addresses, parameters). Bytes in, values out; it owns
nothing. It never raises: what people and programs really write is taken as far as it makes sense, and what is missing
is named as Dovecot names it (`MISSING_MAILBOX`, `MISSING_DOMAIN`), since an IMAP client takes a NIL host for a group.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

# Neither a person nor a list writes more; a header of megabytes must not become an ENVELOPE of megabytes.
MAX_ADDRESSES = 4096
MAX_PARAMETERS = 256


class Address(NamedTuple):
    """The four strings of an ENVELOPE address (RFC 3501 §7.4.2). A group begins with (None, None, name, None) and ends
    with four times None."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


GROUP_END = Address(None, None, None, None)


class MediaType(NamedTuple):
    """`main` and `sub` as written. Parameters in order, those that RFC 2231 splits joined."""

    main: bytes
    sub: bytes
    parameters: tuple[tuple[bytes, bytes], ...]

    def parameter(self, name: bytes) -> bytes | None:
        """The first value of a parameter; `name` in lower case."""
        for key, value in self.parameters:
            if key.lower() == name:
                return value
        return None


TEXT_PLAIN = MediaType(b"text", b"plain", ())


class _Broken(Exception):
    """The grammar ends here; the caller keeps what it has."""


_SPACE = re.compile(rb"[ \t\r\n]*")
# 8-bit octets count as letters: unencoded names are common, and dropping them loses the name.
_ATEXT = rb"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff"
_ATOM = re.compile(rb"[" + _ATEXT + rb"]+")
_DOTTED = re.compile(rb"[." + _ATEXT + rb"]+")
# RFC 2045 §5.1 token, and the dot, which is in most file names.
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+\-.^_`{|}~\x80-\xff]*")
_QUOTED = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"', re.S)
_ESCAPE = re.compile(rb"\\(.)", re.S)
_UNTIL_SEMICOLON = re.compile(rb"[^; \t\r\n]*")
_COMMENT_MARK = re.compile(rb"[()\\]")
_DOMAIN_LITERAL = re.compile(rb"\[[^\]\\]*(?:\\.[^\]\\]*)*\]", re.S)


class _Scanner:
    """A position in a field's value. Each reader stops behind the white space and comments that follow its token."""

    __slots__ = ("comment", "data", "end", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.end = len(data)
        self.comment = b""

    @property
    def here(self) -> bytes:
        """The octet at the position; empty at the end."""
        return self.data[self.position : self.position + 1]

    def skip(self) -> bool:
        """Skip white space and comments; whether anything follows. Raises _Broken in an open comment."""
        while True:
            match = _SPACE.match(self.data, self.position)
            assert match is not None
            self.position = match.end()
            if self.here != b"(":
                return self.position < self.end
            self._skip_comment()

    def _skip_comment(self) -> None:
        start = position = self.position + 1
        level = 1
        while level:
            match = _COMMENT_MARK.search(self.data, position)
            if match is None:
                self.position = self.end
                raise _Broken
            mark = match.group()
            position = match.end()
            if mark == b"\\":
                position += 1
            else:
                level += 1 if mark == b"(" else -1
        self.comment = _ESCAPE.sub(rb"\1", self.data[start : position - 1])
        self.position = position

    def take(self, pattern: re.Pattern[bytes]) -> bytes:
        match = pattern.match(self.data, self.position)
        if match is None:
            raise _Broken
        self.position = match.end()
        return match.group()

    def token(self) -> bytes:
        taken = self.take(_TOKEN)
        self.skip()
        return taken

    def quoted(self) -> bytes:
        match = _QUOTED.match(self.data, self.position)
        if match is None:
            # No closing quote: there is no telling where it should have ended.
            self.position = self.end
            raise _Broken
        self.position = match.end()
        text = match.group(1)
        if b"\n" in text:  # folding white space: the line break goes, the blank stays
            text = text.replace(b"\r\n", b"").replace(b"\n", b"")
        if b"\\" in text:
            text = _ESCAPE.sub(rb"\1", text)
        self.skip()
        return text

    def dot_atom(self) -> bytes:
        """RFC 5322 §4.4 obs-local-part too: white space around the dots. Dots in wrong places are kept: real addresses
        have them (`a..b@`, `.a@`), and shown as they are they can be answered."""
        words = [self.take(_DOTTED)]
        while self.skip() and (
            self.here == b"." or (words[-1].endswith(b".") and _ATOM.match(self.data, self.position))
        ):
            words.append(self.take(_DOTTED))
        return b"".join(words)

    def phrase(self) -> bytes:
        words: list[bytes] = []
        while self.position < self.end:
            if self.here == b'"':
                words.append(self.quoted())
                continue
            match = _DOTTED.match(self.data, self.position)
            if match is None or (not words and match.group().startswith(b".")):
                break
            words.append(match.group())
            self.position = match.end()
            self.skip()
        return b" ".join(words)

    def domain(self) -> bytes:
        self.position += 1  # the "@"
        if not self.skip():
            raise _Broken
        if self.here != b"[":
            return self.dot_atom()
        literal = self.take(_DOMAIN_LITERAL)
        self.skip()
        return literal

    def local_part(self) -> bytes:
        return self.quoted() if self.here == b'"' else self.dot_atom()


# --- addresses

# Nine addresses in ten are `Some Name <local@domain>`, `"Name" <...>` or a bare one; these are read at one go.
_WORD = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]+"
_PLAIN = re.compile(
    rb'[ \t\r\n]*(?:(?:"([^"\\\r\n]*)"|(' + _WORD + rb"(?: " + _WORD + rb")*))?[ \t]*<"
    rb"(" + _WORD + rb")@([A-Za-z0-9.\-]+)>|(" + _WORD + rb")@([A-Za-z0-9.\-]+))[ \t\r\n]*(?:,|\Z)"
)


def addresses(value: bytes) -> tuple[Address, ...]:
    """The addresses of an address-list field (RFC 5322 §3.4), groups as ENVELOPE wants them."""
    found: list[Address] = []
    position, end = 0, len(value)
    while position < end and len(found) < MAX_ADDRESSES:
        match = _PLAIN.match(value, position)
        if match is None:
            break
        quoted, words, local, host, bare_local, bare_host = match.groups()
        if words is not None and words.startswith(b"."):
            break
        if local is not None:
            name = quoted if quoted is not None else words
            found.append(Address(name or None, None, local, host))
        else:
            found.append(Address(None, None, bare_local, bare_host))
        position = match.end()
    else:
        return tuple(found)
    scanner = _Scanner(value)
    scanner.position = position
    try:
        if scanner.skip():
            _address_list(scanner, found)
    except _Broken:
        pass
    return tuple(found)


def _address_list(scanner: _Scanner, found: list[Address]) -> None:
    while len(found) < MAX_ADDRESSES:
        start = scanner.position
        if not _group(scanner, found):
            scanner.position = start
            _mailbox(scanner, found)
        if scanner.here != b",":
            return
        scanner.position += 1
        if not scanner.skip():
            return


def _group(scanner: _Scanner, found: list[Address]) -> bool:
    """RFC 5322 §3.4 group: `name: mailbox, mailbox;`. False where it is none."""
    try:
        name = scanner.phrase()
    except _Broken:
        return False
    if scanner.here != b":":
        return False
    scanner.position += 1
    found.append(Address(None, None, name, None))
    try:
        if scanner.skip() and scanner.here != b";":
            while len(found) < MAX_ADDRESSES:
                _mailbox(scanner, found)
                if scanner.here != b",":
                    break
                scanner.position += 1
                if not scanner.skip():
                    break
        if scanner.here == b";":
            scanner.position += 1
            scanner.skip()
    except _Broken:
        pass
    found.append(GROUP_END)
    return True


def _mailbox(scanner: _Scanner, found: list[Address]) -> None:
    """One mailbox, broken or not; raises _Broken when the rest of the field makes no sense."""
    start = scanner.position
    name: bytes | None = None
    try:
        name = scanner.phrase()
        angle = scanner.here == b"<"
    except _Broken:
        angle = False
    if angle:
        route, local, host = _angle(scanner)
        found.append(Address(name or None, route, local, host))
        return
    scanner.position = start
    scanner.comment = b""
    mailbox: bytes | None = None
    domain: bytes | None = None
    try:
        mailbox = scanner.local_part()
        if scanner.here == b"@":
            domain = scanner.domain()
        elif scanner.here not in (b",", b";", b""):
            scanner.position = start
            words = scanner.phrase()
            if scanner.here in (b",", b";", b""):
                # Words without an address: a name whose address was lost.
                mailbox, scanner.comment = None, words
    except _Broken:
        if scanner.here != b",":
            raise
    finally:
        # A comment is where the oldest programs put the name: `local@domain (Some Name)`.
        found.append(
            Address(
                scanner.comment or None,
                None,
                b"MISSING_MAILBOX" if mailbox is None else mailbox,
                b"MISSING_DOMAIN" if domain is None else domain,
            )
        )


def _angle(scanner: _Scanner) -> tuple[bytes | None, bytes, bytes]:
    """`<[@route:]local@domain>` → route, mailbox, host."""
    route: bytes | None = None
    mailbox: bytes | None = None
    host: bytes | None = None
    try:
        scanner.position += 1
        scanner.skip()
        if scanner.here == b">":
            scanner.position += 1
            scanner.skip()
            return None, b"MISSING_MAILBOX", b"MISSING_DOMAIN"
        if scanner.here == b"@":
            route = b"INVALID_ROUTE"
            hops = []
            while scanner.here == b"@":
                hops.append(b"@" + scanner.domain())
                while scanner.here == b",":
                    scanner.position += 1
                    scanner.skip()
            if scanner.here != b":":
                raise _Broken
            route = b",".join(hops)
            scanner.position += 1
            scanner.skip()
        mailbox = scanner.local_part()
        if scanner.here == b"@":
            host = scanner.domain()
        if scanner.here != b">":
            raise _Broken
        scanner.position += 1
        scanner.skip()
    except _Broken:
        host = b"SYNTAX_ERROR"
    return (
        route,
        b"MISSING_MAILBOX" if mailbox is None else mailbox,
        b"MISSING_DOMAIN" if host is None else host,
    )


# --- MIME types and parameters


# `text/plain; charset=utf-8` is on most parts of most mail. Longer ones have a boundary or a file name, seen once.
MAX_CACHED = 64


def media_type(value: bytes) -> MediaType:
    """Content-Type (RFC 2045 §5.1). One that breaks its syntax counts as text/plain, as §5.2 recommends."""
    return _common_media_type(value) if len(value) <= MAX_CACHED else _media_type(value)


def _media_type(value: bytes) -> MediaType:
    scanner = _Scanner(value)
    try:
        scanner.skip()
        main = scanner.token()
        if not main or scanner.here != b"/":
            return TEXT_PLAIN
        scanner.position += 1
        scanner.skip()
        sub = scanner.token()
    except _Broken:
        return TEXT_PLAIN
    return MediaType(main, sub, _parameters(scanner)) if sub else TEXT_PLAIN


_common_media_type = functools.lru_cache(maxsize=128)(_media_type)


def disposition(value: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Content-Disposition (RFC 2183): its type and parameters."""
    scanner = _Scanner(value)
    kind = b""
    try:
        scanner.skip()
        kind = scanner.token()
    except _Broken:
        return kind, ()
    return kind, _parameters(scanner)


def mime_token(value: bytes) -> bytes | None:
    """A field that is one token, as Content-Transfer-Encoding; None where it is something else."""
    scanner = _Scanner(value)
    try:
        scanner.skip()
        token = scanner.token()
        return token if token and not scanner.skip() else None
    except _Broken:
        return None


def language_tags(value: bytes) -> tuple[bytes, ...]:
    """Content-Language (RFC 3282): its tags."""
    scanner = _Scanner(value)
    tags: list[bytes] = []
    try:
        scanner.skip()
        while len(tags) < MAX_PARAMETERS:
            tag = scanner.take(_ATOM)
            tags.append(tag)
            if not scanner.skip() or scanner.here != b",":
                break
            scanner.position += 1
            scanner.skip()
    except _Broken:
        pass
    return tuple(tags)


def _parameters(scanner: _Scanner) -> tuple[tuple[bytes, bytes], ...]:
    """`;name=value`, read on behind what is broken: a semicolon too many is the commonest fault of all."""
    plain: list[tuple[bytes, bytes]] = []
    split: dict[bytes, list[tuple[int, bool, bytes, bytes]]] = {}
    while scanner.position < scanner.end and len(plain) + len(split) < MAX_PARAMETERS:
        try:
            parameter = _parameter(scanner)
        except _Broken:
            scanner.position = max(scanner.position, scanner.data.find(b";", scanner.position))
            if scanner.here != b";":
                break
            continue
        key, value = parameter
        base, star, rest = key.partition(b"*")
        digits = rest.rstrip(b"*")
        if star and (not digits or (digits.isdigit() and len(digits) < 5)) and len(rest) - len(digits) <= 1:
            # RFC 2231 §3: name*, name*0, name*1*; gathered, since their order is free.
            extended = not digits or rest.endswith(b"*")
            split.setdefault(base.lower(), []).append((int(digits or b"0"), extended, base, value))
            if sum(map(len, split.values())) > MAX_PARAMETERS:
                break
        else:
            plain.append((key, value))
    for _, pieces in sorted(split.items()):
        plain.extend(_join(pieces))
    return tuple(plain)


def _parameter(scanner: _Scanner) -> tuple[bytes, bytes]:
    if scanner.here != b";":
        raise _Broken
    scanner.position += 1
    if not scanner.skip():
        raise _Broken
    key = scanner.token()
    if scanner.here != b"=" or not key:
        raise _Broken
    scanner.position += 1
    if not scanner.skip():
        return key, b""
    if scanner.here == b'"':
        return key, scanner.quoted()
    if scanner.here == b"=":
        # name==?utf-8?B?...?=: an encoded word where none is allowed, from programs that know no RFC 2231.
        word = scanner.take(_UNTIL_SEMICOLON)
        scanner.skip()
        return key, word
    return key, scanner.token()


def _join(pieces: list[tuple[int, bool, bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """RFC 2231 §3: the pieces of one value in order; where one is missing each stays as it was written."""
    pieces.sort(key=lambda piece: piece[0])
    if [piece[0] for piece in pieces] != list(range(len(pieces))):
        return [
            (b"%s*%d%s" % (base, number, b"*" if extended else b""), value) for number, extended, base, value in pieces
        ]
    name = pieces[0][2]
    if not any(extended for _, extended, _, _ in pieces):
        return [(name, b"".join(value for _, _, _, value in pieces))]
    value = b"".join(value if extended else value.replace(b"%", b"%25") for _, extended, _, value in pieces)
    return [(name + b"*", value if pieces[0][1] else b"''" + value)]
