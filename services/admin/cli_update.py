"""`mailstead update ...` and `mailstead gate`: newer images, and whether mail flows."""

from __future__ import annotations

import argparse
import time
from typing import Any

from services.admin.cli_client import Client, Output, say, time_text

Arguments = argparse.Namespace

OUTCOMES = {
    "committed": "stayed", "rolled-back": "went back", "failed": "failed", "nothing": "nothing to do",
}  # fmt: skip


def update_status(client: Client, out: Output, given: Arguments) -> None:
    """update status."""
    answer = client.ask("GET", "/update/status")
    lines = []
    if run := answer["run"]:
        lines.append(
            f"the update {run['id']} is under way: {run['step'] or run['state']}, since {_clock(run['since'])}"
        )
        lines += [f"  {line}" for line in _steps(run["steps"])]
    if answer["held"]:
        lines.append("mail waits for it: everybody is told to come back in a minute")
    if answer["mode"]:
        lines.append(f"mode: {answer['mode']}")
    lines.append(f"looked {time_text(answer['checked'])}, next {time_text(answer['next'])}")
    if answer["error"]:
        lines.append(f"problem: {answer['error']}")
    lines += [f"  {each['service']:13} {each['state']} {each['error']}".rstrip() for each in answer["images"]]
    out.answer(answer, *lines)


def update_check(client: Client, out: Output, given: Arguments) -> None:
    """update check."""
    answer = client.ask("POST", "/update/check")
    out.answer(answer, "the images are being compared; the answer: mailstead update status")


def update_run(client: Client, out: Output, given: Arguments) -> None:
    """update run, also --dry-run."""
    asked = {"dry": given.dry_run, "local": given.local, "services": given.service or None}
    answer = client.ask("POST", "/update/run", asked)
    if given.dry_run:
        rows = [(each["service"], each["action"], _short(each["current"]), _short(each["wanted"]), each["reason"])
                for each in answer["plan"]]  # fmt: skip
        out.table(answer, ("SERVICE", "WOULD", "FROM", "TO", "WHY"), rows, "nothing would be done")
        return
    out.answer(
        answer,
        f"the update {answer['id']} has begun; this service is replaced with the others and is away for some seconds",
        "how it goes: mailstead update status; what came of it: mailstead update history",
    )


def update_rollback(client: Client, out: Output, given: Arguments) -> None:
    """update rollback."""
    answer = client.ask("POST", "/update/rollback")
    out.answer(answer, f"going back to the images before the last update ({answer['id']}): mailstead update status")


def update_history(client: Client, out: Output, given: Arguments) -> None:
    """update history."""
    answer = client.ask("GET", "/update/history")
    answer["updates"] = answer["updates"][: given.limit]
    if out.as_json or not answer["updates"]:
        out.answer(answer, "there was no update yet")
        return
    for entry in answer["updates"]:
        outcome = OUTCOMES.get(entry["outcome"], entry["outcome"])
        closed = f", mail waited {entry['seconds_closed']:.1f} s" if entry["seconds_closed"] else ""
        say(f"{time_text(entry['started'])}  {entry['id']}  {outcome}{closed}  {', '.join(entry['services'])}".rstrip())
        if entry["reason"]:
            say(f"    {entry['reason']}")
        for line in _steps(entry["steps"]) if given.steps else []:
            say(f"    {line}")


def gate(client: Client, out: Output, given: Arguments) -> int:
    """gate: exit 1 where mail does not flow."""
    answer = client.ask("POST", "/update/gate")
    lines = ["mail flows" if answer["passed"] else "mail does not flow"]
    for each in answer["steps"]:
        what = each["outcome"] if not each["reason"] else f"{each['outcome']}: {each['reason']}"
        lines.append(f"  {each['step']:9} {each['seconds']:6.2f} s  {what}")
    out.answer(answer, *lines)
    return 0 if answer["passed"] else 1


def _steps(steps: list[dict[str, Any]]) -> list[str]:
    return [f"{_clock(each['at'])}  {each['step']}  {each['outcome']}  {each['reason']}".rstrip() for each in steps]


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds)) if seconds else "-"


def _short(image: str) -> str:
    """A digest in a table: twelve of its characters tell two apart."""
    return image[:19] if image.startswith("sha256:") else image
