"""The `bh=` of DKIM signatures, computed while the body streams by.

What it is: `BodyHash`, SHA-256 over the relaxed form of a body, for signing; `BodyHashes`, all that a message's
signatures ask for in one pass, for verifying. Fed in chunks of any size.
Called by smtp-out while a submitted message goes to the spool, so that the `dkim` room signs without ever seeing the
body: 44 characters cross the network instead of 50 MB; and by smtp-in for what comes in. Memory stays at one chunk
whatever the body holds. Never looks at headers, never keeps a byte it has hashed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from services.message.canonical import CanonicalBody, Form, Sink

__all__ = ["BodyForm", "BodyHash", "BodyHashes"]


class BodyHash:
    """SHA-256 of a body in relaxed canonical form (RFC 6376 §3.4.4); it does not depend on where chunks are cut."""

    __slots__ = ("_body", "_sha256")

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._body = CanonicalBody("relaxed", self._sha256.update)

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the body, in order."""
        self._body.update(chunk)

    def digest(self) -> str:
        """The value for `bh=`, base64. May be asked at any time; more chunks may follow."""
        final = self._sha256.copy()
        self._body.finish(final.update)
        return base64.b64encode(final.digest()).decode("ascii")


@dataclass(frozen=True, slots=True)
class BodyForm:
    """What of a body a signature covers: the canonical form (c=) and how many of its octets (l=; None: all)."""

    form: Form
    length: int | None = None


class _Prefix:
    """SHA-256 of the first `length` octets that come."""

    __slots__ = ("left", "sha256")

    def __init__(self, length: int) -> None:
        self.left = length
        self.sha256 = hashlib.sha256()

    def update(self, data: bytes) -> None:
        if self.left:
            self.sha256.update(data[: self.left])
            self.left -= min(self.left, len(data))


class BodyHashes:
    """The hashes of one body in several forms, in one pass. The caller bounds how many there are."""

    __slots__ = ("_bodies", "_prefixes", "_whole")

    def __init__(self, forms: Iterable[BodyForm]) -> None:
        """`forms`: see `dkim_verify.wanted_bodies`."""
        wanted = frozenset(forms)
        self._whole = {form: hashlib.sha256() for form in wanted if form.length is None}
        self._prefixes = {form: _Prefix(form.length) for form in wanted if form.length is not None}
        self._bodies: list[tuple[CanonicalBody, Sink]] = []
        names: tuple[Form, ...] = ("simple", "relaxed")
        for name in names:
            takers: list[Sink] = [taker.update for form, taker in self._whole.items() if form.form == name]
            takers += [taker.update for form, taker in self._prefixes.items() if form.form == name]
            if takers:
                sink = takers[0] if len(takers) == 1 else _to_all(takers)
                self._bodies.append((CanonicalBody(name, sink), sink))

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the body, in order."""
        for body, _ in self._bodies:
            body.update(chunk)

    def digests(self) -> dict[BodyForm, bytes]:
        """The hashes, once the body is whole; b"" for a form that wants more octets than there are."""
        for body, sink in self._bodies:
            body.finish(sink)
        digests = {form: taker.digest() for form, taker in self._whole.items()}
        for form, prefix in self._prefixes.items():
            # RFC 6376 §3.5: l= "MUST NOT be larger than the actual number of octets in the canonicalized message body".
            digests[form] = b"" if prefix.left else prefix.sha256.digest()
        return digests


def _to_all(takers: list[Sink]) -> Sink:
    def give(data: bytes) -> None:
        for take in takers:
            take(data)

    return give
