"""The verbs that change the directory, and that each is published before it returns."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from services.directory.database import Database, NewerDatabase
from services.directory.errors import Exists, NotFound, NotPublished, Refused
from services.directory.lookup import SnapshotDirectory
from services.directory.models import Alias, Fact
from services.directory.publish import PublicationFailed


def published(folders, name="auth"):
    return SnapshotDirectory(str(folders / name))


def test_every_change_is_published_when_it_returns(family, folders):
    family.add_account("bob@family.example", "$hash-of-bob", quota_bytes=5)
    family.add_alias("info@family.example", "bob@family.example")
    for name in ("routing", "auth"):
        seen = published(folders, name)
        assert seen.account("bob@family.example").quota_bytes == 5
        assert seen.aliases("info@family.example") == ("bob@family.example",)
        assert seen.is_local("FAMILY.example") and not seen.is_local("other.example")
    assert published(folders).login("bob").password_hash == "$hash-of-bob"


def test_routing_snapshot_holds_no_hash(family, folders):
    for path in (folders / "routing").iterdir():
        assert b"hash-of" not in path.read_bytes()
        assert b"password" not in path.read_bytes()


def test_disabled_account_has_no_hash_out_there(family, folders):
    family.update_account("anna@family.example", enabled=False)
    found = published(folders).login("anna@family.example")
    assert not found.account.enabled and found.password_hash == ""
    assert b"hash-of-anna" not in (folders / "auth" / "current").read_bytes()
    family.update_account("anna@family.example", enabled=True)
    assert published(folders).login("anna").password_hash == "$hash-of-anna"


def test_user_name_is_the_first_ones(family):
    family.add_domain("other.example")
    assert family.account("anna@family.example").account.login == "anna"
    assert family.add_account("anna@other.example", "$h").account.login == ""
    assert family.add_account("o'neill@other.example", "$h").account.login == ""
    assert family.add_account("bob@other.example", "$h", login="").account.login == ""
    with pytest.raises(Exists):
        family.update_account("anna@other.example", login="anna")
    assert family.update_account("anna@other.example", login="anna2").account.login == "anna2"
    assert family.update_account("anna@family.example", login="").account.login == ""
    assert family.update_account("anna@other.example", login="anna").account.login == "anna"


@pytest.mark.parametrize(
    ("verb", "arguments", "error"),
    [
        ("add_domain", ("FAMILY.example",), Exists),
        ("delete_domain", ("other.example",), NotFound),
        ("delete_domain", ("family.example",), Refused),
        ("add_account", ("anna@family.example", "$h"), Exists),
        ("add_account", ("bob@other.example", "$h"), NotFound),
        ("set_password", ("bob@family.example", "$h"), NotFound),
        ("update_account", ("bob@family.example",), NotFound),
        ("delete_account", ("bob@family.example",), NotFound),
        ("delete_account", ("admin@family.example",), Refused),
        ("delete_alias", ("info@family.example",), NotFound),
        ("add_alias", ("info@other.example", "anna@family.example"), NotFound),
        ("add_alias", ("info@family.example", "nobody@family.example"), NotFound),
        ("add_alias", ("info@family.example", "info@family.example"), Refused),
        ("add_alias", ("@family.example", "nobody@family.example"), NotFound),
        ("add_alias", ("@family.example", "@family.example"), Refused),
        ("add_alias", ("info@family.example", "@other.example"), Refused),
    ],
)
def test_refused_changes_publish_nothing(family, folders, verb, arguments, error):
    before = published(folders).generation
    with pytest.raises(error):
        getattr(family, verb)(*arguments)
    assert published(folders).generation == before


@pytest.mark.parametrize("change", [{"enabled": False}, {"administrator": False}])
def test_last_administrator_stays(family, change):
    with pytest.raises(Refused):
        family.update_account("admin@family.example", **change)
    family.update_account("anna@family.example", administrator=True)
    family.update_account("admin@family.example", **change)


def test_negative_quota_is_refused(family):
    with pytest.raises(Refused):
        family.update_account("anna@family.example", quota_bytes=-1)
    with pytest.raises(Refused):
        family.add_account("bob@family.example", "$h", quota_bytes=1 << 70)


def test_same_again_changes_nothing(family, folders):
    family.add_alias("info@family.example", "anna@family.example")
    before = published(folders).generation
    family.add_alias("INFO@family.example", "anna@family.example")
    family.update_account("anna@family.example", enabled=True)
    assert published(folders).generation == before


def test_aliases_many_to_many(family, folders):
    family.add_account("bob@family.example", "$h")
    for target in ("anna@family.example", "bob@family.example", "aunt@gmail.example"):
        family.add_alias("all@family.example", target)
    family.add_alias("info@family.example", "all@family.example")
    family.add_alias("@family.example", "anna@family.example")
    seen = published(folders)
    assert len(seen.aliases("all@family.example")) == 3
    assert seen.sources_for("anna@family.example") == ("@family.example", "all@family.example", "info@family.example")
    assert family.delete_alias("all@family.example", "bob@family.example") == [
        Alias("all@family.example", "bob@family.example")
    ]
    assert len(family.delete_alias("all@family.example")) == 2


LOOPS = [
    # aliases that stand, the one that is added, whether it is a loop
    ([("a", "anna")], ("b", "a"), False),
    ([("a", "anna"), ("b", "a")], ("a", "b"), True),
    ([("a", "anna"), ("b", "a"), ("c", "b")], ("a", "c"), True),
    ([("@", "anna")], ("info", "anyone"), False),
    ([("info", "anna"), ("@", "info")], ("info", "anyone"), True),
    ([], ("anna", "anna"), False),
    ([("anna", "anna"), ("anna", "admin")], ("admin", "anna"), False),
    ([], ("a", "postmaster"), False),
    ([("a", "anna")], ("b", "a+tag"), False),
    ([("a", "anna"), ("b", "a")], ("a", "b+tag"), True),
]


@pytest.mark.parametrize(("standing", "added", "loop"), LOOPS)
def test_loops_are_refused_when_made(family, standing, added, loop):
    def full(name):
        return "@family.example" if name == "@" else f"{name}@family.example"

    for source, target in standing:
        family.add_alias(full(source), full(target))
    if loop:
        with pytest.raises(Refused):
            family.add_alias(full(added[0]), full(added[1]))
    else:
        family.add_alias(full(added[0]), full(added[1]))


def test_domain_alias(family, folders):
    family.add_domain("old.example")
    family.add_alias("@old.example", "@family.example")
    assert published(folders).aliases("@old.example") == ("@family.example",)
    with pytest.raises(Refused):
        family.add_alias("@family.example", "@old.example")


def test_deleted_account_keeps_its_row_for_thirty_days(family, folders, clock):
    family.add_alias("info@family.example", "anna@family.example")
    address, gone = family.delete_account("Anna@family.example")
    assert address == "anna@family.example" and gone == [Alias("info@family.example", "anna@family.example")]
    seen = published(folders)
    assert seen.account(address) is None and seen.login("anna") is None
    assert [d.account.deleted_at for d in family.database.accounts(deleted=True)] == [clock.now]
    assert family.forget_deleted() == 0
    clock.now += 31 * 86_400
    assert family.forget_deleted() == 1
    assert family.database.accounts(deleted=True) == []


def finish(directories):
    for duty in directories.database.duties():
        directories.done(duty)


def duties(directories):
    return [(duty.kind, duty.subject, duty.detail) for duty in directories.database.duties()]


def test_changes_owe_the_other_rooms_their_part(family, clock):
    assert sorted(duties(family)) == [
        ("keys", "family.example", ""),
        ("provision", "admin@family.example", ""),
        ("provision", "anna@family.example", ""),
    ]
    clock.now += 1
    family.delete_account("anna@family.example")
    assert duties(family)[-1] == ("remove-mail", "anna@family.example", "keep")
    assert ("provision", "anna@family.example", "") not in duties(family)
    finish(family)
    assert duties(family) == []


def test_a_duty_made_anew_while_it_was_done_stays(family, clock):
    (old,) = (duty for duty in family.database.duties() if duty.kind == "keys")
    family.add_domain("other.example")
    clock.now += 1
    family.delete_domain("other.example")
    with family.database.transaction() as connection:
        family._owe(connection, "keys", "family.example")
    family.done(old)
    assert ("keys", "family.example", "") in duties(family)
    assert ("keys", "other.example", "") not in duties(family)


def test_deleted_address_can_be_used_again_once_its_mail_is_put_away(family):
    family.delete_account("anna@family.example")
    with pytest.raises(Refused, match="put away"):
        family.add_account("anna@family.example", "$new")
    finish(family)
    assert family.add_account("anna@family.example", "$new").account.login == "anna"
    with pytest.raises(Refused, match="in use again"):
        family.purge_deleted("anna@family.example")


def test_purge_now_and_later(family):
    family.delete_account("anna@family.example", purge=True)
    assert family.database.accounts(deleted=True) == []
    assert duties(family)[-1] == ("remove-mail", "anna@family.example", "purge")
    family.add_account("bob@family.example", "$h")
    family.delete_account("bob@family.example")
    finish(family)
    assert family.purge_deleted("Bob@family.example") == 1
    assert duties(family) == [("remove-mail", "bob@family.example", "purge")]
    with pytest.raises(NotFound):
        family.purge_deleted("bob@family.example")


def test_domain_goes_when_empty(family, folders):
    family.add_domain("other.example")
    family.add_alias("x@other.example", "anna@family.example")
    with pytest.raises(Refused):
        family.delete_domain("other.example")
    family.delete_alias("x@other.example")
    family.delete_domain("Other.example")
    assert published(folders).domains() == ("family.example",)


def test_only_domain_stays(directories):
    directories.add_domain("family.example")
    with pytest.raises(Refused):
        directories.delete_domain("family.example")


OLD = "$argon2id$v=19$m=102400,t=2,p=8$abc$def"
NEW = "$argon2id$v=19$m=19456,t=2,p=1$abc$def"


@pytest.mark.parametrize(
    ("stored", "replaces", "offered", "taken"),
    [
        (OLD, OLD, NEW, True),
        ("$other", OLD, NEW, False),  # the password was changed meanwhile
        (NEW, NEW, NEW + "x", False),  # today's hash is never replaced: a room cannot set a password
        (OLD, OLD, OLD + "x", False),  # not by a weaker one
    ],
)
def test_rehash_from_a_room(family, stored, replaces, offered, taken):
    family.set_password("anna@family.example", stored)
    assert family.rehash("anna@family.example", replaces, offered) is taken
    assert family.database.password_hash("anna@family.example") == (offered if taken else stored)


def test_facts_are_taken_once_and_publish_nothing(family, folders, clock):
    before = published(folders).generation

    def used(identity, at):
        return family.take_facts([Fact(identity, "last-used", "anna@family.example", at)])

    assert len(used("f1", clock.now - 5)) == 1
    assert used("f1", clock.now - 1) == []
    used("f2", clock.now - 50)
    assert family.account("anna@family.example").last_used == clock.now - 5
    used("f3", clock.now + 9999)  # a room whose clock is ahead
    assert family.account("anna@family.example").last_used == clock.now
    family.take_facts(
        [Fact("f4", "usage", "anna@family.example", 0.0, 7, 2), Fact("f5", "usage", "nobody@x.example", 0)]
    )
    assert family.account("anna@family.example").used_bytes == 7
    assert family.take_facts([Fact("f6", "of-a-newer-room", "anna@family.example", 0.0)])
    assert published(folders).generation == before


def test_a_rehash_told_as_a_fact_is_published(family, folders):
    family.set_password("anna@family.example", OLD)
    family.take_facts([Fact("f1", "rehash", "anna@family.example", 0.0, replaces=OLD, password_hash=NEW)])
    assert published(folders).login("anna").password_hash == NEW


def test_full_disk_at_publication_changes_nothing(family, folders, monkeypatch):
    before = published(folders).generation
    monkeypatch.setattr("services.directory.publish._fsync", _no_space)
    with pytest.raises(PublicationFailed):
        family.add_domain("other.example")
    monkeypatch.undo()
    assert [domain.name for domain in family.database.domains()] == ["family.example"]
    assert published(folders).generation == before
    assert not list((folders / "auth").glob("*.partial"))
    family.add_domain("other.example")
    assert published(folders).is_local("other.example")


def test_failed_link_is_said_and_finished_later(family, folders, monkeypatch):
    monkeypatch.setattr("services.directory.publish.os.symlink", _no_space)
    with pytest.raises(NotPublished):
        family.add_domain("other.example")
    monkeypatch.undo()
    assert not published(folders).is_local("other.example")
    assert family.republish() is True
    assert published(folders).is_local("other.example")
    assert family.republish() is False


def test_failed_commit_withdraws_the_snapshots(family, folders, monkeypatch):
    files = sorted((folders / "auth").iterdir())

    class Failing:
        def __init__(self, connection):
            self.connection = connection

        def __getattr__(self, name):
            return getattr(self.connection, name)

        def execute(self, sql, *values):
            if sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self.connection.execute(sql, *values)

    monkeypatch.setattr(family.database, "connection", Failing(family.database.connection))
    with pytest.raises(sqlite3.OperationalError):
        family.add_domain("other.example")
    monkeypatch.undo()
    assert sorted((folders / "auth").iterdir()) == files
    assert not family.database.connection.in_transaction


def test_restored_database_never_reuses_a_generation(family, folders, clock):
    family.database.connection.execute("UPDATE meta SET value = '5' WHERE name = 'generation'")  # as an old backup has
    seen = published(folders).generation
    clock.now -= 10_000
    assert family.republish() is True
    assert published(folders).generation > seen


def test_newer_schema_is_refused(folders):
    path = str(folders / "newer.db")
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(NewerDatabase, match=r"newer\.db has schema 99"):
        Database(path)


def test_the_code_before_opens_what_a_later_one_only_added_to(folders, monkeypatch, tmp_path):
    from services.directory import database
    from services.directory.database import readable

    this, later = database.MIGRATIONS, tmp_path / "migrations"
    shutil.copytree(this, later)
    known = len(list(later.glob("*.sql")))
    path = str(folders / "directory.db")
    Database(path).close()
    (later / f"{known + 1:04}_colour.sql").write_text(
        f"-- readable from: {known}\nALTER TABLE domains ADD COLUMN colour TEXT NOT NULL DEFAULT '';"
    )
    monkeypatch.setattr(database, "MIGRATIONS", str(later))
    Database(path).close()
    monkeypatch.setattr(database, "MIGRATIONS", this)
    assert readable(path)
    older = Database(path)
    assert older.connection.execute("PRAGMA user_version").fetchone() == (known + 1,)
    older.close()
    (later / f"{known + 2:04}_other.sql").write_text("ALTER TABLE domains RENAME COLUMN name TO domain;")
    monkeypatch.setattr(database, "MIGRATIONS", str(later))
    Database(path).close()
    monkeypatch.setattr(database, "MIGRATIONS", this)
    assert not readable(path)
    with pytest.raises(NewerDatabase):
        Database(path)


@pytest.mark.parametrize("content", [None, b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_what_is_no_directory_is_not_readable(tmp_path, content):
    from services.directory.database import readable

    path = tmp_path / "directory.db"
    if content is not None:
        path.write_bytes(content)
    assert readable(str(path)) is (content == b""), "an empty file is a database of its first moment"


def test_failed_migration_leaves_the_old_schema(tmp_path):
    from services.directory.database import migrate

    (tmp_path / "0001_first.sql").write_text("CREATE TABLE one (a);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE two (a); CREATE TABLE one (a);")
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(connection, str(tmp_path), "x")
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    assert names == ["one"] and connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_database_is_private(family, folders):
    assert (folders / "directory.db").stat().st_mode & 0o077 == 0


def _no_space(*_arguments, **_options):
    raise OSError(28, "No space left on device")
