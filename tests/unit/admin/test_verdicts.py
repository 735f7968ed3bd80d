"""What was decided lately, counted: once for each message, what does not answer, who has not come back."""

from __future__ import annotations

import json

from admin_room import log_in

from services.admin import verdicts as counting
from services.admin.verdicts import Waiting, verdicts

NOW = 1_700_000_000.0
LIST = "zen.example does not answer: time-out"


def event(ago, kind, outcome, trace="m", **fields):
    return {
        "id": 1,
        "t": int((NOW - ago) * 1e6),
        "room": "smtp-in",
        "kind": kind,
        "outcome": outcome,
        "trace": trace,
        **fields,
    }


EVENTS = [
    event(9 * 86_400, "data", "reject", "old"),
    event(900, "data", "defer", "m1", reasons=["scanner-down|0|away"]),
    event(800, "data", "junk", "m1", reasons=["spf-fail|5|a", "spf-fail|5|a", "bayes|-1|b", f"dnsbl-error|0|{LIST}"]),
    event(700, "data", "accept", "m2", reasons=["spf-pass|0|c", f"dnsbl-error|0|{LIST}"]),
    event(600, "rcpt", "reject", "m3", rules="unknown-recipient", reason="no account"),
    event(500, "data", "error", "m4"),
]


def greylisted(ago, sender="bob@x.example", recipient="anna@y.example", outcome="defer", rules="greylist"):
    return event(ago, "rcpt", outcome, f"g{ago}", sender=sender, recipient=recipient, peer="192.0.2.1", rules=rules)


def test_each_message_once_by_its_last_word():
    found = verdicts(EVENTS, NOW, 7)
    assert found.messages == {"accept": 1, "junk": 1, "defer": 0, "reject": 0} and found.refused_recipients == 1
    rules = {each.rule: each for each in found.rules}
    assert (rules["spf-fail"].messages, rules["spf-fail"].junk, rules["spf-fail"].points) == (1, 1, 5.0)
    assert rules["unknown-recipient"].refused == 1 and "scanner-down" not in rules
    assert found.rules[0].rule == "dnsbl-error", "the most frequent first"
    assert [(each.text, each.times) for each in found.list_problems] == [(LIST, 2)]
    assert found.since == NOW - 900 and found.complete


def test_nothing_and_too_much(monkeypatch):
    assert verdicts([], NOW, 7).since == 0
    monkeypatch.setattr(counting, "MOST_EVENTS", 5)
    assert not verdicts(EVENTS[1:], NOW, 7).complete
    assert verdicts(EVENTS, NOW, 7).complete, "older ones were there too"


def test_who_has_not_come_back():
    events = [
        greylisted(9000, "gone@x.example"), greylisted(8000), greylisted(7000),
        greylisted(6000, "back@x.example"), greylisted(5000, "back@x.example", outcome="accept", rules=""),
        greylisted(4000, "other@x.example"), greylisted(3000, "other@x.example", outcome="reject", rules="disabled"),
        event(100, "rcpt", "defer", sender="s@x.example", recipient="a@y.example", rules="no-directory"),
    ]  # fmt: skip
    found = verdicts(events, NOW, 7).waiting
    assert found == [
        Waiting("bob@x.example", "anna@y.example", "192.0.2.1", NOW - 8000, NOW - 7000),
        Waiting("gone@x.example", "anna@y.example", "192.0.2.1", NOW - 9000, NOW - 9000),
    ]
    assert verdicts([greylisted(2 * 86_400)], NOW, 7).waiting == [], "given up"


def test_odd_events_are_counted_without_a_fault():
    odd = [
        event(1, "data", "junk", reasons="x", rules=7),
        event(1, "rcpt", "defer", rules=None),
        event(1, "rcpt", "reject", rules=["a"]),
    ]
    assert verdicts(odd, NOW, 7).messages["junk"] == 1


def test_page_and_api(admin_room, api):
    now = admin_room.context.clock()
    lines = [{**each, "t": int(each["t"] + (now - NOW) * 1e6)} for each in (*EVENTS[1:], greylisted(60))]
    path = admin_room.folder / "events" / "smtp-in" / "00000000000000066.jsonl"
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in lines)
    answer = api.get("/verdicts", params={"days": 1}).json()
    assert answer["messages"]["junk"] == 1 and answer["waiting"][0]["sender"] == "bob@x.example"
    assert api.get("/verdicts", params={"days": 0}).status_code == 422
    with admin_room.client(auth=None) as client:
        log_in(client)
        shown = client.get("/verdicts", params={"days": "1"}).text
        assert LIST in shown and "bob@x.example → anna@y.example" in shown and "<code>spf-fail</code>" in shown
        for odd in ("x", "-1", "9" * 30, "１"):
            assert client.get("/verdicts", params={"days": odd}).status_code == 200
