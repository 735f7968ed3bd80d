"""Whose domain From names, and every From that tries to name two: one clear domain, or a reason."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.from_domain import MOST_DOMAINS, Authors, from_domains

ENCODED = b"=?utf-8?B?Ym9zc0BiYW5rLmV4YW1wbGU=?="  # boss@bank.example

# (what, value of From, domains, displayed, words of the problem)
VALUES = [
    ("bare", b"joe@example.org", ["example.org"], [], ""),
    ("with a name", b"Joe <joe@example.org>", ["example.org"], [], ""),
    ("with a quoted name", b'"Joe (home)" <joe@example.org>', ["example.org"], [], ""),
    ("with a comment", b"joe@example.org (Joe)", ["example.org"], [], ""),
    ("folded", b"Joe\r\n <joe@example.org>", ["example.org"], [], ""),
    ("capitals", b"<Joe@EXAMPLE.Org>", ["example.org"], [], ""),
    ("a dot at the end", b"<joe@example.org.>", ["example.org"], [], ""),
    ("white space about @", b"joe @ example . org", ["example.org"], [], ""),
    ("a quoted local part", b'"joe@home"@example.org', ["example.org"], ["home"], ""),
    ("an encoded name", b"=?utf-8?Q?J=C3=B6?= <joe@example.org>", ["example.org"], [], ""),
    ("two of one domain", b"joe@example.org, Ann <ann@example.org>", ["example.org"], [], ""),
    ("a group with one", b"Us: joe@example.org;", ["example.org"], [], ""),
    ("IDN", "Jö <jö@Bücher.example>".encode(), ["xn--bcher-kva.example"], [], ""),
    ("A-labels", b"<joe@xn--bcher-kva.example>", ["xn--bcher-kva.example"], [], ""),
    ("the same address as name", b"joe@example.org <joe@example.org>", ["example.org"], [], ""),
    ("a stranger's address as quoted name", b'"boss@bank.example" <m@evil.example>',
     ["evil.example"], ["bank.example"], ""),
    ("a stranger's address in a comment", b"m@evil.example (boss@bank.example)",
     ["evil.example"], ["bank.example"], ""),
    ("a stranger's address in an encoded name", ENCODED + b" <m@evil.example>",
     ["evil.example"], ["bank.example"], ""),
    ("a name with a comma and without quotes", b"Doe, Joe <joe@example.org>", ["example.org"], [], ""),
    ("a wide @ in a name", "\"boss\uff20bank.example\" <m@evil.example>".encode(),
     ["evil.example"], ["bank.example"], ""),
    ("wide letters in a domain", "<joe@\uff45xample.org>".encode(), ["example.org"], [], ""),
    # what is no one domain
    ("a name with a comma and a stranger's address", ENCODED + b", Joe <joe@example.org>", ["example.org"],
     ["bank.example"], "cannot be read"),
    ("empty", b"", [], [], "no address"),
    ("a name alone", b"Joe", [], [], "no address"),
    ("null address", b"<>", [], [], "no address"),
    ("an empty group", b"undisclosed:;", [], [], "no address"),
    ("two domains", b"m@evil.example, boss@bank.example", ["evil.example", "bank.example"], [], "several domains"),
    ("two domains, the other way", b"<boss@bank.example>, <m@evil.example>",
     ["bank.example", "evil.example"], [], "several domains"),
    ("two in a group", b"Us: a@evil.example, b@bank.example;",
     ["evil.example", "bank.example"], [], "several domains"),
    ("a stranger's address as bare name", b"boss@bank.example <m@evil.example>",
     ["evil.example", "bank.example"], [], "several domains"),
    ("an address behind the address", b"<m@evil.example> boss@bank.example",
     ["evil.example", "bank.example"], [], "several domains"),
    ("two angles", b"<m@evil.example> <boss@bank.example>", ["evil.example", "bank.example"], [], "several domains"),
    ("a route", b"<@bank.example,@x.example:m@evil.example>",
     ["evil.example", "bank.example", "x.example"], [], "several domains"),
    ("an address of two @", b"<boss@bank.example@evil.example>",
     ["bank.example", "evil.example"], [], "cannot be read"),
    ("an encoded address alone", ENCODED, [], ["bank.example"], "no address"),
    ("an encoded address and another", ENCODED + b", m@evil.example", ["evil.example"], ["bank.example"],
     "cannot be read"),
    ("an open comment", b"m@evil.example (boss@bank.example",
     ["evil.example", "bank.example"], [], "cannot be read"),
    ("an open quote", b'm@evil.example, "boss@bank.example',
     ["evil.example", "bank.example"], [], "cannot be read"),
    ("a comment within the domain", b"<m@bank.example(.evil.example)>",
     ["bank.example"], [], ""),
    ("a NUL", b"boss@bank.example\0@evil.example", ["bank.example", "evil.example"], [], "cannot be read"),
    ("a control character", b"boss@bank.example\x01", ["bank.example"], [], "cannot be read"),
    ("an address in brackets", b"<joe@[192.0.2.1]>", [], [], "domain that is none"),
    ("an underscore is met", b"<joe@a_b.example>", ["a_b.example"], [], ""),
    ("an empty label", b"<joe@example..org>", [], [], "domain that is none"),
    ("no UTF-8", b"<joe@b\xfccher.example>", [], ["xn--bcher-kva.example"], "domain that is none"),
    ("too long", b"a@example.org," * 2000, [], [], "too long"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "value", "domains", "displayed", "problem"), VALUES, ids=[v[0] for v in VALUES])
def test_values(what: str, value: bytes, domains: list[str], displayed: list[str], problem: str) -> None:
    found = from_domains(b"Subject: x\r\nFrom: " + value + b"\r\nTo: a@b.test\r\n\r\n")
    assert sorted(found.domains) == sorted(domains), found
    assert problem in found.problem and bool(found.problem) == bool(problem), found
    assert list(found.displayed) == [each for each in displayed if each not in domains], found
    if not problem:
        assert len(found.domains) == 1


# (what, header, problem)
HEADERS = [
    ("none", b"Subject: x\r\n", "no From"),
    ("an empty header", b"", "no From"),
    ("one", b"From: a@b.test\r\n", ""),
    ("in capitals", b"FROM: a@b.test\r\n", ""),
    ("a blank before the colon", b"From : a@b.test\r\n", ""),
    ("two", b"From: a@b.test\r\nFrom: c@d.test\r\n", "more than one From"),
    ("two of one address", b"From: a@b.test\r\nFROM :a@b.test\r\n", "more than one From"),
    ("a blank before the first field", b" From: c@d.test\r\nFrom: a@b.test\r\n", "no field looks like From"),
    ("a control character about the name", b"From\0: c@d.test\r\nFrom: a@b.test\r\n", "no field looks like From"),
    ("an 8-bit octet", b"\xefFrom: c@d.test\r\nFrom: a@b.test\r\n", "no field looks like From"),
    ("only a hidden one", b"From\x01: c@d.test\r\n", "no field looks like From"),
    ("an mbox line", b"From a@b.test Mon Jan 1 00:00:00 2024\r\nFrom: a@b.test\r\n", ""),
    ("another field's fold", b"Subject: x\r\n From: c@d.test\r\nFrom: a@b.test\r\n", ""),
    ("X-From, Resent-From", b"X-From: c@d.test\r\nResent-From: e@f.test\r\nFrom: a@b.test\r\n", ""),
    ("a line without a colon", b"rubbish\r\nFrom: a@b.test\r\n", ""),
]


@pytest.mark.parametrize(("what", "header", "problem"), HEADERS, ids=[case[0] for case in HEADERS])
def test_headers(what: str, header: bytes, problem: str) -> None:
    found = from_domains(header)
    assert problem in found.problem and bool(found.problem) == bool(problem), found
    if not problem:
        assert found.domains == ("b.test",)


def test_no_more_domains_than_are_looked_up() -> None:
    many = b"From: " + b", ".join(b"a@d%d.test" % n for n in range(100)) + b"\r\n"
    assert len(from_domains(many).domains) == MOST_DOMAINS
    assert len(from_domains(b"From: a@b.test\r\n" * 10_000).domains) == 1


@given(st.binary())
def test_any_octets(octets: bytes) -> None:
    for header in (octets, b"From: " + octets + b"\r\n"):
        found = from_domains(header)
        assert isinstance(found, Authors) and (found.problem or len(found.domains) == 1)


PIECES = st.lists(
    st.sampled_from(
        [b"a@b.test", b"<", b">", b'"', b"(", b")", b",", b":", b";", b"@", b"\\", b" ", b"x", b"=?utf-8?q?a=40b?="]
    )
)


@given(PIECES)
def test_a_clear_domain_is_the_only_one_there_is(pieces: list[bytes]) -> None:
    found = from_domains(b"From: " + b"".join(pieces) + b"\r\n")
    if not found.problem:
        assert len(found.domains) == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"a@",
        b"@",
        b"<",
        b'"',
        b"(",
        b"\\",
        b"a ",
        b" ",
        b",",
        b"a@b,",
        b"=?utf-8?q?",
        b"a",
        b"\r\n ",
        b"\r\nFrom:",
        b":",
        b"a:b;",
        b"()",
    ],
)
def test_a_megabyte_of_anything_takes_no_time(octets: bytes) -> None:
    started = time.process_time()
    from_domains(b"From: " + octets * (1_000_000 // len(octets)) + b"\r\n")
    from_domains(octets * (1_000_000 // len(octets)) + b"\r\n")
    from_domains(b"From: " + octets * (16_000 // len(octets)) + b"\r\n")
    assert time.process_time() - started < 4
