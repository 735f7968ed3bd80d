"""Signs messages with DKIM (RFC 6376, Ed25519 by RFC 8463): the adapter on dkimpy.

Takes the header block of a message and the body's hash (`BodyHash`), gives the DKIM-Signature field to put above it.
Called by the dkim room, which holds the keys; smtp-out computes the body's hash. Only here is dkimpy imported. It
contributes the signature field's form, the choice of header instances and what exactly is hashed; three things it does
otherwise than we need, and this adapter replaces:

- RSA in pure Python, 7 ms a signature and not constant in time: `dkim.parse_pem_private_key` and
  `dkim.RSASSA_PKCS1_v1_5_sign` become `cryptography`'s. They are replaced together, so that dkimpy's own `sign` still
  works in this process; a test pins both names.
- Ed25519 by PyNaCl: dkimpy asks only for an object with `.sign(digest).signature`, which `SigningKey` gives it.
- It wants the whole message: `DKIM.gen_header`, below `DKIM.sign`, takes the hash as a field.

Never reads files or the clock, never looks anything up, never writes `l=` (RFC 6376 §8.2: it lets others add text).
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from services.message.body_hash import BodyHash
from services.message.canonical import relaxed_value

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["BadHeaderBlock", "BadKey", "BodyHash", "SignedFields", "SigningKey", "load_key", "read_fields", "sign"]

# Signed once more than they occur: a verifier then refuses a message to which one of these was added on the way
# (RFC 6376 §8.15: a second From or Subject is what the reader's program might show). Sender is not among them, because
# mailing lists that change nothing else add one; nor are List-* for the same reason.
OVER_SIGNED = (
    b"from",
    b"to",
    b"cc",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
)

# Signed as often as they occur (RFC 6376 §5.4.1). List-Unsubscribe-Post: RFC 8058 §4 asks for a signature over it.
SIGNED_IF_PRESENT = (
    b"sender",
    b"content-id",
    b"content-description",
    b"content-disposition",
    b"content-language",
    b"resent-date",
    b"resent-from",
    b"resent-sender",
    b"resent-to",
    b"resent-cc",
    b"resent-message-id",
    b"list-id",
    b"list-help",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"list-subscribe",
    b"list-post",
    b"list-owner",
    b"list-archive",
    b"auto-submitted",
)

# dkimpy folds at spaces and, where a word is longer than a line of 72, inside the word. A fold inside d= would make it
# another domain; longer ones get a fold of our own in h=, which dkimpy leaves as it is.
_LONGEST_FOLDABLE_DOMAIN = 60

# A header name is printable ASCII without a colon (RFC 5322 §2.2); before the colon the obsolete syntax has white space
# (§4.5), which relaxed canonicalisation removes.
_FIELD = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z")
_SHA256_BYTES = 32


class BadHeaderBlock(ValueError):
    """The header block cannot be signed; the text says why in words for the sender's administrator."""


class BadKey(ValueError):
    """A private key that cannot sign for DKIM."""


class Signature(Protocol):
    """What dkimpy expects an Ed25519 key to return."""

    @property
    def signature(self) -> bytes:
        """The raw signature."""


@dataclass(frozen=True, slots=True)
class _RawSignature:
    signature: bytes


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its `a=`: b"rsa-sha256" or b"ed25519-sha256"."""

    algorithm: bytes
    private: RSAPrivateKey | Ed25519PrivateKey

    def sign(self, digest: bytes) -> Signature:
        """Sign the SHA-256 `digest` of what DKIM signs.

        RFC 8463 §3: PureEdDSA over the digest, not over the header itself.
        """
        if self.algorithm == b"ed25519-sha256":
            return _RawSignature(self.private.sign(digest))  # type: ignore[call-arg]
        padding, prehashed = _rsa_scheme()
        return _RawSignature(self.private.sign(digest, padding, prehashed))  # type: ignore[call-arg]


@functools.cache
def _rsa_scheme() -> tuple[Any, Any]:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256

    return PKCS1v15(), Prehashed(SHA256())  # RFC 8017 §8.2; dkimpy hands over the digest


def load_key(pem: bytes) -> SigningKey:
    """Read an unencrypted PEM (PKCS#1 or PKCS#8) of RSA or Ed25519; raises BadKey.

    RSA keys are not validated: that proves the primes again, 31 ms, for files that only this system writes. A broken
    one gives signatures that no verifier accepts, no leak: OpenSSL checks each CRT result before it lets it out.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"not a private key in PEM: {error}") from None
    if isinstance(private, Ed25519PrivateKey):
        return SigningKey(b"ed25519-sha256", private)
    if isinstance(private, RSAPrivateKey):
        # RFC 8301 §3.2: signers use at least 1024 bits, and verifiers refuse less.
        if private.key_size < 1024:
            raise BadKey(f"an RSA key of {private.key_size} bits is refused by every verifier (RFC 8301)")
        return SigningKey(b"rsa-sha256", private)
    raise BadKey(f"DKIM signs with RSA or Ed25519, not with {type(private).__name__}")


@dataclass(frozen=True, slots=True)
class SignedFields:
    """What of a header block gets signed: fields in relaxed form, top to bottom, and the names for `h=`."""

    fields: tuple[tuple[bytes, bytes], ...]
    names: tuple[bytes, ...]


def read_fields(header_block: bytes, over_signed: Sequence[bytes] = OVER_SIGNED) -> SignedFields:
    """Read a header block that ends in an empty line; raises BadHeaderBlock.

    Bytes above 127 in values are signed as they are (RFC 6532 messages have them, and a signature covers bytes).
    """
    if not header_block.endswith(b"\r\n\r\n"):
        raise BadHeaderBlock("the header block does not end with an empty line (CRLF CRLF)")
    lines = header_block[:-4].split(b"\r\n")
    unfolded: list[list[bytes]] = []
    for number, line in enumerate(lines, 1):
        if b"\n" in line or b"\r" in line:
            raise BadHeaderBlock(f"header line {number} has a bare CR or LF")
        if b"\0" in line:
            raise BadHeaderBlock(f"header line {number} has a NUL")
        if line[:1] in (b" ", b"\t"):
            if not unfolded:
                raise BadHeaderBlock("the header block begins with a continuation line")
            unfolded[-1].append(line)
            continue
        if not line:
            raise BadHeaderBlock(f"header line {number} is empty: the header ends there")
        unfolded.append([line])

    wanted = frozenset(over_signed) | frozenset(SIGNED_IF_PRESENT)
    fields: list[tuple[bytes, bytes]] = []
    for parts in unfolded:
        match = _FIELD.match(parts[0])
        if match is None:
            raise BadHeaderBlock(f"{parts[0][:40].decode('ascii', 'backslashreplace')!r} is not a header field")
        name = match.group(1).lower()
        if name in wanted:
            value = b"".join((parts[0][match.end() :], *parts[1:]))
            fields.append((name, relaxed_value(value)))

    present = [name for name, _ in fields]
    if (senders := present.count(b"from")) != 1:
        # RFC 5322 §3.6. Signing two would vouch for whichever the reader's program shows.
        raise BadHeaderBlock("there is no From field" if not senders else "there is more than one From field")
    names = [name for name in over_signed for _ in range(present.count(name) + 1)]
    names += [name for name in SIGNED_IF_PRESENT for _ in range(present.count(name)) if name not in over_signed]
    return SignedFields(tuple(fields), tuple(names))


class _Relaxed:
    """dkimpy's canonicalisation policy, over fields that are in relaxed form already."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._fields = fields

    def canonicalize_headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The message's fields as they are; the signature's own field in relaxed form."""
        if headers is self._fields:
            return headers
        return [(name.lower(), relaxed_value(value.replace(b"\r\n", b""))) for name, value in headers]


def sign(fields: SignedFields, body_hash: str, domain: str, selector: str, key: SigningKey, now: float) -> bytes:
    """One DKIM-Signature field with its CRLF, to be put above the message.

    `body_hash`: `BodyHash.digest()` of the body. `domain`: A-labels (RFC 8616 §5). `now`: seconds since the epoch, for
    `t=`. Raises ValueError where one of these cannot stand in a signature.
    """
    domain = domain.lower()
    if not _DOMAIN.match(domain) or not _DOMAIN.match(selector):
        raise ValueError(f"{selector!r} of {domain!r} is not a name for a DKIM key")
    try:
        right_length = len(base64.b64decode(body_hash, validate=True)) == _SHA256_BYTES
    except (binascii.Error, ValueError):
        right_length = False
    if not right_length:
        raise ValueError("the body hash is not the base64 of a SHA-256")

    dkim = _dkimpy()
    signer = dkim.DKIM(signature_algorithm=key.algorithm)
    signer.hasher = dkim.HASH_ALGORITHMS[key.algorithm]
    signer.headers = list(fields.fields)
    between = b" : " if len(domain) <= _LONGEST_FOLDABLE_DOMAIN else b" :\r\n "
    tags = [
        (b"v", b"1"),
        (b"a", key.algorithm),
        (b"c", b"relaxed/relaxed"),
        (b"d", domain.encode("ascii")),
        (b"s", selector.encode("ascii")),
        (b"t", b"%d" % int(now)),
        (b"h", between.join(fields.names)),
        (b"bh", body_hash.encode("ascii")),
        # Long enough that dkimpy folds before it, as it will with the signature in its place.
        (b"b", b"0" * 60),
    ]
    value: bytes = signer.gen_header(tags, fields.names, _Relaxed(signer.headers), b"DKIM-Signature", key)
    return b"DKIM-Signature: " + value


@functools.cache
def _dkimpy() -> Any:
    """dkimpy with our cryptography in it.

    It imports dnspython (9 MiB) for look-ups of its own; ours are passed in, so its resolver module is an empty one
    here. PyNaCl is not installed; dkimpy does without.
    """
    resolver = types.ModuleType("dkim.dnsplug")
    resolver.get_txt = _no_lookup  # type: ignore[attr-defined]
    sys.modules.setdefault("dkim.dnsplug", resolver)
    import dkim

    dkim.parse_pem_private_key = _parse_pem_private_key
    dkim.RSASSA_PKCS1_v1_5_sign = _rsassa_pkcs1_v1_5_sign
    return dkim


def _no_lookup(name: bytes, timeout: int = 5) -> bytes | None:
    raise RuntimeError("dkimpy looks nothing up in this program; pass dnsfunc")


def _parse_pem_private_key(pem: bytes) -> SigningKey:
    from dkim.crypto import UnparsableKeyError

    try:
        return load_key(pem)
    except BadKey as error:
        raise UnparsableKeyError(str(error)) from None


def _rsassa_pkcs1_v1_5_sign(hasher: Any, key: SigningKey) -> bytes:
    return key.sign(hasher.digest()).signature
