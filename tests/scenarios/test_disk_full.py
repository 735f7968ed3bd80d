"""The disk of the mail and of the queue fills up and is freed again; `python -m tests.faults disk-full` has the others."""

import os
from pathlib import Path

import pytest

from tests.faults import disk_full


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small volume")
@pytest.mark.parametrize("name", ["mail", "spool"])
def test_what_needs_the_full_disk_is_refused_and_the_rest_goes_on(name: str, tmp_path: Path) -> None:
    with disk_full.house_on(name, tmp_path) as (house, volume, relay):
        disk_full.SCENARIOS[name](house, volume, relay)
