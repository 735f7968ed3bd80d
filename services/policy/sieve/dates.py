"""Dates for the date test (RFC 5260): read from a header field, shifted to a zone, taken apart.

Called by `tests`. Years 1 to 9999; what is no date gives None.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# RFC 5322 §4.3: names of zones that old programs write; all other letters mean nothing known.
_ZONES = {
    "ut": 0, "gmt": 0, "z": 0, "est": -300, "edt": -240, "cst": -360, "cdt": -300, "mst": -420, "mdt": -360,
    "pst": -480, "pdt": -420,
}  # fmt: skip
_DATE = re.compile(
    r"(?:[a-z]{3,9}\s*,\s*|[a-z]{3}\s+)?(\d{1,2})[\s-]+([a-z]{3})[a-z]*[\s-]+(\d{2,4})\s+"
    r"(\d{1,2})\s*:\s*(\d{2})(?:\s*:\s*(\d{2}))?(?:\s*([+-]\d{4}|[a-z]{1,5}))?",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"\([^()]*\)")
MAX_VALUE = 2_000


def field_date(value: bytes) -> datetime | None:
    """The date in a field: all of it, or what stands behind the last ";" as in Received (RFC 5260 §4)."""
    text = value[-MAX_VALUE:].decode("ascii", "replace").rpartition(";")[2]
    match = _DATE.match(_COMMENT.sub(" ", text).strip())
    if match is None:
        return None
    day, month, year = int(match[1]), match[2].lower(), int(match[3])
    if month not in _MONTHS:
        return None
    if len(match[3]) < 4:  # RFC 5322 §4.3
        year += 1900 if len(match[3]) == 3 or year >= 50 else 2000
    zone = _zone(match[7] or "-0000")
    try:
        # A leap second is the last one of its minute.
        second = min(int(match[6] or 0), 59) if int(match[6] or 0) <= 60 else 99
        return datetime(year, _MONTHS.index(month) + 1, day, int(match[4]), int(match[5]), second, tzinfo=zone)
    except ValueError:
        return None


def _zone(text: str) -> timezone:
    if text[0] in "+-":
        return offset(text.encode()) or UTC
    return timezone(timedelta(minutes=_ZONES.get(text.lower(), 0)))


def offset(zone: bytes) -> timezone | None:
    """`+0800` as a zone; None for anything else."""
    if not re.fullmatch(rb"[+-]\d{4}", zone):
        return None
    minutes = int(zone[1:3]) * 60 + int(zone[3:])
    if minutes >= 24 * 60 or int(zone[3:]) > 59:
        return None
    return timezone(timedelta(minutes=-minutes if zone[:1] == b"-" else minutes))


def in_zone(when: datetime, zone: timezone) -> datetime | None:
    """The same moment elsewhere; None where the calendar ends."""
    try:
        return when.astimezone(zone)
    except OverflowError:
        return None


def part(when: datetime, name: str) -> str:
    """RFC 5260 §4.2; `name` in lower case, one of `constants.DATE_PARTS`."""
    minutes = int((when.utcoffset() or timedelta()).total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    date, clock = f"{when.year:04d}-{when:%m-%d}", f"{when:%H:%M:%S}"
    weekday = when.isoweekday() % 7
    return {
        "year": lambda: f"{when.year:04d}",
        "month": lambda: f"{when:%m}",
        "day": lambda: f"{when:%d}",
        "date": lambda: date,
        "julian": lambda: str(when.toordinal() - 678_576),  # the Modified Julian Day 0 is 1858-11-17
        "hour": lambda: f"{when:%H}",
        "minute": lambda: f"{when:%M}",
        "second": lambda: f"{when:%S}",
        "time": lambda: clock,
        "iso8601": lambda: f"{date}T{clock}" + (f"{sign}{hours:02d}:{rest:02d}" if minutes else "Z"),  # RFC 3339 §5.6
        "std11": lambda: (
            f"{_DAYS[weekday]}, {when.day:02d} {_MONTHS[when.month - 1].title()} {when.year:04d} {clock} "
            f"{sign}{hours:02d}{rest:02d}"
        ),
        "zone": lambda: f"{sign}{hours:02d}{rest:02d}",
        "weekday": lambda: str(weekday),
    }[name]()
