"""The DKIM adapter: what is signed, that others accept it, and that the names it replaces in dkimpy still exist."""

import base64
import inspect
import re
import subprocess
import sys
import time

import dkim as real_dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from services.message import dkim_signature
from services.message.dkim_signature import BadHeaderBlock, BadKey, BodyHash, load_key, read_fields, sign

DOMAIN = "example.test"
LONG_DOMAIN = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.example.test"


def pem_of(
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, form: str = "PKCS8"
) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), serialization.NoEncryption()
    )


RSA_PRIVATE = rsa.generate_private_key(65537, 2048)
ED_PRIVATE = ed25519.Ed25519PrivateKey.generate()
KEYS = {"r": load_key(pem_of(RSA_PRIVATE)), "e": load_key(pem_of(ED_PRIVATE))}
RECORDS = {
    "r": b"v=DKIM1; k=rsa; p="
    + base64.b64encode(
        RSA_PRIVATE.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ),
    "e": b"v=DKIM1; k=ed25519; p=" + base64.b64encode(ED_PRIVATE.public_key().public_bytes_raw()),
}


def signed(headers: bytes, body: bytes, selector: str, domain: str = DOMAIN) -> bytes:
    """The whole message with our signature on top."""
    body_hash = BodyHash()
    body_hash.update(body)
    fields = read_fields(headers + b"\r\n")
    return sign(fields, body_hash.digest(), domain, selector, KEYS[selector], time.time()) + headers + b"\r\n" + body


def dkimpy_accepts(message: bytes) -> bool:
    """dkimpy over the full message: its own canonicalisation of headers and body; PyNaCl for Ed25519."""

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        selector, _, domain = name.decode().removesuffix(".").partition("._domainkey.")
        return RECORDS[selector] if domain in (DOMAIN, LONG_DOMAIN) else None

    return bool(real_dkim.verify(message, dnsfunc=look_up))


BASE = (
    b"From: Anna <anna@example.test>\r\nTo: bob@example.org\r\nSubject: Hello\r\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n"
)
MESSAGES = {
    "plain": (BASE, b"Hello\r\n"),
    "empty body": (BASE, b""),
    "body of empty lines": (BASE, b"\r\n\r\n \r\n"),
    "white space": (BASE, b" a  b \t c \r\n\r\n\t\r\nx\r\n\r\n\r\n"),
    "8-bit body": (BASE, bytes(range(128, 256)) + b"\r\n" + "你好\r\n".encode()),
    "long lines": (BASE, b"y" * 70_000 + b"\r\n" + b"z " * 3000 + b"\r\n"),
    "Chinese subject, encoded": (BASE.replace(b"Hello", b"=?utf-8?b?5L2g5aW9?=\r\n =?utf-8?b?5LiW55WM?="), b"x\r\n"),
    "Chinese subject, raw": (BASE.replace(b"Hello", "你好  世界".encode()), b"x\r\n"),
    "folded": (BASE + b"References: <1>\r\n\t<2>\r\n   <3> \r\nIn-Reply-To:\r\n <1>\r\n", b"x\r\n"),
    "duplicates": (BASE + b"Received: a\r\nReceived: b\r\nTo: c@example.org\r\nList-Id: <l>\r\nCc:a@b\r\nCc: c@d\r\n", b"x\r\n"),
    "empty values": (BASE.replace(b" Hello", b"") + b"Cc: \r\nReply-To:\r\n \r\n", b"x\r\n"),
    "odd case": (BASE.replace(b"From", b"fROM").replace(b"Subject", b"SUBJECT"), b"x\r\n"),
    "MIME": (BASE + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary="x"\r\n', b"--x\r\n\r\nhi\r\n--x--\r\n"),
    "many fields": (BASE + b"".join(b"List-Post: <%d>\r\n" % n for n in range(60)), b"x\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("selector", ["r", "e"])
@pytest.mark.parametrize("domain", [DOMAIN, LONG_DOMAIN], ids=["short domain", "long domain"])
@pytest.mark.parametrize("name", MESSAGES)
def test_dkimpy_accepts_the_full_message(name: str, domain: str, selector: str) -> None:
    headers, body = MESSAGES[name]
    message = signed(headers, body, selector, domain)
    assert dkimpy_accepts(message)
    assert not dkimpy_accepts(message + b"more\r\n")
    assert not dkimpy_accepts(message.replace(b"anna@", b"eve@"))


@pytest.mark.parametrize("name", sorted(n.decode() for n in dkim_signature.OVER_SIGNED))
def test_a_field_added_on_the_way_breaks_the_signature(name: str) -> None:
    present = b"\r\n" + name.encode() + b":" in b"\r\n" + BASE.lower()
    for headers in [BASE] if present else [BASE, BASE + name.encode() + b": one\r\n"]:
        message = signed(headers, b"Hello\r\n", "r")
        assert dkimpy_accepts(message)
        signature, rest = message[: len(message) - len(headers) - 9], message[-len(headers) - 9 :]
        assert not dkimpy_accepts(signature + name.encode() + b": added\r\n" + rest)


@pytest.mark.parametrize(
    "added", [b"Received: from x\r\n", b"X-Spam: no\r\n", b"Return-Path: <>\r\n", b"DKIM-Signature: v=1\r\n"]
)
def test_what_relays_add_or_change_leaves_the_signature_whole(added: bytes) -> None:
    message = signed(BASE + b"Received: from laptop\r\n", b"Hello\r\n", "r")
    assert dkimpy_accepts(message.replace(b"Received: from laptop\r\n", added) + b"\r\n \r\n")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"To", b"Cc", b"Subject", b"References", b"X-Other", b"List-Id", b"Content-Type", b"Received"]
            ),
            st.lists(
                st.sampled_from([b" ", b"\t", b"a", b"\r\n ", b"\r\n\t", b"\xe4\xbd\xa0", b";b=", b": "]), max_size=12
            ),
        ),
        max_size=8,
    ),
    st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"\xff"]), max_size=20).map(b"".join),
)
def test_any_header_block_signs_as_dkimpy_reads_it(others: list[tuple[bytes, list[bytes]]], body: bytes) -> None:
    headers = BASE + b"".join(name + b":" + b"".join(value) + b"\r\n" for name, value in others)
    assert dkimpy_accepts(signed(headers, body + b"\r\n", "e"))


def test_relaxed_headers_of_rfc_6376() -> None:
    block = b"A: X\r\nB : Y\t\r\n\tZ  \r\nFrom:a\r\n\r\n"  # §3.4.5, and the From that a signature needs
    assert read_fields(block, over_signed=(b"from", b"a", b"b")).fields == (
        (b"a", b"X\r\n"),
        (b"b", b"Y Z\r\n"),
        (b"from", b"a\r\n"),
    )


def test_only_spaces_and_tabs_are_white_space() -> None:
    assert (b"subject", b"\x0bx\x0c\r\n") in read_fields(b"From: a\r\nSubject: \x0bx\x0c \r\n\r\n").fields


RFC_8463_MESSAGE = b"""\
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.

""".replace(b"\n", b"\r\n")


def test_rfc_8463_example() -> None:
    """Appendix A: the key, the message and the signature as printed; Ed25519 gives the same bytes each time."""
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = load_key(pem_of(ed25519.Ed25519PrivateKey.from_private_bytes(seed)))
    headers, _, body = RFC_8463_MESSAGE.partition(b"\r\n\r\n")
    body_hash = BodyHash()
    body_hash.update(body)
    assert body_hash.digest() == "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    dkimpy = dkim_signature._dkimpy()
    signer = dkimpy.DKIM(signature_algorithm=b"ed25519-sha256")
    signer.hasher = dkimpy.HASH_ALGORITHMS[b"ed25519-sha256"]
    signer.headers = list(read_fields(headers + b"\r\n\r\n").fields)
    names = [b"from", b"to", b"subject", b"date", b"message-id", b"from", b"subject", b"date"]
    tags = [(b"v", b"1"), (b"a", b"ed25519-sha256"), (b"c", b"relaxed/relaxed"), (b"d", b"football.example.com"),
            (b"i", b"@football.example.com"), (b"q", b"dns/txt"), (b"s", b"brisbane"), (b"t", b"1528637909"),
            (b"h", b" : ".join(names)), (b"bh", body_hash.digest().encode()), (b"b", b"0" * 60)]  # fmt: skip
    field = signer.gen_header(tags, names, dkim_signature._Relaxed(signer.headers), b"DKIM-Signature", key)
    assert re.sub(rb"\s", b"", field).endswith(
        b"b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
    )


def test_the_field_says_what_it_should() -> None:
    fields = read_fields(BASE + b"List-Id: <l>\r\nReceived: x\r\nBcc: hidden@example.org\r\n\r\n")
    field = sign(fields, BodyHash().digest(), "Example.TEST", "ms1", KEYS["r"], 1_700_000_000.9)
    assert field.startswith(b"DKIM-Signature: v=1; ") and field.endswith(b"\r\n") and not field.endswith(b"\r\n\r\n")
    assert max(map(len, field.split(b"\r\n"))) <= 78
    tags = {
        name.strip(): re.sub(r"\s", "", value)
        for name, _, value in (tag.partition("=") for tag in field.decode().partition(":")[2].split(";"))
    }
    assert set(tags) == {"v", "a", "c", "d", "s", "t", "h", "bh", "b"}, "no l=, no i=, no x="
    assert tags["c"] == "relaxed/relaxed"
    assert (tags["a"], tags["d"], tags["s"], tags["t"]) == ("rsa-sha256", "example.test", "ms1", "1700000000")
    names = tags["h"].split(":")
    assert {name: names.count(name) for name in ("from", "to", "cc", "subject", "list-id", "received", "bcc")} == {
        "from": 2, "to": 2, "cc": 1, "subject": 2, "list-id": 1, "received": 0, "bcc": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"", "empty line"),
        (b"From: a\r\n", "empty line"),
        (b"From: a\n\n", "empty line"),
        (b"From: a\r\nSubject: b\nBcc: c\r\n\r\n", "line 2 has a bare"),
        (b"From: a\r\nSubject: b\rc\r\n\r\n", "line 2 has a bare"),
        (b"From: a\r\nSubject: b\0\r\n\r\n", "line 2 has a NUL"),
        (b" From: a\r\n\r\n", "continuation"),
        (b"\r\n\r\n", "empty: the header ends"),
        (b"From: a\r\n\r\nSubject: x\r\n\r\n", "line 2 is empty"),
        (b"To: a\r\n\r\n", "no From"),
        (b"From: a\r\nFROM : b\r\n\r\n", "more than one From"),
        (b"From: a\r\nnonsense\r\n\r\n", "'nonsense' is not a header field"),
        (b"From a@b Mon Jan 1\r\nFrom: a\r\n\r\n", "not a header field"),
        (b"From: a\r\nSubj\xc3\xa9ct: a\r\n\r\n", "not a header field"),
        (b"From: a\r\n: a\r\n\r\n", "not a header field"),
    ],
)
def test_a_bad_header_block_is_named(block: bytes, why: str) -> None:
    with pytest.raises(BadHeaderBlock, match=why):
        read_fields(block)


@pytest.mark.parametrize(
    ("body_hash", "domain", "selector"),
    [
        ("", DOMAIN, "s"),
        ("AAAA", DOMAIN, "s"),
        ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", DOMAIN, "s"),
        ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;", DOMAIN, "s"),
        ("é" * 44, DOMAIN, "s"),
        (BodyHash().digest(), "", "s"),
        (BodyHash().digest(), "a;b=c", "s"),
        (BodyHash().digest(), "a\r\n.test", "s"),
        (BodyHash().digest(), "a..test", "s"),
        (BodyHash().digest(), "例.test", "s"),
        (BodyHash().digest(), "test\n", "s"),
        (BodyHash().digest(), DOMAIN, "s;l=0"),
        (BodyHash().digest(), DOMAIN, ""),
    ],
)
def test_nothing_unchecked_gets_into_the_field(body_hash: str, domain: str, selector: str) -> None:
    with pytest.raises(ValueError, match=r"body hash|not a name"):
        sign(read_fields(b"From: a\r\n\r\n"), body_hash, domain, selector, KEYS["e"], 0)


def test_keys_that_cannot_sign_are_refused() -> None:
    assert load_key(pem_of(RSA_PRIVATE, "TraditionalOpenSSL")).algorithm == b"rsa-sha256", "PKCS#1 is read too"
    with pytest.raises(BadKey, match="not a private key"):
        load_key(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(BadKey, match="not with"):
        load_key(pem_of(ec.generate_private_key(ec.SECP256R1())))
    encrypted = ED_PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    with pytest.raises(BadKey, match="not a private key"):
        load_key(encrypted)


def test_dkimpy_still_has_the_names_that_are_replaced() -> None:
    """Pinned: if a new dkimpy moves one of these, signing would silently fall back to its own RSA, or break."""
    program = (
        "import dkim, inspect\n"
        "assert [*inspect.signature(dkim.parse_pem_private_key).parameters] == ['data']\n"
        "assert [*inspect.signature(dkim.RSASSA_PKCS1_v1_5_sign).parameters] == ['hash', 'private_key']\n"
        "assert 'parse_pem_private_key(privkey)' in inspect.getsource(dkim.DKIM.sign)\n"
        "source = inspect.getsource(dkim.DKIM.gen_header)\n"
        "assert 'RSASSA_PKCS1_v1_5_sign(h, pk)' in source\n"
        "assert 'pk.sign(h.digest())' in source and '.signature' in source\n"
        "from dkim.dnsplug import get_txt\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    dkimpy = dkim_signature._dkimpy()
    assert dkimpy.parse_pem_private_key is dkim_signature._parse_pem_private_key
    assert dkimpy.RSASSA_PKCS1_v1_5_sign is dkim_signature._rsassa_pkcs1_v1_5_sign
    assert [*inspect.signature(dkimpy.DKIM.gen_header).parameters] == [
        "self", "fields", "include_headers", "canon_policy", "header_name", "pk", "standardize"
    ]  # fmt: skip


def test_dkimpys_own_sign_uses_the_replacement_too() -> None:
    message = BASE + b"\r\nHello\r\n"
    field = dkim_signature._dkimpy().sign(message, b"r", DOMAIN.encode(), pem_of(RSA_PRIVATE))
    assert dkimpy_accepts(field + message)
    with pytest.raises(real_dkim.KeyFormatError):
        dkim_signature._dkimpy().sign(message, b"r", DOMAIN.encode(), b"nothing")


def test_signing_needs_neither_pynacl_nor_dnspython() -> None:
    """Both stay out of the room's memory; the first is not even installed."""
    program = (
        "import sys\n"
        "sys.modules['nacl'] = None\n"
        "sys.modules['dns'] = None\n"
        "from services.message.dkim_signature import *\n"
        "pem, headers = map(bytes.fromhex, sys.argv[1:])\n"
        "sign(read_fields(headers), BodyHash().digest(), 'example.test', 'e', load_key(pem), 0)\n"
    )
    arguments = [pem_of(ED_PRIVATE).hex(), (BASE + b"\r\n").hex()]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def test_dnspython_stays_out_of_memory_where_it_is_installed() -> None:
    program = (
        "import sys\n"
        "from services.message import dkim_signature\n"
        "dkim_signature._dkimpy()\n"
        "sys.exit(any(name.split('.')[0] == 'dns' for name in sys.modules))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
