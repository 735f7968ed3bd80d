"""Lists of addresses in DNS: what is asked, what counts as a listing, and what is a broken list."""

import re

import pytest

from services.policy.dnsbl import BlockList, DnsblResult, block_lists, listed
from services.policy.verdict import Reason
from services.protocol.dns_lookup import Answer, DnsError, NoAnswer, Question, TemporaryFailure, answered
from services.runtime.filter_values import DNSBL_PATTERN

ZEN = BlockList("zen.example", "zen.example", 4.0)
NAME = "9.8.8.8.zen.example"
Zone = dict[tuple[str, str], Answer | DnsError]


def ask(zone: Zone, block_list: BlockList = ZEN, ip: str = "8.8.8.9") -> DnsblResult:
    [asking] = listed(ip, [block_list])
    return answered(asking, zone)


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("", ()),
        ("zen.spamhaus.org=6", (BlockList("zen.spamhaus.org", "zen.spamhaus.org", 6.0),)),
        ("A.example=1 , b.example=0.25", (BlockList("a.example", "a.example", 1.0), BlockList("b.example", "b.example", 0.25))),
        ("list.dnswl.org=-3", (BlockList("list.dnswl.org", "list.dnswl.org", -3.0),)),
        ("l.example=2@127.0.0.2", (BlockList("l.example", "l.example", 2.0, ((0x7F000002, 0x7F000002),)),)),
        (
            "l.example=2@127.0.0.2-127.0.0.11@127.0.1.2",
            (BlockList("l.example", "l.example", 2.0, ((0x7F000002, 0x7F00000B), (0x7F000102, 0x7F000102))),),
        ),
        ("s3cret.zen.dq.spamhaus.net=5", (BlockList("zen.dq.spamhaus.net", "s3cret.zen.dq.spamhaus.net", 5.0),)),
    ],
)  # fmt: skip
def test_the_setting(setting: str, found: tuple[BlockList, ...]) -> None:
    assert block_lists(setting) == found
    assert re.fullmatch(DNSBL_PATTERN, setting, re.IGNORECASE)


@pytest.mark.parametrize(
    "setting",
    ["zen.spamhaus.org", "zen=1", "zen.spamhaus.org=", "zen.spamhaus.org=x", "=1", "z.example=1@", "z.example=1@1.2.3.4",
     "z.example=1@127.0.0", "z.example=1;b.example=2", "z..example=1", "z.example=1e9", "-.=nan"],
)  # fmt: skip
def test_what_is_no_setting(setting: str) -> None:
    with pytest.raises(ValueError, match="is not a list such as"):
        block_lists(setting)
    assert not re.fullmatch(DNSBL_PATTERN, setting, re.IGNORECASE)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("z.example=101", "101 is more than 100"),
        ("z.example=1@127.0.0.9-127.0.0.2", "greater"),
        ("z.example=1@127.0.0.256", "256"),
        (",".join(f"z{n}.example=1" for n in range(21)), "more than 20"),
    ],
)
def test_settings_out_of_range(setting: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        block_lists(setting)


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        ("8.8.4.9", "9.4.8.8.zen.example"),
        ("::ffff:8.8.4.9", "9.4.8.8.zen.example"),
        ("2a00:1450::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.4.1.0.0.a.2.zen.example"),
    ],
)
def test_the_question(ip: str, name: str) -> None:
    [asking] = listed(ip, [ZEN])
    assert next(asking) == Question(name, "A")


@pytest.mark.parametrize(
    "ip", ["127.0.0.1", "10.1.2.3", "192.168.1.9", "172.20.0.1", "169.254.3.3", "100.64.0.7", "::1", "fe80::1%eth0",
           "fd00::1", "224.0.0.5", "0.0.0.0", "::ffff:10.0.0.1", "not an address", ""],
)  # fmt: skip
def test_an_address_of_the_house_is_not_told_to_anybody(ip: str) -> None:
    assert listed(ip, [ZEN]) == []


def test_a_listing_has_the_lists_words() -> None:
    found = ask({(NAME, "A"): ["127.0.0.4"], (NAME, "TXT"): [b"https://zen.example/q/8.8.8.9\x1b[31m"]})
    text = "8.8.8.9 is listed by zen.example (127.0.0.4): https://zen.example/q/8.8.8.9?[31m"
    assert found == DnsblResult(ZEN, ("127.0.0.4",), (Reason("dnsbl-zen-example", text, 4.0),))


@pytest.mark.parametrize(
    "txt", [NoAnswer("x"), TemporaryFailure("x"), [], [b""]], ids=["none", "away", "no record", "empty"]
)
def test_a_listing_without_words(txt: Answer | DnsError) -> None:
    [reason] = ask({(NAME, "A"): ["127.0.0.2", "127.0.0.4"], (NAME, "TXT"): txt}).reasons
    assert reason.text == "8.8.8.9 is listed by zen.example (127.0.0.2 127.0.0.4)"


def test_a_list_of_good_addresses() -> None:
    good = BlockList("good.example", "good.example", -3.0)
    [reason] = ask({("9.8.8.8.good.example", "A"): ["127.0.5.2"]}, good).reasons
    assert reason == Reason("dnsbl-good-example", "8.8.8.9 is recommended by good.example (127.0.5.2)", -3.0)


@pytest.mark.parametrize(
    ("answers", "counted"),
    [(["127.0.0.2"], ""), (["127.0.0.4"], "127.0.0.4"), (["127.0.0.2", "127.0.0.7"], "127.0.0.7"), (["127.0.0.8"], "")],
)
def test_only_some_answers_count(answers: list[str], counted: str) -> None:
    [some] = block_lists("zen.example=1@127.0.0.4-127.0.0.7")
    found = ask({(NAME, "A"): answers}, some)
    assert [reason.text for reason in found.reasons] == (
        [f"8.8.8.9 is listed by zen.example ({counted})"] if counted else []
    )
    assert found.answers == tuple(answers) and not found.error


@pytest.mark.parametrize("zone", [{}, {(NAME, "TXT"): [b"x"]}], ids=["no such name", "no such type"])
def test_not_listed(zone: Zone) -> None:
    assert ask(zone) == DnsblResult(ZEN)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["127.255.255.252"], "zen.example is no list that its owner knows (127.255.255.252): mend the name in DNSBL_LISTS"),
        (["127.255.255.254"], "refuses questions that come through public resolvers (127.255.255.254): leave DNS_FORWARD_TO empty"),
        (["127.255.255.255"], "refuses to answer (127.255.255.255), mostly for too many questions"),
        (["127.255.255.250"], "refuses to answer (127.255.255.250)"),
        (["127.0.0.1"], "refuses to answer (127.0.0.1)"),
        (["127.0.0.255"], "refuses to answer (127.0.0.255)"),
        (["127.0.0.2", "127.255.255.254"], "public resolvers"),
        (["93.184.216.34"], "answers 93.184.216.34, as no list does"),
        (["127.0.0.2", "1.1.1.1"], "answers 1.1.1.1, as no list does"),
    ],
)  # fmt: skip
def test_an_answer_that_is_an_error_is_no_listing(answers: list[str], said: str) -> None:
    found = ask({(NAME, "A"): answers})
    assert said in found.error and not found.reasons


@pytest.mark.parametrize(
    ("ip", "listed_name", "nobody"),
    [
        ("8.8.8.9", NAME, "1.0.0.127.zen.example"),
        (
            "2a00:1450::1",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.4.1.0.0.a.2.zen.example",
            "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.zen.example",
        ),
    ],
)
def test_a_list_that_lists_the_whole_world_has_ended(ip: str, listed_name: str, nobody: str) -> None:
    zone: Zone = {(listed_name, "A"): ["127.0.0.2"]}
    assert ask(zone, ip=ip).reasons
    found = ask({**zone, (nobody, "A"): ["127.0.0.2"]}, ip=ip)
    assert "lists every address" in found.error and not found.reasons
    away = ask({**zone, (nobody, "A"): TemporaryFailure("x")}, ip=ip)
    assert "does not answer" in away.error and not away.reasons


def test_a_list_that_is_away_decides_nothing() -> None:
    found = ask({(NAME, "A"): TemporaryFailure("no answer within 10 seconds")})
    assert found == DnsblResult(ZEN, error="zen.example does not answer: no answer within 10 seconds")
