"""Whether a person is to be answered automatically (RFC 3834 §2, RFC 5230 §4.5 and §4.6).

A vacation reply to a list goes to hundreds, one to a robot begins a loop, one to a forged sender is a letter to a
stranger. Each rule is a reason not to answer; where none holds, the caller still asks whether the same person was
answered lately. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from services.policy.sieve.actions import Vacation
from services.policy.sieve.constants import mail_address
from services.policy.sieve.mail import Mail, is_whole

# RFC 5230 §4.6: who is no person, by the name.
_ROBOTS = re.compile(
    r"mailer-daemon|listserv|majordomo|postmaster|(?:double-)?bounces?|no-?reply|do-?not-?reply|owner-.*|.*-owner"
    r"|.*-request|.*-bounces?|(?:no-?reply|bounces?|do-?not-?reply)[+=._-].*|.*[+=._-](?:no-?reply|bounces?)"
    r"|srs[01][+=-].*|prvs=.*|btv1==.*",
    re.IGNORECASE,
)
# RFC 2919, RFC 2369: a list's fields.
_LIST_FIELDS = (
    b"list-id", b"list-help", b"list-subscribe", b"list-unsubscribe", b"list-post", b"list-owner", b"list-archive",
    b"mailing-list", b"x-mailing-list", b"x-loop",
)  # fmt: skip
# RFC 5230 §4.5
_ADDRESSED = (b"to", b"cc", b"bcc", b"resent-to", b"resent-cc", b"resent-bcc")


def not_answered(vacation: Vacation, mail: Mail, ours: Collection[str], *, forged: bool) -> str:
    """Why `mail` gets no answer; "" where it may.

    `ours`: addresses whose mail the account gets, in lower case. `forged`: the sender is probably not who wrote
    (`policy/authenticity`).
    """
    sender = mail.sender.lower()
    if not sender:
        return "it is a report, or comes from a program (no sender)"  # RFC 3834 §2
    if _ROBOTS.fullmatch(sender.rpartition("@")[0]):
        return "its sender is a program by its name"
    if forged:
        return "its sender is not proven: an answer would go to a stranger"
    me = {address.lower() for address in ours} | {_plain(address) for address in vacation.addresses}
    if _without_tag(sender) in me or sender in me:
        return "it comes from the account itself"
    if any(mail.values(name) for name in _LIST_FIELDS):
        return "it comes from a list"
    # RFC 3834 §5: anything but "no" is automatic.
    if any(value.split(b";")[0].strip().lower() not in (b"no", b"") for value in mail.values(b"auto-submitted")):
        return "it was sent automatically"
    if any(value.strip().lower() in (b"bulk", b"list", b"junk") for value in mail.values(b"precedence")):
        return "it is bulk mail"
    if any(_suppresses(value) for value in mail.values(b"x-auto-response-suppress")):
        return "its sender asks for no automatic answers"
    if not any(address in me or _without_tag(address) in me for address in _recipients(mail)):
        return "it is not addressed to the account"
    return ""


def _suppresses(value: bytes) -> bool:
    """Exchange's field: a list of what is not wanted."""
    return bool({each.strip().lower() for each in value.split(b",")} & {b"all", b"oof", b"autoreply"})


def _recipients(mail: Mail) -> list[str]:
    found = [each for name in _ADDRESSED for value in mail.values(name) for each in mail.addresses(value)]
    return [_text(each.mailbox, each.host) for each in found if is_whole(each)]


def _text(mailbox: bytes | None, host: bytes | None) -> str:
    return ((mailbox or b"") + b"@" + (host or b"")).decode("utf-8", "replace").lower()


def _plain(address: str) -> str:
    return (mail_address(address.encode()) or address).lower()


def _without_tag(address: str) -> str:
    """`user+tag@domain` is the user's."""
    local, at, domain = address.rpartition("@")
    return local.partition("+")[0] + at + domain
