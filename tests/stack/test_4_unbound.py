"""The stack's resolver: says what is wrong with its settings, answers the stack alone, and leaves no orphan behind."""

import pytest
from stack import Stack, must, sh

ZOMBIES = 'for each in /proc/[0-9]*; do read -r _ name state _ <"$each/stat" 2>/dev/null && echo "$state $name"; done'
ASK = "import socket; print(socket.getaddrinfo({name!r}, 53)[0][4][0])"


@pytest.mark.parametrize(
    ("variable", "allowed"),
    [
        ("DNS_FORWARD_TO=one.example", "addresses separated by commas"),
        ("DNS_FORWARD_TO=192.0.2.1, 192.0.2", "addresses separated by commas"),
        ("DNS_VALIDATE=maybe", "yes or no"),
        ("MAILSTEAD_SUBNET=10.214.81.0/24", "three numbers such as 10.214.81"),
    ],
)
def test_a_wrong_value_ends_it_with_one_line(stack: Stack, variable: str, allowed: str) -> None:
    image = stack.inspect("unbound")["Config"]["Image"]
    done = sh("docker", "run", "--rm", "--network", "none", "--tmpfs", "/run/unbound:uid=10008", "-e", variable, image)
    assert done.status == 78
    name, value = variable.split("=")
    assert done.output.count("\n") == 1 and f"{name}='{value}'" in done.output and allowed in done.output


def test_an_unknown_variable_is_named(stack: Stack) -> None:
    image = stack.inspect("unbound")["Config"]["Image"]
    done = sh("docker", "run", "--rm", "--network", "none", "--tmpfs", "/run/unbound:uid=10008", "-e", "DNS_FORWARD=1",
              "-e", "DNS_VALIDATE=maybe", image)  # fmt: skip
    assert "unknown variable DNS_FORWARD is ignored" in done.output


def test_its_settings_are_what_unbound_accepts(stack: Stack) -> None:
    done = stack.execute("unbound", "unbound-checkconf", "/etc/unbound/unbound.conf")
    assert "no errors" in must(done)


@pytest.mark.parametrize("service", ["unbound", "docker-filter", "smtp-in"])
def test_a_hundred_health_checks_leave_no_orphan(stack: Stack, service: str) -> None:
    """Process 1 of these containers waits for no child: what a check leaves behind stays, until no process starts."""
    must(stack.execute(service, "bash", "-c", "for each in {1..100}; do healthcheck >/dev/null || exit 1; done"))
    for _ in range(3):
        must(stack.execute(service, "healthcheck"))
    assert "Z" not in {line.split()[0] for line in must(stack.execute(service, "bash", "-c", ZOMBIES)).splitlines()}


@pytest.mark.parametrize("service", ["smtp-out", "dkim", "updater"])
def test_a_room_finds_its_neighbours_by_name_and_nobody_else(stack: Stack, service: str) -> None:
    neighbour = {"smtp-out": "unbound", "dkim": "admin", "updater": "docker-filter"}[service]
    ask = ("timeout", "5", "python3", "-I", "-S", "-c")
    assert must(stack.execute(service, *ask, ASK.format(name=neighbour))).startswith(stack.subnet)
    assert stack.execute(service, *ask, ASK.format(name="outside.test")).status != 0
