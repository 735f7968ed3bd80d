"""The JSON API on a running room: every noun, every error, and what the other rooms were asked."""

from __future__ import annotations

import json

import pytest
from admin_room import ADMIN, PASSWORD, PeerSaid, token, until

from services.directory.lookup import SnapshotDirectory


def seen(admin_room, name="auth"):
    return SnapshotDirectory(str(admin_room.folder / name))


def test_account_from_birth_to_death(api, admin_room):
    made = api.post("/accounts", json={"address": "Anna@Example.test", "password": PASSWORD, "quota_bytes": 5})
    assert made.status_code == 201
    account = made.json()["account"]
    assert (account["address"], account["login"], account["quota_bytes"]) == ("anna@example.test", "anna", 5)
    assert "password" not in made.json() and made.json()["notes"] == []
    assert seen(admin_room).login("anna").password_hash.startswith("$argon2id$")
    assert ("imap", "POST", "/v1/provision", {"address": "anna@example.test"}) in admin_room.peers.asked

    assert api.post("/accounts/anna@example.test/check", json={"password": PASSWORD}).json() == {"right": True}
    assert api.post("/accounts/anna@example.test/check", json={"password": "wrong"}).json() == {"right": False}
    changed = api.patch("/accounts/ANNA@example.test", json={"enabled": False, "quota_bytes": 0, "login": "ann"}).json()
    assert not changed["account"]["enabled"] and changed["account"]["login"] == "ann"
    assert api.post("/accounts/anna@example.test/check", json={"password": PASSWORD}).json() == {"right": False}
    new = api.put("/accounts/anna@example.test/password", json={}).json()["password"]
    api.patch("/accounts/anna@example.test", json={"enabled": True})
    assert api.post("/accounts/anna@example.test/check", json={"password": new}).json() == {"right": True}

    api.post("/aliases", json={"source": "info@example.test", "target": "anna@example.test"})
    gone = api.delete("/accounts/anna@example.test").json()
    assert gone["deleted"] == "anna@example.test" and gone["purged"] is False
    assert gone["aliases_deleted"] == [{"source": "info@example.test", "target": "anna@example.test"}]
    assert ("imap", "DELETE", "/v1/mail/anna@example.test", None) in admin_room.peers.asked
    assert seen(admin_room).account("anna@example.test") is None
    listed = api.get("/accounts", params={"deleted": True}).json()["accounts"]
    assert [each["address"] for each in listed] == ["anna@example.test"]
    assert api.delete("/accounts/anna@example.test", params={"purge": True}).status_code == 200
    assert ("imap", "DELETE", "/v1/mail/anna@example.test", {"purge": "1"}) in admin_room.peers.asked
    assert api.get("/accounts", params={"deleted": True}).json()["accounts"] == []
    assert api.delete("/accounts/anna@example.test", params={"purge": True}).status_code == 404


def test_no_answer_ever_holds_a_hash(api):
    api.post("/accounts", json={"address": "anna@example.test", "password": PASSWORD})
    for path in ("/accounts", "/accounts/anna@example.test", "/status", "/domains", "/aliases"):
        assert "argon2" not in api.get(path).text


def test_accounts_show_what_imap_counts(api, admin_room):
    (account,) = api.get("/accounts").json()["accounts"]
    assert (account["used_bytes"], account["messages"]) == (3 << 20, 7)
    admin_room.peers.away.add("imap")
    (account,) = api.get("/accounts").json()["accounts"]
    assert account["used_bytes"] is None


def test_made_up_password_is_shown_once_and_right(api):
    password = api.post("/accounts", json={"address": "anna@example.test"}).json()["password"]
    assert len(password) >= 20
    assert api.post("/accounts/anna@example.test/check", json={"password": password}).json()["right"]
    assert password not in api.get("/accounts/anna@example.test").text


WRONG = [
    ("POST", "/accounts", {"address": "anna"}, 422, "not an address"),
    ("POST", "/accounts", {}, 422, "address"),
    ("POST", "/accounts", {"address": "../x@example.test", "password": PASSWORD}, 422, "before @"),
    ("POST", "/accounts", {"address": "anna@example.test", "password": "short"}, 422, "shorter than 8"),
    ("POST", "/accounts", {"address": "anna@example.test", "password": "x" * 5000}, 422, "password"),
    ("POST", "/accounts", {"address": "anna@example.test", "passwd": PASSWORD}, 422, "passwd"),
    ("POST", "/accounts", {"address": "anna@example.test", "quota_bytes": -1}, 422, "quota_bytes"),
    ("POST", "/accounts", {"address": "anna@example.test", "quota_bytes": 1 << 70}, 422, "quota_bytes"),
    ("POST", "/accounts", {"address": "anna@example.test", "login": "a b"}, 422, "user name"),
    ("POST", "/accounts", {"address": "anna@else.test", "password": PASSWORD}, 404, "domain add"),
    ("POST", "/accounts", {"address": ADMIN, "password": PASSWORD}, 409, "here already"),
    ("POST", "/accounts", [1], 422, ""),
    ("GET", "/accounts/nobody@example.test", None, 404, "no account"),
    ("PATCH", "/accounts/nobody@example.test", {"enabled": False}, 404, "no account"),
    ("PATCH", f"/accounts/{ADMIN}", {"enabled": False}, 409, "only administrator"),
    ("PATCH", f"/accounts/{ADMIN}", {"enabled": "perhaps"}, 422, "enabled"),
    ("DELETE", f"/accounts/{ADMIN}", None, 409, "only administrator"),
    ("DELETE", "/accounts/nobody@example.test?purge=perhaps", None, 422, "purge"),
    ("POST", "/domains", {"name": "bare"}, 422, "bare name"),
    ("POST", "/domains", {"name": "example.test"}, 409, "here already"),
    ("DELETE", "/domains/else.test", None, 404, "no domain"),
    ("DELETE", "/domains/example.test", None, 409, "still has 1 accounts"),
    ("POST", "/aliases", {"source": "info@else.test", "target": ADMIN}, 404, "not here"),
    ("POST", "/aliases", {"source": "info@example.test", "target": "nobody@example.test"}, 404, "neither"),
    ("POST", "/aliases", {"source": "a@example.test", "target": "a@example.test"}, 409, "circle"),
    ("DELETE", "/aliases?source=info@example.test", None, 404, "no alias"),
    ("GET", "/domains/else.test/dns", None, 404, "not here"),
    ("GET", "/trace", None, 422, "query"),
    ("GET", "/trace?query=x&limit=0", None, 422, "limit"),
    ("GET", "/queue?limit=many", None, 422, "limit"),
    ("POST", "/queue/q1/burn", None, 422, "action"),
    ("POST", "/queue/..%2Fq1/hold", None, 404, ""),
    ("DELETE", "/queue/a%20b", None, 422, "identity"),
    ("DELETE", "/bans/192.0.2.1", None, 404, "no ban"),
    ("GET", "/nothing", None, 404, ""),
    ("PUT", "/accounts", {}, 405, ""),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), WRONG)
def test_wrong_questions_get_a_sentence_and_change_nothing(api, admin_room, method, path, body, status, words):
    admin_room.peers.answers["imap", "DELETE", "/v1/bans"] = {"lifted": []}
    admin_room.peers.answers["smtp-out", "DELETE", "/v1/bans"] = PeerSaid(404, "smtp-out: there is no ban")
    before = seen(admin_room).generation
    answer = api.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"] and len(answer.json()["error"]) > 3
    assert seen(admin_room).generation == before


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b'{"address": "\\ud800@example.test"}', b"[" * 10_000])
def test_odd_bodies(api, body):
    answer = api.post("/accounts", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"], answer.text


def test_domain_and_its_records(api, admin_room):
    made = api.post("/domains", json={"name": "例子.中国"}).json()
    assert made["domain"]["name"] == "xn--fsqu00a.xn--fiqs8s"
    assert ("dkim", "POST", "/v1/keys", {"domain": "xn--fsqu00a.xn--fiqs8s"}) in admin_room.peers.asked
    assert {each["name"] for each in api.get("/domains").json()["domains"]} == {
        "example.test",
        "xn--fsqu00a.xn--fiqs8s",
    }
    assert api.get("/domains/例子.中国/dkim").json()["records"][0]["name"].startswith("m1._domainkey")
    dns = api.get("/domains/example.test/dns").json()
    assert dns["sending"] == "directly"
    assert {record["type"] for record in dns["records"]} >= {"MX", "TXT", "SRV", "A", "PTR"}
    assert api.delete("/domains/xn--fsqu00a.xn--fiqs8s").json() == {"deleted": "xn--fsqu00a.xn--fiqs8s"}


def test_dns_names_the_relay_and_what_is_missing(api, admin_room):
    admin_room.peers.answers["smtp-out", "GET", "/v1/status"] = {
        "relay": "[smtp-relay.brevo.com]:587",
        "signatures": "rsa",
    }
    admin_room.peers.away.add("dkim")
    dns = api.get("/domains/example.test/dns").json()
    assert dns["sending"] == "through the relay smtp-relay.brevo.com"
    assert "include:spf.brevo.com" in json.dumps(dns["records"])
    assert "DKIM records are missing" in dns["notes"][0]


def test_what_a_room_that_is_away_owes_is_done_when_it_is_back(api, admin_room):
    admin_room.peers.away.update(("imap", "dkim"))
    made = api.post("/accounts", json={"address": "anna@example.test"})
    assert made.status_code == 201 and "as soon as imap answers" in made.json()["notes"][0]
    domain = api.post("/domains", json={"name": "else.test"})
    assert domain.status_code == 201 and "as soon as dkim answers" in domain.json()["notes"][0]
    admin_room.peers.asked.clear()
    admin_room.peers.away.clear()
    wanted = [
        ("imap", "POST", "/v1/provision", {"address": "anna@example.test"}),
        ("dkim", "POST", "/v1/keys", {"domain": "else.test"}),
    ]
    until(lambda: all(each in admin_room.peers.asked for each in wanted))


def test_queue_is_smtp_outs(api, admin_room):
    assert api.get("/queue", params={"limit": 5}).json()["messages"][0]["id"] == "q1"
    assert ("smtp-out", "GET", "/v1/queue", {"limit": "5"}) in admin_room.peers.asked
    for action in ("retry", "hold", "release"):
        assert api.post(f"/queue/q1/{action}").status_code == 200
        assert ("smtp-out", "POST", f"/v1/queue/q1/{action}", None) in admin_room.peers.asked
    assert api.delete("/queue/q1").status_code == 200
    assert ("smtp-out", "DELETE", "/v1/queue/q1", None) in admin_room.peers.asked
    for action in ("retry", "release"):
        assert api.post(f"/queue/{action}").status_code == 200
        assert ("smtp-out", "POST", f"/v1/queue/{action}", None) in admin_room.peers.asked
    admin_room.peers.answers["smtp-out", "GET", "/v1/queue/q1"] = {"id": "q1", "history": []}
    assert api.get("/queue/q1").json() == {"id": "q1", "history": []}
    admin_room.peers.answers["smtp-out", "DELETE", "/v1/queue/q9"] = PeerSaid(404, "smtp-out: no message q9")
    answer = api.delete("/queue/q9")
    assert (answer.status_code, answer.json()["error"]) == (404, "smtp-out: no message q9")
    admin_room.peers.answers["smtp-out", "DELETE", "/v1/queue/q8"] = PeerSaid(500, "smtp-out: internal error x")
    assert api.delete("/queue/q8").status_code == 502
    admin_room.peers.away.add("smtp-out")
    assert api.get("/queue").status_code == 503


def test_bans_of_all_rooms_together(api, admin_room):
    ban = {"key": "2001:db8::/64", "kind": "address", "until": 2e9, "reason": "10 wrong passwords"}
    admin_room.peers.answers["imap", "GET", "/v1/bans"] = {"bans": [ban]}
    admin_room.peers.answers["smtp-out", "GET", "/v1/bans"] = {"bans": [ban]}
    (listed,) = api.get("/bans").json()["bans"]
    assert listed["rooms"] == ["imap", "smtp-out"] and listed["key"] == "2001:db8::/64"
    for room in ("imap", "smtp-out"):
        admin_room.peers.answers[room, "DELETE", "/v1/bans"] = {"lifted": [ban]}
    assert api.delete("/bans/2001:db8::%2F64").json()["lifted"] == "2001:db8::/64"
    assert ("imap", "DELETE", "/v1/bans", {"key": "2001:db8::/64"}) in admin_room.peers.asked
    admin_room.peers.away.add("imap")
    assert "imap does not answer" in api.delete("/bans/192.0.2.1").json()["notes"][0]
    assert "imap" in api.get("/bans").json()["notes"][0]
    admin_room.peers.away.add("smtp-out")
    assert api.delete("/bans/192.0.2.1").status_code == 503


def test_trace(api, admin_room):
    line = {"t": 1_700_000_000_000_000, "kind": "rcpt", "trace": "m1", "conn": "c1", "outcome": "reject"}
    line |= {"recipient": "zoe@example.test", "reply": "550 5.1.1 unknown", "reason": "no such account"}
    path = admin_room.folder / "events" / "smtp-in" / f"{line['t']:017d}.jsonl"
    line["t"] = int(admin_room.context.clock() * 1e6)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    answer = api.get("/trace", params={"query": "zoe@example.test", "fresh": True}).json()
    (story,) = answer["stories"]
    assert (story["trace"], story["outcome"], story["recipients"]) == ("m1", "reject", ["zoe@example.test"])
    (event,) = answer["events"]
    assert (
        event["room"] == "smtp-in"
        and event["text"] == "recipient zoe@example.test → 550 5.1.1 unknown (no such account)"
    )
    assert "id" not in event
    assert api.get("/trace", params={"query": "nobody@example.test"}).json()["stories"] == []


def test_status(api, admin_room):
    found = api.get("/status").json()
    assert found["state"] == "trouble" and "message waits" in found["sentence"]  # the oldest waits since 2023
    assert {room["room"] for room in found["rooms"]} == {
        "smtp-in", "smtp-out", "imap", "dkim", "acme", "updater", "admin",
    }  # fmt: skip
    admin_room.peers.answers["smtp-out", "GET", "/v1/queue"] = {"messages": []}
    assert api.get("/status").json()["state"] == "ok"
    admin_room.peers.away.add("imap")
    found = api.get("/status").json()
    assert found["state"] == "down" and "imap" in found["sentence"]


def test_test_message_goes_through_smtp_out(api, admin_room):
    answer = api.post("/test-message", json={"to": "Bob@else.test"})
    assert answer.status_code == 202
    ((_, _, _, (body, query, headers)),) = [each for each in admin_room.peers.asked if each[2] == "/v1/submit"]
    assert query == {"sender": ADMIN, "recipient": "bob@else.test"}
    assert headers == {"Mailstead-Trace": answer.json()["trace"]}
    assert body.endswith(b"\r\n") and b"\r\n\r\n" in body and b"\n" not in body.replace(b"\r\n", b"")
    assert b"From: admin@example.test\r\nTo: bob@else.test\r\n" in body
    assert api.post("/test-message", json={"to": "nobody"}).status_code == 422
    assert api.post("/test-message", json={"to": "bob@else.test", "sender": "nobody@example.test"}).status_code == 404
    api.post("/accounts", json={"address": "anna@example.test", "password": "a secret password"})
    assert api.post("/test-message", json={"to": "bob@else.test", "sender": "Anna@example.test"}).status_code == 202
    assert admin_room.peers.asked[-1][3][1]["sender"] == "anna@example.test"
    admin_room.peers.away.add("smtp-out")
    assert api.post("/test-message", json={"to": "bob@else.test"}).status_code == 503


def test_changes_are_recorded_with_who_made_them(api, admin_room):
    api.post("/accounts", json={"address": "anna@example.test", "password": "a secret password"})
    api.delete("/accounts/anna@example.test")
    events = [event for event in admin_room.recorded() if event["kind"] == "admin-change"]
    assert [event["by"] for event in events[-2:]] == ["command line"] * 2
    assert "account anna@example.test added" in events[-2]["reason"]
    assert "a secret password" not in json.dumps(events)


def test_description_names_every_route(api):
    described = api.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    assert "/api/v1/accounts/{address}" in described["paths"]
    for path in described["paths"].values():
        for method in path.values():
            assert method.get("description"), path


def test_full_disk_is_said_and_nothing_is_half_done(api, admin_room, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("services.directory.publish._fsync", full)
    answer = api.post("/domains", json={"name": "else.test"})
    assert answer.status_code == 503 and "No space left" in answer.json()["error"]
    monkeypatch.undo()
    assert [each["name"] for each in api.get("/domains").json()["domains"]] == ["example.test"]


def test_a_fault_of_ours_is_a_500_with_an_id_and_no_detail(api, admin_room):
    admin_room.peers.answers["smtp-out", "GET", "/v1/queue"] = ZeroDivisionError("the secret cause")
    answer = api.get("/queue")
    assert answer.status_code == 500 and "secret cause" not in answer.text
    bug = answer.json()["error"].split()[-1]
    assert [event["kind"] for event in admin_room.recorded() if event["trace"] == bug] == ["bug"]


def test_token_is_readable_by_its_owner_alone(admin_room):
    path = admin_room.folder / "admin" / "cli.json"
    assert path.stat().st_mode & 0o077 == 0
    assert token(admin_room)["Authorization"].startswith("Bearer ")


def test_a_domain_alias_and_a_copy_that_is_kept(api, admin_room):
    made = api.post("/domains", json={"name": "alias.test", "alias_of": "example.test"}).json()
    assert made["domain"]["alias_of"] == "example.test"
    assert ("dkim", "POST", "/v1/keys", {"domain": "alias.test"}) in admin_room.peers.asked
    listed = {each["name"]: each["alias_of"] for each in api.get("/domains").json()["domains"]}
    assert listed == {"example.test": "", "alias.test": "example.test"}
    assert api.get("/domains/alias.test/dns").status_code == 200
    assert seen(admin_room).domain_alias("alias.test") == "example.test"
    refused = api.post("/accounts", json={"address": "anna@alias.test", "password": PASSWORD})
    assert refused.status_code == 409 and "alias of example.test" in refused.json()["error"]
    kept = api.post("/aliases", json={"source": ADMIN, "target": "out@far.test", "keep_copy": True})
    assert kept.status_code == 201 and seen(admin_room).aliases(ADMIN) == (ADMIN, "out@far.test")
    answer = api.post("/aliases", json={"source": "info@example.test", "target": "out@far.test", "keep_copy": True})
    assert answer.status_code == 409 and "no account" in answer.json()["error"]
    assert api.delete("/domains/example.test?alias=true").status_code == 404
    assert api.delete("/domains/alias.test?alias=true").json() == {"deleted": "alias.test"}
