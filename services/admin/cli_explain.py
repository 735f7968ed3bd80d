"""`mailstead explain`: why a message or a connection was decided on as it was, in English or Chinese."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from services.admin.cli_client import Client, Output, Usage, plain, say, time_text
from services.admin.text import _, speak

Answer = dict[str, Any]


def explain(client: Client, out: Output, given: argparse.Namespace) -> int:
    """explain: exit 1 where nothing is recorded."""
    if not given.query.strip():
        raise Usage("of what? an IP address, an address, a Message-ID, or an id out of a reply")
    language = "zh-CN" if given.lang.lower().startswith("zh") else "en"
    speak(language)
    answer = client.ask("GET", "/explain", query=given.query, limit=given.limit, lang=language, fresh="true")
    if out.as_json:
        out.answer(answer)
        return 0 if answer["found"] else 1
    for sentence in answer["elsewhere"]:
        print(plain(sentence), file=sys.stderr)
    for number, story in enumerate(answer["found"]):
        if number:
            say("")
        _tell(story)
    return 0 if answer["found"] else 1


def _tell(story: Answer) -> None:
    say("  ".join(filter(None, (story["trace"], time_text(story["started"]), story["title"], story["message_id"]))))
    say(f"  {story['sentence']}")
    for stage in story["stages"]:
        say("")
        _tell_stage(stage)
    if story["todo"]:
        say("")
        say("  " + _("What you can do:"))
        for each in story["todo"]:
            say(f"    - {each}")


def _tell_stage(stage: Answer) -> None:
    head = f"  {stage['title']}"
    if stage["decided"]:
        head = "  " + _("{what}: {outcome}").format(what=stage["title"], outcome=stage["decided"])
    score = ""
    if stage["score"] is not None:
        score = _("score {score}").format(score=f"{stage['score']:.1f}")
        if stage["threshold"] is not None:
            score = _("score {score}, junk from {threshold}").format(
                score=f"{stage['score']:.1f}", threshold=f"{stage['threshold']:.1f}"
            )
    folder = _("folder {folder}").format(folder=stage["folder"]) if stage["folder"] else ""
    say(" · ".join(filter(None, (head, stage["about"], folder, score))))
    if stage["reply"]:
        say("    " + _("Reply: {reply}").format(reply=stage["reply"]))
    if stage["reason"]:
        say(f"    {stage['reason']}")
    for rule in stage["rules"]:
        _tell_rule(rule)
    if stage["dns"]:
        say("    " + _("DNS answers that were looked at:"))
        for each in stage["dns"]:
            say(f"      {each}")
    if stage["auth"]:
        say(f"    Authentication-Results: {stage['auth']}")


def _tell_rule(rule: Answer) -> None:
    weight = f"{rule['weight']:+.1f}" if rule["weight"] else "    "
    indent = " " * 10
    if rule["rule"]:
        say(f"    {weight}  {rule['rule']}: {rule['text']}".rstrip(": "))
        say(indent + rule["cause"])
    else:
        say(f"    {rule['cause']}")
        indent = "    "
    if rule["todo"] or rule["where"]:
        where = f" ({', '.join(rule['where'])})" if rule["where"] else ""
        say(f"{indent}→ {rule['todo']}{where}")
