"""Every change of the directory: one verb, one transaction, one publication.

A change is checked, written, and published before its verb returns, so that an API that answers "done" is believed by
every room within a second. In this order, so that nothing is half done:

1. write in a transaction;
2. write both snapshots of the new generation from inside that transaction (a full disk ends here: rolled back);
3. commit;
4. swap the two `current` links. If that fails the change stands and is due: `NotPublished` says so, and the next
   change or `republish` (each start, and admin's retry) finishes it.

While an update is under way the directory is closed: `closed` says so, and every verb raises `Closed`.

For as long as the mail gate works, one account more than the directory has is published: the `guest`. It is written
into no table, so that nobody lists it, and a restart or a rollback knows nothing of it.

Called by the admin room alone, in threads. Raises `InvalidName`, `WeakPassword` (the caller's mistake), `NotFound`,
`Exists`, `Refused`, `Closed`, `PublicationFailed` (nothing was changed), `NotPublished` (changed, not yet seen by the
rooms).
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence

from services.directory import addresses
from services.directory.alias_targets import Routes, check_arrives, no_new_circle
from services.directory.database import AccountDetails, Database
from services.directory.domains import DomainChanges
from services.directory.errors import Closed, Exists, NotFound, NotPublished, Refused
from services.directory.models import GATE, Account, Alias, Duty, Fact
from services.directory.passwords import needs_rehash
from services.directory.publish import Contents, PublicationFailed, Publisher
from services.directory.quotas import QuotaChanges

KEEP_DELETED_SECONDS = 30 * 86_400  # as long as imap keeps the mail of a deleted account


class Directories(DomainChanges, QuotaChanges):
    """The directory as admin changes it; the verbs of domains are in `domains.py`, of quota letters in `quotas.py`."""

    def __init__(self, database: Database, publisher: Publisher, *, clock: Callable[[], float] = time.time) -> None:
        """`publisher` is told of every change before it is answered."""
        self.database, self._publisher, self._clock = database, publisher, clock
        # Why nothing may be changed now, "" where it may. Asked within the lock, right before each change.
        self.closed: Callable[[], str] = lambda: ""
        self._guest: tuple[Account, str] | None = None

    # --- accounts --------------------------------------------------------------------------------------------------

    def add_account(
        self,
        text: str,
        password_hash: str,
        *,
        login: str | None = None,
        administrator: bool = False,
        quota_bytes: int = 0,
    ) -> AccountDetails:
        """Make an account in a local domain.

        `login` None: the part before @ becomes the user name where nobody has it yet; "": no user name.
        """
        address = addresses.account_address(text)
        local, domain = addresses.split(address)
        _check_not_reserved(local, address)
        wanted = addresses.user_name(login) if login else ""
        now = self._clock()
        with self._change() as connection:
            self._check_own(domain)
            if self.database.account(address):
                raise Exists(f"the account {address} is here already")
            if _count(connection, "duties WHERE kind = 'remove-mail' AND subject = ?", address):
                # Else the new holder would read what the old one left.
                raise Refused(f"the mail of the deleted account {address} is still being put away; try again later")
            if wanted:
                self._check_login_free(wanted)
            elif login is None:
                wanted = self._free_login(local)
            connection.execute(
                "INSERT INTO accounts (address, domain, local, login, password_hash, administrator, quota_bytes, "
                "created, password_changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (address, domain, local, wanted, password_hash, administrator, _quota(quota_bytes), now, now),
            )
            self._owe(connection, "provision", address)
        return self.account(address)

    def account(self, text: str) -> AccountDetails:
        """The account in use with this address."""
        address = addresses.key(text.strip())
        found = self.database.account(address)
        if found is None:
            raise NotFound(f"there is no account {address}")
        return found

    def set_password(self, text: str, password_hash: str) -> AccountDetails:
        """Give an account another password; every session and remembered log-in with the old one ends."""
        with self._change() as connection:
            address = self.account(text).account.address
            connection.execute(
                "UPDATE accounts SET password_hash = ?, password_changed = ? WHERE address = ? AND deleted_at IS NULL",
                (password_hash, self._clock(), address),
            )
        return self.account(address)

    def set_language(self, address: str, language: str) -> None:
        """Remember the language in which an account reads the page. Nothing is published: no room needs it."""
        with self.database.transaction() as connection:
            self._check_open()
            connection.execute(
                "UPDATE accounts SET language = ? WHERE address = ? AND deleted_at IS NULL", (language, address)
            )

    def update_account(
        self,
        text: str,
        *,
        enabled: bool | None = None,
        administrator: bool | None = None,
        quota_bytes: int | None = None,
        login: str | None = None,
    ) -> AccountDetails:
        """Change what is not None. `login` "" takes the user name away. Setting what is set already changes nothing."""
        with self._change() as connection:
            account = self.account(text).account
            if account.administrator and account.enabled and (enabled is False or administrator is False):
                self._check_not_last_administrator(account.address)
            wanted = addresses.user_name(login) if login else login
            if wanted and wanted != account.login:
                self._check_login_free(wanted)
            new = (
                account.enabled if enabled is None else enabled,
                account.administrator if administrator is None else administrator,
                account.quota_bytes if quota_bytes is None else _quota(quota_bytes),
                account.login if wanted is None else wanted,
            )
            if new != (account.enabled, account.administrator, account.quota_bytes, account.login):
                connection.execute(
                    "UPDATE accounts SET enabled = ?, administrator = ?, quota_bytes = ?, login = ? "
                    "WHERE address = ? AND deleted_at IS NULL",
                    (*new, account.address),
                )
        return self.account(account.address)

    def delete_account(self, text: str, *, purge: bool = False) -> tuple[str, list[Alias]]:
        """Take an account out of use. Returns its address and the aliases that led to it, which go with it.

        Its row stays for 30 days, as its mail does; `purge`: both go at once. The aliases go because mail would bounce
        from them, and because the next holder of the address would inherit them unseen.
        """
        with self._change() as connection:
            account = self.account(text).account
            if account.administrator and account.enabled:
                self._check_not_last_administrator(account.address)
            rows = Routes(self.database).leading_to(account.address)
            connection.executemany("DELETE FROM aliases WHERE source = ? AND target = ?", rows)
            connection.execute(
                "UPDATE accounts SET deleted_at = ?, password_hash = '' WHERE address = ? AND deleted_at IS NULL",
                (self._clock(), account.address),
            )
            if purge:
                connection.execute(
                    "DELETE FROM accounts WHERE address = ? AND deleted_at IS NOT NULL", (account.address,)
                )
            connection.execute("DELETE FROM duties WHERE kind = 'provision' AND subject = ?", (account.address,))
            self._owe(connection, "remove-mail", account.address, "purge" if purge else "keep")
            rows += self._cut_circles(connection)
        return account.address, [Alias(*row) for row in rows]

    def purge_deleted(self, text: str) -> int:
        """Drop the rows of deleted accounts with this address, and owe their mail's end; how many there were."""
        address = addresses.key(text.strip())
        with self.database.transaction() as connection:
            self._check_open()
            gone = connection.execute(
                "DELETE FROM accounts WHERE address = ? AND deleted_at IS NOT NULL", (address,)
            ).rowcount
            if not gone:
                raise NotFound(f"there is no deleted account {address}")
            if self.database.account(address):
                raise Refused(f"{address} is in use again; delete it first, or its new mail would go too")
            self._owe(connection, "remove-mail", address, "purge")
        return gone

    def forget_deleted(self) -> int:
        """Drop the rows of deleted accounts whose mail is no longer kept; how many there were."""
        with self.database.transaction() as connection:
            before = self._clock() - KEEP_DELETED_SECONDS
            return connection.execute("DELETE FROM accounts WHERE deleted_at < ?", (before,)).rowcount

    def done(self, duty: Duty) -> None:
        """A duty is fulfilled; one that was made anew meanwhile (another `since` or `detail`) stays."""
        with self.database.transaction() as connection:
            connection.execute(
                "DELETE FROM duties WHERE kind = ? AND subject = ? AND detail = ? AND since = ?",
                (duty.kind, duty.subject, duty.detail, duty.since),
            )

    # --- aliases ---------------------------------------------------------------------------------------------------

    def add_alias(self, source_text: str, target_text: str, *, keep_copy: bool = False) -> Alias:
        """Mail for `source` goes (also) to `target`. Adding one that is there changes nothing.

        `keep_copy`: and into the mailbox of `source` too, which must be an account's address. Both in one change: at no
        time is mail without its copy.
        """
        source = addresses.alias_source(source_text)
        _check_not_reserved(source.partition("@")[0], source)
        typed = target_text.strip()
        # `@ours → @theirs` keeps the part before @.
        target = "@" + addresses.domain_name(typed[1:]) if typed.startswith("@") else addresses.address(typed)
        with self._change() as connection:
            domain = source.rpartition("@")[2]
            if not self.database.has_domain(domain):
                raise NotFound(f"the domain {domain} is not here; an alias answers for an address of ours")
            self._check_own(domain)
            if target.startswith("@") and not source.startswith("@"):
                raise Refused(f"{source} is one address; it cannot go to all of {target}")
            if keep_copy and self.database.account(source) is None:
                raise Refused(f"{source} is no account: add the mailbox that keeps the copy as one more target")
            if target != source:
                check_arrives(self.database, target)
            with no_new_circle(self.database, f"{source} → {target}"):
                for each in (target, *([source] if keep_copy else [])):
                    connection.execute("INSERT OR IGNORE INTO aliases VALUES (?, ?, ?)", (source, each, self._clock()))
        return Alias(source, target)

    def delete_alias(self, source_text: str, target_text: str | None = None) -> list[Alias]:
        """Remove one target of an alias, or all of them; returns what was removed."""
        source = addresses.key(source_text.strip().removeprefix("*"))
        with self._change() as connection:
            sql, values = "source = ?", [source]
            if target_text is not None:
                sql, values = "source = ? AND target = ?", [source, addresses.key(target_text.strip())]
            rows = connection.execute(f"SELECT source, target FROM aliases WHERE {sql}", values).fetchall()
            if not rows:
                where = f"{source} → {target_text}" if target_text is not None else source
                raise NotFound(f"there is no alias {where}")
            # What it kept from the catch-all may be what the catch-all leads to.
            with no_new_circle(self.database, f"deleting the alias {source}"):
                connection.execute(f"DELETE FROM aliases WHERE {sql}", values)
        return [Alias(*row) for row in rows]

    def _cut_circles(self, connection: sqlite3.Connection) -> list[tuple[str, str]]:
        """Delete the aliases that only a mailbox which is gone now kept from going round; what was deleted."""
        gone: list[tuple[str, str]] = []
        while found := (routes := Routes(self.database)).circle():
            gone.append(routes.closing(found))
            connection.execute("DELETE FROM aliases WHERE source = ? AND target = ?", gone[-1])
        return gone

    # --- facts from rooms ------------------------------------------------------------------------------------------

    def take_facts(self, facts: Sequence[Fact]) -> list[Fact]:
        """Take what rooms told, each id once (ids are remembered for 30 days); returns those that were new.

        last-used and usage are kept here alone: snapshots do not carry them, so nothing is published. A room's clock
        that is ahead of ours counts as now.
        """
        now = self._clock()
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM facts_taken WHERE at < ?", (now - KEEP_DELETED_SECONDS,))
            taken = "INSERT OR IGNORE INTO facts_taken VALUES (?, ?)"
            new = [fact for fact in facts if connection.execute(taken, (fact.identity, now)).rowcount]
            for fact in new:
                if fact.kind == "last-used":
                    sql = "last_used = max(coalesce(last_used, 0), ?)"
                    values: tuple[object, ...] = (min(fact.at, now),)
                elif fact.kind == "usage":
                    sql, values = "used_bytes = ?, used_messages = ?", (fact.size, fact.messages)
                else:
                    continue
                connection.execute(
                    f"UPDATE accounts SET {sql} WHERE address = ? AND deleted_at IS NULL", (*values, fact.account)
                )
        for fact in new:
            if fact.kind == "rehash":
                self.rehash(fact.account, fact.replaces, fact.password_hash)
        return new

    def rehash(self, address: str, replaces: str, password_hash: str) -> bool:
        """Take the stronger hash that a room made at a log-in; True where it was taken.

        Only in the place of the very hash that was checked, and only where that one is weaker than today's: else a room
        that was broken into could set passwords, and a log-in in flight could undo a change of password.
        """
        if not needs_rehash(replaces) or needs_rehash(password_hash):
            return False
        with self._change() as connection:
            return (
                connection.execute(
                    "UPDATE accounts SET password_hash = ? "
                    "WHERE address = ? AND deleted_at IS NULL AND password_hash = ?",
                    (password_hash, address, replaces),
                ).rowcount
                > 0
            )

    # --- publication -----------------------------------------------------------------------------------------------

    def remember(self, name: str, value: str) -> None:
        """Keep a small value of admin's own; nothing is published."""
        with self.database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def republish(self) -> bool:
        """Publish again where the rooms see another generation than ours; True where that was so."""
        with self.database.lock:
            published = self._publisher.published()
            # By a process that ended in the middle of a gate.
            left = self._guest is None and self.database.meta("guest")
            if not left and published is not None and str(published) == self.database.meta("generation"):
                self._publisher.sweep()
                return False
            self.publish_guest(*(self._guest or ()))
        return True

    def publish_guest(self, guest: Account | None = None, password_hash: str = "") -> None:
        """Publish the directory and `guest` beside it; None: without one. Done even while the directory is closed."""
        with self.database.lock:
            if guest is not None and self.database.account(guest.address):
                raise Exists(f"{guest.address} is an account here")
            before, self._guest = self._guest, (guest, password_hash) if guest is not None else None
            try:
                with self._change(force=True) as connection:
                    if guest is None:
                        connection.execute("DELETE FROM meta WHERE name = 'guest'")
                    else:
                        connection.execute("INSERT OR REPLACE INTO meta VALUES ('guest', ?)", (guest.address,))
            except NotPublished:
                raise
            except BaseException:
                self._guest = before
                raise

    @contextlib.contextmanager
    def _change(self, *, force: bool = False) -> Iterator[sqlite3.Connection]:
        generation = 0
        with self.database.lock:
            try:
                with self.database.transaction() as connection:
                    if not force:
                        self._check_open()
                    before = connection.total_changes
                    yield connection
                    if connection.total_changes == before and not force:
                        return
                    generation = self._publisher.next_generation(int(self.database.meta("generation") or 0))
                    connection.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (str(generation),))
                    self._publisher.prepare(self._contents(generation))
            except BaseException:
                if generation:
                    self._publisher.withdraw(generation)
                raise
            try:
                self._publisher.link(generation)
            except PublicationFailed as error:
                raise NotPublished(f"{error}; it is tried again by itself") from error
            with contextlib.suppress(OSError):
                self._publisher.sweep()

    def _contents(self, generation: int) -> Contents:
        database = self.database
        accounts, hashes = [details.account for details in database.accounts()], database.hashes()
        if self._guest is not None:
            account, password_hash = self._guest
            accounts, hashes = [*accounts, account], {**hashes, account.address: password_hash}
        return Contents(generation, database.domains(), accounts, database.aliases(), hashes)

    def _owe(self, connection: sqlite3.Connection, kind: str, subject: str, detail: str = "") -> None:
        connection.execute("INSERT OR REPLACE INTO duties VALUES (?, ?, ?, ?)", (kind, subject, detail, self._clock()))

    def _check_open(self) -> None:
        if why := self.closed():
            raise Closed(why)

    # --- what must hold --------------------------------------------------------------------------------------------

    def _free_login(self, local: str) -> str:
        try:
            name = addresses.user_name(local)
        except addresses.InvalidName:
            return ""  # a local part such as o'neill is no user name: the address is used to log in
        return "" if self.database.account_by_login(name) else name

    def _check_login_free(self, login: str) -> None:
        if owner := self.database.account_by_login(login):
            raise Exists(f"the user name {login} belongs to {owner.account.address}")

    def _check_not_last_administrator(self, address: str) -> None:
        where = "accounts WHERE administrator AND enabled AND deleted_at IS NULL AND address <> ?"
        if not _count(self.database.connection, where, address):
            raise Refused(f"{address} is the only administrator; make another one first")


def _count(connection: sqlite3.Connection, what: str, *values: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {what}", values).fetchone()[0])


def _check_not_reserved(local: str, address: str) -> None:
    if local == GATE:
        raise Refused(f"{address} is reserved: updates are tried out with it")


def _quota(size: int) -> int:
    if not 0 <= size < 1 << 62:
        raise Refused("a quota is a number of bytes; 0 is no limit")
    return size
