"""Secrets that two rooms share: a file per pair, made at first start, never committed.

A room sees only the folder with the pairs it belongs to. `srs` is smtp-in's own: it signs rewritten forward senders.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable

PAIRS: tuple[tuple[str, str], ...] = (
    ("imap", "smtp-in"),
    ("smtp-in", "smtp-out"),
    ("dkim", "smtp-out"),
    ("admin", "smtp-in"),
    ("admin", "smtp-out"),
    ("admin", "imap"),
    ("admin", "dkim"),
    ("acme", "admin"),
    ("admin", "updater"),
    ("docker-filter", "updater"),
)
OWN: tuple[tuple[str, str], ...] = (("smtp-in", "srs"),)


class SecretMissing(LookupError):
    """This room has no secret with that peer."""


def pair_name(one: str, other: str) -> str:
    """The file name for two rooms: sorted, joined by a plus."""
    return "+".join(sorted((one, other)))


def names_for(room: str) -> list[str]:
    """The secret files that `room` must have."""
    return [pair_name(*pair) for pair in PAIRS if room in pair] + [name for owner, name in OWN if owner == room]


def every_name() -> list[str]:
    """All secret files of a stack."""
    return [pair_name(*pair) for pair in PAIRS] + [name for _, name in OWN]


def make(folder: str, names: Iterable[str]) -> list[str]:
    """Make the missing secrets in `folder` (0600, 256 random bits, hexadecimal); returns the names that were made."""
    made = []
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in names:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            continue
        partial = path + ".new"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)  # never an empty secret after a power cut
        made.append(name)
    if made:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return made


class Secrets:
    """Reads the secrets of one room; each is read once."""

    def __init__(self, folder: str) -> None:
        """`folder` holds one file per pair."""
        self._folder = folder
        self._known: dict[str, str] = {}

    def pair(self, one: str, other: str) -> str:
        """The secret that two rooms share; raises SecretMissing."""
        return self.own(pair_name(one, other))

    def own(self, name: str) -> str:
        """The secret in the file `name`; raises SecretMissing."""
        if name not in self._known:
            try:
                with open(os.path.join(self._folder, name), encoding="ascii") as file:
                    text = file.read().strip()
            except OSError as error:
                raise SecretMissing(f"no secret {name} in {self._folder}: {error.strerror}") from None
            if len(text) < 32:
                raise SecretMissing(f"the secret {name} in {self._folder} is too short to be one")
            self._known[name] = text
        return self._known[name]
