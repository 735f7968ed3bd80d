"""The page: every page for who is logged in, every form with its token, nothing a stranger wrote as markup."""

from __future__ import annotations

import json
import re

import pytest
from admin_room import ADMIN, PASSWORD, RoomHealth

from services.admin.web.pages import days_text, local_target, micros_text, size_text, time_text

PAGES = [
    "/",
    "/accounts",
    f"/accounts/{ADMIN}",
    "/aliases",
    "/domains",
    "/domains/example.test",
    "/queue",
    "/bans",
    "/trace",
]


@pytest.fixture
def page(admin_room):
    """A browser that is logged in."""
    with admin_room.client(auth=None) as client:
        assert client.post("/login", data={"name": ADMIN, "password": PASSWORD}).status_code == 303
        yield client


def form_token(client, path="/accounts"):
    return re.search(r'name="form_token" value="(\w+)"', client.get(path).text)[1]


def submit(client, path, **fields):
    """Send a form as the page would, and follow to the page that comes after."""
    fields.setdefault("form_token", form_token(client))
    return client.post(path, data=fields, follow_redirects=True)


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_small_and_whole(page, path):
    answer = page.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    text = answer.text
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>") and text.count("<h1>") == 1
    assert 'lang="en"' in text and 'name="viewport"' in text
    parts = re.findall(r'(?:src|href)="(/static/[^"]+)"', text)
    assert len(text) + sum(len(page.get(part).content) for part in set(parts)) < 100_000
    # The policy forbids them: no inline script, handler or style.
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|javascript:", text)
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_labels_for_every_field(page, path):
    text = page.get(path).text
    for field in re.findall(r'<(?:input|select)(?![^>]*type="hidden")[^>]*>', text):
        before = text[: text.index(field)]
        assert before.rfind("<label") > before.rfind("</label>"), field
    for button in re.findall(r"<button[^>]*>(.*?)</button>", text):
        assert button.strip()


@pytest.mark.parametrize("path", PAGES)
def test_strangers_are_sent_to_the_log_in_and_back(admin_room, path):
    with admin_room.client(auth=None) as client:
        answer = client.get(path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login")
        assert client.post("/accounts", data={"local": "x"}).headers["location"] == "/login"
        answer = client.post("/login", data={"name": ADMIN, "password": PASSWORD, "next": path})
        assert answer.headers["location"] == path


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "", "/a\r\nX: y"]
)
def test_log_in_leads_nowhere_else(admin_room, target):
    with admin_room.client(auth=None) as client:
        answer = client.post("/login", data={"name": ADMIN, "password": PASSWORD, "next": target})
        assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert local_target(target) == "/"


def test_wrong_password_keeps_what_was_typed(admin_room):
    with admin_room.client(auth=None) as client:
        answer = client.post("/login", data={"name": '"><b>x', "password": "wrong"})
        assert answer.status_code == 401 and "wrong address or password" in answer.text
        assert "&#34;&gt;&lt;b&gt;x" in answer.text and "<b>x" not in answer.text


def test_log_out(page):
    assert submit(page, "/logout").url.path == "/login"
    assert page.get("/").status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 32, None])
@pytest.mark.parametrize(
    "path", ["/accounts", "/aliases", "/domains", "/queue", "/bans", "/logout", f"/accounts/{ADMIN}"]
)
def test_forms_without_their_token_do_nothing(page, admin_room, token, path):
    fields = {"local": "eve", "domain": "example.test", "action": "disable"}
    admin_room.peers.asked.clear()
    answer = page.post(path, data=fields if token is None else {**fields, "form_token": token})
    assert answer.status_code == 403 and admin_room.peers.asked == []
    assert "eve@" not in page.get("/accounts").text and page.get("/").status_code == 200


def test_account_on_the_page(page, admin_room):
    made = submit(page, "/accounts", local="Anna", domain="example.test", password="")
    assert "anna@example.test is ready." in made.text
    password = re.search(r'<code id="secret">([\w-]+)</code>', made.text)[1]
    assert password not in page.get("/accounts").text  # shown once
    here = "/accounts/anna@example.test"
    assert "disabled: no log-in" in submit(page, here, action="disable").text
    assert "may log in" in submit(page, here, action="enable").text
    assert ", administrator" in submit(page, here, action="promote").text
    assert "administrator</dd>" not in submit(page, here, action="demote").text
    assert "quota 5.0 MiB" in submit(page, here, action="quota", quota="5").text
    assert "<dd>ann</dd>" in submit(page, here, action="login", login="Ann").text
    assert "The password is changed." in submit(page, here, action="password", password="another password").text
    assert "type the address once more" in submit(page, here, action="delete", typed="anna", back=here).text
    gone = submit(page, here, action="delete", typed="anna@example.test")
    assert "anna@example.test is deleted." in gone.text and "Deleted, mail still kept" in gone.text
    assert page.get(here).status_code == 404


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/accounts", {"local": "", "domain": "example.test"}, "not an address"),
        ("/accounts", {"local": "a", "domain": "example.test", "password": "short"}, "shorter than 8"),
        ("/accounts", {"local": "admin", "domain": "example.test", "password": PASSWORD}, "is here already"),
        (f"/accounts/{ADMIN}", {"action": "disable"}, "only administrator"),
        (f"/accounts/{ADMIN}", {"action": "quota", "quota": "-5"}, "whole number of MiB"),
        (f"/accounts/{ADMIN}", {"action": "password", "password": ""}, "Type a new password"),
        (f"/accounts/{ADMIN}", {"action": "burn"}, "Nothing was chosen"),
        ("/aliases", {"source": "x", "target": ADMIN}, "not an address"),
        ("/aliases/delete", {"source": "x@example.test", "target": ADMIN}, "there is no alias"),
        ("/domains", {"name": "<script>alert(1)</script>"}, "is not a domain name"),
        ("/domains/example.test", {"typed": "example.test"}, "still has 1 accounts"),
        ("/queue", {"action": "burn", "id": "q1"}, "Nothing was chosen"),
        ("/queue", {"action": "drop", "id": ""}, "Nothing was chosen"),
    ],
)
def test_errors_are_told_on_the_page(page, path, fields, words):
    answer = submit(page, path, back=path.removesuffix("/delete"), **fields)
    assert answer.status_code == 200 and words in answer.text and "<script>alert" not in answer.text


def test_aliases_and_domains_on_the_page(page):
    assert (
        "info@example.test → admin@example.test"
        in submit(page, "/aliases", source="info@example.test", target=ADMIN).text
    )
    assert "everything else at example.test" in submit(page, "/aliases", source="@example.test", target=ADMIN).text
    assert "The alias is deleted." in submit(page, "/aliases/delete", source="info@example.test", target=ADMIN).text
    assert "Set its DNS records next." in submit(page, "/domains", name="else.test").text
    assert "else.test is deleted." in submit(page, "/domains/else.test", typed="else.test").text


def test_dns_page_has_records_to_copy(page):
    text = page.get("/domains/example.test").text
    assert "v=spf1 mx ~all" in text and "m1._domainkey.example.test" in text
    for target in re.findall(r'data-copy="(\w+)"', text):
        assert f'id="{target}"' in text


def test_home_says_what_is_wrong(page, admin_room):
    admin_room.peers.unwell["imap"] = RoomHealth("imap", "failing", {"listener 993": "no <b>certificate</b>"})
    text = page.get("/").text
    assert "imap is not well" in text and "<b>certificate" not in text
    admin_room.peers.away.update(("smtp-in", "smtp-out", "imap", "dkim", "acme", "updater"))
    answer = page.get("/")
    assert answer.status_code == 200 and "Mail does not flow" in answer.text


@pytest.mark.parametrize("path", ["/queue"])
def test_a_page_whose_room_is_away_says_so(page, admin_room, path):
    admin_room.peers.away.add("smtp-out")
    answer = page.get(path)
    assert answer.status_code == 503 and "smtp-out does not answer" in answer.text


def test_queue_on_the_page(page, admin_room):
    text = page.get("/queue").text
    assert "bob@else.test: deferred, 2 attempts" in text and "451 4.3.0" in text
    for action, words in (("retry", "tried again"), ("hold", "held back"), ("drop", "dropped")):
        assert words in submit(page, "/queue", action=action, id="q1").text
    assert ("smtp-out", "DELETE", "/v1/queue/q1", None) in admin_room.peers.asked
    submit(page, "/queue", action="retry", id="")
    assert ("smtp-out", "POST", "/v1/queue/retry", None) in admin_room.peers.asked


def test_bans_on_the_page(page, admin_room):
    ban = {"key": "192.0.2.1", "kind": "address", "until": 2e9, "reason": "<i>guessing</i>"}
    admin_room.peers.answers["imap", "GET", "/v1/bans"] = {"bans": [ban]}
    admin_room.peers.answers["imap", "DELETE", "/v1/bans"] = {"lifted": [ban]}
    admin_room.peers.answers["smtp-out", "DELETE", "/v1/bans"] = {"lifted": []}
    text = page.get("/bans").text
    assert "192.0.2.1" in text and "<i>guessing" not in text
    assert "192.0.2.1 may log in again." in submit(page, "/bans", key="192.0.2.1").text


def test_trace_shows_what_strangers_wrote_as_text(page, admin_room):
    line = {"t": int(admin_room.context.clock() * 1e6), "kind": "helo", "trace": "x1", "peer": "192.0.2.77"}
    line |= {"helo": "<script>alert(1)</script>", "reason": "\x1b[31m'\"><img src=x>"}
    path = admin_room.folder / "events" / "smtp-in" / "00000000000000009.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    text = page.get("/trace", params={"q": "192.0.2.77"}).text
    assert "Connection from 192.0.2.77" in text and "&lt;script&gt;" in text
    assert "<script>alert" not in text and "<img src=x" not in text and "\x1b" not in text
    assert "Nothing is recorded" in page.get("/trace", params={"q": "<b>nobody"}).text


def test_static_files(page):
    path = re.search(r'href="(/static/style.css\?\w+)"', page.get("/").text)[1]
    assert "immutable" in page.get(path).headers["cache-control"]
    assert page.get("/static/style.css?old").headers["cache-control"] == "no-cache"
    for name in ("..%2fpages.py", "../pages.py", "nothing.css", "%00"):
        assert page.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (20 << 20, "20 MiB"), (1 << 60, "1048576 TiB")],
)
def test_size_text(size, text):
    assert size_text(size) == text


def test_times():
    assert time_text(None) == "" and time_text(0) == ""
    assert time_text(1_700_000_000) == "2023-11-14T22:13:20Z"
    assert micros_text(1_700_000_000_123_456) == "2023-11-14T22:13:20.123Z"
    assert [days_text(seconds) for seconds in (90, 7300, 200_000)] == ["1 minutes", "2 hours", "2 days"]
