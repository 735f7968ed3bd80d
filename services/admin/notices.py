"""Tells what an update came to: mail to each administrator, and the owner's webhook.

    POST /v1/update/result {a history entry} → {}; each id once

The answer waits for nobody: what is to be told is written down (`notices.json` in the room's folder) and told by a
task, again a few times where that fails, over restarts too. A notice is an ordinary message from an administrator to
themself, through queue and signature like any other; smtp-out posts the webhook, as the room with a way out. Neither
ever holds up an update.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import Any

from services.admin.letters import encoded, wrapped
from services.admin.peers import PeerAway, Peers, PeerSaid
from services.admin.phrases import say
from services.admin.text import _, speak
from services.admin.updates import UpdateEntry, entry_of
from services.directory.database import Database
from services.runtime.events import new_trace_id
from services.runtime.hold import identity_of
from services.runtime.internal_http import Request, Response
from services.runtime.process import Context
from services.storage.atomic import write_durable

FILE = "notices.json"
# Between two tries: smtp-out may be just replaced, or a webhook's machine be asleep. Then it is given up and recorded.
WAITS = (2.0, 10.0, 60.0, 300.0, 1800.0)
MOST_WAITING = 200
MOST_TOLD = 50
MOST_REASON = 4000

Notice = dict[str, Any]


class Notices:
    """The handler, and the task that tells: `run`."""

    def __init__(self, context: Context, database: Database, peers: Peers) -> None:
        """Reads what an earlier process had still to tell."""
        self._context, self._database, self._peers = context, database, peers
        self._path = os.path.join(context.settings.room_dir, FILE)
        self._told: list[str] = []
        self._waiting: list[Notice] = []
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._load()

    async def result(self, request: Request) -> Response:
        """POST /v1/update/result."""
        identity = identity_of(value := request.json())
        if identity in self._told:
            return Response.of({})
        entry = {name: value.get(name) for name in ("id", "outcome", "services", "reason", "started", "ended")}
        entry |= {"seconds_closed": value.get("seconds_closed"), "steps": value.get("steps")}
        administrators = [
            each.account.address
            for each in await asyncio.to_thread(self._database.accounts)
            if each.account.administrator and each.account.enabled
        ]
        notices: list[Notice] = [{"to": address, "trace": new_trace_id()} for address in administrators]
        notices.append({"to": ""})  # the webhook
        due = self._context.clock()
        self._told = [*self._told, identity][-MOST_TOLD:]
        self._waiting += [{**notice, "entry": entry, "tries": 0, "next": due} for notice in notices]
        self._waiting = self._waiting[-MOST_WAITING:]
        await self._keep()
        self._wake.set()
        return Response.of({})

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            self._wake.clear()
            now = self._context.clock()
            for notice in [each for each in self._waiting if each["next"] <= now]:
                await self._tell(notice)
                await self._keep()
            # At least now and then: a clock that was set back must not silence it.
            seconds = min([60.0, *(max(0.05, each["next"] - self._context.clock()) for each in self._waiting)])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds if self._waiting else None):
                    await self._wake.wait()

    async def _tell(self, notice: Notice) -> None:
        entry = entry_of(notice["entry"])
        to = str(notice["to"])
        whom = f"{to} of" if to else "the webhook of"
        try:
            if to:
                await self._mail(to, str(notice["trace"]), entry)
            elif (await self._peers.ask("smtp-out", "POST", "/v1/webhook", notice["entry"])).get("posted"):
                self._record(entry.id, f"told the webhook of the update {entry.id}")
        except (PeerAway, PeerSaid) as error:
            hopeless = isinstance(error, PeerSaid) and error.status in (400, 404)
            if notice["tries"] < len(WAITS) and not hopeless:
                notice["next"] = self._context.clock() + WAITS[notice["tries"]]
                notice["tries"] += 1
                return
            self._record(entry.id, f"could not tell {whom} the update {entry.id}: {error}", outcome="error")
        self._waiting.remove(notice)

    async def _mail(self, to: str, trace: str, entry: UpdateEntry) -> None:
        # In the language that they read the page in; each notice says anew which.
        speak(await asyncio.to_thread(self._database.language, to))
        message = compose(to, entry, self._context.settings.hostname, trace, self._context.clock())
        query = {"sender": to, "recipient": to}
        await self._peers.send("smtp-out", "/v1/submit", message, query=query, headers={"Mailstead-Trace": trace})

    def _record(self, identity: str, reason: str, *, outcome: str = "info") -> None:
        if outcome == "error":
            self._context.log("warning", reason)
        self._context.events.emit("update", identity, outcome=outcome, reason=reason)

    async def _keep(self) -> None:
        async with self._writing:
            value = json.dumps({"told": self._told, "waiting": self._waiting}).encode()
            try:
                os.makedirs(self._context.settings.room_dir, exist_ok=True)
                await asyncio.to_thread(write_durable, self._path, value)
            except OSError as error:
                self._context.log("warning", f"what is to be told of updates is not on disk: {error}")

    def _load(self) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            with open(self._path, "rb") as file:
                value = json.loads(file.read(8 << 20))
            waiting = [
                {"to": str(each["to"]), "trace": str(each.get("trace", "")), "entry": dict(each["entry"]),
                 "tries": int(each["tries"]), "next": float(each["next"])}
                for each in value["waiting"]
            ]  # fmt: skip
            self._told, self._waiting = [str(each) for each in value["told"]], waiting[-MOST_WAITING:]


def compose(to: str, entry: UpdateEntry, hostname: str, trace: str, now: float) -> bytes:
    """The message, with CRLF; UTF-8. No `email` package: 1.5 MiB for a page of text."""
    outcomes = {
        "committed": (_("An update stayed"), _("The update {id} stays: mail went through the new version.")),
        "rolled-back": (
            _("An update went back"),
            _("The update {id} was taken back: the version from before runs again, with all mail."),
        ),
    }
    subject, sentence = outcomes.get(entry.outcome, (_("An update failed"), _("The update {id} failed.")))
    lines = [sentence.format(id=entry.id)]
    if entry.reason:
        lines += ["", _("Why: {reason}").format(reason=say(entry.reason[:MOST_REASON]))]
    lines.append("")
    if entry.services:
        lines.append(_("Services: {services}").format(services=", ".join(entry.services)))
    if entry.seconds_closed:
        lines.append(
            _("Mail was told to come back for {seconds} seconds.").format(seconds=f"{entry.seconds_closed:.1f}")
        )
    lines += [_("Step by step: mailstead update history --steps"), "", hostname]
    head = [
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime(now))}",
        f"From: Mailstead <{to}>",
        f"To: {to}",
        f"Subject: {encoded(f'{subject}: {hostname}')}",
        f"Message-ID: <{trace}@{hostname}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "Auto-Submitted: auto-generated",  # RFC 3834 §5: nobody's vacation notice answers it
    ]
    body = [part for line in lines for part in wrapped(line)]
    return "".join(line + "\r\n" for line in [*head, "", *body]).encode("utf-8", "replace")
