"""The step of each account: what its own junk filter and its own rules make of a message that was taken.

Called by `deliver` once for each account, after the message's verdict. Here a message can become junk, or stop being
it, and its folder is chosen; it can no longer be refused by points, since others may have it already.

    the verdict is junk by a rule of the owner's (settled)   Junk; no rules are run
    the message's points and the account's reach JUNK_SCORE  Junk; no rules are run
    else the account has rules                               what they say (`Rules`)
    else                                                     INBOX

**Nothing here loses a message**: whatever fails, a broken model or rules that stumble, it lies in INBOX, and the record
says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.policy.score import Scale
from services.policy.verdict import Reason, total
from services.runtime.events import new_trace_id
from services.runtime.process import Context
from services.smtp_in.judging import Judgement
from services.smtp_in.junk_judge import Judged
from services.storage.delivery import INBOX, Incoming

JUNK = "Junk"


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy in one mailbox. `flags` as IMAP writes them; `create`: the mailbox may be made."""

    mailbox: str = INBOX
    flags: tuple[str, ...] = ()
    create: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Where an account's copies go, and why. No copies: the account's rules wanted none kept here.

    `refusal`: they refuse it, in these words; asked for where the account is the only recipient (RFC 5429 §2.1).
    """

    copies: tuple[Copy, ...] = (Copy(),)
    junk: bool = False
    score: float = 0.0
    reasons: tuple[Reason, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an account's rules want: as in `Plan`."""

    copies: tuple[Copy, ...]
    reasons: tuple[Reason, ...] = ()
    refusal: str = ""


class AccountFilter(Protocol):
    """What knows how an account sorts (`junk_judge.JunkJudge`)."""

    def account(self, address: str, judged: Judged) -> tuple[float, list[Reason]]:
        """Points for this account and why."""


@dataclass(frozen=True, slots=True)
class RulesMail:
    """What an account's rules are given of a message. `sender` is "" for the null sender.

    `before` are the header lines that we put before it, `trace_line` those of them that go with a copy sent on.
    `refusable`: the sender waits for this account's word alone. `forged`: `sender` is probably another.
    """

    trace: str
    sender: str
    recipient: str
    body: Incoming
    before: bytes
    trace_line: bytes = b""
    smtputf8: bool = False
    refusable: bool = False
    forged: bool = False
    requiretls: bool = False


class Rules(Protocol):
    """The rules of accounts."""

    async def plan(self, account: str, mail: RulesMail) -> Wanted | None:
        """What the account's rules want; what they send on and whom they answer is done. None: it has no rules."""


class Personal:
    """Decides for every account of the room. `junk` and `rules` None: nobody does."""

    def __init__(
        self, context: Context, scale: Scale, junk: AccountFilter | None = None, rules: Rules | None = None
    ) -> None:
        """`scale`: JUNK_SCORE."""
        self._context, self._scale, self._junk, self._rules = context, scale, junk, rules

    async def plan(self, account: str, mail: RulesMail, judgement: Judgement | None, *, settled: bool) -> Plan:
        """Where this account's copy goes. Never raises."""
        reasons = self._reasons(account, judgement)
        score = 0.0
        if judgement is not None:
            score = total((*judgement.found.worth.reasons, *judgement.found.reasons, *reasons))
        if settled or (judgement is not None and score >= self._scale.junk):
            return Plan((Copy(JUNK),), True, score, tuple(reasons))
        if self._rules is None:
            return Plan(score=score, reasons=tuple(reasons))
        try:
            wanted = await self._rules.plan(account, mail)
        except Exception as error:
            text = self._fault(error, f"running the rules of {account}")
            return Plan(score=score, reasons=(*reasons, Reason("sieve-failed", text)))
        if wanted is None:
            return Plan(score=score, reasons=tuple(reasons))
        return Plan(wanted.copies, False, score, (*reasons, *wanted.reasons), wanted.refusal)

    def is_junk(self, account: str, judgement: Judgement | None) -> bool:
        """Whether a message that is not junk by itself is it for this account. Never raises."""
        if judgement is None:
            return False
        reasons = self._reasons(account, judgement)
        return total((*judgement.found.worth.reasons, *judgement.found.reasons, *reasons)) >= self._scale.junk

    def _reasons(self, account: str, judgement: Judgement | None) -> Sequence[Reason]:
        if self._junk is None or judgement is None or judgement.read is None:
            return ()
        try:
            return self._junk.account(account, judgement.read)[1]
        except Exception as error:
            return (Reason("bayes-failed", self._fault(error, f"the junk filter of {account}")),)

    def _fault(self, error: Exception, doing: str) -> str:
        identity = new_trace_id()
        self._context.bug(identity, error, doing)
        return f"{doing} failed: into INBOX as it is ({identity})"
