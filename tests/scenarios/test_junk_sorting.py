"""Sorting mail in a mail program teaches the filter of that account, and of no other; the CLI says what was learned."""

import json

from house import House
from mailclients import letter, messages, until

OFFERS = ("replica watches at a price", "a loan without questions", "pills without a doctor", "a seat at our tables")
TALK = ("lunch on the terrace", "the report for Monday", "photos from the lake", "the train on Friday")


def offer(number: int) -> bytes:
    body = f"Order today: {OFFERS[number % 4]} and {OFFERS[(number + 1) % 4]}, limited stock, {number} left\r\n"
    return letter("shop@outside.test", "ann@example.test", f"special offer {number}", body.encode()).message


def talk(number: int) -> bytes:
    body = f"Shall we speak about {TALK[number % 4]} and {TALK[(number + 1) % 4]}? See you at {number}\r\n"
    return letter("bob@outside.test", "ann@example.test", f"about {TALK[number % 4]}", body.encode()).message


def test_what_a_person_sorts_decides_where_the_next_letter_lands(at_home: House) -> None:
    ann, other = at_home.account(), at_home.account()
    with at_home.imap(ann) as client:
        for number in range(100):
            assert client.append("INBOX", "", None, offer(number))[0] == "OK"
            assert client.append("INBOX", "", None, talk(number))[0] == "OK"
        client.select("INBOX")
        for number in range(1, 201):  # as a person does: each by itself; the odd ones are offers
            if number % 2 == 0:
                client.store(str(number), "+FLAGS", "\\Answered")
        offers = ",".join(str(number) for number in range(1, 201, 2))
        assert client.copy(offers, "Junk")[0] == "OK"
        client.store(offers, "+FLAGS", "\\Deleted")
        client.expunge()

    def learned() -> dict[str, object] | None:
        (of,) = at_home.asked("junk", "status", ann)["accounts"]
        return of if of["junk"] >= 100 and of["good"] >= 100 and not of["unpublished"] else None

    of = until(learned, seconds=60)
    assert (of["junk"], of["good"], of["used"]) == (100, 100, True), json.dumps(of)

    for number, (message, mailbox) in enumerate(((offer(500), "Junk"), (talk(501), "INBOX"))):
        subject = f"Subject: next {number}\r\n".encode()
        marked = subject + message
        at_home.receive("somebody@outside.test", ann, message=marked)

        def landed(mailbox: str = mailbox, subject: bytes = subject) -> bool:
            with at_home.imap(ann) as client:
                return any(subject in octets for octets in messages(client, mailbox).values())

        assert until(landed)
    at_home.receive("somebody@outside.test", other, message=b"Subject: elsewhere\r\n" + offer(502))

    def at_the_other() -> bool:
        with at_home.imap(other) as client:
            return any(b"Subject: elsewhere" in octets for octets in messages(client, "INBOX").values())

    assert until(at_the_other), "what one account sorts says nothing about another's mail"
