"""Reports about mail, queued as messages of their own: to its sender, or to the owner of the alias that forwards it.

The queue runner calls it when recipients have failed, are late, or have arrived where no further server will report;
what it gives is added to the queue in the transaction that records the attempt. A report has the null
sender and is never reported about (RFC 5321 §4.5.5, RFC 3464 §2).

Whom a report goes to, and when:

* By what the sender asked (RFC 3461 §4.1): NEVER, or any of SUCCESS, FAILURE, DELAY. Who asked nothing is told of a
  failure, and of a delay only where they are people of the house: whoever wrote to a forwarded address has a server of
  their own, and wrote to somebody else.
* A forward that its target refuses: the sender only where smtp-in found the envelope's sender authenticated; else it
  was handed over with NOTIFY=NEVER, and whoever owns the alias is told. A report to a forged address is junk for
  whomever it belongs to, and costs us our name.
* REQUIRETLS (RFC 8689 §5): the report is protected as the message was, or tells nothing of it: to our own people it
  goes with the header and REQUIRETLS, to others without either. Never the body, whatever RET says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from services.message.dsn import ENGLISH, FORWARDED, Action, Quoted, Reported, Words, frame, report
from services.protocol.smtp_parameters import decode_xtext, original_recipient
from services.runtime.events import new_trace_id
from services.runtime.values import Settings
from services.smtp_out.attempt import Said
from services.smtp_out.next_hop import LOCAL
from services.storage.queue import NewMessage, Waiting, Work
from services.storage.spool import Spool

# NOTIFY's word for what has happened (RFC 3461 §4.1).
_ASKED: dict[Action, str] = {"failed": "FAILURE", "delayed": "DELAY", "relayed": "SUCCESS"}
# Letters a day to one owner about forwards that were refused. An alias that collects a world of junk would write to
# them all day; the record has the others.
MOST_LETTERS = 10
# A whole message is given back up to here (RFC 3461 §4.3, RET=FULL); of a larger one the header, which says which it
# was. A report nobody expected should not fill a mailbox.
MOST_RETURNED = 1 << 20


class Reports:
    """Makes reports; `destination_of` tells where each will go, `owner_of` whose alias a forward (by its header) is."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        destination_of: Callable[[str], str],
        owner_of: Callable[[bytes], str] = lambda header: "",
    ) -> None:
        self._settings, self._spool = settings, spool
        self._destination_of, self._owner_of = destination_of, owner_of
        self._letters: dict[str, tuple[int, int]] = {}  # owner → day, letters

    @staticmethod
    def wanted(work: Work, waiting: Waiting, action: Action) -> bool:
        """Whether the sender is to be told of this recipient."""
        if not work.sender or work.kind == "report":
            return False
        if waiting.dsn.notify:
            return _ASKED[action] in waiting.dsn.notify.split(",")
        return action == "failed" or (action == "delayed" and work.kind == "submission")

    @staticmethod
    def owner_is_told(work: Work, waiting: Waiting) -> bool:
        """Whether a failure concerns the owner of an alias instead: a forward whose sender may be anybody.

        Not one with the null sender: it may be a report of ours on its way out, and its failure would make the next."""
        return work.kind == "forward" and bool(work.sender) and waiting.dsn.notify == "NEVER"

    async def compose(self, work: Work, action: Action, said: Sequence[Said], now: float) -> NewMessage:
        """A durable report to the sender about `said`, ready to be added. Raises OSError."""
        header = await asyncio.to_thread(self._spool.header, work.spooled)
        local = self._destination_of(work.sender) == LOCAL
        quoted: Quoted = "header"
        if work.requiretls:
            quoted = "header" if local else "nothing"
        elif action == "failed" and work.ret == "FULL" and work.spooled.size <= MOST_RETURNED:
            # RFC 3461 §4.3: RET is about failures alone.
            quoted = "message"
        return await self._made(
            work, action, said, now, header, work.sender, quoted=quoted, requiretls=work.requiretls and local
        )

    async def for_owner(self, work: Work, said: Sequence[Said], now: float) -> NewMessage | None:
        """A report about forwards that failed, to whoever owns the alias; None where there is nobody, or they were told
        often enough today. Raises OSError, DirectoryUnavailable."""
        header = await asyncio.to_thread(self._spool.header, work.spooled)
        owner = self._owner_of(header)
        day, letters = self._letters.get(owner, (0, 0))
        letters = letters if day == now // 86_400 else 0
        if not owner or letters >= MOST_LETTERS:
            return None
        # Before it is written: another connection's may be at the same point.
        self._letters[owner] = int(now // 86_400), letters + 1
        return await self._made(work, "failed", said, now, header, owner, words=FORWARDED, requiretls=work.requiretls)

    async def letter(self, content: bytes, to: str, now: float) -> NewMessage:
        """A message of the house's own to `to`, ready to be added. Raises OSError."""
        return await self._queued([content], to, now)

    async def _made(
        self,
        work: Work,
        action: Action,
        said: Sequence[Said],
        now: float,
        header: bytes,
        to: str,
        *,
        words: Words = ENGLISH,
        quoted: Quoted = "header",
        requiretls: bool = False,
    ) -> NewMessage:
        identity = new_trace_id(now)
        asked = {each.address: each.dsn for each in work.recipients}
        facts: dict[str, Any] = {
            "server": self._settings.hostname,
            "sender": f"mailer-daemon@{self._settings.mail_domain}",
            "recipient": to,
            "recipients": [_reported(each, asked[each.address].orcpt, action, now) for each in said],
            "arrived": work.created,
            "now": now,
            "until": work.created + self._settings.give_up_after,
            "header": header,
            "trace": work.trace,
            "identity": identity,
            "words": words,
            "envid": decode_xtext(work.envid),
            "quoted": quoted,
        }
        if quoted != "message":
            pieces = [report(action, **facts)]
        else:
            before, after = frame(action, eight_bit=work.eight_bit, **facts)
            whole = [chunk async for chunk in self._spool.chunks(work.spooled)]
            pieces = [before, *whole, after]
        return await self._queued(
            pieces, to, now, identity=identity, smtputf8=work.smtputf8 and quoted != "nothing", requiretls=requiretls
        )

    async def _queued(
        self,
        pieces: Sequence[bytes],
        to: str,
        now: float,
        *,
        identity: str = "",
        smtputf8: bool = False,
        requiretls: bool = False,
    ) -> NewMessage:
        identity = identity or new_trace_id(now)
        draft = self._spool.draft(identity)
        for piece in pieces:
            draft.write(piece)
        await draft.settle()
        eight_bit = draft.eight_bit
        spooled = await draft.commit(b"")
        # The trace is the report's own: LMTP delivers a trace to a recipient once, and a late message that fails in the
        # end is reported twice. Events tie the two together.
        return NewMessage(
            identity, identity, "report", "", "", now, spooled, ((to, self._destination_of(to)),), eight_bit=eight_bit,
            smtputf8=smtputf8, requiretls=requiretls,
        )  # fmt: skip


def _reported(said: Said, orcpt: str, action: Action, now: float) -> Reported:
    """A deferred recipient that is given up has failed: its status says so (RFC 3463 §3.5: 5.4.7, expired), its words
    are the last that were heard."""
    status = said.status
    if action == "failed" and not status.startswith("5"):
        status = "5.4.7"
    if action == "relayed":
        status = "2.0.0" if not status.startswith("2") else status
    original = original_recipient(orcpt) if orcpt else ("", "")
    when = now if said.remote else 0.0
    return Reported(said.address, status, said.reply, said.reason, said.remote, when, original)
