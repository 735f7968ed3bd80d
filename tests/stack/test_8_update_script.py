"""scripts/update as its owner types it: a clone, its origin, a maintainer's key, and a stack that is built from the clone.

A second stack beside the first, with images under a tag of its own, because the tag is moved.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mailclients import letter
from stack import CONTAINERS, Stack, must, sh

ANN = "ann@example.test"
KINDS = ("mailstead", "unbound")


@dataclass
class Clone:
    """The stack's folder as a git clone; `maintainer` is another clone, from which releases are pushed."""

    stack: Stack
    maintainer: Path
    key: Path

    def git(self, *arguments: str, at: Path | None = None) -> str:
        who = ("-c", "user.name=maintainer", "-c", "user.email=maintainer@example.org", "-c", "gpg.format=ssh")
        command = ["git", *who, "-c", f"user.signingkey={self.key}", "-C", str(at or self.maintainer), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def release(self, tag: str, change: dict[str, str]) -> str:
        """Append to files, commit, sign and push; the commit."""
        for name, text in change.items():
            with (self.maintainer / name).open("a") as file:
                file.write(text)
        self.git("commit", "-q", "-a", "-m", tag)
        self.git("tag", "-s", "-m", tag, tag)
        self.git("push", "-q", "origin", "main", tag)
        return self.git("rev-parse", "HEAD")

    def head(self) -> str:
        return self.git("rev-parse", "HEAD", at=self.stack.folder)

    def images(self) -> dict[str, str]:
        return {service: self.stack.inspect(service)["Image"] for service in CONTAINERS}


@pytest.fixture(scope="module")
def clone(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    project = os.environ["MAILSTEAD_TEST_PROJECT"] + "-second"
    folder = tmp_path_factory.mktemp("update")
    second = Stack(folder / "clone", project, world=False)
    tag = second.environment["MAILSTEAD_VERSION"] + "-update"
    registry = stack.inspect("admin")["Config"]["Image"].rpartition("/")[0]
    for kind in KINDS:
        must(
            sh(
                "docker",
                "tag",
                f"{registry}/{kind}:{second.environment['MAILSTEAD_VERSION']}",
                f"{registry}/{kind}:{tag}",
            )
        )
    second.environment["MAILSTEAD_VERSION"] = tag
    must(sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")))
    (folder / "signers").write_text(f'maintainer@example.org namespaces="git" {(folder / "key.pub").read_text()}')
    second.write_env("updater", {"RELEASE_SIGNERS": str(folder / "signers"), "UPDATE_HEALTH_SECONDS": "45"})
    clone = Clone(second, folder / "maintainer", folder / "key")
    clone.git("init", "-q", "-b", "main", at=second.folder)
    clone.git("add", "-A", at=second.folder)
    clone.git("commit", "-q", "-m", "v1", at=second.folder)
    clone.git("clone", "-q", "--bare", str(second.folder), str(folder / "origin"), at=folder)
    clone.git("remote", "add", "origin", str(folder / "origin"), at=second.folder)
    clone.git("clone", "-q", str(folder / "origin"), str(clone.maintainer), at=folder)
    try:
        second.up()
        second.account(ANN)
        yield clone
    finally:
        second.down()
        tags = sh("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").output.split()
        mine = (tag, "before-", "update-")
        for name in tags:
            if name.startswith(f"{registry}/") and name.rpartition(":")[2].startswith(mine):
                sh("docker", "rmi", name)


def mail_flows(stack: Stack) -> None:
    sent = letter("friend@outside.test", ANN)
    stack.receive("friend@outside.test", ANN, message=sent.message)
    assert sent.message in stack.letter(ANN, sent.message_id)


def test_a_signed_release_is_taken_all_the_way(clone: Clone) -> None:
    stack, before = clone.stack, clone.images()
    commit = clone.release("v2", {"services/imap/__init__.py": "\n# the next release\n"})
    done = stack.script("update")
    assert done.status == 0, done.output
    assert "v2 is newer than this clone" in done.output and "signed by maintainer@example.org" in done.output
    assert "this stack runs v2" in done.output
    assert clone.head() == commit
    after = clone.images()
    changed = {service for service in CONTAINERS if after[service] != before[service]}
    assert changed == set(CONTAINERS) - {"unbound"}, "the updater and docker-filter too, and nothing without a reason"
    mail_flows(stack)


def test_afterwards_nothing_is_left_to_do(clone: Clone) -> None:
    before = clone.stack.started()
    assert "nothing newer" in must(clone.stack.script("update"))
    assert "nothing to change" in clone.stack.up()
    must(clone.stack.compose("up", "-d"))
    assert clone.stack.started() == before


def test_a_release_that_does_not_live_goes_back(clone: Clone) -> None:
    stack, head, before = clone.stack, clone.head(), clone.images()
    clone.release("v3", {"services/imap/room.py": '\nraise OSError("this release is broken")\n'})
    done = stack.script("update")
    assert done.status == 1, done.output
    assert "the old version goes on running and the clone is back at v2" in done.output
    assert clone.head() == head and clone.images() == before
    mail_flows(stack)
    started = stack.started()
    assert "nothing to change" in stack.up()
    assert stack.started() == started
