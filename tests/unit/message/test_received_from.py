"""Whom a trusted relay had a message from, by its own Received field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.headers import Passage, received
from services.message.received_from import MAX_OWN_HOPS, Origin, origin, seen_by
from services.protocol.smtp_true_client import Client, plain_address

BY = "by mx.relay.test (Postfix) with ESMTPS id 4Xyz; Mon, 2 Nov 2026 10:00:00 +0000 (UTC)"


def nobody(address: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("value", "client"),
    [
        # Postfix
        ("from helo.test (name.test [203.0.113.9]) by x", ("203.0.113.9", "helo.test", "name.test")),
        ("from helo.test (unknown [203.0.113.9]) by x", ("203.0.113.9", "helo.test", "")),
        ("from [198.51.100.1] (unknown [203.0.113.9]) by x", ("203.0.113.9", "[198.51.100.1]", "")),
        ("from h (n [IPv6:2001:db8::9]) (using TLSv1.3 with cipher X (256/256 bits)) by x", ("2001:db8::9", "h", "n")),
        (
            "from h (n [203.0.113.9]) (using TLSv1.3 with cipher X (256/256 bits) key-exchange X25519)"
            ' (Client CN "a [198.51.100.1]", Issuer "b" (not verified)) by x',
            ("203.0.113.9", "h", "n"),
        ),
        # Sendmail
        ("from h (n [203.0.113.9] (may be forged)) by x (8.17.1/8.17.1) with ESMTP", ("203.0.113.9", "h", "n")),
        ("from h ([203.0.113.9]) by x", ("203.0.113.9", "h", "")),
        # Exim
        ("from n.test ([203.0.113.9] helo=h.test) by x with esmtps", ("203.0.113.9", "h.test", "n.test")),
        ("from n.test ([203.0.113.9]:4711 helo=[198.51.100.1]) by x", ("203.0.113.9", "[198.51.100.1]", "n.test")),
        ("from n.test ([203.0.113.9]) by x with esmtps (Exim 4.98)", ("203.0.113.9", "n.test", "")),
        ("from [203.0.113.9] (helo=h.test) by x", ("203.0.113.9", "h.test", "")),
        ("from [203.0.113.9] (port=4711 helo=[198.51.100.1]) by x", ("203.0.113.9", "[198.51.100.1]", "")),
        ("from [203.0.113.9] by x with esmtp (Exim 4.98)", ("203.0.113.9", "", "")),
        ("from [2001:db8::9] (helo=h.test) by x", ("2001:db8::9", "h.test", "")),
        # Exchange
        ("from h.test (203.0.113.9) by ex.test (10.0.0.1) with Microsoft SMTP Server", ("203.0.113.9", "h.test", "")),
        ("from h.test (2001:db8::9) by ex.test (fe80::1) with Microsoft SMTP Server", ("2001:db8::9", "h.test", "")),
        # qmail, Courier
        ("from unknown (HELO h.test) (203.0.113.9) by x with SMTP", ("203.0.113.9", "h.test", "")),
        ("from n.test (HELO h.test) (joe@203.0.113.9) by x with SMTP", ("203.0.113.9", "h.test", "n.test")),
        ("from n.test (203.0.113.9) by x with SMTP", ("203.0.113.9", "n.test", "")),
        ("from h (n [::ffff:203.0.113.9]) (TLS: TLSv1.3) by x with ESMTPS", ("203.0.113.9", "h", "n")),
    ],
)
def test_forms(value: str, client: tuple[str, str, str]) -> None:
    assert seen_by(value) == Client(*client, via="received")


@pytest.mark.parametrize(
    "value",
    [
        "", "from", "from h", "from h by x", "by x (Postfix, from userid 0) id 1", "from localhost by x",
        "from h (unknown) by x", "from h (n [not.an.address]) by x", "from h (n [203.0.113.9] by x",
        "from h (n [fe80::1%eth0]) by x", "from h (n [203.0.113.999]) by x", "from h ((n [203.0.113.9])) by x",
        # two that could be meant: one of them is the client's invention
        "from h (a [198.51.100.1]) (n [203.0.113.9]) by x", "from [198.51.100.1] (helo=h) (n [203.0.113.9]) by x",
        "from h (HELO a) (198.51.100.1) (203.0.113.9) by x",
        # a name by DNS that is no name
        "from h (a[198.51.100.1] [203.0.113.9]) by x", "from h (a b [203.0.113.9]) by x",
    ],
)  # fmt: skip
def test_what_cannot_be_told(value: str) -> None:
    assert seen_by(value) is None


def test_the_claim_is_never_the_address() -> None:
    """A HELO that looks like an address, before a field that does not say the true one."""
    assert seen_by("from [198.51.100.1] (unknown) by x with SMTP") is None
    assert seen_by("from 198.51.100.1 by x with SMTP") is None


def header(*values: str) -> bytes:
    return b"Subject: x\r\n" + b"".join(f"Received: {value}\r\n".encode() for value in values) + b"From: a@b\r\n"


def test_hops_of_the_relay_s_own_are_walked_past() -> None:
    found = origin(
        header(
            f"from localhost (localhost [127.0.0.1])\r\n\t{BY}",
            f"from filter (filter.vpn [100.64.0.7]) {BY}",
            f"from localhost (localhost [IPv6:::1]) {BY}",
            f"from true.test (true.test [203.0.113.9])\r\n {BY}",
            f"from forged.test (forged.test [198.51.100.1]) {BY}",
        ),
        lambda address: address == "100.64.0.7",
        "mx.relay.test",
    )
    assert found == Origin(Client("203.0.113.9", "true.test", "true.test", "received"))


def test_qmail_s_two_fields() -> None:
    value = "(qmail 123 invoked from network); 2 Nov 2026 10:00:00 -0000"
    found = origin(header(value, "from unknown (HELO h) (203.0.113.9) by mx with SMTP"), nobody)
    assert found.client == Client("203.0.113.9", "h", "", "received")
    local = "(qmail 123 invoked by uid 33); 2 Nov 2026 10:00:00 -0000"
    assert origin(header(local, "from unknown (HELO h) (198.51.100.1) by mx with SMTP"), nobody).client is None


def test_the_topmost_field_must_be_the_relay_s() -> None:
    """A relay that writes none would let the message name its client."""
    forged = header("from h (n [198.51.100.1]) by mx.other.test with SMTP")
    assert origin(forged, nobody, "mx.relay.test").client is None
    assert "mx.relay.test" in origin(forged, nobody, "mx.relay.test").problem
    assert origin(header(f"from h (n [203.0.113.9]) {BY}"), nobody, "MX.relay.test.").client is not None
    # The client cannot make it look like another's by what it calls itself.
    assert origin(header(f"from by (n [203.0.113.9]) {BY}"), nobody, "mx.relay.test").client is not None


@pytest.mark.parametrize(
    "head",
    [b"", b"Subject: x\r\n", header("by mx.relay.test (Postfix, from userid 0) id 1"), header("from h by x")],
)
def test_not_found_is_said(head: bytes) -> None:
    found = origin(head, nobody)
    assert found.client is None and found.problem


def test_a_chain_of_own_hops_ends() -> None:
    local = f"from localhost (localhost [127.0.0.1]) {BY}"
    found = origin(header(*[local] * (MAX_OWN_HOPS + 1), f"from h (n [203.0.113.9]) {BY}"), nobody)
    assert found.client is None and "more than" in found.problem
    assert origin(header(local), nobody).client is None


def test_a_backup_mx_of_our_own_kind() -> None:
    for peer in ("203.0.113.9", "2001:db8::9"):
        line = received(Passage("h.test", peer, "mx.relay.test", "ESMTPS", "0" * 16, "TLSv1.3 X", "a@b"), 0)
        assert origin(line, nobody, "mx.relay.test").client == Client(peer, "h.test", "", "received")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"), ("IPv6:2001:DB8::1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("", ""),
        ("fe80::1%eth0", ""), ("192.0.2.256", ""), ("1" * 100, ""), ("IPv6:192.0.2.1", "192.0.2.1"),
    ],
)  # fmt: skip
def test_addresses(text: str, plain: str) -> None:
    assert plain_address(text) == plain


WORDS = st.sampled_from(
    [
        "from ",
        "h ",
        "(",
        ")",
        "[",
        "]",
        "203.0.113.9",
        "helo=",
        "HELO ",
        " by ",
        "mx",
        "\\",
        "IPv6:",
        "::1",
        "\r\n ",
        "; ",
    ]
)


@given(st.lists(WORDS | st.text(max_size=4), max_size=30), st.text(max_size=5))
def test_no_header_raises(pieces: list[str], relay: str) -> None:
    value = "".join(pieces)
    found = origin(b"Received: " + value.encode("utf-8", "replace") + b"\r\n", nobody, relay)
    assert (found.client is None) == bool(found.problem)
    if found.client is not None:
        assert plain_address(found.client.address) == found.client.address


@given(
    st.text(max_size=40),
    st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='()\\"<>@; '), min_size=1, max_size=20
    ),
)
def test_what_a_client_says_of_itself_never_becomes_its_address(name: str, helo: str) -> None:
    """Postfix replaces what is special in a HELO; whatever is left cannot turn the field round."""
    client = seen_by(f"from {helo} (unknown [203.0.113.9]) by mx.relay.test (Postfix) with ESMTP id x")
    assert client is not None and client.address == "203.0.113.9"
