"""Forged, signed and broken mail over the wire: what becomes of it, and what the record and the header say.

The peer is 127.0.0.1; a zone says who may send from there.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.policy.intake import MAX_HEADER
from services.protocol.dns_lookup import TemporaryFailure
from services.smtp_in import intake
from services.storage.delivery import Deliveries
from tests.receivingroom import ReceivingRoom
from tests.unit.message import signedmail

ANNA, BERTA = "anna@example.test", "berta@example.test"
Zone = Mapping[tuple[str, str], list[object]]
ZONE: Zone = {
    ("good.test", "TXT"): [b"v=spf1 ip4:127.0.0.1 -all"],
    ("fail.test", "TXT"): [b"v=spf1 -all"],
    ("soft.test", "TXT"): [b"v=spf1 ~all"],
    ("slow.test", "TXT"): [TemporaryFailure("away")],
    ("p-none.test", "TXT"): [b"v=spf1 ip4:127.0.0.1 -all"],
    ("_dmarc.p-none.test", "TXT"): [b"v=DMARC1; p=none"],
    ("_dmarc.p-quarantine.test", "TXT"): [b"v=DMARC1; p=quarantine"],
    ("_dmarc.p-reject.test", "TXT"): [b"v=DMARC1; p=reject"],
    ("p-reject.test", "TXT"): [b"v=spf1 -all"],
    ("_dmarc.example.org", "TXT"): [b"v=DMARC1; p=reject"],
    ("example.org", "TXT"): [b"v=spf1 -all"],
    ("rsa._domainkey.example.org", "TXT"): [b"v=DKIM1; p=" + signedmail.public_text(signedmail.RSA[2048])],
    ("client.test", "A"): ["127.0.0.1"],
    ("nobody.test", "TXT"): [b"hello"],
}


def letter(
    author: str = "a@good.test", more: bytes = b"", body: bytes = b"Hello Anna, see you on Sunday.\r\n"
) -> bytes:
    return (
        more + f"From: Friend <{author}>\r\nTo: {ANNA}\r\nSubject: Sunday\r\n".encode()
        + b"Date: Fri, 11 Jul 2003 21:00:37 -0700\r\nMessage-ID: <1@far.test>\r\n\r\n" + body
    )  # fmt: skip


def signed(body: bytes = signedmail.BODY) -> bytes:
    """By example.org, whose SPF fails here: as it comes after somebody forwarded it."""
    return signedmail.sign(body=body) + signedmail.PLAIN + body


def run(
    tmp_path: Path,
    story: Callable[[ReceivingRoom], Awaitable[None]],
    zone: Zone = ZONE,
    bugs: bool = False,
    **more: Any,
) -> None:
    async def play() -> None:
        async with asyncio.timeout(30), ReceivingRoom(tmp_path, zone=zone, **more) as room:
            for account in ("anna", "berta"):
                for name in ("cur", "new", "tmp"):
                    (room.mail / "example.test" / account / ".Junk" / name).mkdir(parents=True)
            await story(room)
            assert bugs or not room.events.of("bug"), room.events.of("bug")

    asyncio.run(play())


def place(room: ReceivingRoom, account: str = ANNA) -> str:
    """Where the one message lies."""
    inbox, junk = room.messages(account), room.messages(account, ".Junk")
    assert len(inbox) + len(junk) <= 1
    return "INBOX" if inbox else "Junk" if junk else "nowhere"


def field(message: bytes, name: str) -> str:
    """The value of a field of the header, unfolded; "" for none."""
    found = re.search(
        rb"(?im)^" + name.encode() + rb":[ \t]*((?:.*\r\n[ \t])*.*)\r\n", message.split(b"\r\n\r\n")[0] + b"\r\n"
    )
    return re.sub(r"\r\n\s+", " ", found[1].decode()) if found else ""


@pytest.mark.parametrize(
    ("sender", "author", "settings", "reply", "where", "rules"),
    [
        ("a@good.test", "a@good.test", {}, "250", "INBOX", "spf-pass dkim-none dmarc-none"),
        ("a@fail.test", "a@fail.test", {}, "250", "Junk", "spf-fail dkim-none dmarc-none"),
        ("a@fail.test", "a@fail.test", {"spf_fail": "tag"}, "250", "INBOX", "spf-fail"),
        ("a@fail.test", "a@fail.test", {"spf_fail": "reject"}, "550 5.7.23 fail.test does not let", "nowhere", "spf-fail"),
        ("a@soft.test", "a@soft.test", {}, "250", "INBOX", "spf-softfail"),
        ("a@slow.test", "a@slow.test", {"spf_fail": "reject"}, "250", "INBOX", "spf-temperror"),
        ("a@nobody.test", "a@nobody.test", {}, "250", "INBOX", "spf-none"),
        ("a@p-none.test", "a@p-none.test", {}, "250", "INBOX", "spf-pass dkim-none dmarc-pass"),
        ("a@good.test", "a@p-none.test", {}, "250", "INBOX", "spf-pass dkim-none dmarc-fail-none"),
        ("a@good.test", "a@p-quarantine.test", {}, "250", "Junk", "spf-pass dkim-none dmarc-fail-quarantine"),
        ("a@good.test", "a@p-reject.test", {}, "250", "Junk", "spf-pass dkim-none dmarc-fail-reject"),
        ("a@good.test", "a@p-reject.test", {"dmarc_fail": "honor"}, "550 5.7.1 nothing proves", "nowhere", "dmarc-fail-reject"),
        ("a@good.test", "a@p-quarantine.test", {"dmarc_fail": "honor"}, "250", "Junk", "dmarc-fail-quarantine"),
        ("a@good.test", "a@p-quarantine.test", {"dmarc_fail": "reject"}, "550 5.7.1", "nowhere", "dmarc-fail-quarantine"),
        ("a@good.test", "a@p-reject.test", {"dmarc_fail": "tag"}, "250", "INBOX", "dmarc-fail-reject"),
        ("", "a@good.test", {}, "250", "INBOX", "spf-none"),
        ("a@good.test", "a@good.test", {"junk_score": "0"}, "250", "Junk", "spf-pass"),
        ("a@soft.test", "a@soft.test", {"reject_score": "1"}, "550 5.7.1 the message looks like junk", "nowhere", "spf-softfail"),
    ],
)  # fmt: skip
def test_who_sends(
    tmp_path: Path, sender: str, author: str, settings: dict[str, str], reply: str, where: str, rules: str
) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send(sender, [ANNA], letter(author))).startswith(reply)
        assert place(room) == where
        (told,) = room.events.of("data")
        assert set(rules.split()) <= set(told["rules"].split())
        assert told["outcome"] == ("reject" if where == "nowhere" else "junk" if where == "Junk" else "accept")
        assert isinstance(told["score"], float)
        assert [each.split("|")[0] for each in told["reasons"]] == told["rules"].split()
        assert any(line.startswith("TXT ") for line in told["dns"])
        assert told["auth"].startswith("mail.example.test; ")
        if where == "nowhere":
            assert told["reply"].startswith(reply)
        else:
            (delivered,) = room.events.of("delivered")
            assert delivered["mailbox"] == where

    run(tmp_path, story, **settings)


def test_a_forwarded_message_is_proven_by_its_signature(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("joe@example.org", [ANNA], signed())).startswith("250")
        assert place(room) == "INBOX"
        (told,) = room.events.of("data")
        assert told["rules"].startswith("spf-fail dkim-pass dmarc-pass")
        assert told["reasons"][0].startswith("spf-fail|0|")
        assert "it was forwarded" in told["reasons"][0]

    run(tmp_path, story, spf_fail="reject", dmarc_fail="reject")


@pytest.mark.parametrize("size", [10, 70_000, 600_000])
def test_a_signature_is_verified_wherever_the_body_lies(tmp_path: Path, size: int) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        body = b"x y\r\n" * (size // 5)
        assert (await client.send("joe@example.org", [ANNA], signed(body))).startswith("250")
        assert room.events.of("data")[0]["rules"].startswith("spf-fail dkim-pass dmarc-pass")
        changed = signed(body).replace(b"x y", b"x z", 1)
        assert (await client.send("joe@example.org", [BERTA], changed)).startswith("250")
        assert room.events.of("data")[1]["rules"].startswith("spf-fail dkim-fail dmarc-fail-reject")
        assert (place(room), place(room, BERTA)) == ("INBOX", "Junk")

    run(tmp_path, story)


def test_a_key_that_is_not_known_now_refuses_nothing(tmp_path: Path) -> None:
    zone = {**ZONE, ("rsa._domainkey.example.org", "TXT"): [TemporaryFailure("away")]}

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("joe@example.org", [ANNA], signed())).startswith("250")
        assert "dkim-temperror" in room.events.of("data")[0]["rules"]

    run(tmp_path, story, zone, spf_fail="reject", dmarc_fail="reject")


def test_two_authors_are_refused(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        twice = letter(more=b"From: b@good.test\r\n")
        assert (await client.send("a@good.test", [ANNA], twice)).startswith(
            "550 5.7.1 the message has more than one From"
        )
        assert room.events.of("data")[0]["rules"].split()[0] == "two-froms"

    run(tmp_path, story)


# --- the header


def test_our_fields_stand_on_top_and_nobody_elses_claim_to_be_ours(tmp_path: Path) -> None:
    theirs = (
        b"Authentication-Results: mail.example.test; dmarc=pass header.from=good.test\r\n"
        b"authentication-results: (a comment)\r\n MAIL.Example.TEST 1; spf=pass\r\n"
        b"X-Mailstead-Junk: no, score -9\r\n"
        b"Return-Path: <someone@else.test>\r\n"
        b"Authentication-Results: other.test; spf=pass\r\n"
    )

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.send("a@fail.test", [ANNA], letter("a@fail.test", theirs))
        (stored,) = room.messages(mailbox=".Junk")
        lines = [line.split(b":")[0] for line in stored.split(b"\r\n\r\n")[0].split(b"\r\n") if line[:1] not in b" \t"]
        assert lines == [
            b"Return-Path", b"Delivered-To", b"X-Mailstead-Junk", b"Authentication-Results", b"Received",
            b"Authentication-Results", b"From", b"To", b"Subject", b"Date", b"Message-ID",
        ]  # fmt: skip
        assert stored.endswith(letter("a@fail.test").partition(b"\r\n\r\n")[2])
        assert field(stored, "Authentication-Results").startswith("mail.example.test; ")
        assert "spf=fail smtp.mailfrom=a@fail.test" in field(stored, "Authentication-Results")
        assert field(stored, "X-Mailstead-Junk").startswith("yes, score 5")
        assert stored.count(b"other.test; spf=pass") == 1

    run(tmp_path, story)


@pytest.mark.parametrize("zone", [ZONE, None])
def test_a_large_message_loses_its_claims_too(tmp_path: Path, zone: Zone | None) -> None:
    """In a file, and also where nobody judges: what a reader believes is ours must be."""

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        body = b"0123456789abcdef\r\n" * 40_000
        claim = b"Authentication-Results: mail.example.test; dmarc=pass\r\nReturn-Path: <x@y.test>\r\n"
        assert (await client.send("a@good.test", [ANNA], letter(more=claim, body=body))).startswith("250")
        (stored,) = room.messages()
        assert stored.endswith(letter(body=body))
        assert b"dmarc=pass" not in stored
        assert stored.count(b"Return-Path:") == 1

    run(tmp_path, story, zone)  # type: ignore[arg-type]


def test_a_forward_keeps_what_it_came_with_and_carries_our_finding(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        message = letter(more=b"Return-Path: <older@hop.test>\r\n")
        assert (await client.send("a@good.test", ["both@example.test"], message)).startswith("250")
        (forwarded,) = room.smtp_out.messages
        assert forwarded.body.rstrip(b"\r\n").endswith(message.rstrip(b"\r\n"))
        assert b"\r\nAuthentication-Results: mail.example.test;" in forwarded.body
        assert b"older@hop.test" not in room.messages()[0]

    run(tmp_path, story)


def test_junk_is_not_forwarded(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@fail.test", ["both@example.test"], letter("a@fail.test"))).startswith("250")
        assert place(room) == "Junk"
        assert not room.smtp_out.messages
        (left_out,) = room.events.of("forwarded")
        assert left_out["outcome"] == "junk" and left_out["rules"] == "forward-junk"

    run(tmp_path, story)


def test_a_junk_mailbox_that_is_gone_costs_no_message(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        for name in ("cur", "new", "tmp"):
            (room.mail / "example.test/anna/.Junk" / name).rmdir()
        client = await room.client()
        assert (await client.send("a@fail.test", [ANNA], letter("a@fail.test"))).startswith("250")
        assert place(room) == "INBOX"
        assert room.events.of("delivered")[-1]["mailbox"] == "INBOX"
        assert field(room.messages()[0], "X-Mailstead-Junk").startswith("yes")

    run(tmp_path, story)


# --- time, and faults of ours


def test_dns_that_never_answers_holds_nobody_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.smtp_in.evidence.SECONDS", 0.05)
    monkeypatch.setattr("services.smtp_in.proofs.SECONDS", 0.05)

    async def silent(*_: object) -> list[str]:
        await asyncio.sleep(3600)
        return []

    monkeypatch.setattr("services.runtime.dns.ZoneLookup.txt", silent)
    monkeypatch.setattr("services.runtime.dns.ZoneLookup.ipv4", silent)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("joe@example.org", [ANNA], signed())).startswith("250")
        rules = room.events.of("data")[0]["rules"].split()
        assert rules[:3] == ["spf-temperror", "dkim-temperror", "dmarc-temperror"]

    run(tmp_path, story, spf_fail="reject", dmarc_fail="reject")


def test_nobody_waits_for_dns_before_the_final_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = asyncio.Event()
    asked: list[str] = []

    async def slow(_: object, name: str) -> list[bytes]:
        asked.append(name)
        await go_on.wait()
        return [b"v=spf1 -all"]

    monkeypatch.setattr("services.runtime.dns.ZoneLookup.txt", slow)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.say("MAIL FROM:<a@fail.test>", f"RCPT TO:<{ANNA}>", "DATA")).startswith("354")
        assert asked == ["fail.test"], "asked at MAIL, not at the end"
        client.writer.write(letter("a@fail.test") + b".\r\n")
        await asyncio.sleep(0.02)
        assert place(room) == "nowhere"
        go_on.set()
        assert (await client.reply()).startswith("250")
        assert place(room) == "Junk"

    run(tmp_path, story)


def test_a_peer_that_goes_leaves_no_question_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def slow(*_: object) -> list[bytes]:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return []

    monkeypatch.setattr("services.runtime.dns.ZoneLookup.txt", slow)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        await client.say("MAIL FROM:<a@fail.test>")
        client.close()
        await asyncio.wait_for(ended.wait(), 5)

    run(tmp_path, story)


@pytest.mark.parametrize(
    "broken", ["services.policy.spf.check", "services.smtp_in.proofs.verify", "services.smtp_in.proofs.check_authors"]
)
def test_a_fault_of_ours_in_a_check_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise ZeroDivisionError
        yield

    monkeypatch.setattr(broken, fail)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("joe@example.org", [ANNA], signed())).startswith("250")
        assert "temperror" in room.events.of("data")[0]["rules"]
        assert room.events.of("bug")

    run(tmp_path, story, bugs=True, spf_fail="reject", dmarc_fail="reject")


def test_a_reader_that_stumbles_stops_no_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("services.smtp_in.junk_judge.JunkJudge.message", fail)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")
        assert place(room) == "INBOX"

    run(tmp_path, story, bugs=True)


def test_a_message_that_cannot_be_judged_is_neither_lost_nor_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*arguments: object) -> None:
        raise KeyError("a header that nobody thought of")

    monkeypatch.setattr("services.smtp_in.proofs.from_domains", stumble)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")
        assert len(room.messages(ANNA, ".Junk")) == 1
        [event] = room.events.of("data")
        assert (event["outcome"], event["rules"]) == ("junk", "judging-failed")

    run(tmp_path, story, bugs=True)


@pytest.mark.parametrize(("octets", "rule"), [(-1, "dmarc-fail-reject"), (1, "header-too-long")])
def test_a_header_that_is_not_read_to_its_end_hides_no_author(tmp_path: Path, octets: int, rule: str) -> None:
    async def story(room: ReceivingRoom) -> None:
        end = b"\r\nFrom: <a@p-reject.test>\r\n\r\n"
        room_left = MAX_HEADER - len(end) + octets
        header = (b"X-Long: " + b"x" * 900 + b"\r\n") * (room_left // 910)
        header += b"X: " + b"x" * (room_left - len(header) - 3) + end
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], header + b"Hello.\r\n")).startswith("250")
        [event] = room.events.of("data")
        assert event["outcome"] == "junk" and rule in event["rules"].split()

    run(tmp_path, story)


def test_a_mailbox_that_cannot_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> list[Any]:
        raise OSError("no")

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        with monkeypatch.context() as patch:
            patch.setattr(Deliveries, "commit", fail)
            assert (await client.send("a@good.test", [ANNA], letter())).startswith("451")
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")

    run(tmp_path, story, bugs=True)


# --- nobody judges


def test_mail_from_inside_is_not_judged(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.lmtp()
        assert (await client.send("a@fail.test", [ANNA], letter("a@p-reject.test"))).startswith("250")
        assert place(room) == "INBOX"
        (told,) = room.events.of("data")
        assert "rules" not in told
        assert not field(room.messages()[0], "Authentication-Results")

    run(tmp_path, story, spf_fail="reject", dmarc_fail="reject")


def test_the_mail_gates_letter_is_not_judged() -> None:
    assert intake._at_gate((intake.Destination("x@a.test", ("mailstead-gate@a.test",)),))
    assert not intake._at_gate((intake.Destination("x@a.test", ("mailstead-gate@a.test", "anna@a.test")),))
    assert not intake._at_gate((intake.Destination("x@a.test", ("mailstead-gate@a.test",), ("out@far.test",)),))
    assert not intake._at_gate(())


# --- limits and greylisting


def test_who_sends_too_much_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.smtp_in.judging.in_the_house", lambda address: False)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        for _ in range(2):
            assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")
        assert (await client.say("MAIL FROM:<a@good.test>")).startswith("451 4.7.1 too many")
        (told,) = room.events.of("mail", outcome="defer")
        assert told["rules"] == "rate-address"
        room.ahead = 3600.0
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")

    run(tmp_path, story, rate_per_address=2)


def test_one_sender_who_sends_too_much_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.smtp_in.judging.in_the_house", lambda address: False)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")
        assert (await client.send("A@good.test", [ANNA], letter())).startswith("451 4.7.1 too many")
        assert room.events.of("data", outcome="defer")[0]["rules"].endswith("rate-sender")
        assert (await client.send("b@good.test", [ANNA], letter())).startswith("250")

    run(tmp_path, story, rate_per_sender=1)


def test_a_stranger_comes_back_and_is_known_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.smtp_in.judging.in_the_house", lambda address: False)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], letter())) == (
            "451 4.7.1 not known yet: may come back in 300 seconds (greylisting)"
        )
        assert room.events.of("rcpt", outcome="defer")[0]["rules"] == "greylist"
        room.ahead = 299.0
        await client.say("RSET")
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("451 4.7.1")
        room.ahead = 301.0
        await client.say("RSET")
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")
        assert (await client.send("other@good.test", [BERTA], letter())).startswith("250"), "its domain is known"
        assert (await client.send("a@soft.test", [BERTA], letter())).startswith("451 4.7.1"), "another is not"

    run(tmp_path, story, greylist="yes")
    assert (tmp_path / "room/intake.db").exists()


def test_an_empty_sender_is_asked_to_come_back_after_rcpt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others test our senders with an empty sender and a RCPT; they must not hear 451."""
    monkeypatch.setattr("services.smtp_in.judging.in_the_house", lambda address: False)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.say("MAIL FROM:<>", f"RCPT TO:<{ANNA}>")).startswith("250")
        assert (await client.say("DATA")).startswith("451 4.7.1")
        room.ahead = 301.0
        await client.say("RSET")
        assert (await client.send("", [ANNA], letter())).startswith("250")

    run(tmp_path, story, greylist="yes")


def test_greylisting_without_its_file_lets_mail_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.smtp_in.judging.in_the_house", lambda address: False)
    (tmp_path / "room/intake.db").mkdir(parents=True)

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@good.test", [ANNA], letter())).startswith("250")

    run(tmp_path, story, greylist="yes")


def test_a_machine_of_the_house_is_not_asked_to_come_back(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        for _ in range(3):
            assert (await client.send("scanner@good.test", [ANNA], letter())).startswith("250")

    run(tmp_path, story, greylist="yes", rate_per_address=1, rate_per_network=1, rate_per_sender=1)


def test_peers_that_all_come_from_a_gateway_are_not_judged_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.smtp_in.room.default_gateways", lambda: frozenset({"127.0.0.1"}))

    async def story(room: ReceivingRoom) -> None:
        client = await room.client()
        assert (await client.send("a@fail.test", [ANNA], letter("a@fail.test"))).startswith("250")
        assert place(room) == "INBOX"
        (told,) = room.events.of("data")
        assert told["reasons"][0] == "spf-none|0|whom the mail comes from is not known, so SPF says nothing"
        assert "spf=none" in told["auth"]

    run(tmp_path, story, spf_fail="reject", greylist="yes", rate_per_address=1)
