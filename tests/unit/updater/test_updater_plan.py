"""From what Docker and registries say to one state per service, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.updater import plan, steps
from services.updater.engine import SERVICE_LABEL, Standing
from services.updater.plan import Facts, ImageState, Refused

NAME = "ghcr.io/mailstead/mailstead:0.1.0"
ID = "sha256:" + "a" * 64
OLD = "sha256:" + "1" * 64
NEW = "sha256:" + "2" * 64
PULLED_AS = {ID: [f"ghcr.io/mailstead/mailstead@{OLD}"]}


def standing(image: str = NAME, service: str = "imap", image_id: str = ID, **changes: Any) -> Standing:
    values = {"id": service, "name": f"house-{service}-1", "image": image, "image_id": image_id, "running": True}
    return Standing(**{"labels": {SERVICE_LABEL: service}, "status": "running", **values, **changes})


def facts(
    *standings: Standing, digests: Any = None, here: Any = None, answers: Mapping[str, str | Refused] | None = None
) -> Facts:
    return Facts(list(standings), digests or {}, {NAME: ID} if here is None else here, answers or {})


OTHER = "sha256:" + "c" * 64


@pytest.mark.parametrize(
    ("image", "digests", "here", "answer", "state", "running", "registry"),
    [
        (NAME, PULLED_AS, ID, OLD, plan.CURRENT, OLD, OLD),
        (NAME, PULLED_AS, ID, NEW, plan.NEWER, OLD, NEW),
        (NAME, {}, ID, None, plan.LOCAL, "", ""),
        (NAME, {ID: []}, ID, None, plan.LOCAL, "", ""),
        # Built here, and built again since.
        (NAME, {}, OTHER, None, plan.PULLED, "", ""),
        # Pulled under another name: what our tag's registry has says nothing about it.
        (NAME, {ID: [f"mirror.example/mailstead@{OLD}"]}, ID, NEW, plan.LOCAL, "", ""),
        (NAME, PULLED_AS, ID, Refused(404, "manifest unknown"), plan.UNKNOWN, OLD, ""),
        (NAME, PULLED_AS, ID, None, plan.UNKNOWN, OLD, ""),
        # Pulled by somebody since, but not started.
        (NAME, {**PULLED_AS, OTHER: [f"ghcr.io/mailstead/mailstead@{NEW}"]}, OTHER, NEW, plan.PULLED, OLD, NEW),
        # Pinned by its owner: its name is its digest.
        (f"ghcr.io/mailstead/mailstead@{OLD}", PULLED_AS, ID, None, plan.CURRENT, OLD, OLD),
    ],
)
def test_the_state_of_one_image(
    image: str, digests: dict[str, list[str]], here: str, answer: str | Refused | None,
    state: str, running: str, registry: str,
) -> None:  # fmt: skip
    known = facts(
        standing(image), digests=digests, here={image: here}, answers={} if answer is None else {image: answer}
    )
    (found,) = plan.compare(known)
    assert (found.state, found.running, found.registry) == (state, running, registry)
    assert bool(found.error) is (state == plan.UNKNOWN or (state == plan.PULLED and not answer))
    assert (found.service, found.image) == ("imap", image)


def test_a_registry_is_asked_once_per_name_and_never_about_what_was_built_here_or_pinned() -> None:
    local = "sha256:" + "b" * 64
    standings = [
        standing(),
        standing(service="dkim"),
        standing("ghcr.io/mailstead/unbound:0.1.0", "unbound", local),
        standing(ID, "admin"),
    ]
    assert plan.questions(standings, PULLED_AS) == [NAME]


# A container, its mode, what its registry said → what a run does with it.
LINES: list[tuple[Standing, str, str | Refused, str, str]] = [
    (standing(), "watch", NEW, plan.REPLACE, "another image"),
    (standing(), "watch", OLD, plan.KEEP, "runs what its registry has"),
    (standing(), "off", NEW, plan.KEEP, "its label says so"),
    (standing(service="docker-filter"), "update", NEW, plan.KEEP, "scripts/update"),
    (standing(service="updater"), "update", NEW, plan.KEEP, "scripts/update"),
    (standing(service="setup"), "update", NEW, plan.KEEP, "scripts/update"),
    (standing(running=False, status="exited"), "update", NEW, plan.KEEP, "does not run (exited)"),
    (standing(), "update", Refused(429, "toomanyrequests"), plan.ASK, "asks to wait"),
    (standing(image_id=OTHER), "update", NEW, plan.KEEP, "built on this machine"),
]


@pytest.mark.parametrize(("one", "mode", "answer", "action", "words"), LINES)
def test_what_a_run_does_with_one_container(
    one: Standing, mode: str, answer: str | Refused, action: str, words: str
) -> None:
    known = facts(one, digests=PULLED_AS, answers={NAME: answer})
    (line,) = plan.lines(known, steps.REGISTRY, {one.id: mode})
    assert (line.action, words in line.reason) == (action, True), line.reason
    assert line.shown()["service"] == one.service and set(line.shown()) == {
        "service", "image", "from", "to", "action", "reason"
    }  # fmt: skip
    assert plan.lines(known, steps.REGISTRY, {one.id: mode}, ["another"])[0].action == plan.KEEP


def test_by_itself_only_what_the_mode_lets_and_nothing_that_was_rolled_back() -> None:
    lines = plan.lines(facts(standing(), digests=PULLED_AS, answers={NAME: NEW}), steps.REGISTRY, {"imap": "update"})
    assert [line.action for line in plan.automatic(lines, {"imap": "update"}, {})] == [plan.REPLACE]
    assert [line.action for line in plan.automatic(lines, {"imap": "watch"}, {})] == [plan.KEEP]
    (line,) = plan.automatic(lines, {"imap": "update"}, {NEW: "rolled back in x"})
    assert line.action == plan.KEEP and "rolled back in x" in line.reason


@pytest.mark.parametrize(
    ("image", "tag"),
    [(NAME, "0.1.0"), ("localhost:5000/mailstead", "latest"), ("localhost:5000/m:dev", "dev"), ("debian", "latest")],
)
def test_the_tag_of_a_name(image: str, tag: str) -> None:
    assert plan.tag_of(image) == tag


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        (NAME, "ghcr.io/mailstead/mailstead"),
        ("localhost:5000/mailstead", "localhost:5000/mailstead"),
        ("localhost:5000/mailstead:dev", "localhost:5000/mailstead"),
        ("debian", "debian"),
        ("debian:trixie-slim", "debian"),
    ],
)
def test_a_port_is_not_a_tag(image: str, repository: str) -> None:
    assert plan.repository_of(image) == repository


# What engine 20.10 and 28 answer with, and what a person should read.
REFUSALS = [
    (Refused(429, "toomanyrequests: You have reached your pull rate limit"), "asks to wait"),
    (Refused(500, "error: toomanyrequests: retry later"), "asks to wait"),
    (Refused(401, ""), "wants a log-in"),
    (Refused(403, "denied: requested access to the resource is denied"), "wants a log-in"),
    (Refused(500, "errors:\ndenied: requested access\nunauthorized: authentication required"), "wants a log-in"),
    (Refused(404, ""), "no such image"),
    (Refused(500, "manifest unknown: manifest unknown"), "no such image"),
    (Refused(500, 'Get "https://ghcr.io/v2/": dial tcp: lookup ghcr.io on 10.0.0.1:53: no such host'), "be resolved"),
    (Refused(500, "Get https://ghcr.io/v2/: net/http: request canceled (Client.Timeout exceeded)"), "in time"),
    (Refused(500, "x509: certificate signed by unknown authority"), "not trusted"),
    (Refused(500, "dial tcp 127.0.0.1:5000: connect: connection refused"), "not reachable"),
    (Refused(0, "Connection reset by peer"), "not reachable"),
    (Refused(0, "unexpected EOF"), "damaged image"),
    (Refused(0, "write /x: no space left on device"), "disk is full"),
    (Refused(500, "something new"), "could not be asked"),
]


@pytest.mark.parametrize(("refused", "words"), REFUSALS)
def test_a_refusal_is_told_as_its_cause_with_the_words_it_came_in(refused: Refused, words: str) -> None:
    sentence = plan.explain(refused)
    assert words in sentence
    assert "\n" not in sentence
    assert " ".join(refused.words.split()) in sentence


def test_a_registry_that_talks_too_much_is_cut_short() -> None:
    assert len(plan.explain(Refused(500, "x" * 10_000))) < 400


@pytest.mark.parametrize(
    ("status", "health", "since"),
    [
        ("Up 3 minutes (healthy)", "healthy", "Up 3 minutes"),
        ("Up 2 seconds (health: starting)", "starting", "Up 2 seconds"),
        ("Up 2 hours (unhealthy)", "unhealthy", "Up 2 hours"),
        ("Up 5 days", "", "Up 5 days"),
        ("Exited (0) 2 hours ago", "", "Exited (0) 2 hours ago"),
        ("Restarting (1) 3 seconds ago", "", "Restarting (1) 3 seconds ago"),
    ],
)
def test_dockers_words_are_taken_apart(status: str, health: str, since: str) -> None:
    assert plan.health_of(status) == health
    assert plan.since_of(status) == since


def listed(service: str, oneoff: str = "False") -> dict[str, object]:
    labels = {"com.docker.compose.service": service, "com.docker.compose.oneoff": oneoff}
    return {"Labels": labels, "Image": NAME, "ImageID": ID, "State": "running", "Status": "Up 1 second"}


def test_only_the_stacks_own_services_are_listed_in_order() -> None:
    listing: list[dict[str, object]] = [listed("smtp-in"), listed("admin"), listed("backup", "True")]
    listing += [{"Labels": {}}, {"Labels": None}, {}]
    assert [each.service for each in plan.containers_of(listing)] == ["admin", "smtp-in"]


def test_the_summary_names_who_differs_and_counts_who_does_not() -> None:
    states = [
        ImageState("admin", NAME, OLD, OLD, plan.CURRENT),
        ImageState("dkim", NAME, OLD, OLD, plan.CURRENT),
        ImageState("imap", NAME, OLD, NEW, plan.NEWER),
        ImageState("unbound", NAME, "", "", plan.LOCAL),
    ]
    assert plan.summary(states) == (
        "2 run what their registry has; 1 have a newer image in their registry (imap); 1 run an image built here (unbound)"
    )
    assert "no container" in plan.summary([])
