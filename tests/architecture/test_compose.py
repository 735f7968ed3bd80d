"""Holds compose.yaml to the design: who mounts, joins, opens and may do what, service by service.

The tables below are the design (ARCHITECTURE, "The containers"); compose.yaml must say neither more nor less. What is
read here is the file as written, with every variable at its default, as on a fresh machine.
"""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import secrets
from services.setup import places

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", (ROOT / "compose.yaml").read_text())
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ROOMS = places.ROOMS
SCANNERS = ("rspamd", "spamassassin", "clamav")
RUNNING = (*ROOMS, "unbound", *SCANNERS)
ONE_SHOT = ("setup", "backup")

# What each running service mounts: volume or host folder → (where, writable).
LIB = "/var/lib/mailstead"
MOUNTS: dict[str, dict[str, tuple[str, bool]]] = {
    "smtp-in": {
        "mail": ("/var/mail", True),
        "routing": (f"{LIB}/routing", False),
        "personal": (f"{LIB}/personal", False),
        "certs": (f"{LIB}/certs", False),
    },
    "smtp-out": {
        "spool": ("/var/spool/mailstead", True),
        "routing": (f"{LIB}/routing", False),
        "auth": (f"{LIB}/auth", False),
        "certs": (f"{LIB}/certs", False),
        "relay": ("/etc/mailstead/relay", False),
    },
    "imap": {
        "mail": ("/var/mail", True),
        "imap-state": (f"{LIB}/imap", True),
        "auth": (f"{LIB}/auth", False),
        "personal": (f"{LIB}/personal", True),
        "certs": (f"{LIB}/certs", False),
    },
    "dkim": {"dkim": (f"{LIB}/dkim", True)},
    "acme": {
        "certs": (f"{LIB}/certs", True),
        "/etc/letsencrypt": ("/etc/letsencrypt", False),
        "certificate": ("/etc/mailstead/certificate", False),
    },
    "admin": {
        "admin": (f"{LIB}/admin", True),
        "routing": (f"{LIB}/routing", True),
        "auth": (f"{LIB}/auth", True),
        "certs": (f"{LIB}/certs", False),
        **{f"events-{room}": (f"{LIB}/events/{room}", False) for room in ROOMS if room != "admin"},
    },
    "updater": {},
    "unbound": {"unbound": ("/var/lib/unbound", True)},
    **{name: {name: (f"/var/lib/{name}", True)} for name in ("rspamd", "spamassassin", "clamav")},
    "docker-filter": {"/var/run/docker.sock": ("/var/run/docker.sock", False)},
}
for _room in ROOMS:
    MOUNTS[_room][f"events-{_room}"] = (f"{LIB}/events/{_room}", True)
    if _room not in places.WITHOUT_FOLDER:
        MOUNTS[_room][f"room-{_room}"] = (f"{LIB}/room", True)
    MOUNTS[_room][f"secrets-{_room}"] = ("/run/mailstead/secrets", False)

# acme looks at the certificate each listener serves; it needs no secret for that.
PROOF = {("acme", "smtp-in"), ("acme", "smtp-out"), ("acme", "imap")}
# Who meets the outside, and whether unbound is asked there.
EDGES = {"smtp-in": True, "smtp-out": True, "acme": True, "imap": False, "admin": False}
# Container port → the service that opens it.
PORTS = {25: "smtp-in", 10025: "smtp-in", 465: "smtp-out", 587: "smtp-out", 993: "imap", 143: "imap", 8080: "admin"}
# Files of env/ beside the house's and the record's, which every room is given.
ENV = {
    "smtp-in": {"limits", "filter", "edge"},
    "smtp-out": {"limits", "relay", "queue", "updater"},  # it posts UPDATE_WEBHOOK_URL
    "imap": {"limits"},
    "dkim": set(),
    "acme": {"tls"},
    "admin": {"limits", "admin", "filter"},
    "updater": {"updater"},
    "docker-filter": set(),
}
GROUPS = {
    "smtp-in": {5000, 5002},
    "smtp-out": {5002, 5003},
    "imap": {5002, 5003},
    "acme": {5002},
    "admin": {5002},
}


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Source → (target, writable) of the short syntax, which is the only one in use."""
    found = {}
    for entry in service.get("volumes", []):
        source, target, *mode = entry.split(":")
        assert mode in ([], ["ro"]) and source not in found, entry
        found[source] = (target, mode == [])
    return found


def test_the_services_are_the_design() -> None:
    assert set(SERVICES) == {*RUNNING, *ONE_SHOT}
    assert FILE["name"] == "mailstead"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[0-9]+m", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 128
    assert service["logging"]["driver"] in ("json-file", "none")
    for key in (
        "privileged",
        "pid",
        "ipc",
        "devices",
        "extends",
        "sysctls",
        "userns_mode",
        "extra_hosts",
        "uts",
    ):
        assert key not in service, key


@pytest.mark.parametrize("name", RUNNING)
def test_a_running_service_is_watched_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"] == ["CMD", "healthcheck"], "no Python start for each check"
    assert check["interval"] == "60s"
    # Engine 20.10 refuses what it does not know.
    assert set(check) == {"test", "interval", "timeout", "retries", "start_period"}
    assert service["stop_grace_period"] == "20s"
    assert service["ulimits"]["nofile"]["soft"] <= service["ulimits"]["nofile"]["hard"]
    assert service["logging"]["options"] == {"max-size": "5m", "max-file": "2"}
    assert service["depends_on"]["setup"] == {"condition": "service_completed_successfully"}
    for entry in service["tmpfs"]:
        options = entry.split(":")[1].split(",")
        assert {"noexec", "nosuid", "nodev"} <= set(options), entry
        assert any(option.startswith("size=") for option in options), entry
    assert "cap_add" not in service
    assert "network_mode" not in service


@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_one_shot_has_no_network_and_three_capabilities(name: str) -> None:
    service = SERVICES[name]
    assert service["network_mode"] == "none"
    assert service["restart"] == "no"
    assert sorted(service["cap_add"]) == ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
    assert "ports" not in service and "env_file" not in service
    # Every group whose setgid bit it sets: the kernel drops the bit for others, without CAP_FSETID.
    setgid = {place.gid for place in places.places() if place.mode & 0o2000}
    assert {int(group) for group in service["group_add"]} == setgid


def test_only_setup_runs_by_itself() -> None:
    assert SERVICES["backup"]["profiles"] == ["tools"]
    assert SERVICES["backup"]["logging"] == {"driver": "none"}, "the tar on standard output is not a log"
    assert all("profiles" not in SERVICES[name] for name in (*ROOMS, "unbound", "setup"))
    for name in SCANNERS:
        assert SERVICES[name]["profiles"] == [name], "it runs where env/filter.env names it"


@pytest.mark.parametrize("name", RUNNING)
def test_a_service_runs_as_its_own_user(name: str) -> None:
    assert SERVICES[name]["user"] == f"{places.uid_of(name)}:{places.gid_of(name)}"
    assert {int(group) for group in SERVICES[name].get("group_add", [])} == GROUPS.get(name, set())


def test_no_two_services_share_a_user_but_the_two_that_are_root_by_name() -> None:
    users = [SERVICES[name]["user"] for name in RUNNING if name not in ("acme", "docker-filter")]
    assert len(users) == len(set(users))
    assert "0:0" not in users


@pytest.mark.parametrize("name", RUNNING)
def test_a_service_mounts_what_is_its_own(name: str) -> None:
    assert mounts(SERVICES[name]) == MOUNTS[name]


@pytest.mark.parametrize("name", ROOMS)
def test_mounts_are_where_setup_prepares_them(name: str) -> None:
    prepared = {place.volume: place.path for place in places.places()}
    for volume, (target, _) in mounts(SERVICES[name]).items():
        if volume in prepared:
            assert target == prepared[volume]
        else:
            assert not MOUNTS[name][volume][1], f"{volume} is not prepared by setup, so it is only read"


@pytest.mark.parametrize("name", ONE_SHOT)
def test_setup_and_backup_see_every_prepared_volume(name: str) -> None:
    prepared = {place.volume for place in places.places()}
    assert mounts(SERVICES[name]) == {volume: (f"/volumes/{volume}", True) for volume in prepared}


def test_every_volume_is_declared_and_used() -> None:
    named = {source for service in SERVICES.values() for source in mounts(service) if not source.startswith("/")}
    assert set(FILE["volumes"]) == named
    assert all(options is None for options in FILE["volumes"].values())


def test_the_docker_socket_is_seen_by_the_filter_alone() -> None:
    seeing = {name for name, service in SERVICES.items() if any("docker.sock" in source for source in mounts(service))}
    assert seeing == {"docker-filter"}


def expected_networks() -> dict[str, set[str]]:
    pairs = {*secrets.PAIRS, *PROOF}
    networks = {"_".join(sorted(pair)): set(pair) for pair in pairs}
    for room, asks in EDGES.items():
        networks[f"edge_{room}"] = {room, "unbound"} if asks else {room}
    # smtp-in asks them, and what they fetch is looked up by unbound.
    networks["scanners_smtp-in"] = {"smtp-in", *SCANNERS}
    networks["edge_scanners"] = {"unbound", *SCANNERS}
    return networks


def test_the_networks_join_exactly_the_pairs_that_talk() -> None:
    joined: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for network in service.get("networks", []):
            joined.setdefault(network, set()).add(name)
    assert joined == expected_networks()
    assert set(FILE["networks"]) == set(joined)


@pytest.mark.parametrize("name", FILE["networks"])
def test_only_an_edge_leads_out(name: str) -> None:
    network = FILE["networks"][name]
    if not name.startswith("edge_"):
        assert network["internal"] is True
        inhibited = network["driver_opts"]["com.docker.network.bridge.inhibit_ipv4"]
        assert inhibited == "true", "the host's own ports are not reached from there"
        return
    assert "internal" not in network, "Docker publishes no port from an internal network"
    closed = network.get("driver_opts", {}).get("com.docker.network.bridge.enable_ip_masquerade") == "false"
    assert closed is not {**EDGES, "scanners": True}[name.removeprefix("edge_")], (
        "who only answers reaches nothing outside"
    )


def test_the_networks_lie_apart_in_one_subnet() -> None:
    whole = ipaddress.ip_network("10.214.81.0/24")
    subnets = [ipaddress.ip_network(n["ipam"]["config"][0]["subnet"]) for n in FILE["networks"].values()]
    assert all(subnet.subnet_of(whole) and subnet.prefixlen == 29 for subnet in subnets)  # type: ignore[arg-type]
    assert len(set(subnets)) == len(subnets)


def test_published_ports_are_the_listeners_and_admin_is_on_loopback() -> None:
    published = {}
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port["mode"] == "host"
            assert port["published"] == str(port["target"])
            # The page, and mail of which a proxy says where it comes from: this machine's own, until the owner says so.
            assert port["host_ip"] == ("127.0.0.1" if port["target"] in (8080, 10025) else "")
            published[port["target"]] = name
    assert published == PORTS


def test_every_published_port_comes_from_the_environment() -> None:
    raw = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for service in raw["services"].values():
        for port in service.get("ports", []):
            assert re.fullmatch(r"\$\{[A-Z]+_PORT:-[0-9]+\}", port["published"])
            assert re.fullmatch(r"\$\{(BIND_ADDRESS|ADMIN_BIND|PROXY_BIND):-[0-9.]*\}", port["host_ip"])


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_asks_nobody_but_unbound_for_outside_names(name: str) -> None:
    assert SERVICES[name]["dns"] == ["127.0.0.1"], "nobody answers there, so Docker's resolver forwards nothing"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_given_the_settings_that_concern_it(name: str) -> None:
    files = SERVICES[name]["env_file"]
    assert all(entry["required"] is False for entry in files), "the stack starts without any env file"
    assert {entry["path"] for entry in files} == {f"env/{each}.env" for each in {"mailstead", "events", *ENV[name]}}
    # The filter must know whose containers it may touch, the page whether it is open to more than this machine.
    wanted = {
        "docker-filter": {"COMPOSE_PROJECT_NAME", "MAILSTEAD_REGISTRY"},
        "admin": {"ADMIN_BIND", "CLIENT_IMAPS_PORT", "CLIENT_SUBMISSIONS_PORT"},
    }
    assert set(SERVICES[name].get("environment", {})) == wanted.get(name, set())


@pytest.mark.parametrize("name", ROOMS)
def test_the_rooms_share_one_image_and_start_their_own_module(name: str) -> None:
    assert SERVICES[name]["image"] == SERVICES["setup"]["image"] == SERVICES["backup"]["image"]
    assert SERVICES[name]["command"] == ["python3", "-m", f"services.{name.replace('-', '_')}"]
    assert "build" not in SERVICES[name], "setup builds it, once"


def test_what_is_built_is_built_from_this_tree() -> None:
    built = {name: service["build"] for name, service in SERVICES.items() if "build" in service}
    assert set(built) == {"setup", "unbound", *SCANNERS}
    for build in built.values():
        assert build["context"] == "."
        dockerfile = (ROOT / build["dockerfile"]).read_text()
        assert not dockerfile.startswith("# syntax"), "it would be fetched from a registry"
        assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) <= {"debian:trixie-slim", "python"}
        assert "LABEL mailstead.source=" in dockerfile
