"""Mail from the internet: who gets it, how it reads, and who is refused."""

import imaplib
import re
import smtplib

import pytest
from house import PASSWORD, House
from mailclients import LetterRefused, letter, swaks

# Lines that a careless server would change: dots, trailing spaces, 8-bit, a long line, no text before a blank line.
AWKWARD = (
    b".\r\n..two dots\r\n. \r\nFrom the start\r\n\ttab and spaces   \r\n\xe4\xb8\xad\xe6\x96\x87 \xff\xfe\r\n"
    + b"x" * 990
    + b"\r\n\r\n\r\nlast\r\n"
)


def test_a_message_is_read_byte_for_byte_as_it_was_sent(at_home: House) -> None:
    ann = at_home.account()
    sent = letter("friend@outside.test", ann, body=AWKWARD)
    reply = at_home.receive("friend@outside.test", ann, message=sent.message)
    read = at_home.letter(ann, sent.message_id)
    assert read.endswith(sent.message)
    added = read[: -len(sent.message)].decode()
    assert re.match(r"Return-Path: <friend@outside\.test>\r\n", added)
    assert f"Delivered-To: {ann}\r\n" in added
    assert re.search(r"^Received: from client\.test \(\[127\.0\.0\.1\]\)\s+by mail\.example\.test", added, re.M), added
    trace = re.search(r"[0-9a-hjkmnp-tv-z]{16}", reply)
    assert trace and trace[0] in added, "the reply names the trace id, and Received too"


def test_an_unknown_recipient_is_refused_at_once_and_the_known_one_is_not(at_home: House) -> None:
    ann = at_home.account()
    sent = letter("friend@outside.test", ann)
    with pytest.raises(LetterRefused) as refused:
        at_home.receive("friend@outside.test", "nobody-here@example.test", message=sent.message)
    assert refused.value.code == 550 and refused.value.text.startswith("5.1.1")
    at_home.receive("friend@outside.test", ann, message=sent.message)
    assert at_home.letter(ann, sent.message_id)


def test_nobody_relays_through_port_25(at_home: House) -> None:
    sent = letter("friend@outside.test", "other@elsewhere.test")
    with pytest.raises(LetterRefused) as refused:
        at_home.receive("friend@outside.test", "other@elsewhere.test", message=sent.message)
    assert refused.value.code in (550, 554) and refused.value.text.startswith("5.7.1")


def test_log_in_is_not_offered_on_port_25(at_home: House) -> None:
    tried = swaks(at_home.port("smtp"), "--quit-after", "EHLO", "--tls")
    assert tried.status == 0 and "STARTTLS" in tried.output and "AUTH" not in tried.output, tried.output


def test_swaks_delivers_over_starttls(at_home: House) -> None:
    ann = at_home.account()
    sent = letter("friend@outside.test", ann)
    tried = swaks(
        at_home.port("smtp"), "--tls", "--from", "friend@outside.test", "--to", ann, "--data", "-", stdin=sent.message
    )
    assert tried.status == 0, tried.output
    assert b"with ESMTPS" in at_home.letter(ann, sent.message_id)


def test_several_recipients_each_get_their_own_copy_and_see_no_other(at_home: House) -> None:
    ann, ben = at_home.account(), at_home.account()
    sent = letter("friend@outside.test", "family@example.test")
    at_home.receive("friend@outside.test", ann, ben, message=sent.message)
    for address, other in ((ann, ben), (ben, ann)):
        copy = at_home.letter(address, sent.message_id)
        assert f"Delivered-To: {address}".encode() in copy and other.encode() not in copy


def test_a_message_over_the_limit_is_refused_by_its_announced_size(at_home: House) -> None:
    with smtplib.SMTP("127.0.0.1", at_home.port("smtp"), "client.test", timeout=20) as client:
        client.ehlo()
        assert client.mail("friend@outside.test", ["SIZE=9999999999"])[0] == 552
        assert client.mail("friend@outside.test", ["SIZE=1000"])[0] == 250


def test_an_alias_reaches_each_of_its_accounts(at_home: House) -> None:
    ann, ben = at_home.account(), at_home.account()
    alias = "family-" + ann
    at_home.command("alias", "add", alias, ann)
    at_home.alias(alias, ben)
    sent = letter("friend@outside.test", alias)
    at_home.receive("friend@outside.test", alias, message=sent.message)
    assert at_home.letter(ann, sent.message_id) and at_home.letter(ben, sent.message_id)


def test_the_catch_all_takes_what_nobody_else_does(at_home: House) -> None:
    at_home.command("domain", "add", "catch.test")
    ann = at_home.account(domain="catch.test")
    ben = at_home.account(domain="catch.test")
    at_home.alias("@catch.test", ann)
    unknown, known = letter("friend@outside.test", "any@catch.test"), letter("friend@outside.test", ben)
    at_home.receive("friend@outside.test", "any@catch.test", message=unknown.message)
    at_home.receive("friend@outside.test", ben, message=known.message)
    assert at_home.letter(ann, unknown.message_id) and at_home.letter(ben, known.message_id)
    with at_home.imap(ann) as client:
        assert client.select("INBOX")[1] == [b"1"], "what has its own account does not reach the catch-all"


def test_a_plus_tag_reaches_the_account_before_it(at_home: House) -> None:
    ann = at_home.account()
    tagged = ann.replace("@", "+shop@")
    sent = letter("shop@outside.test", tagged)
    at_home.receive("shop@outside.test", tagged, message=sent.message)
    read = at_home.letter(ann, sent.message_id).decode()
    assert f"Delivered-To: {ann}\r\n" in read and f"X-Original-To: {tagged}\r\n" in read


def test_a_bounce_comes_from_nobody_and_is_taken(at_home: House) -> None:
    ann = at_home.account()
    sent = letter("mailer-daemon@outside.test", ann)
    at_home.receive("", ann, message=sent.message)
    assert at_home.letter(ann, sent.message_id).startswith(b"Return-Path: <>\r\n")


def test_a_full_account_takes_no_more_appends(at_home: House) -> None:
    ann = at_home.account()
    at_home.command("account", "quota", ann, "1MiB")
    at_home.settle()
    big = letter(ann, ann, body=(b"x" * 98 + b"\r\n") * 6_000).message
    with at_home.imap(ann) as client:
        assert client.append("Archive", "", "", big)[0] == "OK"
        status, data = client.append("Archive", "", "", big)
        assert status == "NO" and b"[OVERQUOTA]" in data[0]
        assert client.append("Archive", "", "", letter(ann, ann).message)[0] == "OK", "a small one still fits"


def test_a_disabled_account_takes_no_mail_and_nobody_logs_in(at_home: House) -> None:
    ann = at_home.account()
    sent = letter("friend@outside.test", ann)
    at_home.receive("friend@outside.test", ann, message=sent.message)
    at_home.letter(ann, sent.message_id)
    at_home.command("account", "disable", ann)
    at_home.settle()
    with pytest.raises(LetterRefused) as refused:
        at_home.receive("friend@outside.test", ann, message=sent.message)
    assert refused.value.code in (450, 550)
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"), at_home.imap(ann):
        pass
    tried = swaks(at_home.port("submissions"), "--tls-on-connect", "--auth", "PLAIN", "--auth-user", ann,
                  "--auth-password", PASSWORD, "--quit-after", "AUTH")  # fmt: skip
    assert "535" in tried.output, tried.output
    at_home.command("account", "enable", ann)
    at_home.settle()
    assert at_home.letter(ann, sent.message_id)
