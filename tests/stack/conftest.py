"""One running stack for all of tests/stack: brought up by scripts/up beside the test world, taken down at the end.

Needs Docker with Compose v2 and the base image (scripts/test sees to them). Tests run in the order of their files:
what changes the stack comes after what only uses it, and the last file looks at what all of it left behind.
"""

import os
from collections.abc import Iterator

import pytest
import stack as stacks
from stack import PASSWORD, Stack


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("MAILSTEAD_TEST_PROJECT", f"mailstead-test-{os.getpid()}")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stacks.running(tmp_path_factory.mktemp("stack"), os.environ["MAILSTEAD_TEST_PROJECT"]) as running:
        yield running


@pytest.fixture(scope="session")
def ann(stack: Stack) -> str:
    """Made by the README's own command when all tests run; here she gets the password that tests know."""
    if stack.script("mailstead", "account", "password", "ann@example.test", PASSWORD).status != 0:
        stack.account("ann@example.test")
    stack.settle()
    return "ann@example.test"


@pytest.fixture(scope="session")
def ben(stack: Stack) -> str:
    return stack.account("ben@example.test")
