"""Records of the kinds that domains publish, the broken ones too: what comes of them for a client on 192.0.2.3.

The forms are those that issue trackers of other SPF software tell of; names and addresses are ours. What is broken has
no second chance: guessing what an owner meant would let mail pass that nobody allowed.
"""

import pytest

from services.policy.spf import check
from services.protocol.dns_lookup import Answer, DnsError, answered

CLIENT = "192.0.2.3"
# The client's addresses are covered by spf.big.test and the macro records below, and by nothing else.
ZONE: dict[tuple[str, str], Answer | DnsError] = {
    ("spf.big.test", "TXT"): [b"v=spf1 include:_a.big.test include:_b.big.test ~all"],
    ("_a.big.test", "TXT"): [b"v=spf1 ip4:198.51.100.0/24 ip6:2001:db8::/32 ~all"],
    ("_b.big.test", "TXT"): [b"v=spf1 ip4:192.0.2.0/25 ?all"],
    ("other.test", "TXT"): [b"v=spf1 ip4:203.0.113.0/24 -all"],
    ("closed.test", "TXT"): [b"v=spf1 -all"],
    ("not-spf.test", "TXT"): [b"MS=ms123", b"apple-domain-verification=x"],
    ("me.test", "A"): ["203.0.113.7"],
    ("me.test", "MX"): [(10, "mx.big.test"), (20, "mx2.big.test")],
    ("mx.big.test", "A"): ["203.0.113.8"],
    ("mx2.big.test", "A"): [CLIENT],
    (CLIENT, "PTR"): ["out3.big.test"],
    ("out3.big.test", "A"): [CLIENT],
    # providers that answer for one client, sender or HELO
    ("192.0.2.3._i.me.test._d.espf.big.test", "A"): ["127.0.0.2"],
    ("3.2.0.192.in-addr.me.test.spf.has.big.test", "TXT"): [b"v=spf1 ip4:192.0.2.3 -all"],
    ("192.0.2.3._ip.out3.big.test._ehlo.me.test._spf.big.test", "TXT"): [b"v=spf1 ip4:%s -all" % CLIENT.encode()],
    ("news._spf.me.test", "TXT"): [b"v=spf1 ip4:192.0.2.3 -all"],
    ("nested.test", "TXT"): [b"v=spf1 include:%{d2}.in.test ~all"],
    ("nested.test.in.test", "TXT"): [b"v=spf1 mx:%{o} -all"],
}


@pytest.mark.parametrize(
    ("record", "result"),
    [
        # what nearly everybody has
        ("v=spf1 include:spf.big.test -all", "pass"),
        ("v=spf1 include:spf.big.test ~all", "pass"),
        ("v=spf1 include:other.test include:spf.big.test ?all", "pass"),
        ("v=spf1 include:other.test -all", "fail"),
        ("v=spf1 mx -all", "pass"),
        ("v=spf1 a -all", "fail"),
        ("v=spf1 a mx ptr ip4:203.0.113.0/24 ~all", "pass"),
        ("v=spf1 +a +mx +ip4:203.0.113.4 +include:other.test ~all", "pass"),
        ("v=spf1 redirect=spf.big.test", "pass"),
        ("v=spf1 ip4:203.0.113.4 redirect=other.test", "fail"),
        ("v=spf1 redirect=other.test ip4:192.0.2.3", "pass"),
        ("v=spf1 redirect=other.test ~all", "softfail"),
        ("v=spf1 -all", "fail"),
        ("v=spf1 ~all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("v=spf1 +all", "pass"),
        ("v=spf1", "neutral"),
        ("v=spf1 ip4:203.0.113.0/24", "neutral"),
        ("v=spf1 -all include:spf.big.test", "fail"),
        ("v=spf1 ~all -all", "softfail"),
        ("v=spf1  include:spf.big.test   -all  ", "pass"),
        ("V=SPF1 INCLUDE:SPF.BIG.TEST -ALL", "pass"),
        ("v=spf1 include:spf.big.test. -all", "pass"),
        ("v=spf1 ptr:big.test -all", "pass"),
        ("v=spf1 ptr:other.test -all", "fail"),
        ("v=spf1 a:mx2.big.test/28 -all", "pass"),
        ("v=spf1 mx/24 -all", "pass"),
        ("v=spf1 ip4:192.0.2.3/32 -all", "pass"),
        ("v=spf1 ip4:192.0.2.200/24 -all", "pass"),
        ("v=spf1 ip4:0.0.0.0/0 -all", "pass"),
        ("v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all", "pass"),
        ("v=spf1 -ip4:192.0.2.3 +all", "fail"),
        ("v=spf1 -include:spf.big.test +all", "fail"),
        ("v=spf1 ra=postmaster rp=100 mx -all", "pass"),
        ("v=spf1 exp=why.me.test -all", "fail"),
        ("v=spf1 mx -all exp=why.me.test", "pass"),
        ("v=spf1 unknown=x mx -all", "pass"),
        ("v=spf1 v=spf1 mx -all", "pass"),  # an unknown modifier
        # macros as providers use them
        ("v=spf1 exists:%{i}._i.%{d}._d.espf.big.test -all", "pass"),
        ("v=spf1 include:%{ir}.%{v}.%{d}.spf.has.big.test ~all", "pass"),
        ("v=spf1 include:%{i}._ip.%{h}._ehlo.%{d}._spf.big.test ~all", "pass"),
        ("v=spf1 redirect=%{l1r+}._spf.%{d}", "pass"),
        ("v=spf1 include:nested.test -all", "pass"),
        ("v=spf1 exists:%{i}.spf.other.test ip4:192.0.2.3 -all", "pass"),
        ("v=spf1 exists:%{l}.%{i}._spf.%{d2} mx -all", "pass"),
        # an include that has no record, or none for this client
        ("v=spf1 include:gone.test -all", "permerror"),
        ("v=spf1 include:not-spf.test include:spf.big.test -all", "permerror"),
        ("v=spf1 include:spf.big.test include:gone.test -all", "pass"),
        ("v=spf1 include:%{i}.gone.test -all", "permerror"),
        ("v=spf1 redirect=gone.test", "permerror"),
        ("v=spf1 include:me.test -all", "permerror"),
        # what people mistype
        ("v=spf1 include.spf.big.test -all", "permerror"),
        ("v=spf1 include=spf.big.test -all", "fail"),  # a modifier that nobody knows
        ("v=spf1 include: spf.big.test -all", "permerror"),
        ("v=spf1 include:spf.big.test,include:other.test -all", "permerror"),
        ("v=spf1 include:spf.big.test; -all", "permerror"),
        ("v=spf1 include:spf.big.test -all;", "permerror"),
        ("v=spf1 include:https://spf.big.test -all", "permerror"),  # a name that may stand there, and does not exist
        ("v=spf1 include:spf.big.test/24 -all", "permerror"),
        ("v=spf1 include:_spf -all", "permerror"),
        ("v=spf1 ip4:192.0.2.3~all", "permerror"),
        ("v=spf1 ip4:192.0.2.3-all", "permerror"),
        ("v=spf1 mx -all.", "permerror"),
        ("v=spf1 mx - all", "permerror"),
        ("v=spf1 mx ~ all", "permerror"),
        ("v=spf1 mx --all", "permerror"),
        ("v=spf1 mx -all\\", "permerror"),
        ('v=spf1 mx "-all"', "permerror"),
        ("v=spf1 mx \u2013all", "permerror"),
        ("v=spf1\u00a0mx -all", "none"),
        ("v=spf1 mx\u00a0-all", "permerror"),
        ("v=spf1 mx\u200b -all", "permerror"),
        ("v=spf1 ipv4:192.0.2.3 -all", "permerror"),
        ("v=spf1 ip:192.0.2.3 -all", "permerror"),
        ("v=spf1 192.0.2.3 -all", "permerror"),
        ("v=spf1 ip4=192.0.2.3 -all", "fail"),
        ("v=spf1 ip4:192.0.2.3, ip4:192.0.2.4 -all", "permerror"),
        ("v=spf1 ip4:192.0.2.3,192.0.2.4 -all", "permerror"),
        ("v=spf1 ip4:192.0.2.3-192.0.2.9 -all", "permerror"),
        ("v=spf1 ip4:192.0.2.* -all", "permerror"),
        ("v=spf1 ip4:192.0.2/24 -all", "permerror"),
        ("v=spf1 ip4:192.0.2.3/255.255.255.0 -all", "permerror"),
        ("v=spf1 ip4:192.0.2.3/ -all", "permerror"),
        ("v=spf1 ip4: 192.0.2.3 -all", "permerror"),
        ("v=spf1 ip4:mx2.big.test -all", "permerror"),
        ("v=spf1 ip4:2001:db8::1 -all", "permerror"),
        ("v=spf1 ip6:192.0.2.3 -all", "permerror"),
        ("v=spf1 2001:db8::/64 mx -all", "permerror"),
        ("v=spf1 ip6:2001:db8::/64/ mx -all", "permerror"),
        ("v=spf1 a:192.0.2.3 -all", "permerror"),
        ("v=spf1 mx:192.0.2.3 -all", "permerror"),
        ("v=spf1 a:mx2.big.test:25 -all", "permerror"),
        ("v=spf1 a=mx2.big.test -all", "fail"),
        ("v=spf1 a;mx -all", "permerror"),
        ("v=spf1 exists -all", "permerror"),
        ("v=spf1 exp -all", "permerror"),
        ("v=spf1 redirect:spf.big.test", "permerror"),
        ("v=spf1 redirect spf.big.test", "permerror"),
        ("v=spf1 redirect=spf.big.test redirect=other.test", "permerror"),
        ("v=spf1 all=fail", "neutral"),
        ("v=spf1 mx -all MS=ms12345", "pass"),
        ("v=spf1 mx -all google-site-verification=abc", "pass"),
        ("v=spf1 mx -all # our server", "permerror"),
        ("v=spf1 mx -all v=DMARC1; p=none", "pass"),  # two unknown modifiers
        ("v=spf1; mx -all", "none"),
        ("v=spf1, mx -all", "none"),
        ("v=spf1mx -all", "none"),
        ("v=spf2 mx -all", "none"),
        ("spf2.0/pra mx -all", "none"),
        ("spf1 mx -all", "none"),
        ("v = spf1 mx -all", "none"),
        (" v=spf1 mx -all", "none"),
        ('"v=spf1 mx -all"', "none"),
        ("\ufeffv=spf1 mx -all", "none"),
    ],
)  # fmt: skip
def test_a_record_that_is_met(record: str, result: str) -> None:
    zone = {**ZONE, ("me.test", "TXT"): [b"google-site-verification=x", record.encode()]}
    found = answered(check(CLIENT, "out3.big.test", "news+42@me.test", receiver="r"), zone)
    assert found.result == result, found
