"""Whom the owner trusts: addresses, networks, fingerprints, and both."""

import hashlib

import pytest

from services.smtp.trust import Forwarders, Peers

CERTIFICATE = b"der of a certificate"
FINGERPRINT = hashlib.sha256(CERTIFICATE).hexdigest()


def test_peers() -> None:
    peers = Peers("203.0.113.9, 100.64.0.0/10  [2001:db8::1],2001:db8:1::/48")
    for address in ("203.0.113.9", "::ffff:203.0.113.9", "100.100.1.2", "2001:db8::1", "2001:db8:1:2::3"):
        assert address in peers
    for address in ("203.0.113.8", "100.128.0.1", "2001:db8::2", "", "nonsense", "fe80::1%eth0"):
        assert address not in peers
    assert not Peers("") and "203.0.113.9" not in Peers("")


@pytest.mark.parametrize("text", ["nonsense", "203.0.113.0/33", "203.0.113.999", "vps.example.org"])
def test_what_is_no_peer(text: str) -> None:
    with pytest.raises(ValueError, match="not an address or a network"):
        Peers(text)


def test_an_address_alone_is_consent() -> None:
    forwarders = Forwarders("203.0.113.9")
    assert forwarders.trusts("203.0.113.9", None) and not forwarders.trusts("203.0.113.8", CERTIFICATE)
    assert not Forwarders("")


def test_a_gateway_is_nobody_s_address() -> None:
    """Many peers may arrive from it."""
    gateway = frozenset({"172.18.0.1"})
    assert not Forwarders("172.18.0.0/16", "", gateway).trusts("172.18.0.1", None)
    assert Forwarders("172.18.0.0/16", FINGERPRINT, gateway).trusts("172.18.0.1", CERTIFICATE)


def test_a_certificate() -> None:
    colons = ":".join(FINGERPRINT[index : index + 2] for index in range(0, 64, 2)).upper()
    for text in (FINGERPRINT, colons, f"{'0' * 64}, {colons}"):
        forwarders = Forwarders("", text)
        assert forwarders and forwarders.by_certificate
        assert forwarders.trusts("198.51.100.1", CERTIFICATE)
        assert not forwarders.trusts("198.51.100.1", None)
        assert not forwarders.trusts("198.51.100.1", b"another")


def test_where_both_are_named_both_must_match() -> None:
    forwarders = Forwarders("203.0.113.9", FINGERPRINT)
    assert forwarders.trusts("203.0.113.9", CERTIFICATE)
    assert not forwarders.trusts("203.0.113.9", None)
    assert not forwarders.trusts("203.0.113.8", CERTIFICATE)


@pytest.mark.parametrize("text", ["abc", FINGERPRINT[:-1], FINGERPRINT + "0", "g" * 64, "sha256:" + FINGERPRINT])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="not the SHA-256 fingerprint"):
        Forwarders("", text)
