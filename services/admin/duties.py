"""What a change owes to other rooms: a mailbox to make, mail to put away, keys to make.

`changes.py` writes each duty in the change's own transaction; here they are fulfilled, at once where the room answers,
else again and again until it does. One at a time: a second "put the mail away" must never meet the mailbox of the
address's next holder. The same task finishes a publication that failed, and forgets deleted accounts after 30 days.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum

from services.admin.peers import PeerAway, Peers, PeerSaid, segment
from services.directory.changes import Directories
from services.directory.errors import NotPublished
from services.directory.models import Duty
from services.directory.publish import PublicationFailed
from services.runtime.process import Context

RETRY_FIRST, RETRY_MOST = 1.0, 60.0
SWEEP_SECONDS = 60.0  # hashes that were replaced lie about no longer
PURGED_SECONDS = 24 * 3600.0

# A duty that is not done yet, in the owner's words.
WAITING = {
    "provision": "the mailbox of {} is made as soon as imap answers",
    "remove-mail": "the mail of {} is put away as soon as imap answers",
    "keys": "the DKIM keys of {} are made as soon as dkim answers",
}


class _Result(Enum):
    DONE = "done"
    AWAY = "away"  # the room does not answer: the others that it is owed wait too
    REFUSED = "refused"  # this one was not taken: tried again, and the others go on


class Duties:
    """Fulfils them; its task is `run`."""

    def __init__(self, context: Context, directories: Directories, peers: Peers) -> None:
        """Nothing is asked of any room before `run` or `attempt`."""
        self._context, self._directories, self._peers = context, directories, peers
        self._one_at_a_time = asyncio.Lock()
        self._wake = asyncio.Event()
        self.problem = ""

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    async def attempt(self, subject: str) -> list[str]:
        """Fulfil what `subject` (an address or domain) is owed; what could not be done yet, in words."""
        owed = [duty for duty in await asyncio.to_thread(self._directories.database.duties) if duty.subject == subject]
        left = [duty for duty in owed if await self._fulfil(duty) is not _Result.DONE]
        if left:
            self.wake()
        return [WAITING[duty.kind].format(subject) for duty in left]

    async def run(self) -> None:
        """Fulfil everything, now and whenever there is more, until cancelled."""
        wait, swept = RETRY_FIRST, float("-inf")
        while True:
            self._wake.clear()
            done = await self._everything()
            now = asyncio.get_running_loop().time()
            if now - swept > PURGED_SECONDS:
                swept = now
                await asyncio.to_thread(self._directories.forget_deleted)
            if done:
                wait = RETRY_FIRST
                await _sleep_until(self._wake, SWEEP_SECONDS)
            else:
                await _sleep_until(self._wake, wait)
                wait = min(wait * 2, RETRY_MOST)

    async def _everything(self) -> bool:
        done = await self._publish()
        away: set[str] = set()
        for duty in await asyncio.to_thread(self._directories.database.duties):
            room = "dkim" if duty.kind == "keys" else "imap"
            if room in away:
                continue  # a thousand mailboxes to make are not a thousand time-outs
            result = await self._fulfil(duty)
            done = done and result is _Result.DONE
            if result is _Result.AWAY:
                away.add(room)
        return done

    async def _publish(self) -> bool:
        """Publish what a change could not; also sweeps old generations."""
        try:
            await asyncio.to_thread(self._directories.republish)
        except (NotPublished, PublicationFailed, OSError) as error:
            self._context.health.fail("directory", str(error))
            return False
        self._context.health.ok("directory")
        return True

    async def _fulfil(self, duty: Duty) -> _Result:
        async with self._one_at_a_time:
            if duty not in await asyncio.to_thread(self._directories.database.duties):
                return _Result.DONE  # meanwhile
            try:
                await self._ask(duty)
            except PeerAway as error:
                self.problem = str(error)
                return _Result.AWAY
            except PeerSaid as error:
                if not (error.status == 404 and duty.kind == "remove-mail"):  # there never was any mail
                    self.problem = str(error)
                    self._context.log("warning", f"{duty.kind} {duty.subject}: {error}")
                    return _Result.REFUSED
            self.problem = ""
            await asyncio.to_thread(self._directories.done, duty)
            return _Result.DONE

    async def _ask(self, duty: Duty) -> None:
        if duty.kind == "provision":
            await self._peers.ask("imap", "POST", "/v1/provision", {"address": duty.subject})
        elif duty.kind == "remove-mail":
            query = {"purge": "1"} if duty.detail == "purge" else None
            await self._peers.ask("imap", "DELETE", f"/v1/mail/{segment(duty.subject)}", query=query)
        elif duty.kind == "keys":
            await self._peers.ask("dkim", "POST", "/v1/keys", {"domain": duty.subject})


async def _sleep_until(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
