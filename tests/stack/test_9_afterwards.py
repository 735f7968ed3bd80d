"""After everything above: nothing restarted by itself, nothing crashed unseen, nothing kept root's powers."""

import pytest
from stack import CONTAINERS, Stack


@pytest.mark.parametrize("service", CONTAINERS)
def test_no_container_restarted_or_ran_out_of_memory(stack: Stack, service: str) -> None:
    state = stack.inspect(service)
    assert state["RestartCount"] == 0 and not state["State"]["OOMKilled"]
    assert state["State"]["Running"]


@pytest.mark.parametrize("service", CONTAINERS)
def test_no_log_has_a_traceback(stack: Stack, service: str) -> None:
    logs = stack.logs(service)
    assert "Traceback" not in logs and "internal error" not in logs, logs[-4000:]


def test_no_room_recorded_a_bug(stack: Stack) -> None:
    for service in ("smtp-in", "smtp-out", "imap", "dkim", "acme", "admin", "updater", "docker-filter"):
        found = stack.execute(
            service,
            "bash",
            "-c",
            f'cat /var/lib/mailstead/events/{service}/* 2>/dev/null | grep \'"kind": *"bug"\' || true',
        ).output
        assert not found, found
