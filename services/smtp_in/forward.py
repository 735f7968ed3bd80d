"""Hands forwards to smtp-out, which keeps them durably before it says yes.

One SMTP session per message on the internal network, with the pair's secret and the message's trace id. The envelope
sender is rewritten (SRS), since the next server would not believe us in another domain's name; the message itself is
not touched but for lines put before it. Called by `deliver`. Never retries: a failure goes back to the sender as 451.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from services.policy import srs
from services.runtime.listener import host_and_port
from services.runtime.process import Context
from services.smtp import client
from services.storage.delivery import Incoming

# Next door, and it answers from memory until the final fsync: who waits longer waits for a broken room.
TIMEOUTS = client.Timeouts(connect=10, greeting=20, command=20, data=20, block=60, final=120, quit=2)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one address was not taken over. `permanent`: asking again is useless."""

    permanent: bool
    text: str


class Forwarder:
    """`is_local` tells whether a domain is ours: its senders need no rewriting."""

    def __init__(self, context: Context, is_local: Callable[[str], bool]) -> None:
        """Connects for each message: forwards are few, and smtp-out may restart between two."""
        self._context, self._is_local = context, is_local
        secret = context.secrets.pair("smtp-in", "smtp-out")
        host, port = host_and_port(context.settings.forward_address)
        self._target = client.Target(host, port, user="smtp-in", password=secret, private_network=True)
        # A key of its own, so that what strangers see of it says nothing about the pair's secret.
        self._srs_key = hmac.digest(secret.encode(), b"srs", hashlib.sha256)

    def original(self, address: str) -> str:
        """Where a bounce to an SRS address of ours goes; raises srs.NotOurs."""
        return srs.decode(address, self._srs_key, self._context.clock())

    def rewritten(self, sender: str, ours: str) -> str:
        """The envelope sender for a forward of mail to the domain `ours`."""
        if not sender or self._is_local(sender.rpartition("@")[2]):
            return sender
        try:
            return srs.encode(sender, ours, self._srs_key, self._context.clock())
        except (srs.TooLong, ValueError):
            # Bounces then end at our own postmaster instead of being lost.
            return f"postmaster@{ours}"

    async def hand_over(
        self, sender: str, addresses: tuple[str, ...], prefix: bytes, body: Incoming, *, trace: str, smtputf8: bool
    ) -> dict[str, Refusal]:
        """Give the message for `addresses` to smtp-out; those that it did not take, with the reason."""
        message = client.Message(
            sender, addresses, len(prefix) + body.size, eight_bit=True, smtputf8=smtputf8, trace=trace
        )
        try:
            session = await client.connect(self._target, self._context.settings.hostname, TIMEOUTS)
            try:
                result = await session.deliver(message, _chunks(prefix, body))
            finally:
                await session.quit()
        except (client.ConnectionLost, client.ProtocolFault, client.Refused) as error:
            return dict.fromkeys(addresses, Refusal(False, f"smtp-out did not take it: {error}"))
        return {
            each.address: Refusal(each.reply.permanent, f"smtp-out said {each.reply.text}")
            for each in result
            if not each.delivered
        }


async def _chunks(prefix: bytes, body: Incoming) -> AsyncIterator[bytes]:
    yield prefix
    chunks = body.chunks()
    if not body.in_file:
        for chunk in chunks:
            yield chunk
        return
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk
