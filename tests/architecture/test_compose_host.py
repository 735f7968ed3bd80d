"""Holds compose.host.yaml and compose.ipv6.yaml to the design, merged over compose.yaml as Compose merges them.

On the host's own network a listener must be told every address: the world's, and the gateway of each network that a
neighbour comes by. A neighbour's fixed address must lie in the network of the pair. Both are recomputed here from
compose.yaml's subnets, so that a renumbered network cannot leave an address behind.
"""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime.listener import host_and_port
from services.runtime.values import defaults
from services.setup import places

ROOT = Path(__file__).parents[2]
LISTENERS = ("smtp-in", "smtp-out", "imap")
# Setting → the neighbours that come in by it; "world" is everybody,
# "machine" who is on this machine.
DOORS = {
    "smtp-in": {
        "SMTP_LISTEN": ["world", "admin", "acme"],
        "SMTP_PROXY_LISTEN": ["machine"],
        "LMTP_LISTEN": ["admin"],
        "HTTP_LISTEN": ["admin"],
    },
    "smtp-out": {
        "SUBMISSIONS_LISTEN": ["world", "admin", "acme"],
        "SUBMISSION_LISTEN": ["world", "admin", "acme"],
        "FORWARD_LISTEN": ["admin"],
        "HTTP_LISTEN": ["admin"],
    },
    "imap": {
        "IMAPS_LISTEN": ["world", "admin", "acme"],
        "IMAP_LISTEN": ["world", "admin", "acme"],
        "HTTP_LISTEN": ["admin"],
    },
}
INSIDE = {"LMTP_LISTEN": 20024, "FORWARD_LISTEN": 20025, "HTTP_LISTEN": 20080}
# Whom a listener asks. Two listeners meet at the address that the asked one has for admin: both are this machine's.
ASKS = {
    "smtp-in": {"imap", "smtp-out", "admin", "unbound", "rspamd", "spamassassin", "clamav"},
    "smtp-out": {"smtp-in", "dkim", "admin", "unbound"},
    "imap": {"admin"},
    "acme": {"smtp-in", "smtp-out", "imap"},
    "admin": {"smtp-in", "smtp-out", "imap"},
}


def constructed(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """`!reset []` as Compose reads it: what compose.yaml says is taken away."""
    assert isinstance(node, yaml.SequenceNode) and not node.value
    return "taken away"


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!reset", constructed)


def read(name: str) -> dict[str, Any]:
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", (ROOT / name).read_text())
    file: dict[str, Any] = yaml.load(text, Loader)  # a SafeLoader with one more tag
    return file


BASE, HOST, IPV6 = read("compose.yaml"), read("compose.host.yaml"), read("compose.ipv6.yaml")
SUBNETS = {
    name: ipaddress.ip_network(network["ipam"]["config"][0]["subnet"]) for name, network in BASE["networks"].items()
}


def pair(one: str, other: str) -> str:
    return "_".join(sorted((one, other)))


def fixed(name: str) -> dict[str, str]:
    """The addresses that a service always has, by network, with both files merged."""
    found = {}
    for file in (BASE, HOST):
        networks = file["services"].get(name, {}).get("networks", {})
        for network, options in networks.items() if isinstance(networks, dict) else ():
            if options and "ipv4_address" in options:
                found[network] = options["ipv4_address"]
    return found


def gateway(network: str) -> str:
    return str(SUBNETS[network][1])


@pytest.mark.parametrize("name", LISTENERS)
def test_a_listener_is_on_the_hosts_network_alone(name: str) -> None:
    service = HOST["services"][name]
    assert service["network_mode"] == "host"
    assert service["networks"] == service["ports"] == "taken away"


@pytest.mark.parametrize("name", LISTENERS)
def test_it_becomes_its_own_user_with_one_capability(name: str) -> None:
    service = HOST["services"][name]
    uid, gid = BASE["services"][name]["user"].split(":")
    groups = ",".join(BASE["services"][name]["group_add"])
    assert service["command"] == [
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", f"--groups={groups}"),
        *(f"--{kind}={each}" for kind, each in zip(("inh-caps", "ambient-caps", "bounding-set"), ONE, strict=True)),
        *BASE["services"][name]["command"],
    ]
    assert uid == str(places.uid_of(name)) and gid == str(places.gid_of(name))
    assert service["user"] == "0:0"
    assert service["cap_add"] == ["NET_BIND_SERVICE", "SETUID", "SETGID", "SETPCAP"]
    assert set(service) == {
        "network_mode", "user", "cap_add", "ports", "networks", "command", "environment", "extra_hosts",
    }  # fmt: skip


ONE = ["-all,+net_bind_service"] * 3


def test_nobody_else_leaves_its_networks_or_gains_anything() -> None:
    assert set(HOST["services"]) == {*LISTENERS, "dkim", "acme", "admin", "unbound"}
    for name, service in HOST["services"].items():
        if name not in LISTENERS:
            assert set(service) <= {"networks", "extra_hosts", "environment"}


def test_where_a_listener_meets_its_neighbours_the_host_has_an_address() -> None:
    met = {name for name in BASE["networks"] if set(name.split("_")) & set(LISTENERS) and not name.startswith("edge_")}
    assert set(HOST["networks"]) == met
    for network in HOST["networks"].values():
        assert network == {"driver_opts": {"com.docker.network.bridge.inhibit_ipv4": "false"}}


@pytest.mark.parametrize("name", LISTENERS)
def test_it_listens_for_the_world_and_at_the_gateway_of_each_neighbour(name: str) -> None:
    environment = HOST["services"][name]["environment"]
    assert {setting for setting in environment if setting.endswith("_LISTEN")} == set(DOORS[name])
    for setting, neighbours in DOORS[name].items():
        # The world's port on every address: another process may hold the usual one on all of them.
        port = INSIDE.get(setting) or host_and_port(str(defaults()[setting.lower()]))[1]
        known = {"world": "", "machine": "127.0.0.1"}
        wanted = [known[each] if each in known else gateway(pair(each, name)) for each in neighbours]
        assert [host_and_port(each) for each in environment[setting].split(",")] == [(host, port) for host in wanted]


@pytest.mark.parametrize("setting", ["smtp_in_url", "smtp_out_url", "imap_url", "lmtp_address", "forward_address"])
def test_a_neighbour_asks_at_the_port_where_a_listener_listens(setting: str) -> None:
    """Whoever has a use for the setting and whom the default would lead astray is told."""
    default = str(defaults()[setting])
    url = default.startswith("http")
    asked = default.removeprefix("http://").partition(":")[0]
    door = {"lmtp_address": "LMTP_LISTEN", "forward_address": "FORWARD_LISTEN"}.get(setting, "HTTP_LISTEN")
    told = {name for name, service in HOST["services"].items() if setting.upper() in service.get("environment", {})}
    assert told == {"smtp_in_url": {"admin"}, "smtp_out_url": {"admin"}, "imap_url": {"admin", "smtp-in"},
                    "lmtp_address": {"smtp-out"}, "forward_address": {"smtp-in"}}[setting]  # fmt: skip
    for name in told:
        wanted = f"{'http://' if url else ''}{asked}:{INSIDE[door]}"
        assert HOST["services"][name]["environment"][setting.upper()] == wanted


@pytest.mark.parametrize(("name", "setting"), [("acme", "proof_addresses"), ("admin", "gate_addresses")])
def test_who_tries_the_listeners_finds_them_at_the_worlds_ports(name: str, setting: str) -> None:
    assert HOST["services"][name]["environment"][setting.upper()] == defaults()[setting]
    raw = yaml.load((ROOT / "compose.host.yaml").read_text(), Loader)
    ports = re.findall(r"\$\{(\w+_PORT):-", raw["services"][name]["environment"][setting.upper()])
    assert len(ports) == str(defaults()[setting]).count(":")


def test_what_only_neighbours_ask_is_never_opened_on_a_public_address() -> None:
    stack = ipaddress.ip_network("10.214.81.0/24")
    for name, doors in DOORS.items():
        for setting in doors.keys() & {"LMTP_LISTEN", "FORWARD_LISTEN", "HTTP_LISTEN"}:
            host, _ = host_and_port(HOST["services"][name]["environment"][setting])
            assert ipaddress.ip_address(host) in stack


@pytest.mark.parametrize("name", ASKS)
def test_each_neighbour_is_known_by_an_address_of_the_pair(name: str) -> None:
    known = dict(entry.split(":") for entry in HOST["services"][name]["extra_hosts"])
    assert set(known) == ASKS[name]
    for other, address in known.items():
        if other in LISTENERS:
            assert address == gateway(pair(other, "admin" if name in LISTENERS else name))
        else:
            edge_or_pair = f"edge_{name}" if other == "unbound" else pair(name, other)
            network = f"scanners_{name}" if other in ("rspamd", "spamassassin", "clamav") else edge_or_pair
            assert fixed(other)[network] == address


def test_a_fixed_address_is_the_last_of_its_network() -> None:
    """Docker gives the lowest free one: a container that is still on its way out never holds the last. The scanners
    have those before unbound's, on a network where only smtp-in takes what Docker gives."""
    given: dict[str, list[str]] = {}
    for name in BASE["services"]:
        for network, address in fixed(name).items():
            given.setdefault(network, []).append(address)
    for network, addresses in given.items():
        last = [str(host) for host in SUBNETS[network].hosts()][-len(addresses) :]
        assert sorted(addresses) == last, network


def test_the_edges_of_listeners_get_ipv6_and_keep_their_ipv4() -> None:
    assert set(IPV6) == {"networks"}
    assert set(IPV6["networks"]) == {f"edge_{name}" for name in LISTENERS}
    for name, network in IPV6["networks"].items():
        assert network["enable_ipv6"] is True
        v4, v6 = (ipaddress.ip_network(each["subnet"]) for each in network["ipam"]["config"])
        assert v4 == SUBNETS[name]
        assert v6.subnet_of(ipaddress.ip_network("fd00::/8")) and int(v6[0]) & 0xFFFFFFFF == int(v4[0])  # type: ignore[arg-type]
        assert v6.num_addresses == v4.num_addresses
