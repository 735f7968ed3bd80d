"""What cache.db keeps of a message, made from its octets by `services.message`.

Passed to the store, which calls it for messages it has not seen; the answers are sent as they are from then on.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

from services.message import mime, text
from services.message.envelope import body_structure, envelope
from services.protocol.imap_responses import MONTHS
from services.storage.cache import CACHED_FIELDS, Octets, Parsed, Parser

# Raised whenever `parse` gives something else for the same octets: every cache is then made anew.
VERSION = 1

_CACHED = frozenset(name.encode("ascii") for name in CACHED_FIELDS)
_FIELD = re.compile(rb"^([^:\s]+)[ \t]*:[^\n]*\n?(?:[ \t][^\n]*\n?)*", re.M)
# RFC 5322 §3.3 with §4.3's old forms: no day name, two-digit years, named zones, seconds left out.
_DATE = re.compile(
    rb"(\d{1,2})[ \t\r\n-]+([A-Za-z]{3})[A-Za-z]*[ \t\r\n-]+(\d{2,4})"
    rb"(?:[ \t\r\n]+(\d{1,2}):(\d{2})(?::(\d{2}))?(?:[ \t\r\n]*(?:([+-])(\d{2}):?(\d{2})|([A-Za-z]{1,5})))?)?"
)
_MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(MONTHS, 1)}
_ZONES = {b"EST": -5, b"EDT": -4, b"CST": -6, b"CDT": -5, b"MST": -7, b"MDT": -6, b"PST": -8, b"PDT": -7}


def parse(raw: Octets) -> Parsed:
    """Everything at once; see `Parsed`. Never raises."""
    message = mime.parse(raw)
    root = message.root
    header = bytes(raw[: min(root.body, mime.MAX_HEADER)])
    sent = sent_at(root.fields.get(b"date", b""))
    return Parsed(
        size=message.octets,
        header_size=_with_crlf(raw, root.body, message.bare_lf),
        envelope=envelope(root.fields),
        bodystructure=body_structure(root),
        body=body_structure(root, extended=False),
        parts=mime.pack(message, raw),
        sent=None if sent is None else int(sent.timestamp()),
        preview=text.preview(raw, root),
        fields=header_lines(header),
    )


def _with_crlf(raw: Octets, end: int, bare_lf: bool) -> int:
    if not bare_lf:
        return end
    header = bytes(raw[:end])
    return end + header.count(b"\n") - header.count(b"\r\n")


def header_lines(header: bytes) -> dict[str, bytes]:
    """The cached fields as they stand, with CRLF, by lower-case name."""
    found: dict[str, bytes] = {}
    for match in _FIELD.finditer(header):
        name = match.group(1).lower()
        if name in _CACHED:
            line = match.group()
            if b"\r\n" not in line or line.count(b"\n") != line.count(b"\r\n"):
                line = line.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            if not line.endswith(b"\n"):
                line += b"\r\n"
            key = name.decode("ascii")
            found[key] = found[key] + line if key in found else line
    return found


def sent_at(value: bytes) -> datetime | None:
    """The Date field's moment, in the zone that it was written in; None where it says none."""
    match = _DATE.search(value)
    if match is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes, zone_name = match.groups()
    number = int(year)
    if len(year) < 4:  # RFC 5322 §4.3
        number += 2000 if number < 50 else 1900
    offset = timedelta()
    if sign is not None:
        offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes)) * (-1 if sign == b"-" else 1)
    elif zone_name is not None:
        offset = timedelta(hours=_ZONES.get(zone_name.upper(), 0))
    try:
        zone = timezone(offset) if offset else UTC
        return datetime(
            number,
            _MONTH_NUMBERS[month.lower()],
            int(day),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),
            tzinfo=zone,
        )
    except (KeyError, ValueError, OverflowError):
        return None


def sent_day(value: bytes) -> date | None:
    """The day of the Date field, zone disregarded: SENTON and its like (RFC 3501 §6.4.4)."""
    sent = sent_at(value)
    return None if sent is None else sent.date()


PARSER = Parser(VERSION, parse)
