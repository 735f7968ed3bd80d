"""An old container's inspection and a new image's, to the container that succeeds it. Pure.

What the owner said of a container stays; what its image had supplied comes from the new image. Docker does not keep
the two apart: what equals the old image's is the image's. Two things are the container's whatever the image says: its
user (an image must not make itself root), and Compose's labels (an image that Compose built has some of them too, and
a container without them is no longer Compose's). `com.docker.compose.image` becomes the new image's id, so that
`docker compose up -d` finds nothing to make anew.

Fields that this module does not know are carried as they are: a newer engine's restriction is not lost. What came out
is compared with `differences` after the create, so that nothing an engine did otherwise passes unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.docker_filter.rules import COMPOSE, SOURCE_LABEL, UPDATE_LABEL

Json = Mapping[str, Any]
# What a person can say of a container's place in a network; the rest of it (addresses, ids) is made at its start.
# Engine 28 has GwPriority.
ENDPOINT = ("IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority")
# Joined key by key with the image's, by the engine.
_MAPS = ("ExposedPorts", "Volumes", "Labels")
_OWN_LABELS = (UPDATE_LABEL, SOURCE_LABEL, f"{COMPOSE}image")


class CannotCarry(Exception):
    """The container has something that cannot be said again in a create; the text says what."""


@dataclass(frozen=True, slots=True)
class Successor:
    """`body` of the create, with its first network, and the further networks to join: name → endpoint's settings."""

    body: dict[str, Any]
    networks: dict[str, dict[str, Any]]


def derive(old: Json, old_image: Json, new_image: Json, reference: str, update: str) -> Successor:
    """The container that runs `reference` (inspected: `new_image`) in place of `old`; raises CannotCarry."""
    _check(old)
    body = own_config(old, old_image)
    body["Image"] = reference
    body["Labels"] = {
        **body.get("Labels", {}),
        f"{COMPOSE}image": new_image["Id"],
        UPDATE_LABEL: update,
        SOURCE_LABEL: old["Id"],
    }
    body["HostConfig"] = dict(old["HostConfig"])
    networks = endpoints(old)
    mode = old["HostConfig"].get("NetworkMode", "")
    if networks:
        # Before engine 25 a create takes one network, the one that NetworkMode names.
        if mode not in networks:
            raise CannotCarry(f"its first network {mode} is gone")
        body["NetworkingConfig"] = {"EndpointsConfig": {mode: networks.pop(mode)}}
    return Successor(body, networks)


def own_config(container: Json, image: Json) -> dict[str, Any]:
    """The part of a container's Config that is not from its image."""
    config, supplied = container["Config"], image.get("Config") or {}
    own: dict[str, Any] = {}
    for field, value in config.items():
        if field in ("Image", "Env", "Healthcheck", "Entrypoint", "Cmd", *_MAPS):
            continue
        if not _empty(value) and (field == "User" or value != supplied.get(field)):
            own[field] = value
    if own.get("Hostname") == container["Id"][:12]:
        del own["Hostname"]  # Docker's own choice: the successor gets its own
    own["Env"] = _own_environment(config.get("Env"), supplied.get("Env"))
    for field in _MAPS:
        given, theirs = config.get(field) or {}, supplied.get(field) or {}
        kept = {key: value for key, value in given.items() if key not in theirs or theirs[key] != value}
        if field == "Labels":
            kept |= {key: value for key, value in given.items() if key.startswith(COMPOSE)}
        elif field == "ExposedPorts":
            kept |= {port: {} for port in container["HostConfig"].get("PortBindings") or {} if port in given}
        own[field] = kept
    own["Healthcheck"] = _own_part(config.get("Healthcheck"), supplied.get("Healthcheck"))
    own |= _own_command(config, supplied)
    return {field: value for field, value in own.items() if not _empty(value) or field in ("Entrypoint", "Cmd")}


def endpoints(container: Json) -> dict[str, dict[str, Any]]:
    """Network → what was said of the container's place in it; empty where it shares the host's network or has none."""
    mode = container["HostConfig"].get("NetworkMode", "")
    if mode in ("host", "none", "default", "bridge"):
        return {}
    short = container["Id"][:12]
    found = {}
    for network, settings in (container["NetworkSettings"].get("Networks") or {}).items():
        said = {field: settings[field] for field in ENDPOINT if settings.get(field)}
        # Before engine 25 the short id stands among the aliases.
        aliases = [alias for alias in said.pop("Aliases", ()) if alias != short]
        found[network] = {**said, "Aliases": aliases} if aliases else said
    return found


def differences(old: Json, old_image: Json, new: Json, new_image: Json) -> list[str]:
    """What of `old` is not so in `new`, beyond id, name, times, image and the labels that an update sets."""
    found = _differing("Config", _expected(own_config(old, old_image), new_image), _actual(new))
    found += _differing("HostConfig", dict(old["HostConfig"]), dict(new["HostConfig"]))
    found += _differing("Networks", endpoints(old), endpoints(new))
    found += _differing("Mounts", _mounts(old), _mounts(new))
    return found


def _check(old: Json) -> None:
    host = old["HostConfig"]
    for field in ("Links", "VolumesFrom"):
        if host.get(field):
            raise CannotCarry(f"{field} names other containers")
    for field in ("NetworkMode", "IpcMode", "PidMode"):
        if str(host.get(field, "")).startswith("container:"):
            raise CannotCarry(f"{field} is another container's")
    if host.get("AutoRemove"):
        raise CannotCarry("it is removed when it stops")
    if old["Config"].get("MacAddress"):
        raise CannotCarry("it has a fixed MAC address")
    bound = {str(bind).partition(":")[0] for bind in host.get("Binds") or ()}
    bound |= {str(mount.get("Source", "")) for mount in host.get("Mounts") or ()}
    for mount in old.get("Mounts") or ():
        if mount.get("Type") == "volume" and mount.get("Name") not in bound:
            raise CannotCarry(f"{mount.get('Destination')} is a volume without a name")


def _own_environment(entries: Any, theirs: Any) -> list[str]:
    return [entry for entry in entries or () if entry not in (theirs or ())]


def _own_part(value: Any, theirs: Any) -> dict[str, Any]:
    """The engine fills each missing field of a health check from the image's."""
    return {key: each for key, each in (value or {}).items() if each != (theirs or {}).get(key)}


def _own_command(config: Json, supplied: Json) -> dict[str, Any]:
    """Entrypoint and Cmd as the engine joins them: an own Entrypoint takes the image's Cmd away."""
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    if entrypoint == (supplied.get("Entrypoint") or []):
        if command == (supplied.get("Cmd") or []):
            return {}
        if command:
            return {"Cmd": command}
    return {"Entrypoint": entrypoint, "Cmd": command}


def _expected(own: dict[str, Any], image: Json) -> dict[str, Any]:
    """The Config that the engine makes of an own part and an image."""
    supplied = image.get("Config") or {}
    config = {field: value for field, value in supplied.items() if not _empty(value)} | own
    config["Env"] = {**_variables(supplied.get("Env")), **_variables(own.get("Env"))}
    for field in (*_MAPS, "Healthcheck"):
        config[field] = {**(supplied.get(field) or {}), **(own.get(field) or {})}
    if own.get("Entrypoint") and not own.get("Cmd"):
        config["Cmd"] = []
    return _comparable(config)


def _actual(container: Json) -> dict[str, Any]:
    config = dict(container["Config"])
    config["Env"] = _variables(config.get("Env"))
    if config.get("Hostname") == container["Id"][:12]:
        del config["Hostname"]
    return _comparable(config)


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    labels = {name: text for name, text in (config.get("Labels") or {}).items() if name not in _OWN_LABELS}
    # An image's triggers and its remark on quoting say nothing of a container.
    config = {field: value for field, value in config.items() if field not in ("Image", "OnBuild", "ArgsEscaped")}
    return {**config, "Labels": labels}


def _variables(entries: Any) -> dict[str, str]:
    return {name: value for name, _, value in (str(entry).partition("=") for entry in entries or ())}


def _mounts(container: Json) -> dict[str, Any]:
    fields = ("Type", "Name", "Source", "Driver", "Mode", "RW", "Propagation")
    return {
        str(mount.get("Destination")): {field: mount.get(field) for field in fields}
        for mount in container.get("Mounts") or ()
    }


def _differing(part: str, wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    keys = sorted({*wanted, *found})
    return [f"{part}.{key}" for key in keys if _normal(wanted.get(key)) != _normal(found.get(key))]


def _normal(value: Any) -> Any:
    """Engines write nothing as null, "", [], {} or false; and an object's empty fields come and go with versions."""
    if isinstance(value, Mapping):
        value = {key: _normal(each) for key, each in value.items()}
        return {key: each for key, each in value.items() if each is not None} or None
    return None if _empty(value) else value


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
