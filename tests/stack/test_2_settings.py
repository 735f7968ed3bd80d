"""What the owner changes while it runs: nothing, a wrong value, a certificate, and a relay host that comes and goes."""

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailclients import ImapLine, letter, trusting, until
from stack import PASSWORD, RELAY_LOGIN, Stack, must, results


def test_a_second_up_changes_nothing_and_says_so(stack: Stack) -> None:
    before = stack.started()
    told = stack.up()
    assert stack.started() == before
    assert re.search(r"(?i)nothing (to change|has changed|changed)|no(thing)? change", told), told


def test_a_wrong_value_stops_that_container_with_one_line(stack: Stack) -> None:
    before = stack.started()
    stack.write_env("queue", {"RETRY_FIRST": "soon"})
    told = stack.script("up")
    try:
        assert told.status != 0
        line = [line for line in told.output.splitlines() if "RETRY_FIRST" in line]
        assert line and "soon" in line[0] and "smtp-out" in told.output, told.output
        logged = [line for line in stack.logs("smtp-out").splitlines() if "RETRY_FIRST" in line]
        assert logged and "Traceback" not in stack.logs("smtp-out")
        others = {service: at for service, at in before.items() if service != "smtp-out"}
        assert {service: stack.inspect(service)["State"]["StartedAt"] for service in others} == others
    finally:
        stack.write_env("queue", {})
        stack.up()


def served(port: int) -> str:
    """The certificate on an implicit TLS port."""
    return ssl.get_server_certificate(("127.0.0.1", port))


@pytest.fixture
def own_certificate(stack: Stack, tmp_path: Path) -> Iterator[Path]:
    """A folder that the owner keeps a chain and key in, as SSL_TYPE=manual expects."""
    folder = tmp_path / "certificate"
    folder.mkdir()
    make_certificate(folder, "first")
    yield folder


def make_certificate(folder: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=DNS:mail.example.test", "-keyout", folder / "new.key", "-out", folder / "new.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    for end, final in (("key", "privkey.pem"), ("crt", "fullchain.pem")):
        (folder / f"new.{end}").chmod(0o644)
        (folder / f"new.{end}").rename(folder / final)


def test_a_new_certificate_is_served_by_all_without_dropping_a_connection(
    stack: Stack, ann: str, own_certificate: Path
) -> None:
    ports = (stack.ports["imaps"], stack.ports["submissions"])
    stack.write_env("ports", {**stack.host, "MAILSTEAD_CERTIFICATE_DIR": str(own_certificate)})
    stack.write_env(
        "tls",
        {
            "SSL_TYPE": "manual",
            "SSL_CERT_PATH": "/etc/mailstead/certificate/fullchain.pem",
            "SSL_KEY_PATH": "/etc/mailstead/certificate/privkey.pem",
        },
    )
    try:
        stack.up()
        first = (own_certificate / "fullchain.pem").read_text()
        until(lambda: [served(port) for port in ports] == [first] * 2, seconds=15, every=0.5)
        client = ImapLine(stack.ports["imaps"])
        client.command(f'LOGIN {ann} "{PASSWORD}"')
        make_certificate(own_certificate, "second")
        second = (own_certificate / "fullchain.pem").read_text()
        assert first != second
        until(lambda: [served(port) for port in ports] == [second] * 2, seconds=10, every=0.25)
        # STARTTLS on 25 and 143 follow too; the connection of before is still the same one, and alive.
        until(lambda: starttls_certificate(stack.ports["smtp"], "smtp") == second, seconds=3, every=0.25)
        until(lambda: starttls_certificate(stack.ports["imap"], "imap") == second, seconds=3, every=0.25)
        client.command("SELECT INBOX")
        client.command("LOGOUT")
        client.close()
    finally:
        stack.write_env("tls", {})
        stack.write_env("ports", stack.host)
        stack.up()


def starttls_certificate(port: int, protocol: str) -> str:
    import imaplib
    import smtplib

    if protocol == "smtp":
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.starttls(context=trusting())
            raw = client.sock.getpeercert(True)  # type: ignore[union-attr]
    else:
        with imaplib.IMAP4("127.0.0.1", port, 10) as reader:
            reader.starttls(trusting())
            raw = reader.sock.getpeercert(True)  # type: ignore[attr-defined]
    return ssl.DER_cert_to_PEM_cert(raw)


@pytest.fixture(scope="module")
def by_smarthost(stack: Stack) -> Iterator[Stack]:
    stack.write_env(
        "relay",
        {
            "RELAY_HOST": "smarthost.relay.test",
            "RELAY_USER": RELAY_LOGIN[0],
            "RELAY_PASSWORD": RELAY_LOGIN[1],
            "RELAY_CA_FILE": "/etc/mailstead/relay/ca.crt",
        },
    )
    stack.up()
    yield stack
    stack.write_env("relay", {})
    stack.up()


def test_by_the_smarthost_it_verifies_the_one_signature(by_smarthost: Stack, ann: str) -> None:
    stack = by_smarthost
    stack.publish_dkim("example.test")
    sent = letter(ann, "friend@outside.test", body=b"by the smarthost\r\n")
    stack.submit(ann, "friend@outside.test", message=sent.message)
    arrived = stack.arrived_outside(sent.message_id)
    for server in ("smarthost.relay.test", "mx.outside.test"):
        verified = results(arrived, server)
        assert verified.count("dkim=pass") == 1 and "header.a=rsa-sha256" in verified, verified
        assert "dkim=fail" not in verified and "ed25519" not in verified
    assert re.search(r"by smarthost\.relay\.test .* with ESMTPSA", arrived.replace("\n", " ")), "logged in, under TLS"


def test_while_the_smarthost_is_down_mail_is_queued_and_then_delivered(by_smarthost: Stack, ann: str) -> None:
    stack = by_smarthost
    must(stack.compose("stop", "--timeout", "1", "world-smarthost"))
    sent = letter(ann, "friend@outside.test", body=b"late\r\n")
    stack.submit(ann, "friend@outside.test", message=sent.message)

    def waiting() -> list[dict[str, object]]:
        queue = stack.asked("queue", "list")["messages"]
        return [each for each in queue if each["sender"] == ann and each["recipients"][0]["attempts"] >= 1]

    (queued,) = until(waiting, seconds=45, every=0.5)
    must(stack.compose("start", "world-smarthost"))
    until(lambda: stack.execute("world-smarthost", "bash", "-c", "</dev/tcp/127.0.0.1/587").status == 0, every=0.3)
    stack.command("queue", "retry", str(queued["id"]))
    assert "by smarthost.relay.test" in stack.arrived_outside(sent.message_id)
    until(lambda: not waiting(), every=0.5)
