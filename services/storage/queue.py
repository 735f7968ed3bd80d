"""What a queue of outgoing mail is: its values and its `Protocol`. `queue_store.py` is the one on SQLite.

A message has recipients; each is waiting, in flight, held, delivered or failed, and has a destination, that is what
shares connections and troubles (a domain, the relay, our own smtp-in). `add` returns after file, name and state are
durable; then 250 may be said. A recipient is `claim`ed before it is tried and `settle`d after, so that a crash repeats
at most the attempts in flight, and `Recovery` counts them (RFC 1047: no protocol can do better). A report about a
failure is added in the transaction that records the failure: never lost, never sent twice.

Owns nothing itself. Never talks to a network, never decides when to try again: `next` comes from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from services.protocol.smtp_parameters import NO_RCPT_PARAMETERS, RcptParameters
from services.storage.spool import Spooled

Kind = Literal["submission", "forward", "report"]
State = Literal["waiting", "in flight", "held", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be queued. `recipients` are (address, destination), each address once.

    `ret`, `envid` and each recipient's part of `dsn` are what the sender asked of reports (RFC 3461), `requiretls` of
    TLS (RFC 8689).
    """

    id: str
    trace: str
    kind: Kind
    sender: str
    account: str
    created: float
    spooled: Spooled
    recipients: tuple[tuple[str, str], ...]
    eight_bit: bool = False
    smtputf8: bool = False
    message_id: str = ""
    once: bool = False  # drop the recipients that were taken under this trace before
    ret: str = ""
    envid: str = ""
    requiretls: bool = False
    dsn: Mapping[str, RcptParameters] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recipient in a claim: `attempts` counts this one too."""

    address: str
    attempts: int
    warned: bool
    dsn: RcptParameters = NO_RCPT_PARAMETERS


@dataclass(frozen=True, slots=True)
class Work:
    """One message with those of its recipients that go to one destination, claimed for one attempt."""

    id: str
    trace: str
    kind: Kind
    sender: str
    account: str
    created: float
    spooled: Spooled
    eight_bit: bool
    smtputf8: bool
    message_id: str
    destination: str
    recipients: tuple[Waiting, ...]
    ret: str = ""
    envid: str = ""
    requiretls: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim gave: `work`, None where nothing is due, and when something is due next at that destination."""

    work: Work | None
    following: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to for one recipient. `next` matters for deferred; `warned`: a delay report goes with it."""

    address: str
    outcome: Literal["delivered", "deferred", "failed"]
    reply: str
    remote: str = ""
    next: float = 0.0
    warned: bool = False
    tried: bool = True  # False: put off without an attempt, which is not counted as one


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Forwards that left on `day` (epoch days, UTC). `told`: the administrator was, that they are nearly used up."""

    day: int
    count: int = 0
    told: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of a message's history, in the remote's words."""

    address: str
    at: float
    remote: str
    outcome: str
    reply: str


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """How far one recipient is."""

    address: str
    destination: str
    state: State
    attempts: int
    next: float
    last_reply: str


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """One message as the owner sees it; `history` only where it was asked for."""

    id: str
    trace: str
    kind: Kind
    sender: str
    account: str
    created: float
    size: int
    message_id: str
    held: bool
    recipients: tuple[QueuedRecipient, ...] = ()
    history: tuple[Attempt, ...] = ()

    @property
    def state(self) -> State:
        """The message's state: held, in flight while any recipient is, else waiting."""
        if self.held:
            return "held"
        return "in flight" if any(each.state == "in flight" for each in self.recipients) else "waiting"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the start found. `interrupted`: recipients whose attempt a crash cut short, the possible duplicates.
    `orphans`: files that nobody was told of, removed. `missing`: messages whose file is gone."""

    queued: int
    interrupted: int
    orphans: int
    missing: tuple[str, ...]
    restored: bool


class Queue(Protocol):
    """What the rooms need of a queue; another store may stand behind it."""

    async def add(self, message: NewMessage) -> bool:
        """Make it durable. False where every recipient had been taken before."""

    async def agenda(self) -> dict[str, float]:
        """Destination → when something is due there first."""

    async def claim(self, destination: str, now: float, account: str = "") -> Claim:
        """The message that has been due longest there, in flight from now on; with `account` of those it submitted."""

    async def settle(
        self,
        work: Work,
        now: float,
        outcomes: Sequence[Outcome],
        reports: Sequence[NewMessage] = (),
        forwarded: Forwarded | None = None,
    ) -> float | None:
        """Record an attempt, and add reports about it and what it used of a day's forwards. When something is due next
        at its destination, if at all."""

    async def forwarded(self, day: int) -> Forwarded:
        """What left on that day."""

    async def listing(self, limit: int, after: str = "") -> list[QueuedMessage]:
        """Messages with their recipients, by id."""

    async def details(self, identity: str) -> QueuedMessage | None:
        """One message with its history."""

    async def hold(self, identity: str) -> bool:
        """Keep it until it is released; what is in flight ends. False: no such message (for all four)."""

    async def release(self, identity: str, now: float) -> bool:
        """Let it go on, at once; "" is every message that is held."""

    async def retry(self, identity: str, now: float) -> bool:
        """Try all its waiting recipients at once; "" is every message that is not held."""

    async def drop(self, identity: str) -> QueuedMessage | None:
        """Forget it, without a report. What is in flight may still arrive."""

    async def reroute(self, destination_of: Callable[[str, Kind], str]) -> int:
        """Ask again where each waiting address goes, of a message of that kind; how many changed."""

    async def counts(self) -> dict[State, int]:
        """Recipients by state."""
