"""What imap publishes of an account: replaced whole, read at most once a second, and nothing known where it is broken."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from services.storage import atomic
from services.storage.errors import BadName
from services.storage.personal import STALE_SECONDS, Buffer, Reader, publish, withdraw

ANNA = "anna@family.example"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reader(folder: Path, clock: Callable[[], float], most: int = 1 << 20) -> Reader[bytes]:
    def make(octets: Buffer) -> bytes:
        data = bytes(octets[:])
        if data.startswith(b"garbage"):
            raise ValueError(data)
        return data

    return Reader(str(folder), "junk.model", make, most=most, clock=clock)


def test_a_published_file_is_read(tmp_path: Path) -> None:
    publish(str(tmp_path), ANNA, "junk.model", b"one")
    path = tmp_path / "family.example" / "anna" / "junk.model"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for folder in (path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o2750
    assert reader(tmp_path, Clock()).get(ANNA) == b"one"


def test_a_replaced_file_is_seen_after_a_second_and_the_disk_is_not_asked_before(tmp_path: Path) -> None:
    clock = Clock()
    read = reader(tmp_path, clock)
    assert read.get(ANNA) is None
    publish(str(tmp_path), ANNA, "junk.model", b"one")
    clock.now += STALE_SECONDS / 2
    assert read.get(ANNA) is None
    clock.now += STALE_SECONDS
    assert read.get(ANNA) == b"one"
    publish(str(tmp_path), ANNA, "junk.model", b"two")
    assert read.get(ANNA) == b"one"
    clock.now += STALE_SECONDS
    assert read.get(ANNA) == b"two"
    assert withdraw(str(tmp_path), ANNA, "junk.model")
    assert not withdraw(str(tmp_path), ANNA, "junk.model")
    clock.now += STALE_SECONDS
    assert read.get(ANNA) is None


def test_an_unchanged_file_is_parsed_once(tmp_path: Path) -> None:
    clock, parsed = Clock(), []
    publish(str(tmp_path), ANNA, "junk.model", b"x" * 100_000)  # large enough to be mapped
    read = Reader(str(tmp_path), "junk.model", lambda octets: parsed.append(len(octets)), most=1 << 20, clock=clock)
    for _ in range(3):
        read.get(ANNA)
        clock.now += STALE_SECONDS * 2
    assert parsed == [100_000]


@pytest.mark.parametrize("data", [b"garbage", b"", b"x" * 2000])
def test_what_cannot_be_used_is_as_good_as_missing(tmp_path: Path, data: bytes) -> None:
    clock = Clock()
    read = reader(tmp_path, clock, most=1000)
    publish(str(tmp_path), ANNA, "junk.model", b"good")
    assert read.get(ANNA) == b"good"
    publish(str(tmp_path), ANNA, "junk.model", data)
    clock.now += STALE_SECONDS
    assert read.get(ANNA) is None
    publish(str(tmp_path), ANNA, "junk.model", b"good again")
    clock.now += STALE_SECONDS
    assert read.get(ANNA) == b"good again"


def test_neither_side_follows_a_link_or_leaves_the_volume(tmp_path: Path) -> None:
    volume, outside = tmp_path / "personal", tmp_path / "outside"
    volume.mkdir()
    (outside / "anna").mkdir(parents=True)
    (outside / "anna" / "junk.model").write_bytes(b"not ours")
    (volume / "family.example").symlink_to(outside)
    assert reader(volume, Clock()).get(ANNA) is None
    with pytest.raises(OSError):
        publish(str(volume), ANNA, "junk.model", b"mine")
    publish(str(volume), "../../x@..", "junk.model", b"mine")
    assert sorted(os.listdir(tmp_path)) == ["outside", "personal"]
    with pytest.raises(BadName):
        publish(str(volume), "nobody", "junk.model", b"mine")
    assert reader(volume, Clock()).get("nobody") is None
    os.mkfifo(volume / "fifo")
    assert Reader(str(volume), "fifo", bytes, most=10).get(ANNA) is None


@pytest.mark.parametrize("step", ["fsync", "rename", "fchmod"])
def test_a_writer_that_is_cut_off_leaves_the_old_file(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(str(tmp_path), ANNA, "junk.model", b"old")

    def cut(*_: object, **__: object) -> None:
        raise OSError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, step, cut)
        with pytest.raises(OSError):
            publish(str(tmp_path), ANNA, "junk.model", b"new")
    assert reader(tmp_path, Clock()).get(ANNA) == b"old"
    assert os.listdir(tmp_path / "family.example" / "anna") == ["junk.model"]


def test_many_accounts_do_not_fill_the_memory(tmp_path: Path) -> None:
    read = reader(tmp_path, Clock())
    for number in range(1000):
        read.get(f"user{number}@family.example")
    assert len(read._seen) <= 256
