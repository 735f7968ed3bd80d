"""Where aliases would lead: each target must arrive, and none may go round in a circle.

Asked by `changes.py` about the directory as a change would leave it, from inside the change's transaction: an alias
that is made, one that is deleted (the catch-all answers then), an account that goes, a domain that becomes another's
alias. So no order of changes leaves a circle, whichever of them would have closed it. What mail does at delivery is
`policy/routes.py`'s; this follows the same order (domain alias, alias, account, +tag, roles, catch-all), so that what
is accepted here is delivered there.

An account may be among its own alias's targets (that keeps a copy), and two accounts may copy each other: there the way
back ends in a mailbox.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from services.directory.database import Database
from services.directory.errors import NotFound, Refused

# What `policy/routes.py` answers without an account: RFC 5321 §4.5.1, RFC 2142.
ROLES = frozenset({"postmaster", "abuse"})
# As `policy.routes.MAX_DEPTH`: what leads on more often is not followed to its end at delivery.
MAX_DEPTH = 20
_ANYBODY = "\0"  # stands for any local part while a catch-all that keeps it is followed


@dataclass(frozen=True, slots=True)
class _Step:
    """What answers for an address: the alias `source` with `targets` to follow, or `ends`, where it arrives. With both
    it is an account with an alias over it: the way back to it ends in its mailbox."""

    source: str = ""
    targets: tuple[str, ...] = ()
    ends: bool = False


class Routes:
    """The aliases as they are in the database now; of the moment it is made."""

    def __init__(self, database: Database) -> None:
        """Reads everything once: a check follows every alias, a change is rare."""
        self._domains = {domain.name: domain.alias_of for domain in database.domains()}
        self._accounts = {each.account.address for each in database.accounts()}
        self.deepest = 0  # aliases on the longest way
        self._aliases: dict[str, tuple[str, ...]] = {}
        for alias in database.aliases():
            self._aliases[alias.source] = (*self._aliases.get(alias.source, ()), alias.target)

    def circle(self) -> tuple[str, ...]:
        """The addresses of a circle, its first again at the end; () where there is none. `deepest` is known then."""
        height: dict[str, int] = {}
        for source in self._aliases:
            start = self._canonical(_ANYBODY + source if source.startswith("@") else source)
            if start not in height and (found := self._circle_from(start, height)):
                return found
        self.deepest = max(height.values(), default=0)
        return ()

    def closing(self, circle: tuple[str, ...]) -> tuple[str, str]:
        """The row (source, target) that closes a circle."""
        step = self._step(circle[-2])
        whole = [self._canonical(target) for target in step.targets]
        kept = self._aliases[step.source]
        return step.source, kept[whole.index(circle[-1])]

    def _circle_from(self, start: str, height: dict[str, int]) -> tuple[str, ...]:
        # Depth first, with a stack of our own: a chain of a thousand aliases is not ours to recurse into.
        steps: dict[str, tuple[_Step, Iterator[str]]] = {}
        self._enter(start, steps)
        while steps:
            address, (step, targets) = next(reversed(steps.items()))
            for target in targets:
                if target in steps:
                    if not steps[target][0].ends:
                        way = list(steps)
                        return (*way[way.index(target) :], target)
                elif target not in height:
                    self._enter(target, steps)
                    break
            else:
                del steps[address]
                below = [height.get(self._canonical(target), 0) for target in step.targets]
                height[address] = 1 + max(below) if below else 0
        return ()

    def _enter(self, address: str, steps: dict[str, tuple[_Step, Iterator[str]]]) -> None:
        step = self._step(address)
        steps[address] = step, iter([self._canonical(target) for target in step.targets])

    def arrives(self, target: str) -> bool:
        """Whether mail for `target`, an address or `@domain` that keeps the part before @, has an end anywhere."""
        waiting, seen = [self._canonical(_ANYBODY + target if target.startswith("@") else target)], set[str]()
        while waiting:
            address = waiting.pop()
            if address not in seen:
                seen.add(address)
                step = self._step(address)
                if step.ends:
                    return True
                waiting += [self._canonical(each) for each in step.targets]
        return False

    def leading_to(self, account: str) -> list[tuple[str, str]]:
        """The rows (source, target) whose target means `account`: its address, also with a tag or by a domain alias."""
        found = []
        for source, targets in self._aliases.items():
            for target in targets:
                meant = self._canonical(target)
                if meant == account or (_untagged(meant) == account and meant not in self._aliases):
                    found.append((source, target))
        return sorted(found)

    def _canonical(self, address: str) -> str:
        local, _, domain = address.rpartition("@")
        real = self._domains.get(domain, "")
        return f"{local}@{real}" if real else address

    def _step(self, address: str) -> _Step:
        """What answers for a canonical address, in the order of `policy/routes.py`."""
        local, _, domain = address.rpartition("@")
        if domain not in self._domains:
            return _Step(ends=True)
        for name in dict.fromkeys((address, _untagged(address))):
            if targets := self._aliases.get(name):
                return _Step(name, targets, name in self._accounts)
            if name in self._accounts:
                return _Step(ends=True)
        if local in ROLES:
            return _Step(ends=True)  # the administrator answers for these before a catch-all does
        if targets := self._aliases.get(f"@{domain}"):
            return _Step(f"@{domain}", tuple(local + each if each.startswith("@") else each for each in targets))
        return _Step(ends=local == _ANYBODY)


def _untagged(address: str) -> str:
    local, _, domain = address.rpartition("@")
    user = local.partition("+")[0]
    return f"{user}@{domain}" if user else address


def check_arrives(database: Database, target: str) -> None:
    """Raises NotFound where nobody is at `target`."""
    if not Routes(database).arrives(target):
        raise NotFound(f"{target} is neither an account nor an alias here")


@contextlib.contextmanager
def no_new_circle(database: Database, what: str) -> Iterator[None]:
    """Raises Refused where what is done inside leaves a circle; `what` is the change. One that was there before (of a
    directory older than this check) is no reason to refuse everything else."""
    before = Routes(database).circle()
    yield
    routes = Routes(database)
    if (found := routes.circle()) and not before:
        way = " → ".join(address.replace(_ANYBODY, "") for address in found)
        raise Refused(f"{what} would send mail round in a circle: {way}")
    if not found and routes.deepest > MAX_DEPTH:
        raise Refused(f"{what} would lead through more than {MAX_DEPTH} aliases, one behind the other")
