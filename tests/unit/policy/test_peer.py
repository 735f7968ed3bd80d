"""Who connects: the name of the address, and the name in HELO."""

import pytest

from services.policy.peer import PeerName, forward_confirmed, hello
from services.protocol.dns_lookup import Answer, DnsError, NoAnswer, TemporaryFailure, answered

AWAY = TemporaryFailure("no answer")
OURS = frozenset({"mail.home.test", "home.test", "203.0.113.5", "2001:db8:5::5"})
Zone = dict[tuple[str, str], Answer | DnsError]

IP = "192.0.2.7"


@pytest.mark.parametrize(
    ("ip", "zone", "confirmed", "rules"),
    [
        (IP, {(IP, "PTR"): ["mx.far.test"], ("mx.far.test", "A"): [IP]}, "mx.far.test", []),
        (f"::ffff:{IP}", {(IP, "PTR"): ["mx.far.test"], ("mx.far.test", "A"): [IP]}, "mx.far.test", []),
        (IP, {(IP, "PTR"): ["MX.Far.test."], ("mx.far.test", "A"): ["192.0.2.1", IP]}, "mx.far.test", []),
        (IP, {(IP, "PTR"): ["a.test", "b.test"], ("b.test", "A"): [IP]}, "b.test", []),
        ("2001:db8::7", {("2001:db8::7", "PTR"): ["six.test"], ("six.test", "AAAA"): ["2001:DB8:0::7"]}, "six.test", []),
        (IP, {}, "", ["no-ptr"]),
        (IP, {(IP, "PTR"): NoAnswer("x")}, "", ["no-ptr"]),
        (IP, {(IP, "PTR"): ["dyn-7.isp.test"]}, "", ["ptr-mismatch"]),
        (IP, {(IP, "PTR"): ["dyn-7.isp.test"], ("dyn-7.isp.test", "A"): ["192.0.2.8"]}, "", ["ptr-mismatch"]),
        (IP, {(IP, "PTR"): ["a..b", "\x1b[0m", "x" * 300]}, "", ["ptr-mismatch"]),
        (IP, {(IP, "PTR"): AWAY}, "", []),
        (IP, {(IP, "PTR"): ["a.test"], ("a.test", "A"): AWAY}, "", []),
        (IP, {(IP, "PTR"): ["a.test", "b.test"], ("a.test", "A"): AWAY, ("b.test", "A"): [IP]}, "b.test", []),
        (IP, {(IP, "PTR"): [f"n{n}.test" for n in range(11)], ("n10.test", "A"): [IP]}, "", ["ptr-mismatch"]),
        ("nonsense", {}, "", []),
    ],
)  # fmt: skip
def test_the_name_of_an_address(ip: str, zone: Zone, confirmed: str, rules: list[str]) -> None:
    found = answered(forward_confirmed(ip), zone)
    assert found.confirmed == confirmed
    assert [reason.rule for reason in found.reasons] == rules
    assert bool(found.problem) != bool(confirmed)
    assert all(reason.text == found.problem and reason.text.isprintable() for reason in found.reasons)


def test_a_name_that_dns_could_not_give_is_said() -> None:
    found = answered(forward_confirmed(IP), {(IP, "PTR"): AWAY})
    assert found == PeerName((), "", "the name of 192.0.2.7 could not be asked for: no answer", True)


@pytest.mark.parametrize(
    ("helo", "ip", "zone", "rules"),
    [
        ("mx.far.test", IP, {("mx.far.test", "A"): ["198.51.100.1"]}, []),  # it need not be the peer's
        ("MX.far.test.", IP, {("mx.far.test", "A"): [IP]}, []),
        ("six.far.test", IP, {("six.far.test", "AAAA"): ["2001:db8::1"]}, []),
        ("bücher.test", IP, {("xn--bcher-kva.test", "A"): [IP]}, []),
        ("mx.far.test", IP, {}, ["helo-no-address"]),
        ("mx.far.test", IP, {("mx.far.test", "MX"): [(0, "x.test")]}, ["helo-no-address"]),
        ("mx.far.test", IP, {("mx.far.test", "A"): AWAY}, []),
        ("mx.far.test", IP, {("mx.far.test", "AAAA"): AWAY}, []),
        ("PC", IP, {}, ["helo-bare"]),
        ("localhost", IP, {("localhost", "A"): ["127.0.0.1"]}, ["helo-bare"]),
        ("localhost.localdomain", IP, {}, ["helo-bare"]),
        ("", IP, {}, ["helo-bare"]),
        ("a..b", IP, {}, ["helo-bare"]),
        ("x" * 64 + ".test", IP, {}, ["helo-bare"]),
        ("\udcff.test", IP, {}, ["helo-bare"]),
        ("[192.0.2.7]", IP, {}, []),
        ("[192.0.2.7]", f"::ffff:{IP}", {}, []),
        ("[IPv6:2001:db8::7]", "2001:db8::7", {}, []),
        ("[2001:db8::7]", "2001:db8::7", {}, []),
        ("192.0.2.7", IP, {}, ["helo-literal"]),
        ("[192.0.2.8]", IP, {}, ["helo-literal"]),
        ("[10.0.0.1]", IP, {}, ["helo-literal"]),
        ("[", IP, {}, ["helo-literal"]),
        ("[mx.far.test]", IP, {}, ["helo-literal"]),
        ("home.test", IP, {("home.test", "A"): [IP]}, ["helo-ours"]),
        ("MAIL.home.test.", IP, {}, ["helo-ours"]),
        ("[203.0.113.5]", IP, {}, ["helo-ours"]),
        ("203.0.113.5", IP, {}, ["helo-ours"]),
        ("[IPv6:2001:db8:5::5]", IP, {}, ["helo-ours"]),
        ("mail.home.test", "203.0.113.5", {("mail.home.test", "A"): ["203.0.113.5"]}, []),  # it is us
    ],
)  # fmt: skip
def test_the_name_in_helo(helo: str, ip: str, zone: Zone, rules: list[str]) -> None:
    found = answered(hello(helo, ip, OURS), zone)
    assert [reason.rule for reason in found] == rules
    assert all(reason.weight > 0 and reason.text.isprintable() for reason in found)


def test_an_honest_home_server_without_a_name_is_not_junk() -> None:
    """No PTR, and a HELO that nobody can look up: what a self-hoster has on the first day."""
    name = answered(forward_confirmed(IP), {})
    said = answered(hello("mail.friend.test", IP, OURS), {})
    assert 0 < sum(reason.weight for reason in (*name.reasons, *said)) <= 3.0
