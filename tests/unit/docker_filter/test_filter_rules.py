"""What may be done to which container and image, as tables over what the engine could have said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted_engine import IMAGE, NEWER, REPOSITORY, image, image_id

from services.docker_filter import rules
from services.docker_filter.references import Reference, container_name, reference
from services.docker_filter.requests import Refused
from services.docker_filter.rules import SOURCE_LABEL, UPDATE_LABEL, Container

REGISTRY = "ghcr.io/mailstead"
COMPOSE = "com.docker.compose."


def stands(name: str, identity: str = "1", state: str = "running", service: str = "imap", **labels: str) -> Container:
    compose = {"service": service, "container-number": "1", "oneoff": "False"}
    both = {**{f"{COMPOSE}{key}": value for key, value in compose.items()}, **labels}
    return Container(identity * 64, name, container_name(name), service, state, image_id(1), both)


NAME = "mailstead-imap-1"
OLD = stands(NAME)
REPLACED = stands(f"{NAME}-before-x7", "2", "exited")
NEXT = stands(f"{NAME}-next-x7", "3", "created", **{UPDATE_LABEL: "x7", SOURCE_LABEL: "1" * 64})


def allowed(rule: Callable[..., None], *arguments: Any) -> bool:
    try:
        rule(*arguments)
    except Refused:
        return False
    return True


def test_only_what_compose_made_for_the_project_is_known() -> None:
    def entry(**labels: str) -> dict[str, Any]:
        both = {"project": "mailstead", "service": "imap", "container-number": "1", "oneoff": "False"} | labels
        return {"Id": "1", "Names": ["/mailstead-imap-1"], "Labels": {f"{COMPOSE}{k}": v for k, v in both.items()}}

    by_hand = entry()
    del by_hand["Labels"][f"{COMPOSE}container-number"]
    listing = [entry(), entry(project="mailsteadx"), entry(project="Mailstead"), by_hand, {"Id": "2", "Labels": None}]
    assert len(rules.of_project(listing, "mailstead")) == 1


@pytest.mark.parametrize("wanted", ["mailstead-imap", "mailstead-.map-1", "/mailstead-imap-1", "1" * 12, "1" * 63, ""])
def test_a_container_is_found_by_its_whole_name_or_id(wanted: str) -> None:
    assert rules.named([OLD], NAME) is OLD and rules.named([OLD], "1" * 64) is OLD
    with pytest.raises(Refused):
        rules.named([OLD], wanted)


@pytest.mark.parametrize(
    ("container", "may"),
    [
        (OLD, True), (REPLACED, True), (NEXT, True),
        (stands("mailstead-docker-filter-1", service="docker-filter"), False),
        (stands("mailstead-updater-1", service="updater"), False), (stands("mailstead-setup-1", service="setup"), False),
        (stands("mailstead-backup-1", service="backup"), False), (stands("mailstead-imap-2"), False),
        (stands("somebody"), False), (stands(NAME, **{f"{COMPOSE}oneoff": "True"}), False),
        # A name that says one service and a label that says another.
        (stands(NAME, service="updater"), False), (stands("mailstead-updater-1", service="imap"), False),
    ],
)  # fmt: skip
def test_which_containers_may_be_changed_at_all(container: Container, may: bool) -> None:
    assert allowed(rules.changeable, container, "mailstead") is may


@pytest.mark.parametrize(
    ("container", "others", "may"),
    [
        (OLD, [OLD], True), (NEXT, [OLD, NEXT], False), (NEXT, [stands(NAME, state="exited"), NEXT], True),
        (REPLACED, [OLD, REPLACED], False), (NEXT, [stands(NAME, state="restarting"), NEXT], False),
        (NEXT, [stands(NAME, state="paused"), NEXT], False), (NEXT, [stands("mailstead-dkim-1"), NEXT], True),
    ],
)  # fmt: skip
def test_no_two_of_a_service_run_at_once(container: Container, others: list[Container], may: bool) -> None:
    assert allowed(rules.may_start, container, others) is may


@pytest.mark.parametrize(
    ("container", "new", "may"),
    [
        (OLD, f"{NAME}-before-x7", True), (REPLACED, NAME, True), (NEXT, NAME, True),
        (OLD, NAME, False), (OLD, f"{NAME}-next-x7", False), (NEXT, f"{NAME}-before-x7", False), (OLD, "other", False),
        (REPLACED, f"{NAME}-before-x8", False), (OLD, "mailstead-dkim-1-before-x7", False), (OLD, f"{NAME}-before-X", False),
        (REPLACED, "mailstead-dkim-1", False), (OLD, f"{NAME}-before-{'a' * 21}", False), (OLD, f"{NAME}-before-", False),
        (OLD, f"{NAME}-before-a-before-b", False),
    ],
)  # fmt: skip
def test_which_names_a_container_may_get(container: Container, new: str, may: bool) -> None:
    assert allowed(rules.may_rename, container, new) is may


@pytest.mark.parametrize(
    ("container", "others", "may"),
    [
        (REPLACED, [OLD], True), (REPLACED, [], False), (REPLACED, [NEXT], False),
        (stands(f"{NAME}-before-x7", "2", "running"), [OLD], False),
        (NEXT, [OLD], True), (NEXT, [stands(NAME, "5")], False), (NEXT, [], False),
        (stands(f"{NAME}-next-x7", "3", "created"), [OLD], False),
        (OLD, [], False), (stands(NAME, state="exited"), [], False), (stands(NAME, state="exited"), [REPLACED], False),
        # The successor took the name, failed, and goes: what it was made from stands as replaced.
        (stands(NAME, "4", "exited", **{UPDATE_LABEL: "x7", SOURCE_LABEL: "2" * 64}), [REPLACED], True),
        (stands(NAME, "4", "running", **{UPDATE_LABEL: "x7", SOURCE_LABEL: "2" * 64}), [REPLACED], False),
    ],
)  # fmt: skip
def test_a_service_never_loses_its_last_container(container: Container, others: list[Container], may: bool) -> None:
    assert allowed(rules.may_remove, container, [container, *others]) is may


@pytest.mark.parametrize(
    ("source", "name", "others", "may"),
    [
        (OLD, f"{NAME}-next-x7", [], True), (REPLACED, NAME, [], True), (OLD, NAME, [], False), (OLD, "new", [], False),
        (OLD, f"{NAME}-next-x8", [], False), (OLD, f"{NAME}-before-x7", [], False), (NEXT, NAME, [], False),
        (stands(f"{NAME}-before-x6", "2"), NAME, [], False), (REPLACED, f"{NAME}-next-x7", [], False),
        (OLD, f"{NAME}-next-x7", [NEXT], False), (OLD, f"{NAME}-next-x7", [REPLACED], False), (REPLACED, NAME, [OLD], False),
        (OLD, "mailstead-dkim-1-next-x7", [], False),
    ],
)  # fmt: skip
def test_which_successors_there_may_be(source: Container, name: str, others: list[Container], may: bool) -> None:
    assert allowed(rules.may_succeed, source, name, "x7", [source, *others]) is may


@pytest.mark.parametrize(
    ("wanted", "running", "may"),
    [
        (NEWER, IMAGE, True), (f"{REPOSITORY}:before-x7", IMAGE, True), (IMAGE, IMAGE, True),
        ("ghcr.io/mailstead/unbound:0.1.0", IMAGE, False), ("debian:trixie-slim", IMAGE, False), (image_id(1), IMAGE, False),
        (f"{REPOSITORY}@{image_id(1)}", IMAGE, False), (NEWER, image_id(1), False), (image_id(1), image_id(1), False),
    ],
)  # fmt: skip
def test_a_room_runs_an_image_of_its_own_repository(wanted: str, running: str, may: bool) -> None:
    found = reference(wanted)
    assert found and allowed(rules.may_run, found, running) is may


@pytest.mark.parametrize(
    ("wanted", "may"),
    [
        (NEWER, True), ("ghcr.io/mailstead/anything:x", True), ("docker.io/rspamd/rspamd:3", True), ("rspamd", False),
        ("docker.io/rspamd/rspamd:4", False), ("ghcr.io/mailsteadx/a:1", False), ("ghcr.io/mailstead:1", False),
        ("evil.example/ghcr.io/mailstead/a:1", False), ("ghcr.io:443/mailstead/a:1", False),
    ],
)  # fmt: skip
def test_what_may_be_fetched(wanted: str, may: bool) -> None:
    found = reference(wanted)
    assert found and allowed(rules.may_fetch, found, REGISTRY, [IMAGE, "docker.io/rspamd/rspamd:3"]) is may


OURS, STRANGE, NAMELESS = image(1, IMAGE), image(7, "debian:trixie-slim"), image(8)
PULLED = {**image(3), "RepoTags": None, "RepoDigests": [f"{REPOSITORY}@{image_id(3)}"]}
BEFORE = f"{REPOSITORY}:before-x7"


@pytest.mark.parametrize(
    ("given", "name", "may"),
    [
        (OURS, BEFORE, True), (OURS, IMAGE, True), (PULLED, BEFORE, True), (PULLED, IMAGE, True),
        (OURS, NEWER, False), (OURS, f"{REPOSITORY}:before", False), (OURS, "ghcr.io/mailstead/unbound:before-x7", False),
        (STRANGE, BEFORE, False), (STRANGE, IMAGE, False), (NAMELESS, BEFORE, False), (OURS, "debian:before-x7", False),
        # A build moved the name on: what runs as it has none any more.
        (image(9), BEFORE, True), (image(9), IMAGE, True),
    ],
)  # fmt: skip
def test_no_foreign_image_gets_a_rooms_name(given: dict[str, Any], name: str, may: bool) -> None:
    found = reference(name)
    in_use = {IMAGE: image_id(9)}
    assert found and allowed(rules.may_tag, given, found, REGISTRY, in_use) is may


@pytest.mark.parametrize(
    ("wanted", "given", "in_use", "may"),
    [
        (BEFORE, image(2, BEFORE), [], True), (image_id(2), image(2, BEFORE), [], True), (image_id(3), PULLED, [], True),
        (BEFORE, image(2, BEFORE), [{"ImageID": image_id(2)}], True),  # the engine refuses it while it has no other name
        (image_id(2), image(2, BEFORE), [{"ImageID": image_id(2)}], False), (IMAGE, OURS, [], False),
        (image_id(7), STRANGE, [], False), (image_id(8), NAMELESS, [], False),
        (image_id(2), image(2, BEFORE, "mine:1"), [], False), ("debian:before-x", STRANGE, [], False),
    ],
)  # fmt: skip
def test_which_images_may_go(wanted: str, given: dict[str, Any], in_use: list[dict[str, Any]], may: bool) -> None:
    found = reference(wanted)
    assert found and allowed(rules.may_delete, found, given, REGISTRY, in_use) is may


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("debian", Reference("debian", "latest")), ("a.b/c:1", Reference("a.b/c", "1")), ("h:5/x", Reference("h:5/x", "latest")),
        ("", None), ("A", None), ("a//b", None), ("a/../b", None), ("a:", None), ("a:b:c", None), ("a@b", None), (".a", None),
        ("a" * 301, None), ("a b", None), ("a:-x", None), ("a\n", None), ("a:1\n", None), ("ä", None),
    ],
)  # fmt: skip
def test_names_of_images(text: str, found: Reference | None) -> None:
    assert reference(text) == found
