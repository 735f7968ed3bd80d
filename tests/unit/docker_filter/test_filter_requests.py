"""What the updater's targets and bodies are read as, and every way to write something else: refused before any look."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.docker_filter import requests
from services.docker_filter.references import Reference
from services.docker_filter.requests import Ask, Refused, Successor, read, successor

ID = "sha256:" + "a" * 64
REPOSITORY = "ghcr.io/mailstead/mailstead"
IMAGE = Reference(REPOSITORY, "0.1.0")
BEFORE = Reference(REPOSITORY, "before-x7")
PINNED = Reference(REPOSITORY, digest=ID)
NAME = "mailstead-imap-1"

ALLOWED: list[tuple[str, str, Ask]] = [
    ("GET", "/version", requests.Version()),
    ("GET", "/v1.41/_ping", requests.Ping()),
    ("GET", "/containers/json", requests.Listing()),
    ("GET", "/v1.44/containers/json?limit=-1&all=1&size=0&trunc_cmd=0", requests.Listing()),
    ("GET", f"/containers/{NAME}/json", requests.Inspection(NAME)),
    ("GET", f"/images/{ID}/json", requests.ImageInspection(Reference("", digest=ID))),
    ("GET", f"/images/{IMAGE}/json", requests.ImageInspection(IMAGE)),
    ("GET", f"/images/{REPOSITORY}/json", requests.ImageInspection(Reference(REPOSITORY, "latest"))),
    ("GET", f"/images/{REPOSITORY}@{ID}/json", requests.ImageInspection(PINNED)),
    ("GET", f"/images/{REPOSITORY}%40{ID}/json", requests.ImageInspection(PINNED)),
    ("GET", "/images/127.0.0.1:5000/house/mailstead:1/json",
     requests.ImageInspection(Reference("127.0.0.1:5000/house/mailstead", "1"))),
    ("GET", f"/distribution/{IMAGE}/json", requests.Distribution(IMAGE)),
    ("POST", f"/images/create?fromImage={REPOSITORY}&tag=0.1.0", requests.Pull(IMAGE)),
    ("POST", "/images/create?tag=0.1.0&fromImage=ghcr.io%2Fmailstead%2Fmailstead", requests.Pull(IMAGE)),
    ("POST", f"/images/create?fromImage={IMAGE}", requests.Pull(IMAGE)),
    ("POST", f"/images/create?fromImage={REPOSITORY}&tag=sha256%3A{'a' * 64}", requests.Pull(PINNED)),
    ("POST", f"/images/{ID}/tag?repo={REPOSITORY}&tag=before-x7&force=0",
     requests.Tag(Reference("", digest=ID), BEFORE)),
    ("DELETE", f"/images/{BEFORE}?force=False&noprune=False", requests.DeleteImage(BEFORE)),
    ("DELETE", f"/images/{ID}", requests.DeleteImage(Reference("", digest=ID))),
    ("POST", f"/containers/{NAME}/stop", requests.Stop(NAME)),
    ("POST", f"/containers/{NAME}/stop?t=20", requests.Stop(NAME, 20)),
    ("POST", f"/containers/{NAME}/start", requests.Start(NAME)),
    ("POST", f"/containers/{NAME}/kill?signal=SIGTERM", requests.Terminate(NAME)),
    ("POST", f"/containers/{NAME}/rename?name={NAME}-before-x7", requests.Rename(NAME, f"{NAME}-before-x7")),
    ("DELETE", f"/containers/{NAME}?v=False&link=False&force=False", requests.Remove(NAME)),
    ("POST", f"/containers/create?name={NAME}", requests.Create(NAME)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target", "ask"), ALLOWED)
def test_what_the_updater_asks_is_read(method: str, target: str, ask: Ask) -> None:
    assert read(method.encode(), target.encode()) == ask


@pytest.mark.parametrize(("method", "target", "ask"), ALLOWED)
@pytest.mark.parametrize("other", ["PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "post", "GETX", ""])
def test_with_another_method_it_is_refused(method: str, target: str, ask: Ask, other: str) -> None:
    with pytest.raises(Refused):
        read(other.encode(), target.encode())


REFUSED = [
    # Verbs of Docker's API that are nobody's here.
    "GET /info", "GET /events", "GET /images/json", "GET /volumes", "GET /networks", "GET /secrets", "GET /system/df",
    "GET /exec/0123456789ab/json", "GET /plugins", "GET /swarm", "GET /nodes", "GET /tasks/x/logs", "GET /configs",
    "POST /build", "POST /session", "POST /grpc", "POST /auth", "POST /commit?container=x", "POST /images/load",
    "POST /images/prune", "POST /containers/prune", "POST /volumes/create", "POST /networks/create", "POST /swarm/init",
    f"POST /containers/{NAME}/exec", "POST /exec/0123456789ab/start", f"POST /containers/{NAME}/attach",
    f"GET /containers/{NAME}/attach/ws", f"GET /containers/{NAME}/logs", f"GET /containers/{NAME}/export",
    f"GET /containers/{NAME}/archive?path=/", f"PUT /containers/{NAME}/archive?path=/", f"GET /containers/{NAME}/top",
    f"GET /containers/{NAME}/changes", f"GET /containers/{NAME}/stats", f"POST /containers/{NAME}/update",
    f"POST /containers/{NAME}/restart", f"POST /containers/{NAME}/pause", f"POST /containers/{NAME}/wait",
    f"POST /containers/{NAME}/resize", "GET /images/search?term=x", "GET /images/x/get", "GET /images/get?names=x",
    f"POST /images/{REPOSITORY}/push", f"GET /images/{REPOSITORY}/history",
    # Another way to write an allowed path.
    "GET /containers/json/", "GET //containers/json", "GET /containers//json", "GET /./containers/json",
    "GET /x/../containers/json", "GET /containers/%6ason", "GET /containers/json%00", "GET /containers%2fjson",
    "GET /containers/..%2f..%2finfo/json", "GET /CONTAINERS/json", "GET /v1.41/../info", "GET /v1.41//info",
    "GET /v1.9999/containers/json", "GET /v2.0/containers/json", "GET http://docker/containers/json", "GET *",
    "GET containers/json", "GET /containers/json#x", "GET /containers/json;x", "GET /containers/js on",
    "GET /version/../info", "GET /containers/%2e%2e/json", "GET /containers/../json", "GET /containers/./json",
    "GET /containers/a%2fb/json", "GET /containers/a\x00b/json", "GET /containers/a\r\nb/json", "GET /\xff/json",
    f"GET /containers/{'x' * 129}/json", "GET /containers/x/json?" + "a" * 2000, "GET /containers/x/y/json",
    # Names of images.
    "GET /images/ghcr.io/mailstead/../../x/json", "GET /images/ghcr.io/mailstead/a/../b/json",
    "GET /images/ghcr.io//x/json", "GET /images/x@evil.example/json", "GET /images/x:y:z/json", "GET /images/x:/json",
    "GET /images/X/json", "GET /images/x@sha256:abc/json", "GET /images/a/b:c/d/json", "GET /images/-x/json",
    "GET /images/a_-b/json", "GET /distribution/user@host/json",
    f"GET /images/x@{ID}%40{ID}/json", f"GET /images/{'x/' * 20}y/json",
    # Queries: only known keys, each once, plain.
    "GET /containers/json?all=1&all=0", "GET /containers/json?all", "GET /containers/json?&", "GET /containers/json?=1",
    "POST /images/create", "POST /images/create?fromImage=", "POST /images/create?fromSrc=http://x/",
    f"POST /images/create?fromImage={REPOSITORY}&fromImage=evil/x", f"POST /images/create?fromImage={REPOSITORY}&repo=x",
    f"POST /images/create?fromImage={IMAGE}&tag=2", f"POST /images/create?fromImage={REPOSITORY}@{ID}&tag=2",
    f"POST /images/create?fromImage={ID}", f"POST /images/create?fromImage={REPOSITORY}&tag=a%20b",
    f"POST /images/create?fromImage={REPOSITORY}%2e%2e%2fx", f"POST /images/create?fromImage={REPOSITORY}&tag=a/b",
    f"POST /images/create?fromImage={REPOSITORY}%252Fx", f"POST /images/create?fromImage={REPOSITORY}&changes=ENV",
    f"POST /images/{ID}/tag?repo={REPOSITORY}", f"POST /images/{ID}/tag?tag=x", f"POST /images/{ID}/tag",
    f"POST /images/{ID}/tag?repo={IMAGE}&tag=x", f"POST /images/{ID}/tag?repo={REPOSITORY}&tag=x&force=1",
    f"POST /images/{ID}/tag?repo={REPOSITORY}@{ID}&tag=x",
    f"DELETE /images/{BEFORE}?force=1", f"DELETE /images/{BEFORE}?force=true", f"DELETE /images/{BEFORE}?platforms=x",
    f"POST /containers/{NAME}/stop?t=0", f"POST /containers/{NAME}/stop?t=-1", f"POST /containers/{NAME}/stop?t=121",
    f"POST /containers/{NAME}/stop?t=4", f"POST /containers/{NAME}/stop?signal=SIGKILL", f"POST /containers/{NAME}/stop?t=",
    f"POST /containers/{NAME}/start?detachKeys=x", f"POST /containers/{NAME}/kill", f"POST /containers/{NAME}/kill?signal=9",
    f"POST /containers/{NAME}/kill?signal=SIGKILL", f"POST /containers/{NAME}/kill?signal=SIGTERM&signal=KILL",
    f"POST /containers/{NAME}/rename", f"POST /containers/{NAME}/rename?name=", f"POST /containers/{NAME}/rename?name=/x",
    f"POST /containers/{NAME}/rename?name=a%2Fb", f"DELETE /containers/{NAME}?force=1", f"DELETE /containers/{NAME}?v=1",
    f"DELETE /containers/{NAME}?link=true", "POST /containers/create", "POST /containers/create?name=",
    "POST /containers/create?name=a&name=b", "POST /containers/create?name=a&platform=linux", "POST /containers/create?name=.x",
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_all_else_is_refused(line: str) -> None:
    method, _, target = line.partition(" ")
    with pytest.raises(Refused):
        read(method.encode(), target.encode("latin-1"))


LABELS = {"mailstead.update": "x7", "mailstead.source": NAME}


def body(**changes: Any) -> bytes:
    return json.dumps({"Image": str(IMAGE), "Labels": LABELS, **changes}).encode()


def test_a_create_names_image_update_and_source() -> None:
    assert successor(body()) == Successor(IMAGE, "x7", NAME)


@pytest.mark.parametrize(
    "given",
    [
        b"", b"{", b"[]", b"null", b"1", b"\xff", b"[" * 100_000, b'{"Image": NaN',
        body(HostConfig={"Privileged": True}), body(HostConfig={}), body(Env=["A=1"]), body(Cmd=["sh"]), body(User="0"),
        body(NetworkingConfig={}), body(Labels={**LABELS, "com.docker.compose.service": "docker-filter"}),
        body(Labels={"mailstead.update": "x7"}), body(Labels=[]), body(Labels=None), body(Image=None), body(Image=7),
        body(Image="Evil"), body(Image=""), body(Image="x y"), body(Labels={**LABELS, "mailstead.update": "X"}),
        body(Labels={**LABELS, "mailstead.update": "a" * 21}), body(Labels={**LABELS, "mailstead.update": 7}),
        body(Labels={**LABELS, "mailstead.update": "x7\n"}), body(Labels={**LABELS, "mailstead.source": "../x"}),
        body(Labels={**LABELS, "mailstead.source": ["x"]}), body(Labels={**LABELS, "mailstead.source": NAME + "\n"}),
        b'{"Image": "a", "Image": "b", "Labels": {"mailstead.update": "x", "mailstead.source": "y"}}',
        body()[:-1] + b', "image": "evil"}', body() + b" " * requests.LONGEST_BODY,
    ],
)  # fmt: skip
def test_a_create_that_says_anything_else_is_refused(given: bytes) -> None:
    with pytest.raises(Refused):
        successor(given)
