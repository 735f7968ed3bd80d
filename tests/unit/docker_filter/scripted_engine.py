"""A Docker engine on a unix socket that knows a few containers and images, and remembers what it was asked.

It does what the filter relies on: lists by label, inspects, creates what a create says, renames, starts, removes.
"""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import h11

PROJECT = "mailstead"
REPOSITORY = "ghcr.io/mailstead/mailstead"
IMAGE = f"{REPOSITORY}:0.1.0"
NEWER = f"{REPOSITORY}:0.2.0"
SECRET_VALUE = "hunter2"


def image_id(number: int) -> str:
    return f"sha256:{number:064x}"


def image(number: int, *names: str, **config: Any) -> dict[str, Any]:
    settings = {
        "Env": ["PATH=/bin"],
        "Cmd": ["bash"],
        "WorkingDir": "/",
        "Labels": {"mailstead.source": f"sum{number}"},
    }
    return {"Id": image_id(number), "RepoTags": list(names), "RepoDigests": [], "Config": settings | config}


def container(number: int, service: str, *, project: str = PROJECT, image: str = IMAGE, running: bool = True,
              image_number: int = 1, **labels: str) -> dict[str, Any]:  # fmt: skip
    """An inspection as engine 20.10 gives it."""
    identity = f"{number:064x}"
    name = f"{project}-{service}-1"
    compose = {
        "project": project,
        "service": service,
        "container-number": "1",
        "oneoff": "False",
        "config-hash": "c0ffee",
    }
    return {
        "Id": identity,
        "Name": f"/{name}",
        "Created": "2026-01-01T00:00:00Z",
        "State": {"Status": "running" if running else "exited", "Running": running},
        "Image": image_id(image_number),
        "Config": {
            "Hostname": identity[:12],
            "User": "10001:10001",
            "Env": ["PATH=/bin", f"RELAY_PASSWORD={SECRET_VALUE}"],
            "Cmd": ["python3", "-m", f"services.{service}"],
            "Image": image,
            "WorkingDir": "/",
            "Entrypoint": None,
            "Labels": {
                **{f"com.docker.compose.{key}": value for key, value in compose.items()},
                "com.docker.compose.image": image_id(image_number),
                "mailstead.source": f"sum{image_number}",
                **labels,
            },
            "StopTimeout": 20,
        },
        "HostConfig": {
            "Binds": None,
            "NetworkMode": f"{project}_one",
            "CapDrop": ["ALL"],
            "ReadonlyRootfs": True,
            "Privileged": False,
            "LogConfig": {"Type": "gelf", "Config": {"gelf-address": "udp://token@logs"}},
            "Mounts": [{"Type": "volume", "Source": f"{project}_mail", "Target": "/var/mail", "VolumeOptions": {}}],
        },
        "Mounts": [
            {"Type": "volume", "Name": f"{project}_mail", "Source": "/volumes/mail", "Destination": "/var/mail",
             "Driver": "local", "Mode": "z", "RW": True, "Propagation": ""}
        ],
        "NetworkSettings": {
            "Networks": {
                f"{project}_one": {"Aliases": [name, service, identity[:12]], "IPAMConfig": None, "IPAddress": "10.1.0.2"},
                f"{project}_two": {"Aliases": [name, service, identity[:12]],
                                   "IPAMConfig": {"IPv4Address": "10.2.0.7"}, "IPAddress": "10.2.0.7"},
            }
        },
    }  # fmt: skip


class ScriptedEngine:
    """`asked` has method and target of each request; `answers` overrides one (target without query → status, body)."""

    def __init__(self) -> None:
        self.containers: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = [image(1, IMAGE), image(2, NEWER)]
        self.asked: list[str] = []
        self.bodies: list[tuple[str, Any]] = []
        self.created: list[dict[str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.progress: list[bytes] = [b'{"status":"Pulling"}\r\n', b'{"status":"Done"}\r\n']
        self.spoil = lambda made: made  # what an engine that does otherwise makes of a create

    @property
    def changes(self) -> list[str]:
        return [line for line in self.asked if not line.startswith("GET ")]

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = h11.Connection(h11.SERVER)
        head, body = None, b""
        while not isinstance(event := protocol.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                protocol.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
        assert head
        method, target = head.method.decode(), head.target.decode()
        self.asked.append(f"{method} {target}")
        if target.startswith("/images/create"):
            writer.write(protocol.send(h11.Response(status_code=200, headers=[])) or b"")
            for piece in self.progress:
                writer.write(protocol.send(h11.Data(data=piece)) or b"")
        else:
            self.bodies.append((target, json.loads(body or b"null")))
            status, value = self.answer(method, target, self.bodies[-1][1])
            data = b"" if value is None else json.dumps(value).encode()
            headers = [("Content-Length", str(len(data)))]
            writer.write(protocol.send(h11.Response(status_code=status, headers=headers)) or b"")
            writer.write(protocol.send(h11.Data(data=data)) or b"")
        writer.write(protocol.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        writer.close()

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if parts.path in self.answers:
            return self.answers[parts.path]
        words = parts.path.strip("/").split("/")
        if parts.path in ("/version", "/_ping"):
            return 200, {"ApiVersion": "1.41"}
        if parts.path == "/containers/json":
            label = json.loads(query["filters"])["label"][0].split("=", 1) if "filters" in query else None
            return 200, [self._listed(each) for each in self.containers if not label or self._has(each, label)]
        if parts.path == "/containers/create":
            return self._create(query["name"], body)
        if words[0] == "networks":
            made = self._find(body["Container"])
            endpoint = {**body["EndpointConfig"], "IPAddress": ""}
            made["NetworkSettings"]["Networks"][unquote(words[1])] = endpoint
            return 200, None
        if words[0] == "images":
            return self._image(method, "/".join(words[1:]), query)
        if words[0] == "distribution":
            return 200, {"Descriptor": {"digest": image_id(9)}}
        found = self._find(words[1])
        if method == "DELETE":
            self.containers.remove(found)
            return 204, None
        verb = words[2]
        if verb == "json":
            return 200, found
        if verb == "rename":
            found["Name"] = "/" + query["name"]
        else:
            found["State"]["Status"] = "running" if verb == "start" else "exited"
        return 204, None

    def _find(self, identity: str) -> dict[str, Any]:
        return next(each for each in self.containers if each["Id"] == identity)

    @staticmethod
    def _has(each: dict[str, Any], label: list[str]) -> bool:
        return bool(each["Config"]["Labels"].get(label[0]) == label[1])

    @staticmethod
    def _listed(each: dict[str, Any]) -> dict[str, Any]:
        return {"Id": each["Id"], "Names": [each["Name"]], "Labels": each["Config"]["Labels"],
                "State": each["State"]["Status"], "ImageID": each["Image"], "Image": each["Config"]["Image"]}  # fmt: skip

    def _image(self, method: str, rest: str, query: dict[str, str]) -> tuple[int, Any]:
        name, _, verb = rest.rpartition("/") if rest.endswith(("/json", "/tag")) else (rest, "", "")
        for each in self.images:
            if name == each["Id"] or name in each["RepoTags"]:
                if verb == "tag":
                    each["RepoTags"].append(f"{query['repo']}:{query['tag']}")
                    return 201, None
                return 200, each
        return 404, {"message": f"No such image: {name}"}

    def _create(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.created.append(copy.deepcopy(body))
        found = next(each for each in self.images if body["Image"] in (each["Id"], *each["RepoTags"]))
        theirs = found["Config"]
        host, networking = body.pop("HostConfig"), body.pop("NetworkingConfig", {"EndpointsConfig": {}})
        identity = f"{0xC0000 + len(self.created):064x}"
        own_names = {entry.partition("=")[0] for entry in body.get("Env", [])}
        config = {
            **theirs, "Hostname": identity[:12], **body,
            "Env": [*body.get("Env", []), *(e for e in theirs["Env"] if e.partition("=")[0] not in own_names)],
            "Labels": {**theirs["Labels"], **body["Labels"]},
        }  # fmt: skip
        made = {
            "Id": identity, "Name": f"/{name}", "State": {"Status": "created"}, "Image": found["Id"], "Config": config,
            "HostConfig": host, "NetworkSettings": {"Networks": networking["EndpointsConfig"]},
            "Mounts": copy.deepcopy(self.containers[0]["Mounts"]),
        }  # fmt: skip
        self.containers.append(self.spoil(made))
        return 201, {"Id": identity, "Warnings": []}
