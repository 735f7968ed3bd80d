"""What the updater can make of docker-filter when somebody has broken into it: nothing beyond the few questions.

The requests are written octet by octet from inside the updater's container, with the right secret unless a case says
otherwise.
"""

import json

import pytest
from stack import Stack, must

# Runs inside the updater: raw octets on stdin, the answer's octets on stdout; {secret} becomes the pair's secret.
ASK = """
import socket, sys
secret = open('/run/mailstead/secrets/docker-filter+updater', 'rb').read().strip()
line = socket.create_connection(('docker-filter', 2375), 5)
line.settimeout(20)
line.sendall(sys.stdin.buffer.read().replace(b'{secret}', secret))
try:
    while chunk := line.recv(65536):
        sys.stdout.buffer.write(chunk)
except TimeoutError:
    pass
"""
HEAD = "Host: docker\r\nConnection: close\r\n"
SECRET = "Authorization: Bearer {secret}\r\n"


def ask(stack: Stack, request: str) -> str:
    return must(stack.execute("updater", "python3", "-I", "-S", "-c", ASK, stdin=request.encode("latin-1")))


def get(stack: Stack, target: str, *, method: str = "GET", more: str = SECRET, body: str = "") -> int:
    answer = ask(stack, f"{method} {target} HTTP/1.1\r\n{HEAD}{more}\r\n{body}")
    return int(answer.split(" ", 2)[1])


@pytest.mark.parametrize(
    "target", ["/version", "/v1.41/version", "/_ping", "/containers/json", "/v1.41/containers/json?all=1"]
)
def test_the_updaters_questions_are_answered(stack: Stack, target: str) -> None:
    assert get(stack, target) == 200


def test_only_this_stacks_containers_are_listed_whatever_was_asked_for(stack: Stack) -> None:
    answer = ask(stack, f"GET /containers/json?all=1&filters=%7B%7D HTTP/1.0\r\n{HEAD}{SECRET}\r\n")
    body = answer.partition("\r\n\r\n")[2]
    listed = json.loads(body[body.index("[") : body.rindex("]") + 1])
    assert {entry["Labels"]["com.docker.compose.project"] for entry in listed} == {stack.project}


# Paths of Docker's API that change or show something, and every way to write an allowed one so that two readers of it
# might disagree.
TARGETS = [
    "/info", "/events", "/images/json", "/volumes", "/networks", "/secrets", "/system/df", "/containers/json/",
    "//containers/json", "/containers//json", "/./containers/json", "/x/../containers/json", "/containers/%6ason",
    "/containers/json%00", "/containers%2fjson", "/containers/..%2f..%2finfo/json", "/CONTAINERS/json",
    "/v1.41/../info", "/v1.41//info", "/v1.9999/containers/json", "/v2.0/containers/json",
    "http://docker/containers/json", "/containers/{project}-smtp-out-1/json", "/containers/{project}-imap-1/top",
    "/containers/{project}-imap-1/logs?x=/json", "/containers/{project}-imap-1/archive?path=/json",
    "/containers/{project}-imap-1/attach/ws", "/images/debian:trixie-slim/json", "/images/search/json",
    "/images/ghcr.io/mailstead/../../x/json", "/images/ghcr.io/mailstead/a/../b/json", "/images/ghcrXio/mailstead/a/json",
    "/distribution/registry.example/mailstead/mailstead:1/json", "/distribution/ghcr.io/mailstead//x/json",
    "/distribution/ghcr.io/mailstead/x@evil.example/json", "/distribution/127.0.0.1:22/x/json", "/containers/json;x",
    "/exec/0123456789ab/json", "/build", "/session", "/grpc", "/plugins", "/swarm", "/nodes", "/tasks/x/logs",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_every_other_target_is_refused(stack: Stack, target: str) -> None:
    assert get(stack, target.replace("{project}", stack.project)) == 403


@pytest.mark.parametrize("target", ["/containers/json#x", "http://x/info", "/containers/js on", "containers/json", "*"])
def test_what_is_no_target_is_refused(stack: Stack, target: str) -> None:
    assert get(stack, target) in (400, 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "GETX"])
def test_every_other_method_is_refused(stack: Stack, method: str) -> None:
    assert get(stack, "/containers/json", method=method) in (400, 403)


@pytest.mark.parametrize(
    ("more", "body", "status"),
    [
        ("", "", 401),
        ("Authorization: Bearer wrong\r\n", "", 401),
        ("Authorization: {secret}\r\n", "", 401),
        (SECRET + "Authorization: Bearer wrong\r\n", "", 401),
        (SECRET + SECRET, "", 401),
        (SECRET + "Upgrade: tcp\r\nConnection: Upgrade\r\n", "", 403),
        (SECRET + "Content-Length: 2\r\n", "{}", 403),
        (SECRET + "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n", 403),
        (SECRET + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", 403),
        (SECRET + "Expect: 100-continue\r\n", "", 403),
    ],
)
def test_no_header_opens_more(stack: Stack, more: str, body: str, status: int) -> None:
    assert get(stack, "/version", more=more, body=body) in (status, 400)


def test_each_request_on_a_connection_is_judged_by_itself(stack: Stack) -> None:
    """Pipelined behind an allowed question: without the secret, with another method, with another target."""
    first = f"GET /_ping HTTP/1.1\r\nHost: docker\r\n{SECRET}\r\n"
    create = f"POST /containers/create HTTP/1.1\r\n{HEAD}{SECRET}Content-Length: 2\r\n\r\n{{}}"
    for second, status in (
        (f"GET /version HTTP/1.1\r\n{HEAD}\r\n", "401"),
        (create, "403"),
        (f"GET /info HTTP/1.1\r\n{HEAD}{SECRET}\r\n", "403"),
    ):
        answer = ask(stack, first + second)
        assert answer.startswith("HTTP/1.1 200") and f"HTTP/1.1 {status}" in answer, answer


def test_its_health_is_open_and_says_nothing(stack: Stack) -> None:
    answer = ask(stack, "GET /health HTTP/1.0\r\n\r\n")
    assert answer.split(" ", 2)[1] == "200" and "ersion" not in answer
