"""Holds README and docs to the tree: every script, link and `mailstead` command they name exists.

A command block that no longer works is the first thing a new owner meets. The commands are given to the CLI's own
parser, so a renamed word or option fails here.
"""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "services" / "README.md"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks, comments and continuation lines resolved."""
    blocks = re.findall(r"^[ ]*```(?:sh|bash|console)\n(.*?)^[ ]*```", page.read_text(), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ") for line in lines if line.strip() and not line.strip().startswith("#")]


COMMANDS = list(dict.fromkeys((page, command) for page in PAGES for command in commands(page)))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page: Path) -> None:
    """`scripts/x`, `tests/x`, `images/x` and the rooms' modules in backquotes are there."""
    base = ROOT / "services" if page.parent.name == "services" else ROOT
    paths = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|toml|yaml|md|sql)|scripts/[a-z-]+)\b", page.read_text())
    assert not [path for path in paths if not (base / path).exists() and not (ROOT / path).exists()]


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{name(page)}: {line}" for page, line in COMMANDS])
def test_a_script_is_there_and_can_be_run(page: Path, command: str) -> None:
    for script in re.findall(r"(?<![\w/.-])scripts/[a-z-]+", command):
        path = ROOT / script
        assert path.is_file() and path.stat().st_mode & 0o111, script


OWNERS_COMMANDS = sorted({line for _, line in COMMANDS if line.startswith(("scripts/mailstead ", "mailstead "))})


@pytest.mark.parametrize("command", OWNERS_COMMANDS)
def test_the_command_line_understands_it(command: str) -> None:
    from services.admin.cli import parser

    # Placeholders as people write them in documentation: NAME, <name>, ...
    words = [word for word in shlex.split(command, comments=True)[1:] if word != "..."]
    parser().parse_args(words)
