"""The page: every page for who is logged in, every form with its token, nothing a stranger wrote as markup."""

from __future__ import annotations

import html
import json
import re

import pytest
from admin_room import ADMIN, PASSWORD, RoomHealth, log_in

from services.admin.web.formats import clock, day, length_text, size_text, when
from services.admin.web.pages import local_target

PAGES = [
    "/",
    "/accounts",
    "/accounts/new",
    f"/accounts/{ADMIN}",
    "/aliases",
    "/domains",
    "/domains/example.test",
    "/queue",
    "/bans",
    "/trace",
    "/updates",
    "/changes",
    "/me",
]


@pytest.fixture
def page(admin_room):
    """A browser that is logged in."""
    with admin_room.client(auth=None) as client:
        assert log_in(client).status_code == 303
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
    assert (
        text.startswith("<!doctype html>")
        and text.rstrip().endswith("</html>")
        and len(re.findall(r"<h1[ >]", text)) == 1
    )
    assert 'lang="en"' in text and 'name="viewport"' in text
    parts = re.findall(r'(?:src|href)="(/static/[^"]+)"', text)
    assert len(text) + sum(len(page.get(part).content) for part in set(parts)) < 100_000
    # The policy forbids them: no inline script, handler or style.
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|javascript:", text)
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_labels_for_every_field(page, path):
    text = page.get(path).text
    for field in re.findall(r'<(?:input|select)(?![^>]*type="hidden")[^>]*>', text, re.S):
        before = text[: text.index(field)]
        name = re.search(r'\bid="([^"]+)"', field)
        inside = before.rfind("<label") > before.rfind("</label>")
        assert inside or " hidden" in field or (name and f'<label for="{name[1]}">' in text), field
    for button in re.findall(r"<button[^>]*>(.*?)</button>", text):
        assert button.strip()


@pytest.mark.parametrize("path", PAGES)
def test_strangers_are_sent_to_the_log_in_and_back(admin_room, path):
    with admin_room.client(auth=None) as client:
        answer = client.get(path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login")
        assert client.post("/accounts", data={"local": "x"}).headers["location"] == "/login"
        answer = log_in(client, next=path)
        assert answer.headers["location"] == path


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "", "/a\r\nX: y"]
)
def test_log_in_leads_nowhere_else(admin_room, target):
    with admin_room.client(auth=None) as client:
        answer = log_in(client, next=target)
        assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert local_target(target) == "/"


def test_wrong_password_keeps_what_was_typed(admin_room):
    with admin_room.client(auth=None) as client:
        answer = log_in(client, '"><b>x', "wrong")
        assert answer.status_code == 401 and "wrong address or password" in answer.text
        assert "&#34;&gt;&lt;b&gt;x" in answer.text and "<b>x" not in answer.text


def test_log_out(page):
    assert submit(page, "/logout").url.path == "/login"
    assert page.get("/").status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 32, None])
@pytest.mark.parametrize(
    "path",
    [
        "/accounts",
        "/aliases",
        "/domains",
        "/queue",
        "/bans",
        "/logout",
        f"/accounts/{ADMIN}",
        "/updates",
        "/me/password",
    ],
)
def test_forms_without_their_token_do_nothing(page, admin_room, token, path):
    fields = {"local": "eve", "domain": "example.test", "action": "disable"}
    admin_room.peers.asked.clear()
    answer = page.post(path, data=fields if token is None else {**fields, "form_token": token})
    assert answer.status_code == 403 and admin_room.peers.asked == []
    assert "eve@" not in page.get("/accounts").text and page.get("/").status_code == 200


def test_account_on_the_page(page, admin_room):
    made = submit(page, "/accounts", local="Anna", domain="example.test", password="", quota="")
    assert "anna@example.test is ready." in made.text
    password = re.search(r'<code id="secret">([\w-]+)</code>', made.text)[1]
    assert password not in page.get("/accounts").text  # shown once
    here = "/accounts/anna@example.test"
    assert "Disabled: no log-in" in submit(page, here, action="disable").text
    assert "May log in" in submit(page, here, action="enable").text
    assert "<dd>Administrator</dd>" in submit(page, here, action="promote").text
    assert "<dd>Family member</dd>" in submit(page, here, action="demote").text
    assert "of 5.0 MiB" in submit(page, here, action="quota", quota="5").text
    assert ">ann</dd>" in submit(page, here, action="login", login="Ann").text
    assert "The password is changed." in submit(page, here, action="password", password="another password").text
    assert "type the address once more" in submit(page, here, action="delete", typed="anna", back=here).text
    gone = submit(page, here, action="delete", typed="anna@example.test")
    assert "anna@example.test is deleted." in gone.text and "Deleted, mail still kept" in gone.text
    assert page.get(here).status_code == 404


# path, form, the field that the error stands beside ("": above the form), its words
WRONG = [
    ("/accounts", {"local": "", "domain": "example.test"}, "local", "Type the name"),
    ("/accounts", {"local": "a b", "domain": "example.test"}, "local", "has a character"),
    ("/accounts", {"local": "a", "domain": "else.test"}, "domain", "is not here"),
    ("/accounts", {"local": "a", "domain": "example.test", "password": "short"}, "password", "shorter than 8"),
    ("/accounts", {"local": "a", "domain": "example.test", "quota": "x"}, "quota", "whole number"),
    ("/accounts", {"local": "admin", "domain": "example.test", "password": PASSWORD}, "local", "is here already"),
    (f"/accounts/{ADMIN}", {"action": "disable"}, "", "only administrator"),
    (f"/accounts/{ADMIN}", {"action": "quota", "quota": "-5"}, "quota", "whole number of MiB"),
    (f"/accounts/{ADMIN}", {"action": "login", "login": "a b"}, "login", "is not a user name"),
    (f"/accounts/{ADMIN}", {"action": "password", "password": ""}, "password", "under “My mail”"),
    (f"/accounts/{ADMIN}", {"action": "delete", "typed": "x"}, "typed", "once more"),
    (f"/accounts/{ADMIN}", {"action": "burn"}, "", "Nothing was chosen"),
    ("/aliases", {"source": "x", "target": ADMIN}, "source", "not an address"),
    ("/aliases", {"source": "x@example.test", "target": "y"}, "target", "not an address"),
    ("/aliases", {"source": "x@else.test", "target": ADMIN}, "source", "is not here"),
    ("/aliases", {"source": "x@example.test", "target": "nobody@example.test"}, "target", "neither an account"),
    ("/domains", {"name": "<script>alert(1)</script>"}, "name", "is not a domain name"),
    ("/domains", {"name": "example.test"}, "name", "is here already"),
    ("/domains/example.test", {"typed": "example.test"}, "typed", "still has 1 accounts"),
    ("/domains/example.test", {"typed": "other.test"}, "typed", "once more"),
    ("/me/password", {"current": PASSWORD, "password": "short", "again": "short"}, "password", "shorter than 8"),
    ("/me/password", {"current": "wrong", "password": "a new one 1", "again": "a new one 1"}, "current", "not your"),
    ("/me/password", {"current": PASSWORD, "password": "a new one", "again": "another"}, "again", "not the same"),
]


@pytest.mark.parametrize(("path", "fields", "field", "words"), WRONG)
def test_an_error_stands_beside_its_field_and_what_was_typed_is_kept(page, path, fields, field, words):
    answer = submit(page, path, **fields)
    assert answer.status_code in (409, 422) and "<script>alert" not in answer.text
    if field:
        assert words in re.search(rf'<p class="wrong" id="e-{field}">(.*?)</p>', answer.text)[1]
        shown = re.search(rf'<(?:input|select) id="f-{field}".*?>', answer.text, re.S)[0]
        assert 'aria-invalid="true"' in shown and f"e-{field}" in shown
    else:
        assert words in re.search(r'<p class="notice error" role="alert">(.*?)</p>', answer.text)[1]
    for name, typed in fields.items():
        shown = re.search(rf'<input id="f-{name}".*?>', answer.text, re.S)
        if shown and 'type="password"' in shown[0]:
            assert not typed or typed not in shown[0]
        elif shown:
            assert f'value="{html.escape(typed)}"' in shown[0]


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/aliases/delete", {"source": "x@example.test", "target": ADMIN, "sure": "yes"}, "there is no alias"),
        ("/queue", {"action": "burn", "id": "q1"}, "Nothing was chosen"),
        ("/queue", {"action": "drop", "id": ""}, "Nothing was chosen"),
        ("/updates", {"action": "burn"}, "Nothing was chosen"),
    ],
)
def test_errors_without_a_field_are_told_on_the_page(page, path, fields, words):
    answer = submit(page, path, back=path.removesuffix("/delete"), **fields)
    assert answer.status_code == 200 and words in answer.text


@pytest.mark.parametrize(
    ("path", "fields", "asked"),
    [
        ("/aliases/delete", {"source": "list@example.test", "target": ADMIN}, None),
        ("/queue", {"action": "drop", "id": "q1"}, ("smtp-out", "DELETE", "/v1/queue/q1", None)),
        ("/updates", {"action": "rollback"}, ("updater", "POST", "/v1/rollback", {})),
        (f"/accounts/{ADMIN}", {"action": "demote"}, None),
    ],
)
def test_what_cannot_be_undone_is_asked_first(page, admin_room, path, fields, asked):
    submit(page, "/aliases", source="list@example.test", target=ADMIN)
    question = submit(page, path, back="/aliases", **fields)
    assert question.status_code == 200 and 'name="sure" value="yes"' in question.text
    assert asked not in admin_room.peers.asked and "list@example.test" in page.get("/aliases").text
    for name, value in fields.items():
        assert f'name="{name}" value="{html.escape(value)}"' in question.text
    answer = submit(page, path, sure="yes", **fields)
    if asked:
        assert asked in admin_room.peers.asked
    elif "demote" in fields.values():
        assert "only administrator" in answer.text
    else:
        assert "list@example.test" not in page.get("/aliases").text


def test_a_domain_alias_on_the_page(page):
    submit(page, "/domains", name="alias.test", alias_of="example.test")
    shown = page.get("/domains").text
    assert "answers as example.test" in shown and "alias.test" in shown
    assert "@alias.test</option>" not in page.get("/accounts/new").text
    again = submit(page, "/domains", name="example.test", alias_of="alias.test")
    assert "itself an alias" in again.text or "still has" in again.text


def test_a_kept_copy_on_the_page(page):
    assert 'name="keep_copy"' in page.get("/aliases").text
    submit(page, "/aliases", source=ADMIN, target="out@far.test", keep_copy="on")
    shown = page.get("/aliases").text
    assert "out@far.test" in shown and shown.count(f'name="target" value="{ADMIN}"') == 1


def test_aliases_and_domains_on_the_page(page):
    assert (
        "info@example.test → admin@example.test"
        in submit(page, "/aliases", source="info@example.test", target=ADMIN).text
    )
    assert "everything else at example.test" in submit(page, "/aliases", source="@example.test", target=ADMIN).text
    assert (
        "The alias is deleted."
        in submit(page, "/aliases/delete", source="info@example.test", target=ADMIN, sure="yes").text
    )
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
    assert "tried again later · 2 attempts" in text and "451 4.3.0" in text
    for action, words in (("retry", "tried again"), ("hold", "held back"), ("drop", "dropped")):
        assert words in submit(page, "/queue", action=action, id="q1", sure="yes").text
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
    assert when(None) == when(0) == day(None) == "–"
    assert when(1_700_000_000) == (
        '<time datetime="2023-11-14T22:13:20Z" data-show="moment">14 Nov 2023, 22:13 UTC</time>'
    )
    assert ">14 Nov 2023<" in day(1_700_000_000)
    assert clock(1_700_000_000_123_456) == (
        '<time datetime="2023-11-14T22:13:20.123Z" data-show="clock">22:13:20.123</time>'
    )
    assert [length_text(seconds) for seconds in (90, 7300, 200_000)] == ["1 minute", "2 hours", "2 days"]
