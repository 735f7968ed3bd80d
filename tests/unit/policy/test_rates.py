"""Rates: what waits, what does not, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.networks import network_of
from services.policy.rates import HOUR, Buckets, RateLimits, Rates

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("address", "v4", "v6", "network"),
    [
        ("192.0.2.77", 24, 64, "192.0.2.0/24"),
        ("192.0.2.77", 32, 64, "192.0.2.77"),
        ("::ffff:192.0.2.77", 24, 64, "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", 24, 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", 24, 48, "2001:db8:1::/48"),
        ("[2001:db8::1]", 24, 64, "2001:db8::/64"),
        ("fe80::1%eth0", 24, 64, "fe80::/64"),
        ("", 24, 64, ""),
        ("no address", 24, 64, "no address"),
    ],
)
def test_networks(address: str, v4: int, v6: int, network: str) -> None:
    assert network_of(address, v4, v6) == network


def test_an_address_waits_when_its_hour_is_used_up_and_goes_on_bit_by_bit() -> None:
    rates = Rates(RateLimits(address=60, network=0, sender=0))
    assert [rates.client("192.0.2.1", NOW) for _ in range(60)] == [None] * 60
    reason = rates.client("192.0.2.1", NOW)
    assert reason is not None
    assert (reason.rule, reason.text) == ("rate-address", "more than 60 messages an hour from 192.0.2.1")
    assert rates.client("192.0.2.2", NOW) is None, "a neighbour's allowance is its own"
    assert rates.client("192.0.2.1", NOW + 59) is not None
    assert rates.client("192.0.2.1", NOW + 61) is None, "one a minute"
    assert rates.client("192.0.2.1", NOW + 61) is not None
    assert [rates.client("192.0.2.1", NOW + 3 * HOUR) for _ in range(60)] == [None] * 60, "never more than an hour's"
    assert rates.client("192.0.2.1", NOW + 3 * HOUR) is not None


def test_what_waits_is_not_counted_against_others() -> None:
    rates = Rates(RateLimits(address=1, network=2, sender=0))
    assert rates.client("192.0.2.1", NOW) is None
    for _ in range(5):
        assert rates.client("192.0.2.1", NOW).rule == "rate-address"  # type: ignore[union-attr]
    assert rates.client("192.0.2.2", NOW) is None
    assert rates.client("192.0.2.3", NOW).rule == "rate-network"  # type: ignore[union-attr]
    assert rates.client("198.51.100.1", NOW) is None


def test_ipv6_counts_by_the_customer_and_by_the_provider() -> None:
    rates = Rates(RateLimits(address=1, network=2, sender=0))
    assert rates.client("2001:db8:1:1::1", NOW) is None
    assert rates.client("2001:db8:1:1::2", NOW).rule == "rate-address"  # type: ignore[union-attr]
    assert rates.client("2001:db8:1:2::1", NOW) is None
    assert rates.client("2001:db8:1:3::1", NOW).rule == "rate-network"  # type: ignore[union-attr]


def test_a_forged_name_does_not_use_up_a_friends_allowance() -> None:
    rates = Rates(RateLimits(address=0, network=0, sender=2))
    for _ in range(9):
        rates.sender("Friend@far.test", "203.0.113.9", False, NOW)
    assert rates.sender("friend@far.test", "203.0.113.9", False, NOW).rule == "rate-sender"  # type: ignore[union-attr]
    assert rates.sender("friend@far.test", "192.0.2.1", True, NOW) is None
    assert rates.sender("friend@far.test", "198.51.100.1", True, NOW) is None
    assert rates.sender("FRIEND@far.test", "192.0.2.1", True, NOW) is not None, "one name from all its servers"


def test_bounces_have_no_name_and_zero_is_no_limit() -> None:
    rates = Rates(RateLimits(address=0, network=0, sender=1))
    assert [rates.sender("", "192.0.2.1", True, NOW) for _ in range(5)] == [None] * 5
    assert [rates.client("192.0.2.1", NOW) for _ in range(5000)] == [None] * 5000


def test_memory_is_bounded_and_the_busiest_are_remembered() -> None:
    buckets = Buckets(2, tracked=100)
    buckets.take("busy", NOW)
    for number in range(1000):
        buckets.take(str(number), NOW)
        assert buckets.has("busy", NOW)
    assert len(buckets) == 100
    buckets.take("busy", NOW)
    assert not buckets.has("busy", NOW)


@given(st.lists(st.floats(0, 2e9), max_size=30))
def test_whatever_the_clock_does_an_allowance_stays_one(times: list[float]) -> None:
    buckets = Buckets(3)
    for now in times:
        while buckets.has("one", now):
            buckets.take("one", now)
        assert buckets._filled("one", now).left < 1


def test_a_clock_set_back_locks_nobody_out() -> None:
    buckets = Buckets(60)
    for _ in range(60):
        buckets.take("one", NOW)
    assert not buckets.has("one", NOW - 1_000_000)
    assert buckets.has("one", NOW - 1_000_000 + 61)
