"""The Docker engine behind docker-filter: the only module that uses the docker SDK, in a short process alone.

The SDK speaks through requests, whose connection errors are OSErrors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound

from services.updater.engine import (
    ONE_OFF_LABEL,
    SERVICE_LABEL,
    EngineRefused,
    EngineUnavailable,
    Image,
    Standing,
    standing_of,
)
from services.updater.plan import repository_of, tag_of

# The engine asks the registry while we wait; three tries of its own take a minute where a registry is dead.
TIMEOUT_SECONDS = 90
# Engine 20.10's, which every newer engine can be asked about unversioned paths with.
OLDEST_API = "1.41"


class DockerHost:
    """`engine.Engine` on the SDK: requests that docker-filter lets through, and no others."""

    def __init__(self, url: str, secret: str) -> None:
        """`url` as `tcp://docker-filter:2375`; `secret` is the pair's. Raises EngineUnavailable."""
        try:
            self._client = self._connect(url, secret, OLDEST_API)
            # Engine 29 refuses what 20.10 speaks: the engine's own version is used for all that follows.
            version = self._client.version(api_version=False)["ApiVersion"]
            self._client.close()
            self._client = self._connect(url, secret, version)
        except (DockerException, OSError, KeyError) as error:
            raise EngineUnavailable(f"Docker did not answer through {url}: {error}") from None

    def standings(self) -> list[Standing]:
        """See `engine.Engine`."""
        with _asking("list the containers"):
            listing: list[dict[str, Any]] = self._client.containers(all=True)
        found = []
        for entry in listing:
            labels = entry.get("Labels") or {}
            if labels.get(SERVICE_LABEL) and labels.get(ONE_OFF_LABEL) != "True":
                standing = self.container(str(entry["Id"]))
                if standing is not None:  # else it went between the two questions
                    found.append(standing)
        return sorted(found, key=lambda each: (each.service, each.name))

    def container(self, identity: str) -> Standing | None:
        """See `engine.Engine`."""
        try:
            with _asking(f"show the container {identity}", but=NotFound):
                return standing_of(self._client.inspect_container(identity))
        except NotFound:
            return None
        except EngineRefused as error:
            # docker-filter answers so for a name that nobody has and for another project's alike.
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            return None

    def image(self, reference: str) -> Image | None:
        """See `engine.Engine`."""
        with contextlib.suppress(NotFound), _asking(f"show the image {reference}", but=NotFound):
            found: dict[str, Any] = self._client.inspect_image(reference)  # type: ignore[no-untyped-call]
            digests = tuple(found.get("RepoDigests") or ())
            return Image(str(found["Id"]), str(found.get("Created") or ""), digests)
        return None

    def registry_digest(self, reference: str) -> str:
        """See `engine.Engine`. Whatever goes wrong here is about this registry, not about the engine."""
        try:
            with _asking(f"ask the registry about {reference}"):
                found: dict[str, Any] = self._client.inspect_distribution(reference)  # type: ignore[no-untyped-call]
                return str(found["Descriptor"]["digest"])
        except EngineUnavailable as error:
            raise EngineRefused(0, str(error)) from None

    def pull(self, reference: str) -> None:
        """See `engine.Engine`. What goes wrong half-way stands in the stream of progress, not in the status."""
        with _asking(f"pull {reference}"):
            progress = self._client.pull(
                repository_of(reference), tag=tag_of(reference), stream=True, decode=True, auth_config={}
            )
            for line in progress:
                if isinstance(line, dict) and line.get("error"):
                    raise EngineRefused(0, str(line["error"]))

    def tag(self, image: str, repository: str, tag: str) -> None:
        """See `engine.Engine`."""
        with _asking(f"name {image} {repository}:{tag}"):
            self._client.tag(image, repository, tag)

    def remove_image(self, reference: str) -> None:
        """See `engine.Engine`."""
        with contextlib.suppress(NotFound), _asking(f"remove the image {reference}", but=NotFound):
            self._client.remove_image(reference, noprune=True)

    def create(self, name: str, image: str, update: str, source: str) -> str:
        """See `engine.Engine`. docker-filter makes the whole configuration from `source`'s inspection."""
        body = {"Image": image, "Labels": {"mailstead.update": update, "mailstead.source": source}}
        with _asking(f"create {name}"):
            made: dict[str, Any] = self._client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
            return str(made["Id"])

    def rename(self, identity: str, name: str) -> None:
        """See `engine.Engine`."""
        with _asking(f"rename {identity} to {name}"):
            self._client.rename(identity, name)

    def start(self, identity: str) -> None:
        """See `engine.Engine`."""
        with _asking(f"start {identity}"):
            self._client.start(identity)

    def stop(self, identity: str, seconds: int | None = None) -> None:
        """See `engine.Engine`."""
        with _asking(f"stop {identity}"):
            self._client.stop(identity, timeout=seconds)

    def remove(self, identity: str) -> None:
        """See `engine.Engine`."""
        with contextlib.suppress(NotFound), _asking(f"remove {identity}", but=NotFound):
            self._client.remove_container(identity)

    def healthy(self, identity: str) -> str:
        """See `engine.Engine`. Docker itself asks only each minute; docker-filter has the check run now."""
        with _asking(f"ask {identity} for its health"):
            url = f"{self._client.base_url}/containers/{identity}/health"
            answer = self._client.get(url, timeout=TIMEOUT_SECONDS)
            if answer.status_code >= 400:
                raise EngineRefused(answer.status_code, _message(answer))
            found: dict[str, Any] = answer.json()
            return "" if found.get("healthy") is not False else str(found.get("reason") or "its check says no")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @staticmethod
    def _connect(url: str, secret: str, version: str) -> docker.APIClient:
        client = docker.APIClient(base_url=url, version=version, timeout=TIMEOUT_SECONDS)
        client.trust_env = False  # the filter is a neighbour: never through a proxy
        client.headers["Authorization"] = f"Bearer {secret}"
        return client


@contextlib.contextmanager
def _asking(what: str, but: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """The SDK's errors as ours; those in `but` pass."""
    try:
        yield
    except but:
        raise
    except APIError as error:
        raise EngineRefused(int(error.status_code or 0), str(error.explanation or error)) from None
    except (DockerException, OSError, KeyError, ValueError) as error:
        raise EngineUnavailable(f"Docker did not {what}: {error}") from None


def _message(answer: Any) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return str(answer.text)[:300]
