"""A message's header: find where it ends, read fields, put lines before it, take lines out. Never re-serialise.

Pure functions over bytes as they came from SMTP: lines end with CRLF, header and body are parted by an empty line (RFC
5322 §2.1). Whatever else the bytes are, they are copied as they are: what a signer signed stays signed. Values come out
unfolded (RFC 5322 §2.2.3), as bytes: decoding words and charsets is for those who show them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from services.message.date import header_date

# A field's name is printable ASCII without the colon (RFC 5322 §3.6.8); space before the colon is obsolete and real.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n]|\r(?!\n)|\n)*(?:\r\n[ \t](?:[^\r\n]|\r(?!\n)|\n)*)*)(?:\r\n|\Z)")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\Z)")
_ATOMS = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}\Z")
# RFC 5322 §2.1.1: a line should have at most 78 characters.
FOLD_AT = 76


@dataclass(frozen=True, slots=True)
class Field:
    """One header field. `name` as written, `value` unfolded and stripped; `start` to `end` are its lines."""

    name: bytes
    value: bytes
    start: int
    end: int

    def named(self, name: bytes) -> bool:
        """Field names have no case (RFC 5322 §1.2.2)."""
        return self.name.lower() == name.lower()


def header_length(message: bytes) -> int:
    """Octets up to and with the CRLF that ends the last field; the length of `message` where no empty line ends it."""
    if message.startswith(b"\r\n"):
        return 0
    end = message.find(b"\r\n\r\n")
    return end + 2 if end >= 0 else len(message)


def is_whole(message: bytes) -> bool:
    """True when `message` (its beginning) holds the empty line that ends the header."""
    return message.startswith(b"\r\n") or b"\r\n\r\n" in message


def fields(header: bytes) -> Iterator[Field]:
    """The fields of a header block in order. Lines that are no field are passed over."""
    position, end = 0, len(header)
    while position < end:
        match = _FIELD.match(header, position)
        if match:
            value = _FOLD.sub(b"", match[2]).strip(b" \t")
            yield Field(match[1], value, position, match.end())
            position = match.end()
        else:
            line = _LINE.match(header, position)
            position = line.end() if line and line.end() > position else position + 1


def find(header: bytes, name: bytes) -> Field | None:
    """The first field named `name`."""
    return next((field for field in fields(header) if field.named(name)), None)


def find_all(header: bytes, name: bytes) -> list[Field]:
    """Every field named `name`, in order."""
    return [field for field in fields(header) if field.named(name)]


def without(header: bytes, names: Iterable[bytes]) -> bytes:
    """`header` without the fields so named; all other octets as they were."""
    gone = {name.lower() for name in names}
    kept, position = [], 0
    for field in fields(header):
        if field.name.lower() in gone:
            kept.append(header[position : field.start])
            position = field.end
    kept.append(header[position:])
    return b"".join(kept)


def field_line(name: str, value: str) -> bytes:
    """`Name: value` with CRLF, folded at spaces; control characters in `value` become spaces, so that it stays one."""
    clean = "".join(character if character.isprintable() else " " for character in value)
    lines, line = [], f"{name}:"
    for word in clean.split(" "):
        if len(line) + 1 + len(word) > FOLD_AT and len(line) > len(name) + 1:
            lines.append(line)
            line = ""
        line = f"{line} {word}"
    lines.append(line)
    return "\r\n".join(lines).encode() + b"\r\n"


@dataclass(frozen=True, slots=True)
class Passage:
    """One hop of a message, as a Received field tells it. `peer` is an IP address, `tls` version and cipher or ""."""

    helo: str
    peer: str
    by: str
    protocol: str
    trace: str
    tls: str = ""
    recipient: str = ""


def received(passage: Passage, now: float) -> bytes:
    """RFC 5321 §4.4: `Received:` with CRLF. The same passage and time give the same bytes.

    `recipient` is told only where there is one: a second one's reader would learn of a blind copy.
    """
    # What the peer called itself is not to be trusted with the syntax of our line.
    helo = passage.helo if _ATOMS.match(passage.helo) else "unknown"
    literal = f"[IPv6:{passage.peer}]" if ":" in passage.peer else f"[{passage.peer}]"
    lines = [f"Received: from {helo} ({literal})", f"by {passage.by} with {passage.protocol} id {passage.trace}"]
    if passage.tls:
        lines.append(f"({passage.tls})")
    if passage.recipient:
        lines.append(f"for <{passage.recipient}>")
    return ("\r\n\t".join(lines) + f"; {_date(int(now))}\r\n").encode()


@lru_cache(2)
def _date(second: int) -> str:
    return header_date(second)  # a busy second asks for it thousands of times


@dataclass(frozen=True, slots=True)
class Loops:
    """What a header tells about where the message has been."""

    hops: int  # Received fields
    delivered_to: frozenset[str]  # addresses, lower case
    message_id: str


_TRACES = re.compile(rb"(?im)^(received|delivered-to|message-id)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)")


def loops(header: bytes) -> Loops:
    """One pass over the header for what smtp-in asks of every message."""
    hops, seen, message_id = 0, set[str](), ""
    for match in _TRACES.finditer(header):
        kind = match[1].lower()
        if kind == b"received":
            hops += 1
            continue
        value = _FOLD.sub(b"", match[2]).strip().decode("utf-8", "replace")
        if kind == b"delivered-to":
            seen.add(value.strip("<>").lower())
        elif not message_id:
            message_id = value[:998]
    return Loops(hops, frozenset(seen), message_id)
