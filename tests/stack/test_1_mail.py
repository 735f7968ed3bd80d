"""Real mail through the real containers: in, read, out directly, forwarded; and what the owner can see of it."""

import json
import re
import socket
import time
from pathlib import Path

import mailclients
import pytest
from mailclients import ImapLine, LetterRefused, letter, messages, run, swaks, until
from stack import CONTAINERS, PASSWORD, ROOMS, Stack, results

AWKWARD = b".\r\n..two dots\r\n\ttab \r\n\xe4\xb8\xad\xe6\x96\x87\r\n" + b"x" * 990 + b"\r\n\r\nlast\r\n"


def test_the_start_says_what_its_owner_needs_next(stack: Stack) -> None:
    assert f"http://127.0.0.1:{stack.ports['admin']}" in stack.output
    assert "admin@example.test" in stack.output and "ssh -L" in stack.output
    assert re.search(r"(?i)password", stack.output)


def test_every_container_is_healthy_and_runs_as_its_own_user(stack: Stack) -> None:
    users = set()
    for service in CONTAINERS:
        state = stack.inspect(service)
        assert state["State"]["Running"], service
        assert stack.execute(service, "healthcheck").status == 0, service
        users.add(state["Config"]["User"].split(":")[0])
    assert len(users) == len(CONTAINERS) - 1, "acme and docker-filter alone share one: 0, without capabilities"


def test_mail_from_outside_is_read_byte_for_byte(stack: Stack, ann: str) -> None:
    sent = letter("friend@outside.test", ann, body=AWKWARD)
    stack.receive("friend@outside.test", ann, message=sent.message)
    read = stack.letter(ann, sent.message_id)
    assert read.endswith(sent.message) and f"Delivered-To: {ann}\r\n".encode() in read


def test_the_outside_postfix_finds_us_by_dns_and_delivers_over_tls(stack: Stack, ann: str) -> None:
    sent = letter("friend@outside.test", ann, body="grüß dich\r\n".encode())
    stack.sent_from_outside("friend@outside.test", ann, sent.message)
    read = stack.letter(ann, sent.message_id).decode().replace("\r\n", "\n")
    received = re.findall(r"^Received: (.*(?:\n[ \t].*)*)", read, re.M)
    assert "from mx.outside.test" in received[0] and "with ESMTPS" in received[0]
    assert f"{stack.subnet}.134" in received[0], "the true address of the peer"


def test_an_unknown_recipient_is_refused_and_the_outside_tells_its_sender(stack: Stack) -> None:
    with pytest.raises(LetterRefused) as refused:
        stack.receive("friend@outside.test", "nobody@example.test", message=b"")
    assert refused.value.code == 550
    sent = letter("friend@outside.test", "nobody@example.test")
    stack.sent_from_outside("friend@outside.test", "nobody@example.test", sent.message)
    logs = until(lambda: re.findall(r"to=<nobody@example\.test>.*status=bounced.*", stack.logs("world-outside")))
    assert "550 5.1.1" in logs[0]


def test_sent_directly_the_world_verifies_both_signatures(stack: Stack, ann: str) -> None:
    stack.publish_dkim("example.test")
    sent = letter(ann, "friend@outside.test", subject="=?utf-8?b?5L2g5aW9?=", body=AWKWARD)
    stack.submit(ann, "friend@outside.test", message=sent.message)
    arrived = stack.arrived_outside(sent.message_id)
    verified = results(arrived, "mx.outside.test")
    assert len(re.findall(r"dkim=pass", verified)) == 2 and "dkim=fail" not in verified, verified
    assert "header.a=rsa-sha256" in verified and "header.a=ed25519-sha256" in verified
    assert "from mail.example.test" in arrived and "with ESMTPS" in arrived, "over the TLS that it offered"


def test_a_forged_change_would_have_been_seen(stack: Stack, ann: str) -> None:
    """The same message with one word changed fails there: the world does verify."""
    sent = letter(ann, "friend@outside.test", body=b"pay 10\r\n")
    stack.submit(ann, "friend@outside.test", message=sent.message)
    genuine = stack.arrived_outside(sent.message_id)
    head, _, body = genuine.replace("\r\n", "\n").partition("\n\n")
    signatures = re.findall(r"^DKIM-Signature:.*(?:\n[ \t].*)*", head, re.M)
    assert len(signatures) == 2
    kept = head[head.index(signatures[0]) :].replace(sent.message_id, "<forged@tests.test>")
    forged = f"{kept}\n\n{body.replace('pay 10', 'pay 99')}"
    done = stack.execute("world-smarthost", "sendmail", "-f", ann, "friend@outside.test", stdin=forged.encode())
    assert done.status == 0, done.output
    assert "dkim=pass" not in results(stack.arrived_outside("<forged@tests.test>"), "mx.outside.test")


def test_a_refusal_outside_comes_back_to_the_sender(stack: Stack, ann: str) -> None:
    sent = letter(ann, "refused@outside.test")
    stack.submit(ann, "refused@outside.test", message=sent.message)
    report = " ".join(stack.letter(ann, sent.message_id).decode().split())
    assert report.startswith("Return-Path: <>") and "No such person here" in report and "Status: 5.1.1" in report


def test_an_alias_forwards_to_the_outside_and_the_catch_all_takes_the_rest(stack: Stack, ben: str) -> None:
    stack.command("alias", "add", "away@example.test", "me@outside.test")
    stack.settle()
    forwarded = letter("friend@outside.test", "away@example.test")
    stack.sent_from_outside("friend@outside.test", "away@example.test", forwarded.message)
    assert "from mail.example.test" in stack.arrived_outside(forwarded.message_id)
    stack.command("domain", "add", "second.test")
    stack.command("alias", "add", "@second.test", ben)
    stack.settle()
    caught = letter("friend@outside.test", "whatever@second.test")
    stack.receive("friend@outside.test", "whatever@second.test", message=caught.message)
    assert b"Delivered-To: " in stack.letter(ben, caught.message_id)


def test_an_idle_client_is_told_within_a_second(stack: Stack, ben: str) -> None:
    client = ImapLine(stack.ports["imaps"])
    client.command(f'LOGIN {ben} "{PASSWORD}"')
    client.command("SELECT INBOX")
    with client.idling():
        stack.receive("friend@outside.test", ben, message=letter("friend@outside.test", ben).message)
        answered = time.monotonic()
        while b"EXISTS" not in client.line(5):
            pass
        assert time.monotonic() - answered < 1.0
    client.close()


def test_swaks_curl_and_mbsync_send_and_read(stack: Stack, ann: str, ben: str, tmp_path: Path) -> None:
    sent = letter(ann, ben)
    tried = swaks(
        stack.ports["submission"], "--tls", "--auth", "LOGIN", "--auth-user", ann, "--auth-password", PASSWORD,
        "--from", ann, "--to", ben, "--data", "-", stdin=sent.message,
    )  # fmt: skip
    assert tried.status == 0, tried.output
    stack.letter(ben, sent.message_id)
    whole = letter(ann, ben)
    (tmp_path / "letter").write_bytes(whole.message)
    done = run(
        "curl", "-sS", "-k", f"smtps://127.0.0.1:{stack.ports['submissions']}", "--user", f"{ann}:{PASSWORD}",
        "--mail-from", ann, "--mail-rcpt", ben, "--upload-file", str(tmp_path / "letter"),
    )  # fmt: skip
    assert done.status == 0, done.output
    stack.letter(ben, whole.message_id)
    synced = mailclients.mbsync(tmp_path, stack.ports["imaps"], ben, PASSWORD)
    assert synced.status == 0, synced.output
    files = [path.read_bytes() for path in (tmp_path / "mail" / "INBOX").rglob("*") if path.is_file()]
    assert any(sent.message_id.encode() in each for each in files)
    with mailclients.imap(stack.ports["imaps"], ben, PASSWORD) as client:
        assert len(messages(client)) == len([each for each in files if b"\nMessage-ID" in b"\n" + each])


def test_the_trace_of_a_message_shows_every_room_in_order(stack: Stack, ann: str, ben: str) -> None:
    sent = letter(ann, ben)
    stack.submit(ann, ben, message=sent.message)
    stack.letter(ben, sent.message_id)

    def events() -> list[dict[str, object]]:
        found = stack.asked("trace", sent.message_id)["events"]
        return found if "delivered" in {event["kind"] for event in found} else []

    found = until(events, every=0.5)
    assert {"smtp-out", "dkim", "smtp-in"} <= {str(event["room"]) for event in found}
    assert [event["t"] for event in found] == sorted(event["t"] for event in found)  # type: ignore[type-var]
    told = stack.command("trace", sent.message_id)
    assert "submitted" in told and "delivered" in told and ben in told


def test_the_trace_of_a_refused_recipient_gives_the_reason(stack: Stack) -> None:
    with pytest.raises(LetterRefused):
        stack.receive("spy@outside.test", "someone.else@elsewhere.test", message=b"")

    def events() -> list[dict[str, object]]:
        found = stack.script("mailstead", "--json", "trace", "someone.else@elsewhere.test")
        events = json.loads(found.output)["events"] if found.status == 0 else []
        return [event for event in events if event["kind"] == "rcpt"]

    (refusal,) = until(events, every=0.5)
    assert refusal["outcome"] == "reject" and refusal["reason"] and "5.7.1" in str(refusal["reply"])


def test_rooms_answer_each_other_only_with_the_secret(stack: Stack) -> None:
    """From inside smtp-in, dkim is not even on a network; imap answers 401 without the pair's secret."""
    ask = "exec 3<>/dev/tcp/{0}/8000; printf 'GET /v1/usage HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; head -n 1 <&3"
    assert "401" in stack.execute("smtp-in", "timeout", "5", "bash", "-c", ask.format("imap")).output
    assert stack.execute("smtp-in", "timeout", "5", "bash", "-c", ask.format("dkim")).status != 0


def test_the_status_names_every_container(stack: Stack) -> None:
    told = stack.command("status")
    assert all(room in told for room in ROOMS), told


def test_no_port_is_open_beyond_loopback(stack: Stack) -> None:
    for service in CONTAINERS:
        for bindings in (stack.inspect(service)["NetworkSettings"]["Ports"] or {}).values():
            assert all(each["HostIp"] == "127.0.0.1" for each in bindings or ()), service
    with socket.create_connection(("127.0.0.1", stack.ports["smtp"]), timeout=5) as connection:
        assert connection.recv(100).startswith(b"220 mail.example.test")
