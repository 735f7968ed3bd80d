"""TLS as others see it: each listener looked at with sslscan and openssl, and STARTTLS with something slipped in behind.

The context's own rules are tested in tests/unit/runtime/test_tls.py; here every port of a running house must have them.
"""

import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from house import House
from mailclients import LOOPBACK, trusting
from tlsview import assert_good, scan

# Listener → how sslscan and openssl ask it for TLS; "" is TLS from the first byte.
LISTENERS = {"smtp": "smtp", "submission": "smtp", "submissions": "", "imap": "imap", "imaps": ""}
CLEAR = {name: kind for name, kind in LISTENERS.items() if kind}


def test_sslscan_finds_nothing_to_object_to_on_any_port(at_home: House) -> None:
    with ThreadPoolExecutor(2) as pool:
        looked = pool.map(lambda name: scan(at_home.port(name), LISTENERS[name]), LISTENERS)
        for name, found in zip(LISTENERS, looked, strict=True):
            assert_good(found, name)


def test_the_admin_page_is_no_worse_where_it_is_open_to_others(new_house: Callable[..., House]) -> None:
    house = new_house(
        ADMIN_BIND="192.0.2.1"
    )  # not loopback, so it has TLS; without Docker it listens there all the same
    assert house.ready["ready"].startswith("https://")
    assert house.asked("account", "list"), "the command line finds its way"
    assert_good(scan(house.port("admin"), ""))


def s_client(port: int, kind: str, *arguments: str, say: str = "") -> str:
    """What `openssl s_client` prints of a connection in which it says `say`, or only farewell."""
    how = ["-starttls", kind] if kind else []
    farewell = "" if say else "a LOGOUT\r\nQUIT\r\n"  # one of them is understood
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{LOOPBACK}:{port}", *how, *arguments],
        input=(say + farewell).encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout.decode("utf-8", "replace")


@pytest.mark.parametrize("listener", LISTENERS)
def test_no_client_may_renegotiate(at_home: House, listener: str) -> None:
    # A line that is R alone makes openssl ask for it.
    said = s_client(at_home.port(listener), LISTENERS[listener], "-tls1_2", say="R\n")
    assert "RENEGOTIATING" in said and "no renegotiation" in said, said


# What a client asks for is not looked at: a phone at home asks for an address, another server for its MX. What is no
# name at all is refused, and leaves no traceback on the log (at_home looks at its end).
NAMES = {
    b"elsewhere.example": True,
    b"192.0.2.1": True,
    b"x" * 250: True,
    b"a..b": True,
    b"%n%s": True,
    b"\xff\xfe": False,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("listener", ["smtp", "imaps"])
def test_any_server_name_is_taken_and_an_odd_one_harms_nobody(at_home: House, listener: str, name: bytes) -> None:
    said = s_client(at_home.port(listener), LISTENERS[listener], "-ign_eof", "-servername", os.fsdecode(name))
    assert ("\nNew, TLSv1.3" in said) is NAMES[name], said
    assert "Traceback" not in at_home.log


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("listener", LISTENERS)
def test_a_session_is_resumed_on_the_port_that_gave_it(
    at_home: House, tmp_path: Path, listener: str, version: str
) -> None:
    port, kind, kept = at_home.port(listener), LISTENERS[listener], str(tmp_path / "session")
    assert "\nNew, TLSv1." in s_client(port, kind, version, "-ign_eof", "-sess_out", kept)
    again = s_client(port, kind, version, "-ign_eof", "-sess_in", kept)
    assert "\nReused, TLSv1." in again, again


def test_a_ticket_is_worth_nothing_after_the_key_was_changed(new_house: Callable[..., House], tmp_path: Path) -> None:
    # A restart changes it as time does (tests/unit/runtime/test_tls.py): it is written nowhere.
    house, kept = new_house(), str(tmp_path / "session")
    s_client(house.port("imaps"), "", "-ign_eof", "-sess_out", kept)
    house.restart()
    assert "\nNew, TLSv1." in s_client(house.port("imaps"), "", "-ign_eof", "-sess_in", kept)


# --- STARTTLS with something slipped in (CVE-2011-0411)

# Nothing that is said in clear may be carried out once there is TLS: a man in the middle says it.
SLIPPED_IN = {"smtp": b"EHLO evil.test\r\nNOOP slipped in\r\n", "imap": b"x NOOP\r\ny CAPABILITY\r\n"}
ASK = {"smtp": b"STARTTLS\r\n", "imap": b"a STARTTLS\r\n"}
GO_AHEAD = {"smtp": b"220 ", "imap": b"a OK "}


class Clear:
    """A connection on a listener with STARTTLS, greeted and ready for it."""

    def __init__(self, port: int, kind: str) -> None:
        self.kind = kind
        self.socket = socket.create_connection((LOOPBACK, port), timeout=10)
        self.read_to(b"\r\n")
        if kind == "smtp":
            self.socket.sendall(b"EHLO client.test\r\n")
            self.read_to(b"250 HELP\r\n")

    def read_to(self, end: bytes) -> bytes:
        """What came, up to `end` or to where the other side closes."""
        got = b""
        while not got.endswith(end):
            try:
                piece = self.socket.recv(4096)
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            got += piece
        return got

    def first_words_under_tls(self) -> bytes:
        """What the server answers to the first command under TLS; b"" where there is no TLS to be had."""
        try:
            with trusting().wrap_socket(self.socket, server_hostname=LOOPBACK) as secured:
                secured.sendall(b"RSET\r\n" if self.kind == "smtp" else b"first LOGOUT\r\n")
                return secured.recv(4096)
        except (ssl.SSLError, ConnectionError):
            return b""

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(params=CLEAR)
def clear(request: pytest.FixtureRequest, at_home: House) -> Clear:
    connection = Clear(at_home.port(request.param), CLEAR[request.param])
    request.addfinalizer(connection.close)
    return connection


def test_commands_in_the_segment_of_starttls_are_never_carried_out(clear: Clear) -> None:
    clear.socket.sendall(ASK[clear.kind] + SLIPPED_IN[clear.kind])
    refused = clear.read_to(b"no such end")  # it closes
    assert refused.startswith((b"503 ", b"a BAD ")) and refused.count(b"\r\n") == 1, refused


def test_commands_in_a_segment_of_their_own_before_the_handshake_are_never_carried_out(clear: Clear) -> None:
    clear.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    clear.socket.sendall(ASK[clear.kind])
    clear.socket.sendall(SLIPPED_IN[clear.kind])
    answered = clear.read_to(b"\r\n")
    assert answered.startswith((GO_AHEAD[clear.kind], b"503 ", b"a BAD ")), answered
    assert clear.first_words_under_tls() == b"", "no handshake over what is no ClientHello"


def test_commands_between_the_go_ahead_and_the_handshake_are_never_carried_out(clear: Clear) -> None:
    clear.socket.sendall(ASK[clear.kind])
    assert clear.read_to(b"\r\n").startswith(GO_AHEAD[clear.kind])
    clear.socket.sendall(SLIPPED_IN[clear.kind])
    assert clear.first_words_under_tls() == b""


def test_without_anything_slipped_in_what_was_said_before_is_forgotten(clear: Clear) -> None:
    clear.socket.sendall(ASK[clear.kind])
    assert clear.read_to(b"\r\n").startswith(GO_AHEAD[clear.kind])
    # RFC 3207 §4.2: RSET is answered, and the session begins again. The tag is the first command's: nothing stood before.
    assert clear.first_words_under_tls().startswith((b"250 2.0.0", b"* BYE"))
