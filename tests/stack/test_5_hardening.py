"""From inside each container: what it cannot write, reach, read or become; found out by trying, as an intruder would.

`probe.py` runs in the container with its user and limits; unbound has no Python, so there it runs in a container that
joins unbound's network, processes and volumes, and bash looks at unbound's own root. What each may do stands in
docs/containers.md, which tests/architecture/test_containers_page.py holds to compose.yaml.
"""

import functools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailclients import letter, until
from stack import CONTAINERS, ROOMS, Stack, must, sh

from services.runtime import secrets

PROBE = Path(__file__).with_name("probe.py")
LISTENS = {
    "smtp-in": (24, 25, 8000, 10025), "smtp-out": (465, 587, 8000, 10025), "imap": (143, 993, 8000), "dkim": (8000,),
    "acme": (8000,), "admin": (8000, 8080), "updater": (8000,), "docker-filter": (2375, 8000), "unbound": (53,),
}  # fmt: skip
CLOSED = 9  # discard: what accepts there is no container of ours
PORTS = sorted({CLOSED, 22, 80, 443, *(port for ports in LISTENS.values() for port in ports)})
# Docker's own in every container.
STANDARD = {"/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
DEVICES = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
           "urandom", "zero", "console"}  # fmt: skip
NO_WAY_OUT = ("dkim", "updater", "docker-filter")
OUTSIDE = ("198.51.100.7", 443)  # RFC 5737: nobody has it, but where a provider answers for everybody somebody does
# Kept in memory, small, without execution and devices. /dev itself is root's, and root by name is uid 0.
DOCKERS_OWN = {"/dev", "/dev/shm", "/dev/mqueue"}
# Every folder of the container's own root (its mounts are the probe's), one try each.
WRITE_ROOT = (
    'find / -xdev -type d -print0 2>/dev/null | while IFS= read -r -d "" folder; do '
    '{ true >"$folder/.probe"; } 2>/dev/null && printf "%s\\n" "$folder" && rm -f "$folder/.probe"; done; true'
)


@functools.cache
def composed(stack: Stack) -> dict[str, Any]:
    """compose.yaml as Compose reads it here, with the test world's file over it."""
    found: dict[str, Any] = json.loads(must(stack.compose("config", "--format", "json")))["services"]
    return found


def addresses(stack: Stack, service: str) -> dict[str, str]:
    """Network → the container's address there."""
    return {name: place["IPAddress"] for name, place in stack.inspect(service)["NetworkSettings"]["Networks"].items()}


@pytest.fixture(scope="module")
def machine() -> Iterator[int]:
    """A port that this machine serves on all its addresses, as sshd would."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


@functools.cache
def gateways(stack: Stack) -> tuple[str, ...]:
    """The addresses that the machine has, or would have, in the stack's networks."""
    names = must(sh("docker", "network", "ls", "--filter", f"label=com.docker.compose.project={stack.project}", "-q"))
    found = json.loads(must(sh("docker", "network", "inspect", *names.split())))
    subnets = [each["Subnet"] for network in found for each in network["IPAM"]["Config"] if ":" not in each["Subnet"]]
    return tuple(f"{prefix}.{int(last) + 1}" for prefix, _, last in (s.split("/")[0].rpartition(".") for s in subnets))


@functools.cache
def probe(stack: Stack, service: str, machine: int) -> dict[str, Any]:
    """What `probe.py` finds in the service's container."""
    others = [address for each in CONTAINERS if each != service for address in addresses(stack, each).values()]
    targets = [(address, port) for address in others for port in PORTS]
    targets += [OUTSIDE, *((address, machine) for address in gateways(stack))]
    question = json.dumps({"targets": targets, "names": [*CONTAINERS, "outside.test", "example.com"]})
    python = ("python3", "-I", "-S", "-", question)
    if service != "unbound":
        return dict(json.loads(must(stack.execute(service, *python, stdin=PROBE.read_bytes()))))
    own, image = stack.container(service), stack.inspect("imap")["Config"]["Image"]
    beside = (
        *("--network", f"container:{own}", "--pid", f"container:{own}", "--volumes-from", own, "--user", "10008:10008"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--pids-limit", "128"),
        *("--tmpfs", "/tmp:noexec,nosuid,nodev", "--memory", "96m"),
    )
    return dict(json.loads(must(sh("docker", "run", "--rm", "-i", *beside, image, *python, stdin=PROBE.read_bytes()))))


every = pytest.mark.parametrize("service", CONTAINERS)


@every
def test_nothing_of_the_root_can_be_written(stack: Stack, service: str) -> None:
    """What is found writable is a mount, and which of these may be stands below."""
    written = set(must(stack.execute(service, "bash", "-c", WRITE_ROOT)).splitlines())
    temporary = {entry.split(":")[0] for entry in composed(stack)[service]["tmpfs"]}
    assert written <= {volume["target"] for volume in composed(stack)[service]["volumes"]} | temporary | DOCKERS_OWN


@every
def test_the_mounts_are_those_of_compose_and_only_its_own_can_be_written(
    stack: Stack, service: str, machine: int
) -> None:
    found = probe(stack, service, machine)
    wanted = {
        volume["target"]: "ro" if volume.get("read_only") else "rw" for volume in composed(stack)[service]["volumes"]
    }
    wanted = {target.replace("/var/run/", "/run/"): mode for target, mode in wanted.items()}
    temporary = {entry.split(":")[0] for entry in composed(stack)[service]["tmpfs"]}
    if service == "unbound":
        temporary.discard("/run/unbound")  # its alone: what joins it has none
    mounted = {point: mode for point, mode in found["mounts"].items() if not point.startswith(("/proc", "/sys"))}
    assert {point: mode for point, mode in mounted.items() if point not in STANDARD | temporary} == wanted
    assert mounted["/"] == "ro" and temporary <= set(mounted)
    writable = {point for point, mode in wanted.items() if mode == "rw"} | temporary | DOCKERS_OWN
    if not composed(stack)[service]["user"].startswith("0:"):
        writable.discard("/dev")
    if service == "smtp-in":
        writable.discard("/var/mail")  # it adds below, to folders that let it
    assert set(found["writable"]) == writable


@every
def test_only_its_neighbours_answer(stack: Stack, service: str, machine: int) -> None:
    here = set(addresses(stack, service))
    wanted = {
        (address, port)
        for other in CONTAINERS if other != service
        for network, address in addresses(stack, other).items() if network in here
        for port in LISTENS[other]
    }  # fmt: skip
    reached = {(address, port) for address, port in probe(stack, service, machine)["reached"]}
    # The machine has no route into the pairs' networks, so who has a way out asks the outside there. Where a provider's
    # proxy answers for every address, it answers on every port.
    proxied = {address for address, port in reached if port == CLOSED}
    assert not proxied & {address for address, _ in wanted}
    assert {
        (address, port) for address, port in reached if port in PORTS and address not in {*proxied, OUTSIDE[0]}
    } == wanted


@pytest.mark.parametrize("service", [*NO_WAY_OUT, "imap", "admin"])
def test_who_has_no_way_out_gets_no_answer_from_outside(stack: Stack, service: str, machine: int) -> None:
    assert list(OUTSIDE) not in probe(stack, service, machine)["reached"]


@every
def test_only_its_neighbours_have_names(stack: Stack, service: str, machine: int) -> None:
    here = set(addresses(stack, service))
    wanted = {other for other in CONTAINERS if here & set(addresses(stack, other))} - {service}
    names = set(probe(stack, service, machine)["names"]) - {service}
    if service == "unbound":
        names -= {"outside.test", "example.com"}  # whom else would it ask
    assert names == wanted


@every
def test_the_machines_own_ports_are_closed_to_who_has_no_way_out(stack: Stack, service: str, machine: int) -> None:
    gates = {address for address, port in probe(stack, service, machine)["reached"] if port == machine}
    if service in NO_WAY_OUT:
        assert not gates
    else:
        assert gates, (
            "an edge has a gateway, and what the machine serves on all its addresses is there: docs/containers.md"
        )


@pytest.mark.parametrize("network", ["edge_imap", "edge_admin"])
def test_an_edge_that_only_answers_is_not_masqueraded(stack: Stack, network: str) -> None:
    options = json.loads(must(sh("docker", "network", "inspect", f"{stack.project}_{network}")))[0]["Options"]
    assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"


@every
def test_it_has_no_power_and_gets_none(stack: Stack, service: str, machine: int) -> None:
    found = probe(stack, service, machine)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found["status"][kind], 16) == 0, kind
    assert found["status"]["NoNewPrivs"] == "1"
    if "seccomp" in must(sh("docker", "info", "--format", "{{.SecurityOptions}}")):
        assert found["status"]["Seccomp"] == "2"
    assert [action for action, no in found["refused"].items() if not no] == []
    wanted = composed(stack)[service]
    uid, gid = wanted["user"].split(":")
    assert found["status"]["Uid"].split() == [uid] * 4 and found["status"]["Gid"].split() == [gid] * 4
    if service != "unbound":
        groups = {gid, *(str(group) for group in wanted.get("group_add", []))}
        assert set(found["status"]["Groups"].split()) == groups


@every
def test_its_limits_hold(stack: Stack, service: str, machine: int) -> None:
    found, wanted = probe(stack, service, machine), composed(stack)[service]
    assert found["pids"] == str(wanted["pids_limit"]) == "128"
    assert found["memory"] == str(wanted["mem_limit"])
    assert set(found["devices"]) <= DEVICES


@every
def test_no_file_makes_its_runner_another_user(stack: Stack, service: str) -> None:
    find = "find / -xdev -type f -perm /6000 2>/dev/null || true"
    assert must(stack.execute(service, "bash", "-c", find)) == ""


@pytest.mark.parametrize("service", ROOMS)
def test_it_sees_no_process_but_its_own_and_no_setting_in_its_environment(
    stack: Stack, service: str, machine: int
) -> None:
    found = probe(stack, service, machine)
    module = f"services.{service.replace('-', '_')}"
    foreign = [
        line for line in found["commands"] if module not in line and "-I -S -" not in line and "healthcheck" not in line
    ]
    assert foreign == []
    # The relay's password among them: settings are handed over in a file that has no name.
    assert set(found["environment"]) == {"MALLOC_ARENA_MAX", "PATH", "PYTHONPATH", "PYTHONUNBUFFERED"}


def test_no_two_containers_share_a_namespace(stack: Stack, machine: int) -> None:
    for kind in ("pid", "net", "mnt", "ipc", "uts"):
        found = [probe(stack, service, machine)["namespaces"][kind] for service in CONTAINERS]
        assert len(set(found)) == len(CONTAINERS), kind


@every
def test_it_holds_the_secrets_of_its_pairs_and_no_other(stack: Stack, service: str, machine: int) -> None:
    wanted = sorted(secrets.names_for(service)) if service != "unbound" else []
    assert probe(stack, service, machine)["secrets"] == wanted


CERTS = "/var/lib/mailstead/certs/"
HASHES = {"admin", "imap", "smtp-out"}
CERTIFICATE_KEYS = {"acme", "admin", "imap", "smtp-in", "smtp-out"}


@every
def test_hashes_and_keys_are_read_only_where_they_are_needed(
    stack: Stack, service: str, machine: int, ann: str
) -> None:
    hashes = probe(stack, service, machine)["contents"]["$argon2id$"]
    keys = probe(stack, service, machine)["contents"]["PRIVATE KEY-----"]
    assert bool(hashes) == (service in HASHES), hashes
    assert bool(keys) == (service in CERTIFICATE_KEYS | {"dkim"}), keys
    allowed = {"dkim": ("/var/lib/mailstead/dkim/",), "acme": (CERTS, "/var/lib/mailstead/room/ca/")}.get(
        service, (CERTS,)
    )
    assert [path for path in keys if not path.startswith(allowed)] == []


@pytest.mark.parametrize("service", ROOMS)
def test_the_record_of_others_is_admins_alone(stack: Stack, service: str) -> None:
    seen = must(stack.execute(service, "ls", "/var/lib/mailstead/events")).split()
    assert sorted(seen) == (sorted(ROOMS) if service == "admin" else [service])


# Runs in smtp-in, as smtp-in: what it can do to a message that lies in a mailbox under a name that it knows.
TOUCH = """
import json, os, sys
known, folder = sys.argv[1:]
def tried(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.strerror
    return "allowed"
def overwrite(path):
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
def add(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o660))
json.dump({
    "list cur": tried(os.listdir, folder + "/cur"), "list new": tried(os.listdir, folder + "/new"),
    "list account": tried(os.listdir, folder), "list accounts": tried(os.listdir, os.path.dirname(folder)),
    "list domains": tried(os.listdir, "/var/mail"), "look": tried(os.stat, known), "read": tried(open, known, "rb"),
    "overwrite": tried(overwrite, known), "delete": tried(os.unlink, known),
    "move": tried(os.rename, known, folder + "/tmp/stolen"), "link": tried(os.link, known, folder + "/tmp/stolen"),
    "read state": tried(os.listdir, "/var/lib/mailstead/imap"), "add to cur": tried(add, folder + "/cur/forged"),
    "make a folder": tried(os.mkdir, folder + "/.Forged"), "remove new": tried(os.rename, folder + "/new", folder + "/old"),
    "make an account": tried(os.mkdir, os.path.dirname(folder) + "/mallory"), "add to the root": tried(add, "/var/mail/x"),
    "add": tried(add, folder + "/new/1.probe.example"),
}, sys.stdout)
"""


def test_smtp_in_adds_to_a_mailbox_and_neither_lists_nor_reads_nor_takes_from_it(stack: Stack, ann: str) -> None:
    sent = letter("friend@outside.test", ann, body=b"sealed\r\n")
    stack.receive("friend@outside.test", ann, message=sent.message)
    stack.letter(ann, sent.message_id)
    folder = "/var/mail/example.test/ann"
    find = ("grep", "-rlF", sent.message_id, f"{folder}/cur")
    known = until(lambda: stack.execute("imap", *find).output.strip(), 20)
    done = stack.execute("smtp-in", "python3", "-I", "-S", "-c", TOUCH, known, folder)
    tried = json.loads(must(done))
    assert tried.pop("add") == "allowed", "that is what it is for"
    assert set(tried.values()) <= {"Permission denied", "No such file or directory"}, tried
    assert tried["read"] == tried["delete"] == tried["overwrite"] == tried["list new"] == "Permission denied"
    assert sent.message in must(stack.execute("imap", "cat", known)).encode().replace(b"\n", b"\r\n").replace(
        b"\r\r", b"\r"
    )
    # What it added is taken in as any other message; it goes again, so that later tests find what they expect.
    until(
        lambda: (
            stack.execute(
                "imap", "bash", "-c", f"rm -f {folder}/new/1.probe.example* {folder}/cur/1.probe.example*"
            ).status
            == 0
        ),
        5,
    )
