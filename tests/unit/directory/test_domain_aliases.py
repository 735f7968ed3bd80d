"""Domain aliases and the circles that no order of changes may leave."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.directory import alias_targets
from services.directory.addresses import InvalidName
from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.errors import DirectoryError, Exists, NotFound, Refused
from services.directory.lookup import SnapshotDirectory
from services.directory.publish import Publisher
from services.policy import routes
from services.policy.routes import NotLocal, Routing, resolve

FAMILY = "family.example"


def seen(folders):
    return SnapshotDirectory(str(folders / "auth"))


def test_the_limits_are_those_of_delivery():
    assert (alias_targets.MAX_DEPTH, alias_targets.ROLES) == (routes.MAX_DEPTH, routes.ROLE_NAMES)


def test_a_domain_alias_is_published_and_owed_keys(family, folders):
    made = family.add_domain_alias("Family.EXAMPLE.net", FAMILY)
    assert (made.name, made.alias_of) == ("family.example.net", FAMILY)
    assert ("keys", "family.example.net") in [(duty.kind, duty.subject) for duty in family.database.duties()]
    directory = seen(folders)
    assert directory.is_local("family.example.net") and directory.domain_alias("FAMILY.example.net.") == FAMILY
    assert directory.domain_alias(FAMILY) == directory.domain_alias("elsewhere.example") == ""
    found = resolve("Anna+x@family.example.net", directory)
    assert isinstance(found, Routing) and [each.address for each in found.mailboxes] == ["anna@family.example"]
    # Whoever types the other domain at log-in means the same account.
    assert directory.login("anna@family.example.net").account.address == "anna@family.example"
    assert directory.login("nobody@family.example.net") is None


def test_a_room_from_before_reads_it_as_a_catch_all(family, folders):
    family.add_domain_alias("alias.example", FAMILY)
    with sqlite3.connect(folders / "routing" / "current") as old:
        assert old.execute("SELECT 1 FROM domains WHERE name = 'alias.example'").fetchone()
        assert old.execute("SELECT target FROM aliases WHERE source = '@alias.example'").fetchall() == [
            ("@family.example",)
        ]
        assert old.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_snapshot_from_before_domain_aliases_is_read(family, folders):
    path = folders / "auth" / "current"
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE domains DROP COLUMN alias_of")
    directory = seen(folders)
    assert directory.is_local(FAMILY) and directory.domain_alias(FAMILY) == ""
    assert isinstance(resolve("anna@family.example", directory), Routing)


@pytest.mark.parametrize(
    ("name", "existing", "error", "words"),
    [
        ("new.example", "nowhere.example", NotFound, "not here"),
        (FAMILY, FAMILY, Refused, "itself"),
        ("new.example", "alias.example", Refused, "alias of family.example"),
        ("alias.example", "other.example", Exists, "already"),
        ("other.example", FAMILY, Refused, "1 aliases"),
        (FAMILY, "other.example", Refused, "delete that first"),
        ("bare", FAMILY, InvalidName, "bare name"),
        ("new.example", "-", InvalidName, "label"),
    ],
)
def test_what_cannot_be_a_domain_alias(family, name, existing, error, words):
    family.add_domain_alias("alias.example", FAMILY)
    family.add_domain("other.example")
    family.add_alias("x@other.example", "anna@family.example")
    before = family.database.domains()
    with pytest.raises(error, match=words):
        family.add_domain_alias(name, existing)
    assert family.database.domains() == before


def test_what_older_code_leaves_of_one_means_nothing(family, folders):
    """After an update was undone: it knows `domains` alone, adds to it by position, and deletes from it alone."""
    family.add_domain("other.example")
    family.add_domain_alias("alias.example", "other.example")
    with family.database.transaction() as connection:
        connection.execute("INSERT INTO domains VALUES (?, ?)", ("late.example", 1.0))
        connection.execute("DELETE FROM domains WHERE name = 'other.example'")
    assert [(each.name, each.alias_of) for each in family.database.domains()] == [
        ("alias.example", ""), (FAMILY, ""), ("late.example", ""),
    ]  # fmt: skip
    with family.database.transaction() as connection:
        connection.execute("DELETE FROM domains WHERE name = 'alias.example'")
    family.add_domain("other.example")
    family.add_domain("alias.example")
    assert seen(folders).domain_alias("alias.example") == ""


def test_an_empty_domain_becomes_one_and_a_second_time_changes_nothing(family, folders):
    family.add_domain("alias.example")
    family.add_domain_alias("alias.example", FAMILY)
    generation = seen(folders).generation
    assert family.add_domain_alias("alias.example", FAMILY).alias_of == FAMILY
    assert seen(folders).generation == generation


def test_nothing_of_its_own_may_be_made_there(family):
    family.add_domain_alias("alias.example", FAMILY)
    with pytest.raises(Refused, match=r"alias of family.example"):
        family.add_account("carl@alias.example", "$h")
    with pytest.raises(Refused, match=r"alias of family.example"):
        family.add_alias("info@alias.example", "anna@family.example")
    with pytest.raises(Refused, match=r"alias of family.example"):
        family.add_alias("@alias.example", "anna@family.example")
    family.add_alias("info@family.example", "anna@alias.example")


def test_it_goes_and_what_it_stands_for_stays_meanwhile(family, folders):
    family.add_domain_alias("alias.example", FAMILY)
    with pytest.raises(Refused, match=r"is an alias of family.example; delete that first|still has"):
        family.delete_domain(FAMILY)
    with pytest.raises(NotFound):
        family.delete_domain_alias(FAMILY)
    assert family.delete_domain_alias("alias.example") == "alias.example"
    assert isinstance(resolve("anna@alias.example", seen(folders)), NotLocal)
    with pytest.raises(Refused, match=r"only domain|still has"):
        family.delete_domain(FAMILY)


def test_a_copy_is_kept_by_choice(family, folders):
    with pytest.raises(Refused, match="no account"):
        family.add_alias("@family.example", "out@far.example", keep_copy=True)
    family.add_alias("anna@family.example", "out@far.example", keep_copy=True)
    found = resolve("anna@family.example", seen(folders))
    assert isinstance(found, Routing)
    assert ([each.address for each in found.mailboxes], found.forwards) == (
        ["anna@family.example"],
        ("out@far.example",),
    )


# Each closes a circle by its last step, which is refused.
CLOSING = [
    [("alias", "a@family.example", "anna@family.example"), ("alias", "b@family.example", "a@family.example"),
     ("alias", "a@family.example", "b@family.example")],
    # through what was outside until the domain became an alias
    [("alias", "anna2@family.example", "anna2@new.example"), ("domain alias", "new.example", FAMILY)],
    [("domain alias", "new.example", FAMILY), ("alias", "a@family.example", "anna@family.example"),
     ("alias", "a@family.example", "a@new.example")],
    # through two catch-alls that keep the part before @
    [("domain", "b.example"), ("alias", "x@b.example", "anna@family.example"), ("alias", "@family.example",
     "@b.example"), ("alias", "@b.example", "@family.example")],
    # a catch-all that leads to one of its own, held off by an alias until that is deleted
    [("alias", "c@family.example", "anna@family.example"), ("alias", "@family.example", "c@family.example"),
     ("delete alias", "c@family.example")],
    [("alias", "c@family.example", "anna@family.example"), ("alias", "c@family.example", "c+x@family.example")],
]  # fmt: skip


def do(directories: Directories, step: tuple[str, ...]) -> None:
    match step:
        case ("alias", source, target):
            directories.add_alias(source, target)
        case ("delete alias", source):
            directories.delete_alias(source)
        case ("domain alias", name, existing):
            directories.add_domain_alias(name, existing)
        case ("delete domain", name):
            directories.delete_domain(name)
        case ("domain", name):
            directories.add_domain(name)
        case ("account", address):
            directories.add_account(address, "$h")
        case ("delete account", address):
            directories.delete_account(address)
            for duty in directories.database.duties():
                directories.done(duty)


@pytest.mark.parametrize("steps", CLOSING, ids=range(len(CLOSING)))
def test_the_step_that_closes_a_circle_is_refused(family, steps):
    for step in steps[:-1]:
        do(family, step)
    before = family.database.aliases(), family.database.domains()
    with pytest.raises(Refused, match=r"circle: .* → "):
        do(family, steps[-1])
    assert (family.database.aliases(), family.database.domains()) == before


def test_a_chain_as_deep_as_delivery_follows_and_no_deeper(family, folders):
    family.add_alias("a1@family.example", "anna@family.example")
    for number in range(2, 21):
        family.add_alias(f"a{number}@family.example", f"a{number - 1}@family.example")
    assert isinstance(resolve("a20@family.example", seen(folders)), Routing)
    with pytest.raises(Refused, match="more than 20"):
        family.add_alias("a21@family.example", "a20@family.example")


def test_two_accounts_may_copy_each_other_and_one_may_go(family, folders):
    family.add_account("bob@family.example", "$h")
    family.add_alias("anna@family.example", "bob+a@family.example")
    family.add_alias("bob@family.example", "anna+b@family.example")
    _, gone = family.delete_account("anna@family.example")
    assert [(alias.source, alias.target) for alias in gone] == [("bob@family.example", "anna+b@family.example")]
    found = resolve("anna@family.example", seen(folders))
    assert isinstance(found, Routing) and [each.address for each in found.mailboxes] == ["bob@family.example"]


def test_an_account_that_kept_a_way_from_going_round_takes_it_with_it(family, folders):
    family.add_domain("b.example")
    family.add_account("carl@family.example", "$h")
    family.add_alias("@b.example", "@family.example")
    family.add_alias("carl@family.example", "carl@b.example")  # the way back ends in the mailbox
    _, gone = family.delete_account("carl@family.example")
    assert [(alias.source, alias.target) for alias in gone] in (
        [("carl@family.example", "carl@b.example")],
        [("@b.example", "@family.example")],
    )
    found = resolve("carl@family.example", seen(folders))
    assert "circle" not in getattr(found, "reason", "")


def test_a_circle_from_before_the_check_holds_up_nothing_else(family):
    with family.database.transaction() as connection:
        for source, target in (("x", "y"), ("y", "x")):
            row = (f"{source}@family.example", f"{target}@family.example", 0.0)
            connection.execute("INSERT INTO aliases VALUES (?, ?, ?)", row)
    family.add_alias("info@family.example", "anna@family.example")
    family.delete_alias("x@family.example")


DOMAINS = ("one.example", "two.example", "three.example")
LOCALS = ("a", "b", "a+t", "postmaster")
ADDRESSES = [f"{local}@{domain}" for local in LOCALS for domain in DOMAINS]
SOURCES = st.sampled_from([*ADDRESSES, *(f"@{domain}" for domain in DOMAINS)])
STEPS = st.one_of(
    st.tuples(st.just("alias"), SOURCES, SOURCES),
    st.tuples(st.just("alias"), SOURCES, SOURCES),
    st.tuples(st.just("alias"), SOURCES, SOURCES),
    st.tuples(st.just("delete alias"), SOURCES),
    st.tuples(st.just("domain alias"), st.sampled_from(DOMAINS), st.sampled_from(DOMAINS)),
    st.tuples(st.just("domain"), st.sampled_from(DOMAINS)),
    st.tuples(st.just("delete domain"), st.sampled_from(DOMAINS)),
    st.tuples(st.just("account"), st.sampled_from([a for a in ADDRESSES if "+" not in a])),
    st.tuples(st.just("delete account"), st.sampled_from([a for a in ADDRESSES if "+" not in a])),
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A directory that is emptied for each sequence; nothing of it is synced, since no plug is pulled."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("routing", "auth"):
        (folder / name).mkdir()
    database = Database(str(folder / "directory.db"))
    database.connection.execute("PRAGMA synchronous=OFF")
    yield Directories(database, Publisher(str(folder / "routing"), str(folder / "auth"))), folder
    database.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=3, max_size=25))
def test_no_order_of_changes_leaves_a_circle(workshop, steps):
    directories, folder = workshop
    with directories.database.transaction() as connection:
        for table in ("domains", "domain_aliases", "accounts", "aliases", "duties"):
            connection.execute(f"DELETE FROM {table}")
    directories.add_domain("one.example")
    directories.add_domain("two.example")
    directories.add_account("admin@one.example", "$h", administrator=True)
    for step in steps:
        try:
            do(directories, step)
        except (DirectoryError, InvalidName):
            continue
    directory = SnapshotDirectory(str(folder / "auth"))
    for address in [*ADDRESSES, "nobody@one.example", "nobody+x@two.example", "admin@three.example"]:
        found = resolve(address, directory)
        assert "circle" not in getattr(found, "reason", ""), (address, directories.database.aliases())
