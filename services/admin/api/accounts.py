"""Domains, accounts, aliases, passwords, and the DNS records of a domain."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.admin.access import Actor
from services.admin.api.guard import ERRORS, actors
from services.admin.dns import dkim_records, dns_records
from services.admin.operations import Done
from services.admin.parts import Parts
from services.directory.database import AccountDetails
from services.directory.models import Alias

Address = Annotated[str, Field(max_length=400, examples=["anna@family.example"])]
Password = Annotated[str, Field(max_length=4096)]
QUOTA = Field(default=None, ge=0, lt=1 << 62, description="bytes; 0: no limit")


class _Body(BaseModel):
    # A misspelt field must not be taken for a wish that was granted, nor `false` for a quota of 0.
    model_config = ConfigDict(extra="forbid", strict=True)


class NewDomain(_Body):
    name: Annotated[str, Field(max_length=400, examples=["family.example"])]
    alias_of: str = Field(default="", max_length=400, description="a domain here as which every address of it answers")


class NewAccount(_Body):
    address: Address
    password: Password = Field(default="", description="empty: one is made up and shown in the answer, once")
    login: str | None = Field(default=None, max_length=400, description="user name; default: the part before @ if free")
    administrator: bool = False
    quota_bytes: int | None = QUOTA


class ChangedAccount(_Body):
    enabled: bool | None = None
    administrator: bool | None = None
    quota_bytes: int | None = QUOTA
    login: str | None = Field(default=None, max_length=400, description='user name; "" takes it away')


class NewPassword(_Body):
    password: Password = Field(default="", description="empty: one is made up and shown in the answer, once")


class AskedPassword(_Body):
    password: Password


class NewAlias(_Body):
    source: Annotated[str, Field(max_length=400, description="an address of ours, or @domain for a catch-all")]
    target: Annotated[str, Field(max_length=400, description="an address, here or elsewhere")]
    keep_copy: bool = Field(default=False, description="also into the mailbox of `source`, which is an account")


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["directory"], responses=ERRORS)
    operations = parts.operations
    asking = Annotated[Actor, Depends(actors(parts.access))]

    @routes.get("/domains")
    async def list_domains(actor: asking) -> dict[str, Any]:
        """All domains whose mail comes here."""
        accounts, aliases = await operations.accounts(), await operations.aliases()
        return {
            "domains": [
                {
                    "name": domain.name,
                    "created": domain.created,
                    "alias_of": domain.alias_of,
                    "accounts": sum(each.account.domain == domain.name for each in accounts),
                    "aliases": sum(each.source.partition("@")[2] == domain.name for each in aliases),
                }
                for domain in await operations.domains()
            ]
        }

    @routes.post("/domains", status_code=201)
    async def add_domain(actor: asking, body: NewDomain) -> dict[str, Any]:
        """Receive mail for a domain; makes its DKIM keys. With `alias_of` every address of it answers as that one's."""
        if body.alias_of:
            domain, notes = await operations.add_domain_alias(actor, body.name, body.alias_of)
        else:
            domain, notes = await operations.add_domain(actor, body.name)
        found = {"name": domain.name, "created": domain.created, "alias_of": domain.alias_of}
        return {"domain": found, "notes": notes}

    @routes.delete("/domains/{name}")
    async def delete_domain(actor: asking, name: str, alias: bool = False) -> dict[str, Any]:
        """Stop receiving mail for a domain; refused while it has accounts or aliases. `alias`: only a domain alias."""
        return {"deleted": await operations.delete_domain(actor, name, alias=alias)}

    @routes.get("/domains/{name}/dns")
    async def show_dns(actor: asking, name: str) -> dict[str, Any]:
        """The DNS records that a domain needs, and why."""
        return await dns_records(parts, name)

    @routes.get("/domains/{name}/dkim")
    async def show_dkim(actor: asking, name: str) -> dict[str, Any]:
        """The DKIM records of a domain."""
        return {"records": await dkim_records(parts, name)}

    @routes.get("/accounts")
    async def list_accounts(actor: asking, deleted: bool = False) -> dict[str, Any]:
        """All accounts; with `deleted` those whose mail is still kept."""
        usage = {} if deleted else await operations.usage()
        return {"accounts": [account_json(each, usage) for each in await operations.accounts(deleted=deleted)]}

    @routes.post("/accounts", status_code=201)
    async def add_account(actor: asking, body: NewAccount) -> dict[str, Any]:
        """Make an account."""
        done = await operations.add_account(
            actor, body.address, body.password, login=body.login, administrator=body.administrator,
            quota_bytes=body.quota_bytes,
        )  # fmt: skip
        return done_json(done)

    @routes.get("/accounts/{address}")
    async def show_account(actor: asking, address: str) -> dict[str, Any]:
        """One account."""
        return {"account": account_json(await operations.account(address), await operations.usage(address))}

    @routes.patch("/accounts/{address}")
    async def change_account(actor: asking, address: str, body: ChangedAccount) -> dict[str, Any]:
        """Change what is given."""
        done = await operations.update_account(
            actor, address, enabled=body.enabled, administrator=body.administrator, quota_bytes=body.quota_bytes,
            login=body.login,
        )  # fmt: skip
        return done_json(done)

    @routes.put("/accounts/{address}/password")
    async def set_password(actor: asking, address: str, body: NewPassword) -> dict[str, Any]:
        """Give an account another password."""
        return done_json(await operations.set_password(actor, address, body.password))

    @routes.post("/accounts/{address}/check")
    async def check_password(actor: asking, address: str, body: AskedPassword) -> dict[str, Any]:
        """Whether a password would log in."""
        return {"right": await operations.check_password(address, body.password)}

    @routes.delete("/accounts/{address}")
    async def delete_account(actor: asking, address: str, purge: bool = False) -> dict[str, Any]:
        """Take an account out of use; its mail is kept 30 days, or destroyed with `purge`."""
        done = await operations.delete_account(actor, address, purge=purge)
        return {"deleted": address.strip().lower(), "purged": purge, **done_json(done)}

    @routes.get("/aliases")
    async def list_aliases(actor: asking) -> dict[str, Any]:
        """All aliases."""
        return {"aliases": [alias_json(each) for each in await operations.aliases()]}

    @routes.post("/aliases", status_code=201)
    async def add_alias(actor: asking, body: NewAlias) -> dict[str, Any]:
        """Mail for `source` goes (also) to `target`."""
        alias = await operations.add_alias(actor, body.source, body.target, keep_copy=body.keep_copy)
        return {"alias": alias_json(alias), "kept": body.keep_copy}

    @routes.delete("/aliases")
    async def delete_alias(
        actor: asking,
        source: Annotated[str, Query(max_length=400)],
        target: Annotated[str | None, Query(max_length=400)] = None,
    ) -> dict[str, Any]:
        """Remove one target of an alias, or without `target` the whole alias."""
        return {"deleted": [alias_json(each) for each in await operations.delete_alias(actor, source, target)]}

    return routes


def account_json(details: AccountDetails, usage: dict[str, tuple[int, int]] | None = None) -> dict[str, Any]:
    """An account as the API shows it; never its hash."""
    account = details.account
    size, messages = (usage or {}).get(account.address, (details.used_bytes, details.used_messages))
    return {
        "address": account.address,
        "login": account.login,
        "enabled": account.enabled,
        "administrator": account.administrator,
        "quota_bytes": account.quota_bytes,
        "used_bytes": size,
        "messages": messages,
        "created": details.created,
        "password_changed": details.password_changed,
        "last_used": details.last_used,
        "deleted_at": account.deleted_at,
    }


def alias_json(alias: Alias) -> dict[str, str]:
    """An alias as the API shows it."""
    return {"source": alias.source, "target": alias.target}


def done_json(done: Done) -> dict[str, Any]:
    """What a change came to."""
    found: dict[str, Any] = {"notes": done.notes}
    if done.account is not None:
        found["account"] = account_json(done.account)
    if done.password:
        found["password"] = done.password
    if done.aliases:
        found["aliases_deleted"] = [alias_json(each) for each in done.aliases]
    return found
