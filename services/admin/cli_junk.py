"""`mailstead junk evaluate|status`: how well the junk filter would do on somebody's mail, and what it has learned."""

from __future__ import annotations

import argparse
import os
import secrets
import time
from typing import Any

from services.admin.cli_client import Client, Failed, Output, plain, say, size_text, time_text

Arguments = argparse.Namespace
# Shown on the way to `--trained`, so that one sees how fast it learns.
STEPS = (0, 50, 100, 200)
_MOST_LISTED = 50


def evaluate(client: Client, out: Output, given: Arguments) -> int:
    """junk evaluate. Exit 1 where there is nothing to judge."""
    # The filter is loaded where it is asked for: every other command does without it.
    from services.admin.junk_trial import Letter, judge, letters, split
    from services.storage.junk_model import KEY_OCTETS

    begun = time.monotonic()
    unread: list[str] = []
    found: list[Letter] = []
    key = secrets.token_bytes(KEY_OCTETS)
    for path, junk in ((given.ham, False), (given.spam, True)):
        if not os.path.exists(path):
            raise Failed(f"there is no {path}")
        try:
            found += letters(path, junk=junk, key=key, skipped=unread.append)
        except OSError as error:
            raise Failed(f"{path}: {error.strerror}") from None
    junk_sorted, good_sorted, rest = split(found, given.trained)
    if not any(letter.junk for letter in rest) or all(letter.junk for letter in rest):
        raise Failed("at least two messages of each kind are needed: an mbox file, a Maildir, or a folder of messages")
    curve = []
    for step in (*(step for step in STEPS if step < given.trained), given.trained):
        share = step / max(given.trained, 1)
        some = round(len(junk_sorted) * share), round(len(good_sorted) * share)
        figures = judge(junk_sorted[: some[0]], good_sorted[: some[1]], rest, given.threshold)
        curve.append(figures.as_json())
    going_on = judge(junk_sorted, good_sorted, rest, given.threshold, go_on=True).as_json()
    seconds = time.monotonic() - begun
    if out.as_json:
        answer = {
            **figures.as_json(), "threshold": given.threshold, "curve": curve, "going_on": going_on,
            "unreadable": len(unread),
            "seconds": round(seconds, 1), "milliseconds_per_message": round(1000 * seconds / len(found), 2),
            "false_positive_list": [_json(score, letter) for score, letter in figures.false_positives],
            "missed_list": [_json(score, letter) for score, letter in figures.missed],
        }  # fmt: skip
        out.answer(answer)
        return 0
    _tell(figures, curve, going_on, given, unread, missed=given.missed)
    return 0


def _json(score: float, letter: Any) -> dict[str, Any]:
    return {"score": round(score, 2), "subject": letter.subject, "time": letter.when, "rules": letter.rules}


def _tell(
    figures: Any,
    curve: list[dict[str, Any]],
    going_on: dict[str, Any],
    given: Arguments,
    unread: list[str],
    *,
    missed: bool,
) -> None:
    say(f"{figures.good + figures.trained_good} good messages and {figures.junk + figures.trained_junk} junk ones")
    if unread:
        say(f"{len(unread)} could not be read, the first of them {plain(unread[0])}")
    say(f"judged after training, with junk from a score of {given.threshold:g} on:")
    say("trained  caught             false positives")
    for step in curve:
        say(f"{step['trained']:7}  {_rates(step)}")
    say(f"and on   {_rates(going_on)}  (each good message, and junk that was missed, learned once it is judged)")
    say(
        f"with {given.trained}: caught {figures.caught}, missed {figures.junk - figures.caught}, "
        f"false positives {len(figures.false_positives)}"
    )
    _list("good messages taken for junk:", figures.false_positives)
    if missed:
        _list("junk that was missed:", figures.missed)


def _rates(step: dict[str, Any]) -> str:
    caught, wrong = step["caught_rate"] * 100, step["false_positive_rate"] * 100
    judged = step["judged_junk"], step["judged_good"]
    return f"{caught:6.2f} % of {judged[0]:<6} {wrong:6.3f} % of {judged[1]} ({step['false_positives']})"


def _list(title: str, found: list[tuple[float, Any]]) -> None:
    if found:
        say(title)
    for score, letter in found[:_MOST_LISTED]:
        day = time.strftime("%Y-%m-%d", time.gmtime(letter.when)) if 0 < letter.when < 4e9 else "no date   "
        say(f"  {score:5.1f}  {day}  {plain(letter.subject) or '(no subject)'}")
    if len(found) > _MOST_LISTED:
        say(f"  and {len(found) - _MOST_LISTED} more; --json has all")


# --- status


def status(client: Client, out: Output, given: Arguments) -> int:
    """junk status: exit 1 where an account is named that is not there."""
    answer = client.ask("GET", "/junk", account=given.account)
    rows = [
        (
            one["account"], str(one["junk"]), str(one["good"]), str(one["known"]),
            "yes" if one["used"] else f"from {one['least']} of each",
            f"{time_text(one['made'])}, {size_text(one['octets'])}" if one["made"] else "none yet",
        )
        for one in answer["accounts"]
    ]  # fmt: skip
    head = ("account", "junk", "good", "known senders", "words count", "model")
    out.table(answer, head, rows, "no account has sorted anything yet")
    return 0
