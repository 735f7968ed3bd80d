"""One request's method and target to a value, or to a refusal. Pure: no container is looked at yet.

A target is compared as a whole with what is allowed, octet by octet. Nothing is normalised: `//`, `..`, a fragment, an
absolute URL or an escaped octet matches no pattern. Of a query, only named keys are read, each at most once; what is
escaped there (the docker SDK writes `%2F`) is decoded once and must then be a plain name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.docker_filter.references import DIGEST, UPDATE_ID, Reference, reference

LONGEST_TARGET = 1500
LONGEST_BODY = 256 * 1024
# Container stop: Docker's default is 10; less than 5 would be a kill by another name.
SHORTEST_STOP, LONGEST_STOP = 5, 120


class Refused(Exception):
    """Not allowed: `status` and the reason that the asker is told."""

    def __init__(self, why: str, status: int = 403) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Version:
    """GET /version."""


@dataclass(frozen=True, slots=True)
class Ping:
    """GET /_ping."""


@dataclass(frozen=True, slots=True)
class Listing:
    """GET /containers/json."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """GET /containers/{container}/json."""

    container: str


@dataclass(frozen=True, slots=True)
class Health:
    """GET /containers/{container}/health: its own health check, run now. Docker's API has no such question."""

    container: str


@dataclass(frozen=True, slots=True)
class ImageInspection:
    """GET /images/{image}/json."""

    image: Reference


@dataclass(frozen=True, slots=True)
class Distribution:
    """GET /distribution/{image}/json: the digest that the registry has now."""

    image: Reference


@dataclass(frozen=True, slots=True)
class Pull:
    """POST /images/create."""

    image: Reference


@dataclass(frozen=True, slots=True)
class Tag:
    """POST /images/{image}/tag: `name` is a further name for `image`."""

    image: Reference
    name: Reference


@dataclass(frozen=True, slots=True)
class DeleteImage:
    """DELETE /images/{image}."""

    image: Reference


@dataclass(frozen=True, slots=True)
class Stop:
    """POST /containers/{container}/stop; `seconds` until it is killed, None for the container's own."""

    container: str
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """POST /containers/{container}/start."""

    container: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """POST /containers/{container}/kill with SIGTERM."""

    container: str


@dataclass(frozen=True, slots=True)
class Rename:
    """POST /containers/{container}/rename."""

    container: str
    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    """DELETE /containers/{container}."""

    container: str


@dataclass(frozen=True, slots=True)
class Create:
    """POST /containers/create; its body is read by `successor`."""

    name: str


Ask = (
    Version | Ping | Listing | Inspection | Health | ImageInspection | Distribution
    | Pull | Tag | DeleteImage | Stop | Start | Terminate | Rename | Remove | Create
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Successor:
    """The body of a create: run `image` in place of the container `source`, in the update `update`."""

    image: Reference
    update: str
    source: str


_VERSIONED = re.compile(rb"(?:/v1\.[0-9]{1,3})?(/[!-~]*)")
_CONTAINER = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_CONTAINER_NAME = re.compile(_CONTAINER)
_IMAGE = r"[a-z0-9][A-Za-z0-9_.:/@-]*(?:%40sha256:[0-9a-f]{64})?"
_PAIR = re.compile(r"([A-Za-z_]{1,20})=([!-~]*)")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@-]*")
# Escaped in the docker SDK's queries; any other escape would hide what is meant.
_ESCAPES = {"%2F": "/", "%2f": "/", "%3A": ":", "%3a": ":", "%40": "@"}
_ESCAPE = re.compile("|".join(_ESCAPES))
_FALSE = ("", "0", "false", "False")

Reader = Callable[[re.Match[str], str], Ask]


def read(method: bytes, target: bytes) -> Ask:
    """What is asked; raises Refused."""
    match = _VERSIONED.fullmatch(target) if len(target) <= LONGEST_TARGET else None
    if not match or b"#" in target:
        raise Refused("this target is not allowed")
    path, _, query = match[1].decode("ascii").partition("?")
    verb = method.decode("ascii", "replace")
    for wanted, pattern, reader in _VERBS:
        found = re.fullmatch(pattern, path) if wanted == verb else None
        if found:
            return reader(found, query)
    raise Refused(f"{verb[:20]} {path[:200]} is not allowed through docker-filter")


def successor(body: bytes) -> Successor:
    """The body of POST /containers/create; raises Refused."""
    if len(body) > LONGEST_BODY:
        raise Refused("the body is too large", 413)
    try:
        value = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON with each key once", 400) from None
    labels = value.get("Labels") if isinstance(value, dict) and set(value) == {"Image", "Labels"} else None
    if not isinstance(labels, dict) or set(labels) != {"mailstead.update", "mailstead.source"}:
        # What else a container could be given is taken from the one that stands.
        raise Refused("a create says nothing but Image and the labels mailstead.update and mailstead.source")
    update, source, image = labels["mailstead.update"], labels["mailstead.source"], value["Image"]
    if not isinstance(update, str) or not UPDATE_ID.fullmatch(update):
        raise Refused("the label mailstead.update is not an update's id")
    if not isinstance(source, str) or not _CONTAINER_NAME.fullmatch(source):
        raise Refused("the label mailstead.source names no container")
    return Successor(_image(image if isinstance(image, str) else ""), update, source)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys come once: two readers must not disagree about which one counts."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key comes twice")
    return value


def _image(text: str) -> Reference:
    found = reference(text.replace("%40", "@", 1))
    if not found:
        raise Refused("this is no name of an image")
    return found


def _query(text: str, allowed: frozenset[str] | None) -> Mapping[str, str]:
    """The pairs of a query. `allowed` None: they are not looked at, but must be whole."""
    found: dict[str, str] = {}
    for part in text.split("&") if text else ():
        pair = _PAIR.fullmatch(part)
        if not pair or pair[1] in found or (allowed is not None and pair[1] not in allowed):
            raise Refused(f"the query's part {part[:80]!r} is not allowed")
        found[pair[1]] = pair[2] if allowed is None else _plain(pair[2])
    return found


def _plain(value: str) -> str:
    decoded = _ESCAPE.sub(lambda escape: _ESCAPES[escape[0]], value)
    if not _PLAIN.fullmatch(decoded):
        raise Refused("a value in the query is not a plain name")
    return decoded


def _ignoring(make: Callable[[re.Match[str]], Ask]) -> Reader:
    """For questions: the query is checked and forgotten, the filter asks with one of its own."""

    def reader(match: re.Match[str], query: str) -> Ask:
        _query(query, None)
        return make(match)

    return reader


def _pull(match: re.Match[str], query: str) -> Ask:
    pairs = _query(query, frozenset({"fromImage", "tag"}))
    name, tag = pairs.get("fromImage", ""), pairs.get("tag", "")
    image = _image(name)
    if tag:
        # Docker takes a digest in this place too. Which of two tags would count is nobody's guess.
        image = _image(f"{name}@{tag}" if DIGEST.fullmatch(tag) else f"{name}:{tag}")
        if image.repository != name:
            raise Refused("the tag comes twice")
    if image.is_id:
        raise Refused("an id cannot be pulled")
    return Pull(image)


def _tag(match: re.Match[str], query: str) -> Ask:
    pairs = _query(query, frozenset({"repo", "tag", "force"}))
    repository, tag = pairs.get("repo", ""), pairs.get("tag", "")
    name = _image(f"{repository}:{tag}")
    if (name.repository, name.tag) != (repository, tag) or pairs.get("force", "") not in _FALSE:
        raise Refused("a tag needs a repository and a tag")
    return Tag(_image(match[1]), name)


def _delete_image(match: re.Match[str], query: str) -> Ask:
    if _query(query, frozenset({"force", "noprune"})).get("force", "") not in _FALSE:
        raise Refused("an image is not deleted by force")
    return DeleteImage(_image(match[1]))


def _stop(match: re.Match[str], query: str) -> Ask:
    seconds = _query(query, frozenset({"t"})).get("t")
    if seconds is None:
        return Stop(match[1])
    if not re.fullmatch("[0-9]{1,3}", seconds) or not SHORTEST_STOP <= int(seconds) <= LONGEST_STOP:
        raise Refused(f"a container is given {SHORTEST_STOP} to {LONGEST_STOP} seconds to stop")
    return Stop(match[1], int(seconds))


def _start(match: re.Match[str], query: str) -> Ask:
    _query(query, frozenset())
    return Start(match[1])


def _kill(match: re.Match[str], query: str) -> Ask:
    if _query(query, frozenset({"signal"})).get("signal") not in ("SIGTERM", "TERM", "15"):
        raise Refused("only SIGTERM is sent")
    return Terminate(match[1])


def _named(query: str) -> str:
    name = _query(query, frozenset({"name"})).get("name", "")
    if not _CONTAINER_NAME.fullmatch(name):
        raise Refused("a container's new name is missing or none")
    return name


def _remove(match: re.Match[str], query: str) -> Ask:
    if any(value not in _FALSE for value in _query(query, frozenset({"v", "link", "force"})).values()):
        raise Refused("a container is removed without force, and its volumes stay")
    return Remove(match[1])


_VERBS: tuple[tuple[str, str, Reader], ...] = (
    ("GET", "/version", _ignoring(lambda _: Version())),
    ("GET", "/_ping", _ignoring(lambda _: Ping())),
    ("GET", "/containers/json", _ignoring(lambda _: Listing())),
    ("GET", f"/containers/({_CONTAINER})/json", _ignoring(lambda match: Inspection(match[1]))),
    ("GET", f"/containers/({_CONTAINER})/health", _ignoring(lambda match: Health(match[1]))),
    ("GET", f"/images/({_IMAGE})/json", _ignoring(lambda match: ImageInspection(_image(match[1])))),
    ("GET", f"/distribution/({_IMAGE})/json", _ignoring(lambda match: Distribution(_image(match[1])))),
    ("POST", "/images/create", _pull),
    ("POST", f"/images/({_IMAGE})/tag", _tag),
    ("DELETE", f"/images/({_IMAGE})", _delete_image),
    ("POST", "/containers/create", lambda _, query: Create(_named(query))),
    ("POST", f"/containers/({_CONTAINER})/stop", _stop),
    ("POST", f"/containers/({_CONTAINER})/start", _start),
    ("POST", f"/containers/({_CONTAINER})/kill", _kill),
    ("POST", f"/containers/({_CONTAINER})/rename", lambda match, query: Rename(match[1], _named(query))),
    ("DELETE", f"/containers/({_CONTAINER})", _remove),
)
