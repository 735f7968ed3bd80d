"""ENVELOPE, BODYSTRUCTURE and HEADER.FIELDS, octet by octet. The addresses' table was compared with Dovecot 2.3."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.addresses import GROUP_END, Address, addresses
from services.message.envelope import body_structure, envelope, header_fields
from services.message.media_types import disposition, language_tags, media_type, mime_token
from services.message.mime import parse

LOST = b"MISSING_MAILBOX"
NOWHERE = b"MISSING_DOMAIN"


def one(name: bytes | None, mailbox: bytes | None, host: bytes | None, route: bytes | None = None) -> Address:
    return Address(name, route, mailbox, host)


def group(name: bytes) -> Address:
    return one(None, name, None)


ADDRESSES = [
    (b"a@b.example", [one(None, b"a", b"b.example")]),
    (b"<a@b>", [one(None, b"a", b"b")]),
    (b"Ann B. Cee <a@b>", [one(b"Ann B. Cee", b"a", b"b")]),
    (b'"Cee, Ann" <a@b>, c@d', [one(b"Cee, Ann", b"a", b"b"), one(None, b"c", b"d")]),
    (b'"Giant; \\"Big\\" Box" <a@b>', [one(b'Giant; "Big" Box', b"a", b"b")]),
    (b'"" <a@b>', [one(None, b"a", b"b")]),
    (b'"A" "B" C. <a@b>', [one(b"A B C.", b"a", b"b")]),
    (b"=?utf-8?q?J=C3=B6rg?= <a@b>", [one(b"=?utf-8?q?J=C3=B6rg?=", b"a", b"b")]),
    (b"J\xc3\xb6rg <a@b>", [one(b"J\xc3\xb6rg", b"a", b"b")]),
    (b"a@b (Some Name)", [one(b"Some Name", b"a", b"b")]),
    (b"a@b (x(y)z)", [one(b"x(y)z", b"a", b"b")]),
    (b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [one(b"Pete", b"pete", b"silly.test")]),
    (b"  a@b  ,\r\n  c@d", [one(None, b"a", b"b"), one(None, b"c", b"d")]),
    (b'"a b"@c', [one(None, b"a b", b"c")]),
    (b"a@[1.2.3.4]", [one(None, b"a", b"[1.2.3.4]")]),
    (b"jdoe@test   . example", [one(None, b"jdoe", b"test.example")]),
    (b"<@a,@b:c@d>", [one(None, b"c", b"d", b"@a,@b")]),
    (b".a@b", [one(None, b".a", b"b")]),
    (b"a..b@c", [one(None, b"a..b", b"c")]),
    (b"undisclosed-recipients:;", [group(b"undisclosed-recipients"), GROUP_END]),
    (
        b"g: a@b, N <c@d>; , x@y",
        [group(b"g"), one(None, b"a", b"b"), one(b"N", b"c", b"d"), GROUP_END, one(None, b"x", b"y")],
    ),
    (b"g: a@b", [group(b"g"), one(None, b"a", b"b"), GROUP_END]),
    (b"", []),
    (b"  (only a comment) ", []),
    (b"foo", [one(None, b"foo", NOWHERE)]),
    (b"foo <bar>", [one(b"foo", b"bar", NOWHERE)]),
    (b"<>", [one(None, LOST, NOWHERE)]),
    (b"a b c, z@z", [one(b"a b c", LOST, NOWHERE), one(None, b"z", b"z")]),
    (b", z@z", [one(None, LOST, NOWHERE), one(None, b"z", b"z")]),
    (b"<a@b", [one(None, b"a", b"SYNTAX_ERROR")]),
    (b"<@:c@d>", [one(None, LOST, b"SYNTAX_ERROR", b"INVALID_ROUTE")]),
    (b'"unclosed <a@b>', [one(None, LOST, NOWHERE)]),
    (b"a@b;c@d", [one(None, b"a", b"b")]),
    (b"a (c", [one(None, LOST, NOWHERE)]),
]


@pytest.mark.parametrize(("value", "found"), ADDRESSES)
def test_addresses(value: bytes, found: list[Address]) -> None:
    assert list(addresses(value)) == found


@pytest.mark.parametrize("value", [b" " * 250_000, b"a@b.example," + b"\t" * 250_000 + b"x"])
def test_blanks_without_an_address_cost_no_minutes(value: bytes) -> None:
    began = time.process_time()
    addresses(value)
    assert time.process_time() - began < 2  # it was minutes: each blank was tried as the beginning of the rest


@given(st.binary(max_size=80))
def test_any_octets_are_some_addresses(value: bytes) -> None:
    for address in addresses(value):
        assert address == GROUP_END or address.mailbox is not None


def test_a_list_of_a_million_addresses_is_bounded() -> None:
    assert len(addresses(b"a@b," * 1_000_000)) == 4096


MESSAGE = (
    b"From: Ann <ann@a.example>\r\nTo: bob@b.example\r\nCc: c@c.example\r\nSubject: Hello\r\n  there\r\n"
    b"Date: Sun, 1 Feb 2026 00:00:00 +0000\r\nMessage-ID: <1@a.example>\r\nIn-Reply-To: <0@a.example>\r\n\r\n"
)


def test_envelope() -> None:
    assert envelope(parse(MESSAGE).root.fields) == (
        b'("Sun, 1 Feb 2026 00:00:00 +0000" "Hello there" (("Ann" NIL "ann" "a.example")) '
        b'(("Ann" NIL "ann" "a.example")) (("Ann" NIL "ann" "a.example")) ((NIL NIL "bob" "b.example")) '
        b'((NIL NIL "c" "c.example")) NIL "<0@a.example>" "<1@a.example>")'
    )


def test_envelope_of_nothing() -> None:
    assert envelope(parse(b"\r\n").root.fields) == b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"


@pytest.mark.parametrize(
    ("field", "place", "wire"),
    [
        (b"Subject: caf\xe9", 1, b"{4}\r\ncaf\xe9"),
        (b'Subject: say "hi"', 1, b'"say \\"hi\\""'),
        (b"Subject:", 1, b'""'),
        (b"Subject: a\0b", 1, b"{3}\r\na\x80b"),
        (b"Date: Sun,\r\n 1 Feb", 0, b'"Sun, 1 Feb"'),
        (b"Message-ID: <a\rb>", 9, b'"<a b>"'),
    ],
)
def test_strings_in_an_envelope(field: bytes, place: int, wire: bytes) -> None:
    parts = [b"NIL"] * 10
    parts[place] = wire
    assert envelope(parse(field + b"\r\n\r\n").root.fields) == b"(%s)" % b" ".join(parts)


def test_sender_and_reply_to_of_their_own() -> None:
    found = envelope(parse(b"From: a@a\r\nSender: s@s\r\nReply-To: r@r\r\n\r\n").root.fields)
    assert found == b'(NIL NIL ((NIL NIL "a" "a")) ((NIL NIL "s" "s")) ((NIL NIL "r" "r")) NIL NIL NIL NIL NIL)'


def test_addresses_of_a_field_that_came_twice_are_all_there() -> None:
    assert b'((NIL NIL "a" "b")(NIL NIL "c" "d"))' in envelope(parse(b"To: a@b\r\nTo: c@d\r\n\r\n").root.fields)


STRUCTURES = [
    (
        b"Subject: x\n\nhi\n",
        b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 1 NIL NIL NIL NIL)',
    ),
    (
        b'MIME-Version: 1.0\nContent-Type: TEXT/Html; charset=utf-8; x="y z"\nContent-Transfer-Encoding: BASE64\n'
        b"Content-ID: <i>\nContent-Description: d\nContent-Disposition: attachment; filename=f\n"
        b"Content-Language: en, de\nContent-Location: l\nContent-MD5: m\n\nhi\n",
        b'("TEXT" "Html" ("charset" "utf-8" "x" "y z") "<i>" "d" "BASE64" 4 1 "m" ("attachment" ("filename" "f")) '
        b'("en" "de") "l")',
    ),
    (
        b"Content-Type: image/png\n\nxx",
        b'("image" "png" NIL NIL NIL "7bit" 2 NIL NIL NIL NIL)',
    ),
    (
        b"Content-Type: multipart/alternative; boundary=b\n\n--b\n\none\n--b\nContent-Type: text/html\n\ntwo\n--b--\n",
        b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL)'
        b'("text" "html" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL) '
        b'"alternative" ("boundary" "b") NIL NIL NIL)',
    ),
    (
        b"Content-Type: multipart/mixed; boundary=b\n\nnothing\n",
        b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) "mixed" ("boundary" "b") '
        b"NIL NIL NIL)",
    ),
    (
        b"Content-Type: message/rfc822\n\nSubject: in\n\nhi\n",
        b'("message" "rfc822" NIL NIL NIL "7bit" 19 (NIL "in" NIL NIL NIL NIL NIL NIL NIL NIL) '
        b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 1 NIL NIL NIL NIL) 3 NIL NIL NIL NIL)',
    ),
    # RFC 2045 §5.2: broken syntax counts as text/plain
    (
        b"Content-Type: te xt/plain\n\nhi\n",
        b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 1 NIL NIL NIL NIL)',
    ),
    # RFC 2045 §4: no MIME at all
    (
        b"Content-Transfer-Encoding: base64\n\nhi\n",
        b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 1 NIL NIL NIL NIL)',
    ),
]


@pytest.mark.parametrize(("raw", "structure"), STRUCTURES)
def test_body_structure(raw: bytes, structure: bytes) -> None:
    assert body_structure(parse(raw).root) == structure


def test_body_has_no_extension_data() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-MD5: m\n\none\n--b--\n"
    assert body_structure(parse(raw).root, extended=False) == (
        b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0) "mixed")'
    )


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        (b"a/b; c=d", [(b"c", b"d")]),
        (b'a/b;c=d;e="f;g"', [(b"c", b"d"), (b"e", b"f;g")]),
        (b"a/b (x); c (y) = (z) d (w)", [(b"c", b"d")]),
        (b"a/b;;c=d", [(b"c", b"d")]),
        (b"a/b; junk; c=d", [(b"c", b"d")]),
        (b"a/b; c=", [(b"c", b"")]),
        (b'a/b; c="fold\r\n ed"', [(b"c", b"fold ed")]),
        (b"a/b; c==?utf-8?b?eA==?=; e=f", [(b"c", b"=?utf-8?b?eA==?="), (b"e", b"f")]),
        (b"a/b; n*=utf-8''x%20y", [(b"n*", b"utf-8''x%20y")]),
        (b"a/b; n*1=b; n*0=a", [(b"n", b"ab")]),
        (b"a/b; n*0*=utf-8''a%20; n*1=100%", [(b"n*", b"utf-8''a%20100%25")]),
        (b"a/b; n*0=a; n*2=c", [(b"n*0", b"a"), (b"n*2", b"c")]),
    ],
)
def test_parameters(value: bytes, parameters: list[tuple[bytes, bytes]]) -> None:
    assert list(media_type(value).parameters) == parameters


@given(st.binary(max_size=80))
def test_any_octets_are_some_type(value: bytes) -> None:
    media_type(value)
    disposition(value)
    language_tags(value)
    mime_token(value)


HEADER = b"Received: a\r\n\tb\r\nFrom: x\r\nno colon\r\nSubject : y\r\n z\r\nreceived: c\r\n\r\n"


@pytest.mark.parametrize(
    ("names", "without", "found"),
    [
        ({b"from"}, False, b"From: x\r\n\r\n"),
        ({b"received"}, False, b"Received: a\r\n\tb\r\nreceived: c\r\n\r\n"),
        ({b"subject", b"from"}, False, b"From: x\r\nSubject : y\r\n z\r\n\r\n"),
        ({b"x"}, False, b"\r\n"),
        ({b"received", b"no colon"}, True, b"From: x\r\nSubject : y\r\n z\r\n\r\n"),
        ({b"received"}, True, b"From: x\r\nno colon\r\nSubject : y\r\n z\r\n\r\n"),
    ],
)
def test_header_fields(names: set[bytes], without: bool, found: bytes) -> None:
    assert header_fields(HEADER, frozenset(names), without=without) == found


def test_header_fields_of_a_header_that_breaks_off() -> None:
    assert header_fields(b"From: x", frozenset((b"from",))) == b"From: x\r\n\r\n"
