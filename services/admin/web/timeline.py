"""A story of the record as the page shows it: one line for its end, then each event with what is new in it."""

from __future__ import annotations

from typing import Any

from services.admin.explanation import explain, why
from services.admin.stories import Story, new_facts
from services.admin.text import _
from services.admin.web.formats import size_text, when
from services.admin.web.words import field_word, kind_word, state_word


def told(story: Story, threshold: float | None = None) -> dict[str, Any]:
    """What the template shows: title, verdict, outcome, trace, message_id, started, ended (seconds), events.

    `threshold` is the score from which mail is junk; `sentence` and `todo` are those of `explain`, `why` of an event
    its rules, score and DNS answers.
    """
    summary = story.summary()
    whole = explain(story, threshold)
    said: set[tuple[str, str]] = set()
    events = []
    for event in story.events:
        spoken = why(event, threshold)
        hidden = ("rules",) if spoken.rules else ()  # they stand below, each with its sentence
        facts = [
            (field_word(name), _value(name, event[name], shown))
            for name, shown in new_facts(event, said)
            if name not in hidden
        ]
        events.append(
            {
                **{name: event.get(name, "") for name in ("t", "kind", "room", "outcome", "reply", "reason")},
                "facts": facts,
                "why": spoken,
            }
        )
    return {
        "title": _title(story, summary),
        "verdict": _verdict(summary),
        "sentence": whole.sentence,
        "todo": whole.todo,
        "outcome": summary["outcome"],
        "trace": summary["trace"],
        "message_id": summary.get("message_id", ""),
        "started": summary["started"] / 1e6,
        "ended": summary["ended"] / 1e6,
        "events": events,
    }


def _value(name: str, value: object, shown: str) -> str:
    if value is True:
        return "✓"
    if name in ("next", "until"):
        return when(value)
    return {"size": size_text(value), "ms": f"{shown} ms", "seconds": f"{shown} s"}.get(name, shown)


def _title(story: Story, summary: dict[str, Any]) -> str:
    if summary["kind"] == "message":
        sender = summary.get("sender") or _("(a report to a sender)")
        recipients = summary["recipients"]
        more = f" +{len(recipients) - 2}" if len(recipients) > 2 else ""
        return f"{sender} → {', '.join(recipients[:2]) or '–'}{more}"
    if summary["kind"] == "connection":
        return _("Connection from {peer}").format(peer=summary.get("peer", "–"))
    return kind_word(story.events[-1]["kind"])


def _verdict(summary: dict[str, Any]) -> str:
    result, outcome = str(summary["result"]), str(summary["outcome"])
    if outcome == "accept" and result in ("delivered", "attempt", "forwarded"):
        return _("delivered")
    if result == "bounced" and outcome == "reject":
        return _("failed, its sender was told")
    if outcome == "info" or result == "dropped":
        return kind_word(result)
    return _("{what}: {outcome}").format(what=kind_word(result), outcome=state_word(outcome))
