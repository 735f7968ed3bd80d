"""Holds README and docs to the tree and to each other: what they name exists, and both languages say the same commands.

A command block that no longer works is the first thing a new owner meets. tests/stack types them on a real stack; here
they are given to the CLI's own parser, so a renamed word or option fails at once. The rules of a page: tests/guides.py.
"""

import argparse
import os
import re
import shlex
from pathlib import Path

import guides
import pytest

ROOT = guides.ROOT
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "services" / "README.md"]
PAIRS = guides.pairs()


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks, comments and continuation lines resolved."""
    found = [block.text for block in guides.blocks(page) if block.info.split(" ")[0] in ("sh", "bash", "console")]
    lines = "\n".join(found).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ") for line in lines if line.strip() and not line.strip().startswith("#")]


COMMANDS = list(dict.fromkeys((page, command) for page in PAGES for command in commands(page)))


# --- what a page names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link, fragment in re.findall(r"\]\((?!https?://|mailto:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = page.parent / link if link else page
        assert target.exists(), link
        if fragment:
            assert fragment in {guides.anchor(words) for _, words in guides.headings(target)}, f"{link}#{fragment}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_exist(page: Path) -> None:
    """`scripts/x`, `tests/x`, `images/x` and the rooms' modules in backquotes are there."""
    base = ROOT / "services" if page.parent.name == "services" else ROOT
    paths = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|toml|yaml|md|sql)|scripts/[a-z-]+)\b", page.read_text())
    paths += [f"{each}.example" for each in re.findall(r"`(env/[a-z]+\.env)`", page.read_text())]
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
    line = re.split(r"[|>]|&&", command)[0] if "'" not in command and '"' not in command else command
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    parser().parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_a_sentence_exist(page: Path) -> None:
    """`mailstead queue list` between backquotes: its words, up to the first that is no noun or verb."""
    from services.admin.cli import parser

    for words in re.findall(r"`(?:scripts/)?mailstead ([a-z][^`]*)`", page.read_text()):
        verbs: argparse.ArgumentParser | None = parser()
        for word in words.split():
            choices = [each.choices for each in verbs._actions if isinstance(each, argparse._SubParsersAction)]
            if not choices:
                break
            assert word in choices[0], f"mailstead {words}"
            verbs = choices[0][word]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_in_a_block_exist_in_their_file(page: Path) -> None:
    for block in guides.blocks(page):
        if block.info == "ini":
            assert block.env, f"{block.place}: the last line before it names no `env/….env`"
            known = (ROOT / "env" / f"{block.env}.env.example").read_text()
            for setting in guides.settings(block):
                assert re.search(rf"^#?{setting}=", known, re.M), f"{block.place}: {setting}"


# --- the two languages -----------------------------------------------------------------------------------------------


def test_every_page_is_there_in_both_languages() -> None:
    assert [name(chinese) for _, chinese in PAIRS if not chinese.exists()] == []
    assert {path.name for path in guides.DOCS_ZH.glob("*.md")} <= {english.name for english, _ in PAIRS}


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[name(english) for english, _ in PAIRS])
def test_both_languages_have_the_same_outline_and_commands(english: Path, chinese: Path) -> None:
    assert [level for level, _ in guides.headings(english)] == [level for level, _ in guides.headings(chinese)]
    one, other = guides.blocks(english), guides.blocks(chinese)
    kinds = (*guides.TYPED, "sh second", "ini")
    assert [(each.info, each.text, each.env, each.sample) for each in one if each.info in kinds] == [
        (each.info, each.text, each.env, each.sample) for each in other if each.info in kinds
    ]


@pytest.mark.parametrize("page", [chinese for _, chinese in PAIRS], ids=name)
def test_a_chinese_page_leads_to_chinese_pages(page: Path) -> None:
    """A reader of one language stays in it, but for the link to the same page in the other."""
    twin = {chinese: english for english, chinese in PAIRS}
    for link in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text()):
        target = Path(os.path.normpath(page.parent / link))
        if target in twin.values() and target != twin[page]:
            other = next(chinese for chinese, english in twin.items() if english == target)
            raise AssertionError(f"{link} is there in Chinese: {name(other)}")


@pytest.mark.parametrize("page", sorted({page for pair in PAIRS for page in pair}), ids=name)
def test_a_block_says_what_it_is(page: Path) -> None:
    """A misspelt language would leave a command untested."""
    typed, shown = (
        {*guides.TYPED, "sh second", "ini"},
        {"", "text", "console", "json", "yaml", "nginx", "caddyfile", "apache", "toml"},
    )
    assert {block.info for block in guides.blocks(page)} <= typed | shown


# --- how the pages are read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "output", "missing"),
    [
        ("ann@example.test is ready\npassword: …\n", "ann@example.test is ready\npassword: nijato-togije\n", []),
        ("sent; its trace is 06h0\n", "sent; its trace is 77zz\n", []),
        ("NAME   SIZE\n", "NAME SIZE\n", []),
        ("second\nfirst\n", "first\nsecond\n", ["first"]),
        ("it is healthy\n", "it is not healthy\n", ["it is healthy"]),
        ("a.b\n", "axb\n", ["a.b"]),
        ("MX   example.org … comes here", "MX  example.org\nMail comes here\n", ["MX   example.org … comes here"]),
    ],
)
def test_a_sample_must_be_what_is_printed(sample: str, output: str, missing: list[str]) -> None:
    assert guides.prints(sample, output) == missing


def test_a_setting_replaces_its_line_or_is_added() -> None:
    text = "# The relay.\n#RELAY_HOST=\nRELAY_PORT=25\n"
    changed = guides.apply(text, {"RELAY_HOST": "smtp.example.net", "RELAY_PORT": "587", "RELAY_USER": "ann"})
    assert changed == "# The relay.\nRELAY_HOST=smtp.example.net\nRELAY_PORT=587\nRELAY_USER=ann\n"


def test_blocks_are_read_with_their_file_and_their_sample(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "In `env/relay.env`:\n\n```ini\nRELAY_HOST=a\n```\n\n1. Then\n\n   ```sh\n   scripts/up\n   ```\n\n"
        "   ```text\n   ok\n   ```\n\nwords\n\n```text\nfree\n```\n"
    )
    ini, shell, free = guides.blocks(page)
    assert (ini.env, guides.settings(ini)) == ("relay", {"RELAY_HOST": "a"})
    assert (shell.text, shell.sample, free.info) == ("scripts/up\n", "ok\n", "text")
