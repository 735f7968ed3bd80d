"""Failed log-ins: who waits, who is refused, and above all who is not."""

import json

import pytest

from services.policy.throttle import Ban, Penalty, Rules, Throttle, address_key

STRANGER, HOME, ELSEWHERE, GATEWAY = "198.51.100.7", "203.0.113.5", "192.0.2.99", "172.18.0.1"
ANNA, BEN = "anna@home.test", "ben@home.test"
RULES = Rules()
T = 1_000_000.0


def guessing(throttle: Throttle, address: str, account: str, count: int, start: int = 0, now: float = T) -> Penalty:
    penalty = Penalty(0)
    for number in range(start, start + count):
        penalty = throttle.failed(address, account, f"guess {number}", now)
    return penalty


def test_the_wait_grows_and_ends_growing() -> None:
    throttle = Throttle()
    waits = [throttle.failed(STRANGER, ANNA, str(number), T).delay for number in range(8)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0]


def test_a_strangers_address_is_banned_for_everybody_on_it() -> None:
    throttle = Throttle()
    assert guessing(throttle, STRANGER, ANNA, 9).bans == ()
    bans = guessing(throttle, STRANGER, BEN, 1).bans
    assert [(ban.kind, ban.key, ban.until) for ban in bans] == [("address", STRANGER, T + RULES.ban)]
    assert throttle.check(STRANGER, BEN, T + 1) and throttle.banned_address(STRANGER, T + 1)
    assert throttle.check(HOME, ANNA, T + 1) is None
    assert throttle.check(STRANGER, ANNA, T + RULES.ban) is None and not throttle.banned_address(
        STRANGER, T + RULES.ban
    )


def test_each_further_ban_lasts_twice_as_long_up_to_a_day() -> None:
    throttle, now, lasted = Throttle(), T, []
    for round_ in range(10):
        ban = guessing(throttle, STRANGER, ANNA, 10, start=round_ * 10, now=now).bans[0]
        lasted.append(ban.until - now)
        now = ban.until
    assert lasted == [900 * 2**n for n in range(7)] + [86_400] * 3


def test_bans_of_long_ago_are_forgiven() -> None:
    throttle = Throttle()
    guessing(throttle, STRANGER, ANNA, 10)
    later = T + RULES.forget_bans + 1000
    assert guessing(throttle, STRANGER, ANNA, 10, now=later).bans[0].until == later + RULES.ban


def test_a_family_behind_one_address_goes_on() -> None:
    throttle = Throttle()
    throttle.succeeded(HOME, BEN, T)
    bans = guessing(throttle, HOME, ANNA, 10).bans
    assert [(ban.kind, ban.key) for ban in bans] == [("pair", f"{HOME} {ANNA}")]
    assert throttle.check(HOME, ANNA, T) is not None
    assert throttle.check(HOME, BEN, T) is None and throttle.banned_address(HOME, T) is None
    assert throttle.check(ELSEWHERE, ANNA, T) is None


def test_an_address_is_known_for_a_month() -> None:
    throttle = Throttle()
    throttle.succeeded(HOME, BEN, T)
    later = T + RULES.known_for + 1
    assert guessing(throttle, HOME, ANNA, 10, now=later).bans[0].kind == "address"


def test_a_telephone_with_the_old_password_is_never_banned() -> None:
    throttle = Throttle()
    for minute in range(500):
        penalty = throttle.failed(HOME, ANNA, "the old one", T + 60 * minute)
        assert penalty == Penalty(0.25)


def test_a_loop_with_one_password_is_banned() -> None:
    throttle = Throttle()
    for number in range(10):
        penalty = throttle.failed(STRANGER, ANNA, "the same", T + number)
    assert [ban.kind for ban in penalty.bans] == ["address"]


def test_guesses_are_forgotten_after_the_window() -> None:
    throttle = Throttle()
    guessing(throttle, STRANGER, ANNA, 9)
    later = T + RULES.window + 1
    assert throttle.failed(STRANGER, ANNA, "x", later) == Penalty(0.25)


def botnet(throttle: Throttle, account: str, count: int, now: float = T) -> list[Ban]:
    """One guess from each of `count` addresses."""
    bans: list[Ban] = []
    for number in range(count):
        bans += throttle.failed(f"10.1.{number // 256}.{number % 256}", account, f"guess {number}", now).bans
    return bans


def test_a_botnet_bans_the_account_for_itself_only() -> None:
    throttle = Throttle()
    bans = botnet(throttle, ANNA, RULES.account_guesses)
    assert [(ban.kind, ban.key) for ban in bans] == [("account", ANNA)] and "40 addresses" in bans[0].reason
    # Who has guessed is refused without a look at the password; everybody else still has theirs checked.
    assert throttle.check("10.1.0.3", ANNA, T) is not None
    assert throttle.check(HOME, ANNA, T) is None and throttle.check(ELSEWHERE, ANNA, T) is None
    assert throttle.check("10.1.0.3", BEN, T) is None


def test_under_attack_a_first_wrong_guess_is_the_last() -> None:
    throttle = Throttle()
    botnet(throttle, ANNA, RULES.account_guesses)
    bans = throttle.failed(ELSEWHERE, ANNA, "guess", T).bans
    assert [(ban.kind, ban.key) for ban in bans] == [("pair", f"{ELSEWHERE} {ANNA}")]
    assert throttle.check(ELSEWHERE, ANNA, T) is not None and throttle.check(ELSEWHERE, BEN, T) is None


def test_gateways_wait_and_are_never_banned() -> None:
    throttle = Throttle(gateways=[GATEWAY])
    penalty = guessing(throttle, GATEWAY, ANNA, 200)
    assert penalty == Penalty(RULES.longest_delay)
    botnet(throttle, ANNA, RULES.account_guesses)
    assert throttle.check(GATEWAY, ANNA, T) is None
    throttle.ban(GATEWAY, "address", T + 99, "by hand", T)
    assert throttle.check(GATEWAY, ANNA, T) is None and throttle.banned_address(GATEWAY, T) is None


def test_success_forgives_the_guesses_before_it() -> None:
    throttle = Throttle()
    guessing(throttle, HOME, ANNA, 9)
    throttle.succeeded(HOME, ANNA, T)
    assert throttle.failed(HOME, ANNA, "typo", T) == Penalty(0.25)


def test_ipv6_counts_by_64() -> None:
    throttle = Throttle()
    for number in range(10):
        throttle.failed(f"2001:db8:1:2::{number:x}", ANNA, str(number), T)
    assert throttle.check("2001:db8:1:2:ffff::1", ANNA, T) is not None
    assert throttle.check("2001:db8:1:3::1", ANNA, T) is None


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("not an address", "not an address"),
    ],
)
def test_address_key(address: str, key: str) -> None:
    assert address_key(address) == key


def test_unban_lifts_and_forgives() -> None:
    throttle = Throttle()
    guessing(throttle, STRANGER, ANNA, 10)
    throttle.ban(ANNA, "account", T + 100, "by hand", T)
    throttle.ban(f"{HOME} {ANNA}", "pair", T + 100, "by hand", T)
    assert {ban.kind for ban in throttle.unban(ANNA, T)} == {"account", "pair"}
    assert [ban.kind for ban in throttle.unban(STRANGER, T)] == ["address"]
    assert throttle.bans(T) == () and throttle.unban(STRANGER, T) == ()
    assert throttle.failed(STRANGER, ANNA, "typo", T) == Penalty(0.25)


def test_an_ipv6_ban_is_lifted_by_any_address_of_its_network() -> None:
    throttle = Throttle()
    throttle.ban("2001:db8::1", "address", T + 100, "by hand", T)
    assert throttle.bans(T)[0].key == "2001:db8::/64"
    assert throttle.unban("2001:db8::77", T)


def test_the_longer_of_two_bans_stands() -> None:
    throttle = Throttle()
    throttle.ban(STRANGER, "address", T + 500, "one", T)
    assert throttle.ban(STRANGER, "address", T + 100, "two", T).reason == "one"
    assert throttle.ban(STRANGER, "address", T + 900, "three", T).until == T + 900


def test_what_is_written_out_comes_back() -> None:
    throttle = Throttle()
    throttle.succeeded(HOME, BEN, T)
    guessing(throttle, STRANGER, ANNA, 10)
    again = Throttle()
    again.load(json.loads(json.dumps(throttle.dump(T))), T + 1)
    assert again.check(STRANGER, ANNA, T + 1) is not None and again.is_known(HOME, T + 1)
    # The strikes came too: the next ban is the second.
    later = T + RULES.ban
    assert guessing(again, STRANGER, ANNA, 10, now=later).bans[0].until == later + 2 * RULES.ban
    third = Throttle()
    third.load(throttle.dump(T), T + RULES.ban)
    assert third.bans(T + RULES.ban) == ()


@pytest.mark.parametrize(
    "state", [{}, {"version": 2}, {"version": 1, "bans": [{"key": "x"}], "known": [], "strikes": []}]
)
def test_a_file_of_another_kind_changes_nothing(state: dict[str, object]) -> None:
    throttle = Throttle()
    throttle.ban(STRANGER, "address", T + 500, "one", T)
    with pytest.raises((ValueError, KeyError, TypeError)):
        throttle.load(state, T)
    assert len(throttle.bans(T)) == 1


def test_memory_is_bounded() -> None:
    throttle = Throttle(Rules(tracked=50))
    for number in range(500):
        throttle.failed(f"10.0.{number // 250}.{number % 250}", f"user{number}", "x", T)
        throttle.succeeded(f"10.2.{number // 250}.{number % 250}", f"user{number}", T)
    assert len(throttle._sources) <= 50 and len(throttle._accounts) <= 50 and len(throttle._known) <= 50
    guessing(throttle, "10.3.0.1", ANNA, 5000)
    assert all(len(source.guesses) < 100 for source in throttle._sources.values())


# --- a clock that was wrong, or is set

DAY = 86_400.0


def test_a_ban_lasts_no_day_longer_because_the_clock_was_set_back() -> None:
    throttle = Throttle()
    guessing(throttle, STRANGER, ANNA, 10, now=T + DAY)
    (ban,) = throttle.bans(T)
    assert (ban.since, ban.until) == (T, T + RULES.ban)
    assert throttle.banned_address(STRANGER, T + RULES.ban - 1) and throttle.check(STRANGER, ANNA, T + RULES.ban - 1)
    assert throttle.banned_address(STRANGER, T + RULES.ban) is None
    assert throttle.check(STRANGER, ANNA, T + RULES.ban) is None and throttle.bans(T + RULES.ban) == ()


def test_a_clock_that_a_time_server_moves_in_passing_changes_no_ban() -> None:
    throttle = Throttle()
    (ban,) = guessing(throttle, STRANGER, ANNA, 10).bans
    assert throttle.banned_address(STRANGER, T - 30) == ban


def test_a_ban_that_was_written_down_under_a_clock_ahead_keeps_its_length() -> None:
    ahead = Throttle()
    guessing(ahead, STRANGER, ANNA, 10, now=T + DAY)
    throttle = Throttle()
    throttle.load(json.loads(json.dumps(ahead.dump(T + DAY))), T)
    assert [ban.until for ban in throttle.bans(T)] == [T + RULES.ban]


def test_guesses_from_the_future_are_forgotten() -> None:
    throttle = Throttle()
    guessing(throttle, STRANGER, ANNA, 9, now=T + DAY)
    assert guessing(throttle, STRANGER, ANNA, 1, start=9, now=T).bans == (), "nobody counts them for a day more"


def test_a_clock_that_is_set_forward_ends_bans_and_no_more() -> None:
    throttle = Throttle()
    guessing(throttle, STRANGER, ANNA, 10)
    assert throttle.banned_address(STRANGER, T + DAY) is None
    assert guessing(throttle, STRANGER, ANNA, 10, start=10, now=T + DAY).bans
