"""The Rules page: each button and form makes the script that it says, and loses nothing that was there."""

from __future__ import annotations

import html
import re

import pytest
from admin_room import ADMIN, PASSWORD, PeerSaid, log_in

from services.admin.rules import Note, Rule, Rules, read, write

ANNA = "anna@example.test"
OWN = 'require "fileinto";\nif header :contains "subject" "x" { fileinto "X"; }\n'
PATH = f"/v1/accounts/{ANNA}/sieve"


class Kept:
    """The imap room's scripts of Anna."""

    def __init__(self, peers) -> None:
        self.scripts: dict[str, str] = {}
        self.active = ""
        self.peers, self.refusal = peers, None
        self.asked: list[str] = []

    async def ask(self, room, method, path, value=None, *, query=None):
        if not path.startswith("/v1/accounts/"):
            return await type(self.peers).ask(self.peers, room, method, path, value, query=query)
        if room in self.peers.away:
            return await type(self.peers).ask(self.peers, room, method, path, value, query=query)
        assert path.startswith(PATH), "nobody else's"
        self.asked.append(f"{method} {path}")
        name = path.removeprefix(PATH).strip("/").removesuffix("/activate")
        if path == PATH:
            return {"scripts": [{"name": each, "active": each == self.active} for each in self.scripts]}
        if method == "POST":
            assert path.endswith("/activate")
            self.active = name
            return {}
        if method == "PUT":
            if self.refusal:
                raise self.refusal
            self.scripts[name] = value
            return {"name": name}
        return {"name": name, "content": self.scripts[name], "problems": []}

    @property
    def now(self) -> Rules:
        return read(self.scripts[self.active])


@pytest.fixture
def kept(admin_room, api):
    found = Kept(admin_room.peers)
    admin_room.peers.ask = found.ask
    api.post("/accounts", json={"address": ANNA, "password": PASSWORD})
    yield found
    del admin_room.peers.ask


@pytest.fixture
def anna(admin_room, kept):
    with admin_room.client(auth=None) as client:
        assert log_in(client, ANNA).status_code == 303
        yield client


def press(client, **fields):
    shown = client.get("/me/rules").text
    hidden = {name: re.search(rf'name="{name}" value="(\w+)"', shown)[1] for name in ("form_token", "version")}
    return client.post("/me/rules", data={**hidden, **fields})


RULE = {"where": "from", "text": "bob", "then": "move", "argument": "Bob"}


def test_a_first_rule_makes_an_active_script(anna, kept, admin_room):
    assert "No rules yet" in anna.get("/me/rules").text
    assert press(anna, action="add", **RULE).headers["location"] == "/me/rules"
    assert kept.active == "rules" and kept.now.rules == (Rule("from", "bob", "move", "Bob"),)
    shown = anna.get("/me/rules").text
    assert "Saved." in shown and "<b>From</b> contains “<bdi" in shown and "Bob" in shown
    changed = [event for event in admin_room.recorded() if event["kind"] == "admin-change"][-1]
    assert changed["by"] == ANNA and changed["reason"] == f"filter rules of {ANNA} changed"


def test_order_switch_change_and_delete(anna, kept):
    kept.scripts, kept.active = (
        {"mine": write(Rules(tuple(Rule("to", f"t{n}", "keep") for n in range(3)), own=OWN))},
        "mine",
    )
    press(anna, action="down", n="1")
    assert [rule.text for rule in kept.now.rules] == ["t1", "t0", "t2"]
    press(anna, action="up", n="3")
    assert [rule.text for rule in kept.now.rules] == ["t1", "t2", "t0"]
    press(anna, action="up", n="1")
    press(anna, action="toggle", n="1")
    assert [rule.on for rule in kept.now.rules] == [False, True, True]
    assert "switched off" in anna.get("/me/rules").text
    press(anna, action="change", n="1", **RULE)
    assert kept.now.rules[0] == Rule("from", "bob", "move", "Bob", on=False)
    press(anna, action="delete", n="2")
    assert [rule.text for rule in kept.now.rules] == ["bob", "t0"] and kept.now.own == OWN
    for odd in (
        {"action": "delete", "n": "9"},
        {"action": "delete"},
        {"action": "delete", "n": "-1"},
        {"action": "burn", "n": "1"},
        {},
    ):
        assert press(anna, **odd).status_code == 422
    assert len(kept.now.rules) == 2 and kept.active == "mine"


def test_an_absence_note(anna, kept):
    fields = {"on": "on", "since": "2026-12-24", "until": "2027-01-06", "subject": "Away", "note": "Back\r\nsoon."}
    press(anna, action="note", **fields)
    assert kept.now.note == Note(True, "2026-12-24", "2027-01-06", "Away", "Back\nsoon.")
    shown = anna.get("/me/rules").text
    assert 'value="2026-12-24"' in shown and "Back\nsoon.</textarea>" in shown and "checked" in shown
    press(anna, action="note", **{name: value for name, value in fields.items() if name != "on"})
    assert kept.now.note.on is False and kept.now.note.text == "Back\nsoon.", "kept for the next time"


def test_what_is_wrong_stands_beside_its_field_and_keeps_what_was_typed(anna, kept):
    answer = press(anna, action="add", where="subject", text="deal & <b>", then="move", argument="")
    assert answer.status_code == 422 and "Into which folder?" in answer.text and "deal &amp; &lt;b&gt;" in answer.text
    assert 'aria-invalid="true" aria-describedby="e-argument" autofocus' in answer.text and not kept.scripts
    assert '<option value="subject" selected>' in answer.text
    answer = press(anna, action="note", on="on", since="2026-12-24", until="2026-12-01", note="x")
    assert "The last day is before the first." in answer.text and 'value="2026-12-01"' in answer.text


def test_a_script_by_hand_with_its_mistakes_by_line(anna, kept):
    press(anna, action="add", **RULE)
    answer = press(anna, action="own", own='keep;\r\nfileinto "X";\r\nnonsense "<b>";')
    assert answer.status_code == 422
    assert "line 2" in answer.text and "line 3" in answer.text and "nonsense &#34;&lt;b&gt;&#34;;" in answer.text
    assert kept.now.own == ""
    press(anna, action="own", own=OWN.replace("\n", "\r\n"))
    assert kept.now.own == OWN and len(kept.now.rules) == 1
    assert html.escape(OWN.splitlines()[0], quote=True).replace("&quot;", "&#34;") in anna.get("/me/rules").text
    press(anna, action="own", own="  \r\n ")
    assert kept.now.own == ""


def test_two_windows_do_not_write_over_each_other(anna, kept):
    shown = anna.get("/me/rules").text
    hidden = {name: re.search(rf'name="{name}" value="(\w+)"', shown)[1] for name in ("form_token", "version")}
    press(anna, action="add", **RULE)
    answer = anna.post("/me/rules", data={**hidden, "action": "add", **RULE})
    assert answer.status_code == 422 and "changed meanwhile" in answer.text and len(kept.now.rules) == 1


def test_a_part_changed_by_hand_is_said(anna, kept):
    kept.scripts = {"mine": write(Rules((Rule("from", "bob", "keep"),))).replace("keep;", "discard;")}
    kept.active = "mine"
    assert "by hand" in anna.get("/me/rules").text


def test_what_imap_refuses_is_told(anna, kept, admin_room):
    kept.refusal = PeerSaid(422, "imap: line 1, column 1: no")
    answer = press(anna, action="add", **RULE)
    assert answer.status_code == 503 and "line 1, column 1: no" in answer.text
    admin_room.peers.away.add("imap")
    assert "imap does not answer" in anna.get("/me/rules").text
    assert anna.post("/me/rules", data={"action": "add"}).status_code == 403


def test_only_ones_own(anna, kept):
    press(anna, action="add", address=ADMIN, account=ADMIN, **RULE)
    assert kept.asked and all(ANNA in each for each in kept.asked)


def test_no_more_than_fifty(anna, kept):
    kept.scripts, kept.active = {"mine": write(Rules(tuple(Rule("to", f"t{n}", "keep") for n in range(50))))}, "mine"
    assert "better written by hand" in press(anna, action="add", **RULE).text
