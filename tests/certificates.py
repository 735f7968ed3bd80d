"""Certificates for tests, made of any names and times: a public CA's, an owner's, a wrong one."""

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

DAY = 86_400
# The clock of tests that bring their own: 2026-11-14T23:46:40Z.
NOW = 1_794_700_000.0


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, both PEM, and the serial as the room prints it."""

    chain: bytes
    key: bytes
    serial: str
    certificate: x509.Certificate


def issue(
    *names: str,
    now: float = NOW,
    begins: float = -DAY,
    lasts: float = 90 * DAY,
    serial: int | None = None,
    rsa_bits: int = 0,
    common_name: str = "a certificate",
) -> Issued:
    """A self-issued server certificate; `begins` and `lasts` are seconds from `now`."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(moment + datetime.timedelta(seconds=begins))
        .not_valid_after(moment + datetime.timedelta(seconds=lasts))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        f"{certificate.serial_number:X}",
        certificate,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
