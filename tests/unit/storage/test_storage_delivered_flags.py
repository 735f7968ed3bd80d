"""Flags that delivery gives a message: system flags as letters, keywords by their names, which get letters at imap."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storage.delivery import Deliveries
from services.storage.keywords import load
from services.storage.mailbox import Mailbox
from services.storage.maildir import keywords_in, split, virtual_size, with_flags
from services.storage.provision import provision
from tests.mail_volume import ANNA, House, files, flags

BASE = "1700000000.M000001P7R0123456789Q1." + "h" * 64 + ",S=12345678,W=12345678"
BODY = b"Subject: x\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("given_flags", "letters", "keywords"),
    [
        ((), "", []),
        (("\\Seen",), "S", []),
        (("\\flagged", "\\SEEN", "\\Answered", "\\Deleted", "\\Draft"), "DFRST", []),
        (("\\Recent", "\\Foo"), "", []),
        (("$Label1", "\\Seen", "Work"), "S", ["$Label1", "Work"]),
        (("a/b", "c:d,e", "x+y", "50%", "=~!"), "", ["a/b", "c:d,e", "x+y", "50%", "=~!"]),
        (("k" * 300, "short"), "", ["short"]),
    ],
)
def test_a_name_says_the_flags(given_flags: tuple[str, ...], letters: str, keywords: list[str]) -> None:
    name = with_flags(BASE, given_flags)
    assert len(name) <= 255 and "/" not in name
    assert split(name)[1] == letters and keywords_in(name) == keywords
    assert virtual_size(name, 12345678) == 12345678, "the sizes are read as before"
    assert keywords_in(BASE) == []


@given(st.text(max_size=300))
def test_any_name_can_be_asked(name: str) -> None:
    keywords_in(name)


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12), max_size=20))
def test_what_is_written_is_read(words: list[str]) -> None:
    name = with_flags(BASE, words)
    assert len(name) <= 255 and "/" not in name
    assert set(keywords_in(name)) <= set(words)


def deliver(house: House, *words: str, mailbox: str = "INBOX") -> None:
    async def work() -> None:
        deliveries = Deliveries(house.mail)
        await deliveries.start()
        sink = deliveries.incoming()
        sink.write(BODY)
        delivery = deliveries.begin("trace")
        await delivery.add_recipient(ANNA, ANNA, b"", mailbox, words)
        await delivery.body(sink)
        await delivery.commit()
        sink.close()
        await deliveries.close()

    asyncio.run(work())


def held(inbox: Mailbox) -> list[set[str]]:
    return [set(text.decode().split()) for text in flags(inbox).values()]


def test_delivered_flags_are_seen_by_imap(house: House) -> None:
    deliver(house, "\\Seen", "$Label1", "a/b", "not valid(")
    deliver(house, "\\Flagged")
    deliver(house, "$label1")
    store = house.open()
    inbox = store.mailbox("INBOX")
    assert held(inbox) == [{"\\Seen", "$Label1", "a/b"}, {"\\Flagged"}, {"$Label1"}]
    # Letters in the names say the same, for whoever reads the Maildir after us.
    assert sorted(split(name)[1] for name in files(Path(house.mail) / "family.example/anna/cur")) == ["F", "Sab", "a"]
    store.close()
    again = house.open()
    inbox = again.mailbox("INBOX")
    assert held(inbox) == [{"\\Seen", "$Label1", "a/b"}, {"\\Flagged"}, {"$Label1"}]
    again.close()


def test_a_keyword_that_was_taken_off_stays_off(house: House) -> None:
    deliver(house, "Work")
    store = house.open()
    inbox = store.mailbox("INBOX")
    inbox.store(list(inbox.uids), "-", ["Work"])
    inbox.sync(force=True)
    assert held(inbox) == [set()]
    store.close()


def test_whether_a_mailbox_exists(house: House) -> None:
    provision(house.mail, ANNA)
    deliveries = Deliveries(house.mail)

    async def work() -> None:
        await deliveries.start()
        names = ("INBOX", "inbox", "Junk", "Nowhere", "", "a/b", "..", "Junk.Deeper")
        assert [deliveries.mailbox_exists(ANNA, name) for name in names] == [True, True, True, *[False] * 5]
        assert not deliveries.mailbox_exists("nobody@family.example", "INBOX")
        await deliveries.close()

    asyncio.run(work())


def test_the_letters_of_keywords_are_in_the_folders_list(house: House) -> None:
    deliver(house, "Work", "Play")
    store = house.open()
    store.mailbox("INBOX")
    folder = os.open(Path(house.mail) / "family.example/anna", os.O_RDONLY)
    assert sorted(load(folder).values()) == ["Play", "Work"]
    os.close(folder)
    store.close()
