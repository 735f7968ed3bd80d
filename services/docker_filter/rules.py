"""What may be done to which container and image of the project. Pure: decides over what the engine has said.

Two properties are kept whatever is asked. A service never loses its last container, whose configuration would go with
it: one is removed only while another of the same name stands. And no two containers of a service run at once: mail,
queue and mailboxes each have one writer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.docker_filter.references import KEPT_TAG, Name, Reference, below, container_name, reference, repository_of
from services.docker_filter.requests import Refused

# Not replaced through the filter: the two that take part, and the two that end by themselves. `scripts/update` does it.
FIXED = frozenset({"docker-filter", "updater", "setup", "backup"})
COMPOSE = "com.docker.compose."
# On a successor: the update that made it, and the id of the container that it succeeds.
UPDATE_LABEL = "mailstead.update-id"
SOURCE_LABEL = "mailstead.update-source"
_AWAKE = ("running", "paused", "restarting", "removing")


@dataclass(frozen=True, slots=True)
class Container:
    """A container of this project, from Docker's list; `image_id` is what it runs."""

    id: str
    text: str
    name: Name
    service: str
    state: str
    image_id: str
    labels: Mapping[str, str]

    @property
    def awake(self) -> bool:
        """True while it has a process, or may have one at any moment."""
        return self.state in _AWAKE


def of_project(listing: Any, project: str) -> list[Container]:
    """The containers that Compose made for `project`, from `GET /containers/json?all=1`.

    An image that Compose built carries its project as a label too, and gives it to whatever is run of it by hand: the
    container's number is Compose's alone.
    """
    found = []
    for entry in listing:
        labels = entry.get("Labels") or {}
        names = [name.removeprefix("/") for name in entry.get("Names") or () if name.count("/") == 1]
        if labels.get(f"{COMPOSE}project") != project or f"{COMPOSE}container-number" not in labels or not names:
            continue
        found.append(
            Container(
                entry["Id"], names[0], container_name(names[0]), labels.get(f"{COMPOSE}service", ""),
                entry.get("State", ""), entry.get("ImageID", ""), labels,
            )
        )  # fmt: skip
    return found


def named(containers: Iterable[Container], wanted: str) -> Container:
    """The one with exactly this name or this whole id; raises Refused."""
    for each in containers:
        if wanted in (each.text, each.id):
            return each
    raise Refused(f"{wanted} is no container of this project")


def changeable(container: Container, project: str) -> None:
    """Raises Refused unless the updater may change the container at all."""
    if container.service in FIXED:
        raise Refused(f"{container.service} is not changed by the updater: `scripts/update` does it")
    number = container.labels.get(f"{COMPOSE}container-number", "")
    if container.name.canonical != f"{project}-{container.service}-{number}":
        raise Refused(f"{container.text} does not have the name that Compose gives")
    if container.labels.get(f"{COMPOSE}oneoff") != "False":
        raise Refused(f"{container.text} was run by hand")


def beside(container: Container, containers: Sequence[Container]) -> list[Container]:
    """The other containers that are or were the same one of the project."""
    return [each for each in containers if each.name.canonical == container.name.canonical and each.id != container.id]


def health_check(inspection: Mapping[str, Any]) -> list[str]:
    """The command of a container's health check, from its inspection; empty where it has none."""
    test = (inspection["Config"].get("Healthcheck") or {}).get("Test") or []
    if test[:1] == ["CMD"]:
        return [str(word) for word in test[1:]]
    if test[:1] == ["CMD-SHELL"]:
        return [*(inspection["Config"].get("Shell") or ["/bin/sh", "-c"]), *(str(word) for word in test[1:2])]
    return []


def may_start(container: Container, containers: Sequence[Container]) -> None:
    """Raises Refused while another one of the same service runs."""
    for other in beside(container, containers):
        if other.awake:
            raise Refused(f"{other.text} is running: two at once would share its mail", 409)


def may_rename(container: Container, new: str) -> None:
    """NAME to NAME-before-ID and back, NAME-next-ID to NAME; raises Refused for any other."""
    wanted = container_name(new)
    same = wanted.canonical == container.name.canonical
    if not same or (container.name.step, wanted.step) not in (("", "before"), ("before", ""), ("next", "")):
        raise Refused(f"{container.text} is not renamed to {new[:80]}")


def may_remove(container: Container, containers: Sequence[Container]) -> None:
    """Raises Refused unless it is stopped, and is either replaced or a successor whose predecessor still stands."""
    others = beside(container, containers)
    replaced = container.name.step == "before" and any(not other.name.step for other in others)
    failed = bool(container.labels.get(UPDATE_LABEL)) and container.labels.get(SOURCE_LABEL) in {o.id for o in others}
    if not replaced and not failed:
        raise Refused(f"{container.text} is neither replaced nor a successor whose predecessor stands")
    if container.awake:
        raise Refused(f"{container.text} runs", 409)


def may_succeed(source: Container, name: str, update: str, containers: Sequence[Container]) -> None:
    """Raises Refused unless a container `name` may be made from `source` in the update `update`."""
    new = container_name(name)
    if source.name.step not in ("", "before") or new.canonical != source.name.canonical:
        raise Refused(f"{name} is not a name for what succeeds {source.text}")
    renamed = source.name.step == "before" and not new.step and source.name.update == update
    waiting = not source.name.step and new.step == "next" and new.update == update
    if not renamed and not waiting:
        raise Refused(f"{source.text} in the update {update} is not succeeded by {name}")
    if others := beside(source, containers):
        raise Refused(f"{others[0].text} stands already", 409)


def may_run(image: Reference, source_image: str) -> None:
    """Raises Refused unless `image` is of the repository that the old container's image has."""
    old = reference(source_image)
    if not old or old.is_id or image.digest or image.repository != old.repository:
        raise Refused(f"{image} is not of the repository that the container runs ({source_image})")


def may_fetch(image: Reference, registry: str, in_use: Iterable[str]) -> None:
    """Raises Refused unless the image lies below the registry, or a container of this project names exactly it."""
    if not below(registry, image.repository) and str(image) not in {str(reference(each)) for each in in_use}:
        raise Refused(f"{image} is neither below {registry} nor what a container of this project runs")


def may_see(image: Mapping[str, Any], registry: str, ids: Collection[str]) -> None:
    """Raises Refused unless an inspected image is of the registry's, or run by this project."""
    if not any(below(registry, name) for name in _repositories(image)) and image["Id"] not in ids:
        raise Refused("this image is not of this project")


def may_tag(image: Mapping[str, Any], name: Reference, registry: str, in_use: Mapping[str, str]) -> None:
    """Raises Refused unless `name` keeps an image, or a container's own name is given back to one of its repository.

    `image` is the inspected one; `in_use` has the names that this project's containers have, each with the id that runs
    as it. An image of another repository gets no name here: as a room it could be run then.
    """
    kept = below(registry, name.repository) and name.tag.startswith(KEPT_TAG)
    if not kept and str(name) not in {str(reference(each)) for each in in_use}:
        raise Refused(f"{name} is neither kept for a roll-back nor what a container of this project runs")
    # A name that was moved on by a build leaves the running image without any.
    running = {repository_of(each) for each, image_id in in_use.items() if image_id == image.get("Id")}
    if name.repository not in {*_repositories(image), *running}:
        raise Refused(f"the image is not of the repository {name.repository}")


def may_delete(wanted: Reference, image: Mapping[str, Any], registry: str, listing: Any) -> None:
    """Raises Refused unless the image has only the registry's names and no container of the machine is made of it.

    By name only a kept one is deleted. `listing` has the containers of every project.
    """
    if not wanted.is_id and not (below(registry, wanted.repository) and wanted.tag.startswith(KEPT_TAG)):
        raise Refused(f"{wanted} is not an image that was kept for a roll-back")
    names = _repositories(image)
    if not names or not all(below(registry, name) for name in names):
        raise Refused(f"{wanted} has other names than this registry's")
    if wanted.is_id and any(entry.get("ImageID") == image.get("Id") for entry in listing):
        raise Refused(f"{wanted} is in use", 409)


def _repositories(image: Mapping[str, Any]) -> list[str]:
    return [repository_of(name) for key in ("RepoTags", "RepoDigests") for name in image.get(key) or ()]
