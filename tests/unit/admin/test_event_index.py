"""The index of all records: tailing, exactly once, hostile folders, bounds, rebuilding."""

from __future__ import annotations

import json
import os
import sqlite3

import pytest

from services.admin import event_index
from services.admin.event_index import EventIndex
from services.runtime.events import EventLog

NOW = 1_700_000_000.0
US = int(NOW * 1e6)


@pytest.fixture
def record(tmp_path):
    for room in ("smtp-in", "imap"):
        (tmp_path / room).mkdir()
    return tmp_path


@pytest.fixture
def opened():
    made = []
    yield made
    for index in made:
        index.close()


@pytest.fixture
def index(record, opened):
    def make(**options):
        options.setdefault("clock", lambda: NOW)
        index = EventIndex(str(record / "events.db"), str(record), ("smtp-in", "imap"), **options)
        opened.append(index)
        return index

    return make


def line(trace, kind="connect", t=US, **fields):
    return json.dumps({"t": t, "room": "x", "kind": kind, "trace": trace, "outcome": "info", **fields}).encode() + b"\n"


def write(record, data, room="smtp-in", name="00001.jsonl"):
    with open(record / room / name, "ab") as file:
        file.write(data)


def drain(index):
    turns = 0
    while index.ingest():
        turns += 1
        assert turns < 1000
    return index


def traces(index, *terms):
    return [event["trace"] for event in index.events(terms, 1000)]


def test_what_a_room_writes_is_found(record, index):
    log = EventLog(str(record / "smtp-in"), "smtp-in", clock=lambda: NOW)
    log.emit("rcpt", "m1", conn="c1", peer="192.0.2.1", recipient="Anna@family.example", outcome="reject", reply="550")
    log.close()
    (event,) = drain(index()).events(["anna@family.example"], 10)
    assert (event["room"], event["kind"], event["reply"], event["t"]) == ("smtp-in", "rcpt", "550", US)
    assert traces(drain(index()), "c1") == traces(drain(index()), "192.0.2.1") == ["m1"]


def test_lines_are_taken_once_over_restarts(record, index):
    one = index()
    write(record, line("a"))
    drain(one)
    drain(one)
    one.close()
    write(record, line("b"))
    write(record, line("c"), name="00002.jsonl")
    again = drain(index())
    assert [traces(again, name) for name in "abc"] == [["a"], ["b"], ["c"]]


def test_a_line_still_being_written_waits(record, index):
    whole = line("a")
    tail = index()
    write(record, whole[:20])
    assert not tail.ingest() and traces(tail, "a") == []
    write(record, whole[20:])
    assert traces(drain(tail), "a") == ["a"]


def test_fed_byte_by_byte(record, index):
    tail = index()
    for byte in line("a", recipient="anna@family.example") + line("b"):
        write(record, bytes([byte]))
        tail.ingest()
    assert traces(tail, "a", "b") == ["a", "b"]


def test_a_crash_between_lines_and_offset_takes_none_twice(record, index, monkeypatch):
    tail = index()
    write(record, line("a"))

    class Crashing:
        def __init__(self, connection):
            self.connection = connection

        def __getattr__(self, name):
            return getattr(self.connection, name)

        def execute(self, sql, *values):
            if sql.startswith("INSERT OR REPLACE INTO segments"):
                raise MemoryError
            return self.connection.execute(sql, *values)

    monkeypatch.setattr(tail, "_connection", Crashing(tail._connection))
    with pytest.raises(MemoryError):
        tail.ingest()
    monkeypatch.undo()
    assert traces(tail, "a") == []
    assert traces(drain(tail), "a") == ["a"]


HOSTILE = [
    b"\n", b"\n\n\n", b"{}\n", b"null\n", b"[]\n", b"1\n", b'"x"\n', b"{\n", b"\x00\xff\xfe\n", b'{"kind":1}\n',
    b'{"kind":"connect"}\n', b'{"kind":"connect","trace":null}\n', b"[" * 60_000 + b"\n", b'{"a":' * 10_000 + b"\n",
    b'{"kind":"x y","trace":"t"}\n', b'{"kind":"","trace":"t"}\n', b"x" * 70_000 + b"\n", b"x" * 600_000 + b"\n",
    b'{"t":' + b"9" * 5000 + b',"kind":"connect","trace":"t"}\n', b'{"kind":"connect","trace":"t"} extra\n',
]  # fmt: skip


@pytest.mark.parametrize("garbage", HOSTILE)
def test_garbage_lines_stop_nothing(record, index, garbage):
    write(record, line("a") + garbage + line("b"))
    assert traces(drain(index()), "a", "b") == ["a", "b"]


ODD = [
    {"t": "yesterday"}, {"t": -1}, {"t": 1 << 70}, {"t": True}, {"t": None}, {"t": 1e300}, {"outcome": "great"},
    {"outcome": ["x"]}, {"recipient": ["x"] * 5000}, {"recipients": {"a": {"b": {"c": {"d": {"e": 1}}}}}},
    {"recipients": [1, None, ["x"], "anna@family.example"]}, {"size": 1 << 100}, {"size": float("inf")},
    {"message_id": "x" * 5000}, {"peer": "999.1.1.1:::"}, {"sender": "\ud800@\udfff"}, {"Bad Name": 1, "id": 5},
    {"reason": "\x1b[31mred\x07\u202e"}, {"trace": "\x1b]0;title\x07"}, {f"f{n}": n for n in range(500)},
]  # fmt: skip


@pytest.mark.parametrize("fields", ODD)
def test_odd_fields_are_tamed(record, index, fields):
    write(
        record,
        line("a", **{"peer": "192.0.2.9", **fields}) if "trace" not in fields else line(**{"trace": "x", **fields}),
    )
    tail = drain(index())
    if "peer" in fields or "trace" in fields:
        events = tail.events(["a", "\ufffd]0;title\ufffd"], 10)
    else:
        events = tail.events(["192.0.2.9"], 10)
    (event,) = events
    assert 0 < event["t"] <= US + 86_400_000_000 and event["room"] == "smtp-in"
    text = json.dumps(event, ensure_ascii=False)
    assert not {"\x1b", "\x07", "\u202e"} & set(text) and len(text) < 20_000


def test_a_room_cannot_speak_for_another(record, index):
    write(record, json.dumps({"t": US, "room": "dkim", "kind": "signed", "trace": "a"}).encode() + b"\n")
    (event,) = drain(index()).events(["a"], 10)
    assert event["room"] == "smtp-in"


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "dangling"])
def test_only_plain_files_are_read(record, index, what):
    """A link to the first password, or a pipe that never answers, in the place of a segment."""
    secret = record / "secret"
    secret.write_bytes(line("stolen"))
    path = record / "smtp-in" / "00001.jsonl"
    if what == "link":
        path.symlink_to(secret)
    elif what == "dangling":
        path.symlink_to(record / "nowhere")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    write(record, line("a"), name="00002.jsonl")
    tail = drain(index())
    assert traces(tail, "stolen") == [] and traces(tail, "a") == ["a"]


def test_other_names_are_not_segments(record, index):
    for name in ("x.jsonl", "00001.json", "00001.jsonl.gz", "-1.jsonl", "1" * 30 + ".jsonl"):
        write(record, line("a"), name=name)
    assert traces(drain(index()), "a") == []


def test_a_segment_that_shrinks_or_goes_is_survived(record, index):
    tail = index()
    write(record, line("a") + line("b"))
    drain(tail)
    os.truncate(record / "smtp-in" / "00001.jsonl", 10)
    write(record, line("c"), name="00002.jsonl")
    drain(tail)
    (record / "smtp-in" / "00001.jsonl").unlink()
    tail.retain()
    write(record, line("d"), name="00002.jsonl")
    assert [traces(drain(tail), name) for name in "abcd"] == [["a"], ["b"], ["c"], ["d"]]
    assert set(tail._offsets) == {("smtp-in", "00002.jsonl")}


def test_a_noisy_room_does_not_hide_the_others(record, index, monkeypatch):
    monkeypatch.setattr(event_index, "READ_OCTETS", 500)
    write(record, b"".join(line(f"noise{n}") for n in range(200)))
    write(record, line("quiet"), room="imap")
    tail = index()
    assert tail.ingest() is True
    assert traces(tail, "quiet") == ["quiet"] and traces(tail, "noise199") == []


def test_too_old_goes(record, index):
    write(record, line("old", t=US - 31 * 86_400_000_000, peer="192.0.2.1") + line("new", peer="192.0.2.1"))
    tail = drain(index(days=30))
    while tail.retain():
        pass
    assert traces(tail, "192.0.2.1") == ["new"]
    assert tail._connection.execute("SELECT count(*) FROM terms").fetchone() == (2,)


def test_too_much_pushes_out_the_same_rooms_past(record, index, monkeypatch):
    monkeypatch.setattr(event_index, "DELETE_LINES", 10)
    write(record, line("quiet", t=US - 5000), room="imap")
    write(record, b"".join(line(f"n{number}", t=US - 1000 + number, peer="192.0.2.1") for number in range(100)))
    tail = drain(index(room_bytes=4000))
    while tail.retain():
        pass
    left = traces(tail, "192.0.2.1")
    assert 10 < len(left) < 60 and left[-1] == "n99"
    assert traces(tail, "quiet") == ["quiet"]
    size = tail._connection.execute("SELECT size FROM rooms WHERE room = 'smtp-in'").fetchone()[0]
    assert size == sum(
        len(row[0]) for row in tail._connection.execute("SELECT text FROM events WHERE room = 'smtp-in'")
    )


@pytest.mark.parametrize("damage", ["garbage", "truncated", "newer", "deleted"])
def test_a_broken_index_is_rebuilt_from_the_segments(record, index, damage):
    write(record, b"".join(line(f"a{number}", peer="192.0.2.1") for number in range(500)))
    drain(index()).close()
    path = record / "events.db"
    for suffix in ("-wal", "-shm"):
        (record / f"events.db{suffix}").unlink(missing_ok=True)
    if damage == "garbage":
        path.write_bytes(b"garbage" * 10_000)
    elif damage == "truncated":
        os.truncate(path, 5000)
    elif damage == "newer":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version=99")
    else:
        path.unlink()
    assert len(traces(drain(index()), "192.0.2.1")) == 500


def test_damage_found_while_running_is_rebuilt(record, index):
    write(record, b"".join(line(f"a{number}", peer="192.0.2.1") for number in range(500)))
    tail = drain(index())
    tail._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    tail._connection.execute("PRAGMA cache_size=0")
    with open(record / "events.db", "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (os.path.getsize(record / "events.db") - 4096))
    write(record, line("late", peer="192.0.2.1"))
    for _ in range(5):
        tail.ingest()
        tail.events(["192.0.2.1"], 10)
    assert tail.rebuilt == 1
    assert len(traces(drain(tail), "192.0.2.1")) == 501


def test_index_is_private(record, index):
    index()
    assert (record / "events.db").stat().st_mode & 0o077 == 0


def test_a_missing_room_is_waited_for(tmp_path, opened):
    index = EventIndex(str(tmp_path / "events.db"), str(tmp_path), ("not-started-yet",))
    opened.append(index)
    assert index.ingest() is False
