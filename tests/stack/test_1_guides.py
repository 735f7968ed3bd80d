"""Each guide, typed from top to bottom on the stack: every command succeeds, and prints what the page shows.

A page begins with what the README's commands leave: the domain example.test with admin@ and ann@example.test, settings as
they come. What it adds is taken away after it. Its settings stay applied until the next page's own `scripts/up` or the
end: starting containers again is what costs time here.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import dockermailserver
import guides
import mailclients
import pytest
from guides import Block
from stack import PASSWORD, Stack, must, sh

# Of one request each, so that a look at the directory costs one start of a program in the container.
LOOK = "mailstead --json account list && mailstead --json alias list && mailstead --json domain list"


@pytest.fixture(scope="module")
def home(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The typist's own folder (`~`). The env files come back as they were, at the end also in the containers."""
    folder = tmp_path_factory.mktemp("home")
    if stack.script("mailstead", "account", "password", "ann@example.test", "--generate").status != 0:
        stack.command("account", "add", "ann@example.test", "--generate")
    before = env_files(stack)
    yield folder
    put_back(stack, before)
    must(stack.script("up"))


def env_files(stack: Stack) -> dict[Path, str]:
    return {path: path.read_text() for path in (stack.folder / "env").glob("*.env")}


def put_back(stack: Stack, before: dict[Path, str]) -> None:
    for path in env_files(stack).keys() - before.keys():
        path.unlink()
    for path, text in before.items():
        path.write_text(text)


def directory(stack: Stack) -> dict[str, set[str]]:
    """The names of what is there: accounts, aliases, domains."""
    output = must(stack.execute("admin", "bash", "-c", LOOK))
    accounts, aliases, domains = (json.loads(part) for part in output.replace("}\n{", "}\0{").split("\0"))
    return {
        "account": {each["address"] for each in accounts["accounts"]},
        "alias": {each["source"] for each in aliases["aliases"]},
        "domain": {each["name"] for each in domains["domains"]},
    }


def tidy(stack: Stack, before: dict[str, set[str]]) -> None:
    """Take away what a page added: aliases before accounts, accounts before their domain."""
    after = directory(stack)
    for noun, options in (("alias", ""), ("account", " --purge --yes"), ("domain", "")):
        gone = before[noun] - after[noun]
        assert not gone, f"a page takes away only what it made itself: {noun} {gone}"
        for name in sorted(after[noun] - before[noun]):
            done = stack.execute("admin", "bash", "-c", f"mailstead {noun} del '{name}'{options}")
            # An account takes the aliases that lead to it along.
            assert done.status == 0 or noun == "alias", done.output
    for message in stack.asked("queue", "list")["messages"]:
        stack.command("queue", "drop", message["id"])


def type_block(stack: Stack, home: Path, block: Block) -> str:
    """One sh block as a person pastes it into a terminal; what it printed."""
    environment = {**stack.environment, "HOME": str(home)}
    done = sh("bash", "-euo", "pipefail", "-c", block.text, cwd=stack.folder, env=environment)
    wanted = block.info == "sh fails"
    assert (done.status != 0) == wanted, f"{block.place} ended with {done.status}:\n{block.text}\n{done.output}"
    missing = guides.prints(block.sample, done.output)
    assert not missing, f"{block.place} does not print\n{missing[0]}\nbut\n{done.output}"
    return done.output


def type_page(stack: Stack, home: Path, page: Path) -> None:
    for block in guides.blocks(page):
        if block.info == "ini":
            path = stack.folder / "env" / f"{block.env}.env"
            path.write_text(guides.apply(path.read_text(), guides.settings(block)))
        elif block.info in guides.TYPED:
            type_block(stack, home, block)


@pytest.mark.parametrize("page", guides.typed(), ids=lambda page: page.name)
def test_it_works_as_typed(stack: Stack, home: Path, page: Path) -> None:
    names, files = directory(stack), env_files(stack)
    # The world's own settings stay; the others come as scripts/up makes them.
    try:
        type_page(stack, home, page)
        tidy(stack, names)
    finally:
        put_back(stack, files)


def test_moving_in_finds_the_mail_of_docker_mailserver(stack: Stack, home: Path) -> None:
    dockermailserver.leave_behind(home / "docker-mailserver")
    names, files = directory(stack), env_files(stack)
    try:
        type_page(stack, home, guides.MOVING_IN)
        stack.command("account", "password", dockermailserver.ANN, PASSWORD)
        stack.settle()
        with mailclients.imap(stack.ports["imaps"], dockermailserver.ANN, PASSWORD) as client:
            for folder, marks in dockermailserver.MARKS.items():
                assert dockermailserver.seen_in(client, folder) == marks
        letter = mailclients.letter("a@far.test", "family@moved.example.org")
        stack.receive("a@far.test", "family@moved.example.org", message=letter.message)
        assert stack.letter(dockermailserver.ANN, letter.message_id)
        tidy(stack, names)
    finally:
        put_back(stack, files)
        must(stack.script("up"))


def test_only_the_typist_could_read_what_was_written(home: Path) -> None:
    assert not [path for path in home.rglob("*.tar") if path.stat().st_mode & 0o077], os.listdir(home)
