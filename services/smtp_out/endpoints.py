"""What admin asks this room over HTTP: the queue, the bans, and a test message.

    GET    /v1/status                        {"relay": RELAY_HOST or "" (directly), "signatures": "rsa|both"}
    GET    /v1/queue?limit=&after=           the messages, oldest first
    GET    /v1/queue/{id}                    one, with what each server said at each attempt
    POST   /v1/queue/{id}/retry|hold|release, /v1/queue/retry, /v1/queue/release (all of them)
    DELETE /v1/queue/{id}                    forget it, without a report
    GET    /v1/bans · POST /v1/bans {"key", "kind", "until", "reason"} · DELETE /v1/bans {"key"}
    POST   /v1/submit?sender=&recipient=     a message of an administrator's; header Mailstead-Trace
    POST   /v1/webhook                       an update's result, on to UPDATE_WEBHOOK_URL → {"posted": host or ""}

Times are epoch seconds. 404 where there is no such message or ban.
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlsplit

from services.directory.addresses import InvalidName
from services.directory.addresses import address as stored_address
from services.directory.lookup import DirectoryUnavailable
from services.runtime.dns import Lookup
from services.runtime.events import is_trace_id, new_trace_id
from services.runtime.internal_http import BadRequest, Request, Response, Routes
from services.runtime.process import Context
from services.smtp_out.login import Logins
from services.smtp_out.outgoing import Envelope, Outgoing, Sending
from services.smtp_out.queue_runner import QueueRunner
from services.smtp_out.webhook import NotPosted, post
from services.storage.queue import Queue, QueuedMessage

ADMIN = ("admin",)
MOST_LISTED = 10_000
DEFAULT_LISTED = 100


class Endpoints:
    """The handlers."""

    def __init__(
        self,
        context: Context,
        queue: Queue,
        runner: QueueRunner,
        logins: Logins,
        sending: Sending,
        lookup: Lookup,
    ) -> None:
        self._context, self._queue, self._runner, self._logins, self._sending = context, queue, runner, logins, sending
        self._lookup = lookup

    def routes(self) -> Routes:
        """All of them, for admin alone."""
        routes = Routes()
        routes.add("GET", "/v1/status", self.status, allow=ADMIN)
        routes.add("GET", "/v1/queue", self.list_queue, allow=ADMIN)
        routes.add("POST", "/v1/queue/retry", self.retry_all, allow=ADMIN)
        routes.add("POST", "/v1/queue/release", self.release_all, allow=ADMIN)
        routes.add("GET", "/v1/queue/{id}", self.show, allow=ADMIN)
        routes.add("DELETE", "/v1/queue/{id}", self.drop, allow=ADMIN)
        routes.add("POST", "/v1/queue/{id}/{action}", self.change, allow=ADMIN)
        routes.add("GET", "/v1/bans", self.list_bans, allow=ADMIN)
        routes.add("POST", "/v1/bans", self.ban, allow=ADMIN)
        routes.add("DELETE", "/v1/bans", self.unban, allow=ADMIN)
        routes.add("POST", "/v1/submit", self.submit, allow=ADMIN)
        routes.add("POST", "/v1/webhook", self.webhook, allow=ADMIN)
        return routes

    async def status(self, request: Request) -> Response:
        """GET /v1/status: how mail leaves; the relay's settings are given to this room alone."""
        settings = self._context.settings
        signatures = settings.relay_signatures if settings.relay_host else "both"
        return Response.of({"relay": settings.relay_host, "signatures": signatures})

    # --- the queue

    async def list_queue(self, request: Request) -> Response:
        """GET /v1/queue."""
        limit = request.query.get("limit", "") or str(DEFAULT_LISTED)
        if not limit.isascii() or not limit.isdigit() or not 0 < int(limit[:9]) <= MOST_LISTED:
            raise BadRequest(f"limit is a number from 1 to {MOST_LISTED}")
        messages = await self._queue.listing(int(limit), request.query.get("after", ""))
        counts = await self._queue.counts()
        return Response.of({"messages": [_message(message) for message in messages], "recipients": counts})

    async def show(self, request: Request) -> Response:
        """GET /v1/queue/{id}."""
        message = await self._queue.details(request.params["id"])
        if message is None:
            return _unknown(request)
        history = [
            {
                "address": line.address,
                "at": line.at,
                "remote": line.remote,
                "outcome": line.outcome,
                "reply": line.reply,
            }
            for line in message.history
        ]
        return Response.of({**_message(message), "history": history})

    async def change(self, request: Request) -> Response:
        """POST /v1/queue/{id}/retry, hold or release."""
        identity, action = request.params["id"], request.params["action"]
        now = self._context.clock()
        if action == "hold":
            found = await self._queue.hold(identity)
        elif action == "release":
            found = await self._queue.release(identity, now)
        elif action == "retry":
            found = await self._queue.retry(identity, now)
        else:
            return Response.error(404, "a message is retried, held or released")
        if not found:
            return _unknown(request)
        if action != "hold":
            await self._runner.retry()
        return Response.of({"id": identity, "done": action})

    async def retry_all(self, request: Request) -> Response:
        """POST /v1/queue/retry."""
        await self._queue.retry("", self._context.clock())
        await self._runner.retry()
        return Response.of({"done": "retry"})

    async def release_all(self, request: Request) -> Response:
        """POST /v1/queue/release: after a restore, when the owner has looked at it."""
        released = await self._queue.release("", self._context.clock())
        await self._runner.retry()
        return Response.of({"done": "release", "any": released})

    async def drop(self, request: Request) -> Response:
        """DELETE /v1/queue/{id}."""
        message = await self._queue.drop(request.params["id"])
        if message is None:
            return _unknown(request)
        self._context.events.emit(
            "dropped", message.trace, outcome="reject", queue_id=message.id, sender=message.sender,
            recipients=[each.address for each in message.recipients if each.state not in ("delivered", "failed")],
            reason="the administrator dropped it from the queue",
        )  # fmt: skip
        return Response.of({"id": message.id, "done": "drop"})

    # --- bans

    async def list_bans(self, request: Request) -> Response:
        """GET /v1/bans."""
        return Response.of({"bans": [ban.as_json() for ban in self._logins.bans()]})

    async def ban(self, request: Request) -> Response:
        """POST /v1/bans: by hand, or what another room found out."""
        given = _object(request)
        key, kind, until, reason = (given.get(name) for name in ("key", "kind", "until", "reason"))
        if not isinstance(key, str) or not 0 < len(key) <= 400:
            raise BadRequest("key is an address or an account")
        if kind not in ("address", "account", "pair"):
            raise BadRequest("kind is address, account or pair")
        if isinstance(until, bool) or not isinstance(until, int | float) or not math.isfinite(until):
            raise BadRequest("until is a time in epoch seconds")
        return Response.of({"ban": self._logins.ban(key, kind, float(until), str(reason or "")[:400]).as_json()})

    async def unban(self, request: Request) -> Response:
        """DELETE /v1/bans."""
        key = request.query.get("key", "") or _object(request).get("key")
        if not isinstance(key, str) or not key:
            raise BadRequest("key says whose bans are lifted")
        lifted = self._logins.unban(key)
        if not lifted:
            return Response.error(404, f"there is no ban on {key}")
        return Response.of({"lifted": [ban.as_json() for ban in lifted]})

    # --- a test message

    async def submit(self, request: Request) -> Response:
        """POST /v1/submit: as if the administrator had sent it, by the same way as everything else."""
        trace = request.headers.get("mailstead-trace", "") or new_trace_id()
        if not is_trace_id(trace):
            raise BadRequest("Mailstead-Trace is no trace id")
        try:
            sender = stored_address(request.query.get("sender", ""))
            recipient = stored_address(request.query.get("recipient", ""))
            account = self._sending.directory.account(sender)
        except InvalidName as error:
            raise BadRequest(str(error)) from None
        except DirectoryUnavailable as error:
            return Response.error(503, str(error))
        if account is None or not account.enabled:
            return Response.error(404, f"there is no account {sender} that may send")
        if await self._queue.details(trace) is not None:
            return Response.of({"trace": trace}, 202)  # asked again, because the first answer got lost
        outgoing = Outgoing(self._sending, Envelope(account.address, sender, (recipient,), trace, peer="admin"))
        try:
            outgoing.write(request.body)
        except BaseException:
            outgoing.abort()
            raise
        reply = await outgoing.finish()
        if reply.positive:
            return Response.of({"trace": trace}, 202)
        return Response.error(400 if reply.permanent else 503, str(reply))

    async def webhook(self, request: Request) -> Response:
        """POST /v1/webhook: what was given goes to the address of this room's own settings, and nowhere else."""
        value, url = _object(request), self._context.settings.update_webhook_url
        if not url:
            return Response.of({"posted": ""})
        try:
            await post(url, value, self._lookup)
        except NotPosted as error:
            return Response.error(502, f"the webhook was not told: {error}")
        return Response.of({"posted": urlsplit(url).hostname or ""})


def _message(message: QueuedMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "trace": message.trace,
        "kind": message.kind,
        "sender": message.sender,
        "account": message.account,
        "size": message.size,
        "created": message.created,
        "state": message.state,
        "message_id": message.message_id,
        "recipients": [
            {
                "address": each.address,
                "destination": each.destination,
                "state": each.state,
                "attempts": each.attempts,
                "next": each.next,
                "last_reply": each.last_reply,
            }
            for each in message.recipients
        ],
    }


def _object(request: Request) -> dict[str, Any]:
    value = request.json()
    if not isinstance(value, dict):
        raise BadRequest("the body is a JSON object")
    return value


def _unknown(request: Request) -> Response:
    return Response.error(404, f"there is no message {request.params['id']} in the queue")
