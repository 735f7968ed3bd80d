"""What the updater can make of docker-filter when somebody has broken into it: nothing beyond its few verbs.

The requests are written octet by octet from inside the updater's container, with the right secret unless a case says
otherwise. What stands on the machine is the same after each refusal.
"""

import json
import time
from collections.abc import Iterator

import pytest
from stack import Stack, must, sh
from updater_hands import HEAD, SECRET, ask, send


def get(stack: Stack, target: str, *, more: str = SECRET, body: str = "") -> int:
    answer = ask(stack, f"GET {target} HTTP/1.1\r\n{HEAD}{more}\r\n{body}")
    return int(answer.split(" ", 2)[1])


@pytest.fixture(scope="module")
def stranger(stack: Stack) -> Iterator[str]:
    """A container of another project on the same machine, with a secret of its own."""
    name, image = f"{stack.project}x-imap-1", stack.inspect("unbound")["Config"]["Image"]
    labels = {"project": f"{stack.project}x", "service": "imap", "container-number": "1", "oneoff": "False"}
    options = [word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}")]
    must(sh("docker", "create", "--name", name, "--network", "none", "-e", "WORD=s3cret", *options, image))
    yield name
    must(sh("docker", "rm", "-f", name))


@pytest.mark.parametrize("target", ["/version", "/v1.41/version", "/_ping", "/containers/json", "/v1.41/containers/json?all=1"])  # fmt: skip
def test_the_updaters_questions_are_answered(stack: Stack, target: str) -> None:
    assert get(stack, target) == 200


def test_only_this_stacks_containers_are_listed_whatever_was_asked_for(stack: Stack, stranger: str) -> None:
    status, body = send(stack, "GET", "/containers/json?all=1&filters=%7B%7D")
    assert status == 200 and stranger not in body
    assert {entry["Labels"]["com.docker.compose.project"] for entry in json.loads(body)} == {stack.project}


def test_an_inspection_has_no_value_of_the_environment(stack: Stack) -> None:
    status, body = send(stack, "GET", f"/v1.41/containers/{stack.container('unbound')}/json")
    shown, real = json.loads(body), stack.inspect("unbound")
    assert status == 200 and shown["Id"] == real["Id"] and shown["HostConfig"]["CapDrop"] == ["ALL"]
    for entry in real["Config"]["Env"]:
        name, _, value = entry.partition("=")
        assert value not in json.dumps(shown["Config"]["Env"]), name
        assert any(each.startswith(f"{name}=sha256:") for each in shown["Config"]["Env"])


# Verbs that change or show something, and ways to write an allowed one so that two readers might disagree.
REFUSED = [
    "POST /containers/{own}/exec", "POST /exec/0123456789ab/start", "POST /build", "POST /commit?container={own}",
    "PUT /containers/{own}/archive?path=/tmp", "GET /containers/{own}/archive?path=/run/mailstead/secrets",
    "GET /containers/{own}/logs?stdout=1", "POST /containers/{own}/attach?stream=1", "GET /containers/{own}/attach/ws",
    "GET /containers/{own}/export", "GET /containers/{own}/top", "POST /containers/{own}/update", "GET /events", "GET /info",
    "POST /containers/{own}/kill", "POST /containers/{own}/kill?signal=KILL", "POST /containers/{own}/stop?t=0",
    "POST /containers/{own}/rename?name=other", "POST /containers/{own}/rename?name={project}-dkim-1-before-x",
    "DELETE /containers/{own}", "DELETE /containers/{own}?force=1", "POST /containers/{own}/start?x=1",
    "POST /containers/{project}-updater-1/stop", "POST /containers/{project}-docker-filter-1/stop",
    "POST /containers/{project}-setup-1/start", "DELETE /containers/{project}-setup-1",
    "GET /containers/{stranger}/json", "POST /containers/{stranger}/stop", "POST /containers/{stranger}/start",
    "DELETE /containers/{stranger}", "POST /containers/{stranger}/rename?name={stranger}-before-x",
    "GET /images/json", "GET /images/debian:trixie-slim/json", "POST /images/create?fromImage=debian&tag=trixie-slim",
    "POST /images/create?fromSrc=http://127.0.0.1/x.tar", "POST /images/load", "DELETE /images/debian:trixie-slim",
    "POST /images/debian:trixie-slim/tag?repo={repository}&tag=before-x",
    "POST /images/{repository}:{version}/tag?repo={repository}&tag=anything",
    "DELETE /images/{repository}:{version}", "POST /images/{repository}/push",
    "GET /volumes", "POST /volumes/create", "GET /networks", "POST /networks/create", "POST /swarm/init", "GET /plugins",
    "GET /secrets", "GET /distribution/registry.example/mailstead/mailstead:1/json", "GET /containers/%6ason",
    "GET //containers/json", "GET /x/../containers/json", "GET http://docker/containers/json", "GET /v1.41/../info",
    "GET /containers/..%2f..%2finfo/json", "GET /containers/{project}-.map-1/json", "HEAD /containers/json",
]  # fmt: skip


def filled(stack: Stack, line: str, stranger: str) -> str:
    repository, _, version = stack.inspect("imap")["Config"]["Image"].rpartition(":")
    return line.format(project=stack.project, own=stack.container("imap"), stranger=stranger,
                       repository=repository, version=version)  # fmt: skip


def standing(stack: Stack, stranger: str) -> list[str]:
    """Each container of the stack and the stranger's, with its name and start, and each name that a case could give."""
    ids = sh(
        "docker", "ps", "-aq", "--no-trunc", "--filter", f"label=com.docker.compose.project={stack.project}"
    ).output
    each = "{{.Id}} {{.Name}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}"
    found = must(sh("docker", "inspect", "--format", each, stranger, *ids.split())).splitlines()
    repository, _, version = stack.inspect("imap")["Config"]["Image"].rpartition(":")
    names = must(sh("docker", "image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")).splitlines()
    mine = (f"{repository}:{version} ", f"{repository}:before-x ", f"{repository}:anything ", "debian:trixie-slim ")
    return sorted([*found, *(line for line in names if line.startswith(mine))])


@pytest.mark.parametrize("line", REFUSED)
def test_everything_else_is_refused_and_changes_nothing(stack: Stack, stranger: str, line: str) -> None:
    method, _, target = filled(stack, line, stranger).partition(" ")
    before = standing(stack, stranger)
    status, body = send(stack, method, target)
    assert status == 403 and (method == "HEAD" or json.loads(body)["message"])
    assert standing(stack, stranger) == before


def test_a_create_that_is_not_the_derived_one_is_refused(stack: Stack, stranger: str) -> None:
    own, image = stack.container("imap"), stack.inspect("imap")["Config"]["Image"]
    labels = {"mailstead.update": "x7", "mailstead.source": own}
    right = {"Image": image, "Labels": labels}
    before = standing(stack, stranger)
    for name, body in (
        ("evil", right), (own, right), (f"{own}-next-x8", right), (f"{stack.container('dkim')}-next-x7", right),
        (f"{own}-next-x7", {**right, "HostConfig": {"Privileged": True}}),
        (f"{own}-next-x7", {**right, "HostConfig": {"Binds": ["/:/host"]}}),
        (f"{own}-next-x7", {**right, "Cmd": ["sh"]}), (f"{own}-next-x7", {**right, "Env": ["LD_PRELOAD=/x"]}),
        (f"{own}-next-x7", {**right, "User": "0:0"}), (f"{own}-next-x7", {**right, "Image": "debian:trixie-slim"}),
        (f"{own}-next-x7", {**right, "Labels": {**labels, "mailstead.source": stranger}}),
        (f"{own}-next-x7", {**right, "Labels": {**labels, "com.docker.compose.service": "x"}}),
        (f"{stack.container('updater')}-next-x7",
         {**right, "Labels": {**labels, "mailstead.source": stack.container("updater")}}),
        (f"{own}-next-x7", {**stack.inspect("imap")["Config"], "Image": image, "Labels": labels}),
    ):  # fmt: skip
        status, answer = send(stack, "POST", f"/containers/create?name={name}", body)
        assert status == 403, (name, body, answer)
    assert standing(stack, stranger) == before


@pytest.mark.parametrize(
    ("more", "body", "status"),
    [
        ("", "", 401),
        ("Authorization: Bearer wrong\r\n", "", 401),
        ("Authorization: {secret}\r\n", "", 401),
        (SECRET + "Authorization: Bearer wrong\r\n", "", 401),
        (SECRET + "Upgrade: tcp\r\nConnection: Upgrade\r\n", "", 403),
        (SECRET + "Content-Length: 2\r\n", "{}", 403),
        (SECRET + "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n", 403),
        (SECRET + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", 403),
        (SECRET + "Expect: 100-continue\r\n", "", 403),
    ],
)
def test_no_header_opens_more(stack: Stack, more: str, body: str, status: int) -> None:
    assert get(stack, "/version", more=more, body=body) == status


def test_what_was_refused_stands_in_the_record(stack: Stack) -> None:
    assert send(stack, "POST", "/build?remote=recorded")[0] == 403
    time.sleep(1)  # the record is written twice a second
    lines = must(stack.execute("docker-filter", "bash", "-c", "cat /var/lib/mailstead/events/docker-filter/*"))
    assert any('"reject"' in line and "POST /build?remote=recorded" in line for line in lines.splitlines())
