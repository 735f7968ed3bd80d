"""Containers killed under load, and away while the others work; `python -m tests.faults kills` and `outages` do more."""

import random
from collections.abc import Iterator

import pytest
from stack import Stack, must

from tests.faults import kills, outages


@pytest.fixture(scope="module")
def busy(stack: Stack, ann: str, ben: str) -> Iterator[Stack]:
    """The stack with a queue that tries again soon, and an outside that only counts."""
    stack.write_env("queue", {"RETRY_FIRST": "2"})
    stack.up()
    milters = must(stack.execute("world-outside", "postconf", "-h", "smtpd_milters")).strip()
    must(stack.execute("world-outside", "bash", "-c", "postconf -e smtpd_milters= && postfix reload"))
    yield stack
    must(stack.execute("world-outside", "bash", "-c", f"postconf -e 'smtpd_milters = {milters}' && postfix reload"))
    stack.write_env("queue", {})
    stack.up()


@pytest.mark.parametrize("victim", ["smtp-in", "smtp-out"])
def test_killed_in_the_middle_nothing_acknowledged_is_lost(busy: Stack, victim: str) -> None:
    kills.empty_mailboxes(busy)
    one = kills.play(busy, victim, False, 100, random.Random())
    assert one.held(), one


def test_without_dkim_nothing_goes_out_unsigned(busy: Stack) -> None:
    kills.empty_mailboxes(busy)
    assert "none unsigned" in outages.dkim(busy)


def test_the_clients_of_a_restarted_imap_come_back(busy: Stack) -> None:
    kills.empty_mailboxes(busy)
    assert "60 clients" in outages.imap(busy, 60)


def test_without_admin_people_log_in_send_and_receive(busy: Stack) -> None:
    kills.empty_mailboxes(busy)
    assert "all told afterwards" in outages.admin(busy)
