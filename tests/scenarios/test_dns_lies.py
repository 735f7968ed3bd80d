"""DNS that lies: mail waits and then arrives once; `python -m tests.faults dns-lies` has more ways."""

from collections.abc import Callable, Iterator

import pytest
from fakes import FakeMailServer, Script
from house import House

from tests.faults.dns_lies import LyingDns, held, nothing_left, try_lie


@pytest.fixture
def outside() -> Iterator[FakeMailServer]:
    server = FakeMailServer(Script())
    yield server
    server.close()


@pytest.fixture
def lying() -> Iterator[LyingDns]:
    server = LyingDns()
    yield server
    server.close()


def test_mail_waits_while_dns_lies(
    new_house: Callable[..., House], outside: FakeMailServer, lying: LyingDns
) -> None:  # fmt: skip
    house = new_house(RESOLVER=lying.address, MX_PORT=str(outside.port))
    ann = house.account()
    try_lie(house, ann, lying, outside, "servfail", 2)
    before = held(house)
    for name in ("circle", "servfail"):
        try_lie(house, ann, lying, outside, name, 2)
    nothing_left(house, before)
