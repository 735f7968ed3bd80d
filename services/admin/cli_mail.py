"""`mailstead queue|trace|send-test|ban|status|first-login`: what becomes of mail, and how everything is."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from services.admin.cli_client import Client, Failed, Output, Usage, plain, say, segment, size_text, time_text

Arguments = argparse.Namespace
TEST_SECONDS = 20.0
# `bootstrap.py` writes them; importing it would load the directory for two names.
ADDRESS_FILE, PASSWORD_FILE = "first-administrator", "first-password"
# Events that say what became of a test message, at least for now.
ENDS = {"delivered", "bounced", "dropped"}


# --- queue -----------------------------------------------------------------------------------------------------------


def queue_list(client: Client, out: Output, given: Arguments) -> None:
    """queue list."""
    answer = client.ask("GET", "/queue", limit=given.limit)
    if out.as_json or not answer["messages"]:
        out.answer(answer, "nothing waits to be sent")
        return
    for message in answer["messages"]:
        _tell_message(message)


def queue_show(client: Client, out: Output, given: Arguments) -> None:
    """queue show: one message and every attempt."""
    message = client.ask("GET", f"/queue/{segment(given.id)}")
    if out.as_json:
        out.answer(message)
        return
    _tell_message(message)
    for attempt in message.get("history", []):
        say(f"    {time_text(attempt['at'])}  {attempt['address']}  {attempt['remote']}: {attempt['outcome']}")
        say(f"        {attempt['reply']}")


def _tell_message(message: dict[str, Any]) -> None:
    sender, state = message["sender"] or "(bounce)", f"  {message['state']}" if message.get("state") else ""
    say(f"{message['id']}  {time_text(message['created'])}  {size_text(message['size'])}  {sender}{state}")
    for recipient in message["recipients"]:
        due = f", next {time_text(recipient['next'])}" if recipient.get("next") else ""
        say(f"    {recipient['address']}: {recipient['state']}, {recipient['attempts']} attempts{due}")
        if recipient.get("last_reply"):
            say(f"        {recipient['last_reply']}")


def queue_change(client: Client, out: Output, given: Arguments) -> None:
    """queue retry, hold, release, drop."""
    for_all = {"retry": "everything is tried again now", "release": "everything goes on its way"}
    if getattr(given, "all", False):
        if given.id:
            raise Usage("an id, or --all")
        out.answer(client.ask("POST", f"/queue/{given.verb}"), for_all[given.verb])
        return
    if not given.id:
        raise Usage("which one? its id, as 'scripts/mailstead queue list' shows it, or --all")
    words = {
        "retry": "is tried again now",
        "hold": "is held back",
        "release": "goes on its way",
        "drop": "is dropped: it is not sent, and nobody is told",
    }
    if given.verb == "drop":
        answer = client.ask("DELETE", f"/queue/{segment(given.id)}")
    else:
        answer = client.ask("POST", f"/queue/{segment(given.id)}/{given.verb}")
    out.answer(answer, f"{given.id} {words[given.verb]}")


# --- trace -----------------------------------------------------------------------------------------------------------


def trace(client: Client, out: Output, given: Arguments) -> int:
    """trace: exit 1 where nothing is recorded."""
    if not given.query.strip():
        raise Usage("of what? an address, a Message-ID, an id out of a reply, or an IP address")
    answer = client.ask("GET", "/trace", query=given.query, limit=given.limit, fresh="true")
    if out.as_json:
        out.answer(answer)
    elif not answer["stories"]:
        print(f"mailstead: nothing is recorded of {plain(given.query)}", file=sys.stderr)
    for number, story in enumerate(answer["stories"] if not out.as_json else []):
        if number:
            say("")
        _tell(story)
    return 0 if answer["events"] else 1


def _tell(story: dict[str, Any]) -> None:
    if story["kind"] == "message":
        who = f"{story.get('sender') or '(bounce)'} → {', '.join(story['recipients']) or '-'}"
        identity = f"  {story['message_id']}" if story.get("message_id") else ""
        say(f"message {story['trace']}  {who}{identity}")
    elif story["kind"] == "connection":
        say(f"connection {story['trace']}  from {story.get('peer', '-')}")
    else:
        say(f"note {story['trace'] or '-'}")
    for event in story["events"]:
        _tell_event(event)


def _tell_event(event: dict[str, Any]) -> None:
    stamp = time.strftime("%m-%d %H:%M:%S", time.localtime(event["t"] / 1e6)) + f".{event['t'] // 1000 % 1000:03d}"
    outcome = event["outcome"] if event["outcome"] != "info" else ""
    say(f"  {stamp}  {event['room']:8}  {event['kind']:11}  {outcome:6}  {event['text']}".rstrip())


def send_test(client: Client, out: Output, given: Arguments) -> int:
    """send-test: sends a message and follows it; exit 1 where it came back."""
    sent = client.ask("POST", "/test-message", {"to": given.to, "sender": given.sender})
    deadline = time.monotonic() + (0 if given.no_wait else TEST_SECONDS)
    while True:
        answer = client.ask("GET", "/trace", query=sent["trace"], limit=1, fresh="true")
        # The attempt says what the next server answered; a local mailbox or a bounce is the end of the story.
        events = [event for event in answer["events"] if event["trace"] == sent["trace"]]
        ended = [event for event in events if event["kind"] in ENDS or event["kind"] == "attempt"]
        local = any(event["kind"] == "attempt" and event["outcome"] == "info" for event in ended)
        if (ended and not local) or time.monotonic() >= deadline:
            break
        time.sleep(0.3)
    if out.as_json:
        out.answer({**sent, "events": answer["events"]})
    else:
        say(f"sent to {sent['to']}; its trace is {sent['trace']}")
        for story in answer["stories"]:
            _tell(story)
        if not ended:
            say(f"it is still on its way: scripts/mailstead trace {sent['trace']}")
    failed = any(event["kind"] in ("bounced", "dropped") or event["outcome"] == "reject" for event in ended)
    return 1 if failed else 0


# --- bans, status, first log-in --------------------------------------------------------------------------------------


def ban_list(client: Client, out: Output, given: Arguments) -> None:
    """ban list."""
    answer = client.ask("GET", "/bans")
    rows = [
        (each["key"], str(each.get("kind", "")), time_text(each.get("until")), str(each.get("reason", "")),
         ", ".join(each["rooms"]))
        for each in answer["bans"]
    ]  # fmt: skip
    out.table(answer, ("WHO", "KIND", "UNTIL", "WHY", "WHERE"), rows, "nobody is banned")
    out.notes(answer)


def ban_del(client: Client, out: Output, given: Arguments) -> None:
    """ban del."""
    answer = client.ask("DELETE", f"/bans/{segment(given.key)}")
    out.answer(answer, f"{given.key} may log in again")
    out.notes(answer)


def status(client: Client, out: Output, given: Arguments) -> int:
    """status: exit 1 where mail does not flow."""
    answer = client.ask("GET", "/status")
    lines = [answer["sentence"], ""]
    for room in answer["rooms"]:
        lines.append(f"  {room['room']:9} {room['state']}")
        lines += [f"            {problem}" for problem in room["problems"]]
    queue, certificate = answer["queue"], answer["certificate"]
    lines += ["", f"  queue       {queue['error'] or str(queue['messages']) + ' messages'}"]
    if judged := answer.get("judged"):
        words = {"accept": "delivered", "junk": "junk", "defer": "put off", "reject": "refused"}
        told = ", ".join(f"{count} {words.get(outcome, outcome)}" for outcome, count in judged.items())
        lines.append(f"  mail in     {told}, in the last day")
    if certificate.get("error"):
        lines.append(f"  certificate {certificate['error']}")
    else:
        lines.append(f"  certificate {certificate.get('mode', '')}, until {time_text(certificate.get('not_after'))}")
    lines.append(f"  directory   {answer['accounts']} accounts in {', '.join(answer['domains'])}")
    lines += [f"  mailbox     {each['address']} is {each['percent']} % full" for each in answer["full"]]
    lines += [f"  {each['service']:11} {each['state']} {each['health']}".rstrip() for each in _containers(answer)]
    lines += _images(answer["updates"].get("images", []))
    if answer["owed"]:
        lines.append(f"  not done yet: {answer['owed']}")
    out.answer(answer, *lines)
    return 1 if answer["state"] == "down" else 0


def _containers(answer: Any) -> list[dict[str, Any]]:
    containers: list[dict[str, Any]] = answer["updates"].get("containers", [])
    rooms = {room["room"] for room in answer["rooms"]}
    # `setup` ends by itself before the others start.
    return [each for each in containers if each["service"] not in rooms and each["service"] != "setup"]


def _images(images: list[dict[str, Any]]) -> list[str]:
    """A line per state, and one for each image with an error: thirteen that are all well are one line."""
    services: dict[str, list[str]] = {}
    for each in images:
        if not each["error"]:
            services.setdefault(each["state"], []).append(each["service"])
    whose = {state: ", ".join(names) if len(services) > 1 else "all" for state, names in services.items()}
    lines = [f"  images      {state}: {whose[state]}" for state in services]
    return lines + [f"  image of {each['service']}: {each['error']}" for each in images if each["error"]]


def first_login(client: Client, out: Output, given: Arguments) -> None:
    """first-login: from the files beside the databases, so that it works while the room starts."""
    address, password = (_line(os.path.join(client.admin_dir, name)) for name in (ADDRESS_FILE, PASSWORD_FILE))
    if not address:
        raise Failed("no first administrator was made here yet")
    answer = {"address": address, "password": password or None, "changed": not password}
    if not password:
        changed = f"{address} has a password of their own already"
        out.answer(answer, f"Log in as {changed}; to set another: scripts/mailstead account password {address}")
        return
    out.answer(
        answer,
        f"Log in as:    {address}",
        f"Password:     {password}",
        "It is for the admin page and for a mail client alike. It is shown until it is changed: on the page under "
        f"Accounts, or by 'scripts/mailstead account password {address}'.",
    )


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise Failed(f"{path} cannot be read: {error}") from None
