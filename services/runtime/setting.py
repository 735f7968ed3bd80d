"""What a setting is: a field with its default, its reason and its limits. `values.py` has them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class WrongSetting(ValueError):
    """A variable has a value that is not allowed; the message is one line for the owner. Ends the start with 78."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one variable beside its default: where it stands, why it is so, what is allowed."""

    why: str
    file: str = ""
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    pattern: str = ""
    form: str = ""  # what a value looks like, where the pattern alone does not tell a person
    secret: bool = False


def setting(default: Any, why: str, file: str = "", **limits: Any) -> Any:
    """A field of `Settings` with its default, its reason, and its limits (the fields of `Setting`)."""
    return field(default=default, metadata={"setting": Setting(why, file, **limits)})
