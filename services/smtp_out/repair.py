"""What a submitted message's header lacks or has too much of (RFC 6409 §8), and where its header ends.

Pure: bytes in, bytes out; `submission` calls it. Fields are kept as they came and in their order; nothing is folded
anew or decoded. What is done, and why:

* Date, Message-ID, From are added where they are missing; To where no recipient field is left, since filters count a
  message without one as spam.
* Bcc and Resent-Bcc go: they are what the sender wants nobody to see (RFC 5322 §3.6.3).
* Return-Path goes: it is written at delivery (RFC 5321 §4.4). Authentication-Results goes: only a receiving server may
  speak there (RFC 8601 §5), and the people of this house read ours.
* Received is put on top. It names neither the client's address nor its EHLO name nor the account: a mail from the
  kitchen table should not tell the world the address of the telephone. The trace id leads the owner to all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.message.date import header_date

# Large providers take 64 KiB to 1 MiB; a header with 200 recipients and their names has 20 KiB.
MAX_HEADER = 256 * 1024
# RFC 5321 §6.3: at least 100.
MAX_RECEIVED = 100

_NEVER_SENT = frozenset({b"bcc", b"resent-bcc", b"return-path", b"authentication-results"})
_RECIPIENT_FIELDS = frozenset({b"to", b"cc", b"resent-to", b"resent-cc"})
# RFC 5322 §2.2: a name is printable ASCII without the colon; §4.5: the obsolete form has white space before it.
_FIELD_START = re.compile(rb"([!-9;-~]+)[ \t]*:")


@dataclass(frozen=True, slots=True)
class Field:
    """One header field: its name in lower case, and all its lines with their CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, folded as it came."""
        return self.raw.partition(b":")[2]


class HeaderReader:
    """Takes a message in chunks until its header is complete."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.fields: list[Field] | None = None
        self.too_long = False

    def feed(self, chunk: bytes) -> bytes:
        """The part of the body that is known; `fields` is set from the first time that there may be one."""
        if self.fields is not None:
            return chunk
        if self.too_long:
            return b""
        searched = max(0, len(self._held) - 3)
        self._held += chunk
        if self._held.startswith(b"\r\n"):
            return self._split(0, 2)
        end = self._held.find(b"\r\n\r\n", searched)
        self.too_long = (end if end >= 0 else len(self._held)) > MAX_HEADER
        if self.too_long:
            self._held.clear()
        return self._split(end + 2, end + 4) if end >= 0 and not self.too_long else b""

    def finish(self) -> bytes:
        """The message is complete: one without an empty line is all header. Its body, where it has any."""
        return b"" if self.fields is not None else self._split(len(self._held), len(self._held))

    def _split(self, end: int, body: int) -> bytes:
        header, rest = bytes(self._held[:end]), bytes(self._held[body:])
        self._held.clear()
        self.fields, stray = fields_of(header)
        if stray:
            # A line that is no field ends the header; it and what follows are text (as Postfix and Exim have it).
            return stray + b"\r\n" * (body > end) + rest
        return rest


def fields_of(header: bytes) -> tuple[list[Field], bytes]:
    """The fields of `header` (without its empty line), and what begins with the first line that belongs to none."""
    parted: list[tuple[bytes, list[bytes]]] = []  # a field's name and its lines; joined once: a fold may have thousands
    lines = header.split(b"\r\n")
    if lines[-1] == b"":
        lines.pop()
    rest = b""
    for number, line in enumerate(lines):
        start = _FIELD_START.match(line)
        if start is not None and line[:1] not in (b" ", b"\t"):
            parted.append((start[1].lower(), [line]))
        elif line[:1] in (b" ", b"\t") and parted:
            parted[-1][1].append(line)
        else:
            rest = b"".join(each + b"\r\n" for each in lines[number:])
            break
    return [Field(name, b"\r\n".join(own) + b"\r\n") for name, own in parted], rest


def values(fields: Sequence[Field], name: bytes) -> list[bytes]:
    """The values of all fields `name` (lower case)."""
    return [field.value for field in fields if field.name == name]


def repaired(
    fields: Sequence[Field], *, sender: str, trace: str, now: float, domain: str
) -> tuple[list[Field], list[str]]:
    """The fields to send, and what was done in a few words for the record."""
    kept = [field for field in fields if field.name not in _NEVER_SENT]
    done = [f"{name.decode()} removed" for name in sorted({f.name for f in fields} & _NEVER_SENT)]
    present = {field.name for field in kept}
    added: list[tuple[str, str]] = []
    if b"date" not in present:
        added.append(("Date", header_date(now)))
    if b"from" not in present:
        added.append(("From", f"<{sender}>"))
    if b"message-id" not in present:
        added.append(("Message-ID", f"<{trace}@{domain}>"))
    if not present & _RECIPIENT_FIELDS:
        added.append(("To", "undisclosed-recipients:;"))
    kept += [Field(name.lower().encode(), f"{name}: {value}\r\n".encode()) for name, value in added]
    return kept, done + [f"{name.lower()} added" for name, _ in added]


def received(*, hostname: str, trace: str, now: float, recipients: Sequence[str], tls: bool, utf8: bool) -> bytes:
    """The Received field. RFC 3848 and RFC 6531 §4.3 name the protocol; RFC 5321 §7.6: `for` only where there is one
    recipient, else it would tell who else got it."""
    protocol = f"{'UTF8SMTP' if utf8 else 'ESMTP'}{'S' if tls else ''}A"
    to = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
    return f"Received: by {hostname} with {protocol} id {trace}{to};\r\n\t{header_date(now)}\r\n".encode()
