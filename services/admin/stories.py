"""From events to stories: what happened to a message, or on a connection that brought none, in order.

Pure over a lookup that is passed in (`EventIndex.events`). A message's story is every event with its trace id, from
whichever room, and the events of the connections that carried it; a connection is a story of its own where no message
of it is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.admin.event_lines import query_terms

Event = dict[str, Any]
Find = Callable[[Sequence[str], int], list[Event]]  # terms, limit → events, oldest first

MATCHES = 600  # events that a query may match before the oldest are left out
PER_STORY = 500  # a message to 200 recipients with a few attempts each is still whole
# Fields shown elsewhere in a line, or of use to a machine alone.
_HIDDEN = frozenset(
    {
        *("t", "room", "kind", "trace", "outcome", "id", "conn", "text", "reply", "reason", "detail"),
        *("reasons", "dns", "auth", "score", "threshold"),  # `explain` shows them
    }
)
_FIRST = ("peer", "account", "login", "sender", "recipient", "recipients", "remote")


@dataclass(frozen=True, slots=True)
class Story:
    """`kind`: message, connection, or note (a change by the owner, a fault of ours). `events` are oldest first."""

    trace: str
    kind: str
    events: list[Event]

    def summary(self) -> dict[str, Any]:
        """What a list of stories shows of this one."""
        own = [event for event in self.events if event["trace"] == self.trace] or self.events
        found: dict[str, Any] = {"trace": self.trace, "kind": self.kind}
        for name in ("sender", "message_id", "peer", "account", "size"):
            values = [event[name] for event in own + self.events if event.get(name) not in (None, "")]
            if values:
                found[name] = values[0]
        recipients: dict[str, None] = {}
        for event in own:
            listed = event.get("recipients")
            for address in [event.get("recipient"), *(listed if isinstance(listed, list) else [])]:
                if isinstance(address, str) and address:
                    recipients[address] = None
        found["recipients"] = list(recipients)
        decided = [event for event in own if event["outcome"] != "info"] or own
        found["outcome"], found["result"] = decided[-1]["outcome"], decided[-1]["kind"]
        found["started"], found["ended"] = self.events[0]["t"], self.events[-1]["t"]
        return found


def find_stories(query: str, find: Find, limit: int = 20) -> list[Story]:
    """The newest `limit` stories that `query` is part of, newest first."""
    terms = query_terms(query)
    return stories_of(find(terms, MATCHES) if terms else [], find, limit)


def stories_of(matched: Sequence[Event], find: Find, limit: int) -> list[Story]:
    """The newest `limit` stories that the events `matched`, oldest first, are part of; newest first."""
    traces: dict[str, None] = {}
    for event in reversed(matched):
        traces[event["trace"]] = None
    stories: list[Story] = []
    told: set[str] = set()  # connections that a message's story has told already
    waiting = [trace for trace in traces if trace]
    while waiting and len(stories) < limit:
        story, carried = _story(waiting.pop(0), find)
        if carried:
            # The query found a connection, by the peer's address perhaps: told with the messages that it brought.
            waiting[:0] = [message for message in carried if message not in traces]
            traces.update(dict.fromkeys(carried))
            continue
        stories.append(story)
        told.update(
            str(event.get("conn")) for event in story.events if event.get("conn") not in (None, "", story.trace)
        )
    stories = [story for story in stories if story.trace not in told]
    # Events without a trace (a bug before any connection, a change by the owner) are one story by themselves.
    loose = [event for event in matched if not event["trace"]]
    if loose:
        stories.append(Story("", "note", loose))
    return sorted(stories, key=lambda story: -story.events[-1]["t"])[:limit]


def _story(trace: str, find: Find) -> tuple[Story, list[str]]:
    """The story of `trace`, and the messages that it carried where it is a connection."""
    related = find([trace], PER_STORY)
    own = [event for event in related if event["trace"] == trace]
    connections = {str(event["conn"]) for event in own if event.get("conn") not in (None, "", trace)}
    events = {event["id"]: event for event in own}
    for connection in sorted(connections)[:50]:
        events.update((event["id"], event) for event in find([connection], PER_STORY) if event["trace"] == connection)
    ordered = sorted(events.values(), key=lambda event: (event["t"], event["id"]))
    carried = dict.fromkeys(
        event["trace"] for event in reversed(related) if event.get("conn") == trace != event["trace"]
    )
    return Story(trace, _kind(ordered), ordered), list(carried)


def _kind(events: Sequence[Event]) -> str:
    if all(event["kind"] == "move" for event in events):
        return "note"  # what a person did with a message is not the message
    if any(event.get(name) for event in events for name in ("conn", "queue_id", "message_id", "recipient")):
        return "message"
    # A change has a peer too, its author's.
    peers = [event for event in events if event.get("peer") and event["kind"] != "admin-change"]
    return "connection" if peers else "note"


def flat(stories: Sequence[Story]) -> list[Event]:
    """Every event of `stories` once, oldest first."""
    events = {event["id"]: event for story in stories for event in story.events}
    return sorted(events.values(), key=lambda event: (event["t"], event["id"]))


def sentence(event: Event, said: set[tuple[str, str]] | None = None) -> str:
    """One event in words: whom it was about, what was answered, and why.

    `said` collects what earlier events of the story have said already; that is left out.
    """
    parts = [
        name.replace("_", " ") if event[name] is True else f"{name.replace('_', ' ')} {shown}"
        for name, shown in new_facts(event, said)
    ]
    text = " · ".join(parts)
    if event.get("reply"):
        text += f"{' → ' if text else ''}{event['reply']}"
    if event.get("reason"):
        text += f" ({event['reason']})" if text else str(event["reason"])
    return text


def new_facts(event: Event, said: set[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """(field, what it says) of an event, whom it was about first; `said` as for `sentence`."""
    found = []
    for name in [*_FIRST, *sorted(name for name in event if name not in _FIRST)]:
        value = event.get(name)
        if name in _HIDDEN or value in (None, "", [], {}, False):
            continue
        shown = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
        if name == "next" and isinstance(value, int):
            shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
        if said is not None:
            if (name, shown) in said and name != "recipient":
                continue
            said.update(((name, shown), ("recipients", shown)) if name == "recipient" else ((name, shown),))
        found.append((name, shown[:300]))
    return found


def sentences(events: Sequence[Event]) -> list[str]:
    """A story's events in words, each saying what is new with it."""
    said: set[tuple[str, str]] = set()
    return [sentence(event, said) for event in events]
