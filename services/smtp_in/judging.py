"""Judging one message from outside: what is asked and looked at for it, from MAIL to the final dot, in that order.

Called by `intake` at each stage; `policy/` decides. DNS is asked by `evidence` in the background, so that its time goes
by while the peer sends; only greylisting and the final dot wait for an answer, `evidence.SECONDS` at the most. What the
message itself proves is `proofs`.

A peer that the owner trusts to hand on mail is not judged itself: its client is, which it names by XCLIENT or
XFORWARD, or in its Received field. Where neither says who it was, or all peers arrive from one gateway, there is nobody
to ask DNS about: then SPF says nothing, and nobody is greylisted or counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.directory.lookup import Directory, DirectoryUnavailable
from services.message import authentication_results
from services.message.authentication_results import MethodResult
from services.message.received_from import origin
from services.policy import authenticity, method_results
from services.policy.authenticity import Proofs, Worth
from services.policy.dnsbl import block_lists
from services.policy.intake import Found
from services.policy.networks import in_the_house
from services.policy.rates import RateLimits, Rates
from services.policy.score import Scale
from services.policy.verdict import Reason
from services.protocol.smtp_true_client import Client
from services.runtime.dns import Lookup, Recorded
from services.runtime.events import Json, new_trace_id
from services.runtime.process import Context
from services.runtime.values import WrongSetting
from services.smtp.session import Envelope, Session
from services.smtp_in.evidence import Inquirer, Inquiry
from services.smtp_in.greylisting import Greylist
from services.smtp_in.junk_judge import MOST_OCTETS, Judged, JunkJudge
from services.smtp_in.proofs import IN_A_THREAD, UNKNOWN_CLIENT, prove
from services.smtp_in.scanners.finding import Finding, Letter, Scanner
from services.storage.delivery import Incoming

_MOST_QUESTIONS = 40  # in the record of one message
_MOST_SHARE = 2.0  # a scanner's score, in its own thresholds, that counts


@dataclass(slots=True)
class Case:
    """One message while it comes. `client` is None where it is not known (yet); `inquiry` what is asked about it."""

    client: Client | None
    inquiry: Inquiry | None
    sender: str
    trusted: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found. `found` goes into the verdict, the others into the record and the delivered header."""

    found: Found
    proofs: Proofs
    results: tuple[MethodResult, ...]
    hostname: str
    read: Judged | None = None
    questions: tuple[str, ...] = ()
    client: Client | None = None
    via: str = ""

    @property
    def proofs_field(self) -> bytes:
        """Our Authentication-Results."""
        return authentication_results.field(self.hostname, self.results)

    def record(self) -> dict[str, Json]:
        """What the record has beside the verdict."""
        known: dict[str, Json] = {
            "auth": authentication_results.value(self.hostname, self.results), "dns": list(self.questions)
        }  # fmt: skip
        if self.via:
            known["client"], known["via"] = self.client.address if self.client else "", self.via
        return known


class Judging:
    """What one process of the room judges by; made only where MAIL_CHECKS=on."""

    def __init__(
        self,
        context: Context,
        directory: Directory,
        lookup: Lookup,
        *,
        gateways: frozenset[str],
        is_forwarder: Callable[[str], bool],
        scanners: Sequence[Scanner] = (),
    ) -> None:
        """`is_forwarder` tells the owner's relays by their address. Raises WrongSetting."""
        settings = context.settings
        self._context, self._gateways, self._is_forwarder, self._scanners = context, gateways, is_forwarder, scanners
        try:
            lists = block_lists(settings.dnsbl_lists)
        except ValueError as error:
            raise WrongSetting(f"DNSBL_LISTS={settings.dnsbl_lists}: {error}") from None

        def is_local(name: str) -> bool:
            try:
                return directory.is_local(name)
            except DirectoryUnavailable:
                return False

        self.scale = Scale.of(settings.junk_score, settings.reject_score)
        self._sealers = frozenset(
            name.lower().rstrip(".") for each in settings.arc_sealers.split(",") if (name := each.strip())
        )
        self._wishes = authenticity.Wishes(settings.spf_fail, settings.dmarc_fail, self.scale.junk)
        self._inquirer = Inquirer(lookup, context.bug, settings.hostname, is_local, lists, context.clock)
        self._rates = Rates(RateLimits(settings.rate_per_address, settings.rate_per_network, settings.rate_per_sender))
        self._greylist = Greylist(context) if settings.greylist == "yes" else None
        self.junk = JunkJudge(settings.personal_dir) if settings.junk_filter == "on" else None

    async def close(self) -> None:
        """Let go of what is held open."""
        if self._greylist is not None:
            await self._greylist.close()

    # --- MAIL ---------------------------------------------------------------------------------------------------

    def limit(self, session: Session) -> Reason | None:
        """Why this client's next message has to wait."""
        client = self._client(session)
        if client is None or session.trusted or in_the_house(client.address):
            return None
        return self._rates.client(client.address, self._context.clock())

    def begin(self, session: Session, sender: str) -> Case:
        """Ask about whoever sends, without waiting."""
        client = self._client(session)
        case = Case(client, None, sender, session.trusted)
        if session.notes is not None:
            session.notes.spf_task.cancel()  # of the message before, which is over or was given up
        if client is not None:
            case.inquiry = session.notes = self._inquirer.begin(client, sender, session.notes)
        return case

    def end(self, session: Session) -> None:
        """The connection is gone."""
        if session.notes is not None:
            session.notes.cancel()
            session.notes = None

    # --- RCPT ---------------------------------------------------------------------------------------------------

    @property
    def greylists(self) -> bool:
        """Whether anybody is told to come back."""
        return self._greylist is not None

    async def greylisted(self, case: Case, recipient: str, accounts: Sequence[str]) -> Reason | None:
        """Why this recipient's mail has to come again later. `accounts` are where it leads to."""
        client, inquiry = case.client, case.inquiry
        if self._greylist is None or client is None or inquiry is None or case.trusted:
            return None
        if in_the_house(client.address):
            return None  # a scanner or a camera of the house tries once
        if self.junk is not None and any(self.junk.wrote_to(account, case.sender) for account in accounts):
            return None
        result = await inquiry.spf()
        spf_pass = result.result == "pass"
        return await self._greylist.wait(client.address, case.sender, client.helo, recipient, spf_pass=spf_pass)

    def delivered(self, judgement: Judgement) -> None:
        """It is in a mailbox: its domain is known from now on. Nobody waits for that."""
        spf = judgement.proofs.spf
        if self._greylist is not None and spf.result == "pass":
            self._greylist.delivered(spf.domain)

    # --- the final dot ------------------------------------------------------------------------------------------

    async def judge(self, case: Case, session: Session, envelope: Envelope, header: bytes, body: Incoming) -> Judgement:
        """Everything that can be known of the message. Raises nothing but OSError of the disk.

        A fault of ours that a message brings out would come again with every attempt: 451 for it would lose the message
        in the end, and taking it as if nothing were known would let through whoever finds the fault. So it is junk.
        """
        try:
            return await self._judged(case, session, envelope, header, body)
        except OSError:
            raise
        except Exception as error:
            identity = new_trace_id()
            self._context.bug(identity, error, "judging a message")
            reason = Reason("judging-failed", f"it could not be judged: a fault here ({identity})")
            proofs = Proofs(UNKNOWN_CLIENT, client_known=False)
            hostname = self._context.settings.hostname
            return Judgement(Found(authenticity.Worth("junk", (reason,), True)), proofs, (), hostname)

    async def _judged(
        self, case: Case, session: Session, envelope: Envelope, header: bytes, body: Incoming
    ) -> Judgement:
        self._find_client(case, session, header)
        letter = _letter(case, envelope, body)
        scanning = asyncio.gather(*(each.scan(letter) for each in self._scanners))
        try:
            judged = await self._looked_at(case, session, header, body, scanning)
        finally:
            scanning.cancel()
        return judged

    async def _looked_at(
        self, case: Case, session: Session, header: bytes, body: Incoming, scanning: asyncio.Future[list[Finding]]
    ) -> Judgement:
        asked = case.inquiry.about_sender if case.inquiry is not None else Recorded(self._inquirer.lookup)
        proofs = await prove(self._inquirer, case.inquiry, header, body, self._sealers, asked)
        reasons = list(await case.inquiry.client_reasons()) if case.inquiry is not None else []
        read = await self._read(body, proven=proofs.vouched) if self.junk is not None else None
        if read is not None:
            reasons += read.reasons
        limit = None
        if case.client is not None and not case.trusted and not in_the_house(case.client.address):
            spf_pass = proofs.spf.result == "pass"
            limit = self._rates.sender(case.sender, case.client.address, spf_pass, self._context.clock())
        if case.trusted:
            reasons.append(_via(case, session))
        worth = authenticity.worth(proofs, self._wishes)
        found = self._found(worth, reasons, limit, await scanning)
        client = case.client
        results = method_results.results(
            proofs, sender=case.sender, helo=client.helo if client else "", client=client.address if client else "",
            name=await case.inquiry.client_name() if case.inquiry is not None else None,
        )  # fmt: skip
        questions = [*(case.inquiry.about_client.lines if case.inquiry is not None else ()), *asked.lines]
        via = client.via if client is not None else "unknown" if case.trusted else ""
        hostname = self._context.settings.hostname
        return Judgement(found, proofs, tuple(results), hostname, read, tuple(questions[:_MOST_QUESTIONS]), client, via)

    def _client(self, session: Session) -> Client | None:
        client = session.client
        if not client.address or (session.trusted and not client.via):
            return None
        if not client.via and client.address in self._gateways:
            return None
        return client

    def _find_client(self, case: Case, session: Session, header: bytes) -> None:
        """Of a relay that named nobody: by its Received field."""
        if case.client is not None or not session.trusted or session.client.via:
            return
        found = origin(header, self._is_forwarder, session.helo)
        if found.client is not None:
            case.client = replace(found.client, via="received")
            case.inquiry = session.notes = self._inquirer.begin(case.client, case.sender)

    async def _read(self, body: Incoming, *, proven: bool) -> Judged | None:
        assert self.junk is not None
        octets = body.head(MOST_OCTETS)
        try:
            if len(octets) > IN_A_THREAD:
                return await asyncio.to_thread(self.junk.message, octets, proven=proven)
            return self.junk.message(octets, proven=proven)
        except Exception as error:  # a reader that stumbles over a stranger's message must not stop it
            self._context.bug("", error, "reading a message for junk")
            return None

    def _found(self, worth: Worth, reasons: list[Reason], limit: Reason | None, findings: Sequence[Finding]) -> Found:
        settings = self._context.settings
        virus, down = "", False
        for each in findings:
            if each.problem:
                down = True
                reasons.append(Reason("scanner-down", f"nobody looked for it: {each.problem}"))
            elif each.virus:
                virus = each.virus
                reasons.append(Reason("scanner-virus", f"{each.scanner} found {each.virus}", self.scale.junk))
            elif each.share > 0:
                weight = round(min(each.share, _MOST_SHARE) * self.scale.junk, 1)
                rules = " ".join(each.rules[:10])
                reasons.append(
                    Reason("scanner-spam", f"{each.scanner} calls it junk by {each.share:.2f}: {rules}", weight)
                )
        return Found(
            worth,
            tuple(reasons),
            limit=limit,
            virus=virus,
            refuse_virus=settings.virus_found == "reject",
            wait_for_scanner=down and settings.scanner_down == "defer",
        )


def _via(case: Case, session: Session) -> Reason:
    peer = session.peer[0]
    if case.client is None:
        return Reason("trusted-forwarder", f"handed on by {peer}, which does not say whom it had it from")
    return Reason(
        "trusted-forwarder", f"handed on by {peer}, which had it from {case.client.address} ({case.client.via})"
    )


def _letter(case: Case, envelope: Envelope, body: Incoming) -> Letter:
    client = case.client
    return Letter(
        body.size, body.in_file, body.chunks, envelope.trace, client.address if client else "",
        client.helo if client else "", case.sender, tuple(envelope.rcpt_tos),
    )  # fmt: skip
