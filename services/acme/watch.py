"""When to look: notices that the source changed or that time has passed, and says how it went.

`look` is one turn: cheap while nothing changed (a token from a few `stat`s), else one `task`. `follow` takes a turn
every few seconds. What comes out is kept in `outcome`, in the room's health and in the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from services.acme.certificate import day
from services.acme.sources import Source
from services.acme.task import Order, Outcome, TaskFailed
from services.runtime.events import new_trace_id
from services.runtime.process import Context

# A changed certificate is served within 10 s: 3 here, 1 for the task, 3 in the listeners (runtime/tls.py).
LOOK_SECONDS = 3.0
# Without any change: renewal of our own certificate, expiry of others', a clock that was set. Either direction counts:
# a machine without a clock of its own starts in the past.
RECHECK_SECONDS = 6 * 3600
# What is wrong may be mended without a file changing (a mount's permission, the clock).
RETRY_SECONDS = 60
# certbot swaps its links within milliseconds; a copy over a slow line may take a minute or two. Then it is a mistake.
INCOMPLETE_SECONDS = 180
DAY = 86_400
WARN_DAYS = 14  # certbot and all ACME clients renew earlier, so nobody is renewing

PART = "certificate"


class Watch:
    """Follows one source; `perform` runs an order (`task.in_process`; tests pass their own)."""

    def __init__(
        self,
        context: Context,
        source: Source,
        perform: Callable[[Order], Awaitable[Outcome]],
        on_installed: Callable[[], None] = lambda: None,
        clock_problem: Callable[[], str] = lambda: "",
    ) -> None:
        """`clock_problem` says why the time is not known: nothing is made, and nothing judged, until it is."""
        self._context = context
        self._source = source
        self._perform = perform
        self._on_installed = on_installed
        self._clock_problem = clock_problem
        self._token: str | None = None
        self._looked = 0.0
        self._incomplete_since: float | None = None
        self._told = ""
        self._warned_on = -1
        self.outcome = Outcome("unchanged")

    async def follow(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """One turn. Never raises for what a source does."""
        if self._clock_problem():
            return
        now = self._context.clock()
        token = self._source.glance()
        if token == self._token and abs(now - self._looked) < self._patience():
            return
        # Taken before the task reads: a change while it reads gives another token at the next turn.
        self._token, self._looked = token, now
        try:
            self.outcome = await self._perform(Order(self._context.settings, now))
        except TaskFailed as error:
            self.outcome = Outcome(
                "unusable", f"the certificate could not be looked at: {error}", self.outcome.certificate
            )
            self._context.bug(new_trace_id(), error, "looking at the certificate")
        self._judge(now)

    def _patience(self) -> float:
        return RECHECK_SECONDS if self.outcome.state in ("installed", "unchanged") else RETRY_SECONDS

    def _judge(self, now: float) -> None:
        outcome = self.outcome
        if outcome.state == "incomplete":
            if self._incomplete_since is None:
                self._incomplete_since = now
            if abs(now - self._incomplete_since) < INCOMPLETE_SECONDS and outcome.certificate is not None:
                self._context.log("info", f"waiting for a replacement to be finished: {outcome.problem}")
                return
        else:
            self._incomplete_since = None
        if outcome.problem:
            self._complain(outcome.problem)
            return
        self._context.health.ok(PART)
        self._told = ""
        if outcome.state == "installed":
            self._say_installed()
        self._warn_of_expiry(now)

    def _complain(self, problem: str) -> None:
        self._context.health.fail(PART, problem)
        if problem == self._told:
            return
        self._told = problem
        kept = " The one in use stays." if self.outcome.certificate else " TLS cannot be offered until then."
        self._context.log("error", f"no new certificate: {problem}.{kept}")
        self._context.events.emit("certificate", new_trace_id(), outcome="error", reason=f"{problem}.{kept}")

    def _say_installed(self) -> None:
        certificate = self.outcome.certificate
        assert certificate is not None, "an installed outcome has its certificate"
        names = ", ".join(certificate.names)
        self._context.log("info", f"installed a certificate for {names}, serial {certificate.serial}")
        self._context.events.emit(
            "certificate",
            new_trace_id(),
            outcome="accept",
            reason=f"a new certificate for {names} is given to all listeners",
            serial=certificate.serial,
            names=list(certificate.names),
            issuer=certificate.issuer,
            not_after=certificate.not_after,
        )
        self._on_installed()

    def _warn_of_expiry(self, now: float) -> None:
        certificate = self.outcome.certificate
        if certificate is None or certificate.not_after - now > WARN_DAYS * DAY:
            return
        today = int(now // DAY)
        if today == self._warned_on:
            return
        self._warned_on = today
        reason = f"the certificate expires on {day(certificate.not_after)} and nobody has renewed it"
        self._context.log("warning", reason)
        self._context.events.emit("certificate", new_trace_id(), outcome="error", reason=reason)
