"""What everybody sees of their own junk: what lies there and why, "not junk", and "this is junk" for the inbox.

The account is always the session's own; no path or field names another. The list is the imap room's, the reasons are
the record's: joined by Message-ID, since a file in a Maildir knows nothing of the record. Every text is a stranger's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.admin.access import Actor
from services.admin.api.explain import threshold_of
from services.admin.event_index import INDEX_PROBLEMS
from services.admin.explanation import ExplainedRule, why
from services.admin.parts import Parts
from services.admin.peers import segment
from services.admin.stories import Event
from services.admin.text import _
from services.admin.web.pages import Form, Pages, Wrong, notify

JUNK_SHOWN, INBOX_SHOWN = 50, 20


def add_to(app: FastAPI, pages: Pages, parts: Parts) -> None:
    """Add the page to `app`."""
    views = JunkViews(pages, parts)
    app.add_route("/me/junk", pages.page(views.show, anyone=True), methods=["GET"], include_in_schema=False)
    app.add_route("/me/junk", pages.change(views.move, anyone=True), methods=["POST"], include_in_schema=False)


class JunkViews:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts = pages, parts

    async def show(self, request: Request, actor: Actor) -> Response:
        """GET /me/junk."""
        junk, inbox = await self._recent(actor, "junk", JUNK_SHOWN), await self._recent(actor, "inbox", INBOX_SHOWN)
        try:
            judged = await self._parts.tail.judgements(actor.name, JUNK_SHOWN + INBOX_SHOWN)
        except INDEX_PROBLEMS:
            judged = {}  # the list is of use without its reasons
        threshold = threshold_of(self._parts)
        for message in (*junk["messages"], *inbox["messages"]):
            message["judged"] = _judged(judged, str(message.get("message_id", "")), threshold)
        return self._pages.render(request, "junk.html", actor, junk=junk, inbox=inbox, title=_("Junk mail"))

    async def move(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /me/junk."""
        action = form.get("action", "")
        if action not in ("not-junk", "junk"):
            raise Wrong({"": _("Nothing was chosen.")})
        named = {
            "uidvalidity": _number(form.get("uidvalidity", "")),
            "uid": _number(form.get("uid", "")),
            "message_id": form.get("message_id", ""),
        }
        await self._parts.peers.ask("imap", "POST", f"/v1/accounts/{segment(actor.name)}/{action}", named)
        if action == "junk":
            notify(actor.session, "done", _("It is in Junk now, and the filter learns from it."))
        else:
            notify(actor.session, "done", _("It is in the inbox now, and the filter learns from it."))
        return "/me/junk"

    async def _recent(self, actor: Actor, place: str, limit: int) -> dict[str, Any]:
        query = {"place": place, "limit": str(limit)}
        answer = await self._parts.peers.ask("imap", "GET", f"/v1/accounts/{segment(actor.name)}/recent", query=query)
        found: dict[str, Any] = answer if isinstance(answer, dict) else {}
        messages = found.get("messages")
        found["messages"] = [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
        return found


def _judged(judged: Mapping[str, Sequence[Event]], message_id: str, threshold: float | None) -> dict[str, object]:
    """What the record says of a message: its score, from which it would be junk, and the rules that spoke."""
    stages = [why(event, threshold) for event in judged.get(message_id.strip().strip("<>"), ())]
    rules: dict[str, ExplainedRule] = {}
    for stage in stages:
        rules.update((rule.rule, rule) for rule in stage.rules if rule.rule)
    scored = [stage for stage in stages if stage.score is not None]
    return {
        "rules": sorted(rules.values(), key=lambda rule: -abs(rule.weight)),
        "score": scored[-1].score if scored else None,
        "threshold": scored[-1].threshold if scored else None,
    }


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
