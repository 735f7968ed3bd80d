"""A listener's context follows the installed certificate and refuses old protocols."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ssl
import time
from pathlib import Path

import pytest
from certificates import issue
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
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificates.context())
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
    context = tls.ServerCertificates("/nowhere").context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = [suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
    assert names
    assert all(name.startswith("ECDHE") and ("GCM" in name or "CHACHA20" in name) for name in names)


Made = tuple[ssl.SSLObject, ssl.SSLObject]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Made:
    """The server's and the client's side of a connection in memory; raises ssl.SSLError. A first word has gone over."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="mail.example.test", session=session),
    )
    waiting = list(reversed(sides))
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    sides[0].write(b"hello")
    assert sides[1].read(5) == b"hello"  # with TLS 1.3 tickets come behind the handshake
    return sides


def client_of(version: ssl.TLSVersion, **changes: int) -> ssl.SSLContext:
    context = tls.client_context(verify=False)
    context.minimum_version = context.maximum_version = version
    for name, value in changes.items():
        setattr(context, name, getattr(context, name) | value)
    return context


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def serving(tmp_path: Path) -> tuple[tls.ServerCertificates, Clock]:
    _install(tmp_path, "1", 111)
    clock = Clock()
    certificates = tls.ServerCertificates(str(tmp_path), clock=clock)
    certificates.load()
    return certificates, clock


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed_until_the_key_of_its_ticket_is_changed(
    serving: tuple[tls.ServerCertificates, Clock], version: ssl.TLSVersion
) -> None:
    certificates, clock = serving
    client = client_of(version)
    ours, theirs = handshake(certificates.context(), client)
    clock.now += tls.TICKET_KEY_SECONDS - 1
    assert not certificates.renew_ticket_key()
    assert handshake(certificates.context(), client, theirs.session)[1].session_reused
    clock.now += 1
    assert certificates.renew_ticket_key()
    assert not certificates.renew_ticket_key(), "a fresh one has its time"
    gc.collect()
    assert not handshake(certificates.context(), client, theirs.session)[1].session_reused
    ours.write(b"still here")
    assert theirs.read(10) == b"still here", "open connections live on"


def test_sessions_that_clients_without_tickets_leave_are_bounded(
    serving: tuple[tls.ServerCertificates, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "MOST_SESSIONS", 3)
    certificates, _ = serving
    client = client_of(ssl.TLSVersion.TLSv1_2, options=ssl.OP_NO_TICKET)
    for number in range(3):
        assert not certificates.renew_ticket_key(), number
        # Kept while its connections are open, and after them where they end with a farewell.
        kept = handshake(certificates.context(), client)
        with pytest.raises(ssl.SSLWantReadError):
            kept[0].unwrap()
    assert certificates.renew_ticket_key()


def test_a_second_hello_does_not_ask_a_context_that_may_be_gone(
    serving: tuple[tls.ServerCertificates, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    # RFC 8446 §4.1.4: a client whose first key is of no use is asked again. OpenSSL keeps only a pointer to the first
    # context's Python object, which a change of the key lets go.
    asked = []
    hand_over = tls.ServerCertificates._hand_over

    def counted(self: tls.ServerCertificates, *arguments: object) -> None:
        asked.append(arguments)
        hand_over(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tls.ServerCertificates, "_hand_over", counted)
    certificates, clock = serving
    clock.now += tls.TICKET_KEY_SECONDS
    certificates.renew_ticket_key()
    context = certificates.context()
    context.set_ecdh_curve("secp384r1")  # OpenSSL's clients begin with X25519
    _, theirs = handshake(context, client_of(ssl.TLSVersion.TLSv1_3))
    assert theirs.version() == "TLSv1.3"
    assert len(asked) == 1


# What living but old systems offer with TLS 1.2, by their makers' documents; with an ECDSA and an RSA certificate.
CLIENTS = {
    "Outlook 2016 on Windows 10": "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:"
    "AES256-GCM-SHA384:AES128-SHA",
    "iOS 10 and macOS 10.12": "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-SHA384:AES256-SHA",
    "Android 8": "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA:AES128-GCM-SHA256",
    "Java 8": "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:AES128-GCM-SHA256:AES128-SHA",
}


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
@pytest.mark.parametrize("client", CLIENTS)
def test_old_systems_that_live_are_served(tmp_path: Path, client: str, kind: str) -> None:
    _install(tmp_path, "1", 111, kind=kind)
    certificates = tls.ServerCertificates(str(tmp_path))
    certificates.load()
    theirs = client_of(ssl.TLSVersion.TLSv1_2)
    theirs.set_ciphers(CLIENTS[client])
    theirs.set_ecdh_curve("prime256v1")
    made, _, _ = handshake(certificates.context(), theirs)[1].cipher() or ("", "", 0)
    assert made.startswith("ECDHE-") and ("GCM" in made or "CHACHA20" in made)


def test_a_phone_without_aes_instructions_gets_the_suite_it_asks_for_first(
    serving: tuple[tls.ServerCertificates, Clock],
) -> None:
    theirs = client_of(ssl.TLSVersion.TLSv1_2)
    theirs.set_ciphers(CLIENTS["Android 8"])
    cipher = handshake(serving[0].context(), theirs)[1].cipher()
    assert cipher and cipher[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"])
def test_a_client_with_nothing_better_is_refused(serving: tuple[tls.ServerCertificates, Clock], suite: str) -> None:
    theirs = client_of(ssl.TLSVersion.TLSv1_2)
    theirs.set_ciphers(suite)
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        handshake(serving[0].context(), theirs)


# --- outgoing


def strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.13 makes contexts; 3.11 leaves both flags out."""
    made = ssl.create_default_context

    def strict(**arguments: str | None) -> ssl.SSLContext:
        context = made(**arguments)  # type: ignore[arg-type]
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


@pytest.mark.parametrize("make_strict", [False, True])
def test_an_owners_ca_need_not_satisfy_every_letter_of_the_rfc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_strict: bool
) -> None:
    # `openssl req -x509` makes one without keyUsage, which Python 3.13 alone refuses.
    if make_strict:
        strictly(monkeypatch)
    plain = issue("mail.example.test", now=time.time())
    (tmp_path / "own.pem").write_bytes(plain.chain)
    (tmp_path / "both.pem").write_bytes(plain.chain + plain.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "both.pem")
    handshake(server, tls.client_context(ca_file=str(tmp_path / "own.pem")))
    other = issue("mail.example.test", now=time.time())
    (tmp_path / "other.pem").write_bytes(other.chain)
    for elsewhere in (str(tmp_path / "other.pem"), ""):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, tls.client_context(ca_file=elsewhere))


def test_public_cas_are_held_to_every_letter_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    strictly(monkeypatch)
    assert tls.client_context().verify_flags & ssl.VERIFY_X509_STRICT
