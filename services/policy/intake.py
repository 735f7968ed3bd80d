"""What smtp-in decides about a message from outside, stage by stage, before a byte of it is kept.

**connect** and **helo** are accepted: who the peer is and what it calls itself is recorded for `trace`, and proves
nothing. Limits of connections and of time are the engine's. While an update is under way the peer is told to come back:
what it would bring now might have to be read by a version that does not know it yet.

**mail**: any sender may be named, the null sender too (a bounce must get through, RFC 5321 §4.5.5). While the disk is
below its reserve the mail waits at its sender: better late than half written. So does what comes from an address or a
network faster than `policy/rates.py` allows. From here on DNS is asked about the client and the sender; nobody waits.

**rcpt**, in this order, by what `policy/routes.py` found for the address:

1. The directory is not there yet (admin has published nothing): we cannot know, so the peer tries again. Never 550.
2. Not a domain of ours: relaying is denied. There is no network or address that is trusted to relay through here.
3. An address that leads nowhere: refused now, at the sender's server, which tells its author. Taking the message and
   bouncing it later would make us a source of back-scatter.
4. Only accounts that take no mail: the same, with the code that says so (5.2.1).
5. Else it leads to mailboxes, to addresses elsewhere, or to both. A disabled member of a list gets no copy and stops
   nobody else's.
6. With GREYLIST=yes: a sender whom nobody here knows comes back in some minutes (`policy/greylist.py`).

**data**, once the message is here:

0. Its header does not end within 256 KiB: junk. What is not read is not judged: a From behind it would be shown to a
   person whom no DMARC protects. Honest headers have some KB; Exchange and Sendmail refuse such a message.
1. More than 50 Received fields: it is going round (RFC 5321 §6.3; Postfix stops at 50 too).
2. A `Delivered-To` that names where we are about to put it: it has been there, and came back through somebody's
   forwarding. Only that recipient is left out, since it has its copy; when nobody is left, the message is refused.
3. What the sender's proofs come to (`policy/authenticity.py`): taken, junk, or refused where the owner wants it so.
4. A virus, where a scanner looks for them: refused, so that an honest sender hears of it; or junk, as the owner wants.
5. A sender who writes more than `policy/rates.py` allows, and a scanner that does not answer where the owner wants it
   asked: the mail waits at its sender.
6. The points of everything that was found (`policy/score.py`): junk, or refused where the owner says from how many.
7. Else it is taken, and 250 is said once it is durable everywhere. What each account thinks of it comes after
   (`smtp_in/personal.py`), and can make it junk or not, but no longer refuse it.

Pure: what the directory and the disk say is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.policy.authenticity import Worth
from services.policy.routes import A, NotLocal, Routing, Unknown
from services.policy.score import Scale
from services.policy.verdict import Reason, Stage, Verdict, refused, total
from services.protocol import reply as replies
from services.protocol.reply import Reply

MAX_HOPS = 50
MAX_HEADER = 1 << 18  # octets

_CONNECT = Verdict("connect", "accept")
_HELO = Verdict("helo", "accept")
_MAIL = Verdict("mail", "accept", replies.SENDER_OK)
_RCPT = Verdict("rcpt", "accept", replies.RECIPIENT_OK)
_DATA = Verdict("data", "accept")

_NO_ROOM = "less is free on the disk than the reserve (DISK_RESERVE_PERCENT, DISK_RESERVE_BYTES)"
_TOO_MANY_HOPS = Reply(554, "5.4.6", f"more than {MAX_HOPS} Received lines: the message goes round in a circle")
_DELIVERED_BEFORE = Reply(554, "5.4.6", "the message was delivered here before: it goes round in a circle")
_TOO_MANY = Reply(451, "4.7.1", "too many messages in this hour, try again later")
_SCANNER_DOWN = Reply(451, "4.3.0", "the message cannot be looked at now, try again later")
_SPAM = Reply(550, "5.7.1", "the message looks like junk")
_NO_DIRECTORY = Reply(451, "4.3.0", "the list of addresses is not ready, try again in a minute")


def connection(*, held: str = "") -> Verdict:
    """A peer connected. `held` says why nobody may, while an update is under way."""
    return refused("connect", replies.UPDATING, "held", held) if held else _CONNECT


def hello() -> Verdict:
    """It said what it calls itself."""
    return _HELO


def sender(*, room_on_disk: bool, limit: Reason | None = None) -> Verdict:
    """MAIL. `limit`: why this client has to wait."""
    if not room_on_disk:
        return refused("mail", replies.INSUFFICIENT_STORAGE, "disk-reserve", _NO_ROOM)
    if limit is not None:
        return Verdict("mail", "defer", _TOO_MANY, (limit,))
    return _MAIL


def takers(found: Routing[A]) -> tuple[A, ...]:
    """The mailboxes of `found` that take mail now."""
    return tuple(account for account in found.mailboxes if account.enabled)


def recipient(address: str, found: Routing[Any] | Unknown | NotLocal | None) -> Verdict:
    """RCPT. `found` is what the address leads to; None: there is no directory to ask."""
    if found is None:
        return refused("rcpt", _NO_DIRECTORY, "no-directory", "admin has not published the list of addresses yet")
    if isinstance(found, NotLocal):
        return refused("rcpt", replies.RELAYING_DENIED, "not-local", f"{address} is in no domain that is served here")
    if isinstance(found, Unknown):
        text = found.reason or f"{address} is no account and no alias"
        return refused("rcpt", replies.mailbox_unavailable(address), "unknown-recipient", text)
    closed = [account.address for account in found.mailboxes if not account.enabled]
    if closed and len(closed) == len(found.mailboxes) and not found.forwards:
        text = f"{closed[0]} is disabled"
        return refused("rcpt", replies.mailbox_disabled(address), "disabled", text)
    reasons = [Reason("disabled-target", f"{name} is disabled and gets no copy") for name in closed]
    reasons += [Reason("dead-target", f"{name} leads nowhere") for name in found.skipped]
    return Verdict("rcpt", "accept", replies.RECIPIENT_OK, tuple(reasons)) if reasons else _RCPT


def body_begins(*, room_on_disk: bool) -> Verdict:
    """DATA, before 354: the last moment at which the disk can say no cheaply."""
    if not room_on_disk:
        return refused("data", replies.INSUFFICIENT_STORAGE, "disk-reserve", _NO_ROOM)
    return _DATA


def greylisted(stage: Stage, reason: Reason) -> Verdict:
    """RCPT, or DATA for the null sender: come again. RFC 6647 §2: a temporary failure, and when."""
    return Verdict(stage, "defer", Reply(451, "4.7.1", reason.text), (reason,))


@dataclass(frozen=True, slots=True)
class Found:
    """What judging a message brought: what its proofs are worth, the other reasons, and what a scanner said."""

    worth: Worth
    reasons: tuple[Reason, ...] = ()
    limit: Reason | None = None
    virus: str = ""
    refuse_virus: bool = True
    wait_for_scanner: bool = False


def message(
    hops: int,
    *,
    places: int,
    been_there: int,
    unread: bool = False,
    found: Found | None = None,
    scale: Scale | None = None,
) -> Verdict:
    """The body is here. It would go to `places` mailboxes and forwards, and has been at `been_there` of them.

    `unread`: its header is longer than `MAX_HEADER`. `found` None: nobody judges (mail from inside, or
    MAIL_CHECKS=off).
    """
    if hops > MAX_HOPS:
        return refused("data", _TOO_MANY_HOPS, "hops", f"{hops} Received lines")
    if been_there and been_there >= places:
        return refused("data", _DELIVERED_BEFORE, "loop", "its Delivered-To names the recipient: it came back")
    looped: tuple[Reason, ...] = ()
    if been_there:
        looped = (Reason("loop", f"left out {been_there} places where it has been"),)
    if unread:
        long = Reason("header-too-long", f"its header does not end within {MAX_HEADER >> 10} KiB")
        return Verdict("data", "junk", None, (long, *looped), settled=True)
    if found is None:
        return Verdict("data", "accept", None, looped) if looped else _DATA
    return _judged(found, looped, scale or Scale())


def _judged(found: Found, looped: tuple[Reason, ...], scale: Scale) -> Verdict:
    reasons = (*found.worth.reasons, *found.reasons, *looped)
    if found.worth.action == "reject":
        return Verdict("data", "reject", found.worth.reply, reasons, settled=True)
    if found.virus and found.refuse_virus:
        return Verdict("data", "reject", Reply(550, "5.7.1", f"a virus was found in it: {found.virus}"), reasons, True)
    if found.limit is not None:
        return Verdict("data", "defer", _TOO_MANY, (*reasons, found.limit))
    if found.wait_for_scanner:
        return Verdict("data", "defer", _SCANNER_DOWN, reasons)
    outcome = scale.outcome(total(reasons))
    if outcome == "reject":
        return Verdict("data", "reject", _SPAM, reasons)
    if found.worth.settled or found.virus:
        return Verdict("data", "junk", None, reasons, settled=True)
    return Verdict("data", outcome, None, reasons)
