"""The owner's words: modes, labels, watchtower's variables and schedules, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.runtime.settings import read
from services.runtime.values import Settings, WrongSetting
from services.updater.modes import OFF, UPDATE, WATCH, mode_of, orders_of
from services.updater.schedule import from_watchtower, interval_of, next_time

NOON = 1_700_000_000.0  # Tuesday 2023-11-14 22:13:20 UTC


def orders(**changes: Any) -> Any:
    return orders_of(replace(Settings(), **changes))


def test_without_a_word_it_watches_each_night() -> None:
    found = orders()
    assert (found.mode, found.schedule, found.cleanup, found.restart, found.named_only) == (
        WATCH, "30 4 * * *", True, True, False
    )  # fmt: skip
    assert found.min_age_hours == 24 and found.notes == ()


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"watchtower_poll_interval": "3600"}, "schedule", "@every 3600s"),
        ({"watchtower_schedule": "0 0 3 * * 1"}, "schedule", "0 3 * * 1"),
        ({"watchtower_schedule": "@daily"}, "schedule", "@daily"),
        ({"watchtower_cleanup": "false"}, "cleanup", False),
        ({"update_cleanup": "no", "watchtower_cleanup": "T"}, "cleanup", True),
        ({"watchtower_monitor_only": "true", "update_mode": "update"}, "mode", WATCH),
        ({"watchtower_monitor_only": "0"}, "mode", UPDATE),
        ({"watchtower_no_restart": "1"}, "restart", False),
        ({"watchtower_label_enable": "true"}, "named_only", True),
    ],
)
def test_watchtowers_words_win_and_say_so(given: dict[str, str], field: str, value: object) -> None:
    found = orders(**given)
    assert getattr(found, field) == value
    assert len(found.notes) == 1 and next(name for name in given if "watch" in name).upper() in found.notes[0]


@pytest.mark.parametrize(
    "given",
    [
        {"watchtower_poll_interval": "60", "watchtower_schedule": "0 0 4 * * *"},
        {"watchtower_schedule": "0 4 * * *"},
        {"watchtower_schedule": "61 0 4 * * *"},
        {"watchtower_schedule": "@sometimes"},
        {"watchtower_schedule": "@every 5s"},
    ],
)
def test_words_that_cannot_be_followed_end_the_start_with_one_line(given: dict[str, str]) -> None:
    with pytest.raises(WrongSetting, match=r"WATCHTOWER_.*env/updater\.env") as caught:
        orders(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WATCHTOWER_POLL_INTERVAL", "9", "a whole number from 10"),
        ("WATCHTOWER_POLL_INTERVAL", "1h", "a whole number from 10"),
        ("WATCHTOWER_CLEANUP", "yes", "true or false"),
        ("WATCHTOWER_MONITOR_ONLY", "sure", "true or false"),
        ("UPDATE_MODE", "auto", "off, watch, update"),
        ("UPDATE_WEBHOOK_URL", "ftp://x", "an http or https address"),
        ("UPDATE_MIN_AGE", "-1", "from 0 to 8760"),
        ("UPDATE_HEALTH_SECONDS", "1", "from 5 to 900"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str, words: str) -> None:
    with pytest.raises(WrongSetting, match=words):
        read({name: value})


ENABLE, MONITOR = "com.centurylinklabs.watchtower.enable", "com.centurylinklabs.watchtower.monitor-only"


@pytest.mark.parametrize(
    ("labels", "default", "named_only", "mode"),
    [
        ({}, WATCH, False, WATCH),
        ({}, UPDATE, False, UPDATE),
        ({"mailstead.update": "off"}, UPDATE, False, OFF),
        ({"mailstead.update": "Update"}, WATCH, False, UPDATE),
        ({"mailstead.update": "nonsense"}, WATCH, False, WATCH),
        ({ENABLE: "false"}, UPDATE, False, OFF),
        ({ENABLE: "true"}, UPDATE, False, UPDATE),
        ({ENABLE: "false", "mailstead.update": "watch"}, UPDATE, False, WATCH),
        ({MONITOR: "true"}, UPDATE, False, WATCH),
        ({MONITOR: "true"}, OFF, False, OFF),
        ({}, UPDATE, True, OFF),
        ({ENABLE: "true"}, UPDATE, True, UPDATE),
        ({"mailstead.update": "update"}, WATCH, True, UPDATE),
    ],
)
def test_a_containers_labels_say_its_mode(labels: dict[str, str], default: str, named_only: bool, mode: str) -> None:
    assert mode_of(labels, replace(orders(), mode=default, named_only=named_only)) == mode


@pytest.mark.parametrize(
    ("line", "five"),
    [
        ("0 30 4 * * *", "30 4 * * *"),
        ("*/10 0 4 ? * 1-5", "0 4 * * 1-5"),
        ("0 0 0 1 1 ?", "0 0 1 1 *"),
        ("@every 6h", "@every 6h"),
    ],
)
def test_six_fields_become_five(line: str, five: str) -> None:
    assert from_watchtower(line) == five


@pytest.mark.parametrize(("text", "seconds"), [("@every 1h30m", 5400), ("@every 90s", 90), ("30 4 * * *", 0)])
def test_an_interval(text: str, seconds: int) -> None:
    assert interval_of(text) == seconds


DAY = 86_400


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ("30 4 * * *", 6 * 3600 + 16 * 60 + 40),  # 04:30 UTC, from 22:13:20 the evening before
        ("*/15 * * * *", 100),
        ("14 22 * * *", 40),
        ("13 22 * * *", DAY - 20),  # due in this minute already: tomorrow
        ("@every 1h", 3600),
        ("@hourly", 46 * 60 + 40),
        # Weekdays as crontab counts them: 0 and 7 are Sunday, 3 is Wednesday.
        ("14 22 * * 3", DAY + 40),
        ("14 22 * * 0", 5 * DAY + 40),
        ("14 22 * * 7", 5 * DAY + 40),
        ("14 22 * * 5-7", 3 * DAY + 40),
        ("14 22 * * sun", 5 * DAY + 40),
    ],
)
def test_the_next_look_is_when_the_line_says_in_utc(schedule: str, seconds: int) -> None:
    assert next_time(schedule, NOON) - NOON == seconds


@pytest.mark.parametrize("schedule", ["", "daily", "30 4 * *", "99 4 * * *", "30 4 31 2 *", "@every 3s", "0 4 * * 9"])
def test_a_line_that_is_none_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError):
        next_time(schedule, NOON)
