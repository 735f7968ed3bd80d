"""The pages of accounts, aliases, domains and their DNS records."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.admin.access import Actor
from services.admin.api.accounts import account_json
from services.admin.dns import dns_records
from services.admin.operations import Done
from services.admin.parts import Parts
from services.admin.phrases import say
from services.admin.text import _
from services.admin.web.pages import SURE, Form, Pages, Wrong, beside, notify
from services.directory.addresses import InvalidName, address, alias_source, ascii_domain, key
from services.directory.errors import DirectoryError, Exists, NotFound, Refused
from services.directory.passwords import WeakPassword

MIB = 1 << 20
Errors = Mapping[str, str]


def add_to(app: FastAPI, pages: Pages, parts: Parts) -> None:
    """Add the pages to `app`."""
    views = DirectoryViews(pages, parts)
    for path, page in (
        ("/accounts", views.accounts), ("/accounts/new", views.new_account), ("/accounts/{address}", views.account),
        ("/aliases", views.aliases), ("/domains", views.domains), ("/domains/{name}", views.dns),
    ):  # fmt: skip
        app.add_route(path, pages.page(page), methods=["GET"], include_in_schema=False)
    for path, change, show in (
        ("/accounts", views.add_account, views.new_account),
        ("/accounts/{address}", views.change_account, views.account),
        ("/aliases", views.add_alias, views.aliases),
        ("/aliases/delete", views.delete_alias, None),
        ("/domains", views.add_domain, views.domains),
        ("/domains/{name}", views.delete_domain, views.dns),
    ):
        app.add_route(path, pages.change(change, show=show), methods=["POST"], include_in_schema=False)


class DirectoryViews:
    """The handlers. What shows a form takes the one that failed, with its errors by field."""

    def __init__(self, pages: Pages, parts: Parts) -> None:
        self._pages, self._parts, self._operations = pages, parts, parts.operations

    # --- accounts --------------------------------------------------------------------------------------------------

    async def accounts(self, request: Request, actor: Actor) -> Response:
        """GET /accounts."""
        usage = await self._operations.usage()
        found = [account_json(each, usage) for each in await self._operations.accounts()]
        deleted = [account_json(each) for each in await self._operations.accounts(deleted=True)]
        return self._pages.render(request, "accounts.html", actor, accounts=found, deleted=deleted, title=_("Accounts"))

    async def new_account(
        self, request: Request, actor: Actor, form: Form | None = None, errors: Errors | None = None
    ) -> Response:
        """GET /accounts/new."""
        domains = [domain.name for domain in await self._operations.domains() if not domain.alias_of]
        quota = self._parts.context.settings.default_quota // MIB
        return self._pages.render(
            request, "new_account.html", actor, domains=domains, quota=quota, form=form or {}, errors=errors or {},
            title=_("New account"),
        )  # fmt: skip

    async def add_account(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /accounts."""
        typed = f"{form.get('local', '').strip()}@{form.get('domain', '')}"
        if not form.get("local", "").strip():
            raise Wrong({"local": _("Type the name before the @.")})
        quota = _mebibytes(form)
        with beside(
            {InvalidName: "local", Exists: "local", Refused: "local", NotFound: "domain", WeakPassword: "password"}
        ):
            done = await self._operations.add_account(
                actor, typed, form.get("password", ""), administrator="administrator" in form, quota_bytes=quota
            )
        made = done.account.account.address if done.account else ""
        _tell(actor, done, _("{address} is ready.").format(address=made))
        return "/accounts"

    async def account(
        self, request: Request, actor: Actor, form: Form | None = None, errors: Errors | None = None
    ) -> Response:
        """GET /accounts/{address}."""
        details = await self._operations.account(request.path_params["address"])
        found = account_json(details, await self._operations.usage(details.account.address))
        leading = [alias for alias in await self._operations.aliases() if alias.target == found["address"]]
        return self._pages.render(
            request, "account.html", actor, account=found, aliases=leading, form=form or {}, errors=errors or {},
            title=found["address"],
        )  # fmt: skip

    async def change_account(self, request: Request, actor: Actor, form: Form) -> str | Response:
        """POST /accounts/{address}: which of the page's forms it was stands in `action`."""
        address, action = request.path_params["address"], form.get("action", "")
        here = f"/accounts/{address}"
        if action == "delete":
            if key(form.get("typed", "").strip()) != key(address):
                raise Wrong({"typed": _("To delete it, type the address once more.")})
            done = await self._operations.delete_account(actor, address, purge="purge" in form)
            _tell(actor, done, _("{address} is deleted.").format(address=address))
            return "/accounts"
        if action == "password":
            if actor.name == key(address):
                raise Wrong(
                    {"password": _("Your own password is changed under “My mail”: it asks for the one you have.")}
                )
            with beside({WeakPassword: "password"}):
                done = await self._operations.set_password(actor, address, form.get("password", ""))
            _tell(actor, done, _("The password is changed."))
            return here
        if action == "demote" and actor.name == key(address) and SURE not in form:
            return self._pages.confirm(
                request, actor, form, title=_("Take administrator away from yourself?"),
                text=_("You will see only your own mail here. Another administrator can give it back."),
                button=_("Take administrator away"),
            )  # fmt: skip
        if action in ("enable", "disable"):
            done = await self._operations.update_account(actor, address, enabled=action == "enable")
        elif action in ("promote", "demote"):
            done = await self._operations.update_account(actor, address, administrator=action == "promote")
        elif action == "quota":
            done = await self._operations.update_account(actor, address, quota_bytes=_mebibytes(form))
        elif action == "login":
            with beside({InvalidName: "login", Exists: "login"}):
                done = await self._operations.update_account(actor, address, login=form.get("login", "").strip())
        else:
            raise Refused(_("Nothing was chosen."))
        _tell(actor, done, _("Saved."))
        return here

    # --- aliases ---------------------------------------------------------------------------------------------------

    async def aliases(
        self, request: Request, actor: Actor, form: Form | None = None, errors: Errors | None = None
    ) -> Response:
        """GET /aliases."""
        aliases, domains = await self._operations.aliases(), await self._operations.domains()
        own = [domain.name for domain in domains if not domain.alias_of]
        return self._pages.render(
            request, "aliases.html", actor, aliases=aliases, domain=own[0], form=form or {},
            errors=errors or {}, title=_("Aliases"),
        )  # fmt: skip

    async def add_alias(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /aliases."""
        errors: dict[str, str] = {}
        for name, read in (("source", alias_source), ("target", _alias_target)):
            try:
                read(form.get(name, ""))
            except InvalidName as error:
                errors[name] = say(str(error))
        if errors:
            raise Wrong(errors)
        ours = {domain.name for domain in await self._operations.domains()}
        if (domain := alias_source(form["source"]).rpartition("@")[2]) not in ours:
            raise Wrong({"source": _("The domain {domain} is not here; add it first.").format(domain=domain)})
        with beside({DirectoryError: "target"}):
            alias = await self._operations.add_alias(
                actor, form["source"], form["target"], keep_copy="keep_copy" in form
            )
        notify(actor.session, "done", f"{alias.source} → {alias.target}")
        return "/aliases"

    async def delete_alias(self, request: Request, actor: Actor, form: Form) -> str | Response:
        """POST /aliases/delete."""
        source, target = form.get("source", ""), form.get("target", "")
        if SURE not in form:
            return self._pages.confirm(
                request, actor, form, title=_("Delete this alias?"),
                text=_("Mail for {source} does not go to {target} any more.").format(source=source, target=target),
                button=_("Delete"),
            )  # fmt: skip
        await self._operations.delete_alias(actor, source, target)
        notify(actor.session, "done", _("The alias is deleted."))
        return "/aliases"

    # --- domains ---------------------------------------------------------------------------------------------------

    async def domains(
        self, request: Request, actor: Actor, form: Form | None = None, errors: Errors | None = None
    ) -> Response:
        """GET /domains."""
        domains, accounts = await self._operations.domains(), await self._operations.accounts()
        listed = [
            (each.name, each.alias_of, sum(one.account.domain == each.name for one in accounts)) for each in domains
        ]
        return self._pages.render(
            request, "domains.html", actor, domains=listed, form=form or {}, errors=errors or {}, title=_("Domains")
        )

    async def add_domain(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /domains."""
        existing = form.get("alias_of", "")
        with beside({InvalidName: "name", Exists: "name", Refused: "name", NotFound: "alias_of"}):
            if existing:
                domain, notes = await self._operations.add_domain_alias(actor, form.get("name", ""), existing)
            else:
                domain, notes = await self._operations.add_domain(actor, form.get("name", ""))
        for note in notes:
            notify(actor.session, "note", say(note))
        notify(actor.session, "done", _("{name} is here. Set its DNS records next.").format(name=domain.name))
        return f"/domains/{domain.name}"

    async def dns(
        self, request: Request, actor: Actor, form: Form | None = None, errors: Errors | None = None
    ) -> Response:
        """GET /domains/{name}."""
        found = await dns_records(self._parts, request.path_params["name"])
        return self._pages.render(
            request, "dns.html", actor, dns=found, form=form or {}, errors=errors or {}, title=found["domain"]
        )

    async def delete_domain(self, request: Request, actor: Actor, form: Form) -> str:
        """POST /domains/{name}."""
        name = request.path_params["name"]
        with beside({InvalidName: "typed"}):
            typed = ascii_domain(form.get("typed", "").strip())
        if typed != name.lower():
            raise Wrong({"typed": _("To delete it, type the domain once more.")})
        with beside({Refused: "typed"}):
            await self._operations.delete_domain(actor, name)
        notify(actor.session, "done", _("{name} is deleted.").format(name=name))
        return "/domains"


def _mebibytes(form: Form) -> int:
    typed = form.get("quota", "").strip() or "0"
    if not (typed.isascii() and typed.isdigit()) or len(typed) > 9:
        raise Wrong({"quota": _("A whole number of MiB; 0 is no limit.")})
    return int(typed) * MIB


def _alias_target(typed: str) -> str:
    return alias_source(typed) if typed.strip().startswith("@") else address(typed)


def _tell(actor: Actor, done: Done, words: str) -> None:
    notify(actor.session, "done", words)
    if done.password:
        notify(actor.session, "secret", done.password)
    for alias in done.aliases:
        notify(actor.session, "note", _("The alias {source} went with it.").format(source=alias.source))
    for note in done.notes:
        notify(actor.session, "note", say(note))
