"""The Sieve scripts of one account: kept by name, at most one active. What ManageSieve (RFC 5804) asks of a store.

Used by account; the imap room's page of it is `imap/rules.py`, which has checked a script before it is put here and
publishes the active one for smtp-in. Every change is durable before the call returns.

A Maildir that comes from docker-mailserver or another Dovecot has its scripts beside its mail: `before_us` reads them,
so that people move in with their rules. The files stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from services.storage.errors import (
    BadName,
    LimitReached,
    MailboxMissing,
    OverQuota,
    ScriptActive,
    ScriptExists,
    ScriptMissing,
)
from services.storage.folder import Opened
from services.storage.paths import FOLDER, open_message, walk
from services.storage.state import ScriptRow

# A person has one or two, and a client keeps some old ones.
MOST_SCRIPTS = 30
# `policy/sieve` reads no longer ones.
MOST_OCTETS = 128 * 1024
# RFC 5804 §1.6: at least 128 characters of UTF-8 in NFC, without control characters and line separators.
_LONGEST_NAME = 128
_FORBIDDEN = re.compile("[/\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Dovecot's home of an account is its Maildir, or `home` in it (docker-mailserver since version 13).
_HOMES = ((), ("home",))
ACTIVE_FILE, FOLDER_NAME, SUFFIX = ".dovecot.sieve", "sieve", ".sieve"
_LINK = re.compile(r"(?:.*/)?sieve/([^/]+)\.sieve")
TAKEN_NAME = "dovecot"


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """A script of the server before us."""

    name: str
    content: bytes
    active: bool


def script_name(name: str) -> str:
    """The one spelling of a script's name. Raises BadName."""
    if not name.isascii():
        import unicodedata  # a MiB; only names outside ASCII need it

        name = unicodedata.normalize("NFC", name)
    if not name or len(name) > _LONGEST_NAME or _FORBIDDEN.search(name):
        raise BadName("a script's name has 1 to 128 characters, none of them a slash or a control character")
    return name


class Scripts:
    """Of an open account; for one thread at a time, as the store is."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._state = opened.state

    def all(self) -> list[ScriptRow]:
        """By name."""
        return self._state.scripts()

    def active(self) -> bytes | None:
        """The content of the active one."""
        name = next((row.name for row in self._state.scripts() if row.active), None)
        return None if name is None else self._state.script(name)

    def get(self, name: str) -> bytes:
        """A script's content. Raises ScriptMissing, BadName."""
        content = self._state.script(script_name(name))
        if content is None:
            raise ScriptMissing(name)
        return content

    def put(self, name: str, content: bytes) -> None:
        """Add or replace; one that is active stays so. Raises BadName, OverQuota (size), LimitReached (number)."""
        name = script_name(name)
        if len(content) > MOST_OCTETS:
            raise OverQuota(f"a script has at most {MOST_OCTETS} octets")
        names = {row.name for row in self._state.scripts()}
        if name not in names and len(names) >= MOST_SCRIPTS:
            raise LimitReached(f"an account has at most {MOST_SCRIPTS} scripts")
        with self._state.transaction(durable=True):
            self._state.put_script(name, content, int(self._opened.clock()))

    def delete(self, name: str) -> None:
        """RFC 5804 §2.10: not the active one. Raises ScriptMissing, ScriptActive, BadName."""
        if self._row(name).active:
            raise ScriptActive("the active script cannot be deleted")
        with self._state.transaction(durable=True):
            self._state.remove_script(script_name(name))

    def rename(self, old: str, new: str) -> None:
        """RFC 5804 §2.11.1. Raises ScriptMissing, ScriptExists, BadName."""
        row, new = self._row(old), script_name(new)
        if new == row.name:
            return
        if self._state.script(new) is not None:
            raise ScriptExists(new)
        with self._state.transaction(durable=True):
            self._state.rename_script(row.name, new)

    def activate(self, name: str) -> None:
        """RFC 5804 §2.8; "" makes none active. Raises ScriptMissing, BadName."""
        wanted = self._row(name).name if name else ""
        with self._state.transaction(durable=True):
            self._state.activate_script(wanted)

    def _row(self, name: str) -> ScriptRow:
        name = script_name(name)
        for row in self._state.scripts():
            if row.name == name:
                return row
        raise ScriptMissing(name)

    # --- moving in

    def before_us(self) -> list[ScriptFile] | None:
        """The files of the server before us, where nobody looked for them yet; None where somebody did.

        Call `taken_in` when they are dealt with: a crash before it looks for them again.
        """
        if self._state.looked_for_scripts():
            return None
        return list(_files(self._opened.root)) if not self._state.scripts() else []

    def taken_in(self) -> None:
        """They were looked for."""
        with self._state.transaction(durable=True):
            self._state.looked_for_scripts(now_done=True)


def _files(root: int) -> Iterator[ScriptFile]:
    for parts in _HOMES:
        try:
            home = walk(root, *parts, last=FOLDER) if parts else os.dup(root)
        except (MailboxMissing, OSError):
            continue
        try:
            found = list(_in_home(home))
        finally:
            os.close(home)
        if found:
            yield from found
            return


def _in_home(home: int) -> Iterator[ScriptFile]:
    """`.dovecot.sieve`, a file or a link to one of `sieve/*.sieve`; a link anywhere else is not followed."""
    linked = ""
    with contextlib.suppress(OSError):
        if match := _LINK.fullmatch(os.readlink(ACTIVE_FILE, dir_fd=home)):
            linked = match[1]
    content = _content(ACTIVE_FILE, home)
    if content is not None:
        yield ScriptFile(TAKEN_NAME, content, True)
    try:
        folder = walk(home, FOLDER_NAME, last=FOLDER)
    except (MailboxMissing, OSError):
        return
    try:
        names = sorted(name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))
        for name in names[: MOST_SCRIPTS - 1]:
            content = _content(name + SUFFIX, folder)
            with contextlib.suppress(BadName):
                if content is not None and (name := script_name(name)) != TAKEN_NAME:
                    yield ScriptFile(name, content, name == linked)
    finally:
        os.close(folder)


def _content(name: str, folder: int) -> bytes | None:
    """A file's octets; None where it is not there, is no file, or is no script by its size."""
    try:
        descriptor = open_message(name, folder)
    except OSError:
        return None
    try:
        content = os.pread(descriptor, MOST_OCTETS + 1, 0)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content if 0 < len(content) <= MOST_OCTETS else None
