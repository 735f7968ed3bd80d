"""A directory on disk as admin has it, and a clock to move."""

from __future__ import annotations

import pytest

from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.publish import Publisher


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folders(tmp_path):
    for name in ("routing", "auth"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def directories(folders, clock):
    database = Database(str(folders / "directory.db"))
    publisher = Publisher(str(folders / "routing"), str(folders / "auth"), clock=clock)
    yield Directories(database, publisher, clock=clock)
    database.close()


@pytest.fixture
def family(directories):
    """One domain, an administrator and an account."""
    directories.add_domain("family.example")
    directories.add_account("admin@family.example", "$hash-of-admin", administrator=True)
    directories.add_account("anna@family.example", "$hash-of-anna")
    return directories
