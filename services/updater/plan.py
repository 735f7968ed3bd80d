"""Running digest against the registry's digest, to a state and a sentence for the owner. Pure.

A container runs an image id; the id's digests say as what it was pulled; the registry says what its tag means now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.updater.engine import ONE_OFF_LABEL, SERVICE_LABEL, Standing
from services.updater.modes import OFF, UPDATE
from services.updater.steps import BEFORE_UPDATE, NEVER
from services.updater.steps import LOCAL as LOCAL_NAMES

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
        service = labels.get(SERVICE_LABEL, "") if isinstance(labels, Mapping) else ""
        if service and isinstance(labels, Mapping):
            found.append(
                Container(
                    service,
                    str(entry.get("Image", "")),
                    str(entry.get("ImageID", "")),
                    str(entry.get("State", "")),
                    str(entry.get("Status", "")),
                    labels.get(ONE_OFF_LABEL) == "True",
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


def tag_of(image: str) -> str:
    """An image's tag; Docker's `latest` where the name has none."""
    return image.rpartition("/")[2].partition(":")[2] or "latest"


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


@dataclass(frozen=True, slots=True)
class Facts:
    """What was asked of the engine and the registries, for all containers at once.

    `digests`: image id → `repository@sha256:...` of its pulls. `here`: image name → the id it means on this machine.
    `registry`: image name → its registry's digest, or why it is not known.
    """

    standings: Sequence[Standing]
    digests: Mapping[str, Sequence[str]]
    here: Mapping[str, str]
    registry: Mapping[str, str | Refused]


def questions(standings: Sequence[Standing], repo_digests: Mapping[str, Sequence[str]]) -> list[str]:
    """The image names to ask registries about: each once, none that was built here, none that is pinned."""
    return sorted(
        {
            each.image
            for each in standings
            if is_name(each.image) and digest_for(each.image, repo_digests.get(each.image_id, ()))
        }
    )


def compare(facts: Facts) -> list[ImageState]:
    """One state per container, sorted by service."""
    return [_state(each, facts) for each in sorted(facts.standings, key=lambda each: each.service)]


def _state(standing: Standing, facts: Facts) -> ImageState:
    image = standing.image
    running = digest_for(image, facts.digests.get(standing.image_id, ()))
    here = facts.here.get(image, "")
    moved = bool(here) and here != standing.image_id
    answer = facts.registry.get(image)

    def state(name: str, registry: str = "", error: str = "") -> ImageState:
        return ImageState(standing.service, image, running, registry, name, error)

    if pinned := image.partition("@")[2]:
        return ImageState(standing.service, image, pinned, pinned, CURRENT)
    if not running or not is_name(image):
        return state(PULLED, error="its name means another image by now") if moved else state(LOCAL)
    if answer is None:
        return state(UNKNOWN, error="the registry was not asked")
    if isinstance(answer, Refused):
        return state(UNKNOWN, error=explain(answer))
    if answer == running:
        return state(CURRENT, answer)
    pulled = moved and digest_for(image, facts.digests.get(here, ())) == answer
    return state(PULLED if pulled else NEWER, answer)


# What a run does with a container.
REPLACE, KEEP, ASK = "replace", "keep", "unknown"


@dataclass(frozen=True, slots=True)
class Line:
    """One container in a run's plan: `action` REPLACE, KEEP or ASK (not known); `from_` and `to` digests or image ids.

    `standing` is what it is about; `digest` the registry's.
    """

    standing: Standing
    action: str
    reason: str
    from_: str = ""
    to: str = ""
    digest: str = ""

    def shown(self) -> dict[str, str]:
        """As `POST /v1/run` with `dry` has it."""
        return {
            "service": self.standing.service,
            "image": self.standing.image,
            "from": self.from_,
            "to": self.to,
            "action": self.action,
            "reason": self.reason,
        }


def lines(
    facts: Facts,
    source: str,
    modes: Mapping[str, str],
    services: Sequence[str] | None = None,
    before: Mapping[str, str] | None = None,
) -> list[Line]:
    """What a run would do, a line per container, sorted by service.

    `source` is one of steps.REGISTRY, LOCAL, BEFORE_UPDATE; `modes` is by container id; `services` are those asked for
    (None: all); `before` is service → image id to go back to.
    """
    states = {each.id: _state(each, facts) for each in facts.standings}
    found = []
    for each in sorted(facts.standings, key=lambda each: each.service):
        if why := _left_alone(each, modes.get(each.id, ""), services):
            found.append(Line(each, KEEP, why))
        elif source == LOCAL_NAMES:
            here = facts.here.get(each.image, "")
            if here and here != each.image_id:
                found.append(Line(each, REPLACE, "its name means another image by now", each.image_id, here))
            else:
                found.append(Line(each, KEEP, "it runs what its name means on this machine"))
        elif source == BEFORE_UPDATE:
            wanted = (before or {}).get(each.service, "")
            if not wanted or wanted == each.image_id:
                found.append(Line(each, KEEP, "the last update did not change it"))
            else:
                found.append(Line(each, REPLACE, "back to what ran before the last update", each.image_id, wanted))
        else:
            found.append(_from_registry(each, states[each.id]))
    return found


def automatic(lines: Sequence[Line], modes: Mapping[str, str], refused: Mapping[str, str]) -> list[Line]:
    """`lines` for a run that nobody asked for: only containers of mode update, and no image that was rolled back.

    `refused` is digest → why.
    """
    found = []
    for line in lines:
        if line.action != KEEP and modes.get(line.standing.id) != UPDATE:
            line = replace(line, action=KEEP, reason="it is only watched: `scripts/mailstead update run` replaces it")
        elif line.action == REPLACE and line.digest in refused:
            line = replace(line, action=KEEP, reason=f"this image was {refused[line.digest]}")
        found.append(line)
    return found


def _left_alone(standing: Standing, mode: str, services: Sequence[str] | None) -> str:
    """Why a run does not look at a container; "" when it does."""
    if standing.service in NEVER:
        return "`scripts/update` on the host replaces it"
    if services is not None and standing.service not in services:
        return "not asked for"
    if mode == OFF:
        return "its label says so"
    if not standing.running:
        return f"it does not run ({standing.status or 'unknown'})"
    return ""


def _from_registry(standing: Standing, state: ImageState) -> Line:
    if state.state == UNKNOWN:
        return Line(standing, ASK, state.error, state.running)
    if state.state in (NEWER, PULLED) and state.registry:
        return Line(standing, REPLACE, "its registry has another image", state.running, state.registry, state.registry)
    if state.state == CURRENT:
        return Line(standing, KEEP, "it runs what its registry has", state.running, state.registry)
    return Line(standing, KEEP, "it was built on this machine: `scripts/update` replaces it")


# Engine 20.10 wraps what a registry said into a 500, so the words count as much as the status.
_CAUSES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    (r"no space left", (), "the disk is full"),
    (
        r"unexpected EOF|filesystem layer verification failed|unexpected commit digest|short read|content size",
        (),
        "the registry sent a damaged image",
    ),
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
