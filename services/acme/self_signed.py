"""A certificate authority of our own, for an installation that has no public name yet.

The CA (10 years, `<room_dir>/ca/{ca.pem,ca-key.pem}`) signs a server certificate of 397 days. Who trusts `ca.pem` once
is not asked again when the server certificate is renewed. Name constraints keep a stolen CA key to this domain. Runs in
the short process (`task`); nothing here is called for other sources.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.acme.certificate import Pair, Unusable, is_address, names_of, read
from services.storage.atomic import fsync_folder, write_durable

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

DAY = 86_400
CA_DAYS = 3650
# What public CAs were held to when clients learnt to refuse more. Apple takes up to 825 days from a CA trusted by hand,
# but who has accepted this very certificate is warned again at each renewal, so not less either.
LEAF_DAYS = 397
RENEW_DAYS = 30  # before expiry: a machine that is switched off for a holiday comes back in time
# A client whose clock is a little behind must not see a certificate from the future.
BACKDATED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def names_for(hostname: str, domain: str) -> tuple[str, ...]:
    """What the server certificate names: the host, what people guess, and loopback for tests and tunnels."""
    return tuple(dict.fromkeys((hostname, f"mail.{domain}", domain, "localhost", "127.0.0.1", "::1")))


def is_current(pair: Pair, ca: bytes, names: tuple[str, ...], now: float) -> bool:
    """True when `pair` was made by the CA in `ca` for `names` and need not be renewed yet."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        chain, _ = read(pair)
        authority = x509.load_pem_x509_certificate(ca)
        chain[0].verify_directly_issued_by(authority)
    except (Unusable, InvalidSignature, ValueError, TypeError):
        return False
    left = chain[0].not_valid_after_utc.timestamp() - now
    begun = chain[0].not_valid_before_utc.timestamp() <= now
    return begun and left > RENEW_DAYS * DAY and set(names_of(chain[0])) == set(names)


def make(folder: str, hostname: str, domain: str, now: float) -> Pair:
    """A new server certificate from the CA in `folder`, which is made if there is none that serves."""
    authority = _authority(folder, hostname, domain, now)
    return _leaf(authority, names_for(hostname, domain), now)


def read_ca(folder: str) -> bytes:
    """The CA's certificate in PEM, or b"" before the first `make`."""
    try:
        with open(os.path.join(folder, "ca.pem"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _authority(folder: str, hostname: str, domain: str, now: float) -> _Authority:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with open(os.path.join(folder, "ca-key.pem"), "rb") as file:
            key = load_pem_private_key(file.read(), password=None)
        certificate = x509.load_pem_x509_certificate(read_ca(folder))
    except (FileNotFoundError, ValueError):
        return _new_authority(folder, hostname, domain, now)
    # A leaf must not outlive its CA; and after the domain was changed the old constraints refuse the new names.
    long_enough = certificate.not_valid_after_utc.timestamp() - now > (LEAF_DAYS + 1) * DAY
    begun = certificate.not_valid_before_utc.timestamp() <= now
    fits = isinstance(key, ec.EllipticCurvePrivateKey) and certificate.public_key() == key.public_key()
    if long_enough and begun and fits and _constraints(certificate) == _permitted(hostname, domain):
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return _Authority(certificate, key)
    return _new_authority(folder, hostname, domain, now)


def _permitted(hostname: str, domain: str) -> list[x509.GeneralName]:
    from cryptography import x509

    # RFC 5280 §4.2.1.10: a DNS constraint covers the name and everything below it.
    domains = dict.fromkeys((domain, hostname, "localhost"))
    below = [name for name in domains if name == domain or not name.endswith(f".{domain}")]
    loopback = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
    return [*map(x509.DNSName, below), *map(x509.IPAddress, loopback)]


def _constraints(certificate: x509.Certificate) -> list[x509.GeneralName]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    except x509.ExtensionNotFound:
        return []
    return list(found or [])


def _new_authority(folder: str, hostname: str, domain: str, now: float) -> _Authority:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # The year tells two CAs of one installation apart in a phone's list of trusted ones.
    year = datetime.datetime.fromtimestamp(now, datetime.UTC).year
    name = _ca_name(domain, year)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .add_extension(x509.NameConstraints(_permitted(hostname, domain), None), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # Key first: a power cut between the two leaves a key without its certificate, and the pair is simply made again.
    write_durable(os.path.join(folder, "ca-key.pem"), _pem(key), 0o600)
    write_durable(os.path.join(folder, "ca.pem"), certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    fsync_folder(os.path.dirname(folder))
    return _Authority(certificate, key)


def _leaf(authority: _Authority, names: tuple[str, ...], now: float) -> Pair:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])  # X.520: 64 characters at most
    alternative: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name) for name in names
    ]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer_key = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    ca = authority.certificate.public_bytes(serialization.Encoding.PEM)
    # The CA goes into the chain too: a TLSA record may name it (RFC 7671 §5.2.2).
    return Pair(certificate.public_bytes(serialization.Encoding.PEM) + ca, _pem(key), ca, "the local CA")


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: float, days: int
) -> x509.CertificateBuilder:
    import datetime

    from cryptography import x509

    begin = datetime.datetime.fromtimestamp(int(now) - BACKDATED_SECONDS, datetime.UTC)
    # RFC 5280 §4.1.2.5: both ends are part of the lifetime, so a second less keeps it within `days`.
    end = begin + datetime.timedelta(days=days, seconds=-1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _ca_name(domain: str, year: int) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    name = f"Mailstead CA {year} of {domain}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name if len(name) <= 64 else f"Mailstead CA {year}")])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
