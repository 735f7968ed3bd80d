"""Tokens of structured header fields (RFC 5322 §3.2, RFC 2045 §5.1): atoms, quoted strings, comments, domains.

A scanner for `addresses` and `media_types`, which call it. Pure. It raises `Broken` where the grammar ends; what people
and programs really write is taken as far as it makes sense.
"""

from __future__ import annotations

import re


class Broken(Exception):
    """The grammar ends here; the caller keeps what it has."""


_SPACE = re.compile(rb"[ \t\r\n]*")
# 8-bit octets count as letters: unencoded names are common, and dropping them loses the name.
_ATEXT = rb"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff"
ATOM = re.compile(rb"[" + _ATEXT + rb"]+")
_DOTTED = re.compile(rb"[." + _ATEXT + rb"]+")
# RFC 2045 §5.1 token, and the dot, which is in most file names.
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+\-.^_`{|}~\x80-\xff]*")
_QUOTED = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"', re.S)
_ESCAPE = re.compile(rb"\\(.)", re.S)
_COMMENT_MARK = re.compile(rb"[()\\]")
_DOMAIN_LITERAL = re.compile(rb"\[[^\]\\]*(?:\\.[^\]\\]*)*\]", re.S)


class Scanner:
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
        """Skip white space and comments; whether anything follows. Raises Broken in an open comment."""
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
                raise Broken
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
            raise Broken
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
            raise Broken
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
            self.here == b"." or (words[-1].endswith(b".") and ATOM.match(self.data, self.position))
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
            raise Broken
        if self.here != b"[":
            return self.dot_atom()
        literal = self.take(_DOMAIN_LITERAL)
        self.skip()
        return literal

    def local_part(self) -> bytes:
        return self.quoted() if self.here == b'"' else self.dot_atom()
