"""Durable messages a second with every check on, beside Debian's Postfix with OpenDKIM verifying, in the same run.

As `smtp_in`, but each message is signed (RSA, 2048 bits, relaxed), and MAIL_CHECKS is on with its defaults: SPF, DKIM,
DMARC, the client's names, junk. Postfix asks OpenDKIM, a milter on a UNIX socket, which verifies DKIM alone. Both find
the same records in a zone of the bench's own, on port 53 of a loopback address, since OpenDKIM knows no other port.
What each side delivered last must say `dkim=pass`, ours `spf=pass` and `dmarc=pass` too: else nothing was measured.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dkim

from services import __main__ as single
from tests.bench.memory import pss
from tests.bench.postfix import Postfix
from tests.bench.smtp_in import MESSAGES, OCTETS, ROOT, ROUNDS, WORKERS, in_turn, smtp_in
from tests.certificates import issue

BAR = 1.5  # times Postfix with OpenDKIM, at 10 and 50 sessions
NAME_SERVER = "127.0.0.77"
SENDER = "sender.example"  # OpenDKIM's resolver knows by itself that nothing is below .test
MILTER = """\
smtpd_milters = unix:{socket}
milter_default_action = tempfail
"""
OPENDKIM = """\
Mode v
Socket local:{socket}
UMask 000
Nameservers {server}
InternalHosts {folder}/nobody
ExternalIgnoreList {folder}/nobody
AlwaysAddARHeader yes
Syslog no
Background no
"""


def measure() -> dict[str, Any]:
    """One row per number of sessions."""
    issued = issue("mail.bench.test", now=time.time())
    folder = Path(tempfile.mkdtemp(prefix="mailstead-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        (folder / "ours").mkdir()
        with name_server(signed(folder / "message")):
            return _measured(folder, (issued.chain, issued.key))
    finally:
        shutil.rmtree(folder)


def _measured(folder: Path, certificate: tuple[bytes, bytes]) -> dict[str, Any]:
    socket = folder / "opendkim.socket"
    peer = Postfix(folder / "postfix", single._free_ports()["smtp"], certificate[0] + certificate[1])
    with (folder / "postfix/etc/main.cf").open("a") as settings:
        settings.write(MILTER.format(socket=socket))
    message = ("-F", str(folder / "message"), "-f", f"sender@{SENDER}")
    with opendkim(folder, socket) as milter:
        peer.start()
        try:
            chosen = {"mail_checks": "on", "resolver": f"{NAME_SERVER}:53", "rate_per_sender": 0, "rate_per_address": 0}
            with smtp_in(folder / "ours", certificate, **chosen) as (port, pid, maildir):
                sides = {"ours": (port, [pid], maildir), "peer": (peer.port, [peer.pid, milter], peer.maildir)}
                rows = in_turn(sides, message)
                proven(maildir, "spf=pass", "dkim=pass", "dmarc=pass")
                proven(peer.maildir, "dkim=pass")
                memory = round(pss(pid), 1)
        finally:
            peer.stop()
    return {
        "rows": rows,
        "bar": BAR,
        "met": all(each["ratio"] >= BAR for each in rows if each["sessions"] != 1),
        "memory_mib": memory,
        "settings": {
            "ours": f"{WORKERS} workers, MAIL_CHECKS=on with its defaults, fsync before 250, events on, STARTTLS offered, no capability",
            "peer": f"Postfix {Postfix.version()} with Debian's OpenDKIM as milter, verifying DKIM alone",
            "load": f"smtp-source, {MESSAGES} signed messages of {OCTETS} octets, one a connection, {ROUNDS} rounds in turn",
        },
    }


def signed(path: Path) -> dict[str, list[str]]:
    """Write the message, and return the records that prove it."""
    key = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True).stdout
    public = subprocess.run(
        ["openssl", "rsa", "-pubout", "-outform", "DER"], input=key, check=True, capture_output=True
    ).stdout
    header = (
        f"From: Sender <sender@{SENDER}>\r\n".encode() + b"To: user@bench.test\r\nSubject: a message of the bench\r\n"
        b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <bench@sender.example>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    line = b"The quick brown fox jumps over the lazy dog, and comes back to do it again.\r\n"
    message = header + line * ((OCTETS - 600 - len(header)) // len(line))
    signature = dkim.sign(
        message, b"s1", SENDER.encode(), key, include_headers=[b"from", b"to", b"subject", b"date", b"message-id"],
        canonicalize=(b"relaxed", b"relaxed"),
    )  # fmt: skip
    path.write_bytes((signature + message).replace(b"\r\n", b"\n"))  # smtp-source sends the line ends
    path.chmod(0o644)
    return {
        f"s1._domainkey.{SENDER} TXT": [f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"],
        f"{SENDER} TXT": ["v=spf1 ip4:127.0.0.0/8 -all"],
        f"{SENDER} A": ["127.0.0.1"],
        f"_dmarc.{SENDER} TXT": ["v=DMARC1; p=reject"],
    }


@contextlib.contextmanager
def name_server(records: dict[str, list[str]]) -> Iterator[None]:
    """The bench's zone on port 53 of `NAME_SERVER`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.zone", NAME_SERVER, "53"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(records) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n", "the name server did not start"
        yield
    finally:
        process.stdin.close()
        process.wait(10)


@contextlib.contextmanager
def opendkim(folder: Path, socket: Path) -> Iterator[int]:
    """Debian's OpenDKIM, verifying only; its pid."""
    (folder / "nobody").write_text("192.0.2.1\n")  # else it trusts 127.0.0.1 and verifies nothing
    (folder / "opendkim.conf").write_text(OPENDKIM.format(folder=folder, socket=socket, server=NAME_SERVER))
    with (folder / "opendkim.log").open("wb") as log:
        process = subprocess.Popen(["opendkim", "-f", "-x", folder / "opendkim.conf"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"opendkim: {(folder / 'opendkim.log').read_text()}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def proven(maildir: Path, *words: str) -> None:
    """The newest message says all of `words` in a header."""
    newest = max((maildir / "new").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    header = newest.read_text("utf-8", "replace").partition("\n\n")[0]
    missing = [word for word in words if word not in header]
    if missing:
        raise SystemExit(f"not checked, {missing} is missing:\n{header}")
