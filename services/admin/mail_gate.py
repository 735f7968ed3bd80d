"""The mail gate: does mail flow right now? It decides whether an update stays, and answers `mailstead gate`.

It does what people and their correspondents do, over the same listeners, with TLS:

1. **rooms**: the rooms that carry mail are there and, while an update holds them, let the gate in.
2. **account**: an account is published, with a password that is made now and kept nowhere.
3. **receive**: a letter comes in on port 25, STARTTLS, from nobody (the null sender).
4. **send**: another is submitted on 465 by that account, and goes through signature and queue.
5. **read**: both are read on 993, each as it was written, the second with a DKIM signature; then they are deleted.
6. **clean up**: the account is published no more, so that nobody can log in to it between two gates, and its mailbox
   goes. What fails here is told and does not count: mail flows all the same, and the next gate or start cleans up.

A step that meets a room which is not quite there yet tries again for a while; one that is refused for good ends the
gate. Certificates are not compared with anything: acme's proof does that, and a stack with a self-signed one is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.admin.gate_imap import ImapFault, ImapSession
from services.admin.holding import Holding
from services.admin.peers import PeerAway, Peers, PeerSaid, segment
from services.directory.changes import Directories
from services.directory.database import DatabaseUnusable
from services.directory.errors import DirectoryError
from services.directory.models import GATE, Account
from services.directory.passwords import Passwords
from services.directory.publish import PublicationFailed
from services.runtime.events import new_trace_id
from services.runtime.listener import host_and_port
from services.runtime.process import Context
from services.smtp.client import ConnectionLost, Message, ProtocolFault, Refused, Target, Timeouts, Tls, connect

T = TypeVar("T")

# For mail; with the cleaning up it stays below the 30 seconds that a request between rooms may take.
GATE_SECONDS = 20.0
CLEAN_UP_SECONDS = 5.0
# A room that was just started is there within this, or there is something wrong with it.
STEP_SECONDS = 12.0
AGAIN_SECONDS = 0.2
CARRYING = ("smtp-in", "smtp-out", "imap", "dkim")
TIMEOUTS = Timeouts(connect=5, greeting=5, command=5, data=5, block=5, final=10, quit=1)


class NotPassed(Exception):
    """A step failed; the text says why, for the owner. `temporary`: it may do better in a moment."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class GateStep:
    """`outcome`: passed, or failed with the `reason`."""

    step: str
    seconds: float
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found; the last step but the cleaning up is the one that failed, if any did."""

    passed: bool
    steps: list[GateStep] = field(default_factory=list)


class MailGate:
    """Tries; one try at a time."""

    def __init__(
        self, context: Context, directories: Directories, passwords: Passwords, holding: Holding, peers: Peers
    ) -> None:
        """Nothing is published before `run`."""
        self._context, self._directories, self._passwords = context, directories, passwords
        self._holding, self._peers = holding, peers
        self._one_at_a_time = asyncio.Lock()

    async def run(self, identity: str) -> GateReport:
        """Try whether mail flows, on behalf of the update `identity` or under a trace id. Never raises for what is
        wrong with mail."""
        async with self._one_at_a_time:
            story = _Try(self._context, identity)
            try:
                story.begin(GATE_SECONDS)
                with contextlib.suppress(NotPassed):
                    await self._steps(story)
            finally:
                passed = story.passed
                story.begin(CLEAN_UP_SECONDS)
                with contextlib.suppress(NotPassed):
                    await story.step("clean up", self._clean_up)
        return GateReport(passed, story.steps)

    async def _steps(self, story: _Try) -> None:
        settings = self._context.settings
        smtp, submissions, imaps = (host_and_port(each) for each in settings.gate_addresses.split(","))
        password = secrets.token_hex(16)
        await story.step("rooms", self._rooms)
        account = await story.step("account", lambda: self._publish(password))
        received = _letter("from outside", account.address, settings.hostname, self._context.clock())
        target = Target(*smtp, tls=Tls.STARTTLS, context=_tls())
        await story.step("receive", lambda: self._hand_in(target, "", account.address, received))
        sent = _letter("submitted", account.address, settings.hostname, self._context.clock())
        target = Target(*submissions, tls=Tls.IMPLICIT, context=_tls(), user=account.address, password=password)
        await story.step("send", lambda: self._hand_in(target, account.address, account.address, sent))
        await story.step("read", lambda: self._read(imaps, account, password, received, sent))

    # --- the steps

    async def _rooms(self) -> None:
        found = await asyncio.gather(*(self._peers.health(room) for room in CARRYING))
        if gone := [room.room for room in found if room.state in ("away", "starting")]:
            raise NotPassed(f"not there: {', '.join(gone)}", temporary=True)
        if self._holding.held:
            told = await self._holding.ask_again()
            if told["away"]:
                raise NotPassed(f"not reached: {', '.join(told['away'])}", temporary=True)

    async def _publish(self, password: str) -> Account:
        hashed = await self._passwords.hash(password)
        try:
            account = await asyncio.to_thread(gate_account, self._directories, self._context.settings.mail_domain)
            await asyncio.to_thread(self._directories.publish_guest, account, hashed)
        except (DirectoryError, PublicationFailed, DatabaseUnusable, OSError) as error:
            raise NotPassed(f"the gate's account cannot be published: {error}") from None
        return account

    async def _hand_in(self, target: Target, sender: str, recipient: str, letter: bytes) -> None:
        where = f"{target.host} port {target.port}"
        try:
            client = await connect(target, self._context.settings.hostname, TIMEOUTS)
            try:
                results = await client.deliver(Message(sender, (recipient,), size=len(letter)), _once(letter))
                await client.quit()
            finally:
                client.abort()
        except ConnectionLost as error:
            raise NotPassed(f"{where}: {error}", temporary=True) from None
        except Refused as error:
            raise NotPassed(f"{where} refuses: {error}", temporary=error.reply.code < 500) from None
        except ProtocolFault as error:
            raise NotPassed(f"{where} does not speak SMTP: {error}") from None
        for result in results:
            if not result.delivered:
                text = f"{where} refuses the letter at {result.phase.value}: {result.reply.text}"
                raise NotPassed(text, temporary=result.reply.code < 500)

    async def _read(
        self, where: tuple[str, int], account: Account, password: str, received: bytes, sent: bytes
    ) -> None:
        host, port = where
        try:
            async with asyncio.timeout(TIMEOUTS.final), ImapSession(host, port, _tls()) as session:
                await session.log_in(account.address, password)
                letters = await session.letters()
                _compare(letters, account, received, sent)
                if left := await session.delete_all():
                    raise NotPassed(f"{left} letters are left after they were deleted")
        except ImapFault as error:
            raise NotPassed(f"{host} port {port}: {error}", temporary=error.temporary) from None
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise NotPassed(f"{host} port {port}: {error or 'no answer in time'}", temporary=True) from None

    async def _clean_up(self) -> None:
        try:
            account = await asyncio.to_thread(gate_account, self._directories, self._context.settings.mail_domain)
            await asyncio.to_thread(self._directories.publish_guest)
        except (DirectoryError, PublicationFailed, DatabaseUnusable, OSError) as error:
            raise NotPassed(f"the gate's account is still published: {error}") from None
        try:
            await self._peers.ask("imap", "DELETE", f"/v1/mail/{segment(account.address)}", query={"purge": "1"})
        except (PeerAway, PeerSaid) as error:
            raise NotPassed(f"the gate's mailbox is still there: {error}") from None


class _Try:
    """One try: its steps with their times, until the time is up."""

    def __init__(self, context: Context, identity: str) -> None:
        self._context, self._identity = context, identity
        self._deadline = 0.0
        self.steps: list[GateStep] = []

    @property
    def passed(self) -> bool:
        """Whether the last step was the last there is, and none failed."""
        return bool(self.steps) and self.steps[-1].step == "read" and self.steps[-1].outcome == "passed"

    def begin(self, seconds: float) -> None:
        """All steps from here on are over after `seconds`."""
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def step(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make one step, again while it fails for now. Raises NotPassed."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        until = min(started + STEP_SECONDS, self._deadline)
        reason = ""
        try:
            async with asyncio.timeout_at(until):
                while True:
                    try:
                        result = await attempt()
                        break
                    except NotPassed as fault:
                        reason = str(fault)
                        if not fault.temporary:
                            raise
                    await asyncio.sleep(AGAIN_SECONDS)
        except TimeoutError:
            reason = reason or f"not done within {until - started:.0f} seconds"
            self._ended(name, started, reason)
            raise NotPassed(reason) from None
        except NotPassed:
            self._ended(name, started, reason)
            raise
        self._ended(name, started, "")
        return result

    def _ended(self, name: str, started: float, reason: str) -> None:
        seconds = asyncio.get_running_loop().time() - started
        self.steps.append(GateStep(name, round(seconds, 3), "failed" if reason else "passed", reason))
        self._context.events.emit(
            "gate", self._identity, outcome="reject" if reason else "accept", stage=name, ms=int(seconds * 1000),
            reason=reason,
        )  # fmt: skip


def gate_account(directories: Directories, mail_domain: str) -> Account:
    """The gate's account: in the house's own domain, or in the first one that is left. Blocking."""
    domains = [domain.name for domain in directories.database.domains() if not domain.alias_of]
    domain = mail_domain if mail_domain in domains or not domains else domains[0]
    return Account(f"{GATE}@{domain}", domain, GATE)


def _compare(letters: list[bytes], account: Account, received: bytes, sent: bytes) -> None:
    """Both are there, as they were written, the second one signed. Raises NotPassed."""
    for letter, what in ((received, "the letter that came in"), (sent, "the letter that was submitted")):
        body = letter.partition(b"\r\n\r\n")[2]
        found = [each for each in letters if each.partition(b"\r\n\r\n")[2] == body]
        if not found:
            raise NotPassed(f"{what} was acknowledged and is not in the mailbox", temporary=True)
        if letter is sent:
            header = found[0].partition(b"\r\n\r\n")[0].lower()
            signature = f"d={account.domain}".encode()
            if b"\ndkim-signature:" not in b"\n" + header or signature not in header:
                raise NotPassed(f"{what} has no DKIM signature of {account.domain}")


def _letter(kind: str, address: str, hostname: str, now: float) -> bytes:
    """A letter whose body no other letter has, with CRLF."""
    token = secrets.token_hex(16)
    lines = [
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime(now))}",
        f"From: {address}",
        f"To: {address}",
        f"Subject: Mail gate, {kind}",
        f"Message-ID: <{new_trace_id(now)}.{token[:8]}@{hostname}>",
        "Auto-Submitted: auto-generated",  # RFC 3834 §5: nobody's vacation notice answers it
        "",
        f"Tries whether mail flows; deleted when it was read. {token}",
    ]
    return "".join(line + "\r\n" for line in lines).encode()


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _once(letter: bytes) -> AsyncIterator[bytes]:
    yield letter
