"""Reads the environment into `Settings`: the only module that does.

The start process of a room (`process.start`) imports this, then executes the room with plain values, so that pydantic
is gone from memory before the first connection. A wrong value ends the start with one line that names the variable,
its value and what is allowed; an unknown variable is named with its nearest known one.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, ValidationError, create_model
from pydantic_settings import BaseSettings

from services.runtime.values import TRUTH_PATTERN, Setting, Settings, WrongSetting, defaults, described

# What a container or shell has of its own; anything else that is not a setting was meant as one and misspelt.
FOREIGN = re.compile(
    r"PATH|HOME|HOSTNAME|USER|LOGNAME|SHELL|SHLVL|PWD|OLDPWD|TERM|TZ|LANG|LANGUAGE|LC_\w+|_|container|DEBIAN_FRONTEND"
    r"|(PYTHON|PIP|SSL_CERT_(FILE|DIR)|MAILSTEAD_|COMPOSE_|DOCKER_|GPG_)\w*|\w+_PROXY|\w+_proxy"
)
# Variables that Compose and the scripts read, not a room: ports, owners, whose releases are taken.
COMPOSE_ONLY = frozenset(
    {
        *("SMTP_PORT", "SUBMISSIONS_PORT", "SUBMISSION_PORT", "IMAP_PORT", "IMAPS_PORT", "HTTP_PORT", "HTTPS_PORT"),
        *("PROXY_PORT", "PROXY_BIND"),
        *("ADMIN_PORT", "BIND_ADDRESS", "MAIL_UID", "MAIL_GID", "LETSENCRYPT_DIR", "NETWORK_MODE"),
        "RELEASE_SIGNERS",
    }
)


def read(environment: Mapping[str, str]) -> Settings:
    """Validate `environment` (names in capitals).

    An empty value counts as not set, as env files with `NAME=` mean it. Raises WrongSetting with one line for the
    first wrong variable.
    """
    given = {name.lower(): value.strip() for name, value in environment.items() if value.strip()}
    known = described()
    chosen = {name: value for name, value in given.items() if name in known}
    try:
        values = _model().model_validate(chosen).model_dump()
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise WrongSetting(_complaint(name, chosen.get(name, ""), known[name])) from None
    for name, value in chosen.items():
        _check_text(name, value, known[name])
    return Settings(**values)


def read_environment() -> Settings:
    """`read` of this process's environment."""
    return read(os.environ)


def from_files(folder: str) -> tuple[dict[str, str], list[str]]:
    """The variables of `<folder>/*.env` under those of this process, and a line for each unknown one in a file.

    The files have Docker's form: `NAME=value` to the end of the line, `#` opens a comment line, no quoting.
    """
    values: dict[str, str] = {}
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".env"))
    except FileNotFoundError:
        names = []
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for line in file:
                variable, separator, value = line.strip().partition("=")
                if separator and not variable.startswith("#"):
                    values[variable.strip()] = value.strip()
    return {**values, **os.environ}, unknown(values)


def search_path() -> str:
    """PATH, for the room process that is executed with an environment of its own."""
    return os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")


def unknown(names: Iterable[str]) -> list[str]:
    """One line per variable that looks meant for us but is not a setting, with the nearest known name."""
    known = [name.upper() for name in described()] + sorted(COMPOSE_ONLY)
    lines = []
    for name in sorted(names):
        if name in known or FOREIGN.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        lines.append(f"unknown variable {name} is ignored" + (f": did you mean {near[0]}?" if near else ""))
    return lines


def unknown_in_environment() -> list[str]:
    """`unknown` of this process's environment."""
    return unknown(os.environ)


def _model() -> type[BaseSettings]:
    """A pydantic-settings model with the fields, types and numeric limits of `Settings`."""
    fields: dict[str, Any] = {}
    for name, default in defaults().items():
        setting = described()[name]
        kind = type(default)
        fields[name] = (kind, Field(default, ge=setting.least, le=setting.most) if kind is int else Field(default))
    model: type[BaseSettings] = create_model("EnvironmentSettings", __base__=BaseSettings, **fields)
    return model


def _check_text(name: str, value: str, setting: Setting) -> None:
    if setting.choices and value not in setting.choices:
        raise WrongSetting(_complaint(name, value, setting))
    if setting.pattern and not re.fullmatch(setting.pattern, value, re.IGNORECASE):
        raise WrongSetting(_complaint(name, value, setting))


def _complaint(name: str, value: str, setting: Setting) -> str:
    shown = "(hidden)" if setting.secret else repr(value)
    where = f" (env/{setting.file}.env)" if setting.file else ""
    return f"{name.upper()}={shown}{where} is not allowed: {_allowed(name, setting)}"


def _allowed(name: str, setting: Setting) -> str:
    default = defaults()[name]
    if setting.choices:
        return "one of " + ", ".join(choice or "(empty)" for choice in setting.choices)
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, int):
        least = "any" if setting.least is None else str(setting.least)
        return f"a whole number from {least}" + (f" to {setting.most}" if setting.most is not None else " up")
    if setting.form:
        return setting.form
    if "@" in setting.pattern:
        return "an address such as admin@example.org"
    if setting.pattern.endswith("[0-9]{1,5}"):
        return "host:port"
    if setting.pattern == TRUTH_PATTERN:
        return "true or false"
    if "https?" in setting.pattern:
        return "a URL such as https://hooks.example.org/mail"
    if setting.pattern.startswith("|[1-9]"):
        return "a whole number from 10"
    return "a domain name such as example.org"
