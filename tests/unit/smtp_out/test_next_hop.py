"""Where mail goes next: zones on one side, servers in order on the other."""

import asyncio
import dataclasses
from typing import Any

import pytest

from services.runtime.dns import TemporaryFailure, ZoneLookup
from services.runtime.values import Settings
from services.smtp.client import Tls
from services.smtp_out.next_hop import LOCAL, MAX_HOPS, RELAY, Hops, NoRoute, destination_of, relay_address
from services.smtp_out.tls_policy import tls_policy

SETTINGS = Settings(mail_domain="home.test", lmtp_address="smtp-in:24", out_ipv6="yes")
ZONE: dict[tuple[str, str], list[object]] = {
    ("far.test", "MX"): [(20, "mx2.far.test"), (10, "mx1.far.test")],
    ("mx1.far.test", "A"): ["192.0.2.1"],
    ("mx1.far.test", "AAAA"): ["2001:db8::1"],
    ("mx2.far.test", "A"): ["192.0.2.2"],
    ("equal.test", "MX"): [(10, "mx2.far.test"), (10, "mx1.far.test"), (10, "MX1.far.test.")],
    ("bare.test", "A"): ["192.0.2.3"],
    ("null.test", "MX"): [(0, "")],
    ("dotnull.test", "MX"): [(0, ".")],
    ("dangling.test", "MX"): [(10, "gone.far.test")],
    ("halfdangling.test", "MX"): [(10, "gone.far.test"), (20, "mx2.far.test")],
    ("broken.test", "MX"): [TemporaryFailure("SERVFAIL")],
    ("slow.test", "MX"): [(10, "slow.far.test")],
    ("slow.far.test", "A"): [TemporaryFailure("timeout")],
    ("slow.far.test", "AAAA"): [TemporaryFailure("timeout")],
    ("halfslow.test", "MX"): [(10, "slow.far.test"), (20, "mx2.far.test")],
    ("six.test", "AAAA"): ["2001:db8::6"],
    ("nomail.test", "TXT"): [b"x"],
    ("backup.test", "MX"): [(10, "mx1.far.test"), (20, "mail.home.test"), (30, "mx2.far.test")],
    ("mine.test", "MX"): [(10, "MAIL.home.test."), (20, "mx2.far.test")],
    ("many.test", "MX"): [(n, f"mx{n}.many.test") for n in range(40)],
    **{(f"mx{n}.many.test", "A"): [f"192.0.2.{n}"] for n in range(40)},
    ("relay.test", "A"): ["192.0.2.9"],
    ("relaydown.test", "A"): [TemporaryFailure("timeout")],
}


def find(destination: str, settings: Settings = SETTINGS) -> list[str]:
    hops = asyncio.run(Hops(settings, ZoneLookup(ZONE), lambda names: names.sort()).find(destination))
    return [f"{hop} {hop.port}" for hop in hops]


DIRECT = [
    ("far.test", ["mx1.far.test [2001:db8::1] 25", "mx1.far.test [192.0.2.1] 25", "mx2.far.test [192.0.2.2] 25"]),
    ("equal.test", ["mx1.far.test [2001:db8::1] 25", "mx1.far.test [192.0.2.1] 25", "mx2.far.test [192.0.2.2] 25"]),
    ("bare.test", ["bare.test [192.0.2.3] 25"]),
    ("halfdangling.test", ["mx2.far.test [192.0.2.2] 25"]),
    ("halfslow.test", ["mx2.far.test [192.0.2.2] 25"]),
    # ourselves and whoever comes after us are cut
    ("backup.test", ["mx1.far.test [2001:db8::1] 25", "mx1.far.test [192.0.2.1] 25"]),
    ("[192.0.2.7]", ["[192.0.2.7] [192.0.2.7] 25"]),
    ("[IPv6:2001:db8::7]", ["[IPv6:2001:db8::7] [2001:db8::7] 25"]),
    (LOCAL, ["smtp-in 24"]),
]


@pytest.mark.parametrize(("destination", "servers"), DIRECT)
def test_servers_in_order(destination: str, servers: list[str]) -> None:
    assert find(destination) == servers


def test_without_ipv6_outward_a_server_is_asked_by_ipv4_where_it_has_any() -> None:
    quiet = dataclasses.replace(SETTINGS, out_ipv6="no")
    assert find("far.test", quiet) == ["mx1.far.test [192.0.2.1] 25", "mx2.far.test [192.0.2.2] 25"]
    assert find("six.test", quiet) == ["six.test [2001:db8::6] 25"], "it has no other"
    assert find("[IPv6:2001:db8::7]", quiet) == ["[IPv6:2001:db8::7] [2001:db8::7] 25"]


def test_equal_servers_are_shuffled() -> None:
    hops = asyncio.run(Hops(SETTINGS, ZoneLookup(ZONE), lambda names: names.sort(reverse=True)).find("equal.test"))
    assert [hop.name for hop in hops] == ["mx2.far.test", "mx1.far.test", "mx1.far.test"]


def test_not_all_of_forty_servers_are_tried() -> None:
    assert len(find("many.test")) == MAX_HOPS


NOWHERE = [
    ("missing.test", 550, "5.1.2"),
    ("null.test", 556, "5.1.10"),
    ("dotnull.test", 556, "5.1.10"),
    ("dangling.test", 550, "5.4.4"),
    ("nomail.test", 550, "5.4.4"),
    ("broken.test", 451, "4.4.3"),
    ("slow.test", 451, "4.4.3"),
    ("mine.test", 550, "5.4.6"),
    ("[not an address]", 550, "5.1.2"),
]


@pytest.mark.parametrize(("destination", "code", "status"), NOWHERE)
def test_nowhere_to_go(destination: str, code: int, status: str) -> None:
    with pytest.raises(NoRoute) as nowhere:
        find(destination)
    assert (nowhere.value.reply.code, nowhere.value.reply.enhanced) == (code, status)


RELAYS = [
    ("relay.test", 587, ("relay.test", 587)),
    ("relay.test:465", 587, ("relay.test", 465)),
    ("[relay.test]", 587, ("relay.test", 587)),
    ("[relay.test]:2525", 587, ("relay.test", 2525)),
    ("192.0.2.1:25", 587, ("192.0.2.1", 25)),
    ("[2001:db8::1]:25", 587, ("2001:db8::1", 25)),
    ("2001:db8::1", 587, ("2001:db8::1", 587)),
    ("[IPv6:2001:db8::1]", 587, ("2001:db8::1", 587)),
]


def relaying(host: str, port: int = 587, **other: Any) -> Settings:
    return dataclasses.replace(SETTINGS, relay_host=host, relay_port=port, **other)


@pytest.mark.parametrize(("host", "port", "expected"), RELAYS)
def test_relay_hosts_as_people_write_them(host: str, port: int, expected: tuple[str, int]) -> None:
    assert relay_address(relaying(host, port)) == expected


@pytest.mark.parametrize(
    "host", ["relay.test:x", "relay.test:0", "relay.test:99999", "[relay.test", "[]:25", "[a]b", "[a]:"]
)
def test_relay_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ValueError, match="RELAY_HOST"):
        relay_address(relaying(host))


@pytest.mark.parametrize(
    ("host", "servers"),
    [
        ("relay.test", ["relay.test [192.0.2.9] 587"]),
        ("[relay.test]:2525", ["relay.test [192.0.2.9] 2525"]),
        ("192.0.2.1", ["192.0.2.1 587"]),
        ("mailpit", ["mailpit 587"]),  # a name that only the system knows
    ],
)
def test_the_relay_has_no_mx(host: str, servers: list[str]) -> None:
    assert find(RELAY, relaying(host)) == servers


def test_a_relay_that_cannot_be_looked_up_now() -> None:
    with pytest.raises(NoRoute) as nowhere:
        find(RELAY, relaying("relaydown.test"))
    assert nowhere.value.reply.temporary


class Ours:
    """A directory with one domain."""

    def is_local(self, domain: str, /) -> bool:
        return domain == "home.test"


@pytest.mark.parametrize(
    ("address", "relay", "destination"),
    [
        ("anna@home.test", "", LOCAL),
        ("anna@HOME.test", "relay.test", LOCAL),
        ("bob@Far.test", "", "far.test"),
        ("bob@far.test", "relay.test", RELAY),
        ('"a@home.test"@far.test', "", "far.test"),
        ("bob@[192.0.2.1]", "", "[192.0.2.1]"),
    ],
)
def test_destinations(address: str, relay: str, destination: str) -> None:
    assert destination_of(address, Ours(), relaying(relay) if relay else SETTINGS) == destination


POLICIES = [
    # destination, settings → mode, verify, plain after failure, password in plain
    (LOCAL, SETTINGS, (Tls.NONE, False, False, True)),
    ("far.test", SETTINGS, (Tls.OPPORTUNISTIC, False, True, False)),
    (RELAY, relaying("relay.test"), (Tls.STARTTLS, True, False, False)),
    (RELAY, relaying("relay.test", 465), (Tls.IMPLICIT, True, False, False)),
    (RELAY, relaying("relay.test:465"), (Tls.IMPLICIT, True, False, False)),
    (RELAY, relaying("relay.test", relay_tls="tls"), (Tls.IMPLICIT, True, False, False)),
    (RELAY, relaying("relay.test", 465, relay_tls="starttls"), (Tls.STARTTLS, True, False, False)),
    (RELAY, relaying("relay.test", relay_tls="none"), (Tls.NONE, False, False, True)),
]


@pytest.mark.parametrize(("destination", "settings", "expected"), POLICIES)
def test_tls_policies(destination: str, settings: Settings, expected: tuple[Tls, bool, bool, bool]) -> None:
    policy = tls_policy(destination, settings)
    assert (policy.mode, policy.verify, policy.plain_after_failure, policy.password_in_plain) == expected
    context = policy.context()
    assert (context is None) is (policy.mode is Tls.NONE)
    if context is not None:
        assert context.check_hostname is policy.verify
