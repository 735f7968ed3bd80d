"""Dates as header fields have them (RFC 5322 §3.3), in UTC. `email.utils` makes them too, and costs MiBs of imports."""

from __future__ import annotations

from datetime import UTC, datetime

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def header_date(epoch: float) -> str:
    """`Sun, 22 Nov 2026 02:33:00 +0000`."""
    when = datetime.fromtimestamp(epoch, UTC)
    return f"{_DAYS[when.weekday()]}, {when.day} {_MONTHS[when.month - 1]} {when.year} {when:%H:%M:%S} +0000"
