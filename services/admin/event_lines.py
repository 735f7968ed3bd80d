"""From a line of a room's record to what the index keeps: pure, and suspicious of every byte.

A room that was broken into can write anything into its own segments. It must not be able to stop the index, to fill its
memory, to speak for another room (the folder's name counts, not the line's), or to reach a terminal with control
characters. What is no event is None.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from services.directory.addresses import key

LINE_OCTETS = 64 * 1024
FIELDS, FIELD_CHARACTERS, LIST_ITEMS, DEPTH = 60, 4000, 250, 4
TERMS, TERM_CHARACTERS = 300, 320  # RFC 5321 §4.5.3.1: no path is longer than 256
OUTCOMES = frozenset({"info", "accept", "reject", "defer", "junk", "error"})
DAY_US = 86_400_000_000

# Fields by which an event is found. One space of terms for all: an address, a Message-ID and a trace id cannot be
# mistaken for each other, and the owner does not say which one was typed.
IDENTITIES = ("trace", "conn", "queue_id")
ADDRESSES = ("sender", "recipient", "recipients", "account", "login", "original_recipient", "address", "key")
PEERS = ("peer", "remote_address", "address", "key")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KIND = re.compile(r"[a-z0-9-]{1,32}")
# C0, C1 and DEL would steer a terminal; the bidirectional marks would show one address as another.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Line:
    """One event. `text` is its JSON as the index keeps it, `t` in µs since 1970; `terms` are what it is found by."""

    t: int
    trace: str
    text: str
    terms: frozenset[str]


def read_line(line: bytes, room: str, now_us: int) -> Line | None:
    """The event in `line`, which lay in `room`'s folder; None where it is none. `now_us` bounds its time."""
    if not line or len(line) > LINE_OCTETS:
        return None
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    kind, trace, t = given.pop("kind", None), given.pop("trace", None), given.pop("t", None)
    outcome = given.pop("outcome", "info")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind) or not isinstance(trace, str):
        return None
    if not isinstance(t, int) or isinstance(t, bool) or not 0 < t <= now_us + DAY_US:
        t = now_us
    given.pop("room", None)
    event: dict[str, Any] = {
        "t": t,
        "room": room,
        "kind": kind,
        "trace": clean_text(trace)[:64],
        "outcome": outcome if isinstance(outcome, str) and outcome in OUTCOMES else "info",
    }
    for name, value in list(given.items())[:FIELDS]:
        if _NAME.fullmatch(name) and name not in event:
            event[name] = _clean(value, DEPTH)
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return Line(t, event["trace"], text, terms_of(event))


def terms_of(event: dict[str, Any]) -> frozenset[str]:
    """What an event is found by, each in the form that `query_terms` gives."""
    terms: set[str] = set()
    for name in IDENTITIES:
        terms.update(_texts(event.get(name)))
    for name in ADDRESSES:
        terms.update(key(text.strip("<>")) for text in _texts(event.get(name)) if len(text) <= TERM_CHARACTERS)
    terms.update(_message_id(text) for text in _texts(event.get("message_id")))
    for name in PEERS:
        terms.update(ip for text in _texts(event.get(name)) if (ip := as_ip(text)))
    return frozenset(sorted(term for term in terms if 0 < len(term) <= TERM_CHARACTERS)[:TERMS])


def query_terms(query: str) -> list[str]:
    """The terms that a person's query may mean: an id, an address, a Message-ID with or without <>, an IP address."""
    text = clean_text(query).strip()
    found = [key(text.strip("<>")), _message_id(text), text.lower(), as_ip(text)]
    return list(dict.fromkeys(term for term in found if 0 < len(term) <= TERM_CHARACTERS))


@functools.lru_cache(512)
def as_ip(text: str) -> str:
    """The canonical form of an IP address, also out of `ip:port` and `[v6]:port`; "" where there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _message_id(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">").lower()


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, list):
        return [item for item in value if isinstance(item, str) and item]
    return ()


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else 0
    if isinstance(value, float):
        return value if math.isfinite(value) else 0
    if depth and isinstance(value, list):
        return [_clean(item, depth - 1) for item in value[:LIST_ITEMS]]
    if depth and isinstance(value, dict):
        pairs = list(value.items())[:FIELDS]
        return {clean_text(name)[:64]: _clean(item, depth - 1) for name, item in pairs}
    return None


def clean_text(text: str) -> str:
    """`text` without what steers a terminal, bounded; line breaks become spaces."""
    text = text[:FIELD_CHARACTERS]
    return text if text.isascii() and text.isprintable() else _CONTROL.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    return " " if match.group() in "\r\n\t" else "\ufffd"
