"""Houses for the scenarios: one for all of them that sends by a relay, and fresh ones for those that stop or kill.

The relay is a scripted server that remembers; the internet's DNS is another. Each scenario makes accounts of its own,
so that they do not disturb each other.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import house
import pytest
from fakes import FakeDns, FakeMailServer, Script
from house import House

RELAY_LOGIN = ("family@relay.test", "relay s3cret")
# Bans after three guesses, and retries after a second: the defaults' mechanism, not their patience.
QUICK = {"BAN_FAILURES": "3", "RETRY_FIRST": "1", "LOG_LEVEL": "info"}


@pytest.fixture(scope="session")
def relay() -> Iterator[FakeMailServer]:
    server = FakeMailServer(Script(login=RELAY_LOGIN))
    yield server
    server.close()


@pytest.fixture(scope="session")
def dns() -> Iterator[FakeDns]:
    server = FakeDns({("relay.test", "A"): ["127.0.0.1"], ("outside.test", "MX"): ["10 relay.test."]})
    yield server
    server.close()


def by_relay(relay: FakeMailServer, dns: FakeDns) -> dict[str, str]:
    return {
        **QUICK,
        "RELAY_HOST": "relay.test",
        "RELAY_PORT": str(relay.port),
        "RELAY_USER": RELAY_LOGIN[0],
        "RELAY_PASSWORD": RELAY_LOGIN[1],
        "RELAY_TLS": "none",
        "RESOLVER": dns.address,
    }


@pytest.fixture(scope="session")
def at_home(tmp_path_factory: pytest.TempPathFactory, relay: FakeMailServer, dns: FakeDns) -> Iterator[House]:
    """The house of most scenarios; it is never stopped."""
    with house.running(tmp_path_factory.mktemp("house"), by_relay(relay, dns), accounts_ahead=16) as running:
        yield running
        assert running.process is not None and running.process.poll() is None, running.log
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def new_house(tmp_path: Path, dns: FakeDns) -> Iterator[Callable[..., House]]:
    """Makes houses that a scenario may stop, kill and start again; variables as keywords."""
    made: list[House] = []

    def make(**environment: str) -> House:
        made.append(House(tmp_path / f"house{len(made)}", {**QUICK, "RESOLVER": dns.address, **environment}))
        return made[-1].start()

    yield make
    for each in made:
        each.kill()
        assert "Traceback" not in each.log, each.log
