"""Authentication-Results: what we write is read back as it was, what others write is read, ours from others goes."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.authentication_results import (
    MOST_RESULTS,
    AuthenticationResults,
    MethodResult,
    field,
    parse,
    value,
    without_ours,
)


def unfolded(written: bytes) -> bytes:
    """RFC 5322 §2.2.3: the line breaks go, nothing else."""
    return re.sub(rb"\r\n(?=[ \t])", b"", written.removesuffix(b"\r\n"))


def test_a_field_as_it_stands() -> None:
    results = [
        MethodResult("spf", "pass", properties=(("smtp.mailfrom", "joe@example.org"),)),
        MethodResult("dkim", "fail", "the body was changed", (("header.d", "example.org"), ("header.b", "ab/+cd=="))),
        MethodResult("dmarc", "pass", properties=(("header.from", "example.org"), ("policy.dmarc", ""))),
    ]
    assert field("mx.home.example", results) == (
        b"Authentication-Results: mx.home.example;\r\n"
        b"\tspf=pass smtp.mailfrom=joe@example.org;\r\n"
        b'\tdkim=fail reason="the body was changed" header.d=example.org\r\n'
        b' header.b="ab/+cd==";\r\n'
        b"\tdmarc=pass header.from=example.org\r\n"
    )
    assert value("mx.home.example", results[:1]) == "mx.home.example; spf=pass smtp.mailfrom=joe@example.org"
    assert field("mx", []) == b"Authentication-Results: mx;\r\n\tnone\r\n"


# (what, value, id, results as method=result, {"method name": value of that property})
READ = [
    # RFC 8601 appendix B
    ("B.1", b"example.org 1; none", "example.org", [], {}),
    ("B.2", b"example.com;\r\n          spf=pass smtp.mailfrom=example.net", "example.com", ["spf=pass"],
     {"spf smtp.mailfrom": "example.net"}),
    ("B.3", b"example.com;\r\n          auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n"
     b"          spf=pass smtp.mailfrom=example.net", "example.com", ["auth=pass", "spf=pass"],
     {"auth smtp.auth": "sender@example.net", "spf smtp.mailfrom": "example.net"}),
    ("B.4", b'example.com;\r\n dkim=pass (good signature) header.d=example.com; sender-id=pass header.from=example.com',
     "example.com", ["dkim=pass", "sender-id=pass"], {"dkim header.d": "example.com"}),
    ("B.5", b'example.com;\r\n dkim=fail reason="bad signature"\r\n header.i=@newyork.example.com', "example.com",
     ["dkim=fail"], {"dkim header.i": "@newyork.example.com"}),
    ("B.6 comments everywhere", b"foo.example.net (foobar) 1 (baz);\r\n    dkim (Because I like it) / 1 (One yay) ="
     b" (wait for it) fail\r\n      policy (A dot can go here) . (like that) expired\r\n"
     b"      (this surprised me) = (as I wasn't expecting it) 1362471462", "foo.example.net", ["dkim=fail"],
     {"dkim policy.expired": "1362471462"}),
    ("a quoted name", b'"mx home"; spf=pass', "mx home", ["spf=pass"], {}),
    ("a quoted value with a semicolon", b'mx; spf=fail reason="a; dkim=pass" smtp.helo=x', "mx", ["spf=fail"],
     {"spf smtp.helo": "x"}),
    ("a comment with a semicolon", b"mx; spf=fail (a; dkim=pass (b)) smtp.helo=x", "mx", ["spf=fail"],
     {"spf smtp.helo": "x"}),
    ("a quoted local part", b'mx; spf=pass smtp.mailfrom="a; b"@example.org', "mx", ["spf=pass"],
     {"spf smtp.mailfrom": "a; b@example.org"}),
    ("capitals", b"mx; SPF=Pass SMTP.MailFrom=Joe@Example.org", "mx", ["spf=pass"],
     {"spf smtp.mailfrom": "Joe@Example.org"}),
    ("UTF-8", "mx; spf=pass smtp.mailfrom=jörg@bücher.example".encode(), "mx", ["spf=pass"],
     {"spf smtp.mailfrom": "jörg@bücher.example"}),
    ("a broken result between", b"mx; rubbish; =x; spf=pass; dkim; x=", "mx", ["spf=pass"], {}),
    ("an open quote", b'mx; spf=pass; dkim=pass reason="x; dmarc=pass', "mx", ["spf=pass", "dkim=pass"], {}),
    ("an open comment", b"mx; spf=pass; dkim=pass (x; dmarc=pass", "mx", ["spf=pass", "dkim=pass"], {}),
    ("semicolons alone", b"mx;;;", "mx", [], {}),
    ("the name alone", b"mx", "mx", [], {}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "octets", "name", "results", "properties"), READ, ids=[case[0] for case in READ])
def test_reading(what: str, octets: bytes, name: str, results: list[str], properties: dict[str, str]) -> None:
    found = parse(b" " + octets + b"\r\n")
    assert found is not None and found.authserv_id == name
    assert [f"{each.method}={each.result}" for each in found.results] == results
    for key, expected in properties.items():
        method, _, which = key.partition(" ")
        assert next(each for each in found.results if each.method == method).of(which) == expected


@pytest.mark.parametrize("octets", [b"", b" ", b"(mx)", b"; spf=pass", b"(mx"])
def test_what_says_not_whose_it_is(octets: bytes) -> None:
    assert parse(octets) is None


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).filter(lambda t: t[0].isalpha())
ANYTHING = st.text(max_size=80)


def plain(text: str) -> str:
    """What of a value can be told in a header: printable, single blanks."""
    return re.sub("  +", " ", "".join(c if c.isprintable() else "?" for c in text))


@given(
    name=ANYTHING,
    results=st.lists(
        st.builds(
            MethodResult,
            TOKENS,
            TOKENS,
            ANYTHING,
            st.lists(st.tuples(st.tuples(TOKENS, TOKENS).map(".".join), ANYTHING), max_size=3).map(tuple),
        ),
        max_size=5,
    ),
)
def test_what_is_written_is_read_back(name: str, results: list[MethodResult]) -> None:
    """Whatever a stranger put into an address or a selector: no other field, no other result comes of it."""
    written = field(name, results)
    assert written.endswith(b"\r\n") and re.fullmatch(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*", written)
    assert not re.search(rb"\r\n[ \t]+\r\n", written), "RFC 5322 §3.2.2: no line of white space alone"
    assert unfolded(written).partition(b":")[2].split() == value(name, results).encode("utf-8", "replace").split()
    found = parse(unfolded(written).partition(b":")[2])
    expected = tuple(
        MethodResult(
            each.method,
            each.result,
            plain(each.reason),
            tuple((key, plain(text)) for key, text in each.properties if text),
        )
        for each in results
    )
    if plain(name):
        assert found == AuthenticationResults(plain(name), expected)


@given(st.binary(max_size=300))
def test_any_octets_are_read(octets: bytes) -> None:
    parse(octets)
    parse(b"mx;" + octets)


PIECES = st.sampled_from(
    [b"(", b")", b'"', b"\\", b";", b"=", b".", b"/", b" ", b"mx", b"spf", b"reason", b"@", b"\xff"]
)


@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_any_marks_are_read(octets: bytes) -> None:
    found = parse(b"mx;" + octets)
    assert found is not None and len(found.results) <= MOST_RESULTS


# (what, value of Authentication-Results, whether it claims to be ours)
CLAIMS = [
    ("plain", b"mx.home.example; spf=pass", True),
    ("capitals", b"MX.Home.EXAMPLE; spf=pass", True),
    ("with a version", b"mx.home.example 1; spf=pass", True),
    ("folded", b"\r\n\tmx.home.example\r\n ; spf=pass", True),
    ("a comment first", b"(hello (there)) mx.home.example (x); spf=pass", True),
    ("a comment at once behind", b"mx.home.example(x); none", True),
    ("quoted", b'"mx.home.example"; spf=pass', True),
    ("quoted with escapes", b'"mx\\.home.example"; spf=pass', True),
    ("a dot at the end", b"mx.home.example.; spf=pass", True),
    ("no result", b"mx.home.example", True),
    ("an open comment before it", b"(mx.home.example; spf=pass", True),
    ("nothing before our name in quotes", b'; "mx.home.example"; spf=pass', True),
    ("another", b"mx.other.example; spf=pass", False),
    ("ours within another", b"mx.home.example.evil.example; spf=pass", False),
    ("ours behind another", b"a.mx.home.example; spf=pass", False),
    ("ours as a value", b"mx.other.example; spf=pass smtp.helo=mx.home.example", False),
    ("ours in a comment", b"mx.other.example (mx.home.example); spf=pass", False),
    ("empty", b"", False),
    # Readers who take blanks, comments and letters of no width out of a name find ours in these.
    ("folded within", b"mx.home\r\n .example; spf=pass", True),
    ("comment within", b"mx.(a)home.example; spf=pass", True),
    ("no width", "mx.home.example\u200b; spf=pass".encode(), True),
    ("wide letters", "ｍｘ.home.example; spf=pass".encode(), True),
    ("ours as a value", b"other.example; spf=pass smtp.helo=mx.home.example", False),
]


@pytest.mark.parametrize(("what", "octets", "ours"), CLAIMS, ids=[case[0] for case in CLAIMS])
def test_what_claims_to_be_ours_goes(what: str, octets: bytes, ours: bool) -> None:
    for name in (b"Authentication-Results:", b"AUTHENTICATION-results \t:"):
        one = name + b" " + octets + b"\r\n"
        header = b"Received: x\r\n\ty\r\n" + one + b"From: a@b.test\r\n" + one + b"\r\n"
        expected = header.replace(one, b"") if ours else header
        assert without_ours(header, "mx.home.example") == expected
    near = b"X-Authentication-Results: mx.home.example\r\nARC-Authentication-Results: i=1; mx.home.example\r\n"
    assert without_ours(near, "mx.home.example") == near


LINES = st.lists(
    st.sampled_from(
        [
            b"Authentication-Results: mx.home.example; spf=pass\r\n",
            b"authentication-results:\r\n (x)\r\n MX.home.example;\r\n\tspf=pass\r\n",
            b"Authentication-Results: other; spf=pass\r\n",
            b"Subject: mx.home.example\r\n Authentication-Results: mx.home.example\r\n",
            b"rubbish\r\n",
            b"\r\n",
            b"\xff\0 \t:\n\r\r\n",
            b" Authentication-Results: mx.home.example\r\n",
        ]
    ),
    max_size=8,
)


@given(LINES, st.binary(max_size=40))
def test_all_other_octets_stay(lines: list[bytes], end: bytes) -> None:
    header = b"X: y\r\n" + b"".join(lines) + end
    left = without_ours(header, "mx.home.example")
    assert without_ours(left, "mx.home.example") == left, "once is enough"
    kept = re.split(rb"(?<=\r\n)(?![ \t])", header)
    assert left == b"".join(
        each
        for each in kept
        if not (re.match(rb"(?i)authentication-results[ \t]*:[^a-z]*(\(x\)\r\n )?mx\.home\.example", each))
    )


@given(st.binary(max_size=200))
def test_any_header_is_looked_through(octets: bytes) -> None:
    for header in (octets, b"Authentication-Results: " + octets):
        left = without_ours(header, "mx")
        assert len(left) <= len(header)
        if b"mx" not in header.lower():
            assert left == header


@pytest.mark.parametrize(
    "octets",
    [b"(", b"()", b"(\\", b'"', b'"\\"', b"\\", b";", b"a=b;", b"a", b" ", b"\r\n ", b"a=b c.d=", b"a.b=(c)", b"\r\nAuthentication-Results: mx;"],
)  # fmt: skip
def test_a_megabyte_of_anything_takes_no_time(octets: bytes) -> None:
    header = b"Authentication-Results: mx; " + octets * (1_000_000 // len(octets)) + b"\r\n"
    started = time.process_time()
    parse(header.partition(b":")[2])
    without_ours(header, "mx.home.example")
    assert time.process_time() - started < 4
