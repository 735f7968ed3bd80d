"""A person's own junk on the page: listed with its reasons, moved by a button, and no stranger's text is more than text."""

from __future__ import annotations

import json
import re

import pytest
from admin_room import ADMIN, PASSWORD, PeerSaid, log_in

ANNA = "anna@example.test"
HOSTILE = '<script>alert(1)</script>" onmouseover="x\u202egpj.exe\u0007' + "長" * 10_000


@pytest.fixture
def anna(admin_room, api):
    """Anna's browser, one message in her Junk of which the record knows why, one in her inbox."""
    api.post("/accounts", json={"address": ANNA, "password": PASSWORD})
    letter = {"uid": 7, "from": "Bob <bob@else.example>", "subject": "Cheap <b>pills</b>", "preview": "buy",
              "message_id": "<1@else.example>", "sent": 1, "received": 1_700_000_000, "size": 99}  # fmt: skip
    hostile = {**letter, "uid": 8, "from": HOSTILE, "subject": HOSTILE, "preview": HOSTILE, "message_id": HOSTILE}
    answers = admin_room.peers.answers

    async def ask(room, method, path, value=None, *, query=None):
        if path == f"/v1/accounts/{ANNA}/recent":
            admin_room.peers.asked.append((room, method, path, query))
            kept = [letter, hostile] if query["place"] == "junk" else [{**letter, "uid": 3, "message_id": "<x@y>"}]
            return {"mailbox": "Junk", "uidvalidity": 12, "count": 60, "messages": kept}
        return await type(admin_room.peers).ask(admin_room.peers, room, method, path, value, query=query)

    admin_room.peers.ask = ask
    now = int(admin_room.context.clock() * 1e6)
    common = {"t": now, "trace": "mj", "message_id": "<1@else.example>", "conn": "cj"}
    lines = [
        {**common, "kind": "data", "outcome": "junk", "score": 6.2, "sender": "bob@else.example",
         "reasons": ["spf-fail|4.2|198.51.100.4 may not send for else.example", "bayes|2|like junk"]},
        {**common, "t": now + 1, "kind": "delivered", "outcome": "junk", "account": ANNA, "mailbox": "Junk",
         "score": 7.2, "reasons": ["bayes|3|like 40 of 41"]},
    ]  # fmt: skip
    path = admin_room.folder / "events" / "smtp-in" / "00000000000000055.jsonl"
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in lines)
    with admin_room.client(auth=None) as client:
        assert log_in(client, ANNA).status_code == 303
        yield client
    del admin_room.peers.ask
    assert admin_room.peers.answers is answers


def press(client, **fields):
    form_token = re.search(r'name="form_token" value="(\w+)"', client.get("/me/junk").text)[1]
    return client.post("/me/junk", data={"form_token": form_token, **fields})


def test_what_lies_in_junk_and_why(anna):
    shown = anna.get("/me/junk").text
    assert "Cheap &lt;b&gt;pills&lt;/b&gt;" in shown and "<b>pills" not in shown
    assert "score 7.2" in shown and "+4.2" in shown and "198.51.100.4 may not send for else.example" in shown
    assert "+3.0" in shown and "+2.0" not in shown, "the account's own judgement takes the general one's place"
    assert "The newest 2 of 60" in shown and "SPF_FAIL" not in shown, "settings are the administrator's"


def test_a_hostile_subject_is_text_and_short(anna):
    shown = anna.get("/me/junk").text
    assert "<script>alert" not in shown and "\u202e" not in shown and "\u0007" not in shown
    assert '" onmouseover="' not in shown and len(shown) < 40_000
    assert max(len(found) for found in re.findall(r"長+", shown)) < 1000


def test_not_junk_and_junk(admin_room, anna):
    answer = press(anna, action="not-junk", uid="7", uidvalidity="12", message_id="<1@else.example>")
    assert (answer.status_code, answer.headers["location"]) == (303, "/me/junk")
    named = {"uidvalidity": 12, "uid": 7, "message_id": "<1@else.example>"}
    assert ("imap", "POST", f"/v1/accounts/{ANNA}/not-junk", named) in admin_room.peers.asked
    assert "It is in the inbox now" in anna.get("/me/junk").text
    assert press(anna, action="junk", uid="3", uidvalidity="12").status_code == 303
    assert "It is in Junk now" in anna.get("/me/junk").text


def test_what_cannot_be_done_is_said(admin_room, anna):
    gone = PeerSaid(404, "imap: the message is not there any more")
    admin_room.peers.answers["imap", "POST", f"/v1/accounts/{ANNA}/not-junk"] = gone
    press(anna, action="not-junk", uid="9" * 30, uidvalidity="x")
    assert "the message is not there any more" in anna.get("/me/junk").text
    press(anna, action="burn", uid="7")
    assert "Nothing was chosen." in anna.get("/me/junk").text
    admin_room.peers.away.add("imap")
    assert anna.post("/me/junk", data={"action": "junk", "uid": "7"}).status_code == 403, "without the form's token"


def test_another_account_cannot_be_named(admin_room, anna):
    press(anna, action="junk", uid="7", uidvalidity="12", address=ADMIN, account=ADMIN)
    asked = [path for room, _, path, _ in admin_room.peers.asked if path.startswith("/v1/accounts/")]
    assert asked and all(path.startswith(f"/v1/accounts/{ANNA}/") for path in asked)


def test_imap_away(admin_room, api):
    admin_room.peers.away.add("imap")
    with admin_room.client(auth=None) as client:
        log_in(client)
        answer = client.get("/me/junk")
        assert answer.status_code == 503 and "imap does not answer" in answer.text
