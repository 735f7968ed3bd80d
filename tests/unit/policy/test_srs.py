"""SRS: what we make comes back, what others make does not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.policy.srs import NotOurs, TooLong, decode, encode, is_srs

SECRET, OURS, NOW = b"s" * 32, "home.test", 1_700_000_000.0
DAY = 86_400.0

LOCAL = st.from_regex(r"[a-zA-Z0-9._=+-]{1,20}", fullmatch=True).filter(lambda text: not is_srs(text))
DOMAIN = st.from_regex(r"[a-z0-9]{1,10}(\.[a-z0-9]{2,5}){1,2}", fullmatch=True).filter(lambda text: text != OURS)


@settings(max_examples=300, deadline=None)
@given(local=LOCAL, domain=DOMAIN, days=st.floats(0, 20))
def test_a_bounce_finds_its_way_back(local: str, domain: str, days: float) -> None:
    made = encode(f"{local}@{domain}", OURS, SECRET, NOW)
    assert made.endswith("@home.test") and is_srs(made)
    assert decode(made, SECRET, NOW + days * DAY) == f"{local}@{domain}"
    assert decode(made.lower(), SECRET, NOW) == f"{local}@{domain}".lower()


def test_the_known_form() -> None:
    made = encode("bob@far.test", OURS, SECRET, NOW)
    assert made == encode("bob@far.test", OURS, SECRET, NOW + 60)
    tag, digest, day, domain, local = made.rpartition("@")[0].split("=")
    assert (tag, len(digest), len(day), domain, local) == ("SRS0", 7, 2, "far.test", "bob")


@pytest.mark.parametrize("sender", ["", "anna@home.test", "anna@HOME.test"])
def test_what_is_not_rewritten(sender: str) -> None:
    assert encode(sender, OURS, SECRET, NOW) == sender


def test_a_forward_of_a_forward_goes_back_to_the_first() -> None:
    first = encode("bob@far.test", "middle.test", b"their secret", NOW)
    second = encode(first, OURS, SECRET, NOW)
    assert second.startswith("SRS1=") and second.count("SRS") == 1
    assert decode(second, SECRET, NOW) == first
    third = encode(second, "last.test", b"a third secret", NOW)
    assert third.startswith("SRS1=") and decode(third, b"a third secret", NOW) == first


def test_the_day_ends_it() -> None:
    made = encode("bob@far.test", OURS, SECRET, NOW)
    assert decode(made, SECRET, NOW + 21 * DAY)
    with pytest.raises(NotOurs, match="three weeks"):
        decode(made, SECRET, NOW + 23 * DAY)
    with pytest.raises(NotOurs, match="three weeks"):
        decode(made, SECRET, NOW - 2 * DAY)


def changed() -> list[str]:
    made = encode("bob@far.test", OURS, SECRET, NOW)
    twice = encode(encode("bob@far.test", "middle.test", b"x", NOW), OURS, SECRET, NOW)
    return [
        made.replace("bob", "eve"),
        made.replace("far.test", "victim.test"),
        made.replace(made.split("=")[1], "aaaaaaa"),
        made.replace(f"={made.split('=')[2]}=", "=aa="),
        twice.replace("bob", "eve"),
        twice.replace("middle.test", "victim.test"),
        "SRS0=bob@home.test",
        "SRS0====@home.test",
        "SRS1=x=y=@home.test",
        "bob@home.test",
        "SRS0=\udcff=aa=b=c@home.test",
    ]


@pytest.mark.parametrize("address", changed())
def test_what_we_did_not_make_is_refused(address: str) -> None:
    with pytest.raises(NotOurs):
        decode(address, SECRET, NOW)


def test_another_secret_is_another_house() -> None:
    with pytest.raises(NotOurs):
        decode(encode("bob@far.test", OURS, b"another secret", NOW), SECRET, NOW)


def test_too_long_is_said() -> None:
    with pytest.raises(TooLong):
        encode("a" * 60 + "@far.test", OURS, SECRET, NOW)
    with pytest.raises(ValueError, match="not an address"):
        encode("bob", OURS, SECRET, NOW)


def test_a_clock_that_was_a_day_ahead_costs_no_bounce() -> None:
    made = encode("ann@far.test", "home.test", SECRET, NOW + 86_400)
    assert decode(made, SECRET, NOW) == "ann@far.test"
    with pytest.raises(NotOurs):
        decode(encode("ann@far.test", "home.test", SECRET, NOW + 4 * 86_400), SECRET, NOW)
