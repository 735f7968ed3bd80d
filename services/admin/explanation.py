"""`explain`: a story of the record stage by stage: what was decided, by which rules, on which answers, and what now.

Pure over the record: the fields `reasons` ("rule|weight|text"), `dns`, `auth`, `score` and `mailbox` of its events,
and the table in `advice.py`. Nothing is looked up again: what DNS says today did not decide yesterday. In the reader's
language (`text.py`); what other servers said and what DNS answered stays as it was. Events of an older smtp-in have
`rules` and `reason` alone and are told by those. Every value is a stranger's until shown otherwise: bounded here,
cleaned by the index, escaped by who shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.admin.advice import ELSEWHERE, EVENTS, Advice, advice
from services.admin.event_lines import as_ip
from services.admin.phrases import say
from services.admin.stories import Event, Story
from services.admin.text import _
from services.admin.web.words import kind_word, state_word
from services.runtime.values import described

SHOWN_RULES, SHOWN_DNS = 60, 40
MOST_TEXT = 1000
# Events that are told though nothing was decided against anybody: the stages of a message, and where it went.
STAGES = frozenset(
    {
        *("connect", "helo", "mail", "rcpt", "data", "delivered", "forwarded", "submitted", "queued", "attempt"),
        *("bounced", "dropped", "login", "ban", "bug"),
    }
)
_AGAINST = frozenset({"reject", "defer", "junk", "error"})


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    """One rule that spoke. `text`: what it found; `cause`: what that means; `todo`, `where`: what the owner can do."""

    rule: str
    weight: float
    text: str
    cause: str
    todo: str
    where: list[str]


@dataclass(frozen=True, slots=True)
class ExplainedStage:
    """One event. `at` in seconds since 1970; `outcome` as recorded, `decided` the same in words; "" where unknown.

    `rules` are sorted by weight, the heaviest first. `rule` of an entry that no rule made is "".
    """

    stage: str
    title: str
    at: float
    room: str
    outcome: str
    decided: str
    about: str
    reply: str
    reason: str
    score: float | None
    threshold: float | None
    folder: str
    auth: str
    dns: list[str]
    rules: list[ExplainedRule]


@dataclass(frozen=True, slots=True)
class Explained:
    """A message or a connection. `sentence` says how it ended; `todo` what the owner can do, the weightiest first."""

    trace: str
    kind: str
    title: str
    sentence: str
    outcome: str
    sender: str
    recipients: list[str]
    message_id: str
    peer: str
    started: float
    stages: list[ExplainedStage]
    todo: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The newest stories that `query` is part of, newest first; without any, `elsewhere` says where to look."""

    query: str
    language: str
    found: list[Explained]
    elsewhere: list[str] = field(default_factory=list)


def explain(story: Story, threshold: float | None = None) -> Explained:
    """The story in full. `threshold` is the score from which mail is junk, for events that do not say it."""
    summary = story.summary()
    stages = [_stage(event, threshold) for event in story.events if _told(event)]
    todo: dict[str, None] = {}
    if any(stage.outcome in _AGAINST for stage in stages):
        for rule in sorted((rule for stage in stages for rule in stage.rules if rule.todo), key=_heavy):
            todo[rule.todo] = None
    return Explained(
        trace=story.trace,
        kind=story.kind,
        title=_title(story, summary),
        sentence=_sentence(story, stages),
        outcome=str(summary["outcome"]),
        sender=str(summary.get("sender", "")),
        recipients=[str(each) for each in summary["recipients"]],
        message_id=str(summary.get("message_id", "")),
        peer=str(summary.get("peer", "")),
        started=summary["started"] / 1e6,
        stages=stages,
        todo=list(todo),
    )


def why(event: Event, threshold: float | None = None) -> ExplainedStage:
    """One event in full, for the timeline of the page."""
    return _stage(event, threshold)


def elsewhere(query: str, days: int) -> list[str]:
    """Where to look when nothing is recorded of `query`: a sentence each. `days`: how far the record goes back."""
    asked = query.strip()
    kind = "ip" if as_ip(asked) else "address" if "@" in asked and "<" not in asked else "id"
    first = _("Nothing is recorded of {query} in the last {days} days: it did not reach this server.")
    return [first.format(query=asked[:200], days=days), *(_(each) for each in (*ELSEWHERE[kind], *ELSEWHERE[""]))]


# --- one stage -------------------------------------------------------------------------------------------------------


def _told(event: Event) -> bool:
    return event["kind"] in STAGES or event["outcome"] in _AGAINST or bool(event.get("reasons"))


def _stage(event: Event, threshold: float | None) -> ExplainedStage:
    score = _number(event.get("score"))
    limit = _number(event.get("threshold"))
    rules = _rules(event)
    if not rules and event["outcome"] in _AGAINST and (entry := EVENTS.get((event["kind"], event["outcome"]))):
        rules = [_rule("", 0.0, "", entry, True)]
    said = {rule.text for rule in rules}
    reason = say(_text(event.get("reason")))
    return ExplainedStage(
        stage=str(event["kind"]),
        title=kind_word(str(event["kind"])),
        at=event["t"] / 1e6,
        room=str(event["room"]),
        outcome=str(event["outcome"]),
        decided=state_word(str(event["outcome"])) if event["outcome"] != "info" else "",
        about=_about(event),
        reply=_text(event.get("reply")),
        # Where the rules say it sentence by sentence, their sum is not said once more.
        reason="" if event.get("reasons") or said >= set(reason.split(_("; "))) else reason,
        score=score,
        threshold=(limit if limit is not None else threshold) if score is not None else None,
        folder=_text(event.get("mailbox") or event.get("folder")),
        auth=_text(event.get("auth")),
        dns=[_text(each) for each in _list(event.get("dns"))[:SHOWN_DNS]],
        rules=rules,
    )


def _rules(event: Event) -> list[ExplainedRule]:
    """The event's reasons, the heaviest first."""
    against = event["outcome"] in _AGAINST
    found = []
    for rule, weight, text in reasons_of(event):
        entry = advice(rule)
        found.append(_rule(rule, weight, say(text), entry, weight > 0 or (against and weight == 0)))
    return sorted(found, key=_heavy)


def _rule(rule: str, weight: float, text: str, entry: Advice, against: bool) -> ExplainedRule:
    todo = _(entry.todo) if entry.todo and against else ""
    where = [_place(each) for each in entry.where] if against else []
    return ExplainedRule(rule, weight, text, _(entry.cause), todo, where)


def reasons_of(event: Event) -> Iterable[tuple[str, float, str]]:
    """(rule, weight, sentence) of each reason, in the order of the record."""
    given = _list(event.get("reasons"))[:SHOWN_RULES]
    if given:
        for each in given:
            rule, _bar, rest = str(each).partition("|")
            weight, bar, text = rest.partition("|")
            number = _number(weight)
            yield rule[:64], number or 0.0, _text(text if bar else rest)
        return
    rules = _text(event.get("rules")).split()[:SHOWN_RULES]
    reason = _text(event.get("reason"))
    texts = reason.split("; ") if len(rules) > 1 else [reason]
    for number, rule in enumerate(rules):
        yield rule[:64], 0.0, texts[number] if len(texts) == len(rules) else reason if number == 0 else ""


def _heavy(rule: ExplainedRule) -> float:
    return -abs(rule.weight)


def _place(name: str) -> str:
    """A variable with its env file; all else as it is."""
    setting = described().get(name.lower()) if name.isupper() else None
    return f"{name} (env/{setting.file}.env)" if setting and setting.file else name


def _about(event: Event) -> str:
    """Whom the event was about, in the order in which a person asks."""
    names: dict[str, Sequence[str]] = {
        "connect": ("peer",), "helo": ("helo",), "mail": ("sender",), "rcpt": ("recipient",),
        "data": ("message_id",), "delivered": ("account",), "forwarded": ("remote",),
        "attempt": ("recipient", "remote"), "login": ("account", "login"), "ban": ("key",),
    }  # fmt: skip
    wanted = names.get(str(event["kind"]), ("recipient", "sender", "account", "peer"))
    return " · ".join(text for name in wanted if (text := _text(event.get(name))))


# --- the whole -------------------------------------------------------------------------------------------------------


def _title(story: Story, summary: dict[str, Any]) -> str:
    if story.kind == "message":
        sender = str(summary.get("sender") or _("(a report to a sender)"))
        return f"{sender} → {', '.join(str(each) for each in summary['recipients'][:3]) or '–'}"
    if story.kind == "connection":
        return _("Connection from {peer}").format(peer=summary.get("peer", "–"))
    return kind_word(str(story.events[-1]["kind"]))


def _sentence(story: Story, stages: Sequence[ExplainedStage]) -> str:
    """How it ended, in one sentence: the worst of what was decided for the message as a whole."""
    last = {stage.stage: stage for stage in stages}
    judged = last.get("data")
    if (sent := last.get("bounced")) and sent.outcome == "reject":
        return _("It did not arrive: its sender was told.")
    if judged is not None and judged.outcome in ("reject", "defer"):
        return _refusal(judged)
    delivered = [stage for stage in stages if stage.stage in ("delivered", "forwarded", "attempt")]
    if delivered:
        return _delivery(delivered, judged)
    refused = [stage for stage in stages if stage.outcome in ("reject", "defer")]
    if refused:
        return _refusal(refused[-1])
    if story.kind == "connection":
        return _("It connected and handed over nothing.")
    return stages[-1].decided if stages else ""


def _refusal(stage: ExplainedStage) -> str:
    if stage.outcome == "reject":
        return _("Refused at “{stage}”; the sender's server tells the sender.").format(stage=stage.title)
    return _("Put off at “{stage}”; the sender's server tries again by itself.").format(stage=stage.title)


def _delivery(stages: Sequence[ExplainedStage], judged: ExplainedStage | None) -> str:
    good = [stage for stage in stages if stage.outcome in ("accept", "junk")]
    if not good:
        return _("Not delivered yet.") if stages[-1].outcome == "defer" else _("Not delivered.")
    if not any(stage.outcome == "junk" for stage in good):
        return _("Delivered.")
    scored = next((stage for stage in (*reversed(good), judged) if stage and stage.score is not None), None)
    if scored is None or scored.threshold is None:
        return _("Put into Junk.")
    if scored.score is not None and scored.score < scored.threshold:
        return _("Put into Junk by a setting, at a score of {score}.").format(score=number_text(scored.score))
    return _("Put into Junk: its score of {score} reaches {threshold}.").format(
        score=number_text(scored.score), threshold=number_text(scored.threshold)
    )


def number_text(number: float | None) -> str:
    """A score as a person reads it."""
    return "–" if number is None else f"{number:.1f}"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return "" if value is None or value is False else str(value)[:MOST_TEXT]
