"""Stories: what the owner sees for an address, a Message-ID, an id, an IP address."""

from __future__ import annotations

import pytest

from services.admin.event_lines import query_terms, terms_of
from services.admin.stories import find_stories, flat, sentence, sentences

MESSAGE, CONNECTION, LMTP, OTHER = "m" * 16, "c" * 16, "k" * 16, "z" * 16


def told(*events):
    """A lookup over `events`, each `(t, room, kind, trace, fields)`."""
    rows = []
    for number, (t, room, kind, trace, fields) in enumerate(events, 1):
        event = {"id": number, "t": t, "room": room, "kind": kind, "trace": trace, "outcome": "info", **fields}
        rows.append((terms_of(event), event))

    def find(terms, limit):
        found = [event for has, event in rows if has & set(terms)][-limit:]
        return sorted(found, key=lambda event: (event["t"], event["id"]))

    return find


RECORD = told(
    (1, "smtp-in", "connect", CONNECTION, {"peer": "192.0.2.1"}),
    (2, "smtp-in", "helo", CONNECTION, {"helo": "mx.example.net"}),
    (3, "smtp-in", "mail", MESSAGE, {"conn": CONNECTION, "sender": "bob@else.example", "peer": "192.0.2.1"}),
    (4, "smtp-in", "rcpt", MESSAGE, {"conn": CONNECTION, "recipient": "anna@family.example", "outcome": "accept"}),
    (5, "smtp-in", "data", MESSAGE, {"conn": CONNECTION, "message_id": "<1.A@else.example>", "size": 99}),
    (7, "smtp-in", "disconnect", CONNECTION, {"peer": "192.0.2.1"}),
    (6, "smtp-in", "delivered", MESSAGE, {"recipient": "anna@family.example", "outcome": "accept", "account": "anna@family.example"}),
    (8, "imap", "idle-notified", MESSAGE, {"account": "anna@family.example"}),
    (9, "smtp-in", "connect", OTHER, {"peer": "192.0.2.66"}),
    (10, "smtp-in", "disconnect", OTHER, {"peer": "192.0.2.66", "reason": "said nothing"}),
    (11, "admin", "bug", "", {"reason": "a fault of ours", "account": "carl@family.example"}),
)  # fmt: skip


@pytest.mark.parametrize(
    "query",
    ["anna@family.example", " ANNA@Family.Example ", "<anna@family.example>", "bob@else.example", "<1.A@else.example>",
     "1.a@ELSE.example", MESSAGE, CONNECTION, "192.0.2.1", "192.0.2.1:25", "::ffff:192.0.2.1"],
)  # fmt: skip
def test_a_message_is_found_by_whatever_is_known_of_it(query):
    (story,) = find_stories(query, RECORD)
    assert (story.trace, story.kind) == (MESSAGE, "message")
    assert [event["t"] for event in story.events] == [1, 2, 3, 4, 5, 6, 7, 8]
    summary = story.summary()
    assert summary["sender"] == "bob@else.example" and summary["recipients"] == ["anna@family.example"]
    assert (summary["outcome"], summary["result"], summary["peer"]) == ("accept", "delivered", "192.0.2.1")


def test_a_connection_without_a_message_is_a_story():
    (story,) = find_stories("192.0.2.66", RECORD)
    assert (story.kind, story.trace, len(story.events)) == ("connection", OTHER, 2)


def test_events_without_a_trace_are_told():
    (story,) = find_stories("carl@family.example", RECORD)
    assert story.kind == "note"
    assert story.events[0]["kind"] == "bug"


@pytest.mark.parametrize("query", ["", "   ", "nobody@family.example", "x" * 10_000, "%", "'", "\0", "<>", "@"])
def test_nothing_found(query):
    assert find_stories(query, RECORD) == []


def test_newest_first_and_limited():
    find = told(*((n, "smtp-in", "rcpt", f"t{n:015}", {"recipient": "a@x.example"}) for n in range(50)))
    stories = find_stories("a@x.example", find, limit=5)
    assert [story.events[0]["t"] for story in stories] == [49, 48, 47, 46, 45]
    assert [event["t"] for event in flat(stories)] == [45, 46, 47, 48, 49]


def test_a_message_of_our_own_making_is_a_message():
    """A bounce comes by no connection."""
    find = told((1, "smtp-out", "queued", MESSAGE, {"queue_id": "q1", "recipients": ["a@x.example"]}))
    (story,) = find_stories("a@x.example", find)
    assert story.kind == "message"


def test_two_messages_on_one_connection_share_its_events():
    find = told(
        (1, "smtp-in", "connect", CONNECTION, {"peer": "192.0.2.1"}),
        (2, "smtp-in", "rcpt", MESSAGE, {"conn": CONNECTION, "recipient": "a@x.example"}),
        (3, "smtp-in", "rcpt", OTHER, {"conn": CONNECTION, "recipient": "b@x.example"}),
    )
    for query in ("192.0.2.1", CONNECTION):
        stories = find_stories(query, find)
        assert [story.trace for story in stories] == [OTHER, MESSAGE]
        assert [event["t"] for event in flat(stories)] == [1, 2, 3]
        assert [story.trace for story in find_stories(query, find, limit=1)] == [OTHER]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"peer": "192.0.2.1", "helo": "mx"}, "peer 192.0.2.1 · helo mx"),
        ({"recipient": "a@x", "reply": "550 5.1.1 no", "reason": "unknown"}, "recipient a@x → 550 5.1.1 no (unknown)"),
        ({"reason": "said nothing"}, "said nothing"),
        ({"recipients": ["a@x", "b@x"]}, "recipients a@x, b@x"),
        ({"conn": "c", "detail": "traceback"}, ""),
    ],
)
def test_sentence(event, words):
    assert sentence({"t": 1, "room": "x", "kind": "y", "trace": "z", "outcome": "info", "id": 1, **event}) == words


def test_a_story_says_each_thing_once():
    told = [
        {"kind": "mail", "peer": "192.0.2.1", "sender": "a@x", "tls": False},
        {"kind": "rcpt", "peer": "192.0.2.1", "sender": "a@x", "recipient": "b@x", "reply": "250 ok"},
        {"kind": "data", "peer": "192.0.2.1", "sender": "a@x", "recipients": ["b@x"], "size": 5, "reply": "250 ok"},
        {"kind": "delivered", "recipient": "b@x", "size": 5},
        {"kind": "rcpt", "sender": "z@x", "once": True},
    ]
    assert sentences(told) == [
        "peer 192.0.2.1 · sender a@x",
        "recipient b@x → 250 ok",
        "size 5 → 250 ok",
        "recipient b@x",
        "sender z@x · once",
    ]


@pytest.mark.parametrize(
    ("query", "term"),
    [
        ("anna@例子.中国", "anna@xn--fsqu00a.xn--fiqs8s"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]:25", "2001:db8::1"),
    ],
)
def test_query_forms(query, term):
    assert term in query_terms(query)


def test_the_next_attempt_is_told_as_a_time() -> None:
    told = sentence(
        {"t": 1, "trace": MESSAGE, "room": "smtp-out", "kind": "attempt", "outcome": "defer", "next": 86_400 * 366}
    )
    assert told.startswith("next 1971-01-0")
