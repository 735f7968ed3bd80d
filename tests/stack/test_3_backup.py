"""The whole house into one file while it runs, and out of it into another: mail, accounts, UIDs, keys, queue.

The new machine is led there by the commands of docs/backup.md.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import guides
import mailclients
import pytest
from mailclients import letter, messages, until
from stack import PASSWORD, Stack, must, sh
from test_1_guides import type_block


@pytest.fixture(scope="module")
def second(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Another project on the same machine, not started yet."""
    other = Stack(tmp_path_factory.mktemp("second"), os.environ["MAILSTEAD_TEST_PROJECT"] + "-second")
    yield other
    other.down()


def picture(stack: Stack, account: str) -> tuple[bytes, dict[int, bytes]]:
    """UIDVALIDITY and every message by its UID."""
    with mailclients.imap(stack.ports["imaps"], account, PASSWORD) as client:
        found = messages(client)
        return client.response("UIDVALIDITY")[1][0], found


def test_a_backup_taken_hot_is_restored_into_another_house(
    stack: Stack, second: Stack, ann: str, tmp_path: Path
) -> None:
    waiting = letter(ann, "later@outside.test", body=b"still in the queue\r\n")
    stack.submit(ann, "later@outside.test", message=waiting.message)

    def queued(house: Stack) -> list[dict[str, object]]:
        every = house.asked("queue", "list")["messages"]
        return [each for each in every if each["recipients"][0]["address"] == "later@outside.test"]

    until(lambda: queued(stack), every=0.5)
    tar = tmp_path / "mailstead.tar"
    must(stack.script("backup", str(tar)))
    assert tar.stat().st_size > 10_000
    assert stat_mode(tar) == 0o600, "it holds keys and hashes"
    moving, release = (block for block in guides.blocks(guides.DOCS / "backup.md") if block.info == "sh second")
    type_block(second, tmp_path, moving)
    # Its env/ports.env names a folder instead: what is restored goes where the stack will look for it.
    assert f"{second.project}_relay" not in sh("docker", "volume", "ls", "-q").output.split()
    assert picture(second, ann) == picture(stack, ann)
    assert {each["address"] for each in second.asked("account", "list")["accounts"]} == {
        each["address"] for each in stack.asked("account", "list")["accounts"]
    }
    assert second.asked("dkim", "show", "example.test") == stack.asked("dkim", "show", "example.test")
    (held,) = queued(second)
    assert held["state"] == "held", "a restored queue does not send by itself"
    fresh = letter("friend@outside.test", ann)
    second.receive("friend@outside.test", ann, message=fresh.message)
    assert second.letter(ann, fresh.message_id)
    type_block(second, tmp_path, release)
    assert queued(second)[0]["state"] != "held"
    for each in queued(stack):
        stack.command("queue", "drop", str(each["id"]))


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777
