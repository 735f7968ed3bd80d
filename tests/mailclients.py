"""How tests use a mail server as people's programs do: swaks, curl, mbsync, smtplib, imaplib, and a raw IMAP line.

Every function takes the address to talk to; none knows how the server was started. Certificates are self-signed here,
so nobody verifies them unless given a CA.
"""

import contextlib
import imaplib
import re
import smtplib
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import TypeVar

LOOPBACK = "127.0.0.1"
Answer = TypeVar("Answer")


def trusting() -> ssl.SSLContext:
    """A TLS context for a server that made its own certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def until(question: Callable[[], Answer], seconds: float = 20, every: float = 0.05) -> Answer:
    """Ask again until the answer is true, and return it; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{question} still says {answer!r} after {seconds} s"
        time.sleep(every)
    return answer


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as bytes, and the Message-ID by which it is found again."""

    message_id: str
    message: bytes


def letter(sender: str, to: str, subject: str = "a test", body: bytes = b"Hello.\r\n", *, headers: str = "") -> Letter:
    """A plain message with CRLF lines; `headers` are whole further lines."""
    message_id = f"<{uuid.uuid4().hex}@tests.test>"
    head = (
        f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {formatdate()}\r\n"
        f"Message-ID: {message_id}\r\n{headers}\r\n"
    )
    return Letter(message_id, head.encode() + body)


class LetterRefused(Exception):
    """The server refused; `code` and `text` are its reply."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code, self.text = code, text


def deliver(
    port: int,
    sender: str,
    recipients: list[str],
    message: bytes,
    *,
    login: tuple[str, str] | None = None,
    tls: str = "",
    source: str = LOOPBACK,
    host: str = LOOPBACK,
) -> str:
    """Send one message by smtplib and return the reply to its final dot; `tls` is "", "starttls" or "tls".

    Raises LetterRefused with the first reply that is not the wanted one, from the greeting on.
    """
    try:
        if tls == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, "client.test", timeout=30, context=trusting(), source_address=(source, 0)
            )
        else:
            client = smtplib.SMTP(host, port, "client.test", timeout=30, source_address=(source, 0))
    except smtplib.SMTPConnectError as error:
        raise LetterRefused(error.smtp_code, text_of(error.smtp_error)) from None
    try:
        if tls == "starttls":
            client.starttls(context=trusting())
        if login:
            client.login(*login)
        client.ehlo_or_helo_if_needed()
        code, text = client.mail(sender)
        for recipient in recipients if code == 250 else ():
            code, text = client.rcpt(recipient)
            if code != 250:
                break
        if code == 250:
            code, text = client.data(message)
    except smtplib.SMTPResponseException as error:
        raise LetterRefused(error.smtp_code, text_of(error.smtp_error)) from None
    finally:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            client.quit()
    if code != 250:
        raise LetterRefused(code, text_of(text))
    return text_of(text)


def text_of(reply: bytes | str) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply


@contextlib.contextmanager
def imap(port: int, login: str, password: str, *, host: str = LOOPBACK, tls: bool = True) -> Iterator[imaplib.IMAP4]:
    """An imaplib connection that has logged in."""
    client = imaplib.IMAP4_SSL(host, port, ssl_context=trusting(), timeout=30) if tls else imaplib.IMAP4(host, port, 30)
    try:
        client.login(login, password)
        yield client
    finally:
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            client.logout()


def messages(client: imaplib.IMAP4, mailbox: str = "INBOX") -> dict[int, bytes]:
    """UID → the exact bytes of every message in a mailbox."""
    status, data = client.select(f'"{mailbox}"', readonly=True)
    assert status == "OK", data
    status, fetched = client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")
    assert status == "OK", fetched
    found: dict[int, bytes] = {}
    for part in fetched:
        if isinstance(part, tuple):
            uid = re.search(rb"UID (\d+)", part[0])
            assert uid, part[0]
            found[int(uid[1])] = part[1]
    return found


def wait_for_letter(
    port: int, login: str, password: str, message_id: str, *, mailbox: str = "INBOX", seconds: float = 20,
    host: str = LOOPBACK,
) -> bytes:  # fmt: skip
    """The message with this Message-ID, as IMAP serves it, once it is there."""
    with imap(port, login, password, host=host) as client:

        def look() -> bytes | None:
            return next((each for each in messages(client, mailbox).values() if message_id.encode() in each), None)

        return until(look, seconds) or b""


class ImapLine:
    """One IMAP connection by hand, line by line: for IDLE, and for what imaplib hides."""

    def __init__(self, port: int, *, host: str = LOOPBACK, tls: bool = True, source: str = "") -> None:
        plain = socket.create_connection((host, port), timeout=30, source_address=(source, 0) if source else None)
        self.socket: socket.socket = trusting().wrap_socket(plain) if tls else plain
        self._file = self.socket.makefile("rb")
        self._tag = 0
        self.greeting = self.line()

    def line(self, seconds: float = 30) -> bytes:
        self.socket.settimeout(seconds)
        return self._file.readline()

    def command(self, text: str) -> list[bytes]:
        """Send a command and return its lines, the tagged one last; fails unless it says OK."""
        lines = self.attempt(text)
        assert b" OK" in lines[-1], lines
        return lines

    def attempt(self, text: str) -> list[bytes]:
        """`command` that takes any tagged answer."""
        self._tag += 1
        tag = f"t{self._tag}"
        self.socket.sendall(f"{tag} {text}\r\n".encode())
        lines = []
        while line := self.line():
            lines.append(line.rstrip(b"\r\n"))
            if line.startswith(tag.encode() + b" "):
                return lines
        return [*lines, b"closed"]

    @contextlib.contextmanager
    def idling(self) -> Iterator[None]:
        self._tag += 1
        self.socket.sendall(f"t{self._tag} IDLE\r\n".encode())
        assert self.line().startswith(b"+")
        yield
        self.socket.sendall(b"DONE\r\n")
        while not self.line().startswith(f"t{self._tag} OK".encode()):
            pass

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program printed (both streams) and its exit status."""

    status: int
    output: str


def run(*command: str, stdin: bytes = b"", seconds: float = 60) -> Outcome:
    """Run a client program to its end."""
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False
    )
    return Outcome(done.returncode, done.stdout.decode("utf-8", "replace"))


def swaks(port: int, *arguments: str, host: str = LOOPBACK, stdin: bytes = b"") -> Outcome:
    return run("swaks", "--server", host, "--port", str(port), *arguments, stdin=stdin)


def mbsync(folder: Path, port: int, login: str, password: str, *, host: str = LOOPBACK, patterns: str = "*") -> Outcome:
    """Sync an account two-way into `folder/mail` (a Maildir for each mailbox)."""
    (folder / "mail").mkdir(parents=True, exist_ok=True)
    certificate = folder / "server.pem"
    if not certificate.exists():
        certificate.write_text(ssl.get_server_certificate((host, port)))
    config = folder / "mbsyncrc"
    config.write_text(
        f'IMAPAccount it\nHost {host}\nPort {port}\nUser {login}\nPass "{password}"\nAuthMechs LOGIN\nSSLType IMAPS\n'
        f"CertificateFile {certificate}\n\nIMAPStore far\nAccount it\n\nMaildirStore near\nPath {folder}/mail/\n"
        f"Inbox {folder}/mail/INBOX\nSubFolders Verbatim\n\n"
        f"Channel both\nFar :far:\nNear :near:\nPatterns {patterns}\nCreate Both\nExpunge Both\nSyncState *\n"
    )
    return run("mbsync", "-c", str(config), "both")
