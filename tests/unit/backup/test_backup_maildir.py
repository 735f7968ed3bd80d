"""A mailbox is copied whole while a client renames, moves and expunges in it: each race as a test."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.backup import maildir_copy
from services.backup.maildir_copy import Known, copy_account


def deliver(account: Path, folder: str, name: str, sub: str = "cur") -> None:
    for each in ("cur", "new", "tmp"):
        (account / folder / each).mkdir(parents=True, exist_ok=True)
    (account / folder / sub / name).write_text(name.partition(":")[0])


def farm_of(tmp_path: Path) -> Path:
    farm = tmp_path / "farm"
    farm.mkdir()
    return farm


def files(farm: Path) -> set[str]:
    return {str(path.relative_to(farm)) for path in farm.rglob("*") if path.is_file()}


def first_then(first: Callable[[], None], known: Known) -> Callable[[], Known]:
    """A state that, asked the first time, lets something happen first."""
    todo = [first]

    def state() -> Known:
        if todo:
            todo.pop()()
        return known

    return state


@pytest.fixture
def account(tmp_path: Path) -> Path:
    account = tmp_path / "mail" / "ann"
    deliver(account, "", "1.a:2,S")
    deliver(account, "", "2.b", "new")
    deliver(account, ".Sent", "3.c:2,S")
    (account / "cur" / ".nfs0001").write_text("not a message")
    (account / "tmp" / "4.unfinished").write_text("nobody was told 250")
    return account


KNOWN: Known = {"": {"1.a": "1.a:2,S"}, ".Sent": {"3.c": "3.c:2,S"}}


def test_all_messages_and_nothing_else(tmp_path: Path, account: Path) -> None:
    copy = copy_account(str(account), str(farm := farm_of(tmp_path)), lambda: KNOWN)
    assert files(farm) == {"cur/1.a:2,S", "new/2.b", ".Sent/cur/3.c:2,S"}
    assert len(copy.messages) == 3 and copy.missing == []
    assert (farm / "cur/1.a:2,S").stat().st_ino == (account / "cur/1.a:2,S").stat().st_ino, "a link, not a copy"


def test_without_a_state_the_walk_is_the_list(tmp_path: Path, account: Path) -> None:
    copy_account(str(account), str(farm := farm_of(tmp_path)), lambda: {})
    assert files(farm) == {"cur/1.a:2,S", "new/2.b", ".Sent/cur/3.c:2,S"}


def test_a_message_that_the_walk_missed_is_looked_for_again(
    tmp_path: Path, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """readdir may show a file that is renamed meanwhile under neither name."""
    real, calls = maildir_copy.walk, []

    def walk(path: str) -> list[tuple[str, str, str]]:
        calls.append(path)
        return [entry for entry in real(path) if len(calls) > 1 or not entry[2].startswith("1.a")]

    monkeypatch.setattr(maildir_copy, "walk", walk)
    copy = copy_account(str(account), str(farm := farm_of(tmp_path)), lambda: KNOWN)
    assert "cur/1.a:2,S" in files(farm) and copy.missing == []
    assert len(calls) == 3  # twice for the messages, once for what moved


def test_a_message_renamed_between_walk_and_link_is_looked_for_again(
    tmp_path: Path, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link
    renamed: list[str] = []

    def link(source: str, target: str, **more: bool) -> None:
        if source.endswith("1.a:2,S") and not renamed:
            renamed.append(source)
            os.rename(source, source.replace("1.a:2,S", "1.a:2,FS"))
        real(source, target, **more)

    monkeypatch.setattr(os, "link", link)
    known = {"": {"1.a": "1.a:2,FS"}, ".Sent": KNOWN[".Sent"]}
    copy = copy_account(str(account), str(farm := farm_of(tmp_path)), lambda: known)
    assert "cur/1.a:2,FS" in files(farm) and copy.missing == []


def test_flags_changed_after_the_walk_are_those_of_the_state(tmp_path: Path, account: Path) -> None:
    known = {"": {"1.a": "1.a:2,FS", "2.b": "2.b:2,"}, ".Sent": KNOWN[".Sent"]}
    copy_account(str(account), str(farm := farm_of(tmp_path)), lambda: known)
    assert files(farm) == {"cur/1.a:2,FS", "cur/2.b:2,", ".Sent/cur/3.c:2,S"}


def test_a_message_that_moved_is_where_the_state_has_it_and_only_there(tmp_path: Path, account: Path) -> None:
    def move() -> None:
        os.rename(account / "cur" / "1.a:2,S", account / ".Sent" / "cur" / "1.a:2,S")

    known = {"": {}, ".Sent": {"1.a": "1.a:2,S", "3.c": "3.c:2,S"}}
    copy = copy_account(str(account), str(farm := farm_of(tmp_path)), first_then(move, known))
    assert files(farm) == {"new/2.b", ".Sent/cur/1.a:2,S", ".Sent/cur/3.c:2,S"}
    assert copy.missing == []


def test_an_expunged_message_goes_and_one_that_the_state_still_has_stays(tmp_path: Path, account: Path) -> None:
    def expunge() -> None:
        os.unlink(account / "cur" / "1.a:2,S")
        os.unlink(account / ".Sent" / "cur" / "3.c:2,S")

    copy = copy_account(
        str(account), str(farm := farm_of(tmp_path)), first_then(expunge, {"": {}, ".Sent": KNOWN[".Sent"]})
    )
    assert files(farm) == {"new/2.b", ".Sent/cur/3.c:2,S"}
    assert (farm / ".Sent/cur/3.c:2,S").read_text() == "3.c"
    assert copy.missing == []


def test_a_message_delivered_after_the_walk_is_not_missed_when_the_state_knows_it(
    tmp_path: Path, account: Path
) -> None:
    known = {"": {"1.a": "1.a:2,S", "9.z": "9.z:2,"}, ".Sent": KNOWN[".Sent"]}
    arrive = first_then(lambda: deliver(account, "", "9.z:2,"), known)
    copy_account(str(account), str(farm := farm_of(tmp_path)), arrive)
    assert "cur/9.z:2," in files(farm)


def test_what_the_state_knows_and_the_disk_does_not_have_is_said(tmp_path: Path, account: Path) -> None:
    known = {"": {"1.a": "1.a:2,S", "lost": "lost:2,"}, ".Sent": {}}
    copy = copy_account(str(account), str(farm_of(tmp_path)), lambda: known)
    assert copy.missing == [("", "lost")]


def test_no_link_is_followed(tmp_path: Path, account: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hash")
    (account / "cur" / "5.planted").symlink_to(secret)
    (account / ".Planted").symlink_to(tmp_path)
    copy_account(str(account), str(farm := farm_of(tmp_path)), lambda: {})
    assert all(not path.is_file() or path.is_symlink() or path.read_text() != "hash" for path in farm.rglob("*"))
    assert not (farm / ".Planted").exists()


def test_a_file_system_without_links_gets_copies(
    tmp_path: Path, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    copy_account(str(account), str(farm := farm_of(tmp_path)), lambda: KNOWN)
    assert (farm / "cur/1.a:2,S").read_text() == "1.a"


def test_nothing_is_lost_while_a_client_renames_all_the_time(tmp_path: Path) -> None:
    """Real threads: 300 messages whose flags change as fast as they can, and a state that always knows the names."""
    account = tmp_path / "mail" / "busy"
    names = {f"{number}.m": f"{number}.m:2," for number in range(300)}
    for name in names.values():
        deliver(account, "", name)
    lock, stop, changes = threading.Lock(), threading.Event(), [0]

    def client() -> None:
        dice = random.Random(1)
        while not stop.is_set():
            base = dice.choice(list(names))
            wanted = base + ":2," + dice.choice(["", "S", "FS", "RS", "DS"])
            with lock:
                os.rename(account / "cur" / names[base], account / "cur" / wanted)
                names[base] = wanted
            changes[0] += 1

    def state() -> Known:
        with lock:
            return {"": dict(names)}

    thread = threading.Thread(target=client)
    thread.start()
    try:
        copy = copy_account(str(account), str(farm := farm_of(tmp_path)), state)
    finally:
        stop.set()
        thread.join()
    assert copy.missing == []
    assert {path.read_text() for path in (farm / "cur").iterdir()} == {f"{number}.m" for number in range(300)}
    assert len(files(farm)) == 300
    assert changes[0] > 0
