"""The stored form of addresses, and what is refused."""

from __future__ import annotations

import pytest

from services.directory import addresses
from services.directory.addresses import InvalidName

KEPT = [
    (addresses.domain_name, "Family.Example", "family.example"),
    (addresses.domain_name, " family.example. ", "family.example"),
    (addresses.domain_name, "例子.中国", "xn--fsqu00a.xn--fiqs8s"),
    (addresses.domain_name, "XN--FSQU00A.xn--fiqs8s", "xn--fsqu00a.xn--fiqs8s"),
    (addresses.domain_name, "BÜCHER.example", "xn--bcher-kva.example"),
    (addresses.domain_name, "a.b.c.d.example", "a.b.c.d.example"),
    (addresses.domain_name, "x" * 63 + ".example", "x" * 63 + ".example"),
    (addresses.account_address, "Anna@Family.Example", "anna@family.example"),
    (addresses.account_address, "o'neill@family.example", "o'neill@family.example"),
    (addresses.account_address, "anna.b-c_d@例子.中国", "anna.b-c_d@xn--fsqu00a.xn--fiqs8s"),
    (addresses.account_address, "x" * 64 + "@family.example", "x" * 64 + "@family.example"),
    (addresses.address, "user+tag@family.example", "user+tag@family.example"),
    (addresses.alias_source, "@Family.Example", "@family.example"),
    (addresses.alias_source, "*@family.example", "@family.example"),
    (addresses.alias_source, "Info@family.example", "info@family.example"),
    (addresses.user_name, " Anna.B ", "anna.b"),
]

REFUSED = [
    (addresses.domain_name, text)
    for text in (
        "", ".", "bare", "family..example", ".family.example", "-family.example", "family-.example", "fam ily.example",
        "family_x.example", "192.0.2.1", "[192.0.2.1]", "family.example/x", "..", "../etc", "family.exa\0mple",
        "x" * 64 + ".example", ".".join(["x" * 60] * 5), "family.example\n.", "a@b.example", "\ud800.example", "例 子.中国",
    )
] + [
    (addresses.account_address, text)
    for text in (
        "", "anna", "@family.example", "anna@", "an na@family.example", "../x@family.example", "a/b@family.example",
        ".anna@family.example", "anna.@family.example", "an..na@family.example", "an\0na@family.example",
        '"anna b"@family.example', "anna@[192.0.2.1]", "anna@bare", "x" * 65 + "@family.example",
        "anna+tag@family.example", "mailer-daemon@family.example", "MAILER-DAEMON@family.example", "用户@family.example",
        "a@b@family.example", "anna@family.example\r\nRCPT TO:<x>", "..@family.example", "anna@.", "<anna@family.example>",
        "x" * 64 + "@" + ".".join(["y" * 60] * 3) + ".example",
    )
] + [
    (addresses.alias_source, "@"), (addresses.alias_source, "*@bare"), (addresses.alias_source, "info"),
    (addresses.user_name, ""), (addresses.user_name, "anna b"), (addresses.user_name, "anna@x"),
    (addresses.user_name, ".anna"), (addresses.user_name, "x" * 65), (addresses.user_name, "用户"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "typed", "stored"), KEPT)
def test_stored_form(form, typed, stored):
    assert form(typed) == stored
    assert form(stored) == stored


@pytest.mark.parametrize(("form", "typed"), REFUSED)
def test_refused_with_a_sentence(form, typed):
    with pytest.raises(InvalidName) as caught:
        form(typed)
    assert len(str(caught.value)) > 10


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ("ANNA@Family.Example", "anna@family.example"),
        ("anna@例子.中国", "anna@xn--fsqu00a.xn--fiqs8s"),
        ("用户@family.example", "用户@family.example"),
        ("anna@\ud800", "anna@\\ud800"),
        ("\udc80@例子.中国", "\\udc80@xn--fsqu00a.xn--fiqs8s"),
        ("anna@例子..中国", "anna@例子..中国"),
        ("", ""),
    ],
)
def test_lookup_key_never_raises(asked, key):
    assert addresses.key(asked) == key
