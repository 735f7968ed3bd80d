"""Letters to people whose mailbox is nearly full, or full: once at each level (`directory/quotas`).

A letter is an ordinary message from the account to itself, through queue and signature like any other, in the language
of its page; smtp-in takes it also where nothing else fits any more. It counts as sent when smtp-out has it: one that
could not be given is tried again each minute, over restarts too, since the directory remembers only those that were.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from services.admin.letters import encoded, wrapped
from services.admin.peers import PeerAway, Peers, PeerSaid
from services.admin.text import _, speak
from services.directory.changes import Directories
from services.directory.database import DatabaseUnusable
from services.directory.quotas import QuotaLetter
from services.runtime.events import new_trace_id
from services.runtime.process import Context

AGAIN_SECONDS = 60.0


class QuotaLetters:
    """`wake` after facts were taken; `run` is its task."""

    def __init__(self, context: Context, directories: Directories, peers: Peers) -> None:
        """Sends nothing before `run`."""
        self._context, self._directories, self._peers = context, directories, peers
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Some mailbox is fuller or emptier than it was."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            done = await self.send_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if done else AGAIN_SECONDS):
                    await self._wake.wait()

    async def send_due(self) -> bool:
        """Send what is due; False where some could not be."""
        done = True
        try:
            await asyncio.to_thread(self._directories.forget_quota_letters)
            for letter in await asyncio.to_thread(self._directories.due_quota_letters):
                done = await self._send(letter) and done
        except DatabaseUnusable as error:
            self._context.log("warning", f"letters about full mailboxes wait: {error}")
            return False
        return done

    async def _send(self, letter: QuotaLetter) -> bool:
        trace = new_trace_id()
        speak(await asyncio.to_thread(self._directories.database.language, letter.address))
        message = compose(letter, self._context.settings.hostname, trace, self._context.clock())
        query = {"sender": letter.address, "recipient": letter.address}
        try:
            await self._peers.send("smtp-out", "/v1/submit", message, query=query, headers={"Mailstead-Trace": trace})
        except (PeerAway, PeerSaid) as error:
            if not (isinstance(error, PeerSaid) and error.status in (400, 404)):
                return False
            self._context.log("warning", f"{letter.address} could not be told that its mailbox is full: {error}")
        await asyncio.to_thread(self._directories.quota_letter_sent, letter)
        share = percent(letter)
        self._context.events.emit(
            "quota", trace, account=letter.address, reason=f"told {letter.address} that its mailbox is {share} % full"
        )
        return True


def percent(letter: QuotaLetter) -> int:
    """How full, downwards: 100 only where it is."""
    return letter.used * 100 // letter.quota


def compose(letter: QuotaLetter, hostname: str, trace: str, now: float) -> bytes:
    """The message, with CRLF; UTF-8."""
    share = percent(letter)
    used, quota = (f"{size / (1 << 20):.0f} MiB" for size in (letter.used, letter.quota))
    if letter.level > 1:
        subject = _("Your mailbox is full")
        say = _("Your mailbox {address} holds {used} of {quota} ({share} %). Mail that does not fit waits at its "
                "senders, who try for some days and then give up.")  # fmt: skip
    else:
        subject = _("Your mailbox is nearly full")
        say = _("Your mailbox {address} holds {used} of {quota} ({share} %).")
    lines = [
        say.format(address=letter.address, used=used, quota=quota, share=share),
        "",
        _("Delete what you do not need, from Trash and Junk too, or ask the administrator for more room."),
        "",
        hostname,
    ]
    head = [
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime(now))}",
        f"From: Mailstead <{letter.address}>",
        f"To: {letter.address}",
        f"Subject: {encoded(subject)}",
        f"Message-ID: <{trace}@{hostname}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "Auto-Submitted: auto-generated",  # RFC 3834 §5: nobody's vacation notice answers it
    ]
    body = [part for line in lines for part in wrapped(line)]
    return "".join(line + "\r\n" for line in [*head, "", *body]).encode("utf-8", "replace")
