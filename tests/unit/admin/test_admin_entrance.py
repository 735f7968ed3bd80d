"""The page beyond loopback: TLS with the house's certificate, names that nobody else can own, a word for plain HTTP."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from admin_room import ADMIN, AdminRoom, log_in, token, until
from certificates import Issued, issue

from services.admin.entrance import redirect
from services.admin.hosts import Hosts
from services.runtime.values import Settings

OPEN = "192.0.2.1"  # ADMIN_BIND: Docker opens that address; the room itself only learns that it is not loopback


def install(folder: Path, issued: Issued, generation: str) -> None:
    """As acme does."""
    (folder / generation).mkdir(parents=True)
    (folder / generation / "fullchain.pem").write_bytes(issued.chain)
    (folder / generation / "privkey.pem").write_bytes(issued.key)
    (folder / "new").symlink_to(generation)
    (folder / "new").rename(folder / "current")


def certificate() -> Issued:
    return issue("mail.example.test", "127.0.0.1", "localhost", now=time.time())


@pytest.fixture
def opened(tmp_path: Path, new_room: Callable[..., AdminRoom]) -> Iterator[tuple[AdminRoom, Issued]]:
    issued = certificate()
    install(tmp_path / "certs", issued, "1")
    yield new_room(admin_bind=OPEN, certs_dir=str(tmp_path / "certs"), admin_hosts="post.example.org"), issued


def port(room: AdminRoom) -> int:
    return room.context.ports["admin"]


def client(room: AdminRoom, issued: Issued, **options: Any) -> httpx.Client:
    trusting = ssl.create_default_context(cadata=issued.chain.decode())
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return httpx.Client(base_url=f"https://127.0.0.1:{port(room)}", verify=trusting, timeout=20, **options)


def test_the_page_has_tls_and_its_cookie_stays_inside(opened: tuple[AdminRoom, Issued]) -> None:
    room, issued = opened
    with client(room, issued) as browser:
        first = (room.folder / "admin" / "first-password").read_text().strip()
        answer = log_in(browser, ADMIN, first)
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"].lower()
        assert "; secure" in cookie and "; httponly" in cookie and "samesite=strict" in cookie
        assert "strict-transport-security" not in answer.headers, "nobody must be locked out by a self-made certificate"
        assert browser.get("/").status_code == 200
        event = [event for event in room.recorded() if event["kind"] == "login"][-1]
        assert (event["outcome"], event["peer"]) == ("accept", "127.0.0.1")


def test_the_command_line_needs_no_tls_and_no_certificate(tmp_path: Path, new_room: Callable[..., AdminRoom]) -> None:
    room = new_room(admin_bind=OPEN, certs_dir=str(tmp_path / "none"))
    import json

    url = json.loads((room.folder / "admin" / "cli.json").read_text())["url"]
    assert url.startswith("http://127.0.0.1:") and not url.endswith(f":{port(room)}")
    assert httpx.get(url + "/api/v1/accounts", headers=token(room), timeout=20).status_code == 200


def test_a_new_certificate_is_followed(opened: tuple[AdminRoom, Issued], monkeypatch: pytest.MonkeyPatch) -> None:
    from services.runtime import tls

    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.01)
    room, issued = opened
    with client(room, issued) as browser:
        assert browser.get("/login").status_code == 200
        new = certificate()
        install(room.folder / "certs", new, "2")

        def follows() -> bool:
            served = ssl.get_server_certificate(("127.0.0.1", port(room)))
            return ssl.PEM_cert_to_DER_cert(served) == ssl.PEM_cert_to_DER_cert(new.chain.decode())

        until(follows, 15)
        assert browser.get("/login").status_code == 200, "the open connection lives on"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name, 200) for name in ("post.example.org:8080", "mail.example.test", "192.168.1.5:8080", "[fd00::5]:8080")),
        *((name, 200) for name in ("nas", "NAS:8080", "nas.local", "pi.home.arpa:8080", "mail.internal")),
        *((name, 421) for name in ("evil.example", "nas.local.evil.example", "192.168.1.5.evil.example", "evil.lan")),
        *((name, 421) for name in ("", "nas.local.", "[::1].evil.example", "a@nas", "1.2.3", ".local", "[nas]")),
    ],
)
def test_only_names_that_nobody_else_can_own_open_the_page(
    opened: tuple[AdminRoom, Issued], host: str, status: int
) -> None:
    with client(*opened) as browser:
        assert browser.get("/login", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("host", ["nas", "nas.local", "192.168.1.5:8080"])
def test_on_loopback_only_its_own_names_do(host: str) -> None:
    assert not Hosts(Settings()).knows(host)
    assert Hosts(Settings(admin_bind="0.0.0.0")).knows(host)


def asked(room: AdminRoom, sent: bytes) -> bytes:
    """What comes back to `sent` in plain."""
    with socket.create_connection(("127.0.0.1", port(room)), timeout=10) as plain:
        plain.sendall(sent)
        got = b""
        while piece := plain.recv(4096):
            got += piece
        return got


def test_plain_http_is_shown_the_way(opened: tuple[AdminRoom, Issued]) -> None:
    room, issued = opened
    told = asked(room, f"GET /trace?query=a%20b HTTP/1.1\r\nHost: 127.0.0.1:{port(room)}\r\n\r\n".encode())
    assert told.startswith(b"HTTP/1.1 307 ")
    assert f"\r\nLocation: https://127.0.0.1:{port(room)}/trace?query=a%20b\r\n".encode() in told
    with client(room, issued) as browser:
        assert browser.get("/login").status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: nas\r\n\r\n",
        b"GET //evil.example/ HTTP/1.0\r\nHost: nas/\r\n\r\n",
        b"GET /\r\nSet-Cookie:x HTTP/1.1\r\nHost: nas\r\n\r\n",
        b"\x80\x2e\x01",
        b"",
    ],
)
def test_what_cannot_be_told_apart_only_gets_a_hint(head: bytes) -> None:
    answer = redirect(head, Hosts(Settings(admin_bind=OPEN)))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"https://" in answer
    assert b"Location" not in answer and b"evil" not in answer and b"Cookie" not in answer


def test_a_redirect_keeps_to_the_host_it_was_asked_for() -> None:
    answer = redirect(b"GET //evil.example/ HTTP/1.1\r\nHost: nas:8080\r\n\r\n", Hosts(Settings(admin_bind=OPEN)))
    assert b"\r\nLocation: https://nas:8080//evil.example/\r\n" in answer


@pytest.mark.parametrize(
    ("bind", "tls"),
    [("127.0.0.1", False), ("127.0.0.5", False), ("::1", False), ("[::1]", False), ("0.0.0.0", True), ("::", True),
     ("192.168.1.5", True), ("fd00::5", True)],
)  # fmt: skip
def test_whatever_is_not_loopback_has_tls(bind: str, tls: bool) -> None:
    assert Settings(admin_bind=bind).admin_tls is tls
