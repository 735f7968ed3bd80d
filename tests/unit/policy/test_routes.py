"""Where addresses lead: one table of a household's directory, asked every way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from services.policy.routes import MAX_TARGETS, NotLocal, Routing, Unknown, resolve


@dataclass(frozen=True)
class Person:
    address: str
    enabled: bool = True
    administrator: bool = False
    deleted_at: float | None = None


@dataclass
class Household:
    """A directory in memory."""

    people: Sequence[Person]
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    local: tuple[str, ...] = ("home.test", "other.test")

    def domain_alias(self, domain: str) -> str:
        return getattr(self, "aliased", {}).get(domain, "")

    def is_local(self, domain: str) -> bool:
        return domain in self.local

    def account(self, address: str) -> Person | None:
        return next((person for person in self.people if person.address == address), None)

    def aliases(self, source: str) -> tuple[str, ...]:
        return self.lists.get(source, ())

    def accounts(self) -> tuple[Person, ...]:
        return tuple(self.people)


HOME = Household(
    [
        Person("anna@home.test"),
        Person("ben@home.test", administrator=True),
        Person("away@home.test", enabled=False),
        Person("gone@home.test", deleted_at=5.0),
        Person("first@home.test", enabled=False, administrator=True),
        Person("carl@other.test"),
    ],
    {
        "family@home.test": ("anna@home.test", "ben@home.test", "aunt@elsewhere.test"),
        "all@home.test": ("family@home.test", "carl@other.test", "anna@home.test"),
        "anna+shop@home.test": ("ben@home.test",),
        "ben@home.test": ("ben@home.test", "ben@phone.test"),
        "old@home.test": ("anna+old@home.test",),
        "ring@home.test": ("ring2@home.test",),
        "ring2@home.test": ("ring@home.test",),
        "selfish@home.test": ("selfish@home.test",),
        "halfring@home.test": ("halfring@home.test", "anna@home.test"),
        "typo@home.test": ("nobody@home.test",),
        "bare@home.test": ("root",),
        "half@home.test": ("nobody@home.test", "anna@home.test"),
        "gone-list@home.test": ("gone@home.test",),
        "@other.test": ("@home.test",),
        "abuse@other.test": ("nobody@home.test",),
    },
)

TABLE = [
    # asked, mailboxes, forwards, skipped
    ("anna@home.test", ["anna@home.test"], [], []),
    ("ANNA@Home.Test", ["anna@home.test"], [], []),
    ("anna+tag@home.test", ["anna@home.test"], [], []),
    ("anna+a+b@home.test", ["anna@home.test"], [], []),
    ("anna+shop@home.test", ["ben@home.test"], ["ben@phone.test"], []),
    ("ben@home.test", ["ben@home.test"], ["ben@phone.test"], []),
    ("ben+x@home.test", ["ben@home.test"], ["ben@phone.test"], []),
    ("away@home.test", ["away@home.test"], [], []),
    ("family@home.test", ["anna@home.test", "ben@home.test"], ["ben@phone.test", "aunt@elsewhere.test"], []),
    (
        "all@home.test",
        ["anna@home.test", "ben@home.test", "carl@other.test"],
        ["ben@phone.test", "aunt@elsewhere.test"],
        [],
    ),
    ("old@home.test", ["anna@home.test"], [], []),
    ("halfring@home.test", ["anna@home.test"], [], []),
    ("half@home.test", ["anna@home.test"], [], ["nobody@home.test"]),
    # the catch-all of other.test is a domain alias; exact names come first
    ("carl@other.test", ["carl@other.test"], [], []),
    ("anna@other.test", ["anna@home.test"], [], []),
    ("anna+x@other.test", ["anna@home.test"], [], []),
    # roles
    ("postmaster@home.test", ["ben@home.test"], [], []),
    ("Postmaster", ["ben@home.test"], [], []),
    ("abuse@home.test", ["ben@home.test"], [], []),
    ("postmaster@other.test", ["ben@home.test"], [], []),
    ("abuse@other.test", ["ben@home.test"], [], []),
]


@pytest.mark.parametrize(("asked", "mailboxes", "forwards", "skipped"), TABLE, ids=[row[0] for row in TABLE])
def test_resolve(asked: str, mailboxes: list[str], forwards: list[str], skipped: list[str]) -> None:
    found = resolve(asked, HOME)
    assert isinstance(found, Routing)
    assert [person.address for person in found.mailboxes] == mailboxes
    assert list(found.forwards) == forwards
    assert list(found.skipped) == skipped


UNKNOWN = [
    ("nobody@home.test", "no account"),
    ("nobody+tag@home.test", "no account"),
    ("+tag@home.test", "no account"),
    ("gone@home.test", "no account"),
    ("nobody@other.test", "nobody@home.test, which does not exist"),
    ("ring@home.test", "circle"),
    ("selfish@home.test", "circle"),
    ("typo@home.test", "nobody@home.test, which does not exist"),
    ("bare@home.test", "root, which does not exist"),
    ("gone-list@home.test", "gone@home.test"),
    ("anna", "no domain"),
]


@pytest.mark.parametrize(("asked", "reason"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_unknown_says_why(asked: str, reason: str) -> None:
    found = resolve(asked, HOME)
    assert isinstance(found, Unknown) and reason in found.reason and found.address == asked


@pytest.mark.parametrize("asked", ["a@elsewhere.test", '"a@home.test"@elsewhere.test'])
def test_other_domains_are_not_ours(asked: str) -> None:
    assert resolve(asked, HOME) == NotLocal(asked)


def test_a_catch_all_takes_what_nobody_has() -> None:
    home = Household([Person("anna@home.test", administrator=True)], {"@home.test": ("anna@home.test",)})
    found = resolve("anything@home.test", home)
    assert isinstance(found, Routing) and [person.address for person in found.mailboxes] == ["anna@home.test"]


def test_a_catch_all_to_nobody_ends() -> None:
    home = Household([Person("anna@home.test")], {"@home.test": ("lost@home.test",)})
    found = resolve("anything@home.test", home)
    assert isinstance(found, Unknown) and "circle" in found.reason


def test_domains_that_point_at_each_other_end() -> None:
    home = Household([], {"@home.test": ("@other.test",), "@other.test": ("@home.test",)})
    assert isinstance(resolve("x@home.test", home), Unknown)


def test_postmaster_is_unknown_only_where_nobody_could_answer() -> None:
    assert isinstance(resolve("postmaster@home.test", Household([Person("anna@home.test")])), Unknown)


def test_a_chain_deeper_than_any_real_one_ends() -> None:
    lists = {f"a{number}@home.test": (f"a{number + 1}@home.test",) for number in range(100)}
    assert isinstance(resolve("a0@home.test", Household([Person("a100@home.test")], lists)), Unknown)


def test_a_list_of_lists_grows_with_its_members_only() -> None:
    # Each level names the next one twice: 2**19 ways lead to the same mailbox.
    lists = {f"a{n}@home.test": (f"a{n + 1}@home.test", f"a{n + 1}@home.test") for n in range(19)}
    found = resolve("a0@home.test", Household([Person("a19@home.test")], lists))
    assert isinstance(found, Routing) and len(found.mailboxes) == 1


def test_too_many_targets_are_refused_whole() -> None:
    lists = {"huge@home.test": tuple(f"p{number}@elsewhere.test" for number in range(MAX_TARGETS + 1))}
    found = resolve("huge@home.test", Household([], lists))
    assert isinstance(found, Unknown) and str(MAX_TARGETS) in found.reason
