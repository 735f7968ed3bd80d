"""What of a container its successor gets: the owner's part from the old one, the image's part from the new image."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import NEWER, container, image, image_id

from services.docker_filter import carry
from services.docker_filter.carry import CannotCarry, derive, differences, own_config

OLD_IMAGE, NEW_IMAGE = image(1), image(2, NEWER)


def old(**config: Any) -> dict[str, Any]:
    made = container(1, "imap")
    made["Config"] |= config
    return made


def host(**settings: Any) -> dict[str, Any]:
    made = container(1, "imap")
    made["HostConfig"] |= settings
    return made


def supplied(**config: Any) -> dict[str, Any]:
    return image(1, **config)


@pytest.mark.parametrize(
    ("config", "theirs", "own"),
    [
        # (what Docker shows of the container, of its image, what is the owner's)
        ({"Cmd": ["bash"]}, {"Cmd": ["bash"]}, {}),
        ({"Cmd": ["x"]}, {"Cmd": ["bash"]}, {"Cmd": ["x"]}),
        ({"Entrypoint": ["e"], "Cmd": ["bash"]}, {"Entrypoint": ["e"], "Cmd": ["bash"]}, {}),
        ({"Entrypoint": ["e"], "Cmd": ["x"]}, {"Entrypoint": ["e"], "Cmd": ["bash"]}, {"Cmd": ["x"]}),
        ({"Entrypoint": ["e"], "Cmd": ["bash"]}, {"Cmd": ["bash"]}, {"Entrypoint": ["e"], "Cmd": ["bash"]}),
        ({"Entrypoint": ["e"], "Cmd": None}, {"Cmd": ["bash"]}, {"Entrypoint": ["e"], "Cmd": []}),
        # The image's Cmd went when the owner said an Entrypoint, be it the same one.
        ({"Entrypoint": ["e"], "Cmd": None}, {"Entrypoint": ["e"], "Cmd": ["c"]}, {"Entrypoint": ["e"], "Cmd": []}),
        ({"Env": ["A=1", "B=2"]}, {"Env": ["A=1"]}, {"Env": ["B=2"]}),
        ({"Env": ["A=2"]}, {"Env": ["A=1"]}, {"Env": ["A=2"]}),
        ({"User": "5:5"}, {"User": "5:5"}, {"User": "5:5"}),
        ({"WorkingDir": "/w"}, {"WorkingDir": "/w"}, {}),
        ({"WorkingDir": "/w"}, {"WorkingDir": "/"}, {"WorkingDir": "/w"}),
        ({"StopSignal": "SIGUSR1"}, {"StopSignal": "SIGUSR1"}, {}),
        ({"Healthcheck": {"Test": ["CMD", "h"], "Interval": 5}}, {"Healthcheck": {"Test": ["CMD", "h"], "Interval": 9}},
         {"Healthcheck": {"Interval": 5}}),
        ({"ExposedPorts": {"25/tcp": {}, "80/tcp": {}}}, {"ExposedPorts": {"80/tcp": {}}}, {"ExposedPorts": {"25/tcp": {}}}),
        ({"Labels": {"a": "1", "b": "2", "com.docker.compose.service": "x"}},
         {"Labels": {"a": "1", "b": "3", "com.docker.compose.service": "x"}},
         {"Labels": {"b": "2", "com.docker.compose.service": "x"}}),
        ({"Volumes": {"/a": {}, "/b": {}}}, {"Volumes": {"/a": {}}}, {"Volumes": {"/b": {}}}),
        # A field of an engine that this code does not know.
        ({"Sandbox": "strict"}, {}, {"Sandbox": "strict"}),
        ({"Sandbox": "strict"}, {"Sandbox": "strict"}, {}),
    ],
)  # fmt: skip
def test_whose_a_setting_is(config: dict[str, Any], theirs: dict[str, Any], own: dict[str, Any]) -> None:
    bare = {"Config": {**config}, "HostConfig": {}, "Id": "f" * 64}
    assert own_config(bare, {"Config": theirs}) == own


def test_a_published_port_stays_open_when_the_image_forgets_it() -> None:
    bare = {"Id": "f" * 64, "HostConfig": {"PortBindings": {"25/tcp": []}}, "Config": {"ExposedPorts": {"25/tcp": {}}}}
    assert own_config(bare, {"Config": {"ExposedPorts": {"25/tcp": {}}}})["ExposedPorts"] == {"25/tcp": {}}


def test_the_whole_of_a_container() -> None:
    before = old()
    made = derive(before, OLD_IMAGE, NEW_IMAGE, NEWER, "x7")
    labels = made.body["Labels"]
    assert "Hostname" not in made.body, "Docker's own choice"
    assert labels.pop("com.docker.compose.image") == image_id(2)
    assert labels.pop("mailstead.update-id") == "x7" and labels.pop("mailstead.update-source") == before["Id"]
    assert "mailstead.source" not in labels, "the old image's"
    assert labels["com.docker.compose.config-hash"] == "c0ffee"
    assert made.body["HostConfig"] == before["HostConfig"] and made.body["StopTimeout"] == 20
    aliases = ["mailstead-imap-1", "imap"]
    assert made.body["NetworkingConfig"] == {"EndpointsConfig": {"mailstead_one": {"Aliases": aliases}}}
    assert made.networks == {"mailstead_two": {"IPAMConfig": {"IPv4Address": "10.2.0.7"}, "Aliases": aliases}}


def test_a_hostname_of_the_owners_is_kept() -> None:
    assert derive(old(Hostname="mail"), OLD_IMAGE, NEW_IMAGE, NEWER, "x7").body["Hostname"] == "mail"


@pytest.mark.parametrize("mode", ["host", "none"])
def test_without_networks_of_its_own_nothing_is_joined(mode: str) -> None:
    before = host(NetworkMode=mode)
    before["NetworkSettings"] = {"Networks": {mode: {"Aliases": None}}}
    made = derive(before, OLD_IMAGE, NEW_IMAGE, NEWER, "x7")
    assert "NetworkingConfig" not in made.body and made.networks == {}


@pytest.mark.parametrize(
    "before",
    [
        host(Links=["/a:/b"]), host(VolumesFrom=["other"]), host(NetworkMode="container:abc"), host(PidMode="container:abc"),
        host(IpcMode="container:abc"), host(AutoRemove=True), host(NetworkMode="gone"), old(MacAddress="02:42:0a:00:00:02"),
        host(Mounts=[]),
    ],
)  # fmt: skip
def test_what_cannot_be_said_again_is_refused(before: dict[str, Any]) -> None:
    with pytest.raises(CannotCarry):
        derive(before, OLD_IMAGE, NEW_IMAGE, NEWER, "x7")


def made_of(before: dict[str, Any]) -> dict[str, Any]:
    """What an engine shows of the successor, before its start."""
    body = derive(before, OLD_IMAGE, NEW_IMAGE, NEWER, "x7").body
    after = copy.deepcopy(before)
    after |= {"Id": "9" * 64, "Image": image_id(2), "Name": "/next"}
    theirs = NEW_IMAGE["Config"]
    after["Config"] |= {"Hostname": "9" * 12, "Image": NEWER, "Labels": {**theirs["Labels"], **body["Labels"]}}
    for place in after["NetworkSettings"]["Networks"].values():
        place["Aliases"] = [alias for alias in place["Aliases"] if alias != before["Id"][:12]] + ["9" * 12]
        place["IPAddress"] = ""
    return after


def test_a_true_successor_does_not_differ() -> None:
    before = old()
    assert differences(before, OLD_IMAGE, made_of(before), NEW_IMAGE) == []


def change(after: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = path.split("/")
    for folder in folders:
        after = after[folder]
    after[last] = value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("HostConfig/Privileged", True, "HostConfig.Privileged"), ("HostConfig/CapDrop", None, "HostConfig.CapDrop"),
        ("HostConfig/Binds", ["/:/host"], "HostConfig.Binds"), ("HostConfig/Future", "x", "HostConfig.Future"),
        ("HostConfig/ReadonlyRootfs", False, "HostConfig.ReadonlyRootfs"), ("Config/User", "0:0", "Config.User"),
        ("Config/Env", ["PATH=/bin"], "Config.Env"), ("Config/Cmd", ["sh"], "Config.Cmd"), ("Config/StopTimeout", 1, "Config.StopTimeout"),
        ("Config/Labels", {}, "Config.Labels"), ("Mounts", [], "Mounts./var/mail"),
        ("NetworkSettings/Networks", {}, "Networks.mailstead_one"), ("Config/Hostname", "evil", "Config.Hostname"),
        ("NetworkSettings/Networks/mailstead_three", {}, ""),
        ("NetworkSettings/Networks/mailstead_two", {"Aliases": ["imap", "mailstead-imap-1"], "IPAMConfig": None}, "Networks.mailstead_two"),
    ],
)  # fmt: skip
def test_every_difference_is_seen(path: str, value: Any, said: str) -> None:
    before = old()
    after = made_of(before)
    change(after, path, value)
    found = differences(before, OLD_IMAGE, after, NEW_IMAGE)
    assert (said in found) if said else found == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("ab/:=", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["Sysctls", "Devices", "CapAdd", "Init", "Future", "ShmSize", "Dns"]), VALUES))
def test_whatever_the_host_part_says_is_carried_whole(settings: dict[str, Any]) -> None:
    before = host(**settings)
    made = derive(before, OLD_IMAGE, NEW_IMAGE, NEWER, "x7")
    assert made.body["HostConfig"] == before["HostConfig"]
    assert differences(before, OLD_IMAGE, made_of(before), NEW_IMAGE) == []


def test_two_inspections_of_one_container_are_alike() -> None:
    """Empty fields come and go with an engine's version."""
    before = old()
    after = made_of(before)
    after["HostConfig"] |= {"ExtraHosts": [], "Cgroup": "", "OomKillDisable": False, "Annotations": {}}
    after["NetworkSettings"]["Networks"]["mailstead_one"] |= {"GwPriority": 0, "DNSNames": ["x"], "Links": None}
    found = differences(before, OLD_IMAGE, after, NEW_IMAGE)
    assert found == [], found
    assert carry.endpoints(after)["mailstead_one"] == {"Aliases": ["mailstead-imap-1", "imap"]}
