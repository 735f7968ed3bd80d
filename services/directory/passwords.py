"""Passwords: argon2id hashes, checked off the loop.

Parameters are OWASP's second choice (19 MiB, two passes, one lane): 13 ms on one core, and nothing a household's box
cannot spend twice at once. Two checks run at a time, in threads (argon2 releases the interpreter's lock); the rest
wait, and beyond a bound are told that the server is busy, so that a guesser can neither take the memory nor the loop.

A success is remembered for five minutes under a keyed HMAC of name, hash and password: mail clients log in every few
minutes on several connections. The key lives in this process only; a changed password has another hash and misses.
An unknown name costs the same work as a known one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MEMORY_KIB, PASSES, LANES = 19_456, 2, 1
AT_ONCE = 2
MOST_WAITING = 200  # at 13-40 ms each about three seconds of waiting, which mail clients bear
REMEMBER_SECONDS = 300.0
MOST_REMEMBERED = 4096
LONGEST = 1024  # octets; a longer one is not a password, and hashing it is work given away
SHORTEST = 8  # NIST SP 800-63B §5.1.1.2

# The hash of a password that nobody has: checked against for unknown names, so that they take as long as known ones.
NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$6Y8nwDnNGUHftkCXyBd5lw$KndVsG6WXYug9gFbFi3+1Aiz78KIhuWPyNxWAQoPjTk"


class Busy(Exception):
    """Too many passwords are waiting to be checked. Temporary: answer 454 4.7.0 or NO [UNAVAILABLE]."""


class WeakPassword(ValueError):
    """A password that is not accepted; the text says why."""


def prepare(password: str) -> bytes:
    """The octets that are hashed: RFC 8265 §4.2 (OpaqueString), so that an é typed in two ways is one password."""
    if password.isascii():
        return password.encode()
    spaces = "".join(" " if unicodedata.category(character) == "Zs" else character for character in password)
    return unicodedata.normalize("NFC", spaces).encode("utf-8", "surrogatepass")


def check_strength(password: str, address: str = "") -> None:
    """Raise WeakPassword for what must not become a password."""
    octets = prepare(password)
    if len(password) < SHORTEST:
        raise WeakPassword(f"the password is shorter than {SHORTEST} characters")
    if len(octets) > LONGEST:
        raise WeakPassword(f"the password is longer than {LONGEST} bytes")
    if any(unicodedata.category(character) == "Cc" for character in password):
        raise WeakPassword("the password has a control character (a line break, a tab), which mail clients cannot type")
    if address and password.lower() in {address, address.partition("@")[0]}:
        raise WeakPassword("the password is the address")


def hash_password(password: str) -> str:
    """An argon2id hash in PHC form. Takes 13-40 ms: call it in a thread."""
    return str(_hasher().hash(prepare(password)))


def needs_rehash(password_hash: str) -> bool:
    """True where `password_hash` was made with other parameters than ours; also for what is no argon2 hash."""
    parameters = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$"
    return not password_hash.startswith(parameters)


class Passwords:
    """Checks passwords; one per process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds; tests move it."""
        self._clock = clock
        self._key = os.urandom(32)
        self._known: dict[bytes, float] = {}
        self._running: dict[bytes, asyncio.Task[bool]] = {}
        self._threads: ThreadPoolExecutor | None = None

    async def verify(self, login_key: str, password: str, password_hash: str | None) -> bool:
        """Whether `password` is the one that `password_hash` was made of. Raises Busy.

        `login_key` names whom is asked for, in one spelling (the account's address; for an unknown name, that name).
        `password_hash` None or "" (unknown name, disabled account) takes as long and is False.
        """
        octets = prepare(password)
        if len(octets) > LONGEST:
            octets, password_hash = b"", None
        token = self._token(login_key, octets, password_hash or "")
        if password_hash and self._known.get(token, 0.0) > self._clock():
            return True
        # Five connections of one client that open at once are one check.
        task = self._running.get(token)
        if task is None:
            if len(self._running) >= MOST_WAITING:
                raise Busy("too many log-ins are being checked; try again in a few seconds")
            task = asyncio.create_task(self._check(token, octets, password_hash or ""))
            self._running[token] = task
            task.add_done_callback(lambda _: self._running.pop(token, None))
        return await asyncio.shield(task)

    async def hash(self, password: str) -> str:
        """`hash_password` in the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool(), hash_password, password)

    def forget(self) -> None:
        """Drop all remembered successes."""
        self._known.clear()

    def close(self) -> None:
        """Let the threads end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _check(self, token: bytes, octets: bytes, password_hash: str) -> bool:
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._pool(), _verify, octets, password_hash)
        if right:
            self._remember(token)
        return right

    def _remember(self, token: bytes) -> None:
        now = self._clock()
        if len(self._known) >= MOST_REMEMBERED:
            self._known = {known: until for known, until in self._known.items() if until > now}
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
        self._known[token] = now + REMEMBER_SECONDS

    def _token(self, login_key: str, octets: bytes, password_hash: str) -> bytes:
        mac = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (login_key.encode("utf-8", "surrogatepass"), password_hash.encode(), octets):
            mac.update(len(part).to_bytes(4, "big") + part)
        return mac.digest()

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
        return self._threads


def _verify(octets: bytes, password_hash: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        right = bool(_hasher().verify(password_hash or NOBODY, octets))
    except (VerificationError, InvalidHashError):
        return False
    return right and bool(password_hash)


_made: Any = None


def _hasher() -> Any:
    # argon2 with cffi is half a MiB that a room without log-ins never needs.
    global _made
    if _made is None:
        from argon2 import PasswordHasher

        _give_back_large_blocks()
        _made = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
    return _made


def _give_back_large_blocks() -> None:
    """Keep glibc from hoarding the 19 MiB blocks.

    It raises its mmap threshold to the largest block freed so far, so that the second check comes from the heap and
    stays there: 39 MiB a process that has ever checked two passwords (measured). A fixed threshold returns each block
    to the kernel; a check costs 5 ms more for the page faults.
    """
    import ctypes

    threshold = -3  # M_MMAP_THRESHOLD in glibc's malloc.h; musl has no mallopt and no such habit
    try:
        ctypes.CDLL(None).mallopt(threshold, 1 << 20)
    except (OSError, AttributeError):
        pass
