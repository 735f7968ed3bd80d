"""The domains: those with addresses of their own, and domain aliases, whose every address answers as another's.

    family.example = example.org      anna@family.example is anna@example.org: mailbox, aliases, tags, roles, catch-all

A domain alias has neither accounts nor aliases of its own, so that nobody has to ask which of two answers counts, and
leads to a domain that is none, so that there are no chains of them. To the world it is a domain like any other: it has
DKIM keys of its own (people may send as its addresses, and DMARC compares the very domain in From) and DNS records.

`DomainChanges` are verbs of `changes.py`'s `Directories`, in a file of their own; the rules of a change are told there.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.directory import addresses
from services.directory.alias_targets import no_new_circle
from services.directory.errors import Exists, NotFound, Refused
from services.directory.models import Domain

if TYPE_CHECKING:
    from services.directory.database import Database


class DomainChanges:
    """What may be changed of domains."""

    database: Database
    _clock: Callable[[], float]

    if TYPE_CHECKING:  # `Directories` has them

        def _change(self, *, force: bool = False) -> contextlib.AbstractContextManager[sqlite3.Connection]: ...

        def _owe(self, connection: sqlite3.Connection, kind: str, subject: str, detail: str = "") -> None: ...

    def add_domain(self, text: str) -> Domain:
        """Receive mail for a domain from now on."""
        domain = Domain(addresses.domain_name(text), self._clock())
        with self._change() as connection:
            if self.database.has_domain(domain.name):
                raise Exists(f"the domain {domain.name} is here already")
            self._insert(connection, domain)
        return domain

    def add_domain_alias(self, text: str, existing_text: str) -> Domain:
        """Let every address of a domain answer as the same address of `existing`.

        A domain that is here and has nothing of its own becomes one. Raises InvalidName, NotFound, Exists, Refused.
        """
        domain = Domain(addresses.domain_name(text), self._clock(), addresses.domain_name(existing_text))
        name, existing = domain.name, domain.alias_of
        with self._change() as connection:
            known = {each.name: each.alias_of for each in self.database.domains()}
            if existing not in known:
                raise NotFound(f"the domain {existing} is not here")
            if name == existing:
                raise Refused(f"{name} cannot be an alias of itself")
            if known[existing]:
                raise Refused(f"{existing} is itself an alias of {known[existing]}; name {known[existing]}")
            if known.get(name) == existing:
                return domain
            if known.get(name):
                raise Exists(f"{name} is an alias of {known[name]} already; delete that first")
            if others := [each for each, of in known.items() if of == name]:
                raise Refused(f"{others[0]} is an alias of {name}; delete that first")
            # What led outside until now may lead back here.
            with no_new_circle(self.database, f"{name} = {existing}"):
                if name in known:
                    self._check_empty(name)
                    connection.execute("INSERT OR REPLACE INTO domain_aliases VALUES (?, ?)", (name, existing))
                else:
                    self._insert(connection, domain)
        return domain

    def delete_domain_alias(self, text: str) -> str:
        """Stop receiving mail for a domain alias. Returns its stored name."""
        name = addresses.domain_name(text)
        if not any(each.name == name and each.alias_of for each in self.database.domains()):
            raise NotFound(f"there is no domain alias {name} here")
        return self.delete_domain(name)

    def delete_domain(self, text: str) -> str:
        """Stop receiving mail for a domain; refused while it has accounts or aliases. Returns its stored name."""
        name = addresses.domain_name(text)
        with self._change() as connection:
            domains = self.database.domains()
            if not any(each.name == name for each in domains):
                raise NotFound(f"there is no domain {name} here")
            self._check_empty(name)
            if others := [each.name for each in domains if each.alias_of == name]:
                raise Refused(f"{others[0]} is an alias of {name}; delete that first")
            if not any(each.name != name and not each.alias_of for each in domains):
                raise Refused(f"{name} is the only domain; add another first")
            connection.execute("DELETE FROM domains WHERE name = ?", (name,))
            connection.execute("DELETE FROM domain_aliases WHERE name = ?", (name,))
            connection.execute("DELETE FROM duties WHERE kind = 'keys' AND subject = ?", (name,))
        return name

    def _insert(self, connection: sqlite3.Connection, domain: Domain) -> None:
        connection.execute("INSERT INTO domains VALUES (?, ?)", (domain.name, domain.created))
        # One that older code left behind says nothing of the domain that has this name now.
        connection.execute("DELETE FROM domain_aliases WHERE name = ?", (domain.name,))
        if domain.alias_of:
            connection.execute("INSERT INTO domain_aliases VALUES (?, ?)", (domain.name, domain.alias_of))
        self._owe(connection, "keys", domain.name)

    def _check_empty(self, name: str) -> None:
        accounts = sum(each.account.domain == name for each in self.database.accounts())
        aliases = sum(each.source.rpartition("@")[2] == name for each in self.database.aliases())
        if accounts or aliases:
            raise Refused(f"{name} still has {accounts} accounts and {aliases} aliases; delete them first")

    def _check_own(self, name: str) -> None:
        """Raises NotFound where `name` is no domain here, Refused where it has no addresses of its own."""
        found = next((each for each in self.database.domains() if each.name == name), None)
        if found is None:
            raise NotFound(f"the domain {name} is not here; add it first: scripts/mailstead domain add {name}")
        if found.alias_of:
            raise Refused(f"{name} is an alias of {found.alias_of}; use the same address there")
