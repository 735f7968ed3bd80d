"""Which of a message's places outside it goes to, and what is asked of reports there. Pure.

A forward leaves in our name: what its target thinks of it, it thinks of all our mail. So, in this order:

1. **Never in a circle.** A forward carries a mark for the address that it goes to; one that comes back with that mark
   (through somebody's own forwarding, which took our Delivered-To out) does not go there again. Other targets have it.
2. **Never junk.** Where the message has another place, a mailbox here, that one has it in Junk. Where outside is its
   only place, FORWARD_JUNK says: `keep`, in the Junk of the first administrator, or `refuse`, at SMTP time. `keep` is
   the default: what was judged wrongly is there to be found, and a refusal is lost on a sender that is a machine; who
   has a catch-all that collects a world of junk may choose the other.

A report about a failure goes back only to a sender that somebody vouches for: SPF passed for the envelope's domain, or
a signature that verifies is of that domain or one above it. Else NOTIFY=NEVER is handed over (RFC 3461 §4.1): the owner
of the alias hears of it instead. And by RFC 3461 §5.2.7: to one address what was asked goes along; of several, SUCCESS
is answered here ("expanded") and taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.message.dkim_verify import DkimResult
from services.policy.spf import SpfResult
from services.policy.verdict import Reason
from services.protocol.reply import Reply
from services.protocol.smtp_parameters import NO_RCPT_PARAMETERS, RcptParameters, encode_xtext

JUNK_NOT_FORWARDED = Reply(550, "5.7.1", "the message looks like junk, which is not forwarded")
CAME_BACK = Reply(554, "5.4.6", "the message was forwarded from here before: it goes round in a circle")


@dataclass(frozen=True, slots=True)
class Leaving:
    """What becomes of one recipient: `forwards` to hand over, `accounts` for copies here, of which those in `junk` lie
    in Junk whatever their own filter thinks. `reply`: nothing is left, and this is said. `reasons` for the record."""

    accounts: tuple[str, ...]
    forwards: tuple[str, ...]
    junk: tuple[str, ...] = ()
    reply: Reply | None = None
    reasons: tuple[Reason, ...] = ()


def leaving(
    accounts: tuple[str, ...],
    forwards: tuple[str, ...],
    *,
    been: Collection[str] = (),
    junk: bool = False,
    keep: bool = True,
    administrator: str = "",
) -> Leaving:
    """By the order in this module's text. `been` are those of `forwards` where the message comes from; `keep` is
    FORWARD_JUNK; `administrator` keeps what has no other place, "" where there is none."""
    if not forwards:
        return Leaving(accounts, ())
    reasons: list[Reason] = []
    if here := [each for each in forwards if each in been]:
        forwards = tuple(each for each in forwards if each not in been)
        reasons.append(Reason("loop", f"it comes from {here[0]}, where it was forwarded to: not sent there again"))
        if not forwards and not accounts:
            return Leaving((), (), reply=CAME_BACK, reasons=tuple(reasons))
    if not junk or not forwards:
        return Leaving(accounts, forwards, reasons=tuple(reasons))
    reasons.append(Reason("forward-junk", f"junk is not forwarded: {', '.join(forwards)} left out"))
    if accounts:
        return Leaving(accounts, (), reasons=tuple(reasons))
    if keep and administrator:
        reasons.append(Reason("forward-kept", f"kept in the Junk of {administrator} instead"))
        return Leaving((administrator,), (), junk=(administrator,), reasons=tuple(reasons))
    return Leaving((), (), reply=JUNK_NOT_FORWARDED, reasons=tuple(reasons))


def proven(sender: str, spf: SpfResult | None, dkim: Sequence[DkimResult]) -> bool:
    """Whether `sender`, the envelope's, may be believed."""
    domain = sender.rpartition("@")[2].lower()
    if not domain:
        return False
    if spf is not None and spf.result == "pass" and spf.scope == "mfrom":
        return True
    signers = (each.domain.lower() for each in dkim if each.result == "pass" and each.counts_for_alignment)
    return any(domain == signer or domain.endswith("." + signer) for signer in signers)


def asked_of_forward(
    recipient: str, asked: RcptParameters = NO_RCPT_PARAMETERS, *, proven: bool, places: int = 1
) -> RcptParameters:
    """What is handed over with a forward for `recipient`, which leads to `places` places in all."""
    # RFC 3461 §5.2.1: where the sender named no original recipient, it is the address that mail first came for.
    orcpt = asked.orcpt or (f"rfc822;{encode_xtext(recipient)}" if recipient.isascii() else "")
    if not proven:
        return RcptParameters("NEVER", orcpt)
    words = asked.notify.split(",") if asked.notify else []
    if places > 1 and "SUCCESS" in words:
        words.remove("SUCCESS")
        return RcptParameters(",".join(words) or "NEVER", orcpt)
    return RcptParameters(asked.notify, orcpt)
