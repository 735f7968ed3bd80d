"""What smtp-in has decided lately, counted: by outcome, by rule, lists that do not answer, who is waiting. Pure.

For the page and `GET /api/v1/verdicts`, over the newest events of the record. Messages are counted by the last
word that was said of each at its data stage; recipients that were refused before are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.admin.explanation import reasons_of
from services.admin.stories import Event

MOST_EVENTS = 20_000  # 0.2 s to read; a family's week
SHOWN_RULES, SHOWN_WAITING, SHOWN_PROBLEMS = 60, 50, 20
OUTCOMES = ("accept", "junk", "defer", "reject")
# A sender that has not come back for a day has given up, or was none.
WAITING_SECONDS = 86_400
_LIST_ERROR, _GREYLIST = "dnsbl-error", "greylist"


@dataclass(frozen=True, slots=True)
class RuleCount:
    """How often a rule spoke, in all and by what the message came to; `points`: what it added together."""

    rule: str
    messages: int
    junk: int
    refused: int
    points: float


@dataclass(frozen=True, slots=True)
class ListProblem:
    """A list that did not answer as one: the sentence, how often, when last (seconds since 1970)."""

    text: str
    times: int
    last: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A first letter that was told to come back, and has not yet; `since` and `tried` in seconds since 1970."""

    sender: str
    recipient: str
    peer: str
    since: float
    tried: float


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`since`: the oldest event that was looked at, seconds since 1970, 0 for none. `complete`: it covers all days."""

    since: float
    complete: bool
    messages: dict[str, int]
    refused_recipients: int
    rules: list[RuleCount] = field(default_factory=list)
    list_problems: list[ListProblem] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)


def verdicts(events: Sequence[Event], now: float, days: float) -> Verdicts:
    """Count `events` of smtp-in, oldest first, that are not older than `days` before `now` (seconds)."""
    begin = (now - days * 86_400) * 1e6
    within = [event for event in events if event["t"] >= begin]
    last: dict[str, Event] = {}  # message → what was said of it in the end
    for event in within:
        if event["kind"] == "data" and event["outcome"] in OUTCOMES:
            last[str(event["trace"])] = event
    counts = dict.fromkeys(OUTCOMES, 0)
    for event in last.values():
        counts[event["outcome"]] += 1
    return Verdicts(
        since=within[0]["t"] / 1e6 if within else 0.0,
        complete=len(events) < MOST_EVENTS or len(within) < len(events),
        messages=counts,
        refused_recipients=sum(event["kind"] == "rcpt" and event["outcome"] == "reject" for event in within),
        rules=_rules([*last.values(), *_early(within)]),
        list_problems=_problems(last.values()),
        waiting=_waiting(within, now),
    )


def _early(events: Iterable[Event]) -> list[Event]:
    """Refusals and delays before there was a message."""
    return [event for event in events if event["kind"] in ("connect", "helo", "mail", "rcpt") and event.get("rules")]


def _rules(events: Iterable[Event]) -> list[RuleCount]:
    found: dict[str, list[float]] = {}
    for event in events:
        spoken = {rule: weight for rule, weight, _text in reasons_of(event)}  # each once a message
        for rule, weight in spoken.items():
            row = found.setdefault(rule, [0, 0, 0, 0.0])
            row[0] += 1
            row[1] += event["outcome"] == "junk"
            row[2] += event["outcome"] in ("reject", "defer")
            row[3] += weight
    counted = [RuleCount(rule, int(row[0]), int(row[1]), int(row[2]), round(row[3], 2)) for rule, row in found.items()]
    return sorted(counted, key=lambda each: (-each.messages, each.rule))[:SHOWN_RULES]


def _problems(events: Iterable[Event]) -> list[ListProblem]:
    found: dict[str, tuple[int, float]] = {}
    for event in events:
        for rule, _weight, text in reasons_of(event):
            if rule == _LIST_ERROR:
                times, at = found.get(text, (0, 0.0))
                found[text] = (times + 1, max(at, event["t"] / 1e6))
    problems = [ListProblem(text, times, at) for text, (times, at) in found.items()]
    return sorted(problems, key=lambda each: -each.last)[:SHOWN_PROBLEMS]


def _waiting(events: Iterable[Event], now: float) -> list[Waiting]:
    found: dict[tuple[str, str], Waiting] = {}
    for event in events:
        if event["kind"] != "rcpt":
            continue
        key = (str(event.get("sender") or ""), str(event.get("recipient") or ""))
        at = event["t"] / 1e6
        if event["outcome"] == "defer" and _GREYLIST in str(event.get("rules", "")).split():
            since = found[key].since if key in found else at
            found[key] = Waiting(key[0], key[1], str(event.get("peer") or ""), since, at)
        else:
            found.pop(key, None)  # it came back, or was refused
    waiting = [each for each in found.values() if now - each.tried < WAITING_SECONDS]
    return sorted(waiting, key=lambda each: -each.tried)[:SHOWN_WAITING]
