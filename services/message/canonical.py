"""The two canonical forms of DKIM (RFC 6376 §3.4), for header fields and for bodies that stream by.

Signing (`dkim_signature`, `body_hash`) and verifying (`dkim_verify`, `arc`) share them. Pure functions and values over
bytes: lines end in CRLF only; a bare CR or LF is a character like any other, and the SMTP engine refuses it before.
White space is SP and HTAB alone: bytes.strip() without them would take form feeds too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

Form = Literal["simple", "relaxed"]
Sink = Callable[[bytes], object]

_SPACES = re.compile(rb"  +")
_WHITE_SPACE = re.compile(rb"[ \t]+")
_LINE_END = re.compile(rb"\r\n(?![ \t])")
# A field name is printable ASCII without a colon (RFC 5322 §2.2); before the colon the obsolete syntax has white space.
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")

# Pending empty lines are written in blocks of this many: a body of 25 million empty lines and one last word must not
# build a 50 MB string at once.
_BLANK_LINES = b"\r\n" * 8192


def relaxed_value(value: bytes) -> bytes:
    """RFC 6376 §3.4.2: an unfolded value with single blanks, none around it, and its CRLF."""
    return _WHITE_SPACE.sub(b" ", value).strip(b" ") + b"\r\n"


def relaxed_field(field: bytes) -> bytes:
    """RFC 6376 §3.4.2 for a whole field with its folds and its CRLF."""
    name, _, value = field.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + relaxed_value(value.replace(b"\r\n", b""))


class HeaderFields:
    """The fields of a header block as they stand, found from below by name, as a signature counts them."""

    __slots__ = ("_by_name", "_relaxed", "fields")

    def __init__(self, header: bytes) -> None:
        """`header`: CRLF lines, with or without the empty one at its end. What is no field can be no signed one."""
        self.fields = [line + b"\r\n" for line in _LINE_END.split(header) if line]
        self._relaxed: dict[int, bytes] = {}
        self._by_name: dict[bytes, list[int]] = {}
        for index, field in enumerate(self.fields):
            match = _NAME.match(field)
            if match:
                self._by_name.setdefault(match[1].lower(), []).append(index)

    def named(self, name: bytes) -> Sequence[int]:
        """Where the fields of that name (lower case) are, top to bottom."""
        return self._by_name.get(name, ())

    def value(self, index: int) -> bytes:
        """What follows the colon, folds and CRLF as they are."""
        return self.fields[index].partition(b":")[2]

    def selected(self, names: Sequence[bytes], form: Form, but: int = -1) -> bytes:
        """RFC 6376 §5.4.2: for each of `names` (lower case) the lowest field not taken yet, in canonical form; nothing
        where there is none left, so that a name more than fields forbids adding one. `but`: a field never taken, as
        the signature itself (§3.5 h=)."""
        left: dict[bytes, int] = {}
        taken: list[bytes] = []
        for name in names:
            places = self._by_name.get(name)
            if places is None:
                continue
            next_one = left.get(name, len(places)) - 1
            if next_one >= 0 and places[next_one] == but:
                next_one -= 1
            left[name] = max(next_one, 0)
            if next_one < 0:
                continue
            index = places[next_one]
            taken.append(self.fields[index] if form == "simple" else self.relaxed(index))
        return b"".join(taken)

    def relaxed(self, index: int) -> bytes:
        """A field in relaxed form, made once however many signatures cover it."""
        done = self._relaxed.get(index)
        if done is None:
            done = self._relaxed[index] = relaxed_field(self.fields[index])
        return done


class CanonicalBody:
    """A body in one form, fed in chunks of any size to a sink that takes canonical octets as they become certain.

    The result does not depend on where chunks are cut; memory stays at one chunk whatever the body holds.
    """

    __slots__ = ("_blank_lines", "_empty", "_held", "_relaxed", "_sink")

    def __init__(self, form: Form, sink: Sink) -> None:
        self._relaxed = form == "relaxed"
        self._sink = sink
        self._held = b""  # b"", b" ", b"\r" or b" \r": what the next chunk may still turn into a line end
        self._blank_lines = 0  # CRLFs seen but not passed on: they count only if something follows them
        self._empty = True

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the body, in order."""
        data = self._held + chunk if self._held else chunk
        if self._relaxed:
            # RFC 6376 §3.4.4 a: runs of white space become one blank, and none is left at a line's end.
            if b"\t" in data:
                data = data.replace(b"\t", b" ")
            if b"  " in data:
                data = _SPACES.sub(b" ", data)
            data = data.replace(b" \r\n", b"\r\n")
        settled = len(data)
        if data.endswith(b"\r"):
            settled -= 1
        if self._relaxed and data.endswith(b" ", 0, settled):
            settled -= 1
        self._held = data[settled:]
        if self._held:
            data = data[:settled]

        # RFC 6376 §3.4.3, §3.4.4 b: empty lines at the end are ignored, so trailing CRLFs wait for what follows. The
        # run of CR and LF at the end is searched with NUL for CRLF, which cannot occur in it: linear, and right for
        # bare ones.
        tail = data[len(data.rstrip(b"\r\n")) :].replace(b"\r\n", b"\0")
        blank_lines = len(tail) - len(tail.rstrip(b"\0"))
        content = data[: len(data) - 2 * blank_lines] if blank_lines else data
        if content:
            self._flush_blank_lines(self._sink)
            self._blank_lines = 0
            self._sink(content)
            self._empty = False
        self._blank_lines += blank_lines

    def _flush_blank_lines(self, sink: Sink) -> None:
        blocks, rest = divmod(self._blank_lines, len(_BLANK_LINES) // 2)
        for _ in range(blocks):
            sink(_BLANK_LINES)
        if rest:
            sink(_BLANK_LINES[: 2 * rest])

    def finish(self, sink: Sink) -> None:
        """Give `sink` what a body that ends here still has. Changes nothing: more chunks may follow."""
        empty = self._empty
        if self._held.endswith(b"\r"):  # a bare CR that ends the body is a character; white space before it counts
            self._flush_blank_lines(sink)
            sink(self._held)
            empty = False
        # RFC 6376 §3.4.4: a body that does not end in CRLF gets one; an empty one stays empty, and in "simple" becomes
        # one empty line (§3.4.3).
        if not empty or not self._relaxed:
            sink(b"\r\n")
