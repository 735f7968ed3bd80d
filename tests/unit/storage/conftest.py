"""A mail volume with one account, on tmpfs where there is one: these tests ask what is written, not how fast."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.storage.account import AccountStore
from services.storage.provision import provision
from tests.mail_volume import ANNA, House


@pytest.fixture
def folder() -> Iterator[Path]:
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    base = tempfile.mkdtemp(prefix="mailstead-test-", dir=shm)
    yield Path(base)
    shutil.rmtree(base)


@pytest.fixture
def house(folder: Path) -> Iterator[House]:
    (folder / "mail").mkdir()
    provision(str(folder / "mail"), ANNA)
    house = House(folder)
    yield house
    for store in house.stores:
        store.close()


@pytest.fixture
def store(house: House) -> AccountStore:
    return house.open()
