"""Which destination gets the next connection: lanes without sockets, and a day of them in a simulation."""

import heapq
import random

from services.smtp_out.lanes import NEVER, Lane, Lanes
from services.smtp_out.next_hop import LOCAL


def names(lanes: list[Lane]) -> list[str]:
    return [lane.destination for lane in lanes]


def test_what_is_due_runs_and_what_is_not_waits() -> None:
    lanes = Lanes(20)
    lanes.due("a.test", 10)
    lanes.due("b.test", 20)
    assert names(lanes.pick(10)) == ["a.test"] and lanes.pick(10) == []
    assert lanes.next_time(10) == 20
    assert names(lanes.pick(20)) == ["b.test"] and lanes.next_time(10) == NEVER


def test_a_destination_begins_with_one_connection_and_earns_more() -> None:
    lanes = Lanes(20, widest=3)
    lanes.due("a.test", 0)
    (lane,) = lanes.pick(1)
    assert lanes.pick(1) == []
    for width in (2, 3, 3):
        lanes.succeeded(lane)
        assert lane.width == width
    assert names(lanes.pick(1)) == ["a.test"] and names(lanes.pick(1)) == ["a.test"] and lanes.pick(1) == []
    lanes.failed(lane, 1, "no answer")
    assert lane.width == 1 and lane.is_down(60) and not lane.is_down(61) and lane.down_because == "no answer"


def test_what_hangs_holds_half_of_the_connections_at_most() -> None:
    lanes = Lanes(20)
    for number in range(300):
        lanes.due(f"hangs{number}.test", 0)
    assert len(lanes.pick(1)) == 10
    # The ones that are known to work get the other half, also those that come late.
    for number in range(15):
        lanes.due(f"works{number}.test", 1)
        lanes.lanes[f"works{number}.test"].proven = True
    works = lanes.pick(1)
    assert len(works) == 10 and all(lane.proven for lane in works)
    assert lanes.pick(1) == [] and lanes.next_time(1) == 3
    # After two seconds who hangs counts no more: the next ten may show what they are.
    assert len(lanes.pick(3)) == 10
    picked = 20
    for now in range(5, 100, 2):
        picked += len([lane for lane in lanes.pick(now) if not lane.proven])
    assert picked < 120  # sockets, too, have an end


def test_the_house_itself_never_waits_for_the_world() -> None:
    lanes = Lanes(2)
    for number in range(5):
        lanes.due(f"d{number}.test", 0)
        lanes.lanes[f"d{number}.test"].proven = True
    assert len(lanes.pick(1)) == 2
    lanes.due(LOCAL, 1)
    assert names(lanes.pick(1)) == [LOCAL] and names(lanes.pick(1)) == [LOCAL]
    assert lanes.crowded


def test_all_get_their_turn() -> None:
    lanes = Lanes(2)
    for number in range(6):
        lanes.due(f"d{number}.test", 0)
        lanes.lanes[f"d{number}.test"].proven = True
    seen = []
    for _ in range(3):
        chosen = lanes.pick(1)
        seen += names(chosen)
        for lane in chosen:
            lanes.ended(lane)
    assert sorted(seen) == [f"d{number}.test" for number in range(6)]


def test_settled_moves_a_lane_to_its_next_time() -> None:
    lanes = Lanes(20)
    lanes.due("a.test", 0)
    (lane,) = lanes.pick(1)
    lanes.settled("a.test", 500)
    lanes.ended(lane)
    assert lanes.pick(499) == [] and lanes.next_time(10) == 500
    lanes.due("a.test", 100)  # something new
    assert names(lanes.pick(100)) == ["a.test"]
    lanes.settled("a.test", None)
    lanes.ended(lane)
    assert lanes.pick(1000) == []
    lanes.tidy(1000)
    assert not lanes.lanes


def test_forgiven_lanes_are_tried() -> None:
    lanes = Lanes(20)
    lanes.due("a.test", 0)
    (lane,) = lanes.pick(1)
    lanes.failed(lane, 1, "x")
    lanes.forgive()
    assert not lane.is_down(2)


def test_twenty_dead_destinations_of_two_hundred_hold_back_no_other() -> None:
    """10,000 messages; a good delivery takes 0.1 s, a dead destination 30 s to find out. Against the same without the
    dead ones, as issue 5 will measure it on real sockets."""

    def drained(dead: int) -> float:
        chance, now = random.Random(1), 0.0
        waiting = {f"d{number}.test": 50 for number in range(200) if dead or number >= 20}
        gone = {f"d{number}.test" for number in range(dead)}
        lanes = Lanes(20)
        for name in waiting:
            lanes.due(name, 0)
        running: list[tuple[float, int, Lane]] = []
        good = sum(count for name, count in waiting.items() if name not in gone)
        number = 0
        while good:
            for lane in lanes.pick(now):
                number += 1
                takes = 30.0 if lane.destination in gone else 0.1 * (0.5 + chance.random())
                heapq.heappush(running, (now + takes, number, lane))
            wake = lanes.next_time(now)
            if not running or wake < running[0][0]:
                now = wake
                continue
            now, _, lane = heapq.heappop(running)
            if lane.destination in gone:
                lanes.failed(lane, now, "no answer")
                lanes.settled(lane.destination, lane.down_until)
            else:
                waiting[lane.destination] -= 1
                good -= 1
                lanes.succeeded(lane)
                lanes.settled(lane.destination, now if waiting[lane.destination] > 0 else None)
            lanes.ended(lane)
        return now

    assert drained(20) < 1.3 * drained(0)


def test_a_hundred_thousand_destinations_are_picked_from_quickly() -> None:
    import time

    lanes = Lanes(20)
    for number in range(100_000):
        lanes.due(f"d{number}.test", 1000 + number)
    started = time.perf_counter()
    for _ in range(100):
        lanes.pick(999)
    assert time.perf_counter() - started < 0.5
