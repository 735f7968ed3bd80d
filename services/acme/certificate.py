"""Reads a certificate chain and its key, and says whether listeners may serve them.

Pure: bytes, names and a clock in, values or a reason out. Runs in the short process (`task`), with cryptography; the
values it returns are plain, so that the room itself reads them without.
"""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

_KEY_BLOCK = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")


class Unusable(Exception):
    """This pair must not be served; the text is a sentence for the owner."""


class Incomplete(Unusable):
    """Chain and key do not belong together: somebody is in the middle of replacing them, so look again soon."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key in PEM as a source gives them; `ca` for those who want to trust it, or empty."""

    chain: bytes
    key: bytes
    ca: bytes = b""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the owner wants to know of a certificate. Times in seconds since the epoch; serial in hexadecimal."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    serial: str
    not_before: int
    not_after: int


def hexadecimal(serial: int) -> str:
    """A serial number as `openssl x509 -serial` prints it, without the leading zero."""
    return f"{serial:X}"


def read(pair: Pair) -> tuple[list[x509.Certificate], PrivateKeyTypes]:
    """Parse both; raises Unusable, or Incomplete where the key is not the first certificate's."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        chain = x509.load_pem_x509_certificates(pair.chain)
    except ValueError as error:
        raise Unusable(f"{pair.origin}: the chain is not a list of certificates in PEM ({error})") from None
    if not _KEY_BLOCK.search(pair.key):
        kind = "is encrypted" if b"ENCRYPTED PRIVATE KEY" in pair.key else "has no private key in PEM"
        raise Unusable(f"{pair.origin}: the key file {kind}")
    try:
        # Checked against the certificate below and loaded by OpenSSL before it is published: no proof of primes here.
        key = load_pem_private_key(pair.key, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise Unusable(f"{pair.origin}: the key file is encrypted; listeners start without anyone to type") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unusable(f"{pair.origin}: the key cannot be read ({error})") from None

    def public_bytes(holder: PrivateKeyTypes | x509.Certificate) -> bytes:
        return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    if public_bytes(key) != public_bytes(chain[0]):
        raise Incomplete(
            f"{pair.origin}: the key does not belong to the first certificate of the chain: "
            "they are being replaced, or one of the two files is the wrong one"
        )
    return chain, key


def describe(leaf: x509.Certificate) -> Certificate:
    """The plain values of a server certificate."""
    return Certificate(
        subject=leaf.subject.rfc4514_string(),
        issuer=leaf.issuer.rfc4514_string(),
        names=tuple(names_of(leaf)),
        serial=hexadecimal(leaf.serial_number),
        not_before=int(leaf.not_valid_before_utc.timestamp()),
        not_after=int(leaf.not_valid_after_utc.timestamp()),
    )


def names_of(leaf: x509.Certificate) -> list[str]:
    """DNS names and addresses of the subject alternative name; the common name counts for nothing (RFC 9525 §2)."""
    from cryptography import x509

    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names = [name.lower() for name in alternative.get_values_for_type(x509.DNSName)]
    return names + [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]


def covers(names: tuple[str, ...] | list[str], hostname: str) -> bool:
    """True when one of `names` is `hostname`, or a wild card for exactly its first label (RFC 9525 §6.3)."""
    hostname = hostname.lower()
    _, _, parent = hostname.partition(".")
    return hostname in names or (bool(parent) and f"*.{parent}" in names)


def check(pair: Pair, hostname: str, now: float) -> Certificate:
    """The certificate of `pair` if listeners called `hostname` may serve it now; raises Unusable or Incomplete."""
    chain, _ = read(pair)
    certificate = describe(chain[0])
    if certificate.not_after <= now:
        raise Unusable(f"{pair.origin}: the certificate expired on {day(certificate.not_after)}; renew it")
    if certificate.not_before > now:
        raise Unusable(f"{pair.origin}: the certificate is not valid yet; is this machine's clock right?")
    if not covers(certificate.names, hostname):
        listed = ", ".join(certificate.names) or "no name at all"
        raise Unusable(
            f"{pair.origin}: the certificate is for {listed}, not for {hostname}: "
            f"get one that names {hostname}, or set MAIL_HOSTNAME"
        )
    return certificate


def day(moment: float) -> str:
    """2026-11-15 in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


def is_address(name: str) -> bool:
    """True for an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
