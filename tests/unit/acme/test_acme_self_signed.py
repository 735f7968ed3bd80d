"""The local CA and its server certificate: what they say, when they are made again, and that OpenSSL believes them."""

import datetime
import ssl
from pathlib import Path

import pytest
from certificates import DAY, NOW, issue
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store
from power_cut import NAMES_LOST, power_cut

from services.acme import self_signed
from services.acme.certificate import Pair, check

HOST, DOMAIN = "mail.example.test", "example.test"
NAMES = self_signed.names_for(HOST, DOMAIN)


def make(folder: Path, now: float = NOW, hostname: str = HOST, domain: str = DOMAIN) -> Pair:
    return self_signed.make(str(folder / "ca"), hostname, domain, now)


def leaf_of(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pair.chain)[0]


def trusts(ca: bytes, pair: Pair, name: str, now: float = NOW) -> bool:
    """A strict verifier (RFC 5280 with name constraints is OpenSSL's part, below) accepts `name`."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    store = Store([x509.load_pem_x509_certificate(ca)])
    verifier = PolicyBuilder().store(store).time(moment).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(leaf_of(pair), [])
    except x509.verification.VerificationError:
        return False
    return True


def handshake(ca: bytes, pair: Pair, folder: Path, name: str) -> None:
    """A TLS handshake in memory where the client trusts `ca` alone; raises ssl.SSLError."""
    (folder / "c.pem").write_bytes(pair.chain)
    (folder / "k.pem").write_bytes(pair.key)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    client_context = ssl.create_default_context(cadata=ca.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_names() -> None:
    assert NAMES == ("mail.example.test", "example.test", "localhost", "127.0.0.1", "::1")
    assert self_signed.names_for("mx.home.net", "example.test")[:3] == (
        "mx.home.net",
        "mail.example.test",
        "example.test",
    )


def test_the_server_certificate(tmp_path: Path) -> None:
    pair = make(tmp_path)
    certificate = check(pair, HOST, NOW)
    assert certificate.names == NAMES
    lifetime = certificate.not_after - certificate.not_before + 1
    assert 396 * DAY < lifetime <= 397 * DAY
    assert certificate.not_before < NOW - 600, "a client's clock may be behind"
    leaf = leaf_of(pair)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
    assert x509.load_pem_x509_certificates(pair.chain)[1:] == [x509.load_pem_x509_certificate(pair.ca)]


def test_the_authority(tmp_path: Path) -> None:
    ca = x509.load_pem_x509_certificate(make(tmp_path).ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    assert 3649 * DAY < (ca.not_valid_after_utc - ca.not_valid_before_utc).total_seconds() <= 3650 * DAY
    assert "example.test" in ca.subject.rfc4514_string()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600}
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["mail.example.test", "example.test", "localhost"])
def test_who_trusts_the_ca_trusts_the_server(tmp_path: Path, name: str) -> None:
    pair = make(tmp_path)
    assert trusts(pair.ca, pair, name)
    assert not trusts(pair.ca, pair, "bank.example")
    assert not trusts(issue("x").chain, pair, name)


def test_openssl_agrees_on_the_wire(tmp_path: Path) -> None:
    import time

    pair = make(tmp_path, now=time.time())
    for name in ("mail.example.test", "localhost", "127.0.0.1", "::1"):
        handshake(pair.ca, pair, tmp_path, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(pair.ca, pair, tmp_path, "other.test")


def test_a_stolen_ca_key_is_good_for_this_domain_only(tmp_path: Path) -> None:
    import time

    make(tmp_path, now=time.time())
    folder = str(tmp_path / "ca")
    key = load_pem_private_key((tmp_path / "ca" / "ca-key.pem").read_bytes(), None)
    authority = self_signed._Authority(x509.load_pem_x509_certificate(self_signed.read_ca(folder)), key)  # type: ignore[arg-type]
    forged = self_signed._leaf(authority, ("bank.example",), time.time())
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(forged.ca, forged, tmp_path, "bank.example")


def test_the_ca_stays_while_leaves_come_and_go(tmp_path: Path) -> None:
    first = make(tmp_path)
    second = make(tmp_path, NOW + 360 * DAY)
    assert first.ca == second.ca
    assert leaf_of(first).serial_number != leaf_of(second).serial_number
    assert first.key != second.key
    assert trusts(first.ca, second, HOST, NOW + 700 * DAY)


@pytest.mark.parametrize(
    ("what", "now", "hostname", "domain", "same"),
    [
        ("the next day", NOW + DAY, HOST, DOMAIN, True),
        ("another host of the domain", NOW + DAY, "mx.example.test", DOMAIN, True),
        ("another domain", NOW + DAY, "mail.other.test", "other.test", False),
        ("a host elsewhere", NOW + DAY, "mail.elsewhere.test", DOMAIN, False),
        ("a year and a half before its end", NOW + (3650 - 500) * DAY, HOST, DOMAIN, True),
        ("a year before its end: a leaf would outlive it", NOW + (3650 - 397) * DAY, HOST, DOMAIN, False),
        ("a clock far in the past", NOW - 1000 * DAY, HOST, DOMAIN, False),
    ],
)  # fmt: skip
def test_when_a_new_ca_is_made(tmp_path: Path, what: str, now: float, hostname: str, domain: str, same: bool) -> None:
    first = make(tmp_path)
    second = make(tmp_path, now, hostname, domain)
    assert (first.ca == second.ca) is same, what
    assert trusts(second.ca, second, hostname, now)


@pytest.mark.parametrize(
    ("what", "age", "hostname", "current"),
    [
        ("new", 0, HOST, True),
        ("a year old", 360, HOST, True),
        ("a month before its end", 368, HOST, False),
        ("expired", 400, HOST, False),
        ("before its time", -1, HOST, False),
        ("the host got another name", 10, "mx.example.test", False),
    ],
)
def test_when_a_leaf_is_renewed(tmp_path: Path, what: str, age: float, hostname: str, current: bool) -> None:
    pair = make(tmp_path)
    names = self_signed.names_for(hostname, DOMAIN)
    assert self_signed.is_current(pair, pair.ca, names, NOW + age * DAY) is current, what


def test_what_another_ca_made_is_not_current(tmp_path: Path) -> None:
    pair, other = make(tmp_path / "a"), make(tmp_path / "b")
    assert not self_signed.is_current(pair, other.ca, NAMES, NOW)
    assert not self_signed.is_current(Pair(pair.chain, other.key), pair.ca, NAMES, NOW)
    assert not self_signed.is_current(Pair(b"", b""), pair.ca, NAMES, NOW)
    assert not self_signed.is_current(pair, b"nonsense", NAMES, NOW)
    public = issue(*NAMES, lasts=300 * DAY)  # SSL_TYPE was another one before
    assert not self_signed.is_current(Pair(public.chain, public.key), pair.ca, NAMES, NOW)


@pytest.mark.parametrize("damage", [b"", b"nonsense"])
@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem"])
def test_a_damaged_ca_is_made_again(tmp_path: Path, name: str, damage: bytes) -> None:
    first = make(tmp_path)
    (tmp_path / "ca" / name).write_bytes(damage)
    second = make(tmp_path)
    assert first.ca != second.ca and trusts(second.ca, second, HOST)


@pytest.mark.parametrize("names_lost", NAMES_LOST)
def test_a_power_cut_leaves_a_ca_that_works(tmp_path: Path, names_lost: str) -> None:
    for steps in range(100):
        folder = tmp_path / str(steps)
        folder.mkdir()
        with power_cut(steps, names_lost=names_lost) as cut:
            pair = make(folder)
        after = make(folder)
        assert trusts(after.ca, after, HOST) and trusts(after.ca, make(folder, NOW + DAY), HOST, NOW + DAY)
        if not cut.happened:
            assert steps > 5 and after.ca == pair.ca
            return
    pytest.fail("make never ended")
