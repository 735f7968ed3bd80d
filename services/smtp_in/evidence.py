"""DNS's answers about one client and one sender: asked while the dialogue goes on, read at the final dot.

`Inquirer.begin` is called at MAIL and returns at once; by the time the peer has sent its message most answers are here.
Nobody waits for ever: each inquiry has `SECONDS` from its beginning, and what is not known by then is a temporary
failure, which decides nothing. A fault of ours in a check is recorded and means the same: a filter must not stop mail.

What was asked and answered is kept for the record (`Recorded`), as `mailstead explain` shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.policy import peer, spf
from services.policy.dnsbl import BlockList, DnsblResult, listed
from services.policy.networks import in_the_house
from services.policy.peer import PeerName
from services.policy.spf import SpfResult
from services.policy.verdict import Reason
from services.protocol.dns_lookup import Asking
from services.protocol.smtp_true_client import Client
from services.runtime.dns import Lookup, Recorded, settle
from services.runtime.events import new_trace_id

Result = TypeVar("Result")

# RFC 7208 §4.6.4 wants at least 20 for SPF. A peer waits 10 minutes at the final dot (RFC 5321 §4.5.3.2.6).
SECONDS = 20.0


@dataclass(slots=True)
class Inquiry:
    """What is asked about one client and one sender."""

    client: Client
    sender: str
    about_sender: Recorded
    about_client: Recorded
    spf_task: asyncio.Task[SpfResult]
    client_task: asyncio.Task[tuple[PeerName, tuple[Reason, ...], tuple[DnsblResult, ...]]]

    async def spf(self) -> SpfResult:
        """SPF's result, within `SECONDS` of the beginning."""
        return await _of(self.spf_task)

    async def client_reasons(self) -> tuple[Reason, ...]:
        """What the client's address, name and lists say; those that have a weight or a fault to tell."""
        name, hello, lists = await _of(self.client_task)
        found = [*name.reasons, *hello]
        for each in lists:
            found += each.reasons
            if each.error:
                found.append(Reason("dnsbl-error", each.error))
        return tuple(found)

    async def client_name(self) -> PeerName:
        """The client's name in DNS."""
        return (await _of(self.client_task))[0]

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self.spf_task.cancel()
        self.client_task.cancel()


@dataclass(slots=True)
class Inquirer:
    """Asks for one room. `ours` are names that no stranger may call itself; `bug` as `Context.bug`."""

    lookup: Lookup
    bug: Callable[[str, BaseException, str], None]
    hostname: str
    is_local: Callable[[str], bool]
    lists: Sequence[BlockList] = ()
    clock: Callable[[], float] = field(default=lambda: 0.0)

    def begin(self, client: Client, sender: str, before: Inquiry | None = None) -> Inquiry:
        """Start asking. `before`: what was asked for this connection's last message; the same client is not asked for
        twice."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SECONDS
        asked, about_client = Recorded(self.lookup), Recorded(self.lookup)
        if before is not None and before.client == client and not before.client_task.cancelled():
            client_task, about_client = before.client_task, before.about_client
        else:
            client_task = loop.create_task(self._about_client(client, about_client, deadline))
        spf_task = loop.create_task(self._spf(client, sender, asked, deadline))
        return Inquiry(client, sender, asked, about_client, spf_task, client_task)

    async def settled(
        self,
        asking: Asking[Result],
        asked: Recorded,
        deadline: float,
        otherwise: Callable[[str], Result],
        what: str,
    ) -> Result:
        """The result of one check; `otherwise` makes one of a sentence, where time or we failed."""
        try:
            async with asyncio.timeout_at(deadline):
                return await settle(asking, asked)
        except TimeoutError:
            return otherwise(f"DNS did not answer within {SECONDS:g} seconds")
        except Exception as error:
            identity = new_trace_id()
            self.bug(identity, error, f"asking DNS: {what}")
            return otherwise(f"a fault here ({identity})")

    async def _spf(self, client: Client, sender: str, asked: Recorded, deadline: float) -> SpfResult:
        domain = sender.rpartition("@")[2] or client.helo
        scope = "mfrom" if sender else "helo"
        return await self.settled(
            spf.check(client.address, client.helo, sender, receiver=self.hostname, now=self.clock()),
            asked,
            deadline,
            lambda problem: SpfResult("temperror", domain.lower(), scope, problem=problem),  # type: ignore[arg-type]
            "SPF",
        )

    async def _about_client(
        self, client: Client, asked: Recorded, deadline: float
    ) -> tuple[PeerName, tuple[Reason, ...], tuple[DnsblResult, ...]]:
        each_list = listed(client.address, self.lists)
        name = self.settled(
            _nameless() if in_the_house(client.address) else peer.forward_confirmed(client.address),
            asked, deadline, lambda problem: PeerName(problem=problem, temporary=True), "the client's name",
        )  # fmt: skip
        hello = self.settled(
            peer.hello(client.helo, client.address, self._ours(client.helo)), asked, deadline,
            lambda _: (), "the name in HELO",
        )  # fmt: skip
        lists = [
            self.settled(asking, asked, deadline, _silent(block_list), block_list.name)
            for asking, block_list in zip(each_list, self.lists, strict=False)
        ]
        found_name, found_hello, found_lists = await asyncio.gather(name, hello, _together(lists))
        return found_name, found_hello, tuple(found_lists)

    def _ours(self, helo: str) -> frozenset[str]:
        name = helo.lower().removesuffix(".")
        return frozenset({self.hostname, name}) if self.is_local(name) else frozenset({self.hostname})


async def _of(task: asyncio.Task[Result]) -> Result:
    """What the task gives, mostly at once; whoever stops waiting does not stop it."""
    return task.result() if task.done() else await asyncio.shield(task)


def _nameless() -> Asking[PeerName]:
    """An address of the house: the world's DNS has no name for it, and asking tells the world of it."""
    yield from ()
    return PeerName(problem="an address of the house, which has no name in DNS", temporary=True)


def _silent(block_list: BlockList) -> Callable[[str], DnsblResult]:
    return lambda problem: DnsblResult(block_list, error=f"{block_list.name} was not asked: {problem}")


async def _together(work: Sequence[Awaitable[Result]]) -> Sequence[Result]:
    return await asyncio.gather(*work) if work else ()
