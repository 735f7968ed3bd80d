"""Running digest against the registry's digest, to a state and a sentence for the owner. Pure.

A container runs an image id; the id's digests say as what it was pulled; the registry says what its tag means now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# States of an image, as the report and the admin page have them.
CURRENT = "current"  # what runs is what the registry has
NEWER = "newer"  # the registry has another one
PULLED = "pulled"  # another one is on this machine already, the container does not run it yet
LOCAL = "local"  # built on this machine: no registry has a digest to compare
UNKNOWN = "unknown"  # the question could not be answered: `error` says why


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the stack as Docker lists it; `image` is the name it was made from, or an id without a name."""

    service: str
    image: str
    image_id: str
    state: str
    status: str
    one_shot: bool = False


@dataclass(frozen=True, slots=True)
class ImageState:
    """What is known of one service's image; digests are `sha256:...`, empty where there is none."""

    service: str
    image: str
    running: str
    registry: str
    state: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine or a registry did not answer a question: HTTP status (0: none) and its words."""

    status: int
    words: str


def containers_of(listing: Sequence[Mapping[str, object]]) -> list[Container]:
    """Docker's `GET /containers/json`, sorted by service. Entries that are not Compose's are left out."""
    found = []
    for entry in listing:
        labels = entry.get("Labels")
        service = labels.get("com.docker.compose.service", "") if isinstance(labels, Mapping) else ""
        if service and isinstance(labels, Mapping):
            found.append(
                Container(
                    service,
                    str(entry.get("Image", "")),
                    str(entry.get("ImageID", "")),
                    str(entry.get("State", "")),
                    str(entry.get("Status", "")),
                    labels.get("com.docker.compose.oneoff") == "True",
                )
            )
    return sorted((each for each in found if not each.one_shot), key=lambda each: each.service)


def health_of(status: str) -> str:
    """`healthy`, `unhealthy` or `starting` from Docker's words ("Up 3 minutes (healthy)"); "" without a check."""
    match = re.search(r"\((?:health: )?(healthy|unhealthy|starting)\)$", status)
    return match[1] if match else ""


def since_of(status: str) -> str:
    """Docker's words without the health: "Up 3 minutes", "Exited (0) 2 hours ago"."""
    return re.sub(r" \((?:health: )?(?:healthy|unhealthy|starting)\)$", "", status)


def repository_of(image: str) -> str:
    """An image's name without its tag: the last colon after the last slash begins the tag."""
    folder, slash, last = image.rpartition("/")
    return folder + slash + last.partition(":")[0]


def is_name(image: str) -> bool:
    """False for an id: Docker lists a container by id once its tag was moved to another image."""
    return not re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", image)


def digest_for(image: str, repo_digests: Sequence[str]) -> str:
    """The digest under which an image was pulled as `image`; "" when it never was."""
    wanted = repository_of(image)
    for entry in repo_digests:
        repository, _, digest = entry.partition("@")
        if not is_name(image) or repository == wanted:
            return digest
    return ""


def questions(containers: Sequence[Container], repo_digests: Mapping[str, Sequence[str]]) -> list[str]:
    """The image names to ask registries about: each once, and none that was built here."""
    return sorted(
        {
            each.image
            for each in containers
            if is_name(each.image) and digest_for(each.image, repo_digests.get(each.image_id, ()))
        }
    )


def compare(
    containers: Sequence[Container],
    repo_digests: Mapping[str, Sequence[str]],
    registry: Mapping[str, str | Refused],
) -> list[ImageState]:
    """One state per container. `repo_digests` is by image id, `registry` by image name."""
    return [_state(each, repo_digests.get(each.image_id, ()), registry.get(each.image)) for each in containers]


def _state(container: Container, repo_digests: Sequence[str], answer: str | Refused | None) -> ImageState:
    running = digest_for(container.image, repo_digests)

    def state(name: str, registry: str = "", error: str = "") -> ImageState:
        return ImageState(container.service, container.image, running, registry, name, error)

    if not is_name(container.image):
        return state(PULLED, error="its tag names another image by now; `scripts/up` starts that one")
    if not running:
        return state(LOCAL)
    if answer is None:
        return state(UNKNOWN, error="the registry was not asked")
    if isinstance(answer, Refused):
        return state(UNKNOWN, error=explain(answer))
    return state(CURRENT if answer == running else NEWER, answer)


# Engine 20.10 wraps what a registry said into a 500, so the words count as much as the status.
_CAUSES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    (r"too ?many ?requests|rate limit", (429,), "the registry asks to wait: too many questions from this address"),
    (r"unauthorized|denied|authentication|forbidden", (401, 403), "the registry wants a log-in, or has no such image"),
    (r"manifest unknown|not found|no such manifest", (404,), "the registry has no such image"),
    (r"no such host|lookup ", (), "the registry's name cannot be resolved"),
    (r"timeout|deadline|timed out", (504,), "the registry did not answer in time"),
    (r"x509|certificate|tls:", (), "the registry's certificate is not trusted"),
    (
        r"connection refused|no route|unreachable|reset by peer|EOF|dial tcp",
        (502, 503),
        "the registry is not reachable",
    ),
)


def explain(refused: Refused) -> str:
    """A sentence for the owner with the words it was drawn from."""
    cause = "the registry could not be asked"
    for pattern, statuses, sentence in _CAUSES:
        if refused.status in statuses or re.search(pattern, refused.words, re.IGNORECASE):
            cause = sentence
            break
    words = " ".join(refused.words.split())[:300]
    return f"{cause} ({words})" if words else cause


def summary(images: Sequence[ImageState]) -> str:
    """One line for the record and the log."""
    if not images:
        return "no container of this stack was found"
    parts = []
    for state, text in (
        (CURRENT, "run what their registry has"),
        (NEWER, "have a newer image in their registry"),
        (PULLED, "have a newer image on this machine"),
        (LOCAL, "run an image built here"),
        (UNKNOWN, "could not be compared"),
    ):
        services = [image.service for image in images if image.state == state]
        if services:
            parts.append(f"{len(services)} {text}" + (f" ({', '.join(services)})" if state != CURRENT else ""))
    return "; ".join(parts)
