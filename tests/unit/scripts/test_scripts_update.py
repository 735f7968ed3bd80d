"""scripts/update: an origin, a clone and keys of the test's own, git and ssh-keygen as they are, and a docker that only
notes what it is told (fake_docker.py). The origin's scripts/up is the test's too: it builds by saying so.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FAKE = Path(__file__).parent / "fake_docker.py"
PREFIX = "ghcr.io/mailstead/"
SERVICES = {
    "smtp-in": "mailstead",
    "admin": "mailstead",
    "updater": "mailstead",
    "docker-filter": "mailstead",
    "unbound": "unbound",
}
UP = """#!/bin/bash
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "$0")")")"
if [[ ${1:-} == --only-build ]]; then
    [[ ! -e BROKEN ]] || exit 1
    docker build "$MAILSTEAD_VERSION" "$(cat VERSION)"
else
    docker up
fi
"""


@dataclass
class House:
    """A clone at release v0.1, its origin, and the docker it sees."""

    folder: Path
    environment: dict[str, str]

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    @property
    def origin(self) -> Path:
        return self.folder / "origin"

    def git(self, *arguments: str, at: str = "origin", **environment: str) -> str:
        done = subprocess.run(
            ["git", "-C", self.folder / at, *arguments], env=self.environment | environment, capture_output=True, text=True, check=True
        )  # fmt: skip
        return done.stdout.strip()

    def docker(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "docker.json").read_text())
        return state

    def tell(self, **changes: Any) -> None:
        (self.folder / "docker.json").write_text(json.dumps(self.docker() | changes))

    def running(self) -> dict[str, str]:
        """Service → image id."""
        return {service: container["image"] for service, container in self.docker()["containers"].items()}

    def release(self, tag: str, *, key: str = "maintainer", version: str = "2", **files: str) -> str:
        """A commit on the origin's branch and a tag on it: signed with `key`, or by nobody where that is ""."""
        for name, text in {"VERSION": version, **files}.items():
            (self.origin / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"release {tag}")
        if key:
            self.git("-c", "gpg.format=ssh", "-c", f"user.signingkey={self.folder}/{key}", "tag", "-s", "-m", tag, tag)
        else:
            self.git("tag", "-a", "-m", tag, tag)
        return self.git("rev-parse", "HEAD")

    def head(self) -> str:
        return self.git("rev-parse", "HEAD", at="clone")

    def update(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`scripts/update`, in a process group of its own, so that a power cut takes all of it."""
        return subprocess.run(
            [self.clone / "scripts" / "update", *arguments], env=self.environment, capture_output=True, text=True,
            check=False, timeout=300, start_new_session=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A house as it is before each test; made once, because keys and clones take their time."""
    folder = tmp_path_factory.mktemp("update")
    origin = folder / "origin"
    for key in ("maintainer", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", folder / key], check=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "docker").write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE} "$@"\n')
    (folder / "bin" / "docker").chmod(0o755)
    shutil.copytree(ROOT / "scripts", origin / "scripts")
    (origin / "scripts" / "up").write_text(UP)
    (origin / "compose.yaml").write_text("name: mailstead\n")
    (origin / ".gitignore").write_text("/.cache/\n/env/*.env\n")
    (origin / "env").mkdir()
    (origin / "env" / "updater.env.example").write_text("#RELEASE_SIGNERS=scripts/release-signers\n")
    public = (folder / "maintainer.pub").read_text()
    (origin / "scripts" / "release-signers").write_text(f'# ours\nmaintainer@example.org namespaces="git" {public}')
    images = {f"{PREFIX}{kind}:0.1.0": f"{kind}-1" for kind in ("mailstead", "unbound")}
    containers = {
        service: {"name": f"{PREFIX}{kind}:0.1.0", "image": f"{kind}-1"} for service, kind in SERVICES.items()
    }
    answers = {"history": [], "run": None, "calls": [], "gate": "committed", "sick": "", "crash": ""}
    sources = dict.fromkeys(images.values(), "sum")
    state = {"images": images, "containers": containers, "sources": sources, **answers}
    (folder / "docker.json").write_text(json.dumps(state))
    house = House(folder, environment_in(folder))
    subprocess.run(["git", "init", "-q", "-b", "main", origin], check=True, env=house.environment)
    house.release("v0.1", version="1")
    subprocess.run(["git", "clone", "-q", origin, folder / "clone"], check=True, env=house.environment)
    house.git("config", "remote.origin.url", "../origin", at="clone")
    return folder


def environment_in(folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1",
        "FAKE_DOCKER": str(folder / "docker.json"),
        **{f"GIT_{who}_{what}": "maintainer@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }  # fmt: skip


@pytest.fixture
def house(pattern: Path, tmp_path: Path) -> House:
    shutil.copytree(pattern, tmp_path / "house", symlinks=True)
    return House(tmp_path / "house", environment_in(tmp_path / "house"))


def untouched(house: House, before: str) -> None:
    """The clone is where it was, and every image name and container as well."""
    state = house.docker()
    assert house.head() == before
    assert house.git("status", "--porcelain", at="clone") == ""
    assert state["images"] == {f"{PREFIX}{kind}:0.1.0": f"{kind}-1" for kind in ("mailstead", "unbound")}
    assert set(house.running().values()) == {"mailstead-1", "unbound-1"}
    assert not (house.clone / ".cache" / "update").exists()


def updated(house: House, commit: str) -> None:
    assert house.head() == commit
    assert house.git("rev-parse", "--abbrev-ref", "HEAD", at="clone") == "main"
    state = house.docker()
    assert state["images"] == {f"{PREFIX}{kind}:0.1.0": f"{kind}-2" for kind in ("mailstead", "unbound")}
    assert set(house.running().values()) == {"mailstead-2", "unbound-2"}
    assert not (house.clone / ".cache" / "update").exists()


def test_the_newest_signed_release_is_built_replaced_and_kept(house: House) -> None:
    house.release("v0.9", version="old")
    commit = house.release("v0.10")
    done = house.update()
    assert done.returncode == 0, done.stderr
    assert "v0.10 is newer than this clone (v0.1); signed by maintainer@example.org" in done.stdout
    assert "closed for 2.5 s" in done.stdout and done.stdout.endswith("this stack runs v0.10\n")
    updated(house, commit)
    calls = house.docker()["calls"]
    order = [
        next(number for number, call in enumerate(calls) if call.startswith(words))
        for words in ("build update-", "exec -i stack-admin-1 mailstead --json update run --local",
                      "compose --progress quiet up -d --no-deps --no-build setup",
                      "compose --progress quiet up -d --no-deps --no-build docker-filter",
                      "compose --progress quiet up -d --no-deps --no-build updater")
    ]  # fmt: skip
    assert order == sorted(order) and calls.index("up") > order[-1], (
        "the filter and the updater last, compose.yaml after them"
    )


def test_nothing_newer_changes_nothing(house: House) -> None:
    before = house.head()
    done = house.update()
    assert done.returncode == 0 and "nothing newer: this clone is at v0.1" in done.stdout
    untouched(house, before)


def test_check_only_says_so(house: House) -> None:
    before = house.head()
    house.release("v0.2")
    done = house.update("--check")
    assert (
        done.returncode == 0 and "v0.2 is newer than this clone (v0.1); signed by maintainer@example.org" in done.stdout
    )
    untouched(house, before)


def test_a_release_can_be_named_and_a_candidate_is_taken_only_by_name(house: House) -> None:
    commit = house.release("v0.2-rc1")
    assert "nothing newer" in house.update().stdout
    assert house.update("v0.2-rc1").returncode == 0
    updated(house, commit)


def unsigned(house: House) -> None:
    house.release("v0.2", key="")


def lightweight(house: House) -> None:
    house.release("v0.2")
    house.git("tag", "-f", "v0.2", "v0.2^{commit}")


def by_a_stranger(house: House) -> None:
    house.release("v0.2", key="stranger")


def tampered(house: House) -> None:
    """The signed text is of another commit than the one that is offered."""
    house.release("v0.2")
    text = house.git("cat-file", "tag", "v0.2") + "\n"
    (house.origin / "EVIL").write_text("x")
    house.git("add", "-A")
    house.git("commit", "-q", "-m", "evil")
    text = text.replace(house.git("rev-parse", "v0.2^{commit}"), house.git("rev-parse", "HEAD"))
    done = subprocess.run(
        ["git", "-C", house.origin, "hash-object", "-t", "tag", "-w", "--stdin"], input=text, env=house.environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    house.git("update-ref", "refs/tags/v0.2", done.stdout.strip())


def under_another_name(house: House) -> None:
    """A release that was signed once, offered as a newer one."""
    house.release("v0.2-broken")
    house.git("update-ref", "refs/tags/v0.3", "refs/tags/v0.2-broken")


def for_another_purpose(house: House) -> None:
    """The maintainer's key, but the signers' file knows it for files alone."""
    signers = house.folder / "signers"
    signers.write_text(f'maintainer@example.org namespaces="file" {(house.folder / "maintainer.pub").read_text()}')
    (house.clone / "env" / "updater.env").write_text(f"RELEASE_SIGNERS={signers}\n")
    house.release("v0.2")


def without_a_key(house: House) -> None:
    shutil.copy(ROOT / "scripts" / "release-signers", house.folder / "signers")
    (house.clone / "env" / "updater.env").write_text(f"RELEASE_SIGNERS={house.folder}/signers\n")
    house.release("v0.2")


DISTRUSTED = [
    (unsigned, "is not signed with an SSH key"),
    (lightweight, "is not signed"),
    (by_a_stranger, "is not one of a key in"),
    (tampered, "is not one of a key in"),
    (under_another_name, "under a name that it was not made for"),
    (for_another_purpose, "is not one of a key in"),
    (without_a_key, "no key of this project's releases is known here"),
]


@pytest.mark.parametrize(("offered", "reason"), DISTRUSTED, ids=[each.__name__ for each, _ in DISTRUSTED])
def test_it_refuses_what_no_known_key_signed(house: House, offered: Callable[[House], None], reason: str) -> None:
    before = house.head()
    offered(house)
    done = house.update()
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert reason in done.stderr and "nothing was changed" in done.stderr and "--unverified" in done.stderr
    untouched(house, before)


def test_unverified_takes_it_and_says_so(house: House) -> None:
    commit = house.release("v0.2", key="stranger")
    done = house.update("--unverified")
    assert done.returncode == 0 and "warning: the signature of v0.2 is not one of a key in" in done.stderr
    assert "signed by" not in done.stdout
    updated(house, commit)


def test_a_branch_only_unverified(house: House) -> None:
    before = house.head()
    commit = house.release("v0.2", key="")
    house.git("branch", "next")
    done = house.update("--branch", "next")
    assert done.returncode == 1 and "--unverified" in done.stderr
    untouched(house, before)
    assert house.update("--unverified", "--branch", "next").returncode == 0
    updated(house, commit)


def test_a_change_of_ones_own_stops_it(house: House) -> None:
    before = house.head()
    house.release("v0.2")
    (house.clone / "compose.yaml").write_text("name: mine\n")
    done = house.update()
    assert done.returncode == 1 and "has changes of its own" in done.stderr
    assert house.head() == before and (house.clone / "compose.yaml").read_text() == "name: mine\n"


def test_a_commit_of_ones_own_stops_it(house: House) -> None:
    house.release("v0.2")
    (house.clone / "mine").write_text("x")
    house.git("add", "mine", at="clone")
    house.git("commit", "-q", "-m", "mine", at="clone")
    before = house.head()
    done = house.update()
    assert done.returncode == 1 and "has commits that v0.2 has not" in done.stderr
    untouched(house, before)


def test_an_older_release_is_refused(house: House) -> None:
    house.release("v0.2")
    house.git("pull", "-q", at="clone")
    before = house.head()
    done = house.update("v0.1")
    assert done.returncode == 1 and "v0.1 is older than this clone (v0.2)" in done.stderr
    untouched(house, before)


def test_an_origin_that_is_away_is_said(house: House) -> None:
    before = house.head()
    house.origin.rename(house.folder / "gone")
    done = house.update()
    assert done.returncode == 1 and "cannot be read (git fetch origin); nothing was changed" in done.stderr
    untouched(house, before)


def test_images_of_a_registry_are_not_its_business(house: House) -> None:
    before = house.head()
    house.release("v0.2")
    house.tell(sources={"mailstead-1": "unknown"})
    done = house.update()
    assert done.returncode == 1 and "'scripts/mailstead update run' updates it" in done.stderr
    untouched(house, before)


def test_a_release_that_does_not_build_leaves_everything(house: House) -> None:
    before = house.head()
    house.release("v0.2", BROKEN="yes")
    done = house.update()
    assert done.returncode == 1 and "v0.2 could not be built; the old version goes on running" in done.stderr
    untouched(house, before)


def test_what_the_gate_refuses_goes_back(house: House) -> None:
    before = house.head()
    house.release("v0.2", **{"compose.yaml": "name: mailstead\nservices: {}\n"})
    house.tell(gate="rolled-back")
    done = house.update()
    assert done.returncode == 1 and "no letter came back; the old version goes on running" in done.stderr
    assert "v0.2 changes compose.yaml" in done.stderr
    untouched(house, before)


def test_an_updater_that_is_busy_is_left_alone(house: House) -> None:
    before = house.head()
    house.release("v0.2")
    house.tell(gate="busy")
    done = house.update()
    assert done.returncode == 1 and "the updater refused: mailstead: error: an update is running" in done.stderr
    untouched(house, before)


def test_a_release_without_new_images_still_takes_its_files(house: House) -> None:
    commit = house.release("v0.2", version="1")
    assert house.update().returncode == 0
    assert house.head() == commit and set(house.running().values()) == {"mailstead-1", "unbound-1"}


@pytest.mark.parametrize("service", ["docker-filter", "updater"])
def test_one_of_the_last_two_that_is_sick_gets_its_old_image_back(house: House, service: str) -> None:
    house.release("v0.2")
    house.tell(sick=service)
    house.environment["LAST_SECONDS"] = "1"
    done = house.update()
    assert (
        done.returncode == 1
        and f"the new {service} does not become healthy, so its old image runs again" in done.stderr
    )
    assert house.running()[service] == "mailstead-1" and house.running()["smtp-in"] == "mailstead-2"
    assert house.docker()["images"][f"{PREFIX}mailstead:0.1.0"] == "mailstead-2", "the others keep theirs"
    house.tell(sick="")
    assert house.update().returncode == 0
    updated(house, house.git("rev-parse", "v0.2^{commit}"))


POWER_CUTS = [
    f"{when} {call}"
    for call in (
        "tag mailstead-1", "build", f"tag {PREFIX}mailstead:update-", f"tag {PREFIX}unbound:update-",
        "exec -i stack-admin-1 mailstead --json update run", "exec -i stack-admin-1 mailstead --json update history",
        "compose --progress quiet up -d --no-deps --no-build updater", "up",
    )
    for when in ("before", "after")
]  # fmt: skip


@pytest.mark.parametrize("cut", POWER_CUTS)
def test_a_power_cut_at_any_step_is_finished_by_the_next_run(house: House, cut: str) -> None:
    commit = house.release("v0.2")
    house.tell(crash=cut)
    assert house.update().returncode < 0, "it was killed"
    done = house.update()
    assert done.returncode == 0, done.stderr
    assert "an update to v0.2 was cut short: going on with it" in done.stdout
    updated(house, commit)
    committed = [entry for entry in house.docker()["history"] if entry["outcome"] == "committed"]
    assert len(committed) == 1


def test_after_a_power_cut_a_run_that_is_still_under_way_is_waited_for(house: House) -> None:
    commit = house.release("v0.2")
    house.tell(crash="before exec -i stack-admin-1 mailstead --json update run")
    assert house.update().returncode < 0
    steps = [{"step": "pull", "outcome": "done", "reason": ""}]
    house.tell(gate="busy", run={"id": "run7", "state": "running", "steps": steps})
    done = house.update()
    assert done.returncode == 0, done.stderr
    updated(house, commit)


def test_after_a_power_cut_a_refusal_of_the_gate_still_goes_back(house: House) -> None:
    before = house.head()
    house.release("v0.2")
    house.tell(gate="rolled-back", crash="after exec -i stack-admin-1 mailstead --json update run")
    assert house.update().returncode < 0
    assert house.update().returncode == 1
    untouched(house, before)


def test_up_does_not_start_what_an_update_left_half_done(house: House) -> None:
    (house.clone / ".cache").mkdir()
    (house.clone / ".cache" / "update").write_text("stage=run\n")
    shutil.copy(ROOT / "scripts" / "up", house.clone / "scripts" / "up")
    done = subprocess.run(
        [house.clone / "scripts" / "up"], env=house.environment, capture_output=True, text=True, check=False, timeout=30
    )  # fmt: skip
    assert done.returncode == 1 and "'scripts/update' finishes it or takes it back" in done.stderr


def test_the_file_that_is_shipped_knows_nobody() -> None:
    lines = (ROOT / "scripts" / "release-signers").read_text().splitlines()
    assert all(line.startswith("#") for line in lines)
    assert os.access(ROOT / "scripts" / "update", os.X_OK)
