"""Hands forwards, and reports of this room, to smtp-out, which keeps them durably before it says yes.

One SMTP session per message on the internal network, with the pair's secret and the message's trace id. The envelope
sender is rewritten (SRS), since the next server would not believe us in another domain's name; the message itself is
not touched but for lines put before it, so that a signature over it still verifies. Called by `deliver` and `dsn`; what
leaves, and what is asked of reports, is `policy/forwarding`'s. Never retries: a failure goes back to the sender as 451.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from services.message.headers import find_all
from services.policy import srs
from services.protocol.smtp_parameters import RcptParameters
from services.runtime.listener import host_and_port
from services.runtime.process import Context
from services.smtp import client
from services.storage.delivery import Incoming

# Next door, and it answers from memory until the final fsync: who waits longer waits for a broken room.
TIMEOUTS = client.Timeouts(connect=10, greeting=20, command=20, data=20, block=60, final=120, quit=2)
# On a message that was forwarded: a mark for each address that it went to, which only we can make.
MARK = "X-Mailstead-Forwarded"
_MARK_CHARACTERS = 16  # 80 bits: nobody makes one to keep somebody's mail from being forwarded
# Of a header: a message that has been through more aliases than this is stopped by its Received fields.
_MOST_MARKS = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one address was not taken over. `permanent`: asking again is useless."""

    permanent: bool
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What goes along with a message: MAIL's RET, ENVID and REQUIRETLS, and each address's NOTIFY and ORCPT."""

    ret: str = ""
    envid: str = ""
    requiretls: bool = False
    dsn: Mapping[str, RcptParameters] = field(default_factory=dict)


NOTHING_ASKED = Asked()
_NEVER = RcptParameters("NEVER")


class Forwarder:
    """`is_local` tells whether a domain is ours: its senders need no rewriting."""

    def __init__(self, context: Context, is_local: Callable[[str], bool]) -> None:
        """Connects for each message: forwards are few, and smtp-out may restart between two."""
        self._context, self._is_local = context, is_local
        secret = context.secrets.pair("smtp-in", "smtp-out")
        host, port = host_and_port(context.settings.forward_address)
        self._target = client.Target(host, port, user="smtp-in", password=secret, private_network=True)
        # Keys of their own, so that what strangers see of them says nothing about the pair's secret.
        self._srs_key = hmac.digest(secret.encode(), b"srs", hashlib.sha256)
        self._mark_key = hmac.digest(secret.encode(), b"forwarded", hashlib.sha256)

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

    def marked(self, addresses: Iterable[str]) -> bytes:
        """The line, with CRLF, by which a forward to `addresses` is known when it comes back."""
        return f"{MARK}: {' '.join(self._mark(address) for address in addresses)}\r\n".encode()

    def been(self, header: bytes, addresses: Iterable[str]) -> frozenset[str]:
        """Those of `addresses` that a message with this header was forwarded to before."""
        fields = find_all(header, MARK.encode())
        if not fields:
            return frozenset()
        words = b" ".join(each.value for each in fields).split()[:_MOST_MARKS]
        return frozenset(address for address in addresses if self._mark(address).encode() in words)

    def _mark(self, address: str) -> str:
        # Case may change on the way through an alias that was typed anew; the mailbox there is the same.
        mac = hmac.digest(self._mark_key, address.lower().encode("utf-8", "surrogatepass"), hashlib.sha256)
        return base64.b32encode(mac)[:_MARK_CHARACTERS].decode().lower()

    async def hand_over(
        self,
        sender: str,
        addresses: tuple[str, ...],
        prefix: bytes,
        body: Incoming | None,
        *,
        trace: str,
        smtputf8: bool,
        asked: Asked = NOTHING_ASKED,
    ) -> dict[str, Refusal]:
        """Give the message for `addresses` to smtp-out; those that it did not take, with the reason.

        `prefix` and `body` are the message; `body` None: it is all in `prefix`. An address that nothing is `asked` for
        goes with NOTIFY=NEVER: a report to a sender whom nobody has proven is never the default.
        """
        message = client.Message(
            sender, addresses, len(prefix) + (body.size if body else 0), eight_bit=True, smtputf8=smtputf8, trace=trace,
            ret=asked.ret, envid=asked.envid, requiretls=asked.requiretls,
            dsn={address: asked.dsn.get(address, _NEVER) for address in addresses},
        )  # fmt: skip
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


async def _chunks(prefix: bytes, body: Incoming | None) -> AsyncIterator[bytes]:
    yield prefix
    if body is None:
        return
    chunks = body.chunks()
    if not body.in_file:
        for chunk in chunks:
            yield chunk
        return
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk
