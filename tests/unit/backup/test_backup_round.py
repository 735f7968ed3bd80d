"""The whole way: volumes of a small stack into a tar and back into other volumes, byte for byte, mode for mode."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from services.backup import contents, restore, save
from services.backup.archive import DamagedBackup, Writer
from services.setup.places import places
from services.storage import copies
from services.storage.sqlite_state import SqliteState

NOW = 1_700_000_000.0
ME = (os.geteuid(), os.getegid())


def database(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Volumes as setup leaves them, with one account, a queue, keys, certificates, the record."""
    root = empty_volumes(tmp_path / "stack")
    database(
        root / "admin" / "directory.db", "CREATE TABLE accounts (address TEXT)", "INSERT INTO accounts VALUES ('ann')"
    )
    database(root / "admin" / "events.db", "CREATE TABLE big (n)")
    (root / "admin" / "sessions.json").write_text("{}")
    (root / "dkim" / "a.test").mkdir(mode=0o700)
    (root / "dkim" / "a.test" / "s1.pem").write_text("private")
    (root / "dkim" / "a.test" / "s1.pem").chmod(0o600)
    (root / "certs" / "1").mkdir()
    (root / "certs" / "1" / "fullchain.pem").write_text("chain")
    (root / "certs" / "current").symlink_to("1")
    (root / "secrets" / "admin+dkim").write_text("s" * 64)
    (root / "routing" / "0000000000001.sqlite").write_text("derived")
    (root / "events-imap" / "1.jsonl").write_text('{"t":1}\n')
    (root / "room-imap" / "facts.jsonl").write_text("")
    (root / "spool" / "msg").mkdir()
    (root / "spool" / "tmp").mkdir()
    (root / "spool" / "tmp" / "unfinished").write_text("x")
    (root / "spool" / "msg" / "0123456789abcdef").write_bytes(b"Subject: queued\r\n\r\n\r\n")
    database(
        root / "spool" / "queue.db",
        "CREATE TABLE messages (id TEXT)",
        "INSERT INTO messages VALUES ('0123456789abcdef')",
    )
    account(root, "a.test", "ann", {"": ["1.a:2,S"], ".&ZeVnLIqe-": ["2.b:2,"]})
    deleted = root / "mail" / ".deleted" / "bob@a.test.1700000000" / "cur"
    deleted.mkdir(parents=True)
    (deleted / "9.old:2,S").write_text("old")
    return root


def empty_volumes(root: Path) -> Path:
    for place in places():
        (root / place.volume / place.inside).mkdir(parents=True, exist_ok=True)
    (root / "mail").chmod(0o2710)
    return root


def account(root: Path, domain: str, local: str, files: dict[str, list[str]]) -> None:
    home = root / "mail" / domain / local
    for folder, names in files.items():
        for sub in ("cur", "new", "tmp"):
            (home / folder / sub).mkdir(parents=True)
        for name in names:
            (home / folder / "cur" / name).write_bytes(b"From: x\r\n\r\n" + name.encode())
            os.utime(home / folder / "cur" / name, (1_600_000_000, 1_600_000_000))
    (home / "subscriptions").write_text("Sent\n")
    for path in [home, *home.rglob("*")]:
        if path.is_dir():
            path.chmod(0o2700 if path.name == "cur" else 0o2730)
    state = root / "imap-state" / domain / local
    state.mkdir(parents=True)
    SqliteState(str(state / "state.db")).close()
    with sqlite3.connect(state / "state.db") as connection:
        for number, (folder, names) in enumerate(files.items(), 1):
            connection.execute(
                "INSERT INTO mailboxes (id, mailboxid, name, folder, special_use, uidvalidity, uidnext, recent_from, "
                "modseq, forgotten, created) VALUES (?, ?, ?, ?, '', 1, ?, 1, 1, 0, 0)",
                (number, f"F{number}", folder or "INBOX", folder, len(names) + 1),
            )
            connection.executemany(
                "INSERT INTO messages (mailbox, uid, file, flags, modseq, date, saved, octets) VALUES (?, ?, ?, 0, 1, 0, 0, 1)",
                [(number, uid, name) for uid, name in enumerate(names, 1)],
            )
    connection.close()
    (state / "cache.db").write_bytes(b"derived")


def env_tar(**files: str) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"env/{name}.env")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    data.seek(0)
    return data


def saved(root: Path, env: io.BytesIO | None = None) -> tuple[bytes, save.Saved]:
    output = io.BytesIO()
    report = save.save(str(root), env or env_tar(), output, NOW)
    return output.getvalue(), report


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below `root` but databases: mode and contents by name."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = (0, os.readlink(path).encode())
        elif path.is_dir():
            found[name] = (stat.S_IMODE(path.stat().st_mode), b"")
        elif ".db" not in path.name:
            found[name] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
    return found


def test_everything_comes_back_as_it_was(stack: Path, tmp_path: Path) -> None:
    tar, report = saved(stack, env_tar(relay="RELAY_PASSWORD='s3 cret'\n", mailstead="MAIL_DOMAIN=a.test\n"))
    assert (report.accounts, report.messages, report.queued, report.warnings) == (1, 2, 1, [])
    other, env = empty_volumes(tmp_path / "other"), io.BytesIO()
    found = restore.restore(str(other), io.BytesIO(tar), env, force=False)
    assert (found.accounts, found.messages, found.queued) == ({"ann@a.test"}, 3, 1)
    assert (found.domains, sorted(found.env)) == ({"a.test"}, ["mailstead.env", "relay.env"])
    before, after = tree(stack), tree(other)
    gone = {"routing/0000000000001.sqlite", "spool/tmp", "spool/tmp/unfinished"}
    assert {name: entry for name, entry in before.items() if name not in gone and name != "mail/.incoming"} == {
        name: entry for name, entry in after.items() if name != "spool/held"
    }
    assert (other / "mail/a.test/ann/cur/1.a:2,S").stat().st_mtime == 1_600_000_000
    env.seek(0)
    with tarfile.open(fileobj=env) as handed:
        relay = handed.extractfile("env/relay.env")
        assert relay is not None and relay.read() == b"RELAY_PASSWORD='s3 cret'\n"
        assert handed.getmember("env/relay.env").mode == 0o600


def test_databases_come_back_with_what_was_committed(stack: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(stack / "admin" / "directory.db", isolation_level=None)
    writer.execute("INSERT INTO accounts VALUES ('late')")  # in the log, not yet in the file
    tar, _ = saved(stack)
    writer.close()
    other = empty_volumes(tmp_path / "other")
    restore.restore(str(other), io.BytesIO(tar), io.BytesIO(), force=False)
    with sqlite3.connect(other / "admin" / "directory.db") as connection:
        assert connection.execute("SELECT address FROM accounts").fetchall() == [("ann",), ("late",)]
    assert not (other / "admin" / "events.db").exists()
    assert not (other / "imap-state" / "a.test" / "ann" / "cache.db").exists()


def test_a_restored_queue_is_held_and_no_uid_comes_again(stack: Path, tmp_path: Path) -> None:
    tar, _ = saved(stack)
    other = empty_volumes(tmp_path / "other")
    restore.restore(str(other), io.BytesIO(tar), io.BytesIO(), force=False)
    assert (other / "spool" / "held").exists()
    state = SqliteState(str(other / "imap-state" / "a.test" / "ann" / "state.db"))
    assert [row.uidnext for row in state.mailboxes()] == [2 + copies.UIDS_SKIPPED] * 2
    state.close()


def test_a_message_queued_while_the_queue_is_copied_has_its_file(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = copies.copy_database

    def copy_database(source: str, target: str) -> None:
        if source.endswith("queue.db"):
            (stack / "spool" / "msg" / "fedcba9876543210").write_text("late")
            with sqlite3.connect(source) as connection:
                connection.execute("INSERT INTO messages VALUES ('fedcba9876543210')")
        real(source, target)
        if source.endswith("queue.db"):
            (stack / "spool" / "msg" / "0123456789abcdef").unlink()  # sent meanwhile

    monkeypatch.setattr(copies, "copy_database", copy_database)
    tar, report = saved(stack)
    other = empty_volumes(tmp_path / "other")
    restore.restore(str(other), io.BytesIO(tar), io.BytesIO(), force=False)
    with sqlite3.connect(other / "spool" / "queue.db") as connection:
        rows = {row[0] for row in connection.execute("SELECT id FROM messages")}
    assert rows == set(os.listdir(other / "spool" / "msg")) == {"0123456789abcdef", "fedcba9876543210"}
    assert report.queued == 2


def test_nothing_is_left_behind_and_what_an_earlier_run_left_is_removed(stack: Path) -> None:
    (stack / "mail" / ".backup-1" / "account").mkdir(parents=True)
    (stack / "mail" / ".backup-1" / "account" / "1.a").write_text("x")
    (stack / "spool" / ".backup-1").mkdir()
    before = sorted(name for name in tree(stack) if ".backup-" not in name)
    saved(stack)
    assert sorted(tree(stack)) == before


def test_two_at_once_are_refused(stack: Path) -> None:
    with save.alone(str(stack)), pytest.raises(save.BackupRunning):
        saved(stack)


def test_a_stack_that_has_something_is_not_touched_without_force(stack: Path, tmp_path: Path) -> None:
    tar, _ = saved(stack)
    before = tree(stack)
    with pytest.raises(restore.NotEmpty, match="accounts, mail, queued mail, DKIM keys"):
        restore.restore(str(stack), io.BytesIO(tar), io.BytesIO(), force=False)
    assert tree(stack) == before


def test_force_leaves_nothing_of_what_was_there(stack: Path, tmp_path: Path) -> None:
    tar, _ = saved(stack)
    other = empty_volumes(tmp_path / "other")
    account(other, "b.test", "eve", {"": ["7.x:2,"]})
    (other / "auth" / "1.sqlite").write_text("old hashes")
    (other / "admin" / "directory.db-wal").write_text("another database's log")
    restore.restore(str(other), io.BytesIO(tar), io.BytesIO(), force=True)
    assert not (other / "mail" / "b.test").exists() and not (other / "imap-state" / "b.test").exists()
    assert os.listdir(other / "auth") == []
    assert not (other / "admin" / "directory.db-wal").exists(), "it would be replayed into the restored one"


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("mail/../../etc/passwd", tarfile.REGTYPE, ""),
        ("elsewhere/x", tarfile.REGTYPE, ""),
        ("mail/a.test/ann/cur/link", tarfile.SYMTYPE, "/etc/passwd"),
        ("certs/current", tarfile.SYMTYPE, "../dkim"),
        ("certs/current", tarfile.SYMTYPE, ".."),
        ("mail/device", tarfile.CHRTYPE, ""),
        ("mail/hard", tarfile.LNKTYPE, "mail/other"),
    ],
)
def test_a_tar_that_reaches_for_more_than_its_volumes_is_refused(
    tmp_path: Path, name: str, kind: bytes, link: str
) -> None:
    data, info = io.BytesIO(), tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    about = json.dumps({"format": 1, "created": 0, "mail_uid": 5000, "mail_gid": 5000}).encode()
    with tarfile.open(fileobj=data, mode="w") as tar:
        head = tarfile.TarInfo(contents.ABOUT)
        head.size = len(about)
        tar.addfile(head, io.BytesIO(about))
        tar.addfile(info)
    with pytest.raises(DamagedBackup, match="does not belong"):
        restore.check(io.BytesIO(data.getvalue()))
    with pytest.raises(DamagedBackup, match="does not belong"):
        restore.restore(str(empty_volumes(tmp_path)), io.BytesIO(data.getvalue()), io.BytesIO(), force=False)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (b'{"format": 2, "created": 0, "mail_uid": 1, "mail_gid": 1}', "format 2"),
        (b"[]", "cannot be read"),
        (b"{", "cannot be read"),
    ],
)
def test_a_backup_of_another_kind_is_refused(about: bytes, words: str) -> None:
    data = io.BytesIO()
    writer = Writer(data, io.BytesIO())
    writer.data(contents.ABOUT, about)
    writer.close()
    with pytest.raises(DamagedBackup, match=words):
        restore.check(io.BytesIO(data.getvalue()))


def test_mail_gets_the_owner_that_this_stack_has(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar, _ = saved(stack)
    given: dict[str, tuple[int, int]] = {}
    real = os.open
    paths: dict[int, str] = {}

    def remember(path: str, *more: int, **named: int) -> int:
        descriptor = real(path, *more, **named)
        paths[descriptor] = str(path)
        return descriptor

    monkeypatch.setattr(os, "open", remember)
    monkeypatch.setattr(os, "fchown", lambda descriptor, uid, gid: given.update({paths[descriptor]: (uid, gid)}))
    other = empty_volumes(tmp_path / "other")
    real_stat = os.stat

    def other_owner(path: str, *more: int, **named: bool) -> os.stat_result:
        state = real_stat(path, *more, **named)
        if path == str(other / "mail"):
            return os.stat_result((*state[:4], 7000, 7001, *state[6:]))
        return state

    monkeypatch.setattr(os, "stat", other_owner)
    restore.restore(str(other), io.BytesIO(tar), io.BytesIO(), force=False)
    assert given[str(other / "mail/a.test/ann/cur/1.a:2,S")] == (7000, 7001)


def command(root: Path, *arguments: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "services.backup", *arguments, "--root", str(root)],
        input=stdin, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_command_saves_checks_and_restores(stack: Path, tmp_path: Path) -> None:
    done = command(stack, "save", stdin=env_tar(dns="").getvalue())
    assert done.returncode == 0 and b"saved 1 mailboxes with 2 messages, 1 queued messages" in done.stderr
    checked = command(stack, "check", stdin=done.stdout)
    assert checked.returncode == 0 and checked.stderr.startswith(b"whole: ") and b"ann@a.test" in checked.stderr
    refused = command(stack, "restore", stdin=done.stdout)
    assert refused.returncode == 3 and b"not empty" in refused.stderr and refused.stdout == b""
    damaged = command(stack, "check", stdin=done.stdout[:30_000])
    assert damaged.returncode == 1 and damaged.stderr.count(b"\n") == 1 and b"damaged" in damaged.stderr
    restored = command(empty_volumes(tmp_path / "other"), "restore", stdin=done.stdout)
    assert restored.returncode == 0 and b"1 queued messages, held" in restored.stderr
    with tarfile.open(fileobj=io.BytesIO(restored.stdout)) as env:
        assert env.getnames() == ["env/dns.env"]


def test_a_restore_that_was_cut_off_is_not_a_house(stack: Path, tmp_path: Path) -> None:
    """Half a restore lets neither the rooms start nor a backup be made of it; the restore itself is run again."""
    tar, _ = saved(stack)
    target = empty_volumes(tmp_path / "target")
    with pytest.raises(DamagedBackup):
        restore.restore(str(target), io.BytesIO(tar[: len(tar) // 2]), io.BytesIO(), force=False)
    command = [sys.executable, "-m", "services.setup", "--root", str(target)]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    assert started.returncode == 1 and "run scripts/restore again" in started.stderr
    with pytest.raises(save.BackupRunning, match="cut off"):
        saved(target)
    restore.restore(str(target), io.BytesIO(tar), io.BytesIO(), force=False)
    assert not copies.restore_unfinished(str(target / "mail"))
    assert (target / "mail/a.test/ann/cur/1.a:2,S").exists()
