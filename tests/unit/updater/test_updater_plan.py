"""From what Docker and registries say to one state per service, as tables."""

from __future__ import annotations

import pytest

from services.updater import plan
from services.updater.plan import Container, ImageState, Refused

NAME = "ghcr.io/mailstead/mailstead:0.1.0"
ID = "sha256:" + "a" * 64
OLD = "sha256:" + "1" * 64
NEW = "sha256:" + "2" * 64
PULLED_AS = {ID: [f"ghcr.io/mailstead/mailstead@{OLD}"]}


def container(image: str = NAME, service: str = "imap") -> Container:
    return Container(service, image, ID, "running", "Up 3 minutes (healthy)")


@pytest.mark.parametrize(
    ("image", "digests", "answer", "state", "running", "registry"),
    [
        (NAME, PULLED_AS, OLD, plan.CURRENT, OLD, OLD),
        (NAME, PULLED_AS, NEW, plan.NEWER, OLD, NEW),
        (NAME, {}, None, plan.LOCAL, "", ""),
        (NAME, {ID: []}, None, plan.LOCAL, "", ""),
        # Pulled under another name: what our tag's registry has says nothing about it.
        (NAME, {ID: [f"mirror.example/mailstead@{OLD}"]}, NEW, plan.LOCAL, "", ""),
        (NAME, PULLED_AS, Refused(404, "manifest unknown"), plan.UNKNOWN, OLD, ""),
        (NAME, PULLED_AS, None, plan.UNKNOWN, OLD, ""),
        # Docker lists a container by its image's id once the tag means another image.
        (ID, PULLED_AS, None, plan.PULLED, OLD, ""),
        ("a" * 12, PULLED_AS, None, plan.PULLED, OLD, ""),
    ],
)
def test_the_state_of_one_image(
    image: str, digests: dict[str, list[str]], answer: str | Refused | None, state: str, running: str, registry: str
) -> None:
    (found,) = plan.compare([container(image)], digests, {} if answer is None else {image: answer})
    assert (found.state, found.running, found.registry) == (state, running, registry)
    assert bool(found.error) is (state in (plan.UNKNOWN, plan.PULLED))
    assert (found.service, found.image) == ("imap", image)


def test_a_registry_is_asked_once_per_name_and_never_about_what_was_built_here() -> None:
    local = "sha256:" + "b" * 64
    containers = [
        container(),
        container(service="dkim"),
        Container("unbound", "ghcr.io/mailstead/unbound:0.1.0", local, "running", "Up"),
        container(ID, service="admin"),
    ]
    assert plan.questions(containers, PULLED_AS) == [NAME]


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
