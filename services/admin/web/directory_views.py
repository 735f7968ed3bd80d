"""The pages of accounts, aliases, domains and their DNS records."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.admin.access import Actor
from services.admin.api.accounts import account_json
from services.admin.dns import dns_records
from services.admin.operations import Done
from services.admin.parts import Parts
from services.admin.text import _
from services.admin.web.pages import Form, Pages, notify
from services.directory.errors import Refused

MIB = 1 << 20


def add_to(app: FastAPI, pages: Pages, parts: Parts) -> None:
    """Add the pages to `app`."""
    views = DirectoryViews(pages, parts)
    for path, page in (
        ("/accounts", views.accounts), ("/accounts/{address}", views.account), ("/aliases", views.aliases),
        ("/domains", views.domains), ("/domains/{name}", views.dns),
    ):  # fmt: skip
        app.add_route(path, pages.page(page), methods=["GET"], include_in_schema=False)
    for path, change in (
        ("/accounts", views.add_account), ("/accounts/{address}", views.change_account), ("/aliases", views.add_alias),
        ("/aliases/delete", views.delete_alias), ("/domains", views.add_domain),
        ("/domains/{name}", views.delete_domain),
    ):  # fmt: skip
        app.add_route(path, pages.change(change), methods=["POST"], include_in_schema=False)


class DirectoryViews:
    """The handlers."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations

    # --- accounts --------------------------------------------------------------------------------------------------

    async def accounts(self, request: Request, actor: Actor) -> Response:
        """GET /accounts."""
        usage = await self._operations.usage()
        found = [account_json(each, usage) for each in await self._operations.accounts()]
        deleted = [account_json(each) for each in await self._operations.accounts(deleted=True)]
        domains = [domain.name for domain in await self._operations.domains()]
        return self._pages.render(
            "accounts.html", actor, accounts=found, deleted=deleted, domains=domains, title=_("Accounts")
        )

    async def add_account(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /accounts."""
        address = f"{form.get('local', '')}@{form.get('domain', '')}"
        done = await self._operations.add_account(
            actor, address, form.get("password", ""), administrator="administrator" in form
        )
        _tell(
            actor, done, _("{address} is ready.").format(address=done.account.account.address if done.account else "")
        )
        return "/accounts"

    async def account(self, request: Request, actor: Actor) -> Response:
        """GET /accounts/{address}."""
        details = await self._operations.account(request.path_params["address"])
        found = account_json(details, await self._operations.usage(details.account.address))
        address = found["address"]
        leading = [alias for alias in await self._operations.aliases() if alias.target == address]
        return self._pages.render("account.html", actor, account=found, aliases=leading, title=address)

    async def change_account(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /accounts/{address}: which of the page's forms it was stands in `action`."""
        address, action = request.path_params["address"], form.get("action", "")
        here = f"/accounts/{address}"
        if action == "delete":
            if form.get("typed", "").strip().lower() != address.lower():
                raise Refused(_("To delete it, type the address once more."))
            done = await self._operations.delete_account(actor, address, purge="purge" in form)
            _tell(actor, done, _("{address} is deleted.").format(address=address))
            return "/accounts"
        if action == "password":
            if actor.name == address and not form.get("password"):
                raise Refused(_("Type a new password: changing your own logs you out."))
            done = await self._operations.set_password(actor, address, form.get("password", ""))
            _tell(actor, done, _("The password is changed."))
            return "/login" if actor.name == address else here
        if action == "enable" or action == "disable":
            done = await self._operations.update_account(actor, address, enabled=action == "enable")
        elif action == "promote" or action == "demote":
            done = await self._operations.update_account(actor, address, administrator=action == "promote")
        elif action == "quota":
            megabytes = form.get("quota", "").strip() or "0"
            if not (megabytes.isascii() and megabytes.isdigit()) or len(megabytes) > 9:
                raise Refused(_("A quota is a whole number of MiB; 0 is no limit."))
            done = await self._operations.update_account(actor, address, quota_bytes=int(megabytes) * MIB)
        elif action == "login":
            done = await self._operations.update_account(actor, address, login=form.get("login", "").strip())
        else:
            raise Refused(_("Nothing was chosen."))
        _tell(actor, done, _("Saved."))
        return here

    # --- aliases ---------------------------------------------------------------------------------------------------

    async def aliases(self, request: Request, actor: Actor) -> Response:
        """GET /aliases."""
        aliases = await self._operations.aliases()
        return self._pages.render("aliases.html", actor, aliases=aliases, title=_("Aliases"))

    async def add_alias(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /aliases."""
        alias = await self._operations.add_alias(actor, form.get("source", ""), form.get("target", ""))
        notify(actor.session, "done", f"{alias.source} → {alias.target}")
        return "/aliases"

    async def delete_alias(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /aliases/delete."""
        await self._operations.delete_alias(actor, form.get("source", ""), form.get("target", ""))
        notify(actor.session, "done", _("The alias is deleted."))
        return "/aliases"

    # --- domains ---------------------------------------------------------------------------------------------------

    async def domains(self, request: Request, actor: Actor) -> Response:
        """GET /domains."""
        domains, accounts = await self._operations.domains(), await self._operations.accounts()
        listed = [(each.name, sum(one.account.domain == each.name for one in accounts)) for each in domains]
        return self._pages.render("domains.html", actor, domains=listed, title=_("Domains"))

    async def add_domain(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /domains."""
        domain, notes = await self._operations.add_domain(actor, form.get("name", ""))
        for note in notes:
            notify(actor.session, "note", note)
        notify(actor.session, "done", _("{name} is here. Set its DNS records next.").format(name=domain.name))
        return f"/domains/{domain.name}"

    async def dns(self, request: Request, actor: Actor) -> Response:
        """GET /domains/{name}."""
        found = await dns_records(self._parts, request.path_params["name"])
        return self._pages.render("dns.html", actor, dns=found, title=found["domain"])

    async def delete_domain(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /domains/{name}."""
        name = request.path_params["name"]
        if form.get("typed", "").strip().lower() != name.lower():
            raise Refused(_("To delete it, type the domain once more."))
        await self._operations.delete_domain(actor, name)
        notify(actor.session, "done", _("{name} is deleted.").format(name=name))
        return "/domains"


def _tell(actor: Actor, done: Done, words: str) -> None:
    notify(actor.session, "done", words)
    if done.password:
        notify(actor.session, "secret", done.password)
    for alias in done.aliases:
        words = _("The alias {source} went with it.").format(source=alias.source)
        notify(actor.session, "note", words)
    for note in done.notes:
        notify(actor.session, "note", note)
