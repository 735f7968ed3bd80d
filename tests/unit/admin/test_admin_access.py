"""Who gets in, and what the shell around every request refuses."""

from __future__ import annotations

import base64
import threading

import httpx
import pytest
from admin_room import ADMIN, PASSWORD, log_in, token

from services.admin.sessions import IDLE_SECONDS, LONGEST_SECONDS, MOST, Session, Sessions

API = "/api/v1/accounts"


def basic(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.fixture
def client(admin_room):
    with admin_room.client(auth=None) as made:
        yield made


@pytest.mark.parametrize(
    "headers", [basic(ADMIN, PASSWORD), basic("ADMIN@Example.test", PASSWORD), basic("admin", PASSWORD)]
)
def test_administrators_password_opens_the_api(client, headers):
    assert client.get(API, headers=headers).status_code == 200


REFUSED = [
    {}, basic(ADMIN, "wrong"), basic("nobody@example.test", PASSWORD), basic("", ""), basic(ADMIN, ""), basic("admin'--", "x"),
    {"Authorization": "Basic"}, {"Authorization": "Basic ???"}, {"Authorization": "Basic YWJj"}, {"Authorization": "Bearer"},
    {"Authorization": "Bearer " + "0" * 64}, {"Authorization": "Digest x"}, {"Authorization": "Basic /w=="},
    {"Cookie": "mailstead=x"}, {"Cookie": "mailstead="},
]  # fmt: skip


@pytest.mark.parametrize("headers", REFUSED)
def test_others_are_refused_without_saying_which_part_was_wrong(client, headers):
    answer = client.get(API, headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic")
    assert answer.json()["error"] in (
        "wrong address or password", "log in with an administrator's address and password", "the token is wrong",
    )  # fmt: skip


def test_unknown_and_wrong_look_alike(client):
    wrong, unknown = (client.get(API, headers=basic(name, "wrong")) for name in (ADMIN, "nobody@example.test"))
    assert (wrong.status_code, wrong.text) == (unknown.status_code, unknown.text)


def test_an_account_that_is_no_administrator_is_told_so_only_with_its_password(api, client):
    api.post("/accounts", json={"address": "anna@example.test", "password": PASSWORD})
    assert client.get(API, headers=basic("anna@example.test", PASSWORD)).status_code == 403
    assert client.get(API, headers=basic("anna@example.test", "wrong")).status_code == 401
    api.patch("/accounts/anna@example.test", json={"administrator": True})
    assert client.get(API, headers=basic("anna@example.test", PASSWORD)).status_code == 200
    api.patch("/accounts/anna@example.test", json={"enabled": False})
    assert client.get(API, headers=basic("anna@example.test", PASSWORD)).status_code == 401


def test_loopback_is_slowed_and_never_banned(client):
    """Through Docker's port all peers look the same: a ban of one would be a ban of the owner."""
    for number in range(12):
        assert client.get(API, headers=basic(ADMIN, f"guess {number}")).status_code == 401
    assert client.get(API, headers=basic(ADMIN, PASSWORD)).status_code == 200


def test_only_a_few_attempts_of_one_address_wait_together(admin_room, monkeypatch):
    access = admin_room.context  # a slow check, so that they meet
    monkeypatch.setattr("services.admin.access.AT_ONCE", 0)
    with admin_room.client() as client:
        answer = client.get(API)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0 and access


def test_log_ins_are_recorded(admin_room, client):
    client.get(API, headers=basic(ADMIN, "wrong"))
    client.get(API, headers=basic(ADMIN, PASSWORD))
    logins = [event for event in admin_room.recorded() if event["kind"] == "login"][-2:]
    assert [event["outcome"] for event in logins] == ["reject", "accept"]
    assert all(event["peer"] == "127.0.0.1" and event["account"] == ADMIN for event in logins)


def test_changes_are_recorded_with_who_from_where_and_by_which_door(admin_room, api, client):
    api.post("/aliases", json={"source": "a@example.test", "target": ADMIN})
    client.post("/api/v1/aliases", json={"source": "b@example.test", "target": ADMIN}, headers=basic(ADMIN, PASSWORD))
    changes = [event for event in admin_room.recorded() if event["kind"] == "admin-change"][-2:]
    assert [(change["by"], change["via"], change.get("peer", "")) for change in changes] == [
        ("command line", "command line", ""), (ADMIN, "API", "127.0.0.1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "localhost.", "[::2]", "a@localhost"]
)
def test_another_name_in_host_is_refused(client, host):
    answer = client.get("/login", headers={"Host": host})
    assert answer.status_code in (400, 421), answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]", "[::1]:8080", "mail.example.test"])
def test_our_names_in_host(client, host):
    assert client.get("/login", headers={"Host": host}).status_code == 200


def test_a_change_from_another_origin_is_refused(admin_room, client):
    for origin, status in (("http://evil.example", 403), ("null", 403), (admin_room.url, 401)):
        assert client.post("/api/v1/queue/retry", headers={"Origin": origin}).status_code == status


@pytest.mark.parametrize("path", ["/login", "/", "/api/v1/accounts", "/static/style.css", "/nothing"])
def test_every_answer_has_the_security_headers(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
    assert "server" not in headers
    if not path.startswith("/static"):
        assert headers["cache-control"] == "no-store"


def test_bodies_are_bounded(admin_room):
    with admin_room.client(auth=None, headers=token(admin_room)) as client:
        declared = client.post(API, content=b"x" * 70_000)
        chunked = client.post(API, content=(b"x" * 1000 for _ in range(70)))
        form = client.post("/login", content=(b"x" * 1000 for _ in range(70)))
    assert [answer.status_code for answer in (declared, chunked, form)] == [413, 413, 413]


def test_openapi_is_all_that_is_open(client):
    assert client.get("/api/v1/openapi.json").status_code == 200
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


# --- sessions ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sessions(tmp_path):
    now = [1000.0]

    class Clocked(Sessions):
        clock = now

    return Clocked(str(tmp_path / "sessions.json"), clock=lambda: now[0])


@pytest.mark.parametrize(("step", "lives"), [(-30.0, True), (-86_400.0, False), (86_400.0, False), (3600.0, True)])
def test_a_session_lives_through_a_small_step_of_the_clock_alone(sessions, step, lives):
    token = sessions.open("admin@example.test", "mark")
    sessions.clock[0] += step
    assert (sessions.find(token) is not None) is lives
    sessions.clock[0] += 10 * 365 * 86_400
    assert sessions.find(token) is None


def test_a_session_ends_when_idle_and_after_a_week(sessions):
    token = sessions.open(ADMIN, "mark")
    sessions.clock[0] += IDLE_SECONDS - 1
    assert sessions.find(token)
    sessions.clock[0] += IDLE_SECONDS - 1
    assert sessions.find(token)
    sessions.clock[0] += IDLE_SECONDS + 1
    assert sessions.find(token) is None
    token, opened = sessions.open(ADMIN, "mark"), sessions.clock[0]
    while sessions.clock[0] < opened + LONGEST_SECONDS:
        assert sessions.find(token)
        sessions.clock[0] += IDLE_SECONDS / 2
    assert sessions.find(token) is None


def test_sessions_outlive_a_restart_without_their_tokens(sessions, tmp_path):
    token = sessions.open(ADMIN, "mark")
    path = tmp_path / "sessions.json"
    assert token not in path.read_text() and path.stat().st_mode & 0o077 == 0
    again = Sessions(str(path), clock=lambda: 1001.0)
    assert again.find(token).form_token == sessions.find(token).form_token
    sessions.close(token)
    assert sessions.find(token) is None
    assert Sessions(str(path), clock=lambda: 1001.0).find(token) is None


def test_who_was_at_work_all_day_is_not_logged_out_by_a_restart(sessions, tmp_path):
    token, opened = sessions.open(ADMIN, "mark"), sessions.clock[0]
    while sessions.clock[0] < opened + IDLE_SECONDS:
        sessions.clock[0] += 1800
        assert sessions.find(token)
    again = Sessions(str(tmp_path / "sessions.json"), clock=lambda: sessions.clock[0] + 60)
    assert again.find(token)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"x": {"account": 1}}', '{"x": 5}', "\0"])
def test_a_broken_file_logs_everybody_out(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    assert Sessions(str(tmp_path / "s.json")).find("x") is None


def test_sessions_are_bounded(sessions):
    tokens = [sessions.open(ADMIN, "mark") for _ in range(MOST + 5)]
    assert sessions.find(tokens[-1]) and len(sessions._by_hash) <= MOST


def test_form_tokens_belong_to_a_session():
    one, other = (Session("a", "m", 0, 0, secret) for secret in "xy")
    assert one.is_form_token(one.form_token)
    assert not any(one.is_form_token(given) for given in (other.form_token, "", "é", one.form_token[:-1]))


# --- the page's cookie at the API ---------------------------------------------------------------------------------------


def test_cookie_is_for_this_site_alone(client):
    answer = log_in(client)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "secure" not in cookie


def test_cookie_reads_the_api_and_changes_only_with_the_form_token(client, admin_room):
    log_in(client)
    assert client.get(API).status_code == 200
    assert client.post("/api/v1/queue/retry").status_code == 403
    assert client.post("/api/v1/queue/retry", headers={"X-Form-Token": "0" * 32}).status_code == 403
    page = client.get("/accounts").text
    form_token = page.partition('name="form_token" value="')[2].partition('"')[0]
    assert client.post("/api/v1/queue/retry", headers={"X-Form-Token": form_token}).status_code == 200


@pytest.mark.parametrize("change", [{"enabled": False}, {"administrator": False}, "password", "delete"])
def test_a_session_ends_with_its_right(api, admin_room, change):
    api.post("/accounts", json={"address": "anna@example.test", "password": PASSWORD, "administrator": True})
    with admin_room.client(auth=None) as client:
        log_in(client, "anna@example.test")
        assert client.get(API).status_code == 200
        if change == "password":
            api.put("/accounts/anna@example.test/password", json={"password": "another password"})
        elif change == "delete":
            api.delete("/accounts/anna@example.test")
        else:
            api.patch("/accounts/anna@example.test", json=change)
        # An administrator no more is still one of the family.
        assert client.get(API).status_code == (403 if change == {"administrator": False} else 401)
        assert client.get("/accounts").status_code == (403 if change == {"administrator": False} else 303)


def test_many_at_once_are_all_answered(admin_room):
    """The database's lock, the threads and the loop under load: nobody waits for ever, nobody gets a fault."""
    results = []

    def ask():
        with httpx.Client(base_url=admin_room.url, headers=token(admin_room), timeout=20) as client:
            for number in range(10):
                results.append(client.get(API).status_code)
                name = f"u{number}{threading.get_ident()}@example.test"
                results.append(client.post("/api/v1/aliases", json={"source": name, "target": ADMIN}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 100 and set(results) == {200, 201}
