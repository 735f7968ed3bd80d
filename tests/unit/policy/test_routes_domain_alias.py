"""A domain that answers as another: every address of it, whatever the address is there."""

import pytest

from services.policy.routes import Routing, Unknown, resolve
from services.policy.sender import may_send_as
from tests.unit.policy.test_routes import Household, Person

ALIASED = Household(
    [Person("anna@home.test"), Person("ben@home.test", administrator=True), Person("carl@home.test")],
    {
        "info@home.test": ("anna@home.test", "out@far.test"),
        "back@home.test": ("anna@alias.test",),
        "carl@home.test": ("carl@far.test",),
        "@home.test": ("ben@home.test",),
        "abuse@home.test": ("anna@home.test",),
        # What a snapshot holds for rooms from before domain aliases: never asked for.
        "@alias.test": ("@home.test",),
    },
    local=("home.test", "alias.test", "bare.test", "barealias.test"),
)
ALIASED.aliased = {"alias.test": "home.test", "barealias.test": "bare.test"}

TABLE = [
    ("anna@alias.test", ["anna@home.test"], []),
    ("ANNA@ALIAS.test", ["anna@home.test"], []),
    ("anna+tag@alias.test", ["anna@home.test"], []),
    ("info@alias.test", ["anna@home.test"], ["out@far.test"]),
    ("info+x@alias.test", ["anna@home.test"], ["out@far.test"]),
    ("back@home.test", ["anna@home.test"], []),
    ("back@alias.test", ["anna@home.test"], []),
    ("whoever@alias.test", ["ben@home.test"], []),  # the other's catch-all
    ("postmaster@alias.test", ["ben@home.test"], []),
    ("abuse@alias.test", ["anna@home.test"], []),  # the other's alias, before the administrator
    ("postmaster@barealias.test", ["ben@home.test"], []),
]


@pytest.mark.parametrize(("asked", "mailboxes", "forwards"), TABLE, ids=[row[0] for row in TABLE])
def test_a_domain_alias_answers_as_its_domain(asked: str, mailboxes: list[str], forwards: list[str]) -> None:
    found = resolve(asked, ALIASED)
    assert isinstance(found, Routing)
    assert ([each.address for each in found.mailboxes], list(found.forwards)) == (mailboxes, forwards)


def test_nobody_there_is_nobody_here() -> None:
    found = resolve("nobody@barealias.test", ALIASED)
    assert isinstance(found, Unknown) and found.address == "nobody@barealias.test"


@pytest.mark.parametrize(
    ("account", "sender", "may"),
    [
        ("anna@home.test", "anna@alias.test", True),
        ("anna@home.test", "anna+x@alias.test", True),
        ("anna@home.test", "info@alias.test", True),
        ("anna@home.test", "ben@alias.test", False),
        ("ben@home.test", "whoever@alias.test", True),
        ("ben@home.test", "anna@alias.test", False),
        ("ben@home.test", "ben@barealias.test", False),
        ("carl@home.test", "carl@alias.test", True),  # its own, although its mail goes elsewhere
        ("carl@home.test", "carl+x@alias.test", True),
    ],
)
def test_who_may_send_as_its_addresses(account: str, sender: str, may: bool) -> None:
    assert may_send_as(account, sender, ALIASED) is may
