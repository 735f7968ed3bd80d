"""Which address is nobody's."""

from pathlib import Path

from services.runtime.gateways import default_gateways
from services.smtp.gateway import CERTAIN_AFTER, Watch

V4 = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010014AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000014AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t0000000A\t020014AC\t0003\t0\t0\t0\t000000FF\t0\t0\t0
"""
V6 = (
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 "
    "00000400 00000001 00000000 00000003 eth0\n"
    "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 "
    "00000100 00000001 00000000 00000001 eth0\n"
)


def test_default_gateways_are_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "v4").write_text(V4)
    (tmp_path / "v6").write_text(V6)
    assert default_gateways(str(tmp_path / "v4"), str(tmp_path / "v6")) == {"172.20.0.1", "fd00::1"}
    assert default_gateways(str(tmp_path / "none"), str(tmp_path / "none")) == frozenset()


def test_it_is_certain_after_so_many_also_beside_true_addresses() -> None:
    watch = Watch(frozenset({"172.20.0.1"}))
    said = [watch.saw(peer) for _ in range(CERTAIN_AFTER + 5) for peer in ("172.20.0.1", "192.0.2.7")]
    assert said.count(True) == 1
    assert watch.collapsed == "172.20.0.1"


def test_a_few_from_the_gateway_may_be_the_owner() -> None:
    watch = Watch(frozenset({"172.20.0.1"}))
    assert not any(watch.saw("172.20.0.1") for _ in range(CERTAIN_AFTER - 1)) and not watch.collapsed


def test_where_no_gateway_is_known_nothing_is_said() -> None:
    watch = Watch(frozenset())
    assert not any(watch.saw("192.0.2.7") for _ in range(50))
