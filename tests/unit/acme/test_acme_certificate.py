"""What makes a pair fit to be served, and what is said of one that is not."""

import pytest
from certificates import DAY, NOW, Issued, issue
from cryptography.hazmat.primitives import serialization

from services.acme.certificate import Incomplete, Pair, Unusable, check, covers

HOST = "mail.example.test"


def pair(issued: Issued) -> Pair:
    return Pair(issued.chain, issued.key, origin="/x.pem")


@pytest.mark.parametrize(
    ("names", "hostname", "covered"),
    [
        (["mail.example.test"], "mail.example.test", True),
        (["mail.example.test"], "MAIL.example.TEST", True),
        (["example.test"], "mail.example.test", False),
        (["*.example.test"], "mail.example.test", True),
        (["*.example.test"], "example.test", False),
        (["*.example.test"], "a.mail.example.test", False),
        (["*.test"], "mail.example.test", False),
        (["*"], "localhost", False),
        (["*."], "mail", False),
        ([], "mail.example.test", False),
    ],
)
def test_covers(names: list[str], hostname: str, covered: bool) -> None:
    assert covers(names, hostname) is covered


def test_a_good_pair_is_described() -> None:
    issued = issue("Mail.Example.test", "192.0.2.1", serial=0x0ABC)
    certificate = check(pair(issued), HOST, NOW)
    assert certificate.names == ("mail.example.test", "192.0.2.1")
    assert certificate.serial == "ABC"
    assert (certificate.subject, certificate.issuer) == ("CN=a certificate", "CN=a certificate")
    assert (certificate.not_before, certificate.not_after) == (int(NOW - DAY), int(NOW + 90 * DAY))


@pytest.mark.parametrize(
    ("issued", "words"),
    [
        (issue(HOST, lasts=-3 * DAY, begins=-90 * DAY), "expired on 2026-11-11; renew it"),
        (issue(HOST, lasts=0), "expired on 2026-11-14"),
        (issue(HOST, begins=1), "not valid yet; is this machine's clock right"),
        (issue("other.test", "*.other.test"), r"is for other\.test, \*\.other\.test, not for mail\.example\.test"),
        (issue(common_name=HOST), "is for no name at all"),
    ],
)
def test_what_must_not_be_served(issued: Issued, words: str) -> None:
    with pytest.raises(Unusable, match=words) as refused:
        check(pair(issued), HOST, NOW)
    assert str(refused.value).startswith("/x.pem: ")
    assert not isinstance(refused.value, Incomplete)


def test_a_key_of_another_certificate_is_a_replacement_under_way() -> None:
    with pytest.raises(Incomplete, match="being replaced"):
        check(Pair(issue(HOST).chain, issue(HOST).key), HOST, NOW)


def test_a_chain_must_begin_with_the_servers_own_certificate() -> None:
    issued = issue(HOST)
    with pytest.raises(Incomplete):
        check(Pair(issue("ca.test").chain + issued.chain, issued.key), HOST, NOW)


def encrypted(issued: Issued, form: serialization.PrivateFormat) -> bytes:
    key = serialization.load_pem_private_key(issued.key, None)
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret"))


GOOD = issue(HOST)


@pytest.mark.parametrize(
    ("chain", "key", "words"),
    [
        (b"", GOOD.key, "chain is not"),
        (b"nonsense", GOOD.key, "chain is not"),
        (GOOD.key, GOOD.key, "chain is not"),
        (GOOD.chain[:200] + b"\n-----END CERTIFICATE-----\n", GOOD.key, "chain is not"),
        (GOOD.chain, b"", "has no private key"),
        (GOOD.chain, GOOD.chain, "has no private key"),
        (GOOD.chain, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key cannot be read"),
        (GOOD.chain, encrypted(GOOD, serialization.PrivateFormat.PKCS8), "encrypted"),
        (GOOD.chain, encrypted(GOOD, serialization.PrivateFormat.TraditionalOpenSSL), "encrypted"),
    ],
)
def test_files_that_are_something_else(chain: bytes, key: bytes, words: str) -> None:
    with pytest.raises(Unusable, match=words) as refused:
        check(Pair(chain, key), HOST, NOW)
    assert not isinstance(refused.value, Incomplete)
