"""Mail that aliases send on, reports that were asked for, and full mailboxes: over the wire, in one process."""

import email
import smtplib
import ssl
from collections.abc import Callable
from email.policy import default
from pathlib import Path

import pytest
from fakes import FakeDns, FakeMailServer, Script
from house import PASSWORD, House, traced
from mailclients import LetterRefused, letter, messages, until


@pytest.fixture
def gmail(dns: FakeDns) -> FakeMailServer:
    """Where forwards go; `far.test` beside it is a domain whose SPF vouches for 127.0.0.1."""
    server = FakeMailServer(Script())
    dns.records[("gmail.test", "MX")] = ["10 mx.gmail.test."]
    dns.records[("mx.gmail.test", "A")] = ["127.0.0.1"]
    dns.records[("far.test", "MX")] = ["10 mx.gmail.test."]
    dns.records[("far.test", "TXT")] = ['"v=spf1 ip4:127.0.0.1 -all"']
    return server


@pytest.fixture
def forwarding(new_house: Callable[..., House], gmail: FakeMailServer) -> House:
    """A house that sends directly, to `gmail`."""
    house = new_house(MX_PORT=str(gmail.port), FORWARD_PER_DAY="4")
    house.command("account", "add", "anna@example.test", PASSWORD)
    house.command("account", "password", "admin@example.test", PASSWORD)
    house.alias("anna@example.test", "anna@gmail.test", "--keep-copy")
    return house


def read(house: House, account: str, mailbox: str = "INBOX") -> list[bytes]:
    with house.imap(account) as client:
        return list(messages(client, mailbox).values())


def test_a_refused_forward_tells_the_owner_and_nobody_who_may_be_forged(
    forwarding: House, gmail: FakeMailServer
) -> None:
    gmail.script.replies["anna@gmail.test"] = "550 5.7.1 we do not like this"
    # Nothing vouches for this sender: a report would go to whoever they claim to be.
    sent = letter("friend@outside.test", "anna@example.test")
    forwarding.receive("friend@outside.test", "anna@example.test", message=sent.message)
    report = until(
        lambda: next((each for each in read(forwarding, "anna@example.test") if b"Not forwarded" in each), b""), 20
    )
    assert b"we do not like this" in report and sent.message_id.encode() in report
    assert forwarding.letter("anna@example.test", sent.message_id), "the copy is kept"
    events = traced(forwarding, sent.message_id, "forwarded", "dropped")
    assert any("anna@example.test is told" in each.get("reason", "") for each in events)
    assert gmail.received == [], "no report left the house"
    # The report itself is forwarded too, by the same alias, refused, and ends there.
    until(lambda: not forwarding.asked("queue", "list")["messages"], 20)
    assert len([each for each in read(forwarding, "anna@example.test") if b"Not forwarded" in each]) == 1


def test_a_refused_forward_of_a_proven_sender_goes_back_to_them(forwarding: House, gmail: FakeMailServer) -> None:
    gmail.script.replies["anna@gmail.test"] = "550 5.1.1 no such person"
    sent = letter("friend@far.test", "anna@example.test")
    forwarding.receive("friend@far.test", "anna@example.test", message=sent.message)
    report = gmail.wait_for(1)[0]
    assert (report.sender, report.recipients) == ("", ["friend@far.test"]), "through our SRS address and back"
    assert b"no such person" in report.message and b"report-type=delivery-status" in report.message


def test_a_days_forwards_and_then_no_more_until_tomorrow(forwarding: House, gmail: FakeMailServer) -> None:
    for number in range(6):
        sent = letter("friend@outside.test", "anna@example.test", subject=str(number))
        forwarding.receive("friend@outside.test", "anna@example.test", message=sent.message)
    gmail.wait_for(4)
    told = until(
        lambda: next((each for each in read(forwarding, "admin@example.test") if b"forwards are used up" in each), b""),
        20,
    )
    assert b"FORWARD_PER_DAY" in told
    waiting = until(
        lambda: [each for each in forwarding.asked("queue", "list")["messages"] if each["kind"] == "forward"], 20
    )
    assert len(waiting) == 2 and "FORWARD_PER_DAY" in waiting[0]["recipients"][0]["last_reply"]
    assert len(read(forwarding, "anna@example.test")) == 6, "the copies here do not wait"
    # And people of the house go on sending.
    own = letter("anna@example.test", "friend@far.test")
    forwarding.submit("anna@example.test", "friend@far.test", message=own.message)
    assert gmail.wait_for(5)[-1].sender == "anna@example.test"


def test_junk_is_not_forwarded(forwarding: House, gmail: FakeMailServer, dns: FakeDns) -> None:
    dns.records[("forged.test", "TXT")] = ['"v=spf1 -all"']
    forwarding.alias("list@example.test", "somebody@gmail.test")
    for recipient, account in (("anna@example.test", "anna@example.test"), ("list@example.test", "admin@example.test")):
        sent = letter("a@forged.test", recipient)
        forwarding.receive("a@forged.test", recipient, message=sent.message)
        assert forwarding.letter(account, sent.message_id, mailbox="Junk")
        assert any(
            "not forwarded" in each.get("reason", "") for each in traced(forwarding, sent.message_id, "forwarded")
        )
    assert gmail.received == []


def test_a_domain_alias_from_end_to_end(forwarding: House) -> None:
    forwarding.command("domain", "alias", "add", "other.test", "example.test")
    forwarding.command("account", "add", "ben@example.test", PASSWORD)
    forwarding.settle()
    for recipient in ("ben@other.test", "ben+shop@other.test", "postmaster@other.test"):
        sent = letter("friend@outside.test", recipient)
        forwarding.receive("friend@outside.test", recipient, message=sent.message)
        account = "admin@example.test" if recipient.startswith("postmaster") else "ben@example.test"
        assert recipient.encode() in forwarding.letter(account, sent.message_id)
    with pytest.raises(LetterRefused) as refused:
        forwarding.receive("friend@outside.test", "nobody@other.test", message=sent.message)
    assert refused.value.code == 550
    # Who receives as it may send as it, under the domain's own signature; and may log in by it.
    own = letter("ben@other.test", "anna@example.test")
    forwarding.submit("ben@other.test", "anna@example.test", sender="ben@other.test", message=own.message)
    signed = forwarding.letter("anna@example.test", own.message_id)
    assert b"d=other.test" in signed


# --- reports of success and full mailboxes


def ask_for_success(house: House, account: str, recipient: str, message: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP_SSL("127.0.0.1", house.port("submissions"), "client.test", timeout=20, context=context) as client:
        client.login(account, PASSWORD)
        assert client.has_extn("dsn")
        assert client.mail(account, ["RET=HDRS", "ENVID=mine"])[0] == 250
        assert client.rcpt(recipient, ["NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;{recipient}"])[0] == 250
        assert client.data(message)[0] == 250


def reported(house: House, account: str, action: str) -> email.message.Message:
    def look() -> email.message.Message | None:
        for each in read(house, account):
            message = email.message_from_bytes(each, policy=default)
            if message.get_content_type() == "multipart/report":
                status = message.get_payload(1).get_payload()
                if status[1]["Action"] == action:
                    return message
        return None

    found = until(look, 20)
    assert found is not None
    return found


def test_success_is_told_from_the_mailbox_or_from_the_last_server_that_could(at_home: House) -> None:
    ann, ben = at_home.account(), at_home.account()
    ask_for_success(at_home, ann, ben, letter(ann, ben, subject="inside").message)
    report = reported(at_home, ann, "delivered")
    about, one = report.get_payload(1).get_payload()
    assert about["Original-Envelope-Id"] == "mine" and one["Original-Recipient"] == f"rfc822; {ben}"
    ask_for_success(at_home, ann, "friend@outside.test", letter(ann, "friend@outside.test", subject="out").message)
    assert "Handed on: out" in reported(at_home, ann, "relayed")["Subject"]


def test_a_full_mailbox_is_said_at_rcpt_and_its_owner_is_written_to(tmp_path: Path, at_home: House) -> None:
    ann = at_home.account()
    at_home.command("account", "quota", ann, "40K")
    at_home.settle()
    large = letter("friend@outside.test", ann, body=b"0123456789abcdef\r\n" * 2050)
    at_home.receive("friend@outside.test", ann, message=large.message)
    assert at_home.letter(ann, large.message_id)

    def refused() -> bool:
        with smtplib.SMTP("127.0.0.1", at_home.port("smtp"), "client.test", timeout=20) as client:
            client.ehlo()
            client.mail("friend@outside.test", ["SIZE=9000"])
            code, text = client.rcpt(ann)
            assert (code, text[:5]) in ((250, b"2.1.5"), (452, b"4.2.2")), text
            return code == 452

    assert until(refused, 20)
    told = until(
        lambda: next((each for each in read(at_home, ann) if b"nearly full" in each or b"is full" in each), b""), 20
    )
    assert b"Auto-Submitted: auto-generated" in told
    shown = at_home.command("account", "quota", ann)
    assert "of 40 KiB" in shown and "%" in shown
    # There is room again as soon as something goes.
    with at_home.imap(ann) as client:
        client.select("INBOX")
        client.store("1:*", "+FLAGS", "\\Deleted")
        client.expunge()
    assert until(lambda: not refused(), 20)
