"""SPF beyond the published suite: grammar, macros, limits, what a stranger may put into them."""

from ipaddress import ip_address

import pytest

from services.policy.spf import MAX_SHOWN, SpfResult, check
from services.policy.spf_macro import Facts, MacroError, domain_spec, expand, macro_string, target_name
from services.policy.spf_record import MAX_RECORD, Record, RecordError, parse, select
from services.protocol.dns_lookup import Answer, DnsError, NoAnswer, Question, TemporaryFailure, answered

AWAY = TemporaryFailure("no answer within 10 seconds")
Zone = dict[tuple[str, str], Answer | DnsError]
FOUR, SIX = "192.0.2.3", "2001:db8::cb01"


def txt(*records: str) -> list[bytes]:
    return [record.encode() for record in records]


def judge(
    zone: Zone, ip: str = FOUR, helo: str = "mx.example.org", sender: str = "bob@a.test", **words: object
) -> SpfResult:
    return answered(check(ip, helo, sender, receiver="mail.home.test", now=1_700_000_000.5, **words), zone)  # type: ignore[arg-type]


# --- records ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms",
    [
        "", " ", "   -all   ", "all", "+ALL", "-aLL", "?all ~all",
        "a", "A/24", "a//64", "a/0//0", "a/32//128", "mx/9//9", "a:b.c", "a:b.c.", "a:b.c/24", "a:b.c//64", "a:b.c./24//64",
        "a:%{d}", "a:%{D}/24", "a:x%{d2r.-+,/_=}", "a:%{i}.x%-", "a:x%%", "a:%_.com", "a:a/b.c", "a:.com", "mx:a..b.c",
        "a:1.2.3.x4", "a:x.1-2", "a:x.1a", "a:x.xn--p1ai", "a:b:c.de", "a:foo_bar.com", "a:!#$&'()*+,-./:;<=>?@[]^`{|}~.com",
        "a:%{l127}.b.c", "a:%{l999999999999999999}.b.c", "a:%{lR}.b.c", "a:%{d/}/8",
        "ptr", "ptr:b.c", "-ptr:%{h}", "exists:%{ir}.%{v}._spf.%{d2}", "include:%{d}", "include:b.c",
        "ip4:1.2.3.4", "ip4:1.2.3.4/0", "ip4:255.255.255.255/32", "IP4:0.0.0.0/9",
        "ip6:::", "ip6:::1/128", "ip6:::ffff:1.2.3.4/96", "ip6:2001:DB8::/32", "IP6:1:2:3:4:5:6:7:8",
        "redirect=b.c", "exp=b.c", "redirect=b.c exp=d.e -all", "REDIRECT=%{d2}", "Exp=b.c",
        "x=", "x=y", "x.y-z_1=%{d}/24", "moo=moo moo=moo", "ra=100 rp=100 rr=all", "default=pass", "x==", "x=a=b", "x=%%", "ip4=1.2.3.4", "v=spf1",
    ],
)  # fmt: skip
def test_records_that_are_right(terms: str) -> None:
    assert isinstance(parse(f"v=spf1 {terms}".encode()), Record)


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ("-all.", "no mechanism"), ("all:b.c", "nothing"), ("all/8", "nothing"), ("allx", "no mechanism"),
        ("--all", "no mechanism"), ("-", "no mechanism"), ("=", "no mechanism"), ("=x", "no mechanism"), (":", "no mechanism"),
        ("1up=x", "no mechanism"), ("moo", "no mechanism"), ("ip:1.2.3.4", "no mechanism"), ("ipv4:1.2.3.4", "no mechanism"),
        ("1.2.3.4", "no mechanism"), ("-redirect=b.c", "no mechanism"), ("redirect:b.c", "no mechanism"),
        ("prt", "no mechanism"), ("a,", "after its name"), ("-all,", "nothing"), ("a;", "after its name"),
        ("a:", "missing"), ("a:/24", "missing"), ("a/", "after its name"), ("a/24/", "after its name"), ("a//", "after its name"),
        ("a/24/64", "/64 is more than /32"), ("a/33", "more than"), ("a//129", "more than"), ("a/024", "after its name"),
        ("a/00", "after its name"), ("a/-1", "after its name"), ("a/24//064", "after its name"), ("a24", "no mechanism"),
        ("a:b", "dot"), ("a:b.", "dot"), ("a:b.c..", "dot"), ("a:b.1", "dot"), ("a:b.-c", "dot"), ("a:b.c-", "dot"),
        ("a:b.c_d", "dot"), ("a:b.c/x", "dot"), ("a:b.c:25", "dot"), ("a:1.2.3.4", "ip4"), ("mx:1.2.3.4/24", "ip4"),
        ("a:b.c%", "no macro"), ("a:%", "no macro"), ("a:%{}", "no macro"), ("a:%{d", "no macro"), ("a:%{0d}", "no macro"),
        ("a:%{d0}", "no part"), ("a:%{d00r}", "no part"), ("a:%{dr2}", "no macro"), ("a:%{d.r}", "no macro"),
        ("a:%{x}", "may stand there"), ("a:%{c}", "may stand there"), ("a:%{R}", "may stand there"), ("a:%{t}.b.c", "may stand"),
        ("a:%d.c", "no macro"), ("a:%(d).c", "no macro"), ("a:b\x7f.c", "no macro"), ("a:b\0.c", "no macro"),
        ("a\t-all", "after its name"), ("a\r\n", "after its name"), ("\t", "no mechanism"),
        ("include", "missing"), ("include:", "missing"), ("include:b.c/24", "dot"), ("exists", "missing"), ("exists:b", "dot"),
        ("ptr/24", "after its name"), ("ptr:", "missing"), ("ptr:b.c/24", "dot"),
        ("ip4", "an address"), ("ip4:", "no IPv4 address"), ("ip4:1.2.3", "no IPv4 address"), ("ip4:1.2.3.4.5", "no IPv4 address"),
        ("ip4:01.2.3.4", "no IPv4 address"), ("ip4:1.2.3.256", "no IPv4 address"), ("ip4:1.2.3.4/33", "more than"), ("ip4:1.2.3.4/08", "an address"),
        ("ip4:1.2.3.4//24", "an address"), ("ip4:1.2.3.4/", "an address"), ("ip4:1.2.3.4:25", "no IPv4 address"), ("ip4:::1", "no IPv4 address"),
        ("ip4:%{i}", "no IPv4 address"), ("ip6:1.2.3.4", "no IPv6 address"), ("ip6:::1/129", "more than"),
        ("ip6:fe80::1%eth0", "no IPv6 address"), ("ip6::1", "no IPv6 address"), ("ip6:1::2::3", "no IPv6 address"), ("ip6:::1//64", "an address"),
        ("redirect=", "missing"), ("redirect=b", "dot"), ("redirect=b.c/24", "dot"), ("exp=", "missing"), ("exp=%{c}", "may stand"),
        ("redirect=b.c redirect=b.c", "twice"), ("exp=b.c EXP=d.e", "twice"), ("x=%", "no macro"), ("x=%{q}", "may stand"),
        ("x=\x01", "no macro"), ("a:b.c\u00fc", "outside ASCII"), ("ip4:1.2.3.4\u200b -all", "outside ASCII"),
        ("\u2013all", "outside ASCII"), ("ip4:1.2.3.4,ip4:1.2.3.5", "no IPv4 address"),
    ],
)  # fmt: skip
def test_records_that_are_wrong(terms: str, why: str) -> None:
    record = f"v=spf1 {terms}".encode()
    with pytest.raises(RecordError, match=why) as caught:
        parse(record)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


def test_a_record_may_only_be_so_long() -> None:
    fits = b"v=spf1" + b" a" * ((MAX_RECORD - 6) // 2)
    assert len(parse(fits).directives) == (MAX_RECORD - 6) // 2
    with pytest.raises(RecordError, match="longer"):
        parse(fits + b" a")


@pytest.mark.parametrize(
    ("record", "chosen"),
    [
        (b"v=spf1", True), (b"v=spf1 ", True), (b"V=SpF1 -all", True), (b"v=spf1\t-all", False), (b"v=spf10", False),
        (b"v=spf1-all", False), (b" v=spf1 -all", False), (b'"v=spf1 -all"', False), (b"spf2.0/pra -all", False), (b"", False),
        (b"v=spf1\xa0-all", False), (b"\xef\xbb\xbfv=spf1 -all", False), (b"v = spf1 -all", False), (b"v=spf", False),
    ],
)  # fmt: skip
def test_which_record_is_one(record: bytes, chosen: bool) -> None:
    assert bool(select([record])) == chosen


# --- macros -------------------------------------------------------------------------------------------------------------

RFC = Facts(
    ip_address(FOUR), "strong-bad", "email.example.com", "mx.example.org", "email.example.com", "mx.example.org"
)
RFC6 = Facts(ip_address(SIX), "strong-bad", "email.example.com", "mx.example.org", "email.example.com")


@pytest.mark.parametrize(
    ("text", "facts", "value"),
    [
        # the examples of RFC 7208 §7.4
        ("%{s}", RFC, "strong-bad@email.example.com"),
        ("%{o}", RFC, "email.example.com"),
        ("%{d}", RFC, "email.example.com"),
        ("%{d4}", RFC, "email.example.com"),
        ("%{d3}", RFC, "email.example.com"),
        ("%{d2}", RFC, "example.com"),
        ("%{d1}", RFC, "com"),
        ("%{dr}", RFC, "com.example.email"),
        ("%{d2r}", RFC, "example.email"),
        ("%{l}", RFC, "strong-bad"),
        ("%{l-}", RFC, "strong.bad"),
        ("%{lr}", RFC, "strong-bad"),
        ("%{lr-}", RFC, "bad.strong"),
        ("%{l1r-}", RFC, "strong"),
        ("%{ir}.%{v}._spf.%{d2}", RFC, "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", RFC, "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", RFC, "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", RFC, "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", RFC, "example.com.trusted-domains.example.net"),
        (
            "%{ir}.%{v}._spf.%{d2}",
            RFC6,
            "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6._spf.example.com",
        ),
        # and more
        ("%{p}", RFC, "mx.example.org"),
        ("%{p}", RFC6, "unknown"),
        ("%{h}", RFC, "mx.example.org"),
        ("%%{d}%_%-", RFC, "%{d} %20"),
        ("%{S}", RFC, "strong-bad%40email.example.com"),
        ("%{L}", Facts(ip_address(FOUR), "a~b_c.d-e f/ü", "b.c", ""), "a~b_c.d-e%20f%2F%C3%BC"),
        ("%{l/}", Facts(ip_address(FOUR), "a/b", "b.c", ""), "a.b"),
        ("%{l/=_}", Facts(ip_address(FOUR), "a/b=c_d", "b.c", ""), "a.b.c.d"),
        ("%{l2+-}", Facts(ip_address(FOUR), "a+b-c", "b.c", ""), "b.c"),
        ("%{h2}", Facts(ip_address(FOUR), "a", "b.c", ""), ""),
    ],
)  # fmt: skip
def test_macros(text: str, facts: Facts, value: str) -> None:
    assert expand(macro_string(text), facts) == value


def test_macros_of_explanations() -> None:
    facts = Facts(ip_address(SIX), "bob", "b.c", "h", "d.e", "p.test", "mail.home.test", 1_700_000_000.9)
    text = "%{c} %{C} %{r} %{t}"
    assert (
        expand(macro_string(text, explanation=True), facts)
        == "2001:db8::cb01 2001%3Adb8%3A%3Acb01 mail.home.test 1700000000"
    )
    with pytest.raises(MacroError):
        macro_string("a b")


@pytest.mark.parametrize("local", ["a" * 64 + "." + "b" * 60 + ".c", "a." * 32, "a"])
def test_a_long_name_loses_labels_at_the_left(local: str) -> None:
    for padding in range(150, 260):
        facts = Facts(ip_address(FOUR), local, "b.c", "")
        spec = domain_spec(f"%{{l}}.{'x' * 50}.{'y' * (padding - 100)}.test")
        whole = expand(spec, facts)
        name = target_name(spec, facts)
        assert whole.endswith(name) and len(name) <= 253
        if len(whole) > 253:
            cut = whole[: -len(name)]
            assert cut.endswith(".") and len(name) + 1 + len(cut.rstrip(".").rpartition(".")[2]) > 253


# --- results ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "helo", "scope", "domain", "result"),
    [
        ("bob@a.test", "h.test", "mfrom", "a.test", "fail"),
        ("bob@A.Test.", "h.test", "mfrom", "a.test", "fail"),
        ("@a.test", "h.test", "mfrom", "a.test", "fail"),
        ("a.test", "h.test", "mfrom", "a.test", "fail"),
        ('"b@c"@a.test', "h.test", "mfrom", "a.test", "fail"),
        ("", "a.test", "helo", "a.test", "fail"),
        ("", "A.TEST.", "helo", "a.test", "fail"),
        ("bob@bücher.test", "h.test", "mfrom", "xn--bcher-kva.test", "pass"),
        ("bob@xn--bcher-kva.test", "h.test", "mfrom", "xn--bcher-kva.test", "pass"),
        ("", "PC", "helo", "pc", "none"),
        ("", "[192.0.2.3]", "helo", "[192.0.2.3]", "none"),
        ("", "192.0.2.3", "helo", "192.0.2.3", "none"),
        ("", "", "helo", "", "none"),
        ("bob@", "h.test", "mfrom", "", "none"),
        ("bob@a..test", "h.test", "mfrom", "a..test", "none"),
        ("bob@" + "x" * 64 + ".test", "h.test", "mfrom", "x" * 64 + ".test", "none"),
        ("bob@" + "abcdefg." * 32 + "test", "h.test", "mfrom", "abcdefg." * 32 + "test", "none"),
        ("bob@\udcff.test", "h.test", "mfrom", "\udcff.test", "none"),
        ("bob@no-record.test", "h.test", "mfrom", "no-record.test", "none"),
    ],
)  # fmt: skip
def test_whose_record_is_asked_for(sender: str, helo: str, scope: str, domain: str, result: str) -> None:
    zone: Zone = {("a.test", "TXT"): txt("v=spf1 -all"), ("xn--bcher-kva.test", "TXT"): txt("v=spf1 +all")}
    found = judge(zone, helo=helo, sender=sender)
    assert (found.result, found.scope, found.domain) == (result, scope, domain)
    assert found.problem.isprintable() and bool(found.problem) == (result == "none")


@pytest.mark.parametrize(
    ("records", "result", "problem"),
    [
        (txt("v=spf1 -all", "google-site-verification=x"), "fail", ""),
        (txt("v=spf1 -all", "v=spf1 +all"), "permerror", "a.test has 2 SPF records, and only one is allowed"),
        (txt("v=spf1 +all moo"), "permerror", "the SPF record of a.test is wrong: moo is no mechanism of SPF"),
        (
            txt("v=spf1 include:b.test -all"), "permerror",
            "b.test, which it includes, has no SPF record",
        ),
        (txt("v=spf1 redirect=b.test"), "permerror", "b.test, to which it redirects, has no SPF record"),
        (txt("v=spf1 include:c.test -all"), "permerror", "the SPF record of c.test is wrong: all: is wrong: nothing may follow all"),
        (txt("v=spf1 include:%{h}.x..y.test -all"), "permerror", "include:%{h}.x..y.test names no domain"),
        (txt("v=spf1 redirect=x..y.test"), "permerror", "redirect= names no domain"),
        (txt("v=spf1 include:away.test -all"), "temperror", "the SPF record of away.test could not be asked for: no answer within 10 seconds"),
        (txt("v=spf1 a:away.test -all"), "temperror", "A of away.test could not be asked for: no answer within 10 seconds"),
        (txt("v=spf1 exists:away.test -all"), "temperror", "A of away.test could not be asked for: no answer within 10 seconds"),
        (txt("v=spf1 mx:away.test -all"), "temperror", "MX of away.test could not be asked for: no answer within 10 seconds"),
        (AWAY, "temperror", "the SPF record of a.test could not be asked for: no answer within 10 seconds"),
        (NoAnswer("x"), "none", "a.test has no SPF record"),
        (txt("v=spf1 a:x..y.test -all"), "fail", ""),
        (txt("v=spf1"), "neutral", ""),
    ],
)  # fmt: skip
def test_problems_are_said(records: Answer | DnsError, result: str, problem: str) -> None:
    zone: Zone = {
        ("a.test", "TXT"): records,
        ("c.test", "TXT"): txt("v=spf1 all:"),
        **{("away.test", kind): AWAY for kind in ("TXT", "A", "AAAA", "MX")},
    }
    found = judge(zone)
    assert (found.result, found.problem) == (result, problem)


@pytest.mark.parametrize(
    ("terms", "ip", "result", "mechanism"),
    [
        ("ip4:192.0.2.0/24 -all", FOUR, "pass", "ip4:192.0.2.0/24"),
        ("?ip4:192.0.2.3 -all", FOUR, "neutral", "?ip4:192.0.2.3"),
        ("ip4:192.0.2.0/31 -all", FOUR, "fail", "-all"),
        ("ip4:192.0.2.3/31 -all", "192.0.2.2", "pass", "ip4:192.0.2.3/31"),
        ("ip4:0.0.0.0/0 -all", SIX, "fail", "-all"),
        ("ip6:::/0 -all", FOUR, "fail", "-all"),
        ("ip6:::ffff:192.0.2.3 ~all", FOUR, "softfail", "~all"),
        ("ip4:192.0.2.3 -all", f"::ffff:{FOUR}", "pass", "ip4:192.0.2.3"),
        ("ip6:2001:db8::/64 -all", SIX, "pass", "ip6:2001:db8::/64"),
        ("ip6:2001:db8::/64 -all", f"{SIX}%eth0", "pass", "ip6:2001:db8::/64"),
        ("ip6:2001:db8::cb00/127 -all", SIX, "pass", "ip6:2001:db8::cb00/127"),
        ("~include:pass.test -all", FOUR, "softfail", "~include:pass.test"),
        ("a:hosts.test/28 -all", "192.0.2.14", "pass", "a:hosts.test/28"),
        ("a:hosts.test//112 -all", "2001:db8::7", "pass", "a:hosts.test//112"),
        ("mx:hosts.test -all", FOUR, "pass", "mx:hosts.test"),
        ("mx:hosts.test -all", SIX, "pass", "mx:hosts.test"),
        ("exists:hosts.test -all", SIX, "pass", "exists:hosts.test"),
        ("ptr:ptr.test -all", FOUR, "pass", "ptr:ptr.test"),
        ("ptr:r.test -all", FOUR, "fail", "-all"),
        ("exists:%{p}.ok.test -all", FOUR, "pass", "exists:%{p}.ok.test"),
        ("redirect=pass.test", FOUR, "pass", "all"),
        ("redirect=pass.test -all", FOUR, "fail", "-all"),
        ("redirect=%{d1}.test", FOUR, "permerror", ""),
    ],
)  # fmt: skip
def test_mechanisms(terms: str, ip: str, result: str, mechanism: str) -> None:
    zone: Zone = {
        ("a.test", "TXT"): txt(f"v=spf1 {terms}"),
        ("pass.test", "TXT"): txt("v=spf1 all"),
        ("hosts.test", "A"): ["192.0.2.3", "198.51.100.1"],
        ("hosts.test", "AAAA"): [SIX],
        ("hosts.test", "MX"): [(0, ""), (10, "a..b"), (20, "hosts.test")],
        (FOUR, "PTR"): ["forged.ptr.test", "mx.PTR.test."],
        ("forged.ptr.test", "A"): ["198.51.100.1"],
        ("mx.ptr.test", "A"): ["192.0.2.3"],
        ("mx.ptr.test.ok.test", "A"): ["127.0.0.2"],
    }
    found = judge(zone, ip)
    assert (found.result, found.mechanism) == (result, mechanism), found


def test_what_is_not_an_address_has_no_result() -> None:
    assert judge({}, "nonsense").result == "none"


# --- limits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "result", "lookups"),
    [
        ("a " * 10 + "-all", "fail", 10),
        ("a " * 11 + "-all", "permerror", 11),
        ("a " * 10 + "ip4:192.0.2.3", "pass", 10),
        ("a " * 10 + "redirect=neutral.test", "permerror", 11),
        ("a " * 9 + "redirect=neutral.test", "neutral", 10),
        ("a " * 9 + "include:neutral.test -all", "fail", 10),
        ("a " * 8 + "include:one.test -all", "fail", 10),
        ("a " * 9 + "include:one.test -all", "permerror", 11),
        ("mx " * 10 + "-all", "fail", 10),
        ("ptr " * 11 + "-all", "permerror", 11),
        ("exists:%{p}.a.test " * 2 + "a " * 8 + "-all", "fail", 10),
        ("include:self.test -all", "permerror", 11),
        ("redirect=round.test", "permerror", 11),
    ],
)
def test_ten_terms_may_ask(terms: str, result: str, lookups: int) -> None:
    zone: Zone = {
        ("a.test", "TXT"): txt(f"v=spf1 {terms}"),
        ("a.test", "A"): ["198.51.100.1"],
        ("a.test", "MX"): [(n, "a.test") for n in range(10)],
        ("unknown.a.test", "TXT"): txt("x"),
        ("neutral.test", "TXT"): txt("v=spf1"),
        ("one.test", "TXT"): txt("v=spf1 a:a.test"),
        ("self.test", "TXT"): txt("v=spf1 include:self.test"),
        ("round.test", "TXT"): txt("v=spf1 redirect=round.test"),
        (FOUR, "PTR"): ["mx.far.test"],
        ("mx.far.test", "A"): ["198.51.100.1"],
    }
    found = judge(zone)
    assert (found.result, found.lookups) == (result, lookups), found


@pytest.mark.parametrize(
    ("terms", "ip", "result"),
    [
        ("a:x.test a:y.test -all", FOUR, "fail"),
        ("a:x.test a:y.test a:z.test -all", FOUR, "permerror"),
        ("a:x.test a:x.test a:x.test -all", FOUR, "permerror"),
        ("a:empty.test a:empty.test a:empty.test -all", FOUR, "permerror"),
        ("exists:x.test mx:y.test a:z.test -all", FOUR, "permerror"),
        ("ptr a:y.test a:z.test -all", FOUR, "permerror"),
        # three dead names of one mx are one term in vain
        ("mx:dead.test a:x.test -all", FOUR, "fail"),
        ("mx:dead.test a:x.test a:y.test -all", FOUR, "permerror"),
        # hosts without IPv6, asked because the message came over IPv6
        ("a:four.test a:four.test a:four.test mx:four.test -all", SIX, "fail"),
        ("a:x.test a:y.test a:z.test -all", SIX, "permerror"),
        ("a:x..test a:y..test a:z..test -all", FOUR, "fail"),  # nothing was asked
        ("a:x.test a:y.test exp=z.test -all", FOUR, "fail"),
        ("a:x.test a:y.test exp=%{p}.test -all", FOUR, "fail"),
    ],
)
def test_two_terms_may_ask_in_vain(terms: str, ip: str, result: str) -> None:
    zone: Zone = {
        ("a.test", "TXT"): txt(f"v=spf1 {terms}"),
        ("empty.test", "TXT"): txt("x"),
        ("dead.test", "MX"): [(n, f"dead{n}.test") for n in range(10)],
        ("four.test", "A"): ["198.51.100.1"],
        ("four.test", "MX"): [(0, "four.test")],
    }
    assert judge(zone, ip).result == result


@pytest.mark.parametrize(("count", "result"), [(10, "pass"), (11, "permerror")])
def test_ten_names_of_an_mx(count: int, result: str) -> None:
    zone: Zone = {
        ("a.test", "TXT"): txt("v=spf1 mx -all"),
        ("a.test", "MX"): [(n, f"mx{n}.test") for n in range(count)],
        **{(f"mx{n}.test", "A"): [FOUR if n == 9 else "198.51.100.1"] for n in range(count)},
    }
    assert judge(zone).result == result


def test_ten_names_of_an_address() -> None:
    zone: Zone = {
        ("a.test", "TXT"): txt("v=spf1 ptr -all"),
        (FOUR, "PTR"): [*(f"n{n}.test" for n in range(9)), "ten.a.test", "eleven.a.test"],
        ("eleven.a.test", "A"): [FOUR],
    }
    assert judge(zone).result == "fail"
    assert judge({**zone, ("ten.a.test", "A"): [FOUR]}).result == "pass"


def test_a_failure_about_the_peers_names_is_no_match() -> None:
    zone: Zone = {("a.test", "TXT"): txt("v=spf1 ptr exists:%{p}.b.test -all exp=e.test"), (FOUR, "PTR"): AWAY}
    assert judge({**zone, ("e.test", "TXT"): txt("%{p}")}).explanation == "unknown"
    zone[FOUR, "PTR"] = ["mx.a.test"]
    assert judge({**zone, ("mx.a.test", "A"): AWAY}).result == "fail"


# --- explanations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (txt("%{i} may not send for %{o}"), f"{FOUR} may not send for a.test"),
        (txt("Why? https://why.test/?s=%{S}&i=%{C}"), f"Why? https://why.test/?s=bob%40a.test&i={FOUR}"),
        (txt("said by %{r} of %{d} at %{t}"), "said by mail.home.test of a.test at 1700000000"),
        (txt("x" * 600), "x" * MAX_SHOWN),
        (txt("x" * 3000), ""),
        (txt(""), ""),
        ([b"\xc3\xbc"], ""),
        ([b"line\r\nbreak"], ""),
        (txt("%{x}"), ""),
        (txt("one", "two"), ""),
        ([], ""),
        (NoAnswer("x"), ""),
        (AWAY, ""),
    ],
)
def test_explanations(answer: Answer | DnsError, shown: str) -> None:
    zone: Zone = {("a.test", "TXT"): txt("v=spf1 exp=e.%{d} -all"), ("e.a.test", "TXT"): answer}
    assert judge(zone).explanation == shown


def test_an_explanation_counts_towards_no_limit() -> None:
    """Both vain terms are used up, and the peer has no name for %{p}."""
    zone: Zone = {
        ("a.test", "TXT"): txt("v=spf1 a:x.test a:y.test a:z.test -all exp=e.test"),
        ("z.test", "A"): ["198.51.100.1"],
        ("e.test", "TXT"): txt("%{p}, sorry"),
    }
    assert judge(zone).explanation == "unknown, sorry"


def test_an_explanation_is_asked_for_only_after_a_fail_and_where_it_is_wanted() -> None:
    zone: Zone = {("a.test", "TXT"): txt("v=spf1 exp=e.a.test ~all"), ("e.a.test", "TXT"): txt("x")}
    assert judge(zone).explanation == ""
    zone["a.test", "TXT"] = txt("v=spf1 exp=e.a.test -all")
    assert judge(zone).explanation == "x" and judge(zone, explain=False).explanation == ""


def test_what_a_client_says_cannot_break_a_reply() -> None:
    zone: Zone = {("a.test", "TXT"): txt("v=spf1 exp=e.a.test -all"), ("e.a.test", "TXT"): txt("%{h} %{l}")}
    found = judge(zone, helo="x\r\n250 OK\x1b", sender="b\u00fc\ud800b@a.test")
    assert found.explanation == "x??250 OK? b??b"


@pytest.mark.parametrize(
    "spec", ["exists:%{l}.x.test", "exists:%{L}.x.test", "exists:%{S2}.x.test", "include:%{L}.x.test"]
)
def test_a_local_part_outside_ascii_matches_nothing(spec: str) -> None:
    """RFC 8616 §4: not even where URL-escaping would make ASCII of it."""
    zone: Zone = {("a.test", "TXT"): txt(f"v=spf1 {spec} -all"), ("%c3%bc.x.test", "A"): ["127.0.0.2"]}
    zone["%c3%bc%40a.test.x.test", "A"] = ["127.0.0.2"]
    assert judge(zone, sender="ü@a.test").result == ("permerror" if spec.startswith("include") else "fail")


def test_a_policy_asks_only_what_it_must() -> None:
    asking = check(FOUR, "h.test", "bob@a.test", receiver="r")
    assert next(asking) == Question("a.test", "TXT")
    with pytest.raises(StopIteration) as end:
        asking.send(txt("v=spf1 ip4:192.0.2.3 include:b.test exp=c.test -all"))
    assert end.value.value.result == "pass"


def test_a_long_term_is_shown_in_part() -> None:
    """The record of a message keeps the mechanism: 16 KB of it would be a stranger's to choose."""
    asking = check(FOUR, "h.test", "bob@a.test", receiver="r")
    next(asking)
    question = asking.send(txt(f"v=spf1 exists:{'%{d}.' * 2000}b.test -all"))
    assert question.kind == "A" and len(question.name) <= 253
    with pytest.raises(StopIteration) as end:
        asking.send(["127.0.0.2"])
    assert end.value.value.result == "pass" and len(end.value.value.mechanism) == 100
