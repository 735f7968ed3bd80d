"""Who may stay: limits in all and by address, and the gateway, which is nobody's address."""

from dataclasses import dataclass

from services.imap.peers import TOO_MANY, TOO_MANY_FROM_PEER, Peers


@dataclass(eq=False)
class Client:
    """As much of a connection as is counted."""

    peer: str
    address: str = ""

    def sweep(self, now: float) -> None: ...
    def finish(self, text: str) -> None: ...
    def abort(self) -> None: ...


def test_an_address_has_its_limit_and_the_gateway_only_that_of_all() -> None:
    peers = Peers(10, 2, ["10.1.0.1", "fd00:1::1"])
    assert [peers.add(Client("192.0.2.1")) for _ in range(3)] == ["", "", TOO_MANY_FROM_PEER]
    assert peers.refusal("192.0.2.1", ()) == TOO_MANY_FROM_PEER
    assert [peers.add(Client("10.1.0.1")) for _ in range(3)] == [""] * 3
    assert [peers.add(Client("fd00:1::1")) for _ in range(3)] == [""] * 3
    assert peers.refusal("10.1.0.1", ()) == "" and peers.refusal("192.0.2.2", ()) == ""
    assert peers.add(Client("10.1.0.1")) == ""
    assert peers.refusal("10.1.0.1", ()) == TOO_MANY and peers.add(Client("10.1.0.1")) == TOO_MANY
