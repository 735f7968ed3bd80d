"""A listener's context follows the installed certificate and refuses old protocols."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from services.runtime import tls


def _install(folder: Path, generation: str, serial: int, *, kind: str = "ecdsa") -> None:
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ec.generate_private_key(ec.SECP256R1())
    if kind == "rsa":
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / generation).mkdir()
    (folder / generation / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / generation / "privkey.pem").write_bytes(encoded)
    link = folder / "current.new"
    link.symlink_to(generation)
    link.rename(folder / "current")


async def _serial(port: int) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls.client_context(verify=False))
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der).serial_number, reader, writer


@pytest.mark.parametrize(("first", "second"), [("ecdsa", "ecdsa"), ("ecdsa", "rsa"), ("rsa", "ecdsa")])
def test_a_swapped_certificate_is_served_and_open_connections_live_on(tmp_path: Path, first: str, second: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    async def story() -> None:
        _install(tmp_path, "1", 111, kind=first)
        certificates = tls.ServerCertificates(str(tmp_path))
        assert certificates.load()
        assert not certificates.load()
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificates.context)
        port = server.sockets[0].getsockname()[1]
        before, reader, writer = await _serial(port)
        _install(tmp_path, "2", 222, kind=second)
        assert certificates.load()
        after, _, other = await _serial(port)
        assert (before, after) == (111, 222)
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()
        other.close()
        server.close()

    asyncio.run(story())


def test_a_broken_certificate_leaves_the_old_one_serving(tmp_path: Path) -> None:
    _install(tmp_path, "1", 111)
    certificates = tls.ServerCertificates(str(tmp_path))
    certificates.load()
    _install(tmp_path, "2", 222)
    (tmp_path / "2" / "privkey.pem").write_text("no key")
    with pytest.raises(ssl.SSLError):
        certificates.load()
    (tmp_path / "2" / "privkey.pem").unlink()
    with pytest.raises(tls.NoCertificate):
        certificates.load()


def test_no_certificate_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(tls.NoCertificate):
        tls.ServerCertificates(str(tmp_path)).load()


def test_old_protocols_and_suites_are_off() -> None:
    context = tls.ServerCertificates("/nowhere").context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = [suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
    assert names
    assert all(name.startswith("ECDHE") and ("GCM" in name or "CHACHA20" in name) for name in names)
