"""Delivery at every crash point: what was acknowledged is there once and whole; what was not is whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.storage import maildir_writer
from services.storage.incoming import Incoming
from services.storage.maildir import UniqueNames
from services.storage.maildir_writer import Delivered, Letter, MaildirWriter, Staged
from services.storage.paths import FOLDER, walk
from services.storage.provision import provision
from services.storage.staging import Staging, once_key
from tests.properties.disk_model import Disk

ACCOUNTS = ("anna@family.example", "bert@family.example")
# Deliveries of a batch: (trace, once, large, recipients).
BATCHES: list[list[tuple[str, bool, bool, tuple[int, ...]]]] = [
    [("t1", False, False, (0, 1)), ("t2", True, False, (0,))],
    [("t3", True, True, (1, 0)), ("t4", False, True, (0,)), ("t3", True, False, (1,))],
]


@pytest.fixture
def scratch() -> Iterator[Path]:
    base = tempfile.mkdtemp(prefix="mailstead-cut-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield Path(base)
    close_all()
    shutil.rmtree(base)


def text(trace: str, account: str) -> bytes:
    return f"Delivered-To: {account}\r\n".encode() + f"Subject: {trace}\r\n\r\n".encode() + b"body\r\n" * 20


OPENED: list[Staging] = []


def close_all() -> None:
    """Descriptors of processes that are no more."""
    while OPENED:
        OPENED.pop().close()


class Writer:
    """One run of the process that delivers."""

    def __init__(self, mail: Path, *, rename_is_one: bool) -> None:
        self.staging = Staging(str(mail))
        OPENED.append(self.staging)
        self.staging.open()
        self.staging.rename_is_one = rename_is_one
        self.staging.recover()
        self.writer = MaildirWriter(self.staging, UniqueNames(host="test"))

    def deliver(self, batch: list[tuple[str, bool, bool, tuple[int, ...]]]) -> list[tuple[str, str]]:
        """(trace, account) of what was acknowledged."""
        letters = []
        with contextlib.ExitStack() as bodies:
            for trace, once, large, recipients in batch:
                incoming = Incoming(self.staging.path, 16 if large else 10_000)
                bodies.callback(incoming.close)
                whole = text(trace, "")
                incoming.write(whole[len("Delivered-To: \r\n") :])
                if large:
                    incoming.flush()
                letters.append(
                    [
                        Letter(
                            ACCOUNTS[number], ACCOUNTS[number], "INBOX",
                            f"Delivered-To: {ACCOUNTS[number]}\r\n".encode(), incoming,
                            once_key(trace, ACCOUNTS[number]) if once else "",
                        )
                        for number in recipients
                    ]
                )  # fmt: skip
            staged = [
                self.writer.stage(some) if some[0].incoming.in_file else [Staged(one) for one in some]
                for some in letters
            ]
            results = self.writer.commit(staged)
        assert all(isinstance(result, Delivered) for delivery in results for result in delivery), results
        return [
            (trace, result.account)
            for (trace, _, _, _), delivery in zip(batch, results, strict=True)
            for result in delivery
        ]

    def close(self) -> None:
        self.staging.close()


def delivered(mail: Path) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for account in ACCOUNTS:
        local, _, domain = account.partition("@")
        for path in (mail / domain / local / "new").iterdir():
            found[path.read_bytes()] += 1
    return found


def all_whole(mail: Path) -> None:
    whole = {text(trace, account) for trace in ("t1", "t2", "t3", "t4") for account in ACCOUNTS}
    assert set(delivered(mail)) <= whole


def new_volume(path: Path) -> Path:
    path.mkdir()
    for account in ACCOUNTS:
        provision(str(path), account)
    return path


def check(mail: Path, acknowledged: list[tuple[str, str]], rename_is_one: bool) -> None:
    """After the cut: start again, as smtp-in does, and let the LMTP client try again what it has no answer for."""
    all_whole(mail)
    writer = Writer(mail, rename_is_one=rename_is_one)
    assert [path for path in (mail / ".incoming").iterdir() if path.is_file()] == []
    assert list((mail / ".incoming/once").iterdir()) == []
    all_whole(mail)
    found = delivered(mail)
    for trace, account in acknowledged:
        assert found[text(trace, account)] == 1, f"{trace} for {account} was acknowledged"
    retries = [one for batch in BATCHES for one in batch if one[1]]
    for retry in retries:
        writer.deliver([retry])
    writer.close()
    found = delivered(mail)
    for trace, _, _, recipients in retries:
        for number in recipients:
            assert found[text(trace, ACCOUNTS[number])] == 1, f"{trace} is there exactly once"
    assert all(count == 1 for count in found.values())


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """new/ as smtp-in finds it: 2730."""

    def walk_as_smtp_in(start: int, *parts: str, last: int) -> int:
        if last == FOLDER:
            raise PermissionError
        return walk(start, *parts, last=last)

    monkeypatch.setattr(maildir_writer, "walk", walk_as_smtp_in)


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("rename_is_one", [True, False])
def test_power_cut_at_every_step(
    scratch: Path, readable: bool, rename_is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not readable:
        unreadable(monkeypatch)
    random = Random(4711)
    steps, number = 0, 0
    while True:
        volume = new_volume(scratch / f"v{steps}")
        disk = Disk(volume, rename_is_one=rename_is_one)
        disk.after_step = lambda volume=volume: all_whole(volume)  # type: ignore[misc]  # a reader, at each moment
        acknowledged: list[tuple[str, str]] = []
        with disk.recording(steps):
            writer = Writer(volume, rename_is_one=rename_is_one)
            for batch in BATCHES:
                acknowledged += writer.deliver(batch)
        for lost in ("all", "none", "some", "some"):
            number += 1
            left = disk.survivor(random, scratch / f"s{number}", lost)
            check(left, acknowledged, rename_is_one)
            shutil.rmtree(left)
        shutil.rmtree(volume)
        close_all()
        if not disk.cut:
            break
        steps += 1
    assert steps >= 45, "the writer has that many steps"


def test_a_second_cut_during_recovery(scratch: Path) -> None:
    random = Random(7)
    for round_number in range(150):
        volume = new_volume(scratch / f"v{round_number}")
        disk = Disk(volume)
        acknowledged: list[tuple[str, str]] = []
        with disk.recording(random.randint(5, 60)):
            writer = Writer(volume, rename_is_one=True)
            for batch in BATCHES:
                acknowledged += writer.deliver(batch)
        first = disk.survivor(random, scratch / f"f{round_number}")
        again = Disk(first)
        with again.recording(random.randint(0, 25)):
            writer = Writer(first, rename_is_one=True)
            acknowledged += writer.deliver([BATCHES[0][1]])
        second = again.survivor(random, scratch / f"g{round_number}")
        check(second, list(dict.fromkeys(acknowledged)), True)
        close_all()
        for path in (volume, first, second):
            shutil.rmtree(path)


def test_the_model_finds_a_writer_that_forgets_its_fsync(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would fail without the fsyncs: each kind left out loses or tears an acknowledged message."""

    def lost_without(skipped: Any, lost: str = "all") -> bool:
        for round_number in range(40):
            volume = new_volume(scratch / f"v{round_number}")
            disk = Disk(volume)
            acknowledged: list[tuple[str, str]] = []
            with monkeypatch.context() as patch, disk.recording(-1):
                real = os.fsync
                patch.setattr(os, "fsync", lambda fd, real=real: None if skipped(fd) else real(fd))  # type: ignore[misc]
                writer = Writer(volume, rename_is_one=True)
                acknowledged += writer.deliver(BATCHES[0])
            left = disk.survivor(Random(round_number), scratch / f"s{round_number}", lost)
            try:
                check(left, acknowledged, True)
            except AssertionError:
                return True
            finally:
                shutil.rmtree(volume)
                shutil.rmtree(left)
        return False

    def path(descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}")

    assert not lost_without(lambda _: False)
    assert lost_without(lambda fd: os.path.isfile(path(fd)))
    assert lost_without(lambda fd: path(fd).endswith(("/.incoming", "/new")))
    assert lost_without(lambda fd: path(fd).endswith("/done"), "some")
