"""From an address to where its mail goes: mailboxes, forwards, or a reason why not.

Pure: the directory is passed in and only asked; nothing is remembered between calls. smtp-in calls `resolve` for each
RCPT and LMTP recipient, `policy.sender` calls it to find out whose address a sender is. Whether a forward may leave,
and by which relay or MX, is smtp-out's business; addresses made by SRS are decoded before they come here.

The order in which an address of a local domain is answered, and why:

0. a domain alias first of all: `anna@family.example` is `anna@example.org` where the owner has said that the one domain
   answers as the other, with everything that follows;
1. an alias of exactly this name: an owner who writes an alias over an account's name wants mail redirected, and names
   the account itself among the targets to keep a copy;
2. an account of exactly this name;
3. the same two for `user` when the address is `user+tag`: after the exact names, so that `user+tag` can be given away;
4. postmaster and abuse: the first administrator, before the catch-all, since RFC 5321 §4.5.1 and RFC 2142 want a
   person there and a catch-all is often a folder nobody reads;
5. the domain's catch-all, the alias `@domain`; a target written `@other` keeps the local part.

A disabled account still receives: it may not log in or send, and what came while somebody was locked out is not lost.
Targets are resolved by the same rules. A way that comes back to an address on it ends in that address's mailbox where
it has one (so that `anna@d → anna@d, outside` keeps a copy), else it is a loop and is cut there; an address that has
nothing but loops is unknown. The directory refuses loops when they are made; this is for what it could not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

# A household nests a list in a list; Postfix allows 1000 expansions. Deeper than this is a mistake, and is treated as
# the loop it nearly always is.
MAX_DEPTH = 20
# One address that fans out to more is a mailing list, and wants a list server: each copy is written before the 250.
MAX_TARGETS = 500

# RFC 5321 §4.5.1 (postmaster) and RFC 2142 §4 (abuse).
ROLE_NAMES = frozenset({"postmaster", "abuse"})


class RoutedAccount(Protocol):
    """What routing must know of an account (`directory.models.Account` has it)."""

    @property
    def address(self) -> str: ...

    @property
    def enabled(self) -> bool: ...

    @property
    def administrator(self) -> bool: ...

    @property
    def deleted_at(self) -> object | None: ...


A = TypeVar("A", bound=RoutedAccount)
A_co = TypeVar("A_co", bound=RoutedAccount, covariant=True)


class RoutingDirectory(Protocol[A_co]):
    """The questions routing asks (`directory.lookup.Directory` answers them); addresses are lower-case."""

    def is_local(self, domain: str, /) -> bool: ...

    def domain_alias(self, domain: str, /) -> str: ...

    def account(self, address: str, /) -> A_co | None: ...

    def aliases(self, source: str, /) -> tuple[str, ...]: ...

    def accounts(self) -> tuple[A_co, ...]: ...


@dataclass(frozen=True, slots=True)
class Routing(Generic[A]):
    """Where mail goes: each mailbox and each outside address once. `skipped` are targets that lead nowhere."""

    mailboxes: tuple[A, ...]
    forwards: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """No such recipient here. `reason` is for the owner's trace, not for the peer."""

    address: str
    reason: str = "no account, alias or catch-all has this name"


@dataclass(frozen=True, slots=True)
class NotLocal:
    """The domain is not ours."""

    address: str


def normalise(address: str) -> str:
    """Lower-case, as the directory stores addresses.

    RFC 5321 §2.4 calls local parts case-sensitive; no mailbox provider treats them so, and people type capitals.
    """
    return address.strip().lower()


def split_address(address: str) -> tuple[str, str]:
    """`(local part, domain)`, divided at the last `@` since a local part may be quoted. No `@`: the domain is ""."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def without_tag(address: str) -> str | None:
    """`user@d` for `user+tag@d`, else None. `+tag@d` has no user and stays what it is."""
    local, domain = split_address(address)
    user, plus, _ = local.partition("+")
    return f"{user}@{domain}" if plus and user else None


def canonical(address: str, directory: RoutingDirectory[A]) -> str:
    """`address` in the domain that it belongs to: itself, unless its domain is another's alias."""
    local, domain = split_address(address)
    real = directory.domain_alias(domain) if domain else ""
    return f"{local}@{real}" if real else address


def resolve(address: str, directory: RoutingDirectory[A]) -> Routing[A] | Unknown | NotLocal:
    """Where mail for `address` goes, by the order in this module's text."""
    asked = normalise(address)
    local, domain = split_address(asked)
    if not domain:
        # RFC 5321 §4.1.1.3: RCPT TO:<postmaster> without a domain must be accepted; nothing else may come bare.
        if local != "postmaster":
            return Unknown(address, reason="the address has no domain")
        return _administrator(address, directory)
    if not directory.is_local(domain):
        return NotLocal(address)
    asked = canonical(asked, directory)
    walk = _Walk(directory)
    walk.visit(asked, ())
    if walk.mailboxes or walk.forwards:
        return Routing(tuple(walk.mailboxes.values()), tuple(walk.forwards), tuple(walk.skipped))
    if local in ROLE_NAMES:
        # Its alias leads nowhere; RFC 5321 §4.5.1 still wants postmaster answered.
        return _administrator(address, directory)
    if walk.overflow:
        return Unknown(address, reason=f"its aliases lead to more than {MAX_TARGETS} addresses")
    if walk.looped:
        return Unknown(address, reason=f"its aliases only lead round in a circle, at {walk.looped[0]}")
    if walk.skipped and walk.skipped != [asked]:
        return Unknown(address, reason=f"its aliases lead to {walk.skipped[0]}, which does not exist")
    return Unknown(address)


def _administrator(address: str, directory: RoutingDirectory[A]) -> Routing[A] | Unknown:
    for account in directory.accounts():
        if account.administrator and account.enabled and account.deleted_at is None:
            return Routing((account,))
    return Unknown(address, reason="no enabled administrator is there to answer it")


class _Walk(Generic[A]):
    """One resolution: what was found on the way through the aliases, in the order the owner wrote them."""

    def __init__(self, directory: RoutingDirectory[A]) -> None:
        self._directory = directory
        self.mailboxes: dict[str, A] = {}
        self.forwards: dict[str, None] = {}
        self.skipped: list[str] = []
        self.looped: list[str] = []
        self.overflow = False
        self._seen: set[str] = set()

    def visit(self, address: str, path: tuple[str, ...]) -> None:
        """Add what `address` leads to. `path` holds the addresses being expanded on the way here."""
        domain = split_address(address)[1]
        if not domain:
            self.skipped.append(address)  # an alias to a bare name: nothing here has one
            return
        if not self._directory.is_local(domain):
            self.forwards[address] = None
            return
        address = canonical(address, self._directory)
        local, domain = split_address(address)
        back = address in path
        if address in self._seen and not back:
            return  # two lists share a member: it is there already
        self._seen.add(address)
        names = [address]
        if (plain := without_tag(address)) is not None:
            names.append(plain)
        for name in names:
            if (not back and self._expand(name, address, path)) or self._mailbox(name):
                return
        if local in ROLE_NAMES:
            found = _administrator(address, self._directory)
            if isinstance(found, Routing):
                for account in found.mailboxes:
                    self.mailboxes[account.address] = account
                return
        if back:
            self.looped.append(address)
        elif not self._expand(f"@{domain}", address, path):
            self.skipped.append(address)

    def _expand(self, source: str, address: str, path: tuple[str, ...]) -> bool:
        """Follow the alias `source`, which answers for `address`. False where there is none."""
        targets = self._directory.aliases(source)
        if not targets:
            return False
        if len(path) >= MAX_DEPTH:
            self.looped.append(source)
            return True
        local = split_address(address)[0]
        for target in targets:
            if len(self.mailboxes) + len(self.forwards) >= MAX_TARGETS:
                # All or nothing: some members of a list silently left out would be worse than a refusal.
                self.overflow = True
                self.mailboxes.clear()
                self.forwards.clear()
            if self.overflow:
                return True
            target = normalise(target)
            self.visit(f"{local}{target}" if target.startswith("@") else target, (*path, address))
        return True

    def _mailbox(self, name: str) -> bool:
        account = self._directory.account(name)
        if account is None or account.deleted_at is not None:
            return False
        self.mailboxes[account.address] = account
        return True
