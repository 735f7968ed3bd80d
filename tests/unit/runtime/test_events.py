"""The record: whole lines, segments, retention, and a full disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

from services.runtime.events import SEGMENT_BYTES, EventLog, is_trace_id, new_trace_id


def _lines(folder: Path) -> list[dict[str, object]]:
    return [
        json.loads(line) for name in sorted(os.listdir(folder)) for line in (folder / name).read_text().splitlines()
    ]


def test_trace_ids_sort_by_time_and_differ() -> None:
    early, late = new_trace_id(1_700_000_000.0), new_trace_id(1_700_000_001.0)
    assert early < late
    assert is_trace_id(early)
    assert len({new_trace_id(1.0) for _ in range(1000)}) == 1000
    assert not is_trace_id("../../etc/passwd")


def test_lines_appear_at_flush_with_their_fields(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path), "smtp-in", clock=lambda: 5.0)
    log.emit("rcpt", "t1", outcome="reject", reply="550 5.1.1 no such user", peer="192.0.2.1", sender="", size=0)
    assert os.listdir(tmp_path) == []
    log.flush()
    assert _lines(tmp_path) == [
        {
            **{"t": 5_000_000, "room": "smtp-in", "kind": "rcpt", "trace": "t1", "outcome": "reject"},
            **{"reply": "550 5.1.1 no such user", "peer": "192.0.2.1", "size": 0},
        }
    ]


def test_a_hostile_text_stays_one_bounded_line(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path), "smtp-in")
    log.emit("helo", "t", reason='x"\n{"kind":"forged"}\r\n' + "y" * 100_000, odd=b"bytes")  # type: ignore[arg-type]
    log.close()
    (line,) = _lines(tmp_path)
    assert line["kind"] == "helo"
    assert len((tmp_path / os.listdir(tmp_path)[0]).read_bytes()) < 3000


def test_a_segment_is_closed_at_its_size_and_the_oldest_go(tmp_path: Path) -> None:
    now = [1000.0]
    log = EventLog(str(tmp_path), "imap", clock=lambda: now[0], total_bytes=3 * SEGMENT_BYTES, days=1)
    for _ in range(6 * SEGMENT_BYTES // 2000):
        now[0] += 0.001
        log.emit("login", "t", reason="z" * 1900)
    log.close()
    sizes = [(tmp_path / name).stat().st_size for name in os.listdir(tmp_path)]
    assert 2 <= len(sizes) <= 4
    assert sum(sizes) <= 4 * SEGMENT_BYTES + 70_000


def test_segments_older_than_the_days_go(tmp_path: Path) -> None:
    (tmp_path / f"{int(1e6):017d}.jsonl").write_text("{}\n")
    log = EventLog(str(tmp_path), "imap", clock=lambda: 200_000.0, days=1)
    log.emit("login", "t")
    log.close()
    assert len(os.listdir(tmp_path)) == 1


def test_a_full_disk_drops_lines_counts_them_and_comes_back(tmp_path: Path) -> None:
    full = [True]
    log = EventLog(str(tmp_path), "imap", disk_full=lambda: full[0])
    for _ in range(7):
        log.emit("login", "t")
    log.flush()
    full[0] = False
    log.emit("login", "after")
    log.close()
    note, after = _lines(tmp_path)
    assert "7 lines" in str(note["reason"])
    assert after["trace"] == "after"


def test_a_clock_that_is_set_back_makes_no_segment_before_the_one_that_was_written_last(tmp_path: Path) -> None:
    # admin's index takes the last name for the one that still grows: it would read no more of any other.
    now = 2_000_000.0
    names = []
    for step in (0.0, -86_400.0, -86_400.0, 86_400.0):
        now += step
        log = EventLog(str(tmp_path), "smtp-in", clock=lambda: now)  # noqa: B023 - used before the next turn
        log.emit("connect", "t")
        log.close()
        (new,) = {path.name for path in tmp_path.iterdir()} - set(names)
        names.append(new)
    assert names == sorted(names)
