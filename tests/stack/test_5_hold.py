"""The stack while an update is under way, over its real networks: what the updater asks of admin is asked from its room."""

import json
from collections.abc import Iterator
from typing import Any

import mailclients
import pytest
from mailclients import ImapLine, LetterRefused, letter, until
from stack import Stack, must

HELD = "4.3.2 an update is running, try again in a minute"
# Runs inside the updater, whose network and secret admin knows it by.
ASK = """
import asyncio, json, sys
from services.runtime.internal_http import Client
from services.runtime.secrets import Secrets
client = Client('updater', Secrets('/run/mailstead/secrets'), 'admin', 'http://admin:8000', timeout=40)
print(json.dumps(asyncio.run(client.post('/v1/update/' + sys.argv[1], json.loads(sys.argv[2]))).json()))
"""


def ask(stack: Stack, verb: str, **body: Any) -> Any:
    return json.loads(must(stack.execute("updater", "python3", "-I", "-c", ASK, verb, json.dumps(body))))


@pytest.fixture
def held(stack: Stack, ann: str) -> Iterator[str]:
    """The id of an update that holds the stack."""
    assert ask(stack, "snapshot", id="h1")["id"] == "h1"
    assert ask(stack, "hold", id="h1", seconds=300) == {"held": ["smtp-in", "smtp-out", "imap"], "away": []}
    yield "h1"
    ask(stack, "release", id="h1")
    ask(stack, "settled", id="h1", outcome="rolled-back")


def refused(stack: Stack, sender: str, recipient: str, message: bytes) -> tuple[int, str]:
    with pytest.raises(LetterRefused) as refusal:
        stack.receive(sender, recipient, message=message)
    return refusal.value.code, refusal.value.text


def test_mail_flows_says_the_gate(stack: Stack) -> None:
    done = stack.script("mailstead", "gate")
    assert done.status == 0, done.output
    assert done.output.startswith("mail flows\n")


def test_held_the_world_waits_the_gate_passes_and_afterwards_all_flows(stack: Stack, ann: str, held: str) -> None:
    sent = letter("friend@outside.test", ann)
    assert refused(stack, "friend@outside.test", ann, sent.message) == (421, HELD)
    with pytest.raises(LetterRefused) as submission:
        stack.submit(ann, "friend@outside.test", message=sent.message)
    assert (submission.value.code, submission.value.text) == (421, HELD)
    client = ImapLine(stack.ports["imaps"])
    assert client.greeting.startswith(b"* BYE [UNAVAILABLE] an update is running")
    client.close()
    change = stack.script("mailstead", "domain", "add", "closed.example.org")
    assert change.status == 1 and "an update is running" in change.output

    # Each successor starts held, and admin's tells the others where the gate comes from now.
    for service in ("smtp-in", "smtp-out", "imap", "dkim", "admin"):
        must(stack.compose("restart", service))
    report = until(lambda: gate(stack, held), 60)
    assert report["passed"], report
    assert refused(stack, "friend@outside.test", ann, sent.message) == (421, HELD)

    ask(stack, "release", id=held)
    stack.receive("friend@outside.test", ann, message=sent.message)
    assert stack.letter(ann, sent.message_id)
    outward = letter(ann, "friend@outside.test")
    stack.submit(ann, "friend@outside.test", message=outward.message)
    assert stack.arrived_outside(outward.message_id)


def gate(stack: Stack, identity: str) -> Any:
    """The gate's report, None while admin is just starting."""
    done: mailclients.Outcome = stack.execute(
        "updater", "python3", "-I", "-c", ASK, "gate", json.dumps({"id": identity})
    )
    return json.loads(done.output) if done.status == 0 else None
