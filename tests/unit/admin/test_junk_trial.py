"""`mailstead junk evaluate`: the oldest mail is sorted, the rest judged, and what came out is printed."""

import json
from pathlib import Path

import pytest

from services.admin.cli import main
from services.admin.junk_trial import Letter, split

GOOD = ("shall we have lunch on the terrace", "the report is on your desk", "see you at the station tomorrow")
JUNK = ("cheap watches for you order today", "win money in our house of games", "your loan is waiting for you")


def mbox(path: Path, texts: tuple[str, ...], count: int, *, sender: str, year: int = 2020) -> Path:
    with path.open("w") as file:
        for number in range(count):
            day = f"{number % 28 + 1} {('Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun')[number // 28 % 6]} {year}"
            file.write(
                f"From x Thu Jan  1 00:00:00 1970\nFrom: {sender}{number % 7}@{sender}.example\nSubject: {sender} {number}\n"
                f"Date: {day} 10:00:00 +0000\nMessage-ID: <{number}@{sender}>\nTo: anna@family.example\n\n"
                f"{texts[number % len(texts)]} {texts[(number + 1) % len(texts)]} {number}\n\n"
            )
    return path


def test_figures_of_a_small_house(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ham = mbox(tmp_path / "ham", GOOD, 240, sender="friend")
    spam = mbox(tmp_path / "spam", JUNK, 240, sender="shop")
    assert main(["junk", "evaluate", str(ham), str(spam), "--trained", "220", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["trained_junk"], answer["trained_good"]) == (110, 110)
    assert (answer["judged_junk"], answer["judged_good"]) == (130, 130)
    assert answer["caught"] + answer["missed"] == 130
    assert answer["caught_rate"] > 0.95
    assert answer["false_positives"] == 0 == len(answer["false_positive_list"])
    assert [step["trained"] for step in answer["curve"]] == [0, 50, 100, 200, 220]
    assert answer["curve"][0]["caught"] == 0  # nothing sorted, no sign: it stays where it is
    assert answer["going_on"]["judged_good"] == 130


def test_words_and_the_list_of_false_positives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ham = mbox(tmp_path / "ham", GOOD, 60, sender="friend")
    spam = mbox(tmp_path / "spam", JUNK, 60, sender="shop")
    with ham.open("a") as file:
        file.write(
            "From x Thu Jan  1 00:00:00 1970\nFrom: shop1@shop.example\nSubject: a \x1b[31mfalse one\nDate: 1 Jan 2021 00:00 +0000\n"
            f"Message-ID: <z@shop>\nTo: anna@family.example\n\n{JUNK[0]} {JUNK[1]} {JUNK[2]}\n"
        )
    assert main(["junk", "evaluate", str(ham), str(spam), "--trained", "60", "--threshold", "3", "--missed"]) == 0
    told = capsys.readouterr().out
    assert "61 good messages and 60 junk ones" in told
    assert "false positives 1" in told
    assert "2021-01-01  a \ufffd[31mfalse one" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("trained", [0, 1, 7, 500])
def test_the_split_is_by_time_and_leaves_something_to_judge(trained: int) -> None:
    from array import array

    letters = [
        Letter(number % 3 == 0, 1000.0 - number, str(number), array("q"), array("q"), False, 0.0, ())
        for number in range(60)
    ]
    junk, good, rest = split(letters, trained)
    assert len(junk) == min((trained + 1) // 2, 10)
    assert len(good) == min(trained // 2, 20)
    assert len(junk) + len(good) + len(rest) == 60
    for kind, chosen in ((True, junk), (False, good)):
        later = [letter.when for letter in rest if letter.junk is kind]
        assert all(letter.when <= min(later) for letter in chosen)


def test_what_has_no_date_stays_in_its_place() -> None:
    from array import array

    letters = [Letter(True, 0.0, str(number), array("q"), array("q"), False, 0.0, ()) for number in range(10)]
    junk, _, _ = split(letters, 6)
    assert [letter.subject for letter in junk] == ["0", "1", "2"]


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ham = mbox(tmp_path / "ham", GOOD, 5, sender="friend")
    assert main(["junk", "evaluate", str(ham), str(tmp_path / "nothing")]) == 1
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "empty").write_bytes(b"")
    assert main(["junk", "evaluate", str(ham), str(tmp_path / "empty")]) == 1
    assert "at least two messages of each kind" in capsys.readouterr().err
