"""scripts/lib: what scripts/up asks of the machine, on tables of our own instead of /proc, and settings as Compose reads them."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROUTES = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def bash(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`script` with both libraries sourced and PROC = `folder`, in `folder`."""
    lines = f"set -euo pipefail\n. {ROOT}/scripts/lib/docker.sh\n. {ROOT}/scripts/lib/machine.sh\nPROC={folder}\n"
    return subprocess.run(
        ["bash", "-c", lines + script], cwd=folder, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "env").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        HEAD
        + "   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n"
        + "   1: 0101A8C0:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n"
        + "   2: 0101A8C0:01BB 0201A8C0:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n"
    )
    (tmp_path / "net" / "tcp6").write_text(
        HEAD + "   0: 00000000000000000000000000000000:03E1 00000000000000000000000000000000:0000 0A 00000000:00000000 "
        "00:00000000 00000000     0        0 4714 1 0 100 0 0 10 0\n"
        + "   1: 0000000000000000FFFF00000100007F:008F 00000000000000000000000000000000:0000 0A 00000000:00000000 "
        "00:00000000 00000000     0        0 4715 1 0 100 0 0 10 0\n"
    )
    return tmp_path


def test_a_second_stack_is_the_same_for_every_script(proc: Path) -> None:
    """scripts/restore --force, told of the second, once stood before the first."""
    named = bash('printf %s "$COMPOSE_PROJECT_NAME"', proc, MAILSTEAD_PROJECT="second", COMPOSE_PROJECT_NAME="first")
    assert named.stdout == "second"


@pytest.mark.parametrize(
    ("port", "address", "inode"),
    [
        (25, "", "4711"),  # exim on loopback stands in the way of a listener on every address
        (25, "127.0.0.1", "4711"),
        (25, "192.168.1.1", ""),
        (80, "192.168.1.1", "4712"),
        (443, "", ""),  # a connection from there is not a listener
        (993, "127.0.0.1", "4714"),  # a wildcard of IPv6 takes IPv4 too
        (143, "127.0.0.1", "4715"),
        (143, "192.168.1.1", ""),
        (587, "", ""),
    ],
)
def test_a_port_is_taken_where_a_listener_would_collide(proc: Path, port: int, address: str, inode: str) -> None:
    assert bash(f"listener_on {port} '{address}'", proc).stdout == inode


def test_the_holder_of_a_port_is_named(proc: Path) -> None:
    (proc / "812" / "fd").mkdir(parents=True)
    (proc / "812" / "comm").write_text("exim4\n")
    (proc / "812" / "fd" / "3").symlink_to("socket:[4711]")
    assert bash("owner_of 4711", proc).stdout == "exim4 (pid 812)"
    assert bash("owner_of 47", proc).stdout == ""


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ("exim4 (pid 1)", "systemctl disable --now exim4"),
        ("master (pid 1)", "systemctl disable --now postfix"),
        ("dovecot (pid 1)", "systemctl disable --now dovecot"),
        ("nc (pid 1)", "stop it"),
    ],
)
def test_the_advice_fits_the_holder(proc: Path, owner: str, words: str) -> None:
    told = bash(f"advice_for '{owner}' 25 SMTP_PORT", proc).stdout
    assert words in told and told.endswith("or set another SMTP_PORT in env/ports.env")


@pytest.mark.parametrize(
    ("routes", "subnet", "free"),
    [
        ("eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", "10.214.81", True),  # the default route
        ("eth0\t0051D60A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", "10.214.81", False),
        ("eth0\t0051D60A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", "10.214.82", True),
        ("wg0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", "10.214.81", False),  # 10.0.0.0/8
        ("br\t8051D60A\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\t0\t0\n", "10.214.81", False),  # a /29 within
        ("docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", "172.17.3", False),
    ],
)
def test_a_subnet_is_free_where_no_route_leads(proc: Path, routes: str, subnet: str, free: bool) -> None:
    (proc / "net" / "route").write_text(ROUTES + routes)
    assert (bash(f"subnet_is_free {subnet}", proc).returncode == 0) is free


def with_docker(proc: Path) -> str:
    """A PATH on which `docker` knows no network yet."""
    (proc / "bin").mkdir()
    (proc / "bin" / "docker").write_text("#!/bin/sh\n")
    (proc / "bin" / "docker").chmod(0o755)
    return f"{proc}/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_another_subnet_is_chosen_and_written_down(proc: Path) -> None:
    (proc / "net" / "route").write_text(ROUTES + "eth0\t0051D60A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
    example = (ROOT / "env" / "ports.env.example").read_text()
    (proc / "env" / "ports.env").write_text(example)
    done = bash("choose_subnet mailstead; setting MAILSTEAD_SUBNET none", proc, PATH=with_docker(proc))
    assert done.stdout.endswith("10.214.82") and "10.214.81.0/24 is in use" in done.stdout
    changed = (proc / "env" / "ports.env").read_text()
    assert changed == example.replace("#MAILSTEAD_SUBNET=10.214.81\n", "MAILSTEAD_SUBNET=10.214.82\n")


def test_a_subnet_that_the_owner_chose_is_never_replaced(proc: Path) -> None:
    (proc / "net" / "route").write_text(ROUTES + "eth0\t0051D60A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
    (proc / "env" / "ports.env").write_text("MAILSTEAD_SUBNET=10.214.81\n")
    done = bash("choose_subnet mailstead", proc, PATH=with_docker(proc))
    assert done.returncode == 1 and "choose another" in done.stderr
    assert (proc / "env" / "ports.env").read_text() == "MAILSTEAD_SUBNET=10.214.81\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#SMTP_PORT=25\n", "default"),
        ("SMTP_PORT=2525\n", "2525"),
        ("SMTP_PORT=2525 # a comment\n", "2525"),
        ("SMTP_PORT='2525'\n", "2525"),
        ('SMTP_PORT="2525"  \n', "2525"),
        ("SMTP_PORT=\n", "default"),
        ("OTHER_SMTP_PORT=1\n", "default"),
        ("SMTP_PORT=1\nSMTP_PORT=2\n", "2"),
        ("", "default"),
    ],
)
def test_a_setting_is_read_as_compose_reads_it(proc: Path, text: str, value: str) -> None:
    (proc / "env" / "ports.env").write_text(text)
    assert bash("setting SMTP_PORT default", proc).stdout == value


def test_the_callers_environment_goes_before_the_file(proc: Path) -> None:
    (proc / "env" / "ports.env").write_text("SMTP_PORT=2525\n")
    assert bash("setting SMTP_PORT default", proc, SMTP_PORT="26").stdout == "26"


@pytest.mark.parametrize(
    ("have", "wanted", "enough"),
    [("2.26.1", "2.24", True), ("2.24", "2.24", True), ("2.9.0", "2.24", False), ("5.0.0", "2.24", True)],
)
def test_versions_are_compared_as_numbers(proc: Path, have: str, wanted: str, enough: bool) -> None:
    assert (bash(f"version_at_least {have} {wanted}", proc).returncode == 0) is enough


def test_the_sum_of_the_source_knows_names_contents_and_modes_but_no_cache(proc: Path) -> None:
    source = proc / "services"
    (source / "__pycache__").mkdir(parents=True)
    (source / "room.py").write_text("x = 1\n")

    def total() -> str:
        return bash("source_sum services", proc).stdout

    sums = [total()]
    (source / "__pycache__" / "room.pyc").write_bytes(b"derived")
    assert total() == sums[0]
    (source / "room.py").write_text("x = 2\n")
    sums.append(total())
    (source / "room.py").chmod(0o755)
    sums.append(total())
    (source / "room.py").rename(source / "hall.py")
    sums.append(total())
    assert len(set(sums)) == 4


@pytest.mark.parametrize(
    ("bind", "page"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/"),
        ("::1", "http://[::1]:8080/"),
        ("192.168.1.5", "https://192.168.1.5:8080/"),
        ("fd00::5", "https://[fd00::5]:8080/"),
        ("[fd00::5]", "https://[fd00::5]:8080/"),
        ("0.0.0.0", "https://192.0.2.7:8080/"),
        ("::", "https://192.0.2.7:8080/"),
    ],
)
def test_the_pages_address_has_tls_beyond_loopback(proc: Path, bind: str, page: str) -> None:
    told = bash(f"first_address() {{ echo 192.0.2.7; }}; page_address '{bind}' 8080", proc)
    assert told.stdout == page, told.stderr


ROOMY = (
    "df() { printf 'head\\n/dev/x 9000000 1 9000000 1%% /\\n'; }; docker() { [[ $* == *MemoryLimit* ]] && echo LIMIT || echo /; }; "
    "BOOT=$PWD; enough_room"
)


@pytest.mark.parametrize(
    ("limit", "boot", "told"),
    [
        ("true", "/boot/firmware/cmdline.txt", ""),
        ("false", "/boot/firmware/cmdline.txt", "/boot/firmware/cmdline.txt"),
        ("false", "/boot/cmdline.txt", "/boot/cmdline.txt"),
        ("false", "", "/etc/default/grub"),
    ],
)
def test_a_kernel_without_memory_limits_is_said_in_a_line_and_no_obstacle(
    proc: Path, limit: str, boot: str, told: str
) -> None:
    (proc / "meminfo").write_text("MemAvailable:  900000 kB\n")
    if boot:
        (proc / boot[1:]).parent.mkdir(parents=True)
        (proc / boot[1:]).write_text("console=tty1\n")
    done = bash(ROOMY.replace("LIMIT", limit), proc)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "cgroup_enable=memory cgroup_memory=1" in line] == (
        [done.stderr.strip()] if told else []
    )
    assert told in done.stderr
