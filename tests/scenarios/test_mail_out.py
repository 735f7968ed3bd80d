"""Mail that people send: who may, what is added, where it goes, and what comes back when it cannot."""

import email
import secrets
from collections.abc import Callable
from email.policy import default
from pathlib import Path
from typing import Any

import dkim
import pytest
from fakes import FakeDns, FakeMailServer, mail_server
from house import PASSWORD, House
from mailclients import LetterRefused, deliver, letter, run, swaks, until


def sent_by(relay: FakeMailServer, message_id: str, seconds: float = 20) -> bytes:
    """The message with this Message-ID as the relay got it."""
    return until(
        lambda: next((each.message for each in relay.received if message_id.encode() in each.message), b""), seconds
    )


def test_mail_within_the_house_never_leaves_it(at_home: House, relay: FakeMailServer) -> None:
    ann, ben = at_home.account(), at_home.account()
    sent = letter(ann, ben)
    at_home.submit(ann, ben, message=sent.message)
    assert at_home.letter(ben, sent.message_id).endswith(b"\r\n\r\nHello.\r\n")
    assert not [each for each in relay.received if sent.message_id.encode() in each.message]


def test_mail_to_others_goes_to_the_relay_signed_once(at_home: House, relay: FakeMailServer) -> None:
    ann = at_home.account()
    sent = letter(ann, "friend@outside.test", subject="=?utf-8?b?5L2g5aW9?=", body="你好\r\n.\r\n..\r\n".encode())
    at_home.submit(ann, "friend@outside.test", message=sent.message)
    arrived = sent_by(relay, sent.message_id)
    assert arrived.endswith(sent.message.partition(b"\r\n\r\n")[2])
    signatures = email.message_from_bytes(arrived, policy=default).get_all("DKIM-Signature") or []
    assert len(signatures) == 1 and "a=rsa-sha256" in signatures[0] and "d=example.test" in signatures[0]
    assert dkim.verify(arrived, dnsfunc=published(at_home, "example.test"))
    took = next(each for each in relay.received if each.message == arrived)
    assert (took.sender, took.recipients, took.login) == (ann, ["friend@outside.test"], "family@relay.test")


def published(house: House, domain: str) -> Callable[..., bytes | None]:
    """A DNS of what `mailstead dkim show` tells the owner to publish, in dkimpy's form."""
    records = {each["name"]: each["value"].encode() for each in house.asked("dkim", "show", domain)["records"]}

    def look_up(name: bytes | str, timeout: int = 5) -> bytes | None:
        text = name.decode() if isinstance(name, bytes) else name
        return records.get(text.rstrip("."))

    return look_up


def test_sent_directly_it_carries_two_signatures_that_verify(new_house: Callable[..., House], dns: FakeDns) -> None:
    with mail_server() as outside:
        dns.records[("direct.test", "MX")] = ["10 mx.direct.test."]
        dns.records[("mx.direct.test", "A")] = ["127.0.0.1"]
        house = new_house(MX_PORT=str(outside.port))
        ann = house.account()
        sent = letter(ann, "friend@direct.test")
        house.submit(ann, "friend@direct.test", message=sent.message)
        arrived = outside.wait_for(1)[0].message
        check = dkim.DKIM(arrived)
        algorithms = {
            bytes(value).split(b"a=")[1].split(b";")[0] for name, value in check.headers if name == b"DKIM-Signature"
        }
        assert algorithms == {b"rsa-sha256", b"ed25519-sha256"}
        for index in (0, 1):
            assert check.verify(idx=index, dnsfunc=published(house, "example.test")), index


@pytest.mark.parametrize(("listener", "tls"), [("submission", "starttls"), ("submissions", "tls")])
def test_nobody_sends_without_logging_in(at_home: House, listener: str, tls: str) -> None:
    sent = letter("ann@example.test", "friend@outside.test")
    with pytest.raises(LetterRefused) as refused:
        deliver(at_home.port(listener), "ann@example.test", ["friend@outside.test"], sent.message, tls=tls)
    assert refused.value.code == 530 and refused.value.text.startswith("5.7.0")


def test_log_in_is_offered_only_under_tls(at_home: House) -> None:
    plain = swaks(at_home.port("submission"), "--quit-after", "EHLO")
    assert "STARTTLS" in plain.output and "AUTH" not in plain.output, plain.output
    secured = swaks(at_home.port("submission"), "--quit-after", "EHLO", "--tls")
    assert "AUTH PLAIN LOGIN" in secured.output, secured.output


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(("listener", "tls"), [("submission", "--tls"), ("submissions", "--tls-on-connect")])
def test_swaks_sends_by_address_or_by_user_name(at_home: House, listener: str, tls: str, mechanism: str) -> None:
    ann, ben = at_home.account(), at_home.account()
    for user in (ann, ann.partition("@")[0]):
        sent = letter(ann, ben)
        tried = swaks(
            at_home.port(listener), tls, "--auth", mechanism, "--auth-user", user, "--auth-password", PASSWORD,
            "--from", ann, "--to", ben, "--data", "-", "--helo", "laptop", stdin=sent.message,
        )  # fmt: skip
        assert tried.status == 0, tried.output
        assert at_home.letter(ben, sent.message_id)


def test_curl_sends(at_home: House, tmp_path: Path) -> None:
    ann, ben = at_home.account(), at_home.account()
    sent = letter(ann, ben)
    (tmp_path / "letter").write_bytes(sent.message)
    done = run(
        "curl", "-sS", "-k", f"smtps://127.0.0.1:{at_home.port('submissions')}", "--user", f"{ann}:{PASSWORD}",
        "--mail-from", ann, "--mail-rcpt", ben, "--upload-file", str(tmp_path / "letter"),
    )  # fmt: skip
    assert done.status == 0, done.output
    assert at_home.letter(ben, sent.message_id)


def test_an_account_sends_only_as_itself_and_its_aliases(at_home: House) -> None:
    ann, ben = at_home.account(), at_home.account()
    with pytest.raises(LetterRefused) as refused:
        at_home.submit(ann, ben, sender=ben, message=letter(ben, ben).message)
    assert refused.value.code in (550, 553) and refused.value.text.startswith("5.7.1")
    alias = "post-" + ann
    at_home.alias(alias, ann)
    sent = letter(alias, ben)
    at_home.submit(ann, ben, sender=alias, message=sent.message)
    assert at_home.letter(ben, sent.message_id).startswith(f"Return-Path: <{alias}>".encode())


def test_what_a_client_forgot_is_added_and_bcc_is_removed(at_home: House) -> None:
    ann, ben = at_home.account(), at_home.account()
    word = secrets.token_hex(8)
    bare = (
        f"From: {ann}\r\nTo: {ben}\r\nBcc: hidden@outside.test\r\n other@outside.test\r\nSubject: {word}\r\n\r\nHi.\r\n"
    )
    at_home.submit(ann, ben, message=bare.encode())
    read = email.message_from_bytes(at_home.letter(ben, word), policy=default)
    assert read["Date"] and "@" in read["Message-ID"]
    assert read["Bcc"] is None and "hidden" not in str(read) and "other@" not in str(read)


def test_a_refusal_by_the_relay_comes_back_with_its_words(at_home: House, relay: FakeMailServer) -> None:
    ann = at_home.account()
    relay.script.replies["gone@outside.test"] = "550 5.1.1 no such person, said the relay"
    sent = letter(ann, "gone@outside.test", subject="to nobody")
    at_home.submit(ann, "gone@outside.test", "friend@outside.test", message=sent.message)
    assert sent_by(relay, sent.message_id), "the other recipient gets it"
    report = email.message_from_bytes(at_home.letter(ann, sent.message_id), policy=default)
    assert report["Return-Path"] == "<>"
    assert report.get_content_type() == "multipart/report"
    status = next(part for part in report.walk() if part.get_content_type() == "message/delivery-status").as_string()
    assert "Final-Recipient: rfc822; gone@outside.test" in status and "Action: failed" in status
    assert "Status: 5.1.1" in status and "no such person, said the relay" in status
    assert "friend@outside.test" not in status


def test_while_the_relay_is_away_mail_waits_and_then_goes_once(at_home: House, relay: FakeMailServer) -> None:
    ann = at_home.account()
    relay.script.replies["later@outside.test"] = "451 4.3.0 not now"
    sent = letter(ann, "later@outside.test")
    at_home.submit(ann, "later@outside.test", message=sent.message)

    def waiting() -> list[dict[str, Any]]:
        queue = at_home.asked("queue", "list")["messages"]
        return [each for each in queue if each["sender"] == ann and each["recipients"][0]["attempts"] >= 1]

    (queued,) = until(waiting)
    assert "not now" in queued["recipients"][0]["last_reply"]
    del relay.script.replies["later@outside.test"]
    at_home.cli("queue", "retry", queued["id"])  # on a slow machine its own retry comes first
    assert sent_by(relay, sent.message_id)
    until(lambda: not waiting())
    assert len([each for each in relay.received if sent.message_id.encode() in each.message]) == 1


def test_a_dropped_message_is_gone(at_home: House, relay: FakeMailServer) -> None:
    ann = at_home.account()
    relay.script.replies["never@outside.test"] = "451 4.3.0 not now"
    at_home.submit(ann, "never@outside.test", message=letter(ann, "never@outside.test").message)

    def ours() -> list[str]:
        return [each["id"] for each in at_home.asked("queue", "list")["messages"] if each["sender"] == ann]

    (queue_id,) = until(ours)
    at_home.command("queue", "drop", queue_id)
    assert not ours()


def test_a_domain_that_takes_no_mail_is_told_at_once(new_house: Callable[..., House], dns: FakeDns) -> None:
    dns.records[("nullmx.test", "MX")] = ["0 ."]
    house = new_house()
    ann = house.account()
    sent = letter(ann, "someone@nullmx.test")
    house.submit(ann, "someone@nullmx.test", message=sent.message)
    assert b"5.1.10" in house.letter(ann, sent.message_id)  # RFC 7505 §4.2


def test_an_address_elsewhere_is_forwarded_with_the_message_as_it_was(at_home: House, relay: FakeMailServer) -> None:
    at_home.alias("away@example.test", "me@outside.test")
    sent = letter("friend@elsewhere.test", "away@example.test", body=b"as it was\r\n.\r\n")
    at_home.receive("friend@elsewhere.test", "away@example.test", message=sent.message)
    assert sent_by(relay, sent.message_id).endswith(sent.message)


def test_sendtest_is_delivered(at_home: House) -> None:
    ann = at_home.account()
    at_home.command("send-test", ann)

    def count() -> bool:
        with at_home.imap(ann) as client:
            return bool(client.select("INBOX", readonly=True)[1] == [b"1"])

    until(count)
