"""Paths and parameters by RFC 5321 §4.1.2 and RFC 6531 §3.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol.smtp_syntax import (
    NULL,
    MailParameters,
    Path,
    Refused,
    decode_xtext,
    encode_xtext,
    parse_address,
    parse_hello,
    parse_mail,
    parse_rcpt,
    quote_local,
)

OFFERED = frozenset({"SIZE", "BODY", "SMTPUTF8"})
INTERNAL = OFFERED | {"XTRACE", "AUTH"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("<>", NULL),
        ("<a@b>", Path("a", "b")),
        ("<a@b.example>", Path("a", "b.example")),
        ("<a.b+tag@b.example>", Path("a.b+tag", "b.example")),
        ("<!#$%&'*+-/=?^_`{|}~@b.example>", Path("!#$%&'*+-/=?^_`{|}~", "b.example")),
        ('<"a b"@c.example>', Path("a b", "c.example")),
        (r'<"a\"b\\c"@d.example>', Path('a"b\\c', "d.example")),
        ('<"a@b"@c.example>', Path("a@b", "c.example")),
        ('<"abc"@d.example>', Path("abc", "d.example")),
        ("<a@[192.0.2.1]>", Path("a", "[192.0.2.1]")),
        ("<a@[IPv6:2001:db8::1]>", Path("a", "[IPv6:2001:db8::1]")),
        ("<@relay.example,@other.example:a@b.example>", Path("a", "b.example")),
        ("<a@xn--bcher-kva.example>", Path("a", "xn--bcher-kva.example")),
        ("<a@host_name.example>", Path("a", "host_name.example")),
        (" <a@b>", Path("a", "b")),
        (f"<{'x' * 64}@b.example>", Path("x" * 64, "b.example")),
    ],
)
def test_paths(text: str, path: Path) -> None:
    assert parse_mail(f"FROM:{text}", OFFERED) == (path, MailParameters())
    if path != NULL:
        assert parse_rcpt(f"TO:{text}", False)[0] == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a@b.example",
        "<a@b.example",
        "a@b.example>",
        "<a>",
        "<@b.example>",
        "<a@>",
        "<a b@c.example>",
        "<a..b@c.example>",
        "<.a@c.example>",
        "<a.@c.example>",
        "<a@b..example>",
        "<a@.example>",
        "<a@b.example.>",
        "<a@-b.example>",
        "<a@b-.example>",
        "<a(comment)@b.example>",
        "<a@b.example(comment)>",
        "(comment) <a@b.example>",
        "Name <a@b.example>",
        "<a@b.example>x",
        "<a@b.example> <c@d.example>",
        "<a@b@c.example>",
        "<a@[192.0.2.256]>",
        "<a@[192.0.2]>",
        "<a@[192.0.2.1.]>",
        "<a@192.0.2.1]>",
        "<a@[2001:db8::1]>",
        "<a@[IPv6:2001:db8::g]>",
        "<a@[IPv6:fe80::1%eth0]>",
        "<a@[x-tag:what]>",
        '<"a"b@c.example>',
        '<""@c.example>',
        '<"a@c.example>',
        f"<{'x' * 65}@b.example>",
        f"<a@{'x' * 64}.example>",
        f"<a@{'x.' * 127}example>",
        f"<{'x' * 64}@{'.'.join(['y' * 60] * 4)}>",
        "<<a@b.example>>",
        "<,a@b.example>",
        "<@relay.example:>",
    ],
)
def test_what_is_no_path(text: str) -> None:
    for read in (lambda: parse_mail(f"FROM:{text}", OFFERED), lambda: parse_rcpt(f"TO:{text}", True)):
        with pytest.raises(Refused) as refused:
            read()
        assert refused.value.reply.code == 501


def test_keywords() -> None:
    assert parse_mail("from:<a@b>", OFFERED)[0] == Path("a", "b")
    assert parse_rcpt("to:<a@b>", False)[0] == Path("a", "b")
    for argument in ("", "TO:<a@b>", "FROM <a@b>", "FROM :<a@b>", "<a@b>"):
        with pytest.raises(Refused) as refused:
            parse_mail(argument, OFFERED)
        assert refused.value.reply.code == 501


def test_postmaster_needs_no_domain() -> None:
    """RFC 5321 §4.5.1; nobody else may come bare, and no sender."""
    assert parse_rcpt("TO:<Postmaster>", False)[0] == Path("Postmaster", "")
    for argument in ("FROM:<postmaster>",):
        with pytest.raises(Refused):
            parse_mail(argument, OFFERED)


def test_there_is_no_null_recipient() -> None:
    with pytest.raises(Refused):
        parse_rcpt("TO:<>", False)


@pytest.mark.parametrize("text", ["<ü@b.example>", "<a@bücher.example>", '<"ü x"@b.example>', "<用户@例子.example>"])
def test_non_ascii_addresses_need_smtputf8(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_mail(f"FROM:{text}", OFFERED)
    assert refused.value.reply.code == 553
    assert not parse_mail(f"FROM:{text} SMTPUTF8", OFFERED)[0].ascii
    with pytest.raises(Refused) as refused:
        parse_rcpt(f"TO:{text}", False)
    assert refused.value.reply.code == 553
    assert not parse_rcpt(f"TO:{text}", True)[0].ascii


def test_octets_are_counted_not_characters() -> None:
    with pytest.raises(Refused):
        parse_rcpt(f"TO:<{'ü' * 33}@b.example>", True)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("SIZE=0", MailParameters(size=0)),
        ("size=12345 body=8bitmime", MailParameters(size=12345, body="8BITMIME")),
        ("  BODY=7BIT   SMTPUTF8 ", MailParameters(body="7BIT", smtputf8=True)),
        ("XTRACE=0123456789abcdef", MailParameters(trace="0123456789abcdef")),
        ("AUTH=<>", MailParameters(auth="")),
        ("AUTH=e+3Dmc2@example.com", MailParameters(auth="e=mc2@example.com")),
    ],
)
def test_parameters(text: str, parameters: MailParameters) -> None:
    assert parse_mail(f"FROM:<a@b> {text}", INTERNAL)[1] == parameters


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("FOO", 555),
        ("FOO=bar", 555),
        ("AUTH=<>", 555),  # not offered on this listener
        ("XTRACE=0123456789abcdef", 555),
        ("RET=HDRS", 555),
        ("SIZE", 501),
        ("SIZE=", 501),
        ("SIZE=-1", 501),
        ("SIZE=1e3", 501),
        ("SIZE=" + "9" * 21, 501),
        ("SIZE=1 SIZE=1", 501),
        ("BODY=9BIT", 501),
        ("BODY", 501),
        ("SMTPUTF8=yes", 501),
        ("=x", 501),
        ("SIZE==1", 501),
        ("-SIZE=1", 501),
    ],
)
def test_bad_parameters(text: str, code: int) -> None:
    with pytest.raises(Refused) as refused:
        parse_mail(f"FROM:<a@b> {text}", OFFERED)
    assert refused.value.reply.code == code


@pytest.mark.parametrize("text", ["AUTH=x", "AUTH=a@b@c", "AUTH", "XTRACE=short", "XTRACE", "XTRACE=" + "A" * 16])
def test_bad_internal_parameters(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_mail(f"FROM:<a@b> {text}", INTERNAL)
    assert refused.value.reply.code == 501


def test_rcpt_has_no_parameters_unless_they_are_offered() -> None:
    with pytest.raises(Refused) as refused:
        parse_rcpt("TO:<a@b> NOTIFY=NEVER", False)
    assert refused.value.reply.code == 555


def test_hello_takes_what_clients_say() -> None:
    for name in ("client.example", "[192.0.2.1]", "[IPv6:::1]", "LAPTOP-7", "my_host", "localhost"):
        assert parse_hello(name) == name
    for name in ("", "two words", "x" * 256, "bücher.example"):
        with pytest.raises(Refused):
            parse_hello(name)


def test_addresses_outside_of_commands() -> None:
    assert parse_address("a@b.example") == Path("a", "b.example")
    for text in ("", "a", "<a@b>", "a@b\n", "a@b x", "@b"):
        with pytest.raises(ValueError, match="not an address"):
            parse_address(text)


LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)


@given(LOCAL)
def test_any_local_part_is_written_so_that_it_reads_back(local: str) -> None:
    path = Path(local, "b.example")
    assert parse_mail(f"FROM:{path}", OFFERED)[0] == path
    assert quote_local(local) in path.address


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_xtext_makes_the_round_trip(text: str) -> None:
    encoded = encode_xtext(text)
    assert decode_xtext(encoded) == text
    assert encoded.isascii()
    assert " " not in encoded
    assert "=" not in encoded


@pytest.mark.parametrize("text", ["a b", "a=b", "a+b", "+2", "ü", "+FF"])
def test_what_is_not_xtext(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_xtext(text)


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    for read in (
        lambda: parse_mail("FROM:" + text, INTERNAL),
        lambda: parse_rcpt("TO:" + text, True),
        lambda: parse_hello(text),
    ):
        try:
            read()
        except Refused as refused:
            assert refused.reply.code >= 500
