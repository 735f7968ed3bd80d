"""The MIME tree of a message (RFC 2045, 2046): where each part's header and body lie in the bytes, and their sizes.

`parse` reads a message once and gives a `Part`; `envelope` makes the IMAP answers from it, `storage/cache.py` keeps
`pack(part)`, and FETCH BODY[1.2] later finds its octets with `unpack` and `find` and never parses again. Called by the
imap room's index. Pure: bytes in, values out; it never changes or re-serialises a message and never raises.

Offsets are positions in the bytes given. Sizes are what a client sees: with CRLF at every line end, so a message stored
with bare LF (a Maildir moved in from elsewhere) has larger sizes than its file (`Part.octets`, `Message.octets`).

Tolerance, as Dovecot's: a boundary is recognised by its beginning (RFC 2046 §5.1.1) and from the innermost part
outwards; a part without a closing boundary ends where an enclosing one appears, or at the end; a boundary ends a header
that has no empty line; a line without a colon in a header is passed over; a Content-Type without MIME-Version counts.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Protocol

from services.message.media_types import TEXT_PLAIN, MediaType, media_type

LEAF, MULTIPART, MESSAGE = 0, 1, 2

# Mail that people write is nested four or five deep, and has some dozens of parts. What lies deeper is one part.
MAX_DEPTH = 100
MAX_PARTS = 10_000
# A header is read so far for fields; its end is found wherever it is.
MAX_HEADER = 1 << 20
MAX_VALUE = 1 << 18


class Sliceable(Protocol):
    """A message's octets, wherever they are."""

    def __getitem__(self, wanted: slice, /) -> bytes: ...


class Octets(Sliceable, Protocol):
    """What is parsed: bytes, or a file mapped into memory, which can be searched and sliced as they can."""

    def __len__(self) -> int: ...
    def find(self, sub: bytes, start: int = ..., end: int = ..., /) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...


Fields = dict[bytes, bytes]
"""The first value of each field, still folded, by lower-cased name, without leading blanks and line end. Values of a
repeated address field stand there together, between `REPEATED`."""

# A line feed within a value is followed by a blank (RFC 5322 §2.2.3), so this occurs in none.
REPEATED = b"\n:"

_HEADER_END = re.compile(rb"\n\r?\n")
# A second From adds its addresses, as for a second To of old programs; of any other field the first one counts.
ADDRESS_FIELDS = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
_FIELD = re.compile(rb"^([^:\s]+)[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)", re.M)
_RECORD = struct.Struct("<BBIIIII")
_HEAD = struct.Struct("<BQ")
_VERSION = 1
_PIECE = 1 << 20


@dataclass(slots=True)
class Part:
    """header..body is the header with its empty line, body..end the body; the line end before a boundary is neither."""

    header: int
    body: int = 0
    end: int = 0
    kind: int = LEAF
    lines: int = 0
    octets: int = 0
    children: list[Part] = field(default_factory=list)
    # What follows is known after `parse` only, not after `unpack`.
    fields: Fields = field(default_factory=dict)
    type: MediaType = TEXT_PLAIN


@dataclass(slots=True)
class Message:
    """A parsed message: its root part, its size as a client sees it, and whether it has bare LF line ends."""

    root: Part
    octets: int
    bare_lf: bool


class _Lines:
    """Counts lines and CRLF sizes of ranges, at the cost of one memchr pass where all line ends are of one kind."""

    __slots__ = ("_mixed", "bare_lf", "octets", "raw")

    def __init__(self, raw: Octets) -> None:
        self.raw = raw
        feeds = _count(raw, b"\n", 0, len(raw))
        pairs = _count(raw, b"\r\n", 0, len(raw)) if raw.find(b"\r") >= 0 else 0
        self.bare_lf = feeds != pairs
        self._mixed = self.bare_lf and pairs > 0
        self.octets = len(raw) + feeds - pairs

    def measure(self, start: int, end: int) -> tuple[int, int]:
        """Lines and octets of a range."""
        lines = _count(self.raw, b"\n", start, end)
        if not self.bare_lf:
            return lines, end - start
        pairs = _count(self.raw, b"\r\n", start, end) if self._mixed else 0
        return lines, end - start + lines - pairs


def _count(raw: Octets, needle: bytes, start: int, end: int) -> int:
    """How often `needle` begins within the range; a mapped file is counted piece by piece."""
    if isinstance(raw, bytes):
        return raw.count(needle, start, end)
    more = len(needle) - 1
    return sum(raw[at : min(at + _PIECE + more, end)].count(needle) for at in range(start, end, _PIECE))


class _Open:
    """A multipart whose boundary is looked for, with the next place where it occurs."""

    __slots__ = ("needle", "next", "part")

    def __init__(self, part: Part, boundary: bytes) -> None:
        self.part = part
        self.needle = b"\n--" + boundary
        self.next = -1  # not looked for yet


class _Parser:
    def __init__(self, raw: Octets) -> None:
        self.raw = raw
        self.size = len(raw)
        self.count = 0
        # Octets that may still be searched for boundaries. Ordinary mail takes twice its size; ten thousand multiparts,
        # each with a boundary that never comes, would take ten thousand times that.
        self.search = MAX_DEPTH * self.size
        self.path: list[Part] = []  # from the root to the part being read
        self.open: list[_Open] = []

    def parse(self) -> Part:
        root = Part(0)
        position = self._begin(root)
        while self.open and position < self.size:
            found = self._next_boundary(position)
            if found is None:
                break
            position = self._at_boundary(*found)
        self._close(0, self.size)
        return root

    def _begin(self, part: Part) -> int:
        """Read the header of `part`, and of the message in it if it holds one; give where its body begins."""
        while True:
            self.count += 1
            self.path.append(part)
            self._read_header(part)
            kind = part.type
            main = kind.main.lower()
            # RFC 2046 §5.1.5: within a digest a part without a type is a message.
            is_message = (main == b"message" and kind.sub.lower() == b"rfc822") or (
                b"content-type" not in part.fields and self._in_digest()
            )
            if len(self.path) > MAX_DEPTH or self.count >= MAX_PARTS:
                return part.body
            if is_message:
                part.kind = MESSAGE
                child = Part(part.body)
                part.children.append(child)
                part = child
                continue
            if main == b"multipart":
                part.kind = MULTIPART
                boundary = kind.parameter(b"boundary")
                if boundary:
                    self.open.append(_Open(part, boundary))
            return part.body

    def _in_digest(self) -> bool:
        if len(self.path) < 2 or self.path[-2].kind != MULTIPART:
            return False
        return self.path[-2].type.sub.lower() == b"digest"

    def _read_header(self, part: Part) -> None:
        raw, start = self.raw, part.header
        first = raw[start : start + 2]
        if first[:1] == b"\n":
            part.body = start + 1
        elif first == b"\r\n":
            part.body = start + 2
        else:
            match = _HEADER_END.search(raw, start)
            part.body = self.size if match is None else match.end()
        if self.open:
            # A header without its empty line: the next boundary ends it. Its line end belongs to the boundary.
            found = self._next_boundary(start)
            if found is not None and found[0] < part.body - 1:
                at = found[0]
                part.body = max(start, at - 1 if raw[at - 1 : at] == b"\r" else at)
        fields = part.fields = fields_of(raw[start : min(part.body, start + MAX_HEADER)])
        declared = fields.get(b"content-type")
        if declared is not None:
            part.type = media_type(declared)
        elif b"mime-version" not in fields and (len(self.path) < 2 or self.path[-2].kind != MULTIPART):
            # RFC 2045 §4: not MIME, so what calls itself Content-Something has no meaning here.
            for name in [name for name in fields if name.startswith(b"content-")]:
                del fields[name]

    def _next_boundary(self, position: int) -> tuple[int, _Open] | None:
        """The first boundary line from `position` on: where its line feed is, and whose it is."""
        raw = self.raw
        best: _Open | None = None
        # From the line feed before: a boundary may be a body's very first line.
        position = max(position - 1, 0)
        for candidate in reversed(self.open):
            if candidate.next < position:
                at = raw.find(candidate.needle, position)
                candidate.next = at if at >= 0 else self.size
                self.search -= candidate.next - position
            if candidate.next >= self.size:
                continue
            # The innermost wins, unless an outer one fits further: boundaries may begin alike (RFC 2046 §5.1.1).
            if (
                best is None
                or candidate.next < best.next
                or (candidate.next == best.next and len(candidate.needle) > len(best.needle))
            ):
                best = candidate
        if self.search < 0:
            self.open.clear()  # what follows stays in the part that is open now
            return None
        return None if best is None else (best.next, best)

    def _at_boundary(self, at: int, owner: _Open) -> int:
        """End the parts within `owner` at its boundary; begin the next one, or leave it if it is the last boundary."""
        raw = self.raw
        end = at - 1 if raw[at - 1 : at] == b"\r" else at
        depth = next(i for i, part in enumerate(self.path) if part is owner.part)
        self._close(depth + 1, end)
        del self.open[next(i for i, item in enumerate(self.open) if item is owner) + 1 :]
        behind = at + len(owner.needle)
        line_end = raw.find(b"\n", behind)
        if raw[behind : behind + 2] == b"--":
            self.open.pop()
            # What follows is an epilogue; the search goes on from its line end, which may begin an outer boundary.
            return line_end + 1 if line_end >= 0 else self.size
        if line_end < 0:
            return self.size
        if self.count >= MAX_PARTS:
            self.open.clear()
            return self.size
        part = Part(line_end + 1)
        owner.part.children.append(part)
        return self._begin(part)

    def _close(self, depth: int, end: int) -> None:
        # From within: where a header's empty line is the line end before the boundary, the empty body begins behind it.
        for part in reversed(self.path[depth:]):
            part.end = end = max(end, part.body)
        del self.path[depth:]


def fields_of(header: bytes) -> Fields:
    """The fields of one header."""
    fields: Fields = {}
    for name, value in _FIELD.findall(header):
        name = name.lower()
        if len(value) > MAX_VALUE:
            value = value[:MAX_VALUE]
        if name not in fields:
            fields[name] = value.rstrip(b"\r")
        elif name in ADDRESS_FIELDS and len(fields[name]) < MAX_VALUE:
            fields[name] += REPEATED + value.rstrip(b"\r")
    return fields


def tree(raw: Octets) -> Part:
    """The tree alone, without lines and sizes: half the work, and all that a search needs."""
    return _Parser(raw).parse()


def parse(raw: Octets) -> Message:
    """The tree of a message and its sizes. About 50 µs for an ordinary one."""
    root = tree(raw)
    lines = _Lines(raw)
    stack = [root]
    while stack:
        part = stack.pop()
        # A multipart's own size is nobody's question (RFC 3501 §7.4.2 gives none), the others' is in BODYSTRUCTURE.
        if part.kind != MULTIPART:
            part.lines, part.octets = lines.measure(part.body, part.end)
        stack.extend(part.children)
    return Message(root, lines.octets, lines.bare_lf)


# --- keeping it


def pack(message: Message, raw: Octets) -> bytes:
    """Offsets and kinds in preorder, for the cache: 22 octets a part.

    Offsets are kept as a client counts them, with CRLF at every line end, since FETCH reads the message in that form:
    for a message with bare LF they differ from those that `parse` found in `raw`.
    """
    served = _served_offsets(message.root, raw) if message.bare_lf else None
    out = [_HEAD.pack(_VERSION, message.octets)]
    stack = [(message.root, 0)]
    while stack:
        part, depth = stack.pop()
        header, body, end = part.header, part.body, part.end
        if served is not None:
            header, body, end = served[header], served[body], served[end]
        out.append(_RECORD.pack(depth, part.kind, header, body, end, part.lines, part.octets))
        stack.extend((child, depth + 1) for child in reversed(part.children))
    return b"".join(out)


def _served_offsets(root: Part, raw: Octets) -> dict[int, int]:
    """Offset in `raw` → offset with every bare LF grown to CRLF."""
    offsets = {0}
    stack = [root]
    while stack:
        part = stack.pop()
        offsets.update((part.header, part.body, part.end))
        stack.extend(part.children)
    found: dict[int, int] = {}
    last = grown = 0
    for offset in sorted(offsets):
        grown += _count(raw, b"\n", last, offset) - _count(raw, b"\r\n", last, offset)
        # A CRLF that an offset cuts in two was counted as a bare LF.
        if last and raw[last - 1 : last + 1] == b"\r\n" and offset > last:
            grown -= 1
        found[offset] = offset + grown
        last = offset
    return found


def unpack(packed: bytes) -> Message:
    """The tree that `pack` kept, without header fields, to be used on the message with CRLF line ends.

    Raises ValueError for anything else: the cache is then made anew.
    """
    try:
        version, octets = _HEAD.unpack_from(packed)
        if version != _VERSION:
            raise ValueError("another version's offsets")
        path: list[Part] = []
        for depth, kind, header, body, end, lines, size in _RECORD.iter_unpack(packed[_HEAD.size :]):
            part = Part(header, body, end, kind, lines, size)
            if path and not 0 < depth <= len(path):
                raise ValueError("offsets out of order")
            del path[depth:]
            if path:
                path[-1].children.append(part)
            path.append(part)
        return Message(path[0], octets, False)
    except (struct.error, IndexError) as error:
        raise ValueError("broken offsets") from error


def read_fields(root: Part, octets: Sliceable) -> None:
    """Fill in `fields` and `type` of an unpacked tree from the message's octets (with CRLF line ends)."""
    stack = [root]
    while stack:
        part = stack.pop()
        part.fields = fields_of(octets[part.header : min(part.body, part.header + MAX_HEADER)])
        part.type = media_type(part.fields.get(b"content-type", b"text/plain"))
        stack.extend(part.children)


# --- finding a part


def find(root: Part, numbers: tuple[int, ...]) -> Part | None:
    """RFC 3501 §6.4.5 part numbers: children of a multipart count from 1; of anything else 1 is its body; within a
    message/rfc822 part the parts of the message it holds count."""
    part = root
    for depth, number in enumerate(numbers):
        if depth == 0:
            within = root
        elif part.kind == MESSAGE:
            within = part.children[0]
        elif part.kind == MULTIPART:
            within = part
        else:
            return None
        if within.kind == MULTIPART:
            if not 0 < number <= len(within.children):
                return None
            part = within.children[number - 1]
        elif number == 1:
            part = within
        else:
            return None
    return part


def field_lines(header: bytes, name: bytes) -> bytes:
    """All lines of the fields called `name`, as they stand; empty where there is none."""
    pattern = re.compile(rb"^" + re.escape(name) + rb"[ \t]*:[^\n]*\n?(?:[ \t][^\n]*\n?)*", re.M | re.I)
    return b"".join(match.group() for match in pattern.finditer(header))
