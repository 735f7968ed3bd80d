"""When the next look is due: cron lines of five fields, watchtower's of six, and `@every`. Pure.

Weekdays are turned into names before APScheduler sees them: in a crontab 0 and 7 are Sunday, there 0 is Monday.
"""

from __future__ import annotations

import datetime
import re

# robfig/cron's words, which watchtower's users know; in five fields.
DESCRIPTORS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * sun",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
LEAST_SECONDS = 10  # a registry counts questions; below this every one of them would refuse soon
_EVERY = re.compile(r"@every\s+((?:\d+[hms])+)")
_UNITS = {"h": 3600, "m": 60, "s": 1}


def next_time(schedule: str, now: float) -> float:
    """When `schedule` is next due after `now`, both in epoch seconds (UTC); raises ValueError with the reason."""
    if every := interval_of(schedule):
        return now + every
    # Imported here: it costs 6 MiB, and the idle room asks a short process.
    from apscheduler.triggers.cron import CronTrigger

    line = DESCRIPTORS.get(schedule.strip().lower(), schedule)
    due = CronTrigger.from_crontab(_with_weekday_names(line), timezone=datetime.UTC).get_next_fire_time(
        None, datetime.datetime.fromtimestamp(now, datetime.UTC) + datetime.timedelta(seconds=1)
    )
    if due is None:
        raise ValueError("it never comes")
    return float(due.timestamp())


def interval_of(schedule: str) -> int:
    """The seconds of `@every 1h30m`; 0 for anything else. Raises ValueError for one that is too short."""
    match = _EVERY.fullmatch(schedule.strip().lower())
    if not match:
        return 0
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", match[1]))
    if seconds < LEAST_SECONDS:
        raise ValueError(f"less than {LEAST_SECONDS} seconds")
    return seconds


def from_watchtower(line: str) -> str:
    """Watchtower's six fields (seconds first) as five; descriptors stay. Raises ValueError.

    The second within the minute is dropped: a look is not that exact.
    """
    text = line.strip()
    if text.startswith("@"):
        if text.lower() not in DESCRIPTORS and not interval_of(text):
            raise ValueError("only @hourly, @daily, @weekly, @monthly, @yearly and '@every 6h'")
        return text
    fields = text.replace("?", "*").split()
    if len(fields) != 6:
        raise ValueError("six fields, seconds first, such as '0 30 4 * * *'")
    if not re.fullmatch(r"\*(/\d+)?|[0-5]?\d([,-][0-5]?\d)*(/\d+)?", fields[0]):
        raise ValueError(f"{fields[0]!r} is no second")
    return " ".join(fields[1:])


def _with_weekday_names(line: str) -> str:
    fields = line.replace("?", "*").split()
    if len(fields) == 5:
        days, slash, step = fields[4].partition("/")
        if re.search(r"\d", days):
            fields[4] = ",".join(_named(part) for part in days.split(",")) + slash + step
    return " ".join(fields)


def _named(part: str) -> str:
    """`1-5` → `mon-fri`; `0` → `sun`; `5-7` and `0-3` cross APScheduler's week and are written out."""
    numbers = part.split("-")
    if not all(re.fullmatch("[0-7]", number) for number in numbers) or len(numbers) > 2:
        return part  # names, or nonsense that APScheduler refuses with its own words
    first, last = int(numbers[0]), int(numbers[-1])
    return ",".join(WEEKDAYS[day] for day in range(first, last + 1)) if first <= last else part
