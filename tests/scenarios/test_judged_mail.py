"""Forged, signed, broken and unknown mail into the whole house; each verdict is read back from the record.

A relay of the owner's on loopback names the clients (XCLIENT), so that the house meets addresses of the internet. What
DNS says of them stands in the scenario's own server.
"""

import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeDns
from house import House, running, traced

from tests.unit.message import signedmail

GOOD, BAD = "203.0.113.10", "203.0.113.66"
KEY = '"v=DKIM1; p="' + "".join(
    f' "{signedmail.public_text(signedmail.RSA[2048]).decode()[start : start + 200]}"' for start in range(0, 400, 200)
)
RECORDS = {
    ("outside.test", "TXT"): [f'"v=spf1 ip4:{GOOD} -all"'],
    ("10.113.0.203.in-addr.arpa", "PTR"): ["mx.outside.test."],
    ("mx.outside.test", "A"): [GOOD],
    ("example.org", "TXT"): ['"v=spf1 -all"'],
    ("_dmarc.example.org", "TXT"): ['"v=DMARC1; p=reject"'],
    ("rsa._domainkey.example.org", "TXT"): [KEY],
}
ENVIRONMENT = {"TRUSTED_FORWARDERS": "127.0.0.1", "LOG_LEVEL": "info", "GREYLIST": "no"}


@pytest.fixture(scope="module")
def zone() -> Iterator[FakeDns]:
    server = FakeDns(RECORDS)
    yield server
    server.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, zone: FakeDns) -> Iterator[House]:
    with running(tmp_path_factory.mktemp("judging"), {**ENVIRONMENT, "RESOLVER": zone.address}) as made:
        yield made
        assert "Traceback" not in made.log, made.log


def brought(
    house: House, client: str, sender: str, recipient: str, message: bytes, helo: str = "mx.outside.test"
) -> str:
    """One message that `client` gave to our relay; the trace id of the last reply, or the refusal."""
    with smtplib.SMTP("127.0.0.1", house.port("smtp"), "relay.test", timeout=30) as relay:
        relay.ehlo()
        assert relay.docmd("XCLIENT", f"ADDR={client} NAME=[UNAVAILABLE] HELO={helo}")[0] == 220
        relay.ehlo(helo)
        assert relay.mail(sender)[0] == 250
        assert relay.rcpt(recipient)[0] == 250
        code, text = relay.data(message)
        answer = text.decode()
        return answer.split()[1] if code == 250 else f"{code} {answer}"


def letter(author: str, number: int = 1) -> bytes:
    return (
        f"From: Friend <{author}>\r\nTo: you\r\nSubject: Sunday\r\nDate: Sat, 21 Nov 2026 21:00:37 +0000\r\n"
        f"Message-ID: <{number}@far.test>\r\n\r\nHello, see you on Sunday.\r\n"
    ).encode()


def verdict(house: House, trace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The events of the final dot and of the delivery."""
    events = traced(house, trace, "data", "delivered")
    return next(e for e in events if e["kind"] == "data"), next(e for e in events if e["kind"] == "delivered")


def in_mailbox(house: House, account: str, mailbox: str) -> list[bytes]:
    with house.imap(account) as client:
        assert client.select(mailbox)[0] == "OK"
        numbers = client.search(None, "ALL")[1][0].split()
        return [client.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in numbers]


def test_honest_mail_is_taken_and_proven(house: House) -> None:
    ann = house.account()
    data, delivered = verdict(house, brought(house, GOOD, "a@outside.test", ann, letter("a@outside.test")))
    assert (data["outcome"], data["client"], data["via"]) == ("accept", GOOD, "xclient")
    assert {"spf-pass", "trusted-forwarder"} <= set(data["rules"].split())
    assert delivered["mailbox"] == "INBOX"
    (stored,) = in_mailbox(house, ann, "INBOX")
    assert f"iprev=pass policy.iprev={GOOD}".encode() in stored.replace(b"\r\n\t", b" ")
    assert b"spf=pass" in stored


def test_forged_mail_lies_in_junk_and_the_record_says_why(house: House) -> None:
    ann = house.account()
    trace = brought(house, BAD, "a@outside.test", ann, letter("a@outside.test"))
    data, delivered = verdict(house, trace)
    assert (data["outcome"], delivered["mailbox"]) == ("junk", "Junk")
    assert any(each.startswith("spf-fail|5|") for each in data["reasons"])
    assert any(line.startswith("TXT outside.test → v=spf1") for line in data["dns"])
    assert in_mailbox(house, ann, "INBOX") == []
    (stored,) = in_mailbox(house, ann, "Junk")
    assert b"\r\nX-Mailstead-Junk: yes" in stored
    assert "spf-fail" in house.command("--json", "explain", trace)


def test_mail_that_somebody_forwarded_is_known_by_its_signature(house: House) -> None:
    ann = house.account()
    message = signedmail.sign() + signedmail.PLAIN + signedmail.BODY
    data, delivered = verdict(house, brought(house, BAD, "joe@example.org", ann, message))
    assert {"spf-fail", "dkim-pass", "dmarc-pass"} <= set(data["rules"].split())
    assert delivered["mailbox"] == "INBOX"


def test_mail_whose_signature_is_broken_lies_in_junk(house: House) -> None:
    ann = house.account()
    message = (signedmail.sign() + signedmail.PLAIN + signedmail.BODY).replace(b"hungry", b"thirsty")
    data, delivered = verdict(house, brought(house, GOOD, "a@outside.test", ann, message))
    assert {"spf-pass", "dkim-fail", "dmarc-fail-reject"} <= set(data["rules"].split())
    assert delivered["mailbox"] == "Junk"


def test_a_second_from_is_refused(house: House) -> None:
    ann = house.account()
    message = b"From: b@outside.test\r\n" + letter("a@outside.test")
    assert brought(house, GOOD, "a@outside.test", ann, message).startswith("550 5.7.1")


def test_what_the_owner_wants_refused_is_refused(tmp_path: Path, zone: FakeDns) -> None:
    environment = {**ENVIRONMENT, "RESOLVER": zone.address, "DMARC_FAIL": "honor", "SPF_FAIL": "reject"}
    with running(tmp_path / "strict", environment) as house:
        ann = house.account()
        spf = brought(house, BAD, "a@outside.test", ann, letter("a@outside.test"))
        assert spf.startswith("550 5.7.23 outside.test does not let this client send its mail"), spf
        dmarc = brought(house, GOOD, "a@outside.test", ann, letter("joe@example.org"))
        assert dmarc.startswith("550 5.7.1 nothing proves that this message is from example.org"), dmarc
        events = traced(house, "a@outside.test", "data")
        refused = [each for each in events if each["kind"] == "data"]
        assert {each["outcome"] for each in refused} == {"reject"}
        assert not [each for each in events if each["kind"] == "delivered"]


def test_mail_through_a_relay_of_the_owners_is_not_asked_to_come_back(tmp_path: Path, zone: FakeDns) -> None:
    with running(tmp_path / "grey", {**ENVIRONMENT, "RESOLVER": zone.address, "GREYLIST": "yes"}) as house:
        ann = house.account()
        verdict(house, brought(house, BAD, "a@unknown.test", ann, letter("a@unknown.test")))
