"""Filter rules of one's own: simple ones, an answer while away, and the rest of the script by hand.

The account is always the session's own; no path or field names another. All of it is one Sieve script (`rules.py`) that
the imap room keeps; each form carries the script's mark, so that nobody writes over what a second window, or a mail
program, has changed meanwhile.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, cast

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.admin.access import Actor
from services.admin.parts import Parts
from services.admin.phrases import say
from services.admin.rules import (
    ACTIONS,
    MOST_RULES,
    WHERE,
    Action,
    BadRule,
    Note,
    Rule,
    Rules,
    Where,
    check_note,
    check_rule,
    read,
    write,
)
from services.admin.text import _, mark
from services.admin.web.pages import Form, Pages, Wrong, notify
from services.policy.sieve.check import check

WORDS = {
    "from": mark("From"), "to": mark("To or Cc"), "subject": mark("Subject"), "list": mark("Mailing list"),
    "move": mark("move it to the folder"), "mark": mark("mark it with a flag"),
    "forward": mark("forward a copy to"), "delete": mark("put it into Trash"), "keep": mark("leave it in the inbox"),
}  # fmt: skip
MOVES = {"up": -1, "down": 1}


def add_to(app: FastAPI, pages: Pages, parts: Parts) -> None:
    """Add the page to `app`."""
    views = RulesViews(pages, parts)
    app.add_route("/me/rules", pages.page(views.show, anyone=True), methods=["GET"], include_in_schema=False)
    change = pages.change(views.change, anyone=True, show=views.show)
    app.add_route("/me/rules", change, methods=["POST"], include_in_schema=False)


class RulesViews:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations

    async def show(
        self, request: Request, actor: Actor, form: Form | None = None, errors: dict[str, str] | None = None
    ) -> Response:
        """GET /me/rules."""
        _name, script = await self._operations.script(actor.name)
        given = form or {}
        return self._pages.render(
            request, "rules.html", actor, rules=read(script), version=_version(script), words=WORDS, where=WHERE,
            actions=ACTIONS, form=given, errors=errors or {}, wrong=given.get("action", "") if errors else "",
            wrong_rule=_number(given.get("n", "")), title=_("Rules"),
        )  # fmt: skip

    async def change(self, request: Request, actor: Actor, form: Form) -> str | Response:
        """POST /me/rules."""
        name, script = await self._operations.script(actor.name)
        if form.get("version", "") != _version(script):
            raise Wrong({"": _("Your rules have changed meanwhile. Look at them as they are now, and try again.")})
        action = form.get("action", "")
        made = self._made(read(script), action, form)
        content = write(made)
        if problems := check(content.encode("utf-8", "replace")).problems:
            raise Wrong({"": say(str(problems[0]))})
        await self._operations.save_script(actor, name, content)
        notify(actor.session, "done", _("Saved. It counts for the next mail that comes in."))
        return "/me/rules"

    def _made(self, rules: Rules, action: str, form: Form) -> Rules:
        """`rules` after what the form wants. Raises Wrong."""
        try:
            if action == "note":
                return replace(rules, note=check_note(_note(form)))
            if action == "own":
                return replace(rules, own=_own(form.get("own", "")))
            if action == "add":
                if len(rules.rules) >= MOST_RULES:
                    raise Wrong({"": _("More than {count} rules are better written by hand.").format(count=MOST_RULES)})
                return replace(rules, rules=(*rules.rules, check_rule(_rule(form, on=True))))
            return replace(rules, rules=_rearranged(rules.rules, action, form))
        except BadRule as error:
            raise Wrong({error.field: say(str(error))}) from error


def _rearranged(rules: tuple[Rule, ...], action: str, form: Form) -> tuple[Rule, ...]:
    """The rules after `action` on the one that the form names. Raises Wrong, BadRule."""
    listed, at = list(rules), _number(form.get("n", "")) - 1
    if not 0 <= at < len(listed):
        raise Wrong({"": _("Nothing was chosen.")})
    if action == "delete":
        del listed[at]
    elif action == "toggle":
        listed[at] = replace(listed[at], on=not listed[at].on)
    elif action == "change":
        listed[at] = check_rule(_rule(form, on=listed[at].on))
    elif action in MOVES:
        listed.insert(max(0, at + MOVES[action]), listed.pop(at))
    else:
        raise Wrong({"": _("Nothing was chosen.")})
    return tuple(listed)


def _rule(form: Form, *, on: bool) -> Rule:
    where, then = cast(Where, form.get("where", "")), cast(Action, form.get("then", ""))
    return Rule(where, form.get("text", ""), then, form.get("argument", ""), on)


def _note(form: Form) -> Note:
    since, until, subject, text = (form.get(name, "") for name in ("since", "until", "subject", "note"))
    return Note("on" in form, since, until, subject, text)


def _own(text: str) -> str:
    """The part written by hand. Raises Wrong with every mistake and its line."""
    own = text.replace("\r\n", "\n")
    if own and not own.endswith("\n"):
        own += "\n"
    problems: Any = check(own.encode("utf-8", "replace")).problems
    if problems:
        raise Wrong({"own": "\n".join(say(str(problem)) for problem in problems)})
    return own if own.strip() else ""


def _version(script: str) -> str:
    return hashlib.sha256(script.encode("utf-8", "replace")).hexdigest()[:32]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
