"""The journal and the history: what a torn or damaged file means, and what is told of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.updater import history, steps
from services.updater.journal import Journal
from services.updater.steps import Replacement, needs_of, ordered, told, waves


def written(folder: Path, *entries: dict[str, Any]) -> Journal:
    ticks = iter(range(100, 10_000))
    journal = Journal(str(folder), lambda: float(next(ticks)))
    for entry in entries:
        journal.append(entry)
    return journal


BEGIN = {"what": "begin", "id": "u1", "source": "registry", "services": None, "wait": False}


def test_it_is_there_from_the_first_entry_to_its_removal(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), lambda: 1.0)
    assert not journal.there() and journal.read() == []
    journal.append(BEGIN)
    assert journal.there() and journal.read() == [{"at": 1.0, **BEGIN}]
    journal.remove()
    journal.remove()
    assert not journal.there()


def test_every_torn_tail_is_cut_off_by_the_next_entry(tmp_path: Path) -> None:
    written(tmp_path, BEGIN, {"what": "start", "step": "check"})
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        journal = Journal(str(tmp_path), lambda: 2.0)
        assert [entry["what"] for entry in journal.read()] == ["begin"]
        journal.append({"what": "commit"})
        assert [entry["what"] for entry in journal.read()] == ["begin", "commit"]
        assert path.read_bytes().count(b"\n") == 2


def test_an_entry_that_was_not_made_durable_is_not_found_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = written(tmp_path, BEGIN)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", broken)
        with pytest.raises(OSError, match="Input/output"):
            journal.append({"what": "commit"})
    assert [entry["what"] for entry in journal.read()] == ["begin"]


def test_a_commit_that_was_gone_back_on_is_none() -> None:
    run = told(
        [{"at": 1, **BEGIN}, {"at": 2, "what": "commit"}, {"at": 3, "what": "back", "reason": "x", "outcome": "failed"}]
    )
    assert not run.committed and run.state == steps.UNDOING


@pytest.mark.parametrize("damage", [b"\0" * 40 + b"\n", b"[]\n", b"{}{}\n", b"\xff\xfe\n"])
def test_reading_ends_at_a_damaged_line(tmp_path: Path, damage: bytes) -> None:
    journal = written(tmp_path, BEGIN)
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(damage + b'{"what": "commit", "at": 3}\n')
    assert [entry["what"] for entry in journal.read()] == ["begin"]


def test_what_is_told_of_a_run(tmp_path: Path) -> None:
    one = Replacement("imap", "house-imap-1", "c1", "mailstead:1", "old", "new", "sha256:1", {})
    journal = written(
        tmp_path,
        BEGIN,
        {"what": "start", "step": "check"},
        steps.planned([one], {"mailstead:1": "old"}),
        {"what": "end", "step": "check", "reason": "imap"},
        {"what": "start", "step": "hold"},
        {"what": "end", "step": "hold", "reason": ""},
        {"what": "start", "step": "replace"},
        {"what": "back", "reason": "no start", "outcome": "rolled-back"},
        {"what": "undone", "step": "replace", "reason": ""},
    )
    run = told(journal.read())
    assert (run.id, run.state, run.back, run.closed_at) == ("u1", steps.UNDOING, "no start", 104.0)
    assert run.to_undo() == ["hold", "check"] and run.replacements == (one,) and run.names == {"mailstead:1": "old"}
    assert [(step["step"], step["outcome"], step["reason"]) for step in run.steps] == [
        ("check", "done", "imap"), ("hold", "done", ""), ("replace", "failed", "no start"), ("undo replace", "done", ""),
    ]  # fmt: skip
    entry = history.entry_of(run, "rolled-back", "no start", 111.0)
    assert entry["seconds_closed"] == 7.0 and entry["services"] == ["imap"]
    assert history.shown([entry])[0].keys() == entry.keys() - {"told"}


def chain(service: str, **needs: str) -> Replacement:
    return Replacement(service, service, service, "i", "o", needs=needs)


def test_the_order_of_replacement() -> None:
    three = [chain("c", b="service_started"), chain("b", a="service_healthy"), chain("a"), chain("z")]
    assert [[each.service for each in wave] for wave in waves(three)] == [["a", "z"], ["b"], ["c"]]
    circle = [chain("a", b="service_started"), chain("b", a="service_started")]
    assert sorted(each.service for each in ordered(circle)) == ["a", "b"] and waves([]) == []


@pytest.mark.parametrize(
    ("label", "needs"),
    [
        ("", {}),
        ("setup:service_completed_successfully:false", {}),
        ("db:service_healthy:true,unbound:service_started:false", {"unbound": "service_started"}),
        ("unbound", {"unbound": "service_started"}),
    ],
)
def test_composes_label(label: str, needs: dict[str, str]) -> None:
    assert needs_of(label, ["unbound", "imap"]) == needs


def test_a_history_is_bounded_and_a_damaged_one_is_begun_anew(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert history.read(folder) == []
    for number in range(history.MOST_ENTRIES + 5):
        history.add(folder, {"id": f"u{number}", "outcome": "nothing", "told": False})
    history.add(folder, {"id": f"u{number}", "outcome": "committed", "told": False})
    entries = history.read(folder)
    assert len(entries) == history.MOST_ENTRIES and entries[0] == {"id": "u54", "outcome": "committed", "told": False}
    history.mark_told(folder, "u54")
    assert [entry["id"] for entry in history.read(folder) if entry["told"]] == ["u54"]
    for damage in ("", "[]", '{"updates": 3}', '{"updates": [3, {}]}'):
        (tmp_path / "history.json").write_text(damage)
        assert history.read(folder) == []


def test_what_can_be_taken_back() -> None:
    done: dict[str, Any] = {"id": "u1", "outcome": "committed", "source": "registry"}
    back: dict[str, Any] = {"id": "u2", "outcome": "committed", "source": "before"}
    failed: dict[str, Any] = {"id": "u3", "outcome": "rolled-back", "source": "registry"}
    assert history.last_committed([]) is None
    assert history.last_committed([failed, done]) == done
    assert history.last_committed([failed, back, done]) is None
    assert json.loads(json.dumps(history.refused([failed, back, done]))) == {}
