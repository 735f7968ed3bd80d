"""Clients that send as mail servers do: what was refused or broke off is sent again, until it is acknowledged.

Each message counts the attempts whose end its client never saw (the connection broke after the final dot): by RFC 1047
each of those may be one more copy, and no other may.
"""

import contextlib
import queue
import smtplib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailclients import letter, trusting

# What stands between an attempt and the next: a mail server would wait minutes.
RETRY_SECONDS = 0.2
ATTEMPT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Flow:
    """Where messages of one kind go: port 25 without a log-in, or submission."""

    name: str
    port: int
    sender: str
    recipient: str
    login: tuple[str, str] | None = None


@dataclass(slots=True)
class Sent:
    """One message and what its client knows of it."""

    flow: Flow
    message_id: str
    message: bytes
    acknowledged: bool = False
    attempts: int = 0
    doubtful: int = 0  # attempts that broke off between the final dot and its reply
    replies: list[str] = field(default_factory=list)  # refusals, in order


class MailLoad:
    """So many messages of each flow, sent by `clients` threads a flow; begins at once.

    `pause`: seconds that a client waits after each that was acknowledged.
    """

    def __init__(self, shares: Sequence[tuple[Flow, int]], clients: int = 4, pause: float = 0) -> None:
        self._pause = pause
        self.sent: list[Sent] = []
        self._ended = threading.Event()
        self._threads = []
        for flow, count in shares:
            waiting: queue.SimpleQueue[Sent] = queue.SimpleQueue()
            for number in range(count):
                each = letter(flow.sender, flow.recipient, f"{flow.name} {number}", b"y" * 60 + b"\r\n")
                self.sent.append(Sent(flow, each.message_id, each.message))
                waiting.put(self.sent[-1])
            self._threads += [threading.Thread(target=self._run, args=(waiting,), daemon=True) for _ in range(clients)]
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def acknowledged(self) -> int:
        return sum(each.acknowledged for each in self.sent)

    def finish(self, seconds: float) -> float:
        """Wait until all are acknowledged; the seconds since the start. Fails after `seconds`."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._ended.set()
        missing = [each for each in self.sent if not each.acknowledged]
        assert not missing, f"{len(missing)} never acknowledged, the first after {missing[0].replies[-3:]}"
        return time.monotonic() - self._started

    def abandon(self) -> None:
        """End the clients; what is not acknowledged stays so."""
        self._ended.set()
        for thread in self._threads:
            thread.join(ATTEMPT_SECONDS + 5)

    def _run(self, waiting: "queue.SimpleQueue[Sent]") -> None:
        client: smtplib.SMTP | None = None
        while not self._ended.is_set():
            try:
                each = waiting.get_nowait()
            except queue.Empty:
                break
            while not each.acknowledged and not self._ended.is_set():
                try:
                    client = client or connected(each.flow)
                    attempt(client, each)
                except (OSError, smtplib.SMTPException) as error:
                    each.replies.append(repr(error))
                    if client:
                        client.close()
                    client = None
                    self._ended.wait(RETRY_SECONDS)
            self._ended.wait(self._pause)
        if client:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()


def connected(flow: Flow) -> smtplib.SMTP:
    """A session that may send: greeted, logged in where the flow does."""
    if flow.login is None:
        client = smtplib.SMTP("127.0.0.1", flow.port, "client.test", timeout=ATTEMPT_SECONDS)
    else:
        client = smtplib.SMTP_SSL("127.0.0.1", flow.port, "client.test", timeout=ATTEMPT_SECONDS, context=trusting())
    try:
        client.ehlo()
        if flow.login:
            client.login(*flow.login)
    except BaseException:
        client.close()
        raise
    return client


def attempt(client: smtplib.SMTP, each: Sent) -> None:
    """One transaction; raises smtplib.SMTPException or OSError where it did not end with 250."""
    each.attempts += 1
    for code, text in (
        step()
        for step in (
            lambda: client.mail(each.flow.sender),
            lambda: client.rcpt(each.flow.recipient),
            lambda: client.docmd("DATA"),
        )
    ):
        if code not in (250, 354):
            raise smtplib.SMTPResponseException(code, text)
    client.send(each.message + b".\r\n")
    try:
        code, text = client.getreply()
    except (OSError, smtplib.SMTPServerDisconnected):
        each.doubtful += 1
        raise
    if code != 250:
        raise smtplib.SMTPResponseException(code, text)
    each.acknowledged = True
