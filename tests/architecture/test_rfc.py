"""Holds tests/rfc.toml to the code: each RFC is listed with what we do of it, and the listed files cite it.

rfc.toml is the index a mail engineer reads first: number, title, status (yes, partial, no), the files that implement it,
and for partial and no what is missing and why. It cannot rot: a citation that is not listed fails, and so does a
listed file that no longer cites.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
INDEX: list[dict[str, Any]] = tomllib.loads((ROOT / "tests" / "rfc.toml").read_text())["rfc"]
CITATION = re.compile(r"\bRFC[ \u00a0](\d{3,5})\b")
STATUSES = ("yes", "partial", "no")


def citations() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for path in sorted((ROOT / "services").rglob("*")):
        if path.suffix in (".py", ".sql", ".md", ".html"):
            for number in CITATION.findall(path.read_text()):
                found.setdefault(int(number), set()).add(path.relative_to(ROOT).as_posix())
    return found


CITED = citations()


def entry_id(entry: dict[str, Any]) -> str:
    return f"RFC{entry['number']}"


@pytest.mark.parametrize("entry", INDEX, ids=entry_id)
def test_an_entry_is_whole_and_true(entry: dict[str, Any]) -> None:
    assert set(entry) <= {"number", "title", "status", "files", "note"}, entry
    assert entry["title"] and entry["status"] in STATUSES, entry
    files = entry.get("files", [])
    if entry["status"] == "no":
        assert not files and entry.get("note"), "what we do not do has no files, and says why"
        return
    assert files, "what we do is done somewhere"
    if entry["status"] == "partial":
        assert entry.get("note"), "partial says what is missing"
    for file in files:
        assert (ROOT / file).is_file(), f"{file} is gone"
        assert file in CITED.get(entry["number"], ()), f"{file} does not cite RFC {entry['number']}"


def test_every_citation_is_listed() -> None:
    listed = {entry["number"] for entry in INDEX}
    missing = {number: sorted(files) for number, files in CITED.items() if number not in listed}
    assert not missing, missing


def test_the_index_is_in_order_and_has_each_once() -> None:
    numbers = [entry["number"] for entry in INDEX]
    assert numbers == sorted(set(numbers))
