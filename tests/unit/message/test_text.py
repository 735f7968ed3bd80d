"""Decoded text for SEARCH and previews: encoded words, transfer encodings, charsets, HTML; and that nothing fails."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message import mime, text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"plain", "plain"),
        (b"fold\r\n ed", "fold ed"),
        (b"=?utf-8?q?J=C3=B6rg?=", "Jörg"),
        (b"=?UTF-8?B?w6k=?= x", "é x"),
        (b"=?utf-8?q?a_b?=\r\n =?utf-8?q?c?=", "a bc"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),
        (b"=?iso-8859-1*en?q?=E9?= and =?koi8-r?b?8NLJ18XU?=", "é and Привет"),
        (b"=?gb2312?B?xOO6ww==?=", "你好"),
        (b"=?no-such-charset?q?abc?=", "abc"),
        (b"=?utf-8?q?broken", "=?utf-8?q?broken"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", "café"),
        (b"=?rot13?q?nop?=", "nop"),
    ],
)
def test_header_text(value: bytes, shown: str) -> None:
    assert text.header_text(value) == shown


def message(kind: bytes, encoding: bytes, body: bytes) -> bytes:
    return (
        b"MIME-Version: 1.0\r\nContent-Type: "
        + kind
        + b"\r\nContent-Transfer-Encoding: "
        + encoding
        + b"\r\n\r\n"
        + body
    )


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (message(b"text/plain; charset=utf-8", b"base64", base64.encodebytes("naïve".encode())), ["naïve"]),
        (message(b"text/plain; charset=utf-8", b"quoted-printable", b"na=C3=AFv=\r\ne"), ["naïve"]),
        (message(b"text/plain; charset=utf-8", b"base64", b"bmHDr3Zl!!"), ["naïve"]),
        (message(b"text/plain; charset=iso-8859-1", b"8bit", b"na\xefve"), ["naïve"]),
        (message(b"text/html", b"7bit", b"<p>hi</p>"), ["<p>hi</p>"]),
        (message(b"image/png", b"base64", b"bm8="), []),
    ],
)
def test_body_texts(raw: bytes, shown: list[str]) -> None:
    assert list(text.body_texts(raw, mime.parse(raw).root)) == shown


def test_parts_and_messages_within_are_looked_into() -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Subject: =?utf-8?q?=C3=A9?=\r\n\r\ninner\r\n--b\r\nContent-Type: application/pdf; name=secret.pdf\r\n\r\nbytes\r\n--b--"
    )
    found = "\n".join(text.body_texts(raw, mime.parse(raw).root))
    assert "Subject: é" in found and "inner" in found and "secret.pdf" in found and "bytes" not in found


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (message(b"text/plain", b"7bit", b"Hello\r\n\r\n  there,\tfriend\r\n"), "Hello there, friend"),
        (message(b"text/plain", b"7bit", b"> quoted\r\nown words"), "own words"),
        (message(b"text/plain", b"7bit", b"> only quoted"), "> only quoted"),
        (message(b"text/html", b"7bit", b"<style>p{}</style><p>a &amp; b</p><p>c"), "a & b c"),
        (message(b"text/plain", b"7bit", b"x" * 1000), "x" * 200),
        (message(b"image/png", b"base64", b"bm8="), ""),
        (message(b"text/plain", b"7bit", b"a\x00\x07b"), "a  b"),
    ],
)
def test_preview(raw: bytes, shown: str) -> None:
    assert text.preview(raw, mime.parse(raw).root) == shown


@pytest.mark.parametrize(
    ("needle", "haystack"),
    [
        ("NEEDLE", "a needle here"),
        ("é", "CAFÉ"),
        ("e", "café"),
        ("straße", "STRASSE"),
        ("ﬁ", "file"),
        ("İ", "i̇stanbul"),
    ],
)
def test_what_is_found(needle: str, haystack: str) -> None:
    assert text.fold(needle) in text.fold(haystack)


@given(st.binary(max_size=200))
def test_any_octets_are_some_text(raw: bytes) -> None:
    text.header_text(raw)
    root = mime.parse(raw).root
    text.preview(raw, root)
    list(text.body_texts(raw, root))
    text.searchable_header(raw)


@given(st.text(max_size=12), st.binary(max_size=40))
def test_any_charset_is_bearable(name: str, octets: bytes) -> None:
    text.decode(octets, name)


@pytest.mark.parametrize("name", ["idna", "punycode", "unicode_escape", "base64", "zip", "hex", "undefined"])
def test_codecs_that_are_no_charsets_are_not_used(name: str) -> None:
    assert text.decode(b"plain+AGE-\\u0041", name) == "plain+AGE-\\u0041"
