"""Brings one accepted message to its places: forwards to smtp-out, copies into Maildirs; durable before it returns.

Called by `intake` after the final dot. SMTP has one reply for all recipients, so a message is either durable in every
place or 451, and the sender tries again with all of them. What was done by then is done again: a stranger's server
gives each attempt a new transaction, nothing tells ours that it is the same message. That cannot be removed, only made
rare, and the order is chosen for it: **forwards first, then local copies**. smtp-out is another process that may be
restarting; our own disk was just found to have room. When the likelier step fails first, nothing has been done twice.
After it, only a disk that breaks between two fsyncs makes a second forward.

By LMTP each recipient has its own reply, and a second attempt of the same trace id writes no second copy
(`once`, see storage/delivery).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.message.headers import Passage, received
from services.policy.routes import split_address
from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.runtime.events import Events
from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable
from services.smtp_in.forward import Forwarder, Refusal
from services.smtp_in.hints import Hints
from services.storage.delivery import INBOX, Deliveries, Failed, Incoming
from services.storage.errors import MailboxMissing, StorageError


@dataclass(frozen=True, slots=True)
class Destination:
    """One recipient and the places its mail goes to: `accounts` here, `forwards` elsewhere."""

    recipient: str
    accounts: tuple[str, ...]
    forwards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mail:
    """An accepted message. `sender` and recipients are addresses, `passage` tells this hop, `junk` its folder."""

    trace: str
    conn: str
    sender: str
    message_id: str
    smtputf8: bool
    passage: Passage
    body: Incoming
    destinations: tuple[Destination, ...]
    once: bool
    junk: bool = False


class Courier:
    """Delivers for one process."""

    def __init__(
        self,
        deliveries: Deliveries,
        forwarder: Forwarder,
        imap: Client,
        hints: Hints,
        events: Events,
        clock: Callable[[], float],
        home: str,
    ) -> None:
        """`home` is the domain in whose name forwards go out where the recipient had none (`postmaster`)."""
        self._deliveries, self._forwarder = deliveries, forwarder
        self._imap, self._hints, self._events, self._clock, self._home = imap, hints, events, clock, home

    async def deliver(self, mail: Mail) -> list[Reply]:
        """One reply per destination, in order; 2xx means durable in all its places."""
        trace_line = received(mail.passage, self._clock())
        if mail.body.head(1) in (b" ", b"\t"):
            # It has no header, and its first line would be read as more of ours: an empty line parts them.
            trace_line += b"\r\n"
        refused: dict[str, Refusal] = {}
        if any(each.forwards for each in mail.destinations):
            refused = await self._forward(mail, trace_line)
            if not mail.once and any(not refusal.permanent for refusal in refused.values()):
                # All or nothing: the local copies are left for the next attempt.
                return [replies.not_delivered(mail.trace)] * len(mail.destinations)
        failed = await self._commit(mail, trace_line, refused)
        return [self._reply(mail, each, refused, failed) for each in mail.destinations]

    async def _forward(self, mail: Mail, trace_line: bytes) -> dict[str, Refusal]:
        """Hand over all forwards; those that smtp-out did not take."""
        refused: dict[str, Refusal] = {}
        given: set[str] = set()
        for destination in mail.destinations:
            addresses = tuple(address for address in destination.forwards if address not in given)
            if not addresses:
                continue
            given.update(addresses)
            sender = self._forwarder.rewritten(mail.sender, split_address(destination.recipient)[1] or self._home)
            # RFC 9228: if it comes back to this address, it went in a circle.
            prefix = f"Delivered-To: {destination.recipient}\r\n".encode() + trace_line
            failed = await self._forwarder.hand_over(
                sender, addresses, prefix, mail.body, trace=mail.trace, smtputf8=mail.smtputf8
            )
            refused.update(failed)
            for address in addresses:
                refusal = failed.get(address)
                outcome = "accept" if refusal is None else "reject" if refusal.permanent else "defer"
                reason = refusal.text if refusal else ""
                self._events.emit(
                    "forwarded", mail.trace, outcome=outcome, conn=mail.conn, sender=sender,
                    recipient=destination.recipient, remote=address, reason=reason,
                )  # fmt: skip
        return refused

    async def _commit(self, mail: Mail, trace_line: bytes, refused: dict[str, Refusal]) -> set[str]:
        """Write the local copies of every destination whose forwards are not to be tried again; accounts that failed.

        Two names that lead to one account make one copy.
        """
        wanted: dict[str, str] = {}
        for destination in mail.destinations:
            if not any(address in refused and not refused[address].permanent for address in destination.forwards):
                for account in destination.accounts:
                    wanted.setdefault(account, destination.recipient)
        failed = await self._write(mail, trace_line, wanted)
        missing = {account: wanted[account] for account, error in failed.items() if isinstance(error, MailboxMissing)}
        if missing and await self._provisioned(mail, missing):
            for account in missing:
                del failed[account]
            failed.update(await self._write(mail, trace_line, missing))
        for account, error in failed.items():
            self._events.emit(
                "delivered", mail.trace, outcome="defer", conn=mail.conn, account=account, recipient=wanted[account],
                reason=f"the mailbox could not be written: {error}",
            )  # fmt: skip
        return set(failed)

    async def _write(self, mail: Mail, trace_line: bytes, wanted: dict[str, str]) -> dict[str, Exception]:
        """Commit copies for `wanted` (account → recipient); account → error where it failed."""
        delivery = self._deliveries.begin(mail.trace, once=mail.once)
        return_path = f"Return-Path: <{mail.sender}>\r\n"
        mailbox = "Junk" if mail.junk else INBOX
        failed: dict[str, Exception] = {}
        for account, recipient in wanted.items():
            # Which of several names a message was sent to matters to whoever has a catch-all.
            original = "" if recipient == account else f"X-Original-To: {recipient}\r\n"
            prefix = f"{return_path}Delivered-To: {account}\r\n{original}".encode() + trace_line
            try:
                await delivery.add_recipient(account, account, prefix, mailbox)
            except StorageError as error:
                failed[account] = error
        await delivery.body(mail.body)
        for result in await delivery.commit():
            if isinstance(result, Failed):
                failed[result.account] = result.error
                continue
            if result.name:
                self._hints.add(result.account, result.mailbox, result.name)
            self._events.emit(
                "delivered", mail.trace, outcome="junk" if mail.junk else "accept", conn=mail.conn, sender=mail.sender,
                account=result.account, recipient=wanted[result.account], mailbox=result.mailbox, size=mail.body.size,
                message_id=mail.message_id, reason="it was there already" if result.duplicate else "",
            )  # fmt: skip
        return failed

    async def _provisioned(self, mail: Mail, accounts: Iterable[str]) -> bool:
        """Ask imap to make the Maildirs of new accounts; False when it could not."""
        try:
            for account in accounts:
                await self._imap.post("/v1/provision", {"address": account})
        except (PeerUnavailable, PeerRefused) as error:
            self._events.emit(
                "delivered", mail.trace, outcome="defer", conn=mail.conn, reason=f"imap made no mailbox: {error}"
            )
            return False
        return True

    def _reply(self, mail: Mail, destination: Destination, refused: dict[str, Refusal], failed: set[str]) -> Reply:
        refusals = [refused[address] for address in destination.forwards if address in refused]
        if any(not refusal.permanent for refusal in refusals) or failed.intersection(destination.accounts):
            return replies.not_delivered(mail.trace)
        if refusals and len(refusals) == len(destination.forwards) and not destination.accounts:
            return replies.not_forwarded(mail.trace)
        return replies.delivered(mail.trace)
