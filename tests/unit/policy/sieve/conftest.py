"""A place for Debian's sieve-test to live in."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def oracle_home() -> Iterator[Path]:
    """A folder that other users can walk into, as pytest's own is not."""
    assert shutil.which("sieve-test"), "the tests need the package dovecot-sieve"
    folder = Path(tempfile.mkdtemp(prefix="mailstead-sieve-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
