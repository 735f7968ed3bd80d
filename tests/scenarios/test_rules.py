"""Rules of accounts over the wire: a script is kept by imap, published, run by smtp-in, and its answer leaves signed."""

import asyncio
import email
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeDns, FakeMailServer, Script
from house import PASSWORD, House, traced
from mailclients import LetterRefused, letter, until

from services.runtime.internal_http import Client, Response
from services.runtime.secrets import Secrets

ANNA = "anna@example.test"
MOVED_IN = (
    b'require ["fileinto", "mailbox"];\nif header :contains "subject" "moved" { fileinto :create "Old rules"; }\n'
)
SCRIPT = """
require ["fileinto", "mailbox", "imap4flags", "copy", "reject", "vacation", "variables"];
if header :matches "subject" "[*] *" {
    set :lower "list" "${1}";
    fileinto :create :flags ["\\\\Seen", "$Label1"] "Lists.${list}";
} elsif header :contains "subject" "go away" {
    reject "Not here, please.";
} elsif header :contains "subject" "away?" {
    vacation :days 1 :subject "I am away" "Back on Monday.";
} elsif header :contains "subject" "send on" {
    redirect :copy "anna@far.test";
} elsif header :contains "subject" "nothing" {
    discard;
}
"""


@pytest.fixture
def far(dns: FakeDns) -> FakeMailServer:
    """The server of `far.test`, whose SPF vouches for 127.0.0.1."""
    server = FakeMailServer(Script())
    dns.records[("far.test", "MX")] = ["10 mx.far.test."]
    dns.records[("mx.far.test", "A")] = ["127.0.0.1"]
    dns.records[("far.test", "TXT")] = ['"v=spf1 ip4:127.0.0.1 -all"']
    return server


def ask(house: House, method: str, path: str, body: bytes = b"") -> Response:
    """As admin asks imap."""

    async def work() -> Response:
        client = Client(
            "admin", Secrets(str(house.data / "secrets")), "imap", f"http://127.0.0.1:{house.port('http-imap')}"
        )
        try:
            return await client.request(method, f"/v1/accounts/{ANNA}/sieve{path}", body=body)
        finally:
            client.close()

    return asyncio.run(work())


def test_a_script_from_the_page_to_the_mailbox(new_house: Callable[..., House], far: FakeMailServer) -> None:
    house = new_house(MX_PORT=str(far.port))
    house.command("account", "add", ANNA, PASSWORD)
    ask(house, "PUT", "/mine", SCRIPT.encode())
    ask(house, "POST", "/mine/activate")

    def receive(subject: str) -> str:
        sent = letter("friend@far.test", ANNA, subject=subject)
        house.receive("friend@far.test", ANNA, message=sent.message)
        return sent.message_id

    listed = receive("[Cats] purring")
    assert house.letter(ANNA, listed, mailbox="Lists.cats")
    with house.imap(ANNA) as client:
        client.select('"Lists.cats"')
        flags = client.fetch("1", "(FLAGS)")[1][0].decode()
    assert "\\Seen" in flags and "$Label1" in flags
    with pytest.raises(LetterRefused) as refused:
        receive("go away")
    assert refused.value.code == 550 and "Not here, please." in refused.value.text
    receive("send on this")
    asked = receive("are you away?")
    assert house.letter(ANNA, asked)
    until(lambda: len(far.received) == 2, 20)
    by_subject = {email.message_from_bytes(each.message)["Subject"]: each for each in far.received}
    answer, sent_on = by_subject["I am away"], by_subject["send on this"]
    assert (answer.sender, answer.recipients) == ("", ["friend@far.test"])
    assert b"Auto-Submitted: auto-replied" in answer.message and b"In-Reply-To: " + asked.encode() in answer.message
    assert sent_on.recipients == ["anna@far.test"] and sent_on.sender.startswith("SRS0=")
    assert b"DKIM-Signature: " in answer.message and b"d=example.test" in answer.message
    (event,) = [each for each in traced(house, asked, "answered") if each["kind"] == "answered"]
    assert event["recipient"] == "friend@far.test"


def test_scripts_of_another_server_move_in(new_house: Callable[..., House], tmp_path: Path) -> None:
    house = new_house()
    house.stop()
    maildir = house.data / "mail/example.test/anna"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    (maildir / ".dovecot.sieve").write_bytes(MOVED_IN)
    house.start()
    house.command("account", "add", ANNA, PASSWORD)
    until(lambda: ask(house, "GET", "").json()["scripts"], 20)
    sent = letter("friend@far.test", ANNA, subject="moved in")
    house.receive("friend@far.test", ANNA, message=sent.message)
    assert house.letter(ANNA, sent.message_id, mailbox="Old rules")
