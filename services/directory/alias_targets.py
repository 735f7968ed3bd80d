"""Where a new alias would lead: it must arrive, and must not go round in a circle.

Asked by `changes.py` before an alias is made. What mail does at delivery is `policy/routes.py`'s; this follows the same
order (alias, account, +tag, roles, catch-all), so that what is accepted here is delivered there.
"""

from __future__ import annotations

from services.directory.database import Database
from services.directory.errors import NotFound, Refused

# What `policy/routes.py` answers without an account: RFC 5321 §4.5.1, RFC 2142.
ROLES = frozenset({"postmaster", "abuse"})
_ANYBODY = "\0"  # stands for any local part while a domain alias is followed


def check_target(database: Database, source: str, target: str) -> None:
    """Follow `target` as `policy/routes.py` would: it must arrive somewhere and never come back to `source`.

    An account may be among its own alias's targets (that keeps a copy), and two accounts may copy each other: there
    the way back ends in a mailbox.
    """
    waiting, seen, arrives = [_ANYBODY + target if target.startswith("@") else target], set[str](), False
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        local, _, domain = address.rpartition("@")
        if not database.has_domain(domain):
            arrives = True
            continue
        for name in dict.fromkeys((address, f"{local.partition('+')[0]}@{domain}", f"@{domain}")):
            if name.startswith("@") and local in ROLES:
                arrives = True  # the administrator answers for these before a catch-all does
                break
            has_mailbox = database.account(name) is not None
            if name == source == f"@{domain}" and local != _ANYBODY:
                continue  # only the catch-all being made would answer for it
            if name == source and not has_mailbox:
                raise Refused(f"{source} → {target} would send mail round in a circle")
            onward = [] if name == source else database.targets(name)
            waiting += [local + each if each.startswith("@") else each for each in onward]
            arrives = arrives or (has_mailbox and not onward)
            if onward or has_mailbox:
                break
        else:
            arrives = arrives or local == _ANYBODY
    if not arrives:
        raise NotFound(f"{target} is neither an account nor an alias here")
