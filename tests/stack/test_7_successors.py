"""A container's successor is the container with another image: compared by inspection, on the engine that is here.

Every service that the updater may replace gets a successor through docker-filter. Docker then shows the same of both,
and Compose, asked to bring the stack up, finds nothing to make anew.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mailclients import letter, until
from stack import CONTAINERS, Stack, must, sh
from updater_hands import send

REPLACED = [service for service in CONTAINERS if service not in ("updater", "docker-filter")]
# Set by Docker for each container, or at its start.
OF_ITS_OWN = {
    "Id", "Name", "Created", "State", "Image", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "ExecIDs",
    "GraphDriver", "RestartCount", "NetworkSettings", "ImageManifestDescriptor",
}  # fmt: skip
LABELS = {"mailstead.update-id", "mailstead.update-source"}


def said(inspection: dict[str, Any]) -> dict[str, Any]:
    """What of an inspection its owner and image have said, in an order that can be compared."""
    kept = {key: value for key, value in inspection.items() if key not in OF_ITS_OWN}
    kept["Mounts"] = sorted(kept["Mounts"], key=lambda mount: mount["Destination"])
    config = dict(kept["Config"])
    assert config.pop("Hostname") == inspection["Id"][:12]
    config["Env"] = sorted(config["Env"])
    config["Labels"] = {key: value for key, value in config["Labels"].items() if key not in LABELS}
    kept["Config"] = config
    kept["Networks"] = {
        name: (sorted(set(place["Aliases"] or ()) - {inspection["Id"][:12]}), place["IPAMConfig"], place["Links"])
        for name, place in inspection["NetworkSettings"]["Networks"].items()
    }
    return kept


def succeed(stack: Stack, service: str, image: str, update: str) -> dict[str, Any]:
    """Create the successor of a service's container; its inspection."""
    name = stack.container(service)
    labels = {"mailstead.update": update, "mailstead.source": name}
    status, body = send(
        stack, "POST", f"/containers/create?name={name}-next-{update}", {"Image": image, "Labels": labels}
    )
    assert status == 201, body
    found: dict[str, Any] = json.loads(must(sh("docker", "inspect", json.loads(body)["Id"])))[0]
    return found


def done(stack: Stack, method: str, target: str) -> None:
    status, body = send(stack, method, target)
    assert status in (201, 204), (method, target, body)


@pytest.fixture
def newer(stack: Stack) -> Iterator[str]:
    """An image of the rooms' repository with more in it than the one that runs."""
    old = stack.inspect("dkim")["Config"]["Image"]
    image = old.rpartition(":")[0] + f":newer-{stack.project}"
    lines = f'FROM {old}\nENV NEWER=1 LANG=C\nLABEL newer=1 mailstead.source=newer\nUSER 0:0\nCMD ["true"]\n'
    must(sh("docker", "build", "--quiet", "--tag", image, "-", stdin=lines.encode()))
    yield image
    must(sh("docker", "image", "rm", image))


def test_all_services_are_succeeded_and_compose_recreates_nothing(stack: Stack, ann: str) -> None:
    before = {service: stack.inspect(service) for service in REPLACED}
    for service, old in before.items():
        new = succeed(stack, service, old["Config"]["Image"], "t7")
        assert said(new) == said(old), service
        assert new["Image"] == old["Image"] and new["State"]["Status"] == "created"
        name = stack.container(service)
        done(stack, "POST", f"/containers/{name}/stop")
        done(stack, "POST", f"/containers/{name}/rename?name={name}-before-t7")
        done(stack, "POST", f"/containers/{name}-next-t7/rename?name={name}")
        done(stack, "POST", f"/containers/{name}/start")
        assert send(stack, "POST", f"/containers/{name}-before-t7/start")[0] == 409, "two writers at once"
        done(stack, "DELETE", f"/containers/{name}-before-t7")
    for service, old in before.items():
        until(lambda service=service: stack.execute(service, "healthcheck").status == 0, 60)
        new = stack.inspect(service)
        assert new["Id"] != old["Id"] and said(new) == said(old), service
        assert new["NetworkSettings"]["Ports"] == old["NetworkSettings"]["Ports"], service
    running = {service: stack.inspect(service)["Id"] for service in CONTAINERS}
    must(stack.compose("up", "-d"))
    assert {service: stack.inspect(service)["Id"] for service in CONTAINERS} == running
    sent = letter("friend@outside.test", ann, body=b"after\r\n")
    stack.receive("friend@outside.test", ann, message=sent.message)
    assert stack.letter(ann, sent.message_id).endswith(sent.message)


def test_what_the_image_supplied_comes_from_the_new_one_and_nothing_else(stack: Stack, newer: str) -> None:
    old = stack.inspect("dkim")
    new = succeed(stack, "dkim", newer, "t8")
    try:
        assert new["Config"]["User"] == old["Config"]["User"], "an image does not make itself root"
        assert new["Config"]["Cmd"] == old["Config"]["Cmd"] and new["HostConfig"] == old["HostConfig"]
        assert {"NEWER=1", "LANG=C"} <= set(new["Config"]["Env"])
        labels = new["Config"]["Labels"]
        assert labels["newer"] == "1" and labels["mailstead.source"] == "newer"
        assert labels["com.docker.compose.image"] == new["Image"] != old["Image"]
        kept = [
            name for name in old["Config"]["Labels"] if name.startswith("com.docker.compose.") and "image" not in name
        ]
        assert {name: labels[name] for name in kept} == {name: old["Config"]["Labels"][name] for name in kept}
    finally:
        # A successor that failed: it may be removed while the one it was made from still stands, and that one may not.
        done(stack, "DELETE", f"/containers/{stack.container('dkim')}-next-t8")
    assert send(stack, "DELETE", f"/containers/{stack.container('dkim')}")[0] in (403, 409)


def test_an_image_is_kept_for_a_roll_back_and_let_go(stack: Stack, newer: str) -> None:
    repository = newer.rpartition(":")[0]
    done(stack, "POST", f"/images/{newer}/tag?repo={repository}&tag=before-{stack.project}")
    status, _ = send(stack, "DELETE", f"/images/{repository}:before-{stack.project}")
    assert status == 200
    assert send(stack, "DELETE", f"/images/{stack.inspect('dkim')['Image']}")[0] == 409, "it is in use"
