"""smtp-in on a disk that is not at its best: a mailbox of 200,000 messages, and a writer that keeps the disk busy.

Two figures, both beside Debian's Postfix in the same run, both with MAIL_CHECKS=off:

* messages a second into a Maildir that has 200,000 files, over those into an empty one (bar: not under 1 / 1.2);
* the longest wait from the final dot to 250 while `dd` writes and fsyncs without a pause, over Postfix's (bar: 2).

Bounded: 200,000 empty files, ten minutes, and 256 MiB of what dd writes again and again.
"""

import contextlib
import os
import shutil
import smtplib
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services import __main__ as single
from tests.bench.postfix import Postfix
from tests.bench.smtp_in import OCTETS, RECIPIENT, ROUNDS, Side, one_round, smtp_in
from tests.certificates import issue

LARGE = 200_000
SESSIONS, EACH = 10, 60
BAR_LARGE, BAR_BUSY = 1.2, 2.0


def measure() -> dict[str, Any]:
    """Both figures."""
    issued = issue("mail.bench.test", now=time.time())
    folder = Path(tempfile.mkdtemp(prefix="mailstead-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        (folder / "ours").mkdir()
        peer = Postfix(folder / "postfix", single._free_ports()["smtp"], issued.chain + issued.key)
        peer.start()
        try:
            with smtp_in(folder / "ours", (issued.chain, issued.key)) as (port, pid, maildir):
                return _measured(
                    folder, {"ours": (port, [pid], maildir), "peer": (peer.port, [peer.pid], peer.maildir)}
                )
        finally:
            peer.stop()
    finally:
        shutil.rmtree(folder)


def _measured(folder: Path, sides: dict[str, Side]) -> dict[str, Any]:
    for side in sides.values():
        one_round(*side, 10)
    with busy(folder):
        waits = {name: _waits(side[0]) for name, side in sides.items()}
    port, pids, maildir = sides["ours"]
    small = _best(port, pids, maildir)
    fill(maildir / "cur")
    large = _best(port, pids, maildir)
    ratio, busy_ratio = small / large, max(waits["ours"]) / max(waits["peer"])
    return {
        "into_few": round(small), "into_200000": round(large), "slower": round(ratio, 2), "bar_slower": BAR_LARGE,
        "longest_wait_ms": round(max(waits["ours"]) * 1000), "longest_wait_peer_ms": round(max(waits["peer"]) * 1000),
        "median_wait_ms": round(sorted(waits["ours"])[len(waits["ours"]) // 2] * 1000),
        "median_wait_peer_ms": round(sorted(waits["peer"])[len(waits["peer"]) // 2] * 1000),
        "busy_ratio": round(busy_ratio, 2), "bar_busy": BAR_BUSY,
        "met": ratio <= BAR_LARGE and busy_ratio <= BAR_BUSY,
    }  # fmt: skip


def _best(port: int, pids: Any, maildir: Path) -> float:
    """The median of some rounds at 10 sessions."""
    return sorted(one_round(port, pids, maildir, 10)["per_second"] for _ in range(ROUNDS))[ROUNDS // 2]


def fill(folder: Path) -> None:
    """Put `LARGE` empty messages there; a delivery meets their names, not their octets."""
    stat = folder.stat()
    for number in range(LARGE):
        path = folder / f"1700000000.M{number}P1.bench:2,S"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o660))
    os.chown(folder, stat.st_uid, stat.st_gid)
    os.sync()


@contextlib.contextmanager
def busy(folder: Path) -> Iterator[None]:
    """A process that writes 16 MiB and fsyncs, again and again."""
    command = f"while :; do dd if=/dev/zero of={folder}/busy bs=1M count=16 conv=fsync 2>/dev/null; done"
    writer = subprocess.Popen(["bash", "-c", command])
    try:
        yield
    finally:
        writer.terminate()
        writer.wait()


def _waits(port: int) -> list[float]:
    """Seconds from the final dot to 250, of each message of `SESSIONS` clients at once."""
    waits: list[float] = []
    body = b"Subject: bench\r\n\r\n" + (b"y" * 70 + b"\r\n") * (OCTETS // 72)

    def client() -> None:
        with smtplib.SMTP("127.0.0.1", port, "load.test", timeout=120) as smtp:
            smtp.ehlo()
            for _ in range(EACH):
                smtp.mail("sender@load.test")
                smtp.rcpt(RECIPIENT)
                smtp.putcmd("data")
                smtp.getreply()
                smtp.send(body + b".\r\n")
                started = time.perf_counter()
                code, text = smtp.getreply()
                waits.append(time.perf_counter() - started)
                if code != 250:
                    raise SystemExit(f"{code} {text!r}")

    threads = [threading.Thread(target=client) for _ in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits
