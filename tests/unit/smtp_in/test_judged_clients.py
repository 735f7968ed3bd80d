"""Whom a message is judged by: the client that a trusted relay names, its names in DNS, and lists of addresses."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.runtime.values import WrongSetting
from tests.receivingroom import Conversation, ReceivingRoom
from tests.unit.smtp_in.test_judging import ANNA, ZONE, Zone, letter, place, run

CLIENT = "203.0.113.66"
NAMES: Zone = {
    **ZONE,
    ("66.113.0.203.in-addr.arpa", "PTR"): ["mx.known.test"],
    ("mx.known.test", "A"): [CLIENT],
    ("known.test", "TXT"): [f"v=spf1 ip4:{CLIENT} -all".encode()],
}
# The list's test point for IPv4 is global; documentation addresses are not asked about.
GLOBAL = "45.33.32.156"


async def named(room: ReceivingRoom, client: str = CLIENT, helo: str = "mx.known.test") -> Conversation:
    """A relay of the owner's that names its client by XCLIENT."""
    relay = await room.client()
    assert (await relay.say(f"XCLIENT ADDR={client} HELO={helo}")).startswith("220")
    assert (await relay.say(f"EHLO {helo}")).startswith("250")
    return relay


def told(room: ReceivingRoom) -> dict[str, Any]:
    (event,) = room.events.of("data")
    return event


def test_a_client_with_names_and_spf_costs_nothing(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        relay = await named(room)
        assert (await relay.send("a@known.test", [ANNA], letter("a@known.test"))).startswith("250")
        event = told(room)
        assert (event["client"], event["via"]) == (CLIENT, "xclient")
        assert {"spf-pass", "trusted-forwarder"} <= set(event["rules"].split())
        assert not {"no-ptr", "ptr-mismatch", "helo-no-address"} & set(event["rules"].split())
        assert f"PTR {CLIENT} → mx.known.test" in event["dns"]
        assert f"iprev=pass policy.iprev={CLIENT}" in event["auth"]

    run(tmp_path, story, NAMES, trusted_forwarders="127.0.0.1")


def test_a_client_without_names_weighs_and_is_no_junk_for_that(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        relay = await named(room, "203.0.113.77", "unknown.test")
        assert (await relay.send("a@nobody.test", [ANNA], letter("a@nobody.test"))).startswith("250")
        event = told(room)
        assert {"no-ptr", "helo-no-address", "spf-none"} <= set(event["rules"].split())
        assert 3 < event["score"] < 5
        assert place(room) == "INBOX"

    run(tmp_path, story, NAMES, trusted_forwarders="127.0.0.1")


@pytest.mark.parametrize(
    ("answers", "where", "rule"),
    [(["127.0.0.2"], "Junk", "dnsbl-list-test"), (["127.255.255.254"], "INBOX", "dnsbl-error"), ([], "INBOX", "")],
)
def test_lists(tmp_path: Path, answers: list[object], where: str, rule: str) -> None:
    zone = {**NAMES, (f"{'.'.join(reversed(GLOBAL.split('.')))}.list.test", "A"): answers} if answers else NAMES

    async def story(room: ReceivingRoom) -> None:
        relay = await named(room, GLOBAL, "unknown.test")
        assert (await relay.send("a@nobody.test", [ANNA], letter("a@nobody.test"))).startswith("250")
        assert place(room) == where
        assert ("dnsbl" in told(room)["rules"]) is bool(rule)
        assert rule in told(room)["rules"]

    run(tmp_path, story, zone, trusted_forwarders="127.0.0.1", dnsbl_lists="list.test=4")


def test_a_wrong_list_ends_the_start(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        raise AssertionError("it started")

    with pytest.raises((WrongSetting, ExceptionGroup)) as wrong:
        run(tmp_path, story, dnsbl_lists="nonsense")
    assert "DNSBL_LISTS=nonsense" in repr(wrong.value)


def test_a_relay_that_says_nothing_is_read_by_its_received_field(tmp_path: Path) -> None:
    line = f"Received: from mx.known.test (mx.known.test [{CLIENT}])\r\n\tby client.test (Postfix) with ESMTP id 1\r\n"

    async def story(room: ReceivingRoom) -> None:
        relay = await room.client()
        message = line.encode() + letter("a@known.test")
        assert (await relay.send("a@known.test", [ANNA], message)).startswith("250")
        event = told(room)
        assert (event["client"], event["via"]) == (CLIENT, "received")
        assert "spf-pass" in event["rules"]

    run(tmp_path, story, NAMES, trusted_forwarders="127.0.0.1")


def test_a_relay_whose_client_nobody_knows(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        relay = await room.client()
        assert (await relay.send("a@fail.test", [ANNA], letter("a@fail.test"))).startswith("250")
        event = told(room)
        assert event["via"] == "unknown"
        assert "spf-none|0|whom the mail comes from is not known, so SPF says nothing" in event["reasons"]
        assert place(room) == "INBOX"

    run(tmp_path, story, NAMES, trusted_forwarders="127.0.0.1", spf_fail="reject")


def test_a_relay_of_the_owners_neither_waits_nor_is_counted(tmp_path: Path) -> None:
    async def story(room: ReceivingRoom) -> None:
        relay = await named(room, "203.0.113.77", "unknown.test")
        for _ in range(3):
            assert (await relay.send("a@nobody.test", [ANNA], letter("a@nobody.test"))).startswith("250")

    run(
        tmp_path, story, NAMES, trusted_forwarders="127.0.0.1", greylist="yes", rate_per_address=1,
        rate_per_network=1, rate_per_sender=1,
    )  # fmt: skip


def test_a_second_message_of_a_connection_asks_for_its_client_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.runtime.dns import ZoneLookup

    asked: list[str] = []
    ptr = ZoneLookup.ptr

    async def counted(self: ZoneLookup, address: str) -> list[str]:
        asked.append(address)
        return await ptr(self, address)

    monkeypatch.setattr(ZoneLookup, "ptr", counted)

    async def story(room: ReceivingRoom) -> None:
        relay = await named(room)
        for _ in range(3):
            assert (await relay.send("a@known.test", [ANNA], letter("a@known.test"))).startswith("250")
        assert asked == [CLIENT]
        assert all(f"PTR {CLIENT} → mx.known.test" in event["dns"] for event in room.events.of("data"))
        await asyncio.sleep(0)

    run(tmp_path, story, NAMES, trusted_forwarders="127.0.0.1")
