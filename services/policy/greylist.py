"""Greylisting (RFC 6647): who is not known yet is told 451 and has to come back; servers do, many spammers do not.

**Whom it concerns.** A sender is (client network, sender's domain, recipient); the network is /24 or /64. Nobody waits
who is known in one of these ways, asked in this order:

1. a trusted forwarder handed it on: it would only fill that server's queue (never asked here at all);
2. the sender's domain delivered here before, and SPF says for both that the client may send for it;
3. the recipient has written to this address: an answer must not wait;
4. the same sender came back in time before.

**How long.** The first try is refused; a try after `wait` seconds is taken. Large providers try again from another
machine of a pool: where SPF passes, the network is left out of the key, so that any machine of that domain counts.
Where it does not, a try from elsewhere counts too after `patience`: the same address that writes to the same recipient
over and over from changing networks is a pool without SPF, and no letter may be lost to that. So a first letter is
late by at most `patience` and its sender's own pause between two tries, and never refused for good.

**The null sender** has no domain: the name in HELO stands for it. It is asked at DATA instead of RCPT: others test our
senders by an empty sender and a RCPT (call-outs), and would refuse our mail while we tell them to come back.

**Clocks.** Times are the wall clock's, since they outlive a restart. Where it was set back, a first try that lies in
the future is taken as having been made now: the sender waits once more, and not until the clock has caught up.

Pure: rows come from `storage/intake_store.py`, which also forgets (`Rules.forget_try`, `forget_sender`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from services.policy.networks import network_of
from services.policy.verdict import Reason

# What a time server moves a clock by in passing; more is a clock that was set.
STEP_SECONDS = 60.0
ANYWHERE = ""  # in place of a network


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in seconds."""

    wait: float = 300.0
    # Half an hour and more: Postfix's, Exim's and the large providers' pools have tried several times by then.
    patience: float = 1800.0
    # RFC 6647 §4.5 has a day; senders that pause longer between two tries exist on weekends.
    forget_try: float = 2 * 86_400.0
    # A monthly newsletter is still known.
    forget_sender: float = 40 * 86_400.0

    @staticmethod
    def of(seconds: int) -> Rules:
        """With GREYLIST_SECONDS as the wait; patience is never shorter than it."""
        return Rules(wait=float(seconds), patience=max(1800.0, 2.0 * seconds))


class Key(NamedTuple):
    """Who writes to whom. `who` is a domain; an address where `network` is ANYWHERE and SPF does not vouch for it."""

    network: str
    who: str
    recipient: str


class Seen(NamedTuple):
    """What is known of a key: its first and last try, and whether it came back in time."""

    first: float
    last: float
    passed: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """`wait`: seconds until a try is taken, 0 = now. `keep`, `keep_elsewhere`: to be remembered of the two keys."""

    wait: float
    keep: Seen
    keep_elsewhere: Seen
    reason: Reason | None = None


def keys(client: str, sender: str, helo: str, recipient: str, *, spf_pass: bool) -> tuple[Key, Key]:
    """The key of this sender, and the key under which it would be found again from elsewhere; in lower case."""
    sender, recipient = sender.lower(), recipient.lower()
    domain = sender.rpartition("@")[2] or helo.lower().rstrip(".")
    if spf_pass:
        key = Key(ANYWHERE, domain, recipient)
        return key, key
    return Key(network_of(client, 24, 64), domain, recipient), Key(ANYWHERE, sender or domain, recipient)


def judge(seen: Seen | None, elsewhere: Seen | None, now: float, rules: Rules) -> Finding:
    """Whether this try is taken. `seen` and `elsewhere` are what is known of its two keys.

    A row that should have been forgotten counts as none.
    """
    seen = _valid(seen, now, rules) or Seen(now, now)
    elsewhere = _valid(elsewhere, now, rules) or Seen(now, now)
    # A pass is for the network that earned it; of the other key only its beginning counts.
    other = Seen(elsewhere.first, now)
    if seen.passed:
        return Finding(0, Seen(seen.first, now, True), other)
    waited, pool_waited = now - seen.first, now - elsewhere.first
    if waited >= rules.wait or pool_waited >= rules.patience:
        return Finding(0, Seen(seen.first, now, True), other)
    left = min(rules.wait - waited, rules.patience - pool_waited)
    text = f"not known yet: may come back in {int(left + 0.999)} seconds (greylisting)"
    return Finding(left, Seen(seen.first, now), other, Reason("greylist", text))


def _valid(seen: Seen | None, now: float, rules: Rules) -> Seen | None:
    if seen is None:
        return None
    if seen.first > now + STEP_SECONDS or seen.last > now + STEP_SECONDS:
        # The clock was set back: whoever had passed stays known, whoever waits begins to wait now.
        return Seen(now, now, True) if seen.passed else None
    lasts = rules.forget_sender if seen.passed else rules.forget_try
    return seen if now - seen.last <= lasts else None
