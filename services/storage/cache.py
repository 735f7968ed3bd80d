"""cache.db: answers made once from a message's bytes. May be deleted at any time; nothing but speed is lost.

Called by mailbox. The parser is passed in by the imap room (it is made of `services.message`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from mmap import mmap

# The file as it lies (bare LF and all: sizes are the parser's to count). Both can be searched and sliced.
Octets = bytes | mmap


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the parser makes of one message, and what `Mailbox.parsed` gives back."""

    size: int  # RFC822.SIZE
    header_size: int  # octets of the header with its empty line
    envelope: bytes  # ready-made: what stands behind ENVELOPE
    bodystructure: bytes
    body: bytes  # BODY without extension data
    parts: bytes  # MIME offsets in the parser's own form
    sent: int | None  # Date as seconds since the epoch, for SENTBEFORE and SORT
    preview: str
    # Raw header fields (name, colon, value, CRLF) by lower-case name, all occurrences in order; those in CACHED_FIELDS.
    fields: Mapping[str, bytes] = field(default_factory=dict)


CACHED_FIELDS = (
    "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id", "in-reply-to", "references",
    "content-type", "list-id", "x-priority", "importance",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parser:
    """`parse(octets)` must not raise for any input. Another `version` than the cache's empties the cache."""

    version: int
    parse: Callable[[Octets], Parsed]
