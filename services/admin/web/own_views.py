"""What everybody with an account sees of their own: address, aliases, storage, client set-up, password. Nothing else.

The account is always the session's own; no path or field names another.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from services.admin.access import Actor, Denied
from services.admin.api.accounts import account_json
from services.admin.parts import Parts
from services.admin.peers import PeerAway, PeerSaid
from services.admin.phrases import say
from services.admin.sessions import COOKIE
from services.admin.text import _
from services.admin.web.mobileconfig import profile
from services.admin.web.pages import Form, Pages, Wrong, beside, notify, peer_of
from services.directory.passwords import WeakPassword


def add_to(app: FastAPI, pages: Pages, parts: Parts) -> None:
    """Add the pages to `app`."""
    views = OwnViews(pages, parts)
    for path, page in (("/me", views.me), ("/me/mailstead.mobileconfig", views.apple_profile)):
        app.add_route(path, pages.page(page, anyone=True), methods=["GET"], include_in_schema=False)
    change = pages.change(views.change_password, anyone=True, show=views.me)
    app.add_route("/me/password", change, methods=["POST"], include_in_schema=False)


class OwnViews:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations

    async def me(
        self, request: Request, actor: Actor, form: Form | None = None, errors: dict[str, str] | None = None
    ) -> Response:
        """GET /me."""
        details = await self._operations.account(actor.name)
        account = account_json(details, await self._operations.usage(actor.name))
        aliases = [alias for alias in await self._operations.aliases() if alias.target == actor.name]
        return self._pages.render(
            request, "me.html", actor, account=account, aliases=aliases, setup=self._setup(actor.name),
            own_certificate=await self._own_certificate(), form=form or {}, errors=errors or {}, title=_("My mail"),
        )  # fmt: skip

    async def change_password(self, request: Request, actor: Actor, form: Form) -> Response:
        """POST /me/password: with the one they have, which goes through the log-in's throttle like any other try."""
        if form.get("password", "") != form.get("again", ""):
            raise Wrong({"again": _("The two are not the same.")})
        if not form.get("password"):
            raise Wrong({"password": _("Type a new password.")})
        try:
            account = await self._parts.access.log_in(
                peer_of(request), actor.name, form.get("current", ""), anyone=True
            )
        except Denied as error:
            wrong = _("This is not your password.") if error.status == 401 else say(str(error))
            raise Wrong({"current": wrong}) from error
        with beside({WeakPassword: "password"}):
            await self._operations.set_password(actor, actor.name, form["password"])
        # Every session has ended with the old password; this browser gets a new one.
        token = await self._parts.access.open_session(account)
        session = self._parts.sessions.find(token)
        notify(session, "done", _("Your password is changed. Type it into each mail program too."))
        response = RedirectResponse("/me", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")
        return response

    async def apple_profile(self, request: Request, actor: Actor) -> Response:
        """GET /me/mailstead.mobileconfig."""
        settings = self._parts.context.settings
        made = profile(
            actor.name, settings.hostname, imap_port=settings.client_imaps_port,
            submission_port=settings.client_submissions_port,
        )  # fmt: skip
        headers = {"Content-Disposition": 'attachment; filename="mailstead.mobileconfig"'}
        return Response(made, media_type="application/x-apple-aspen-config", headers=headers)

    def _setup(self, address: str) -> list[tuple[str, list[tuple[str, str, bool]]]]:
        """(heading, [(name, value, whether it is copied)])."""
        settings = self._parts.context.settings
        host = settings.hostname
        both = [(_("User name"), address, True), (_("Password"), _("the one of this account"), False)]
        return [
            (
                _("Receiving (IMAP)"),
                [
                    (_("Server"), host, True),
                    (_("Port"), str(settings.client_imaps_port), True),
                    (_("Security"), "SSL/TLS", False),
                    *both,
                ],
            ),
            (
                _("Sending (SMTP)"),
                [
                    (_("Server"), host, True),
                    (_("Port"), str(settings.client_submissions_port), True),
                    (_("Security"), "SSL/TLS", False),
                    *both,
                ],
            ),
        ]

    async def _own_certificate(self) -> bool:
        try:
            answer: Any = await self._parts.peers.ask("acme", "GET", "/v1/status")
        except (PeerAway, PeerSaid):
            return False
        return isinstance(answer, dict) and answer.get("mode") == "self-signed"
