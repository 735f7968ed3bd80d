"""Whose address is seen: listeners on the host's own network, and behind bridges that cannot carry IPv6.

A second stack without the test world, first with NETWORK_MODE=host, then with bridges again. The peers are a container
on a network of the test's own with IPv4 and IPv6, as a machine in the same house would be: it reaches this machine by
that network's gateway address. Behind bridges IPv6 comes from loopback; which address it then has is Docker's doing.
"""

import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mailclients
import pytest
import stack as stacks
from mailclients import LetterRefused, letter, trusting, until
from stack import PASSWORD, Stack, must, sh

ANN, BEN = "ann@example.test", "ben@example.test"
ON_HOST = ("smtp-in", "smtp-out", "imap")
# One connection of each kind from inside the peer's container: host, port, what to do; prints the address it came from.
DELIVER = """
import smtplib, sys
host, port, recipient = sys.argv[1:]
with smtplib.SMTP(host, int(port), "peer.test", timeout=20) as client:
    print(client.sock.getsockname()[0])
    head = f"From: stranger@peer.test\\r\\nTo: {recipient}\\r\\nMessage-ID: <{host}@peer.test>\\r\\nSubject: from {host}\\r\\n"
    client.sendmail("stranger@peer.test", recipient, head + "Date: Sun, 22 Nov 2026 10:00:00 +0000\\r\\n\\r\\nHello.\\r\\n")
"""
LOG_IN = """
import imaplib, ssl, sys
host, port, login, *passwords = sys.argv[1:]
context = ssl._create_unverified_context()
for password in passwords:
    try:
        client = imaplib.IMAP4_SSL(host, int(port), ssl_context=context, timeout=30)
        client.login(login, password)
        print("in")
    except (imaplib.IMAP4.error, OSError) as error:
        print("out", str(error)[:80])
"""
RESOLVE = """
import asyncio
from services.runtime.dns import Resolver
print(asyncio.run(Resolver("unbound:53").addresses("health.mailstead.internal")))
"""


@dataclass(frozen=True, slots=True)
class Peers:
    """A container beside this machine; `v4` and `v6` are this machine's addresses as it reaches them."""

    container: str
    v4: str
    v6: str

    def run(self, script: str, *arguments: str) -> mailclients.Outcome:
        return sh(
            "docker", "exec", "-i", self.container, "python3", "-", *arguments, stdin=script.encode(), seconds=120
        )


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    project = os.environ["MAILSTEAD_TEST_PROJECT"] + "-second"
    stack = Stack(tmp_path_factory.mktemp("network"), project, world=False)
    stack.host |= {"BIND_ADDRESS": "", "NETWORK_MODE": "host"}
    stack.write_env("ports", stack.host)
    try:
        stack.up()
        for address in (ANN, BEN):
            stack.account(address)
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def peers(hosted: Stack) -> Iterator[Peers]:
    subnet = stacks.free_subnet()
    v6 = ipaddress.ip_network(f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}:1::/64")
    # Compose's label, so that whoever clears up after the project finds it.
    mine = ("--label", f"com.docker.compose.project={hosted.project}")
    name = f"{hosted.project}-peers"
    must(sh("docker", "network", "create", *mine, "--ipv6", "--subnet", f"{subnet}.0/29", "--subnet", str(v6), name))
    try:
        image = hosted.inspect("smtp-in")["Config"]["Image"]
        must(sh("docker", "run", "-d", "--init", *mine, "--name", name, "--network", name, image, "sleep", "3600"))
        yield Peers(name, f"{subnet}.1", str(v6[1]))
    finally:
        sh("docker", "rm", "-f", name)
        sh("docker", "network", "rm", name)


def traced(stack: Stack, address: str, kind: str) -> list[dict[str, Any]]:
    """The events of one kind that `mailstead trace` has of an address."""

    def look() -> list[dict[str, Any]]:
        return [event for event in stack.asked("trace", address)["events"] if event["kind"] == kind]

    return until(look, every=0.5)


# --- on the host's own network ------------------------------------------------------------------------------------
def test_up_says_which_way_it_is(hosted: Stack) -> None:
    assert "on this machine's own network" in hosted.output


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_peers_own_address_is_in_the_trace(hosted: Stack, peers: Peers, family: str) -> None:
    to = getattr(peers, family)
    came_from = must(peers.run(DELIVER, to, str(hosted.ports["smtp"]), ANN)).strip()
    assert (":" in came_from) is (family == "v6") and came_from != to
    (event,) = traced(hosted, came_from, "connect")
    assert event["peer"] == came_from and event["room"] == "smtp-in"
    hosted.letter(ANN, f"from {to}")


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_log_ins_are_recorded_under_the_true_address(hosted: Stack, peers: Peers, family: str) -> None:
    told = must(peers.run(LOG_IN, getattr(peers, family), str(hosted.ports["imaps"]), ANN, PASSWORD))
    assert told.split() == ["in"]
    address = must(peers.run(DELIVER, getattr(peers, family), str(hosted.ports["smtp"]), ANN)).strip()
    assert {event["account"] for event in traced(hosted, address, "login")} == {ANN}


def test_mail_goes_all_the_way_through_the_rooms(hosted: Stack) -> None:
    """Log-in, signature by dkim, queue, LMTP, and the hint to imap: each between this network and a bridge."""
    sent = letter(ANN, BEN)
    hosted.submit(ANN, BEN, message=sent.message)
    assert b"DKIM-Signature:" in hosted.letter(BEN, sent.message_id)


def test_a_forward_reaches_smtp_out(hosted: Stack) -> None:
    hosted.command("alias", "add", "away@example.test", "friend@elsewhere.test")
    hosted.settle()
    sent = letter("stranger@peer.test", "away@example.test")
    hosted.receive("stranger@peer.test", "away@example.test", message=sent.message)
    assert traced(hosted, sent.message_id, "queued")[0]["room"] == "smtp-out"


def test_names_outside_are_asked_of_the_stacks_resolver(hosted: Stack) -> None:
    for room in ("smtp-in", "smtp-out"):
        assert "127.0.0.1" in must(hosted.execute(room, "python3", "-c", RESOLVE))


def test_acme_sees_what_every_listener_serves(hosted: Stack) -> None:
    record = ("bash", "-c", "cat /var/lib/mailstead/events/acme/*")
    until(lambda: "every listener serves" in must(hosted.execute("acme", *record)), seconds=90, every=1.0)


def test_a_v6_peer_is_banned_and_nobody_else(hosted: Stack, peers: Peers) -> None:
    wrong = [f"wrong {number}" for number in range(12)]
    must(peers.run(LOG_IN, peers.v6, str(hosted.ports["imaps"]), BEN, *wrong))
    bans = hosted.asked("ban", "list")["bans"]
    assert [ipaddress.ip_address(peers.v6) in ipaddress.ip_network(ban["key"].split()[0]) for ban in bans] == [True], (
        bans
    )
    assert must(peers.run(LOG_IN, peers.v6, str(hosted.ports["imaps"]), BEN, PASSWORD)).startswith("out")
    assert must(peers.run(LOG_IN, peers.v4, str(hosted.ports["imaps"]), BEN, PASSWORD)).split() == ["in"]


@pytest.mark.parametrize("port", [20024, 20025, 20080])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_what_only_neighbours_ask_is_closed_to_peers(peers: Peers, family: str, port: int) -> None:
    script = "import socket, sys\nsocket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    told = peers.run(script, getattr(peers, family), str(port))
    assert told.status != 0 and "ConnectionRefusedError" in told.output


@pytest.mark.parametrize("room", ON_HOST)
def test_a_room_keeps_one_capability_and_its_own_user(hosted: Stack, room: str) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in must(hosted.execute(room, "cat", "/proc/1/status")).splitlines()
        if ":\t" in line
    )
    uid = {"smtp-in": "10001", "smtp-out": "10002", "imap": "5000"}[room]
    assert status["Uid"].split() == [uid] * 4 and status["Gid"].split() == [uid] * 4
    assert status["Groups"].split() == (["5000", "5002"] if room == "smtp-in" else ["5002", "5003"])
    bind_service = f"{1 << 10:016x}"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {bind_service}
    assert status["NoNewPrivs"] == "1"


def test_compose_typed_alone_keeps_it(hosted: Stack) -> None:
    before = hosted.started()
    must(hosted.compose("up", "-d"))
    assert hosted.started() == before
    assert "nothing to change" in hosted.up()
    assert hosted.started() == before


# --- behind bridges that cannot carry IPv6 -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bridged(hosted: Stack, peers: Peers) -> Stack:
    hosted.host |= {"BIND_ADDRESS": "::1", "NETWORK_MODE": "bridge"}
    text = (hosted.folder / "env" / "ports.env").read_text()
    assert "COMPOSE_FILE=compose.yaml:compose.host.yaml\n" in text
    hosted.write_env("ports", hosted.host | {"COMPOSE_FILE": "compose.yaml:compose.host.yaml"})
    hosted.up()
    return hosted


def greeted(port: int) -> socket.socket:
    """A connection to the stack over IPv6, greeted."""
    line = socket.create_connection(("::1", port), timeout=20)
    assert line.recv(200).startswith(b"220 ")
    return line


def test_going_back_to_bridges_keeps_accounts_and_mail(bridged: Stack) -> None:
    assert "the stack's networks change" in bridged.output
    assert {each["address"] for each in bridged.asked("account", "list")["accounts"]} >= {ANN, BEN}
    assert "COMPOSE_FILE" not in (bridged.folder / "env" / "ports.env").read_text()


def test_it_is_said_once_that_peers_come_from_the_gateway(bridged: Stack) -> None:
    for _ in range(25):
        greeted(bridged.ports["smtp"]).close()
    gateway = f"{bridged.subnet}.129"
    warned = [event for event in traced(bridged, gateway, "connect") if event.get("stage") == "gateway"]
    assert len(warned) == 1 and f"gateway {gateway}" in warned[0]["reason"]
    assert bridged.logs("smtp-in").count(f"come from the gateway {gateway}") == 1


def test_the_gateway_may_not_relay(bridged: Stack) -> None:
    with pytest.raises(LetterRefused) as refused:
        mailclients.deliver(
            bridged.ports["smtp"], "stranger@peer.test", ["friend@elsewhere.test"], b"", host="::1", source="::1"
        )
    assert refused.value.code == 550 and "5.7.1" in refused.value.text


def test_the_gateway_is_never_banned(bridged: Stack) -> None:
    """Twelve wrong passwords ban an address; here it would shut out everybody who comes over IPv6."""
    for number in range(12):
        assert not logged_in(bridged.ports["imaps"], f"wrong {number}")
    assert logged_in(bridged.ports["imaps"], PASSWORD)
    assert not [ban for ban in bridged.asked("ban", "list")["bans"] if ban["key"].startswith(f"{bridged.subnet}.")]


def logged_in(port: int, password: str) -> bool:
    with socket.create_connection(("::1", port), timeout=60) as plain:
        line: ssl.SSLSocket = trusting().wrap_socket(plain)
        file = line.makefile("rb")
        file.readline()
        line.sendall(f'a LOGIN {ANN} "{password}"\r\n'.encode())
        return file.readline().startswith(b"a OK")
