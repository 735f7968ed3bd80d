"""How many messages an hour from one address, one network and in one sender's name; more wait at their sender.

A token bucket each (an hour's allowance may come at once, then it fills again evenly), so that nothing has to be kept
of single messages. Too much is never refused for good: whoever sends it is told 451 and keeps it, and a mailing list
that writes to the whole family in one night is only late.

* address: an IPv4 address, the /64 of an IPv6 one (one customer has at least that).
* network: /24, /48: who rents a block of addresses to send from all of them.
* sender: the envelope's address, where SPF says that it may be named from there. A name that anybody could have written
  counts together with the network that it came from: otherwise a stranger could use up a friend's allowance.

Trusted forwarders and gateways are not counted: they stand for everybody. Buckets are in this process's memory and
bounded; with several worker processes each counts what it sees, so that the house takes up to that many times as much.
That is enough against a flood, and costs no shared store on each message. A restart forgets them.

Pure: the caller passes the time, from a clock that may be set back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from services.policy.networks import network_of
from services.policy.verdict import Reason

HOUR = 3600.0
# About 200 octets each: 4 MB at the most in all three, and a botnet of more addresses than this sends little from each.
_TRACKED = 10_000


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Messages an hour; 0: no limit."""

    address: int = 1000
    network: int = 3000
    sender: int = 1000


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """Token buckets of one size, by key; the one not used for longest is forgotten first."""

    def __init__(self, per_hour: int, tracked: int = _TRACKED) -> None:
        self.per_hour = per_hour
        self._tracked = tracked
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def has(self, key: str, now: float) -> bool:
        """Whether one more is within the limit; takes nothing."""
        return not self.per_hour or self._filled(key, now).left >= 1

    def take(self, key: str, now: float) -> None:
        """Count one."""
        if self.per_hour:
            self._filled(key, now).left -= 1

    def _filled(self, key: str, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(float(self.per_hour), now)
            if len(self._buckets) > self._tracked:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(key)
        # A clock set back fills nothing, and from then on time counts anew.
        bucket.left = min(self.per_hour, bucket.left + max(0.0, now - bucket.at) * self.per_hour / HOUR)
        bucket.at = now
        return bucket


class Rates:
    """What one process knows of the last hour. Not thread-safe: the room's loop is its only caller."""

    def __init__(self, limits: RateLimits) -> None:
        """Nobody has sent anything yet."""
        self._address = Buckets(limits.address)
        self._network = Buckets(limits.network)
        self._sender = Buckets(limits.sender)

    def client(self, address: str, now: float) -> Reason | None:
        """MAIL from `address`: counted, or the reason why it has to wait (then nothing is counted)."""
        counted = (
            (self._address, network_of(address, 32, 64), "rate-address"),
            (self._network, network_of(address, 24, 48), "rate-network"),
        )
        return _count(counted, now)

    def sender(self, sender: str, address: str, proven: bool, now: float) -> Reason | None:
        """A message in the name of `sender`; `proven`: SPF passed. The null sender is nobody's name (RFC 5321 §4.5.5:
        a bounce has it), and is limited by where it comes from alone."""
        if not sender:
            return None
        key = sender.lower() if proven else f"{sender.lower()} {network_of(address, 24, 48)}"
        return _count(((self._sender, key, "rate-sender"),), now)


def _count(counted: Iterable[tuple[Buckets, str, str]], now: float) -> Reason | None:
    counted = tuple(counted)
    for buckets, key, rule in counted:
        if not buckets.has(key, now):
            return Reason(rule, f"more than {buckets.per_hour} messages an hour from {key}")
    for buckets, key, _ in counted:
        buckets.take(key, now)
    return None
