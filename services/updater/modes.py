"""What the owner wants of updates: UPDATE_* and watchtower's words into one set of orders, labels into a mode. Pure.

A container's mode is looked for in this order: its label `mailstead.update`; watchtower's labels; the default of the
whole stack. `off`: not looked at. `watch`: reported, replaced by hand. `update`: replaced by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.runtime.values import Settings, WrongSetting
from services.updater.schedule import from_watchtower

OFF, WATCH, UPDATE = "off", "watch", "update"
MODES = (OFF, WATCH, UPDATE)
MODE_LABEL = "mailstead.update"
WATCHTOWER_LABEL = "com.centurylinklabs.watchtower.enable"
WATCHTOWER_MONITOR_LABEL = "com.centurylinklabs.watchtower.monitor-only"


@dataclass(frozen=True, slots=True)
class Orders:
    """What was ordered for the whole stack.

    `restart` False: images are pulled, containers stay. `named_only`: only containers that a label names. `notes` are
    lines for the log: which of watchtower's words won over which of ours.
    """

    mode: str
    schedule: str
    cleanup: bool
    restart: bool
    named_only: bool
    min_age_hours: int
    notes: tuple[str, ...] = ()


def orders_of(settings: Settings) -> Orders:
    """The orders in the settings; raises WrongSetting."""
    mode, line, cleanup = settings.update_mode, settings.update_schedule, settings.update_cleanup == "yes"
    notes = []
    if settings.watchtower_poll_interval and settings.watchtower_schedule:
        raise WrongSetting("WATCHTOWER_POLL_INTERVAL and WATCHTOWER_SCHEDULE (env/updater.env) exclude each other")
    if settings.watchtower_poll_interval:
        line = f"@every {settings.watchtower_poll_interval}s"
        notes.append(f"WATCHTOWER_POLL_INTERVAL wins over UPDATE_SCHEDULE: {line}")
    if settings.watchtower_schedule:
        try:
            line = from_watchtower(settings.watchtower_schedule)
        except ValueError as error:
            raise WrongSetting(
                f"WATCHTOWER_SCHEDULE={settings.watchtower_schedule!r} (env/updater.env) is not allowed: {error}"
            ) from None
        notes.append(f"WATCHTOWER_SCHEDULE wins over UPDATE_SCHEDULE: {line}")
    if settings.watchtower_monitor_only:
        mode = WATCH if _true(settings.watchtower_monitor_only) else UPDATE
        notes.append(f"WATCHTOWER_MONITOR_ONLY wins over UPDATE_MODE: {mode}")
    if settings.watchtower_cleanup:
        cleanup = _true(settings.watchtower_cleanup)
        notes.append(f"WATCHTOWER_CLEANUP wins over UPDATE_CLEANUP: {'yes' if cleanup else 'no'}")
    restart = not _true(settings.watchtower_no_restart)
    if not restart:
        notes.append("WATCHTOWER_NO_RESTART: newer images are pulled, no container is replaced")
    named_only = _true(settings.watchtower_label_enable)
    if named_only:
        notes.append(f"WATCHTOWER_LABEL_ENABLE: only containers with {WATCHTOWER_LABEL}=true or {MODE_LABEL}")
    return Orders(mode, line, cleanup, restart, named_only, settings.update_min_age, tuple(notes))


def mode_of(labels: Mapping[str, str], orders: Orders) -> str:
    """The mode of a container with `labels`. A label that says nothing we know counts as not there."""
    own = labels.get(MODE_LABEL, "").strip().lower()
    if own in MODES:
        return own
    enabled = labels.get(WATCHTOWER_LABEL, "").strip().lower()
    if enabled == "false" or (orders.named_only and enabled != "true"):
        return OFF
    if labels.get(WATCHTOWER_MONITOR_LABEL, "").strip().lower() == "true" and orders.mode == UPDATE:
        return WATCH
    return orders.mode


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "t", "1")
