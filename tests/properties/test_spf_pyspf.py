"""SPF beside pyspf, over zones that hypothesis makes: the same result, but where pyspf is known to be another opinion.

pyspf's module is read from its source distribution; it is never installed. Where the two differ, the reason is a test
of its own below.
"""

from ipaddress import IPv6Address
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from spf_world import CLIENTS, Zone, directives, play, record, wrong, zones

from services.policy import spf
from services.policy.spf import SpfResult
from services.protocol.dns_lookup import DnsError, TemporaryFailure
from tests.published import module

pyspf: Any = module("pyspf", "spf.py")


# Where it differs by what it says itself, and why ours is right: see the table below.
OTHER_OPINIONS = ("trivial recursion", "Too many DNS lookups", "MUST appear at most once")


def theirs(zone: Zone, ip: str, helo: str, sender: str) -> tuple[str, str]:
    """pyspf's result and its words about it."""

    def look_up(name: str, kind: str, strict: bool = True, timeout: int = 30) -> list[Any]:
        key = name.lower()
        if kind == "PTR":
            labels = key.split(".")[:-2][::-1]
            key = ".".join(labels) if len(labels) == 4 else str(IPv6Address(bytes.fromhex("".join(labels))))
        found = zone.get((key, kind), [])
        if isinstance(found, DnsError):
            raise pyspf.TempError("away")
        values = [(value,) if kind == "TXT" else value for value in found]
        return [((name, kind), IPv6Address(v).packed if kind == "AAAA" else v) for v in values]

    pyspf.DNSLookup = look_up
    result, _, words = pyspf.query(i=ip, s=sender, h=helo, strict=True).check()
    return result, words


def ours(zone: Zone, ip: str, helo: str, sender: str) -> SpfResult:
    found: SpfResult = play(spf.check(ip, helo, sender, receiver="r", explain=False), zone, 200)[0]
    return found


def without_p(text: str) -> str:
    """It writes macros out, and asks for `%{p}`, before it evaluates a term."""
    return text.replace("%{p", "%{d").replace("%{P", "%{D")


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    zones(record(directives | directives | directives | directives | wrong, 6).map(without_p), failures=False),
    st.sampled_from(CLIENTS),
    st.sampled_from(["bob@a.test", "", "b.b+x-y@d.e.test"]),
)
def test_the_same_result_as_pyspf(zone: Zone, ip: str, sender: str) -> None:
    # It counts questions in vain, RFC 7208 §4.6.4 terms: without that limit both can be compared.
    with mock.patch.object(pyspf, "MAX_VOID_LOOKUPS", 1000), mock.patch.object(spf, "MAX_VOID", 1000):
        result, words = theirs(zone, ip, "c.test", sender)
        assume(not any(each in words for each in OTHER_OPINIONS))
        found = ours(zone, ip, "c.test", sender)
    assert found.result == result, (found, words)


def zone_of(record: str, **more: Any) -> Zone:
    return {
        ("a.test", "TXT"): [record.encode()],
        ("b.test", "TXT"): [b"v=spf1"],
        ("b.test", "A"): ["192.0.2.9"],
        **more,
    }


@pytest.mark.parametrize(
    ("zone", "result", "pyspfs"),
    [
        # RFC 7208 §4.6: what stands behind a term that matches is read, not evaluated.
        (zone_of("v=spf1 ip4:192.0.2.3 include:a.test"), "pass", "permerror"),
        (zone_of("v=spf1 " + "a:b.test " * 10 + "ip4:192.0.2.3 redirect=b.test"), "pass", "permerror"),
        # RFC 7208 §6: only redirect and exp may not stand twice, and their names have no case.
        (zone_of("v=spf1 moo=1 moo=2 -all"), "fail", "permerror"),
        (zone_of("v=spf1 EXP= -all"), "permerror", "fail"),
        # RFC 7208 §5.5: an error about the peer's names is no match.
        (zone_of("v=spf1 ptr -all") | {("192.0.2.3", "PTR"): TemporaryFailure("away")}, "fail", "temperror"),
        # RFC 7208 §5.4: names are looked at in their order, and the first that matches decides.
        (
            zone_of("v=spf1 mx -all") | {
                ("a.test", "MX"): [(1, "x.test"), (2, "b.test")], ("x.test", "A"): ["192.0.2.3"],
                ("b.test", "A"): TemporaryFailure("away"),
            },
            "pass", "temperror",
        ),
        # RFC 7208 §4.6.4: terms in vain, not questions; one mx of three dead names is one.
        (
            zone_of("v=spf1 mx -all") | {("a.test", "MX"): [(n, f"dead{n}.test") for n in range(3)]},
            "fail", "permerror",
        ),
        # RFC 7208 §7.1: a number of parts is not zero.
        (zone_of("v=spf1 exists:%{d0}.test -all"), "permerror", "fail"),
    ],
)  # fmt: skip
def test_where_pyspf_has_another_opinion(zone: Zone, result: str, pyspfs: str) -> None:
    assert ours(zone, "192.0.2.3", "c.test", "bob@a.test").result == result
    assert theirs(zone, "192.0.2.3", "c.test", "bob@a.test")[0] == pyspfs
