"""Values as a person reads them, in the language of the request: sizes, times, lengths of time, domain names.

Times are said in UTC with its name; the script shows them in the reader's own zone, with that one's name, from the
`datetime` attribute that each carries.
"""

from __future__ import annotations

import time

from markupsafe import Markup

from services.admin.event_lines import clean_text
from services.admin.text import _, mark, ngettext
from services.directory.addresses import readable_domain

MONTHS = (
    mark("Jan"), mark("Feb"), mark("Mar"), mark("Apr"), mark("May"), mark("Jun"), mark("Jul"), mark("Aug"),
    mark("Sep"), mark("Oct"), mark("Nov"), mark("Dec"),
)  # fmt: skip
_TIME = Markup('<time datetime="{}" data-show="{}">{}</time>')


def size_text(size: object) -> str:
    """Bytes; a dash for what is no number."""
    if not isinstance(size, int | float):
        return "–"
    number, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"


def length_text(seconds: float) -> str:
    """A length of time, roughly."""
    if seconds >= 2 * 86_400:
        return ngettext("{count} day", "{count} days", int(seconds / 86_400)).format(count=int(seconds / 86_400))
    if seconds >= 2 * 3600:
        return ngettext("{count} hour", "{count} hours", int(seconds / 3600)).format(count=int(seconds / 3600))
    return ngettext("{count} minute", "{count} minutes", int(seconds / 60)).format(count=int(seconds / 60))


def when(seconds: object) -> Markup | str:
    """Seconds since 1970 as a date and time; a dash for what is none."""
    if not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return "–"
    at = time.gmtime(seconds)
    text = _("{day} {month} {year}, {time} {zone}").format(
        day=at.tm_mday, month=_(MONTHS[at.tm_mon - 1]), year=at.tm_year, time=time.strftime("%H:%M", at), zone="UTC"
    )
    return _TIME.format(iso(seconds), "moment", text)


def day(seconds: object) -> Markup | str:
    """Seconds since 1970 as a date alone; a dash for what is none."""
    if not isinstance(seconds, int | float) or not 0 < seconds < 1e11:
        return "–"
    at = time.gmtime(seconds)
    text = _("{day} {month} {year}").format(day=at.tm_mday, month=_(MONTHS[at.tm_mon - 1]), year=at.tm_year)
    return _TIME.format(iso(seconds), "day", text)


def clock(micros: int) -> Markup:
    """Microseconds since 1970 as the time of day with milliseconds, for what happens within seconds."""
    seconds = micros / 1e6
    text = f"{time.strftime('%H:%M:%S', time.gmtime(seconds))}.{micros // 1000 % 1000:03d}"
    return _TIME.format(f"{iso(seconds)[:-1]}.{micros // 1000 % 1000:03d}Z", "clock", text)


def iso(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def stranger(text: object, most: int = 200) -> str:
    """What a stranger wrote, for one line: without what steers or turns text, and no longer than that."""
    clean = " ".join(clean_text(str(text or "")).split())
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def domain_text(domain: str) -> str:
    """A domain as its people write it, "" where that is the stored form already.

    Shown beside the stored form, never in its place: two names that look alike differ there.
    """
    readable = readable_domain(domain)
    return "" if readable == domain else readable
