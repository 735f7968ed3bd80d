"""What smtp-in remembers of senders: across restarts, between workers, bounded, and never in the way of mail."""

import multiprocessing
import os
from pathlib import Path

import pytest

from services.storage import intake_store
from services.storage.intake_store import IntakeStore, Key, Row

NOW = 1_000_000.0
KEY, OTHER = ("192.0.2.0/24", "far.test", "anna@a.test"), ("", "a@far.test", "anna@a.test")


def store(path: Path, **more: int) -> IntakeStore:
    return IntakeStore(str(path / "intake.db"), forget_try=100.0, forget_known=1000.0, **more)


def seen(opened: IntakeStore, keys: list[Key], now: float = NOW) -> list[Row | None]:
    """What is known; each key's last try is set to now."""
    found: list[Row | None] = []

    def decide(rows: list[Row | None]) -> list[Row]:
        found.extend(rows)
        return [(row[0] if row else now, now, bool(row and row[2])) for row in rows]

    opened.tried(keys, decide, now)
    return found


def test_tries_outlive_a_restart(tmp_path: Path) -> None:
    first = store(tmp_path)
    assert seen(first, [KEY, OTHER]) == [None, None]
    first.close()
    again = store(tmp_path)
    assert seen(again, [KEY, OTHER], NOW + 5) == [(NOW, NOW, False)] * 2
    again.close()


def test_domains_that_delivered(tmp_path: Path) -> None:
    opened = store(tmp_path)
    assert not opened.known("far.test", NOW)
    opened.delivered("Far.Test", NOW)
    assert opened.known("far.test", NOW)
    assert opened.known("FAR.test", NOW + 1000)
    assert not opened.known("far.test", NOW + 1001)
    opened.delivered("far.test", NOW - 5000)  # a clock set back is no reason to keep what is in the future
    assert not opened.known("far.test", NOW)
    opened.close()


def test_the_old_is_forgotten_and_the_number_is_bounded(tmp_path: Path) -> None:
    opened = store(tmp_path, most=10)
    for number in range(30):
        seen(opened, [("", str(number), "r")], NOW + number)
    later = NOW + intake_store.TIDY_SECONDS
    seen(opened, [("", "29", "r")], later)
    seen(opened, [("", "30", "r")], later + intake_store.TIDY_SECONDS)
    rows = opened._connection.execute("SELECT count(*) FROM tries").fetchone()[0]
    assert rows == 1, "tries older than 100 seconds are gone"
    for number in range(30):
        seen(opened, [("", f"b{number}", "r")], later + intake_store.TIDY_SECONDS + number)
    opened._tidied = float("-inf")
    seen(opened, [("", "last", "r")], later + intake_store.TIDY_SECONDS + 31)
    kept = {row[0] for row in opened._connection.execute("SELECT who FROM tries")}
    assert len(kept) == 10
    assert {"last", "b29"} <= kept
    opened.close()


def test_long_names_are_cut(tmp_path: Path) -> None:
    opened = store(tmp_path)
    seen(opened, [("", "x" * 100_000, "y" * 100_000)])
    row = opened._connection.execute("SELECT length(who), length(recipient) FROM tries").fetchone()
    assert row == (320, 320)
    opened.close()


def test_a_broken_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "intake.db").write_bytes(b"no database at all, but longer than a header of one" * 40)
    opened = store(tmp_path)
    assert seen(opened, [KEY]) == [None]
    opened.close()
    assert (tmp_path / "intake.db.broken").exists()


def test_a_decision_that_fails_changes_nothing(tmp_path: Path) -> None:
    opened = store(tmp_path)

    def fail(rows: list[Row | None]) -> list[Row]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        opened.tried([KEY], fail, NOW)
    assert seen(opened, [KEY]) == [None]
    opened.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        IntakeStore(str(tmp_path / "none" / "intake.db"), forget_try=1, forget_known=1)


def _worker(path: str, times: int) -> None:
    opened = IntakeStore(path, forget_try=1e9, forget_known=1e9)
    for _ in range(times):
        opened.tried([KEY], lambda rows: [((rows[0][0] + 1 if rows[0] else 1.0), NOW, False)], NOW)
    opened.close()
    os._exit(0)


def test_workers_agree(tmp_path: Path) -> None:
    """Processes at once, the file not yet there: nothing is lost, nobody fails."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(str(tmp_path / "intake.db"), 50)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    opened = IntakeStore(str(tmp_path / "intake.db"), forget_try=1e9, forget_known=1e9)
    assert seen(opened, [KEY]) == [(200.0, NOW, False)]
    opened.close()
