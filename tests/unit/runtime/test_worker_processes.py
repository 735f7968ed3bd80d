"""What workers of one room share: limits dealt out, segments of the record, ports, and a hold that is followed."""

import asyncio
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from services.admin.event_index import EventIndex
from services.runtime.events import EventLog, NoEvents, writer_of
from services.runtime.health import Health
from services.runtime.hold import Hold, Lease
from services.runtime.listener import bind, with_port
from services.runtime.process import Context
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from services.runtime.workers import share


def test_limits_are_dealt_out_and_no_limit_stays_none() -> None:
    whole = replace(Settings(), max_connections=5, max_connections_per_peer=1, rate_per_address=0, rate_per_sender=7)
    part = share(whole, 2)
    assert (part.max_connections, part.max_connections_per_peer) == (3, 1)
    assert (part.rate_per_address, part.rate_per_sender) == (0, 4)
    assert share(whole, 1) == whole


def log(folder: Path, writer: int, writers: int = 3, total: int = 1 << 20) -> EventLog:
    return EventLog(str(folder), "smtp-in", writer=writer, writers=writers, total_bytes=total, clock=lambda: 1000.0)


def test_each_worker_has_segments_of_its_own_and_the_index_reads_all(tmp_path: Path) -> None:
    folder = tmp_path / "smtp-in"
    folder.mkdir()
    logs = [log(folder, number) for number in range(3)]
    index = EventIndex(str(tmp_path / "events.db"), str(tmp_path), ["smtp-in"], clock=lambda: 1000.0)
    for turn in range(3):  # a segment that was read to its end goes on: it is not the newest by name, but its worker's
        for number, each in enumerate(logs):
            each.emit("connect", "0" * 16, peer=f"192.0.2.{number}", port=turn)
            each.flush()
        while index.ingest():
            pass
    found = [(event["peer"], event["port"]) for event in index.latest(100)]
    assert sorted(found) == [(f"192.0.2.{number}", turn) for number in range(3) for turn in range(3)]
    assert sorted(writer_of(path.name) for path in folder.iterdir()) == [0, 1, 2]
    index.close()
    for each in logs:
        each.close()


def test_the_first_clears_away_what_a_worker_left_that_is_no_more(tmp_path: Path) -> None:
    (tmp_path / f"{1:017d}-1.jsonl").write_bytes(b"x")
    (tmp_path / f"{1:017d}-2.jsonl").write_bytes(b"x")
    (tmp_path / f"{1:017d}.jsonl").write_bytes(b"x")
    first = EventLog(str(tmp_path), "smtp-in", writers=2, days=1, clock=lambda: 1e6)
    first.emit("connect", "0" * 16)
    first.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{1:017d}-1.jsonl", f"{10**12:017d}.jsonl"]


@pytest.mark.parametrize(
    ("address", "told"),
    [(":25", ":25"), ("127.0.0.1:0", "127.0.0.1:7"), ("[::1]:0, 127.0.0.1:25", "[::1]:7,127.0.0.1:25"), (":10", ":10")],
)
def test_a_port_of_the_kernel_s_choice_is_told(address: str, told: str) -> None:
    assert with_port(address, 7) == told


def test_two_may_bind_one_port_where_both_say_so() -> None:
    (first,) = bind("127.0.0.1:0", shared=True)
    first.listen()
    port = first.getsockname()[1]
    with pytest.raises(OSError, match="cannot listen"):
        bind(f"127.0.0.1:{port}")
    (second,) = bind(f"127.0.0.1:{port}", shared=True)
    first.close()
    second.close()


def hold(folder: Path, *, follows: bool = False) -> Hold:
    settings = Settings(room_dir=str(folder), log_level="error")
    context = Context("smtp-in", settings, NoEvents(), Secrets(str(folder)), Health("smtp-in"))
    return Hold(context, elapsed=lambda: 100.0, boot=lambda: "boot", follows=follows)


def test_a_hold_is_told_before_it_is_taken_and_followed(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = hold(tmp_path / "1"), hold(tmp_path / "2", follows=True)
        seen: list[str] = []
        second.when_it_begins(lambda lease: seen.append(lease.id))
        second.when_it_ends(lambda: seen.append("ended"))

        async def tell(lease: Lease | None) -> None:
            second.follow(None if lease is None else asdict(lease))

        first.tell(tell)
        assert await first.take("one", 60.0, exempt="192.0.2.1")
        assert second.refusal("192.0.2.2") and second.exempts("192.0.2.1")
        assert await first.take("one", 60.0)  # renewed: it begins once
        assert not second.exempts("192.0.2.1")
        await first.release("one")
        assert second.exempts("192.0.2.2")
        assert seen == ["one", "ended"]
        assert not (tmp_path / "2").exists()  # who follows writes nothing

    asyncio.run(run())
