"""One attempt's story: from a claimed message to what became of each recipient.

    file there? → kept session, else: servers of the destination, best first → connect, TLS, log-in → MAIL RCPT DATA
    → classify each recipient's reply → the next server for those that may have better luck there

A `Courier` belongs to one worker of the queue runner and keeps its session for the next message to the same
destination. What decides:

* Each recipient is judged by its own reply: 2xx to the final dot delivered, 5xx failed, 4xx deferred.
* No connection, a greeting or EHLO that is refused, TLS that is required and fails: the next server; deferred when it
  was the last. A 5xx greeting is deferred too (RFC 5321 §4.2.4.2 leaves it open): it speaks of the server, not of the
  message.
* A log-in that the relay refuses is deferred: the owner can mend it, and the mail is not at fault.
* A message with REQUIRETLS (RFC 8689) fails where no server of the destination is who it should be, has TLS, and
  promises to go on so: waiting does not change that, and its sender wants to know.
* Refused for now before DATA (greylisting, a full server): once more at the next server. After DATA never: it may have
  arrived (RFC 1047).

Never retries later and never tells anybody: that is `queue_runner`'s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from services.protocol.smtp_client import Message, Phase, RecipientResult
from services.protocol.smtp_remote import ProtocolFault, RemoteReply
from services.runtime.secrets import SecretMissing, Secrets
from services.runtime.values import Settings
from services.smtp.client import (
    BodyUnreadable,
    ConnectionLost,
    Refused,
    SmtpClient,
    Target,
    Timeouts,
    Tls,
    TlsFailed,
    connect,
)
from services.smtp_out.next_hop import LOCAL, RELAY, Hop, Hops, NoRoute, route_of
from services.smtp_out.tls_policy import tls_policy
from services.storage.queue import Work
from services.storage.spool import Spool

# Servers that are asked for one message, of those that answer: after two "not now" a third says the same.
MAX_SESSIONS = 2
# Messages over one connection: beyond it some servers close, and a load balancer behind a name never gets its turn.
MAX_PER_SESSION = 100


@dataclass(frozen=True, slots=True)
class Said:
    """What became of one recipient. `reply` are the remote's words, "" where none spoke and `reason` is ours; `status`
    is RFC 3463's; `remote` the server; `phase` the command that decided, "" where there was none."""

    address: str
    outcome: Literal["delivered", "failed", "deferred"]
    status: str
    reply: str = ""
    reason: str = ""
    remote: str = ""
    phase: str = ""
    # Delivered to a server that takes no requests for reports: it is ours to say so (RFC 3461 §5.2.2).
    silent: bool = False

    @property
    def text(self) -> str:
        """For the queue's list: the remote's words, else ours."""
        return self.reply or self.reason


@dataclass(frozen=True, slots=True)
class Attempted:
    """`reached` is False where no server of the destination could be spoken to: others need not find out again."""

    said: tuple[Said, ...]
    reached: bool = True
    encrypted: bool = False


class Courier:
    """Makes attempts at one destination."""

    def __init__(
        self, settings: Settings, secrets: Secrets, spool: Spool, hops: Hops, timeouts: Timeouts | None = None
    ) -> None:
        self._settings, self._secrets, self._spool, self._hops = settings, secrets, spool, hops
        self._timeouts = timeouts or Timeouts()
        self._session: SmtpClient | None = None
        self._remote = ""
        self._used = 0
        self._verified = False  # whether the session was opened for messages with REQUIRETLS

    async def close(self) -> None:
        """End the kept session politely."""
        session, self._session = self._session, None
        if session is not None and not session.closed:
            await session.quit()

    def abort(self) -> None:
        """End it at once."""
        session, self._session = self._session, None
        if session is not None:
            session.abort()

    async def attempt(self, work: Work) -> Attempted:
        """Try `work` now. Only cancellation and bugs raise."""
        story = _Story([each.address for each in work.recipients])
        if not self._spool.exists(work.spooled):
            story.all_left("failed", "5.3.0", "the message's file is missing from the queue of this server")
            return story.told(reached=True)
        try:
            if await self._on_kept_session(work, story):
                return story.told(reached=True)
            hops = await self._hops.find(work.destination)
        except NoRoute as nowhere:
            outcome: Literal["failed", "deferred"] = "failed" if nowhere.reply.permanent else "deferred"
            story.all_left(outcome, nowhere.reply.enhanced, nowhere.reply.lines[0].partition(" ")[2])
            return story.told(reached=nowhere.reply.permanent)
        except BodyUnreadable as error:
            story.all_left("deferred", "4.3.0", f"the message cannot be read from the queue: {error}")
            return story.told(reached=True)
        return await self._at_hops(work, story, hops)

    async def _on_kept_session(self, work: Work, story: _Story) -> bool:
        """Whether the session of the last message did it. A server that closed it meanwhile is no failure."""
        session = self._session
        unfit = work.requiretls and not self._verified
        if session is None or session.closed or unfit or self._used >= MAX_PER_SESSION:
            await self.close()
            return False
        try:
            await self._transaction(session, work, story)
        except (ConnectionLost, Refused, ProtocolFault) as error:
            self.abort()
            if not (isinstance(error, ConnectionLost) and error.in_doubt):
                return False
            story.all_left("deferred", "4.4.2", str(error), remote=self._remote)
        return True

    async def _at_hops(self, work: Work, story: _Story, hops: Sequence[Hop]) -> Attempted:
        reached, sessions = False, 0
        for hop in hops:
            try:
                await self.close()
                session = await self._connect(work, hop)
                sessions += 1
                self._session, self._remote, self._used = session, str(hop), 0
                self._verified = work.requiretls
                if self._is_ourselves(session, work):
                    self.abort()
                    why = f"{hop} is this server, which does not serve that domain: the mail would go in a circle"
                    story.all_left("failed", "5.4.6", why, remote=str(hop))
                    return story.told(reached=True)
                reached = True
                # Our own smtp-in of before REQUIRETLS is next door, on a network of two rooms' own.
                if work.requiretls and work.destination != LOCAL and "REQUIRETLS" not in session.greeting:
                    await self.close()
                    why = f"the sender requires TLS all the way, which {hop} does not promise"
                    story.lost("5.7.30", why, str(hop), permanent=True)
                    continue
                await self._transaction(session, work, story)
            except Refused as refusal:
                self.abort()
                # AUTH: a relay that knows us no more. Others of it would say the same, and locking us out is next.
                story.refused(refusal, str(hop))
                reached = reached and refusal.phase not in (Phase.GREETING, Phase.HELLO, Phase.AUTH)
                if refusal.phase is Phase.AUTH:
                    break
            except ConnectionLost as loss:
                self.abort()
                status = "4.7.5" if isinstance(loss, TlsFailed) else "4.4.2" if loss.phase else "4.4.1"
                if loss.in_doubt:
                    story.all_left("deferred", status, str(loss), remote=str(hop))
                if work.requiretls and isinstance(loss, TlsFailed):
                    # RFC 8689 §4.2.1: the next server, and if there is none, back to the sender.
                    why = f"the sender requires TLS with a right certificate: {loss}"
                    story.lost("5.7.30", why, str(hop), permanent=True)
                    reached = True
                    continue
                story.lost(status, str(loss), str(hop))
            except ProtocolFault as fault:
                self.abort()
                story.lost("4.5.0", f"the server does not speak SMTP: {fault}", str(hop))
            except SecretMissing as missing:
                story.lost("4.3.5", str(missing), str(hop))
            except BodyUnreadable as error:
                self.abort()
                story.all_left("deferred", "4.3.0", f"the message cannot be read from the queue: {error}")
            if not story.worth_another_server or sessions >= MAX_SESSIONS:
                break
        encrypted = self._session is not None and self._session.encrypted
        return story.told(reached=reached, encrypted=encrypted)

    async def _connect(self, work: Work, hop: Hop) -> SmtpClient:
        policy = tls_policy(work.destination, self._settings, required=work.requiretls)
        route = route_of(work.destination)
        ca_file = self._settings.relay_ca_file if route == RELAY else ""
        user = password = ""
        if route == LOCAL:
            user, password = "smtp-out", self._secrets.pair("smtp-in", "smtp-out")
        elif route == RELAY:
            user, password = self._settings.relay_user, self._settings.relay_password
        target = Target(
            hop.host,
            hop.port,
            name=hop.name,
            tls=policy.mode,
            context=policy.context(ca_file),
            user=user,
            password=password,
            lmtp=route == LOCAL,
            private_network=policy.password_in_plain,
        )
        name = self._settings.hostname
        try:
            return await connect(target, name, self._timeouts)
        except TlsFailed:
            if not policy.plain_after_failure:
                raise
            plain = Target(hop.host, hop.port, name=hop.name, tls=Tls.NONE)
            return await connect(plain, name, self._timeouts)

    async def _transaction(self, session: SmtpClient, work: Work, story: _Story) -> None:
        """One message over `session`; again for recipients that were only too many at once."""
        while wanted := story.left:
            self._used += 1
            message = Message(
                work.sender,
                tuple(wanted),
                size=work.spooled.size,
                eight_bit=work.eight_bit,
                smtputf8=work.smtputf8,
                trace=work.trace if work.destination == LOCAL else "",
                ret=work.ret,
                envid=work.envid,
                requiretls=work.requiretls and (work.destination != LOCAL or "REQUIRETLS" in session.greeting),
                dsn={each.address: each.dsn for each in work.recipients},
            )
            async with contextlib.aclosing(self._spool.chunks(work.spooled)) as body:
                results = await session.deliver(message, body)
            progress = any(result.delivered for result in results)
            crowded = {result.address for result in results if progress and _too_many(result)}
            silent = "DSN" not in session.greeting
            story.judge([result for result in results if result.address not in crowded], self._remote, silent=silent)
            if not crowded:
                return

    def _is_ourselves(self, session: SmtpClient, work: Work) -> bool:
        """The server greets with our own name: an MX, by whatever name, that leads back here."""
        words = session.greeting.banner.split()
        return route_of(work.destination) not in (LOCAL, RELAY) and words[1:2] == [self._settings.hostname]


def _too_many(result: RecipientResult) -> bool:
    """RFC 5321 §4.5.3.1.10: 452, and 552 of older servers, to RCPT: too many for one transaction. 552 with a code about
    the mailbox is not that."""
    code, enhanced = result.reply.code, result.reply.enhanced
    full = code == 452 and enhanced in ("4.5.3", "4.0.0")
    return result.phase is Phase.RCPT and (full or (code == 552 and enhanced in ("5.5.3", "5.0.0")))


class _Story:
    """What is known of each recipient so far. `left` are those that nothing final was said of."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._said: dict[str, Said | None] = dict.fromkeys(addresses)
        self._closed: set[str] = set()
        self._loss: tuple[str, str, str, str] | None = None  # status, reply, reason, remote
        self._hopeless = False

    @property
    def left(self) -> list[str]:
        return [address for address in self._said if address not in self._closed]

    @property
    def worth_another_server(self) -> bool:
        return bool(self.left)

    def judge(self, results: Sequence[RecipientResult], remote: str, *, silent: bool = False) -> None:
        for result in results:
            said = _judged(result, remote, silent)
            self._said[result.address] = said
            asked_in_vain = said.outcome == "deferred" and result.phase is not Phase.FINAL and not result.ours
            if not asked_in_vain:
                self._closed.add(result.address)

    def all_left(self, outcome: Literal["failed", "deferred"], status: str, reason: str, remote: str = "") -> None:
        for address in self.left:
            self._said[address] = Said(address, outcome, status, reason=reason, remote=remote)
            self._closed.add(address)

    def refused(self, refusal: Refused, remote: str) -> None:
        """The session was refused: temporary for whoever is left, whatever its class."""
        self._hopeless = False
        reply = refusal.reply
        status = f"4.{reply.enhanced[2:]}" if reply.code >= 400 else "4.5.0"
        self._loss = (status, reply.text, "", remote)
        if refusal.phase is Phase.AUTH:
            self._loss = (status, reply.text, "the relay refuses the log-in", remote)

    def lost(self, status: str, reason: str, remote: str, *, permanent: bool = False) -> None:
        """No transaction with this server. What one says for good counts only where none has something better."""
        if permanent and self._loss is not None and not self._hopeless:
            return
        self._loss, self._hopeless = (status, "", reason, remote), permanent

    def told(self, *, reached: bool, encrypted: bool = False) -> Attempted:
        for address, said in self._said.items():
            # A recipient's own "not now" says more than the next server's silence.
            if said is None and self._loss is not None:
                status, reply, reason, remote = self._loss
                outcome: Literal["failed", "deferred"] = "failed" if self._hopeless else "deferred"
                self._said[address] = Said(address, outcome, status, reply, reason, remote)
            elif said is None:
                self._said[address] = Said(address, "deferred", "4.4.1", reason="no server answered")
        return Attempted(tuple(said for said in self._said.values() if said is not None), reached, encrypted)


def _judged(result: RecipientResult, remote: str, silent: bool) -> Said:
    reply: RemoteReply = result.reply
    outcome: Literal["delivered", "failed", "deferred"] = "deferred"
    if result.delivered:
        outcome = "delivered"
    elif reply.permanent and not _too_many(result):
        outcome = "failed"
    status = reply.enhanced
    if outcome == "deferred" and status[0] != "4":
        status = f"4{status[1:]}"
    if result.ours:
        return Said(result.address, outcome, status, reason=reply.lines[0].partition(" ")[2], remote=remote)
    silent = silent and outcome == "delivered"
    return Said(result.address, outcome, status, reply.text, remote=remote, phase=result.phase.value, silent=silent)
