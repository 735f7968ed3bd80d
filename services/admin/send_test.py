"""`send-test`: a real message through everything that the owner's own mail goes through.

It is handed to smtp-out as the submission of an account here (repaired, signed, queued there), so that its trace shows
each room's part. Signature, SPF and DMARC are those of the sender's domain: of several domains each is tried by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from services.admin.operations import Operations
from services.admin.peers import Peers
from services.directory.addresses import address as stored_form
from services.directory.errors import NotFound
from services.runtime.events import new_trace_id

_BODY = """\
This message was sent by "mailstead send-test" from {hostname}.

If you can read it, these work: the queue, the DKIM signature, the way to
your mailbox. Look at its headers to see whether it was judged as genuine:
Authentication-Results should say dkim=pass, spf=pass and dmarc=pass.

{trace}
"""


async def send_test(
    operations: Operations, peers: Peers, hostname: str, to: str, sender: str | None, clock: Callable[[], float]
) -> str:
    """Send it to `to`, from `sender` or an administrator; its trace id.

    Raises InvalidName, NotFound (no such sender), PeerAway, PeerSaid.
    """
    recipient = stored_form(to)
    sender = await _sender(operations, sender)
    trace = new_trace_id()
    message = compose(sender, recipient, hostname, trace, clock())
    query = {"sender": sender, "recipient": recipient}
    await peers.send("smtp-out", "/v1/submit", message, query=query, headers={"Mailstead-Trace": trace})
    return trace


async def _sender(operations: Operations, wanted: str | None) -> str:
    enabled = [each.account for each in await operations.accounts() if each.account.enabled]
    if wanted is None:
        found = [account.address for account in enabled if account.administrator]
        if not found:
            raise NotFound("there is no enabled administrator to send it from: name an account")
        return found[0]
    address = stored_form(wanted)
    if address not in {account.address for account in enabled}:
        raise NotFound(f"there is no enabled account {address} to send it from")
    return address


def compose(sender: str, recipient: str, hostname: str, trace: str, now: float) -> bytes:
    """The message, with CRLF. No `email` package: 1.5 MiB for six lines of ASCII."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(now))
    lines = [
        f"Date: {date}",
        f"From: {sender}",
        f"To: {recipient}",
        f"Subject: Test from {hostname}",
        f"Message-ID: <{trace}@{hostname}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Auto-Submitted: auto-generated",  # RFC 3834 §5: nobody's vacation notice answers it
        "",
        *_BODY.format(hostname=hostname, trace=trace).splitlines(),
    ]
    return "".join(line + "\r\n" for line in lines).encode()
