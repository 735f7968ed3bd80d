"""Answers one request: looks at what stands, lets `rules` decide, and asks the engine in our own words.

Whatever is changed is looked at first, under a lock of its own (a service's containers, or the images), so that two
requests at once cannot pass a rule together that they would not pass one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from services.docker_filter import carry, requests, rules
from services.docker_filter.engine import Answer, Engine, EngineUnavailable, Progress
from services.docker_filter.redact import Redaction
from services.docker_filter.references import Reference, below
from services.docker_filter.requests import Ask, Refused
from services.docker_filter.rules import Container

HEALTH_SECONDS = 10  # compose.yaml gives a check 6
STOP_SECONDS = 150  # the longest stop that may be asked for, and what the engine takes beside it


class Desk:
    """One project's containers and one registry's images."""

    def __init__(self, engine: Engine, project: str, registry: str, redaction: Redaction) -> None:
        """`registry` is a host and folder, as in ghcr.io/mailstead."""
        self._engine, self._project, self._registry, self._redaction = engine, project, registry, redaction
        self._locks: dict[str, asyncio.Lock] = {}

    async def answer(self, ask: Ask, body: bytes) -> Answer:
        """Do what was asked; raises Refused and EngineUnavailable. A `Pull` is for `pulling`."""
        match ask:
            case requests.Version():
                return await self._engine.ask("GET", "/version")
            case requests.Ping():
                return await self._engine.ask("GET", "/_ping")
            case requests.Listing():
                return await self._listing()
            case requests.Inspection():
                return await self._inspection(ask.container)
            case requests.Health():
                return await self._health(ask.container)
            case requests.ImageInspection():
                return await self._image_inspection(ask.image)
            case requests.Distribution():
                await self._check_fetch(ask.image)
                return await self._engine.ask("GET", f"/distribution/{_path(ask.image)}/json")
            case requests.Tag():
                return await self._tag(ask)
            case requests.DeleteImage():
                return await self._delete_image(ask.image)
            case requests.Create():
                return await self._create(ask.name, requests.successor(body))
            case requests.Stop() | requests.Start() | requests.Terminate() | requests.Rename() | requests.Remove():
                return await self._change(ask)
        raise Refused("this is not answered whole")

    @contextlib.asynccontextmanager
    async def pulling(self, image: Reference) -> AsyncIterator[Progress]:
        """The engine's progress; raises Refused and EngineUnavailable."""
        await self._check_fetch(image)
        async with self._engine.pull(image.repository, image.digest or image.tag) as progress:
            yield progress

    # --- questions ------------------------------------------------------------------------------------------------
    async def _listing(self) -> Answer:
        listing = await self._list_of_project()
        known = {each.id for each in rules.of_project(listing, self._project)}
        return _said([entry for entry in listing if entry["Id"] in known])

    async def _inspection(self, wanted: str) -> Answer:
        container = rules.named(await self._containers(), wanted)
        return _said(self._redaction.inspection(await self._inspect(container.id)))

    async def _health(self, wanted: str) -> Answer:
        """Run the container's own health check: the one command that is ever run, and none of the asker's words in it.

        The engine would run the same, but only each minute, and mail waits at its senders until an update's new
        containers are known to be well.
        """
        inspection = await self._inspect(rules.named(await self._containers(), wanted).id)
        command = rules.health_check(inspection)
        if not command:
            return _said({"healthy": None, "reason": ""})
        if not inspection["State"].get("Running"):
            return _said({"healthy": False, "reason": "it does not run"})
        made = await self._engine.ask("POST", f"/containers/{inspection['Id']}/exec", None, {"Cmd": command})
        if made.status != 201:
            return made
        check = made.json()["Id"]
        started = await self._engine.ask("POST", f"/exec/{check}/start", None, {"Detach": True})
        if started.status != 200:
            return started
        pause = 0.02
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEALTH_SECONDS):
                while (state := (await self._engine.ask("GET", f"/exec/{check}/json")).json()).get("Running", True):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.25)
                code = state.get("ExitCode")
                return _said({"healthy": code == 0, "reason": f"its check ended with status {code}" if code else ""})
        return _said({"healthy": False, "reason": f"its check did not end within {HEALTH_SECONDS} seconds"})

    async def _image_inspection(self, wanted: Reference) -> Answer:
        answer = await self._engine.ask("GET", f"/images/{_path(wanted)}/json")
        if answer.status != 200:
            # A stranger's image and none at all are answered alike, unless its name says whose it would be.
            if answer.status == 404 and not wanted.is_id and not below(self._registry, wanted.repository):
                raise Refused("this image is not of this project")
            return answer
        containers = await self._containers()
        rules.may_see(answer.json(), self._registry, {each.image_id for each in containers})
        return answer

    async def _check_fetch(self, image: Reference) -> None:
        in_use = {} if below(self._registry, image.repository) else await self._in_use()
        rules.may_fetch(image, self._registry, in_use)

    # --- images ---------------------------------------------------------------------------------------------------
    async def _tag(self, ask: requests.Tag) -> Answer:
        async with self._lock("images"):
            image = await self._image(ask.image)
            rules.may_tag(image, ask.name, self._registry, await self._in_use())
            name = {"repo": ask.name.repository, "tag": ask.name.tag}
            return await self._engine.ask("POST", f"/images/{image['Id']}/tag", name)

    async def _delete_image(self, wanted: Reference) -> Answer:
        async with self._lock("images"):
            image = await self._image(wanted)
            everybody = (await self._engine.ask("GET", "/containers/json", {"all": "1"})).json()
            rules.may_delete(wanted, image, self._registry, everybody)
            only = {"force": "false", "noprune": "true"}
            return await self._engine.ask("DELETE", f"/images/{_path(wanted)}", only)

    # --- containers -----------------------------------------------------------------------------------------------
    async def _change(
        self, ask: requests.Stop | requests.Start | requests.Terminate | requests.Rename | requests.Remove
    ) -> Answer:
        container = rules.named(await self._containers(), ask.container)
        rules.changeable(container, self._project)
        async with self._lock(container.name.canonical):
            containers = await self._containers()
            container = rules.named(containers, container.id)
            path = f"/containers/{container.id}"
            match ask:
                case requests.Stop():
                    query = {} if ask.seconds is None else {"t": str(ask.seconds)}
                    return await self._engine.ask("POST", f"{path}/stop", query, seconds=STOP_SECONDS)
                case requests.Terminate():
                    return await self._engine.ask("POST", f"{path}/kill", {"signal": "SIGTERM"})
                case requests.Start():
                    rules.may_start(container, containers)
                    return await self._engine.ask("POST", f"{path}/start")
                case requests.Rename():
                    rules.may_rename(container, ask.name)
                    return await self._engine.ask("POST", f"{path}/rename", {"name": ask.name})
                case requests.Remove():
                    rules.may_remove(container, containers)
                    return await self._engine.ask("DELETE", path, {"v": "false", "force": "false", "link": "false"})

    async def _create(self, name: str, wanted: requests.Successor) -> Answer:
        source = rules.named(await self._containers(), wanted.source)
        rules.changeable(source, self._project)
        async with self._lock(source.name.canonical):
            containers = await self._containers()
            source = rules.named(containers, source.id)
            rules.may_succeed(source, name, wanted.update, containers)
            old = await self._inspect(source.id)
            rules.may_run(wanted.image, str(old["Config"].get("Image")))
            new_image = await self._image(wanted.image)
            old_image = await self._image(Reference("", digest=old["Image"]))
            try:
                made = carry.derive(old, old_image, new_image, str(wanted.image), wanted.update)
            except carry.CannotCarry as error:
                raise Refused(f"{source.text} cannot be carried over: {error}", 409) from None
            answer = await self._engine.ask("POST", "/containers/create", {"name": name}, made.body)
            if answer.status != 201:
                return answer
            return await self._complete(answer, made, old, old_image, new_image)

    async def _complete(
        self, answer: Answer, made: carry.Successor, old: Any, old_image: Any, new_image: Any
    ) -> Answer:
        """Join the networks and compare; what cannot be completed is removed."""
        created = answer.json()["Id"]
        complete = False
        try:
            for network, endpoint in made.networks.items():
                body = {"Container": created, "EndpointConfig": endpoint}
                joined = await self._engine.ask("POST", f"/networks/{quote(network, safe='')}/connect", None, body)
                if joined.status >= 300:
                    return joined
            new = await self._inspect(created)
            found = carry.differences(old, old_image, new, new_image)
            # The tag may have moved between the look at it and the create.
            if found or new["Image"] != new_image["Id"]:
                raise Refused(f"the engine made something else of it: {', '.join(found) or 'another image'}", 409)
            complete = True
            return answer
        finally:
            if not complete:
                with contextlib.suppress(EngineUnavailable):
                    await self._engine.ask("DELETE", f"/containers/{created}", {"force": "true"})

    # --- what stands ----------------------------------------------------------------------------------------------
    async def _list_of_project(self) -> list[dict[str, Any]]:
        label = json.dumps({"label": [f"{rules.COMPOSE}project={self._project}"]})
        answer = await self._engine.ask("GET", "/containers/json", {"all": "1", "filters": label})
        if answer.status != 200:
            raise EngineUnavailable(f"the engine does not list its containers: {answer.status}")
        listing: list[dict[str, Any]] = answer.json()
        return listing

    async def _containers(self) -> list[Container]:
        return rules.of_project(await self._list_of_project(), self._project)

    async def _inspect(self, identity: str) -> Any:
        answer = await self._engine.ask("GET", f"/containers/{identity}/json")
        if answer.status != 200:
            raise EngineUnavailable(f"the engine does not show the container {identity}: {answer.status}")
        return answer.json()

    async def _image(self, wanted: Reference) -> Mapping[str, Any]:
        answer = await self._engine.ask("GET", f"/images/{_path(wanted)}/json")
        if answer.status != 200:
            raise Refused(f"there is no image {wanted} on this machine", 404)
        image: Mapping[str, Any] = answer.json()
        return image

    async def _in_use(self) -> dict[str, str]:
        """The names that this project's containers were made from, each with the id that runs as it."""
        inspected = [await self._inspect(each.id) for each in await self._containers()]
        return {each["Config"]["Image"]: each["Image"] for each in inspected}

    def _lock(self, what: str) -> asyncio.Lock:
        """One lock for each service's containers; their names are Compose's, so there are few."""
        return self._locks.setdefault(what, asyncio.Lock())


def _path(image: Reference) -> str:
    return quote(str(image), safe="/:@")


def _said(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value, separators=(",", ":")).encode())
