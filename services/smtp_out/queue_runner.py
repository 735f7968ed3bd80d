"""Empties the queue: what is due, to which destination, over how many connections, and what follows from each attempt.

    lanes.pick → a worker per connection: queue.claim → Courier.attempt → schedule → reports → queue.settle → next claim

One worker serves one destination and keeps its connection from message to message. What an attempt came to is recorded
in one transaction with the reports about it, then as events. A destination that could not be reached puts off all that
is due there without further attempts. Stopping lets attempts in flight end within the grace; those that do not end are
left in flight on disk, and the next start counts them.

While an update is under way nothing is begun (attempts in flight end); what is queued waits, and goes on when the hold
ends. The one exception is the account of the mail gate, whose letter goes to our own smtp-in.

Forwards have lanes of their own and a number a day (`forward_budget`): what is beyond it is put off to the next day.

`added` is called by submission, forwards and `release`; admin's requests come through `endpoints`. Times in the queue
are the clock's, which tests move.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Container, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.message.dsn import Action
from services.policy.schedule import LOCAL as LOCAL_SCHEDULE
from services.policy.schedule import GiveUp, Retry, Schedule, destination_wait
from services.runtime.dns import Lookup
from services.runtime.events import new_trace_id
from services.runtime.hold import Lease
from services.runtime.process import Context
from services.smtp.client import Timeouts
from services.smtp_out.attempt import Attempted, Courier, Said
from services.smtp_out.attempt_record import Told, record
from services.smtp_out.forward_budget import DAY, ForwardBudget
from services.smtp_out.lanes import NEVER, Lane, Lanes
from services.smtp_out.next_hop import FORWARD, LOCAL, Hops
from services.smtp_out.owners import nearly_used_up
from services.smtp_out.reports import Reports
from services.storage.queue import Forwarded, NewMessage, Outcome, Queue, Waiting, Work
from services.storage.spool import Spool

# The lanes are kept in step with the queue by each event; this finds what an error on the way may have left out.
REFRESH_SECONDS = 60.0
# After a fault of our own, so that it does not spin.
FAULT_SECONDS = 30.0
# Messages after which a connection makes room, where destinations without one wait.
TURN = 10


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is to be recorded of one attempt."""

    work: Work
    outcomes: list[Outcome]
    reports: list[NewMessage]
    forwarded: Forwarded | None = None


class QueueRunner:
    """One per process; `run` until stopped."""

    def __init__(
        self,
        context: Context,
        queue: Queue,
        spool: Spool,
        lookup: Lookup,
        destination_of: Callable[[str], str],
        timeouts: Timeouts | None = None,
        held: Callable[[], Lease | None] = lambda: None,
        owner_of: Callable[[bytes], str] = lambda header: "",
        administrator: Callable[[], str] = lambda: "",
    ) -> None:
        """`held` gives the lease under which nothing may be begun; `owner_of` and `administrator` are `owners.py`'s."""
        settings = context.settings
        self._context, self._queue, self._spool, self._held = context, queue, spool, held
        self._hops, self._timeouts = Hops(settings, lookup), timeouts
        self._reports = Reports(settings, spool, destination_of, owner_of)
        self._budget, self._administrator = ForwardBudget(settings.forward_per_day), administrator
        self._lanes = Lanes(settings.out_concurrency, first_wait=min(60.0, settings.retry_first))
        self._schedule = Schedule(
            settings.retry_first, settings.retry_most, settings.give_up_after, settings.warn_after
        )
        self._local_schedule = Schedule(
            LOCAL_SCHEDULE.first, LOCAL_SCHEDULE.most, settings.give_up_after, settings.warn_after
        )
        # Nothing is put off for longer than one of these.
        waits = (settings.retry_most, LOCAL_SCHEDULE.most, destination_wait(100))
        self._longest = max(waits) + REFRESH_SECONDS
        self._wake = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()
        self._unsettled: list[_Verdict] = []
        self._gate_due = 0.0  # when the queue may hold something of the gate's
        self._gate: asyncio.Task[None] | None = None
        self._stopping = False

    def added(self, destinations: Iterable[str], when: float) -> None:
        """Something was queued for these."""
        for destination in destinations:
            self._lanes.due(destination, when)
        self._gate_due = 0.0
        self._wake.set()

    def look(self) -> None:
        """A hold began or ended."""
        self._wake.set()

    async def refresh(self) -> None:
        """Look at the queue anew: after a release, a retry, a change of routes."""
        agenda = await self._queue.agenda()
        now = self._context.clock()
        if any(when > now + self._longest_at(destination) for destination, when in agenda.items()):
            # No wait is as long as that: the clock was ahead when they were put off, and has been set since.
            self._context.log("warning", "the clock was set back: what waits in the queue is tried now")
            await self._queue.retry("", self._context.clock())
            self._lanes.forgive()
            agenda = await self._queue.agenda()
        for destination, when in agenda.items():
            self._lanes.due(destination, when)
        self._lanes.tidy(self._context.clock())
        self._wake.set()

    def _longest_at(self, destination: str) -> float:
        # A forward beyond the day's number waits for the next day.
        return max(self._longest, DAY + REFRESH_SECONDS) if destination.startswith(FORWARD) else self._longest

    async def retry(self) -> None:
        """The owner wants everything tried now, also where a destination was down."""
        self._lanes.forgive()
        await self.refresh()

    async def run(self) -> None:
        """Work until `stop`. Every task it makes is ended when it returns."""
        self._budget.begin(await self._queue.forwarded(self._budget.day(self._context.clock())))
        await self.refresh()
        refreshed = self._context.clock()
        async with asyncio.TaskGroup() as workers:
            while not self._stopping:
                self._wake.clear()
                now = self._context.clock()
                if not 0 <= now - refreshed < REFRESH_SECONDS:
                    refreshed = now
                    await self._look_again()
                lease = self._held()
                if lease is not None:
                    due = self._let_the_gate_pass(lease, now, workers)
                else:
                    for lane in self._lanes.pick(now):
                        self._start(workers, self._worker(lane), f"to {lane.destination}")
                    due = self._lanes.next_time(now)
                seconds = min(max(due - now, 0.01), REFRESH_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), seconds)

    async def stop(self, grace: float) -> None:
        """Begin nothing new; attempts in flight have `grace` seconds to end."""
        self._stopping = True
        self._wake.set()
        workers = set(self._workers)
        if workers:
            await asyncio.wait(workers, timeout=grace)
        for worker in workers:
            worker.cancel()

    def _start(self, workers: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        worker = workers.create_task(work, name=name)
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)
        return worker

    async def _look_again(self) -> None:
        """`refresh` on the loop's own account: a full disk is no reason to stop the queue."""
        try:
            while self._unsettled:
                await self._settle(self._unsettled[-1])
                self._unsettled.pop()
            await self.refresh()
        except Exception as error:
            self._context.bug(new_trace_id(), error, "looking at the queue")

    # --- one connection

    async def _worker(self, lane: Lane) -> None:
        courier = Courier(self._context.settings, self._context.secrets, self._spool, self._hops, self._timeouts)
        served = 0
        try:
            while not (self._stopping or self._held() or (served >= TURN and self._lanes.crowded)):
                claim = await self._queue.claim(lane.destination, self._context.clock())
                self._lanes.settled(lane.destination, claim.following)
                if claim.work is None:
                    break
                self._wake.set()  # there may be work for one connection more
                await self._guarded(lane, courier, claim.work)
                served += 1
                if lane.running > lane.width and lane.failures:
                    break  # it was found down meanwhile: one connection is enough to find out more
            await courier.close()
        except Exception as error:
            self._context.bug(new_trace_id(), error, f"delivering to {lane.destination}")
            self._lanes.settled(lane.destination, self._context.clock() + FAULT_SECONDS)
        finally:
            courier.abort()
            self._lanes.ended(lane)
            self._wake.set()

    def _let_the_gate_pass(self, lease: Lease, now: float, workers: asyncio.TaskGroup) -> float:
        """Deliver what the gate has queued, and nothing else; when to look again."""
        if not lease.account or self._gate is not None:
            return NEVER
        if self._gate_due <= now:
            self._gate_due = NEVER
            self._gate = self._start(workers, self._of_the_gate(lease.account), "mail gate")
        return self._gate_due

    async def _of_the_gate(self, account: str) -> None:
        # A lane of its own: what becomes of it says nothing about the others' connections.
        lane = Lane(LOCAL)
        courier = Courier(self._context.settings, self._context.secrets, self._spool, self._hops, self._timeouts)
        following: float | None = None
        try:
            while not self._stopping:
                claim = await self._queue.claim(LOCAL, self._context.clock(), account)
                following = claim.following
                if claim.work is None:
                    break
                await self._guarded(lane, courier, claim.work)
            await courier.close()
        except Exception as error:
            self._context.bug(new_trace_id(), error, "delivering the mail gate's letter")
            following = self._context.clock() + FAULT_SECONDS
        finally:
            courier.abort()
            self._gate = None
            self._gate_due = min(self._gate_due, NEVER if following is None else following)
            self._wake.set()

    async def _guarded(self, lane: Lane, courier: Courier, work: Work) -> None:
        """`_serve`; a fault of ours defers this message and leaves the others alone. Unknown means temporary."""
        try:
            verdict = await self._serve(lane, courier, work)
        except Exception as error:
            courier.abort()
            self._context.bug(new_trace_id(), error, f"delivering {work.id} to {lane.destination}")
            following = self._context.clock() + FAULT_SECONDS
            reason = "an error of this server; see its log"
            verdict = _Verdict(
                work, [Outcome(each.address, "deferred", reason, next=following) for each in work.recipients], []
            )
        try:
            await self._settle(verdict)
        except Exception:
            # The disk is full or gone. What is known is kept: a delivered message must not be sent again.
            self._unsettled.append(verdict)
            raise

    async def _settle(self, verdict: _Verdict) -> None:
        now = self._context.clock()
        following = await self._queue.settle(verdict.work, now, verdict.outcomes, verdict.reports, verdict.forwarded)
        self._lanes.settled(verdict.work.destination, following)
        for report in verdict.reports:
            self.added([destination for _, destination in report.recipients], now)

    async def _serve(self, lane: Lane, courier: Courier, work: Work) -> _Verdict:
        now = self._context.clock()
        if lane.is_down(now):
            return await self._reported(lane, work, _put_off(work.recipients, lane.down_because), lane.down_until, 0)
        granted = len(work.recipients)
        if lane.destination.startswith(FORWARD):
            granted = self._budget.grant(granted, now)
        waiting = work.recipients[granted:]
        if not granted:
            return await self._reported(lane, work, self._spent(waiting), self._budget.tomorrow(now), 0)
        try:
            attempted = await courier.attempt(dataclasses.replace(work, recipients=work.recipients[:granted]))
        except BaseException:
            if lane.destination.startswith(FORWARD):
                self._budget.settled(granted, 0, now)
            raise
        now = self._context.clock()
        if attempted.reached:
            self._lanes.succeeded(lane)
        else:
            self._lanes.failed(lane, now, attempted.said[0].text)
        attempted = dataclasses.replace(attempted, said=(*attempted.said, *self._spent(waiting).said))
        return await self._reported(lane, work, attempted, self._budget.tomorrow(now), granted)

    def _spent(self, waiting: Sequence[Waiting]) -> Attempted:
        return _put_off(waiting, f"today's {self._budget.limit} forwards are used up (FORWARD_PER_DAY)")

    async def _reported(self, lane: Lane, work: Work, attempted: Attempted, until: float, tried: int) -> _Verdict:
        """What follows from an attempt at the first `tried` recipients; the others are put off `until` then."""
        now = self._context.clock()
        names = {each.address for each in work.recipients[:tried]}
        outcomes, told = self._decided(lane, work, attempted, now, names, until)
        reports: dict[Told, NewMessage] = {}
        forwarded = None
        if tried and lane.destination.startswith(FORWARD):
            left_here = sum(each.outcome == "delivered" for each in outcomes)
            forwarded = self._budget.settled(tried, left_here, now)
        try:
            for action, said in told.items():
                if action == "owner":
                    if (letter := await self._reports.for_owner(work, said, now)) is not None:
                        reports[action] = letter
                elif said:
                    reports[action] = await self._reports.compose(work, action, said, now)
        except Exception as error:
            # Nobody fails untold: they are tried, and fail, once more when there is room for the report. What was
            # delivered stays delivered.
            self._context.bug(new_trace_id(), error, f"reporting about {work.id}")
            outcomes = [_untold(each, now + FAULT_SECONDS) for each in outcomes]
        record(self._context, work, attempted, outcomes, names, reports)
        letters = [*reports.values()]
        if forwarded is not None and forwarded.told:
            letters += await self._nearly_used_up(work.trace, now)
        return _Verdict(work, outcomes, letters, forwarded)

    async def _nearly_used_up(self, trace: str, now: float) -> list[NewMessage]:
        """The letter to the administrator, once a day."""
        limit, count, settings = self._budget.limit, self._budget.count, self._context.settings
        reason = f"{count} of {limit} forwards are used up today (FORWARD_PER_DAY)"
        self._context.events.emit("forward-budget", trace, reason=reason)
        self._context.log("warning", reason)
        try:
            to = self._administrator()
            if not to:
                return []
            letter = nearly_used_up(
                to, limit=limit, count=count, server=settings.hostname, sender=f"mailer-daemon@{settings.mail_domain}",
                identity=new_trace_id(now), now=now,
            )  # fmt: skip
            return [await self._reports.letter(letter, to, now)]
        except Exception as error:
            self._context.bug(new_trace_id(), error, "telling the administrator of forwards")
            return []

    def _decided(
        self, lane: Lane, work: Work, attempted: Attempted, now: float, tried: Container[str], until: float
    ) -> tuple[list[Outcome], dict[Told, list[Said]]]:
        """The outcomes for the queue, and who is told of which: the sender of the failed, the late and the handed on,
        the owner of an alias of forwards that failed."""
        waiting = {each.address: each for each in work.recipients}
        schedule = self._local_schedule if lane.destination == LOCAL else self._schedule
        outcomes: list[Outcome] = []
        told: dict[Told, list[Said]] = {}
        for said in attempted.said:
            recipient = waiting[said.address]
            outcome, following, warn = said.outcome, 0.0, False
            if outcome == "deferred":
                if said.address in tried:
                    decision = schedule.after_failure(work.created, now, recipient.attempts, warned=recipient.warned)
                else:
                    decision = schedule.put_off(work.created, now, until, warned=recipient.warned)
                match decision:
                    case GiveUp():
                        outcome = "failed"
                    case Retry(following, warn):
                        pass
            if outcome == "failed" and self._reports.owner_is_told(work, recipient):
                told.setdefault("owner", []).append(said)
            action: Action | None = "failed" if outcome == "failed" else "delayed" if warn else None
            if said.silent:
                action = "relayed"
            if action and self._reports.wanted(work, recipient, action):
                told.setdefault(action, []).append(said)
            outcomes.append(
                Outcome(said.address, outcome, said.text, said.remote, following, warn, said.address in tried)
            )
        return outcomes, told


def _untold(outcome: Outcome, following: float) -> Outcome:
    if outcome.outcome == "delivered":
        return outcome
    return dataclasses.replace(outcome, outcome="deferred", next=max(outcome.next, following), warned=False)


def _put_off(waiting: Sequence[Waiting], because: str) -> Attempted:
    reason = f"not tried: {because}"
    return Attempted(tuple(Said(each.address, "deferred", "4.4.1", reason=reason) for each in waiting))
