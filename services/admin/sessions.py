"""Who is logged in on the page: a random token in a cookie, its hash and what belongs to it here.

Kept in `admin_dir/sessions.json` (0600), so that an update of this container logs nobody out. A session ends after 12
hours without a request, after a week in any case, at a log-out, and when the account's password changes or it is
disabled (`access.py` compares the mark). The file holds no token that could be used.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

IDLE_SECONDS = 12 * 3600.0
LONGEST_SECONDS = 7 * 86_400.0
KEEP_SECONDS = 600.0  # what was used lately is written this often, not with each look at a page
STEP_SECONDS = 60.0  # what a time server moves a clock by in passing
MOST = 200  # a family has a few each; the oldest go first
COOKIE = "mailstead"


@dataclass(slots=True)
class Session:
    """One log-in. `mark` says which password it was made with; `notices` wait for the next page, in memory alone."""

    account: str
    mark: str
    opened: float
    seen: float
    secret: str
    notices: list[tuple[str, str]] = field(default_factory=list)

    @property
    def form_token(self) -> str:
        """What every form of this session carries: another site can neither read nor guess it."""
        return hmac.new(self.secret.encode(), b"form", hashlib.sha256).hexdigest()[:32]

    def is_form_token(self, given: str) -> bool:
        """True for this session's form token."""
        return hmac.compare_digest(self.form_token.encode(), given.encode("utf-8", "replace"))


class Sessions:
    """All log-ins of the page."""

    def __init__(self, path: str, *, clock: Callable[[], float] = time.time) -> None:
        """`path` is their file; a broken one is as good as none: people log in again."""
        self._path, self._clock = path, clock
        self._by_hash: dict[str, Session] = {}
        self._written = float("-inf")
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError), open(path, encoding="utf-8") as file:
            for name, kept in json.load(file).items():
                self._by_hash[name] = Session(**kept)

    def open(self, account: str, mark: str) -> str:
        """A new session; the token for the cookie."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        self._by_hash[_hash(token)] = Session(account, mark, now, now, secrets.token_hex(32))
        self._forget_ended(now)
        self._write()
        return token

    def find(self, token: str, *, used: bool = True) -> Session | None:
        """The session of this token, counted as used unless `used` is False; None where it has ended."""
        session = self._by_hash.get(_hash(token))
        now = self._clock()
        if session is None or not _lives(session, now):
            return None
        if used:
            session.seen = now
            if not 0 <= now - self._written < KEEP_SECONDS:
                self._write()
        return session

    def close(self, token: str) -> None:
        """Log out."""
        if self._by_hash.pop(_hash(token), None):
            self._write()

    def close_all_of(self, account: str) -> None:
        """Log an account out everywhere."""
        ended = [name for name, session in self._by_hash.items() if session.account == account]
        for name in ended:
            del self._by_hash[name]
        if ended:
            self._write()

    def _forget_ended(self, now: float) -> None:
        living = [(name, session) for name, session in self._by_hash.items() if _lives(session, now)]
        self._by_hash = dict(sorted(living, key=lambda pair: pair[1].seen)[-MOST:])

    def _write(self) -> None:
        # Not fsynced: after a power cut people log in again. A full disk costs the same.
        self._written = self._clock()
        names = ("account", "mark", "opened", "seen", "secret")
        kept = {name: {key: getattr(one, key) for key in names} for name, one in self._by_hash.items()}
        partial = self._path + ".new"
        with contextlib.suppress(OSError):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            os.replace(partial, self._path)


def _lives(session: Session, now: float) -> bool:
    # One from the future was opened under a wrong clock: nobody knows its age, and it must not live until then.
    idle, age = now - session.seen, now - session.opened
    return -STEP_SECONDS <= idle < IDLE_SECONDS and -STEP_SECONDS <= age < LONGEST_SECONDS


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
