"""Sender Rewriting Scheme: a forwarded message gets an envelope sender of ours that leads back to the first one.

Without it a forward fails SPF at its destination, since we send in another domain's name. smtp-in encodes before it
hands a forward to smtp-out, and decodes when a bounce comes to such an address; nothing is stored. Pure: secret and
time are passed in.

    SRS0=HASH=DAY=domain=local@ours         someone@domain, forwarded by us
    SRS1=HASH=first==rest@ours              an SRS0 of the domain `first`, forwarded on by us: bounces go straight there

After "The Sender Rewriting Scheme" (Meng Weng Wong, Shevek, 2004), as libsrs2 and postsrsd write it. The hash makes
sure that only what we encoded is decoded, else anybody could send anywhere through us; the day ends that after three
weeks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

# Bounces come within 5 days, the time that queues try; three weeks covers slow and repeated ones.
VALID_DAYS = 21
AHEAD_DAYS = 1
# 35 bits in base 32: found by guessing after 17 thousand million tries, each of them a visible refusal.
HASH_CHARACTERS = 7
_DAYS = 1024  # two base-32 digits
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
# RFC 5321 §4.5.3.1.1. Longer ones are refused by some servers, ours among them.
MAX_LOCAL = 64

_SRS0 = re.compile(r"SRS0[=+-]([^=]+)=([a-z2-7]{2})=([^=]+)=(.+)", re.IGNORECASE | re.DOTALL)
_SRS1 = re.compile(r"SRS1[=+-]([^=]+)=([^=]+)=([=+-].+)", re.IGNORECASE | re.DOTALL)


class NotOurs(ValueError):
    """An SRS address that we did not make, or too long ago."""


class TooLong(ValueError):
    """The sender does not fit; the caller takes an address of its own instead."""


def is_srs(address: str) -> bool:
    """Whether the local part has the form; only then `decode` is worth calling."""
    return bool(re.match(r"SRS[01][=+-]", address, re.IGNORECASE))


def encode(sender: str, ours: str, secret: bytes, now: float) -> str:
    """The envelope sender under which mail of `sender` is forwarded; `ours` is the domain bounces come to.

    The null sender stays null: a bounce of a bounce goes nowhere. Raises TooLong, and ValueError for no address.
    """
    if not sender:
        return ""
    local, at, domain = sender.rpartition("@")
    if not at:
        raise ValueError(f"{sender!r} is not an address")
    if domain.lower() == ours.lower():
        return sender
    if found := _SRS1.fullmatch(local):
        rest = f"{found[2]}={found[3]}"
        made = f"SRS1={_hash(secret, rest)}={rest}"
    elif _SRS0.fullmatch(local):
        rest = f"{domain}={local[4:]}"
        made = f"SRS1={_hash(secret, rest)}={rest}"
    else:
        day = _day_text(_day(now))
        made = f"SRS0={_hash(secret, day, domain, local)}={day}={domain}={local}"
    if len(made) > MAX_LOCAL:
        raise TooLong(f"{sender} is too long to be rewritten")
    return f"{made}@{ours}"


def decode(address: str, secret: bytes, now: float) -> str:
    """Where a bounce to `address` goes. Raises NotOurs."""
    local = address.rpartition("@")[0]
    if found := _SRS1.fullmatch(local):
        rest = f"{found[2]}={found[3]}"
        if not _same(found[1], _hash(secret, rest)):
            raise NotOurs("an SRS1 address that we did not make")
        return f"SRS0{found[3]}@{found[2]}"
    found = _SRS0.fullmatch(local)
    if found is None:
        raise NotOurs("not an SRS address")
    given, day, domain, first = found.groups()
    if not _same(given, _hash(secret, day.lower(), domain, first)):
        raise NotOurs("an SRS0 address that we did not make")
    made = _ALPHABET.index(day[0].lower()) * 32 + _ALPHABET.index(day[1].lower())
    # A clock that was a day ahead when we encoded and is right now must not cost a bounce.
    if (_day(now) + AHEAD_DAYS - made) % _DAYS > VALID_DAYS + AHEAD_DAYS:
        raise NotOurs("an SRS0 address made more than three weeks ago")
    return f"{first}@{domain}"


def _day(now: float) -> int:
    return int(now // 86_400) % _DAYS


def _day_text(day: int) -> str:
    return _ALPHABET[day // 32] + _ALPHABET[day % 32]


def _hash(secret: bytes, *parts: str) -> str:
    # Some servers change the case of local parts: what is hashed has none.
    mac = hmac.new(secret, "=".join(parts).lower().encode("utf-8", "surrogatepass"), hashlib.sha256)
    return base64.b32encode(mac.digest())[:HASH_CHARACTERS].decode().lower()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.lower().encode("utf-8", "surrogatepass"), expected.encode())
