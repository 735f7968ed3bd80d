"""Whom rules answered: once in a period, whichever worker asks, after a restart too; bounded; a broken file is begun anew."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.storage.errors import StorageError
from services.storage.vacation_store import VacationStore

ANNA, SENDER, DAY = "anna@home.test", "carl@far.test", 86_400.0
NOW = 1_795_000_000.0


def test_once_in_a_period(tmp_path: Path) -> None:
    store = VacationStore(str(tmp_path / "vacation.db"))
    assert store.claim(ANNA, "h", SENDER, NOW, DAY)
    assert not store.claim(ANNA, "h", SENDER.upper(), NOW + DAY - 1, DAY)
    assert store.claim(ANNA, "other", SENDER, NOW, DAY) and store.claim("berta@home.test", "h", SENDER, NOW, DAY)
    store.close()
    store = VacationStore(str(tmp_path / "vacation.db"))
    assert not store.claim(ANNA, "h", SENDER, NOW + 1, DAY), "a restart forgets nothing"
    assert store.claim(ANNA, "h", SENDER, NOW + DAY, DAY)
    store.release(ANNA, "h", SENDER)
    assert store.claim(ANNA, "h", SENDER, NOW + DAY + 1, DAY)
    assert store.claim(ANNA, "h", SENDER, NOW - 10 * DAY, DAY), "a clock that was wrong silences nobody for long"
    store.close()


def test_two_workers_answer_once(tmp_path: Path) -> None:
    stores = [VacationStore(str(tmp_path / "vacation.db")) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            claims = [pool.submit(store.claim, ANNA, "h", f"{number}@far.test", NOW, DAY) for store in stores]
            said = [claim.result() for claim in claims]
            assert said.count(True) == 1
    for store in stores:
        store.close()


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    store = VacationStore(str(tmp_path / "vacation.db"), most=10)
    for number in range(50):
        store.claim(ANNA, "h", f"{number}@far.test", NOW + number, DAY)
    assert not store.claim(ANNA, "h", "49@far.test", NOW + 60, DAY)
    assert store.claim(ANNA, "h", "0@far.test", NOW + 60, DAY), "the oldest went"
    (rows,) = store._connection.execute("SELECT count(*) FROM answers").fetchone()
    assert rows <= 10
    store.close()


def test_so_many_redirects_a_day(tmp_path: Path) -> None:
    store = VacationStore(str(tmp_path / "vacation.db"))
    assert [store.redirect(ANNA, NOW, 2) for _ in range(3)] == [True, True, False]
    assert store.redirect("berta@home.test", NOW, 2)
    assert store.redirect(ANNA, NOW + DAY, 2)
    store.close()


def test_a_file_that_is_none_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "vacation.db"
    path.write_bytes(b"not a database at all" * 500)
    store = VacationStore(str(path))
    assert store.claim(ANNA, "h", SENDER, NOW, DAY)
    store.close()
    assert (tmp_path / "vacation.db.broken").exists()


def test_a_file_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises((StorageError, OSError)):
        VacationStore(str(tmp_path / "nowhere" / "vacation.db"))
