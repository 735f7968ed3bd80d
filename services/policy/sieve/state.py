"""What a running script knows and has set: variables, match variables, flags, the work left; and its world.

Made by `run`, used by `tests`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from services.policy.sieve import dates
from services.policy.sieve.mail import Mail
from services.policy.sieve.match import Work
from services.policy.sieve.values import Template, Test, Variable

# RFC 5229 §6 asks for 128 variables of 4000 octets at least.
MAX_VARIABLES = 128
MAX_VARIABLE = 4_000
# A text in which variables stand: many of them, each of its greatest length.
MAX_TEXT = 128 * 1024
# What an octet of it costs of the budget: it is made, and perhaps taken apart as flags or quoted.
_EXPANDED = 16


class RunError(Exception):
    """The script cannot go on; `at` is where in it."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(text)
        self.at, self.text = at, text


def _no_mailbox(name: str) -> bool:
    return False


def _no_use(attribute: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class World:
    """What a script may ask: the time, in the zone that dates are shown in by default; mailboxes of the account.

    `mailbox_exists` takes a name, `special_use` an attribute (`\\\\Junk`) and gives the mailbox that has it, or "".
    """

    now: datetime
    mailbox_exists: Callable[[str], bool] = _no_mailbox
    special_use: Callable[[str], str] = _no_use


@dataclass(slots=True)
class State:
    """Of one run."""

    mail: Mail
    world: World
    work: Work
    variables: dict[bytes, bytes] = field(default_factory=dict)
    matched: tuple[bytes, ...] = ()
    internal_flags: bytes = b""

    def string(self, value: object) -> bytes:
        """One text with its variables; RFC 5229 §3: those that were never set are empty."""
        if isinstance(value, Template):
            parts = [self._variable(part) if isinstance(part, Variable) else part for part in value.parts]
            octets = sum(len(part) for part in parts)
            self.work.spend(octets * _EXPANDED)
            if octets > MAX_TEXT:
                raise RunError(-1, f"a text with its variables is longer than {MAX_TEXT} octets")
            return b"".join(parts)
        assert isinstance(value, bytes)
        return value

    def strings(self, value: object) -> tuple[bytes, ...]:
        """A string or list, each as `string`."""
        if isinstance(value, tuple):
            return tuple(self.string(each) for each in value)
        return (self.string(value),)

    def _variable(self, variable: Variable) -> bytes:
        if isinstance(variable.name, int):
            return self.matched[variable.name] if variable.name < len(self.matched) else b""
        return self.variables.get(variable.name, b"")

    def assign(self, at: int, name: bytes, value: bytes) -> None:
        """Set a variable, cut to its greatest length between two characters (RFC 5229 §6)."""
        name = name.lower()
        if name not in self.variables and len(self.variables) >= MAX_VARIABLES:
            raise RunError(at, f"there are more than {MAX_VARIABLES} variables")
        if len(value) > MAX_VARIABLE:
            end = MAX_VARIABLE
            while end > MAX_VARIABLE - 4 and value[end] & 0xC0 == 0x80:
                end -= 1
            value = value[:end]
        self.variables[name] = value

    def flags(self, name: bytes | None) -> bytes:
        """A variable that holds flags; None is the internal one (RFC 5232 §2)."""
        return self.internal_flags if name is None else self.variables.get(name.lower(), b"")

    def zone(self, test: Test) -> timezone:
        """RFC 5260 §4.1: the zone asked for, or the server's."""
        asked = test.tags.get("zone")
        if asked is None:
            offset = self.world.now.utcoffset()
            assert offset is not None, "the world's time has a zone"
            return timezone(offset)
        found = dates.offset(self.string(asked))
        if found is None:
            raise RunError(test.at, "a zone that is no offset")
        return found
