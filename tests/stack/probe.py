"""What a process in a container finds that it can do; given to that container's own Python on standard input.

`python3 -I -S - '{"targets": [[address, port], ...], "names": [...]}'`; prints one JSON object. It needs nothing but the
standard library, keeps nothing, and says what it found, not what should be: that is for test_5_hardening.py.
"""

import concurrent.futures
import ctypes
import errno
import json
import os
import selectors
import socket
import sys
import time

CONNECT_SECONDS = 3.0
LARGEST = 8 << 20
# Where a process might find what is not its own.
KEPT = ("/etc/letsencrypt", "/etc/mailstead", "/run", "/tmp", "/var/lib", "/var/mail", "/var/spool", "/dev/shm")


def reached(targets: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those that accept a connection, all tried at once: what drops packets would take its time-out each."""
    found, trying = [], selectors.DefaultSelector()
    for target in targets:
        line = socket.socket()
        line.setblocking(False)
        if line.connect_ex(target) in (0, errno.EINPROGRESS):
            trying.register(line, selectors.EVENT_WRITE, target)
        else:
            line.close()
    deadline = time.monotonic() + CONNECT_SECONDS
    while trying.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in trying.select(left):
            assert isinstance(key.fileobj, socket.socket)
            if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(key.data)
            trying.unregister(key.fileobj)
            key.fileobj.close()
    return found


def resolved(name: str) -> bool:
    try:
        socket.getaddrinfo(name, 25)
    except OSError:
        return False
    return True


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def mounts() -> dict[str, str]:
    """Mount point → "ro" or "rw", the last one on top."""
    with open("/proc/self/mountinfo") as file:
        return {fields[4]: fields[5].split(",")[0] for fields in (line.split() for line in file)}


def writable(folder: str) -> bool:
    path = os.path.join(folder, f".probe{os.getpid()}")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError:
        return False
    os.unlink(path)
    return True


def containing(*marks: bytes) -> dict[str, list[str]]:
    """Mark → the readable files that hold it."""
    found: dict[str, list[str]] = {mark.decode(): [] for mark in marks}
    for top in KEPT:
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    if not os.path.isfile(path):
                        continue
                    with open(path, "rb") as file:
                        data = file.read(LARGEST)
                except OSError:
                    continue
                for mark in marks:
                    if mark in data:
                        found[mark.decode()].append(path)
    return found


def listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def refused(action: object, *arguments: object) -> bool:
    """True when the kernel says no, or has no such thing; what it allowed is a finding."""
    try:
        action(*arguments)  # type: ignore[operator]
    except OSError as error:
        return error.errno in (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT)
    return False


def mount() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def write(path: str) -> None:
    with open(path, "r+") as file:
        file.write(file.read())


def execute_from_tmp() -> None:
    with open("/tmp/probe.sh", "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod("/tmp/probe.sh", 0o755)
    try:
        if os.spawnv(os.P_WAIT, "/tmp/probe.sh", ["probe"]) == 127:
            raise PermissionError(errno.EACCES, "noexec")
    finally:
        os.unlink("/tmp/probe.sh")


def cgroup(*names: str) -> str:
    for name in names:
        try:
            with open(f"/sys/fs/cgroup/{name}") as file:
                return file.read().strip()
        except OSError:
            continue
    return ""


def commands() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found.append(file.read().replace(b"\0", b" ").decode().strip())
        except OSError:
            continue
    return found


def environment() -> list[str]:
    try:
        with open("/proc/1/environ", "rb") as file:
            return sorted(entry.partition(b"=")[0].decode() for entry in file.read().split(b"\0") if entry)
    except OSError:
        return []


def main() -> None:
    asked = json.loads(sys.argv[1])
    os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"  # for names that nobody knows
    with concurrent.futures.ThreadPoolExecutor(len(asked["names"])) as threads:
        names = list(threads.map(resolved, asked["names"]))
    mounted = mounts()
    found = {
        "status": status(),
        "mounts": mounted,
        "writable": sorted(point for point in mounted if not point.startswith(("/proc", "/sys")) and writable(point)),
        "reached": reached([(address, port) for address, port in asked["targets"]]),
        "names": [name for name, known in zip(asked["names"], names, strict=True) if known],
        "secrets": listed("/run/mailstead/secrets"),
        "devices": listed("/dev"),
        "commands": commands(),
        "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net", "mnt", "ipc", "uts")},
        "environment": environment(),
        "pids": cgroup("pids.max", "pids/pids.max"),
        "memory": cgroup("memory.max", "memory/memory.limit_in_bytes"),
        "contents": containing(b"$argon2id$", b"PRIVATE KEY-----"),
        "refused": {
            "mount": refused(mount),
            "unshare": refused(os.unshare, 0x10000000),  # CLONE_NEWUSER: a user namespace gives capabilities again
            "mknod": refused(os.mknod, "/tmp/null", 0o20666, os.makedev(1, 3)),
            "setuid": refused(os.setuid, 12345),
            "chroot": refused(os.chroot, "/tmp"),
            "chown": refused(os.chown, "/tmp", 12345, -1),
            "sysctl": refused(write, "/proc/sys/kernel/domainname"),
            "sysrq": refused(write, "/proc/sysrq-trigger"),
            "execute from /tmp": refused(execute_from_tmp),
        },
    }
    json.dump(found, sys.stdout)


main()
