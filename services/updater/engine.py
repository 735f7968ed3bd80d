"""What a transaction needs of Docker and of admin, as two Protocols, and the values and errors they speak in.

`docker_host.DockerHost` and `admin_calls.AdminRoom` are the real ones; tests have a world of their own. Calls on the
engine block (the docker SDK does); the transaction makes them beside its loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
DEPENDS_LABEL = "com.docker.compose.depends_on"
SUCCESSOR_LABEL = "mailstead.update-id"  # docker-filter puts it on a successor: the id of the update that made it


class EngineUnavailable(Exception):
    """Docker, or the filter in front of it, did not answer; the text says which words came back."""


class EngineRefused(Exception):
    """Docker, the filter or a registry said no: `status` (0: inside a stream of progress) and its words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class AdminAway(Exception):
    """admin did not answer, or could not do it now; the text says why. Trying again is right."""


class AdminRefused(Exception):
    """admin said no, with a reason that asking again would not change."""


class Failed(Exception):
    """A step cannot be done; the text is the reason for the history. What was begun is undone."""


class Nothing(Exception):
    """There is nothing to replace; the text says why."""


class Moved(Failed):
    """Somebody else changed the containers meanwhile: stop, do not fight."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this machine: its id, when it was made (ISO 8601), and `repository@digest` as it was pulled."""

    id: str
    created: str = ""
    repo_digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """One container as it stands, from its inspection.

    `image` is the name it was made from, `image_id` what it runs; `health` is Docker's word ("" without a check).
    """

    id: str
    name: str
    image: str
    image_id: str
    labels: Mapping[str, str]
    running: bool
    status: str
    exit_code: int = 0
    restarts: int = 0
    health: str = ""

    @property
    def service(self) -> str:
        """Compose's name of the service; "" where it is none of Compose's."""
        return self.labels.get(SERVICE_LABEL, "")


def standing_of(inspection: Mapping[str, Any]) -> Standing:
    """The `Standing` in Docker's `GET /containers/x/json`; what is missing there is empty."""
    config, state = inspection.get("Config") or {}, inspection.get("State") or {}
    return Standing(
        id=str(inspection.get("Id", "")),
        name=str(inspection.get("Name", "")).lstrip("/"),
        image=str(config.get("Image", "")),
        image_id=str(inspection.get("Image", "")),
        labels={str(name): str(value) for name, value in (config.get("Labels") or {}).items()},
        running=bool(state.get("Running")) and not state.get("Restarting"),
        status=str(state.get("Status", "")),
        exit_code=int(state.get("ExitCode") or 0),
        restarts=int(inspection.get("RestartCount") or 0),
        health=str((state.get("Health") or {}).get("Status", "")),
    )


class Engine(Protocol):
    """Docker through docker-filter. Every call may raise EngineUnavailable, and EngineRefused unless it says else."""

    def standings(self) -> list[Standing]:
        """This project's containers, running or not, those run by hand left out."""

    def container(self, identity: str) -> Standing | None:
        """One container of this project by id or name; None when there is none."""

    def image(self, reference: str) -> Image | None:
        """An image on this machine by name or id; None when there is none."""

    def registry_digest(self, reference: str) -> str:
        """The digest that the reference's registry has now."""

    def pull(self, reference: str) -> None:
        """Fetch an image; its name then means what the registry has."""

    def tag(self, image: str, repository: str, tag: str) -> None:
        """Let `repository:tag` mean `image`."""

    def remove_image(self, reference: str) -> None:
        """Remove a name, and the image with its last one."""

    def create(self, name: str, image: str, update: str, source: str) -> str:
        """A container `name` as container `source` is, with another image; its id. It is not started."""

    def rename(self, identity: str, name: str) -> None:
        """Give a container another name."""

    def start(self, identity: str) -> None:
        """Start it; nothing happens where it runs."""

    def stop(self, identity: str, seconds: int | None = None) -> None:
        """Stop it, with its own grace or `seconds` (at least 5); nothing happens where it does not run."""

    def remove(self, identity: str) -> None:
        """Remove a stopped container; nothing happens where it is gone."""

    def healthy(self, identity: str) -> str:
        """Its own health check, asked now: "" when it says well or there is none, else why not."""


class Admin(Protocol):
    """admin's side of an update; all calls may be repeated. Each may raise AdminAway and AdminRefused."""

    async def hold(self, update: str, seconds: int) -> list[str]:
        """Close the listeners to the world and hold the queue; the rooms that did not answer."""

    async def release(self, update: str) -> None:
        """Open them again."""

    async def snapshot(self, update: str) -> None:
        """Keep the directory as it is now."""

    async def settled(self, update: str, outcome: str) -> None:
        """Forget the kept directory: "committed" or "rolled-back"."""

    async def gate(self, update: str) -> str:
        """Send a letter through the house: "" when it arrived signed, else which step failed and why."""
