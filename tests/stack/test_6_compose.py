"""`docker compose up -d` typed alone, where the images are there: no env file, no .env, no script before or after it."""

import os
from collections.abc import Iterator

import pytest
from mailclients import letter, until
from stack import CONTAINERS, PASSWORD, Stack, must, sh

ADDRESS = "ann@example.test"


@pytest.fixture(scope="module")
def alone(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Beside the first stack, whose images it uses; ports and subnet come by the environment, as they must differ."""
    project = os.environ["MAILSTEAD_TEST_PROJECT"] + "-second"
    second = Stack(tmp_path_factory.mktemp("alone"), project, world=False)
    for path in (second.folder / "env").glob("*.env"):
        path.unlink()
    second.environment |= second.host
    try:
        yield second
    finally:
        second.down()


def test_it_starts_and_becomes_healthy(alone: Stack) -> None:
    must(alone.compose("up", "-d", "--no-build"))
    for service in CONTAINERS:
        until(lambda service=service: alone.execute(service, "healthcheck").status == 0, seconds=120, every=0.5)  # type: ignore[misc]


def test_mail_is_taken_and_read(alone: Stack) -> None:
    must(sh("docker", "exec", alone.container("admin"), "mailstead", "account", "add", ADDRESS, PASSWORD))
    alone.settle()
    sent = letter("friend@outside.test", ADDRESS)
    alone.receive("friend@outside.test", ADDRESS, message=sent.message)
    assert sent.message in alone.letter(ADDRESS, sent.message_id)


def test_typed_again_it_changes_nothing(alone: Stack) -> None:
    before = alone.started()
    must(alone.compose("up", "-d", "--no-build"))
    assert alone.started() == before


def test_scripts_up_takes_it_over_as_it_is(alone: Stack) -> None:
    before = alone.started()
    alone.up()
    assert alone.started() == before
