"""The tar is whole or it is said to be damaged: every cut, every flipped octet, every foreign name."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from services.backup import contents
from services.backup.archive import DamagedBackup, Writer, members
from services.setup.places import WITHOUT_SECRETS, places


def written(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    writer = Writer(output, io.BytesIO())
    for name, content in files.items():
        writer.data(name, content)
    writer.close()
    return output.getvalue()


def read(data: bytes) -> dict[str, bytes]:
    return {
        member.info.name: member.contents.read() for member in members(io.BytesIO(data)) if member.contents is not None
    }


FILES = {
    "mailstead.json": b"{}\n",
    "mail/a.test/ann/cur/1.a:2,S": b"x" * 5000,
    "mail/a.test/ann/.&ZeVnLIqe-/cur/2.\xc3\xa9:2,": b"",
    "spool/msg/0123456789abcdef": b"y" * 600,
}


def test_what_was_written_is_read() -> None:
    assert read(written(FILES)) == FILES


def test_the_callers_reading_is_not_needed_for_the_sums() -> None:
    assert len(list(members(io.BytesIO(written(FILES))))) == len(FILES)


@pytest.mark.parametrize("share", [0, 1, 511, 512, 1024, 2000, 6000, 8000, 9000, 10_000])
def test_a_tar_that_was_cut_off_is_damaged(share: int) -> None:
    data = written(FILES)
    with pytest.raises(DamagedBackup):
        read(data[:share])


def test_any_octet_of_any_file_that_changed_is_found_and_its_file_named() -> None:
    data = written(FILES)
    for name, content in FILES.items():
        if not content:
            continue
        at = data.index(content)
        for place in (at, at + len(content) - 1):
            damaged = bytearray(data)
            damaged[place] ^= 1
            with pytest.raises(DamagedBackup, match=name.rpartition("/")[2].replace(".", r"\.")):
                read(bytes(damaged))


def test_a_file_that_the_sums_do_not_name_is_found() -> None:
    smuggled = io.BytesIO()
    with (
        tarfile.open(fileobj=smuggled, mode="w", format=tarfile.PAX_FORMAT) as target,
        tarfile.open(fileobj=io.BytesIO(written(FILES))) as source,
    ):
        for info in source:
            if info.name == contents.SUMS:
                extra = tarfile.TarInfo("dkim/evil.pem")
                extra.size = 3
                target.addfile(extra, io.BytesIO(b"pem"))
            target.addfile(info, source.extractfile(info))
    with pytest.raises(DamagedBackup, match="does not name"):
        read(smuggled.getvalue())


def test_the_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    """A person with tar and coreutils can check a backup without us."""
    (tmp_path / "backup.tar").write_bytes(written({**FILES, "mail/a.test/odd/cur/line\nend\\": b"z"}))
    subprocess.run(["tar", "-xf", "backup.tar"], cwd=tmp_path, check=True)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", contents.SUMS], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_file_that_grows_is_taken_as_long_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "segment.jsonl"
    path.write_bytes(b"a" * 100)
    real = os.fstat

    def fstat_then_grow(descriptor: int) -> os.stat_result:
        state = real(descriptor)
        with path.open("ab") as file:
            file.write(b"b" * 50)
        return state

    output = io.BytesIO()
    writer = Writer(output, io.BytesIO())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", fstat_then_grow)
        writer.file("events-imap/segment.jsonl", str(path))
    writer.close()
    assert read(output.getvalue()) == {"events-imap/segment.jsonl": b"a" * 100}


def test_a_file_that_gets_shorter_ends_the_backup(tmp_path: Path) -> None:
    path = tmp_path / "mail"
    path.write_bytes(b"a" * 100)
    real = os.fstat

    def fstat_then_cut(descriptor: int) -> os.stat_result:
        state = real(descriptor)
        os.truncate(path, 10)
        return state

    with pytest.MonkeyPatch.context() as patch, pytest.raises(DamagedBackup, match="shorter"):
        patch.setattr(os, "fstat", fstat_then_cut)
        Writer(io.BytesIO(), io.BytesIO()).file("mail/a", str(path))


def test_neither_a_link_nor_a_pipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    writer = Writer(io.BytesIO(), io.BytesIO())
    with pytest.raises(OSError):
        writer.file("mail/link", str(tmp_path / "link"))
    writer.file("mail/pipe", str(tmp_path / "pipe"))
    assert writer.files == 0


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("mail/a.test/ann/cur/1", True),
        ("secrets/admin+dkim", True),
        ("env/relay.env", True),
        ("env/relay.env.example", False),
        ("env/../compose.yaml", False),
        ("env/sub/relay.env", False),
        ("mail", False),
        ("mail/", False),
        ("mail/../dkim/x", False),
        ("mail//x", False),
        ("mail/./x", False),
        ("/mail/x", False),
        ("routing/1.sqlite", False),
        ("elsewhere/x", False),
        ("", False),
    ],
)
def test_only_plain_names_in_our_volumes_are_restored(name: str, allowed: bool) -> None:
    assert contents.restorable(name) is allowed


def test_every_volume_is_kept_or_made_again() -> None:
    """A new volume must be thought of: setup makes the rooms' secrets again, unbound its key, admin its
    snapshots, the scanners fetch theirs."""
    made_again = {*contents.DERIVED, *WITHOUT_SECRETS}
    prepared = {place.volume for place in places() if not place.volume.startswith("secrets-")}
    assert set(contents.KEPT) | made_again == prepared
    assert not set(contents.KEPT) & made_again


@pytest.mark.parametrize(
    ("volume", "name", "derived", "database"),
    [
        ("admin", "directory.db", False, True),
        ("admin", "directory.db-wal", True, False),
        ("admin", "events.db", True, True),
        ("imap-state", "cache.db-shm", True, False),
        ("dkim", "s1.pem.new", True, False),
        ("certs", "fullchain.pem", False, False),
        ("mail", "1.host.new", False, False),
        ("mail", "1.host.db", False, False),
    ],
)
def test_what_is_made_again_by_itself_is_left_out(volume: str, name: str, derived: bool, database: bool) -> None:
    assert contents.derived(volume, name) is derived
    assert contents.is_database(volume, name) is database
