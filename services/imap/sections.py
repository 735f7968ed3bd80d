"""Finds what BODY[section]<partial> names in a stored message (RFC 3501 §6.4.5): a range of its octets, or a few octets
put together (HEADER.FIELDS). Called by the fetch handler; reads through `storage.body.Message`."""

from __future__ import annotations

from collections.abc import Iterator

from services.imap.faults import CutShort
from services.message.envelope import header_fields
from services.message.mime import MESSAGE, Part, find
from services.protocol.imap_fetch import BodyItem, Section
from services.protocol.imap_responses import without_nul
from services.storage.body import Message
from services.storage.cache import CACHED_FIELDS

# Read and sent at one go: large enough for the socket, small enough for ten clients on a small machine.
PIECE = 131_072

_CACHED = frozenset(name.encode("ascii") for name in CACHED_FIELDS)


def needs_tree(section: Section) -> bool:
    """Whether the section can be found only with the message's MIME tree."""
    return bool(section.part) or section.text != ""


def is_cached(item: BodyItem) -> bool:
    """Whether the answer is made of header fields that the cache has."""
    section = item.section
    return not section.part and section.text == "HEADER.FIELDS" and section.fields <= _CACHED and item.partial is None


def column(name: bytes) -> str:
    """The cache's column of a header field (lower case)."""
    return "h_" + name.decode("ascii").replace("-", "_")


def number(name: bytes) -> int:
    """The field's number in the cache's `field_order`."""
    return CACHED_FIELDS.index(name.decode("ascii"))


def joined(lines: list[bytes]) -> bytes | None:
    """HEADER.FIELDS of cached fields in the order of their first lines; None where one came twice and others are asked
    for too: whether those stood between, the cache does not know."""
    if len(lines) > 1 and any(each.count(b"\n") > 1 and _repeats(each) for each in lines):
        return None
    return b"%b\r\n" % b"".join(lines)


def _repeats(value: bytes) -> bool:
    """Whether the cached lines hold a field twice: then others may stand between the two."""
    end = value.find(b"\n")
    while 0 <= end < len(value) - 1:
        if value[end + 1] not in b" \t":
            return True
        end = value.find(b"\n", end + 1)
    return False


def locate(message: Message, section: Section, root: Part | None) -> tuple[int, int] | bytes:
    """Where the section's octets are, as (start, end); or the octets themselves. A part that is not there is empty, as
    Dovecot answers too (RFC 3501 says nothing of it)."""
    if root is None or not needs_tree(section):
        return 0, message.size
    part = root
    if section.part:
        found = find(root, section.part)
        if found is None:
            return b""
        part = found
        if section.text == "":
            return part.body, part.end
        if section.text == "MIME":
            return part.header, part.body
        # HEADER and TEXT of a part are those of the message it holds.
        if part.kind != MESSAGE:
            return b""
        part = part.children[0]
    if section.text == "HEADER":
        return part.header, part.body
    if section.text == "TEXT":
        return part.body, part.end
    header = message.read(part.header, part.body - part.header)
    return header_fields(header, section.fields, without=section.text == "HEADER.FIELDS.NOT")


def literal(message: Message, item: BodyItem, root: Part | None) -> Iterator[bytes]:
    """The item's label and data, in pieces. Raises CutShort where the file ends before what was announced."""
    found = locate(message, item.section, root)
    if isinstance(found, bytes):
        if item.partial is not None:
            first, most = item.partial
            found = found[first : first + most]
        yield b"%s {%d}\r\n%s" % (item.label, len(found), without_nul(found))
        return
    start, end = found
    if item.partial is not None:
        first, most = item.partial
        start = min(start + first, end)
        end = min(end, start + most)
    announced = b"%s {%d}\r\n" % (item.label, end - start)
    if end - start <= PIECE:
        octets = message.read(start, end - start) if end > start else b""
        if len(octets) != end - start:
            # Nothing was announced yet: the cache is of another message, or the file was cut.
            raise OSError(f"the message has {start + len(octets)} octets, not {end}")
        yield announced + without_nul(octets)
        return
    yield announced
    while start < end:
        octets = message.read(start, min(PIECE, end - start))
        if not octets:
            raise CutShort(f"the message ends at {start}, not at {end}")
        start += len(octets)
        yield without_nul(octets)
