"""Content-Type and its relatives: MIME types, dispositions, languages, with their parameters (RFC 2045, 2183, 2231).

Called by `mime` (Content-Type, to find parts), `envelope` and `text`. Bytes in, values out; never raises.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from services.message.structured import ATOM, Broken, Scanner

MAX_PARAMETERS = 256
_UNTIL_SEMICOLON = re.compile(rb"[^; \t\r\n]*")


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


# `text/plain; charset=utf-8` is on most parts of most mail. Longer ones have a boundary or a file name, seen once.
MAX_CACHED = 64


def media_type(value: bytes) -> MediaType:
    """Content-Type (RFC 2045 §5.1). One that breaks its syntax counts as text/plain, as §5.2 recommends."""
    return _common_media_type(value) if len(value) <= MAX_CACHED else _media_type(value)


def _media_type(value: bytes) -> MediaType:
    scanner = Scanner(value)
    try:
        scanner.skip()
        main = scanner.token()
        if not main or scanner.here != b"/":
            return TEXT_PLAIN
        scanner.position += 1
        scanner.skip()
        sub = scanner.token()
    except Broken:
        return TEXT_PLAIN
    return MediaType(main, sub, _parameters(scanner)) if sub else TEXT_PLAIN


_common_media_type = functools.lru_cache(maxsize=128)(_media_type)


def disposition(value: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Content-Disposition (RFC 2183): its type and parameters."""
    scanner = Scanner(value)
    kind = b""
    try:
        scanner.skip()
        kind = scanner.token()
    except Broken:
        return kind, ()
    return kind, _parameters(scanner)


def mime_token(value: bytes) -> bytes | None:
    """A field that is one token, as Content-Transfer-Encoding; None where it is something else."""
    scanner = Scanner(value)
    try:
        scanner.skip()
        token = scanner.token()
        return token if token and not scanner.skip() else None
    except Broken:
        return None


def language_tags(value: bytes) -> tuple[bytes, ...]:
    """Content-Language (RFC 3282): its tags."""
    scanner = Scanner(value)
    tags: list[bytes] = []
    try:
        scanner.skip()
        while len(tags) < MAX_PARAMETERS:
            tag = scanner.take(ATOM)
            tags.append(tag)
            if not scanner.skip() or scanner.here != b",":
                break
            scanner.position += 1
            scanner.skip()
    except Broken:
        pass
    return tuple(tags)


def _parameters(scanner: Scanner) -> tuple[tuple[bytes, bytes], ...]:
    """`;name=value`, read on behind what is broken: a semicolon too many is the commonest fault of all."""
    plain: list[tuple[bytes, bytes]] = []
    split: dict[bytes, list[tuple[int, bool, bytes, bytes]]] = {}
    while scanner.position < scanner.end and len(plain) + len(split) < MAX_PARAMETERS:
        try:
            parameter = _parameter(scanner)
        except Broken:
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


def _parameter(scanner: Scanner) -> tuple[bytes, bytes]:
    if scanner.here != b";":
        raise Broken
    scanner.position += 1
    if not scanner.skip():
        raise Broken
    key = scanner.token()
    if scanner.here != b"=" or not key:
        raise Broken
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
