"""Public keys of DKIM: the TXT record at `selector._domainkey.domain` (RFC 6376 §3.6.1) and what it verifies.

Called by `dkim_verify` and `arc`. Reading a record never raises: a record that cannot be used has a `problem`, a
sentence for the owner's trace. Keys come from strangers: their size is bounded before anything is computed with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from services.message.tag_list import BadTagList, base64_value, tag_list

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["KeyRecord", "key_record"]

# RFC 8301 §3.2: "Verifiers MUST NOT consider signatures using RSA keys of less than 1024 bits as valid", and must be
# able to take up to 4096. Twice that is met; verifying with 8192 bits is 1 ms, with a key of 64,000 a second.
LEAST_RSA_BITS = 1024
MOST_RSA_BITS = 8192
# All keys in use have 65537 or less. An exponent as long as the modulus makes verifying as slow as signing.
MOST_EXPONENT_BITS = 64
# A record with a key of 8192 bits has 1,500 octets.
MOST_RECORD_OCTETS = 8192


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What a record says. `key` is None where `problem` tells why it cannot be used; `bits` is 0 for no RSA key."""

    kind: str = ""
    key: RSAPublicKey | Ed25519PublicKey | None = None
    bits: int = 0
    hashes: frozenset[bytes] | None = None  # None: all
    testing: bool = False  # t=y
    strict: bool = False  # t=s: i= is d= exactly, no domain below it
    problem: str = ""
    too_weak: bool = False

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` is this key's over the SHA-256 of `data`."""
        from cryptography.exceptions import InvalidSignature

        if self.key is None:
            return False
        try:
            if self.kind == "rsa":
                self.key.verify(signature, data, *_rsa_scheme())  # type: ignore[call-arg]
            else:
                import hashlib

                # RFC 8463 §3: PureEdDSA over the digest, not over the header itself.
                self.key.verify(signature, hashlib.sha256(data).digest())  # type: ignore[call-arg]
        except (InvalidSignature, ValueError):
            return False
        return True


@lru_cache(1)
def _rsa_scheme() -> tuple[Any, Any]:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    return PKCS1v15(), SHA256()


# What one sender's messages have in common is their key: 1 KB each, and a busy minute has few senders.
@lru_cache(64)
def key_record(text: bytes) -> KeyRecord | None:
    """The record in one TXT answer; None where that is no key record at all (a wildcard's SPF text, say)."""
    if len(text) > MOST_RECORD_OCTETS:
        return None
    try:
        tags = tag_list(text)
    except BadTagList as error:
        return KeyRecord(problem=f"the key record is broken: {error}") if b"p=" in text else None
    # RFC 6376 §3.6.1 v=: "RECOMMENDED, default is DKIM1. If specified, this tag MUST be set to DKIM1 and MUST be the
    # first tag in the record"; others "MUST be discarded".
    if "v" in tags and (tags["v"] != b"DKIM1" or next(iter(tags)) != "v"):
        return None
    if "p" not in tags:
        return None
    kind = tags.get("k", b"rsa").lower()
    flags = _items(tags.get("t", b""))
    record: dict[str, Any] = {
        "kind": kind.decode("ascii", "replace"),
        "hashes": _items(tags["h"]) if "h" in tags else None,
        "testing": b"y" in flags,
        "strict": b"s" in flags,
    }
    if not (services := _items(tags.get("s", b"*"))) & {b"*", b"email"}:
        # RFC 6376 §3.6.1 s=: keys that are for other services are none for us.
        what = b":".join(sorted(services)).decode("ascii", "replace")[:40]
        return KeyRecord(**record, problem=f"the key is not for mail (s={what})")
    if not tags["p"]:
        return KeyRecord(**record, problem="the key is revoked (empty p=)")
    encoded = base64_value(tags["p"])
    if encoded is None:
        return KeyRecord(**record, problem="the key record is broken: p= is no base64")
    if kind == b"rsa":
        return _rsa(encoded, record)
    if kind == b"ed25519":
        return _ed25519(encoded, record)
    # RFC 6376 §3.6.1 k=: unknown types "MUST be ignored".
    return KeyRecord(**record, problem=f"the key is of a kind that nobody knows (k={record['kind'][:20]})")


def _items(text: bytes) -> frozenset[bytes]:
    """A colon-separated list; what is unknown in it stays and matches nothing."""
    return frozenset(item.strip(b" \t\r\n").lower() for item in text.split(b":"))


def _rsa(encoded: bytes, record: dict[str, Any]) -> KeyRecord:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        # Takes a SubjectPublicKeyInfo, which everybody publishes, and the bare RSAPublicKey of RFC 8017 §A.1.1, which
        # RFC 6376 §3.6.1 asks for.
        key = load_der_public_key(encoded)
    except (ValueError, UnsupportedAlgorithm):
        return KeyRecord(**record, problem="the key record is broken: p= is no RSA key")
    if not isinstance(key, RSAPublicKey):
        return KeyRecord(**record, problem="the key record is broken: p= is no RSA key")
    bits = key.key_size
    if bits < LEAST_RSA_BITS:
        problem = f"the RSA key has {bits} bits; below {LEAST_RSA_BITS} anybody can make signatures"
        return KeyRecord(**record, bits=bits, problem=problem, too_weak=True)
    if bits > MOST_RSA_BITS or key.public_numbers().e.bit_length() > MOST_EXPONENT_BITS:
        return KeyRecord(**record, bits=bits, problem=f"the RSA key of {bits} bits is too large to be computed with")
    return KeyRecord(**record, key=key, bits=bits)


def _ed25519(encoded: bytes, record: dict[str, Any]) -> KeyRecord:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    # RFC 8463 §4: the 32 octets of the key alone, not in ASN.1.
    if len(encoded) != 32:
        return KeyRecord(**record, problem="the key record is broken: p= is no Ed25519 key")
    return KeyRecord(**record, key=Ed25519PublicKey.from_public_bytes(encoded), bits=256)
