"""The key files: `<dkim_dir>/<domain>/<selector>.pem`, made once, read once, never sent anywhere.

A domain has two: RSA-2048, which every verifier knows, and Ed25519, whose record fits one string. Selectors carry the
month they were made in and the kind (`ms202611r`, `ms202611e`): a later key gets a later name, so the one that sorts
last of its kind signs. RSA has 2048 bits because 4096 gain nothing against today's attacks, while their record is cut
by some DNS providers' forms and their signatures cost six times as much.

A file appears whole and durable or not at all. Between the two files of a domain a power cut may leave one; `complete`
makes the other at the next start.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.directory.addresses import InvalidName, domain_name
from services.message.dkim_signature import BadKey, SigningKey, load_key
from services.storage.atomic import fsync_folder, write_durable

RSA, ED25519 = b"rsa-sha256", b"ed25519-sha256"
KINDS = (RSA, ED25519)  # in the order they are made: RSA first, it alone is enough to sign
_LETTER = {RSA: "r", ED25519: "e"}

# What a selector may be; anything else in the folder (a writer's partial file, an editor's backup) is not a key.
_OUR_FILE = re.compile(r"ms[0-9]{6}[re]\.pem")
_KEY_FILE = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)\.pem")


class NoKey(LookupError):
    """The domain has no key of the kind asked for."""


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key with the selector it is published under."""

    selector: str
    key: SigningKey


class KeyStore:
    """The keys of all domains. Domains are given in stored form (`directory.addresses.domain_name`)."""

    def __init__(self, folder: str, clock: Callable[[], float] = time.time) -> None:
        """`folder` must exist; `clock` dates new selectors."""
        self._folder = folder
        self._clock = clock
        # domain → (the folder's mtime, keys by kind). The mtime moves when a file is added, removed or
        # replaced by rename: an imported key is seen without a restart, for 2 µs a signature; parsing costs 200.
        self._loaded: dict[str, tuple[int, dict[bytes, NamedKey]]] = {}

    def keys(self, domain: str) -> dict[bytes, NamedKey]:
        """The newest key of each kind; raises NoKey when there is none, BadKey for a file that is no key."""
        folder = os.path.join(self._folder, domain)
        try:
            changed = os.stat(folder).st_mtime_ns
        except FileNotFoundError:
            self._loaded.pop(domain, None)
            raise NoKey(f"{domain} has no DKIM key") from None
        known = self._loaded.get(domain)
        if known is None or known[0] != changed:
            known = changed, self._read(folder)
            self._loaded[domain] = known
        if not known[1]:
            raise NoKey(f"{domain} has no DKIM key")
        return known[1]

    def is_loaded(self, domain: str) -> bool:
        """True when `keys` answers from memory, unless the folder changed: no PEM to parse, nothing to import."""
        return domain in self._loaded

    def make(self, domain: str) -> list[NamedKey]:
        """Make the kinds that `domain` lacks; returns what was made. Blocks some 50 ms for RSA: call it in a thread."""
        folder = os.path.join(self._folder, domain)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        fsync_folder(self._folder)
        if self._has_both(domain):
            return []
        present = self._read(folder)
        made = []
        for kind in KINDS:
            if kind in present:
                continue
            selector = "ms" + time.strftime("%Y%m", time.gmtime(self._clock())) + _LETTER[kind]
            path = os.path.join(folder, f"{selector}.pem")
            if os.path.lexists(path):
                raise BadKey(f"{path} is in the way of a new key: it holds one of another kind")
            private = _generate(kind)
            write_durable(path, private, 0o600)
            made.append(NamedKey(selector, load_key(private)))
        # Both files may carry one mtime (the kernel ticks every 1-4 ms), and a signature may have looked between.
        self._loaded.pop(domain, None)
        return made

    def complete(self) -> list[tuple[str, NamedKey]]:
        """Make what a power cut left out in domains that have a folder; returns (domain, key) for each key made."""
        return [(domain, key) for domain in self.domains() if not self._has_both(domain) for key in self.make(domain)]

    def domains(self) -> list[str]:
        """The domains that have a folder. `lost+found` and the like are none."""
        found = []
        for entry in sorted(os.listdir(self._folder)):
            with contextlib.suppress(InvalidName):
                if domain_name(entry) == entry and os.path.isdir(os.path.join(self._folder, entry)):
                    found.append(entry)
        return found

    def _has_both(self, domain: str) -> bool:
        """By the names alone where they are ours, so that a start with a hundred domains parses no PEM."""
        files = os.listdir(os.path.join(self._folder, domain))
        if {name[-5] for name in files if _OUR_FILE.fullmatch(name)} == set(_LETTER.values()):
            return True
        return self._read(os.path.join(self._folder, domain)).keys() == set(KINDS)

    def _read(self, folder: str) -> dict[bytes, NamedKey]:
        found: dict[bytes, NamedKey] = {}
        for name in sorted(os.listdir(folder)):
            if match := _KEY_FILE.fullmatch(name):
                with open(os.path.join(folder, name), "rb") as file:
                    pem = file.read()
                try:
                    key = load_key(pem)
                except BadKey as error:
                    raise BadKey(f"{os.path.join(folder, name)}: {error}") from None
                found[key.algorithm] = NamedKey(match.group(1), key)
        return found


def _generate(kind: bytes) -> bytes:
    """A new private key in PKCS#8 PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if kind == RSA:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
