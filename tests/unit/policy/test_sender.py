"""Who may send as whom: the household of test_routes, and From fields that try to be read in two ways."""

import time

import pytest

from services.policy.sender import author_addresses, check_envelope, check_header, may_send_as
from tests.unit.policy.test_routes import Household, Person

HOME = Household(
    [Person("anna@home.test"), Person("ben@home.test", administrator=True)],
    {
        "family@home.test": ("anna@home.test", "ben@home.test"),
        "writer@home.test": ("pen@home.test",),
        "pen@home.test": ("anna@home.test",),
        "ben@home.test": ("aunt@elsewhere.test",),
        "@other.test": ("anna@home.test",),
        "info@other.test": ("ben@home.test",),
    },
)

MAY = [
    ("anna@home.test", "anna@home.test", True),
    ("anna@home.test", "Anna@HOME.test", True),
    ("anna@home.test", "anna+shop@home.test", True),
    ("anna@home.test", "family@home.test", True),
    ("anna@home.test", "writer@home.test", True),
    ("anna@home.test", "anything@other.test", True),
    ("anna@home.test", "info@other.test", False),
    ("anna@home.test", "ben@home.test", False),
    ("anna@home.test", "postmaster@home.test", False),
    ("anna@home.test", "nobody@home.test", False),
    ("anna@home.test", "anna@elsewhere.test", False),
    ("anna@home.test", "", False),
    ("ben@home.test", "ben@home.test", True),  # although its mail goes elsewhere
    ("ben@home.test", "postmaster@home.test", True),
]


@pytest.mark.parametrize(("account", "address", "may"), MAY)
def test_may_send_as(account: str, address: str, may: bool) -> None:
    assert may_send_as(account, address, HOME) is may


def test_envelope() -> None:
    assert check_envelope("anna@home.test", "anna@home.test", HOME) is None
    refused = check_envelope("anna@home.test", "ben@home.test", HOME)
    assert refused is not None and "anna@home.test may not send as ben@home.test" in refused.reason
    assert check_envelope("anna@home.test", "", HOME) is not None


OWN = [
    b" Anna <anna@home.test>",
    b"anna@home.test",
    b' "Anna @ home" <anna+x@home.test>',
    b" =?utf-8?Q?J=C3=BCrgen?= <anna@home.test>",
    b" anna@home.test (my (other) address is ben@home.test)",
    b' "ben@home.test" <anna@home.test>',
    b" Anna\r\n <anna@home.test>",
    b" anna@home.test, family@home.test",
    b" anna@home.test <anna@home.test>",
]
FOREIGN = [
    b" ben@home.test",
    b" Anna <ben@home.test>",
    b" anna@home.test, ben@home.test",
    b" ben@home.test <anna@home.test>",
    b" anna@home.test <ben@home.test>",
    b" anna@home.test\r\n ben@home.test",
    b" <anna@home.test> <ben@home.test>",
    b" anna@home.test ben@home.test",
    b" ben@home.test,,anna@home.test",
    b" undisclosed: ;",
    b" friends: anna@home.test;",
    b"",
    b" Anna",
    b" <>",
    b' "anna@home.test',
    b" (anna@home.test",
    b' anna@home.test "ben@home.test',
    b" anna@home.test) ben@home.test",
    b" \xff@home.test",
    b" anna@home.test (x, ben@home.test",
]


@pytest.mark.parametrize("value", OWN)
def test_own_from(value: bytes) -> None:
    assert check_header("anna@home.test", [value], [], HOME) is None
    assert check_header("anna@home.test", [b"anna@home.test"], [value], HOME) is None


@pytest.mark.parametrize("value", FOREIGN)
def test_foreign_or_ambiguous_from(value: bytes) -> None:
    assert check_header("anna@home.test", [value], [], HOME) is not None
    assert check_header("anna@home.test", [b"anna@home.test"], [value], HOME) is not None


def test_one_from_only() -> None:
    twice = [b"anna@home.test", b"anna@home.test"]
    assert check_header("anna@home.test", twice, [], HOME) is not None
    assert check_header("anna@home.test", twice[:1], twice, HOME) is not None
    assert check_header("anna@home.test", [], [], HOME) is None


def test_the_first_address_is_the_author() -> None:
    assert author_addresses(b'"x" <a@b.test>, c@d.test') == ["a@b.test", "c@d.test"]


@pytest.mark.parametrize("word", [b"x" * 250_000, b"x" * 250_000 + b" <anna@home.test>", b" " * 250_000])
def test_a_long_word_in_from_costs_no_minutes(word: bytes) -> None:
    began = time.process_time()
    author_addresses(b"anna@home.test, " + word)
    assert time.process_time() - began < 2  # it was minutes: the word was searched once for each of its octets


def test_what_looks_like_an_address_is_found_within_brackets_and_behind_them() -> None:
    assert author_addresses(b"[boss@bank.example]boss@bank.example <anna@home.test>") in (
        None,
        ["anna@home.test", "boss@bank.example]boss@bank.example"],
    )
