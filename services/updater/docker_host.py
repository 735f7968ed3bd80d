"""The Docker engine behind docker-filter: the only module that uses the docker SDK, in a short process alone.

The SDK speaks through requests, whose connection errors are OSErrors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound

from services.updater.plan import Refused

# The engine asks the registry while we wait; three tries of its own take a minute where a registry is dead.
TIMEOUT_SECONDS = 90
# Engine 20.10's, which every newer engine can be asked about unversioned paths with.
OLDEST_API = "1.41"


class EngineUnavailable(Exception):
    """Docker, or the filter in front of it, did not answer; the text says which words came back."""


class DockerHost:
    """Questions to the engine, each one that docker-filter lets through."""

    def __init__(self, url: str, secret: str) -> None:
        """`url` as `tcp://docker-filter:2375`; `secret` is the pair's. Raises EngineUnavailable."""
        try:
            self._client = self._connect(url, secret, OLDEST_API)
            # Engine 29 refuses what 20.10 speaks: the engine's own version is used for all that follows.
            version = self._client.version(api_version=False)["ApiVersion"]
            self._client = self._connect(url, secret, version)
        except (DockerException, OSError, KeyError) as error:
            raise EngineUnavailable(f"Docker did not answer through {url}: {error}") from None

    def listing(self) -> Sequence[Mapping[str, object]]:
        """The stack's containers, running or not, as `GET /containers/json` has them."""
        try:
            containers: list[dict[str, object]] = self._client.containers(all=True)
        except (DockerException, OSError) as error:
            raise EngineUnavailable(f"Docker did not list the containers: {error}") from None
        return containers

    def repo_digests(self, image_id: str) -> tuple[str, ...]:
        """`repository@sha256:...` for each name the image was pulled as; none for one that was built here."""
        try:
            found: dict[str, Any] = self._client.inspect_image(image_id)  # type: ignore[no-untyped-call]
            return tuple(found.get("RepoDigests") or ())
        except ImageNotFound:
            return ()
        except (DockerException, OSError) as error:
            raise EngineUnavailable(f"Docker did not show the image {image_id}: {error}") from None

    def registry_digest(self, image: str) -> str | Refused:
        """The digest that `image`'s registry has now, or why it is not known."""
        try:
            found: dict[str, Any] = self._client.inspect_distribution(image)  # type: ignore[no-untyped-call]
            return str(found["Descriptor"]["digest"])
        except APIError as error:
            return Refused(int(error.status_code or 0), str(error.explanation or error))
        except (DockerException, OSError, KeyError) as error:
            return Refused(0, str(error))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @staticmethod
    def _connect(url: str, secret: str, version: str) -> docker.APIClient:
        client = docker.APIClient(base_url=url, version=version, timeout=TIMEOUT_SECONDS)
        client.trust_env = False  # the filter is a neighbour: never through a proxy
        client.headers["Authorization"] = f"Bearer {secret}"
        return client
