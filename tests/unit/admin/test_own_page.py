"""What a family member sees of the page: their own, and nothing else; and how a log-in and a password behave there."""

from __future__ import annotations

import plistlib
import re
import uuid

import pytest
from admin_room import ADMIN, PASSWORD, log_in
from starlette.routing import Route

from services.admin.api import guard
from services.admin.web import views
from services.admin.web.mobileconfig import profile

ANNA = "anna@example.test"
# What everybody may ask, logged in or not, or is sent on from.
OPEN = {
    "/", "/login", "/logout", "/language", "/static/{name}", "/me", "/me/password", "/me/mailstead.mobileconfig", "/me/junk", "/me/rules",
    "/api/v1/openapi.json",
}  # fmt: skip
VALUES = {"address": ADMIN, "name": "example.test", "identity": "q1", "key": "192.0.2.1", "action": "retry"}


@pytest.fixture
def anna(admin_room, api):
    """Anna's browser; she is no administrator."""
    api.post("/accounts", json={"address": ANNA, "password": PASSWORD})
    with admin_room.client(auth=None) as client:
        assert log_in(client, ANNA).status_code == 303
        yield client


def every_route(admin_room, api):
    """(method, path, path with its placeholders filled) of every page, and of everything that the API describes."""
    from fastapi import FastAPI

    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    guard.answer_errors(pages)
    views.add_to(pages, admin_room.parts)
    found = {
        (method, route.path)
        for route in pages.routes
        if isinstance(route, Route)
        for method in (route.methods or {"GET"}) - {"HEAD", "OPTIONS"}
    }
    described = api.get("/openapi.json").json()["paths"]
    found |= {(method.upper(), path) for path, methods in described.items() for method in methods}
    return [
        (method, path, re.sub(r"\{(\w+)(:\w+)?\}", lambda name: VALUES.get(name[1], "x"), path))
        for method, path in sorted(found)
    ]


def test_every_other_route_answers_403(admin_room, anna, api):
    form_token = re.search(r'name="form_token" value="(\w+)"', anna.get("/me").text)[1]
    walked = 0
    admin_room.peers.asked.clear()
    for method, path, filled in every_route(admin_room, api):
        if path in OPEN:
            continue
        answer = anna.request(
            method, filled, headers={"X-Form-Token": form_token},
            **({"data": {"form_token": form_token, "sure": "yes"}} if method == "POST" and "/api/" not in path else {}),
        )  # fmt: skip
        assert answer.status_code == 403, (method, path, answer.status_code, answer.text[:200])
        walked += 1
    assert walked > 40
    assert admin_room.peers.asked == [], "nothing was asked of any room on the way"


def test_what_a_family_member_sees(admin_room, anna, api):
    api.post("/aliases", json={"source": "info@example.test", "target": ANNA})
    api.post("/aliases", json={"source": "boss@example.test", "target": ADMIN})
    admin_room.peers.answers["imap", "GET", "/v1/usage"] = {"accounts": {ANNA: {"bytes": 5 << 20, "messages": 12}}}
    assert anna.get("/").headers["location"] == "/me"
    text = anna.get("/me").text
    for words in (ANNA, "info@example.test", "5.0 MiB", "12 messages", "mail.example.test", "993", "465", "Log out"):
        assert words in text
    assert ADMIN not in text and "boss@example.test" not in text
    assert not set(re.findall(r'href="(/[a-z]*)', text)) - {"/", "/me", "/static"}
    assert ("imap", "GET", "/v1/usage", {"account": ANNA}) in admin_room.peers.asked


def test_an_administrators_page_links_every_page(admin_room):
    with admin_room.client(auth=None) as client:
        log_in(client)
        linked = set(re.findall(r'<a href="(/[a-z]*)"', client.get("/").text))
    assert {
        "/",
        "/trace",
        "/verdicts",
        "/queue",
        "/accounts",
        "/aliases",
        "/domains",
        "/updates",
        "/bans",
        "/changes",
        "/me",
    } <= linked


def test_a_change_is_listed_at_once_with_who_and_from_where(admin_room):
    with admin_room.client(auth=None) as client:
        log_in(client)
        form_token = re.search(r'name="form_token" value="(\w+)"', client.get("/me").text)[1]
        client.post("/aliases", data={"source": "x@example.test", "target": ADMIN, "form_token": form_token})
        row = re.search(r"<tbody>\s*<tr>(.*?)</tr>", client.get("/changes").text, re.S)[1]
        assert "alias x@example.test → admin@example.test added" in row and "page" in row and "127.0.0.1" in row
        assert client.get("/changes", params={"before": "1"}).text.count("<tr>") == 0
        for odd in ("x", "-1", "9" * 30, "１"):
            assert client.get("/changes", params={"before": odd}).status_code == 200


def change_password(client, current, new, again=None):
    form_token = re.search(r'name="form_token" value="(\w+)"', client.get("/me").text)[1]
    fields = {"current": current, "password": new, "again": new if again is None else again}
    return client.post("/me/password", data={**fields, "form_token": form_token})


def test_a_change_of_password_logs_out_everywhere_else(admin_room, anna):
    with admin_room.client(auth=None) as other:
        log_in(other, ANNA)
        before = dict(anna.cookies)
        answer = change_password(anna, PASSWORD, "a new password")
        assert answer.status_code == 303 and answer.headers["location"] == "/me"
        assert dict(anna.cookies)["mailstead"] != before["mailstead"]
        assert "Your password is changed" in anna.get("/me").text
        assert other.get("/me").status_code == 303
        with admin_room.client(auth=None, cookies=before) as old:
            assert old.get("/me").status_code == 303
        assert log_in(other, ANNA).status_code == 401
        assert log_in(other, ANNA, "a new password").status_code == 303
    changed = [event for event in admin_room.recorded() if event["kind"] == "admin-change"][-1]
    assert (changed["by"], changed["via"], changed["peer"]) == (ANNA, "page", "127.0.0.1")


def test_the_password_one_has_is_asked_and_guessing_it_is_recorded(admin_room, anna):
    answer = change_password(anna, "wrong", "a new password")
    assert answer.status_code == 422 and "This is not your password." in answer.text
    last = [event for event in admin_room.recorded() if event["kind"] == "login"][-1]
    assert (last["outcome"], last["account"]) == ("reject", ANNA)
    assert anna.get("/me").status_code == 200


def test_a_log_in_gives_a_new_token_and_ends_the_one_that_was_brought(admin_room):
    """Session fixation: a cookie that somebody planted beforehand is worth nothing afterwards, to either."""
    with admin_room.client(auth=None) as planter, admin_room.client(auth=None) as victim:
        log_in(planter)
        planted = planter.cookies["mailstead"]
        form_token = re.search(r'name="form_token" value="(\w+)"', victim.get("/login").text)[1]
        victim.cookies.set("mailstead", planted, domain="127.0.0.1")
        answer = victim.post("/login", data={"name": ADMIN, "password": PASSWORD, "form_token": form_token})
        assert answer.status_code == 303
        given = re.search(r"mailstead=([\w-]+)", answer.headers["set-cookie"])[1]
        assert given != planted and planter.get("/accounts").status_code == 303


def test_a_log_in_needs_the_pages_own_form(admin_room):
    with admin_room.client(auth=None) as client:
        answer = client.post("/login", data={"name": ADMIN, "password": PASSWORD})
        assert answer.status_code == 403 and "mailstead=" not in answer.headers.get("set-cookie", "")
        assert log_in(client).status_code == 303
    assert [event for event in admin_room.recorded() if event["kind"] == "login"][-1]["outcome"] == "accept"


def test_a_refresh_by_the_script_keeps_no_session_alive(admin_room, anna):
    session = next(iter(admin_room.parts.sessions._by_hash.values()))
    session.seen, seen = session.seen - 100, session.seen - 100
    session.notices.append(("done", "kept for the person"))
    assert "kept for the person" not in anna.get("/me", headers={"X-Live": "1"}).text
    assert session.seen == seen
    assert "kept for the person" in anna.get("/me").text and session.seen > seen


def test_apple_profile(anna):
    answer = anna.get("/me/mailstead.mobileconfig")
    assert answer.headers["content-type"] == "application/x-apple-aspen-config"
    found = plistlib.loads(answer.content)
    (mail,) = found["PayloadContent"]
    assert mail["PayloadType"] == "com.apple.mail.managed" and found["PayloadType"] == "Configuration"
    assert mail["EmailAddress"] == mail["IncomingMailServerUsername"] == mail["OutgoingMailServerUsername"] == ANNA
    assert (mail["IncomingMailServerPortNumber"], mail["OutgoingMailServerPortNumber"]) == (993, 465)
    assert mail["IncomingMailServerUseSSL"] is mail["OutgoingMailServerUseSSL"] is True
    assert b"assword</key><string>" not in answer.content
    assert len({uuid.UUID(found["PayloadUUID"]), uuid.UUID(mail["PayloadUUID"])}) == 2
    assert anna.get("/me/mailstead.mobileconfig").content == answer.content, "a second one replaces the first"


def test_apple_profile_with_odd_names():
    found = plistlib.loads(profile("a&b'<c>@example.test", "mail.example.test", imap_port=1, submission_port=2))
    assert found["PayloadContent"][0]["EmailAddress"] == "a&b'<c>@example.test"
