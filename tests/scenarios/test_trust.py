"""Who is kept out, how the owner lets them in again, and what the record says about it."""

from collections.abc import Callable

import pytest
from house import PASSWORD, House, traced
from mailclients import ImapLine, LetterRefused, letter


def guess(house: House, account: str, source: str, password: str = "wrong") -> int:
    """One log-in on the submission port from `source`; the reply code."""
    sent = letter(account, account)
    try:
        house.submit(account, account, message=sent.message, login=(account, password), source=source)
    except LetterRefused as refused:
        return refused.code
    return 250


def test_guessing_is_banned_and_the_owner_lifts_the_ban(at_home: House) -> None:
    ann, source = at_home.account(), "127.0.0.66"
    assert [guess(at_home, ann, source, f"guess {number}") for number in range(3)] == [535] * 3
    assert guess(at_home, ann, source, PASSWORD) in (421, 454, 535, 554), "even the right password, from there"
    banned = at_home.asked("ban", "list")["bans"]
    assert source in [each["key"] for each in banned]
    assert guess(at_home, ann, "127.0.0.67", PASSWORD) == 250, "the owner of the account goes on from elsewhere"
    at_home.command("ban", "del", source)
    assert guess(at_home, ann, source, PASSWORD) == 250


def test_a_wrong_imap_password_is_refused_without_saying_which_part(at_home: House) -> None:
    ann = at_home.account()
    client = ImapLine(at_home.port("imaps"), source="127.0.0.70")
    known, unknown = client.attempt(f"LOGIN {ann} wrong")[-1], client.attempt("LOGIN nobody@example.test wrong")[-1]
    assert known.split(b" ", 1)[1] == unknown.split(b" ", 1)[1]
    assert b"NO [AUTHENTICATIONFAILED]" in known
    client.close()


def test_the_trace_of_a_message_tells_every_room(at_home: House) -> None:
    ann, ben = at_home.account(), at_home.account()
    sent = letter(ann, ben)
    at_home.submit(ann, ben, message=sent.message)
    at_home.letter(ben, sent.message_id)
    events = traced(at_home, sent.message_id, "submitted", "signed", "attempt", "delivered")
    rooms = [event["room"] for event in events]
    assert {"smtp-out", "dkim", "smtp-in"} <= set(rooms), rooms
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)
    assert len({event["trace"] for event in events if event["kind"] in ("submitted", "delivered")}) == 1


def test_the_trace_of_a_refused_recipient_gives_the_reply_and_the_reason(at_home: House) -> None:
    with pytest.raises(LetterRefused) as refused:
        at_home.receive("friend@outside.test", "noone.at.all@example.test", message=b"x")
    events = traced(at_home, "noone.at.all@example.test", "rcpt")
    (refusal,) = [event for event in events if event["kind"] == "rcpt"]
    assert refusal["outcome"] == "reject" and refused.value.text in refusal["reply"] and refusal["reason"]
    assert refusal["room"] == "smtp-in"


def test_the_trace_of_a_connection_that_did_nothing(at_home: House) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", at_home.port("smtp")), source_address=("127.0.0.88", 0)) as connection:
        connection.recv(1000)
        connection.sendall(b"QUIT\r\n")
        connection.recv(1000)
    kinds = [event["kind"] for event in traced(at_home, "127.0.0.88", "connect", "disconnect")]
    assert kinds[0] == "connect" and kinds[-1] == "disconnect"


def test_a_changed_password_counts_within_a_second(at_home: House) -> None:
    ann = at_home.account()
    assert guess(at_home, ann, "127.0.0.1", PASSWORD) == 250
    at_home.command("account", "password", ann, "--stdin", stdin="another good one\n")
    at_home.settle()
    assert guess(at_home, ann, "127.0.0.81", PASSWORD) == 535
    assert guess(at_home, ann, "127.0.0.1", "another good one") == 250


def test_a_deleted_account_is_unknown_and_its_mail_is_kept(new_house: Callable[..., House]) -> None:
    house = new_house()
    ann = house.account()
    sent = letter("friend@outside.test", ann)
    house.receive("friend@outside.test", ann, message=sent.message)
    house.letter(ann, sent.message_id)
    house.command("account", "del", ann, "--yes")
    house.settle()
    with pytest.raises(LetterRefused) as refused:
        house.receive("friend@outside.test", ann, message=sent.message)
    assert refused.value.code == 550
    kept = [path for path in (house.data / "mail" / ".deleted").rglob("*") if path.is_file()]
    assert any(sent.message in path.read_bytes() for path in kept)
