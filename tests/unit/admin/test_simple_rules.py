"""The page's rules as Sieve: they say what was set, come back as they were, and leave what was written by hand."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.admin.rules import (
    ACTIONS,
    BEGIN,
    END,
    WHERE,
    BadRule,
    Note,
    Rule,
    Rules,
    check_note,
    check_rule,
    read,
    write,
)
from services.policy.sieve.check import check

OWN = (
    '# mine\r\nrequire "fileinto";\n/* two\n lines */ require ["envelope", "copy"];  \n'
    'if envelope :is "from" "a@x.example" {\r\n  fileinto "A";\n}\n'
)
MOVE = Rule("from", 'bob "the" \\ builder', "move", "Work/Bob")
EVERY = tuple(
    Rule(where, f"{where} {action} 你好", action, {"move": "档案/2026", "forward": "a@else.example"}.get(action, ""))
    for where in WHERE
    for action in ACTIONS
)
NOTE = Note(True, "2026-12-24", "2027-01-06", 'Away "now"', "Back in January.\n.\nAnna \\o/")


def problems(script: str) -> list[str]:
    return [str(each) for each in check(script.encode()).problems]


@pytest.mark.parametrize("own", ["", OWN, "keep;\n", "# only a comment", 'require "fileinto"; fileinto "X";'])
@pytest.mark.parametrize("note", [Note(), NOTE, Note(True, text="x"), Note(True, "2026-12-24", text="x")])
@pytest.mark.parametrize("rules", [(), (MOVE,), EVERY, (Rule("to", "x", "keep", on=False),)])
def test_what_was_set_comes_back_and_runs(rules, note, own):
    script = write(Rules(rules, note, own))
    assert problems(own) == [] and problems(script) == [], script
    found = read(script)
    assert (found.rules, found.note, found.changed) == (rules, note, False)
    assert found.own.split() == own.split(), "a line break at most is new, where a require and a rule shared a line"
    assert write(found) == script, "writing what was read changes nothing"
    assert write(Rules(own=found.own)) == found.own, "without rules only what was written by hand is left"


def test_a_script_written_by_hand_is_kept_and_comes_after():
    script = write(Rules((MOVE,), own=OWN))
    assert read(script).own == OWN
    assert script.index("Work/Bob") < script.index('envelope :is "from"')
    assert script.count(BEGIN) == script.count(END) == 2


def test_what_the_rules_say():
    script = write(Rules((MOVE, Rule("list", "dev", "mark"), Rule("subject", "inv", "forward", "tax@else.example"),
                          Rule("to", "shop", "delete"), Rule("from", "mum", "keep"), Rule("to", "o", "move", "O", False)), NOTE))  # fmt: skip
    for words in (
        'if header :contains "from" "bob \\"the\\" \\\\ builder" {\n    fileinto :create "Work/Bob"; stop;',
        'if header :contains ["list-id", "list-post"] "dev" {\n    addflag "\\\\Flagged";',
        'redirect :copy "tax@else.example";',
        'fileinto :create "Trash"; stop;',
        'if header :contains "from" "mum" {\n    keep; stop;',
        'allof (currentdate :value "ge" "date" "2026-12-24", currentdate :value "le" "date" "2027-01-06")',
        'vacation :days 7 :subject "Away \\"now\\"" "Back in January.\n.\nAnna \\\\o/";',
    ):
        assert words in script, script
    assert '"O"' not in script.replace('"argument": "O"', ""), "what is off does nothing"


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        (Rule("from", " ", "keep"), "text"),
        (Rule("from", "x" * 201, "keep"), "text"),
        (Rule("from", "a\nb", "keep"), "text"),
        (Rule("from", "x", "move"), "argument"),
        (Rule("from", "x", "move", "/x"), "argument"),
        (Rule("from", "x", "move", "x//y"), "argument"),
        (Rule("from", "x", "forward", "nobody"), "argument"),
        (Rule("from", "x", "forward", 'a@b.example"; discard;'), "argument"),
        (Rule("bcc", "x", "keep"), "where"),  # type: ignore[arg-type]
        (Rule("from", "x", "discard"), "where"),  # type: ignore[arg-type]
    ],
)
def test_rules_that_cannot_be(rule, wrong):
    with pytest.raises(BadRule) as found:
        check_rule(rule)
    assert found.value.field == wrong


@pytest.mark.parametrize(
    ("note", "wrong"),
    [
        (Note(True), "note"),
        (Note(True, text="x" * 4001), "note"),
        (Note(True, "tomorrow", text="x"), "since"),
        (Note(True, "2026-12-24", "2026-12-23", text="x"), "until"),
        (Note(True, until="2026-02-30", text="x"), "until"),
        (Note(True, subject="a\r\nBcc: b", text="x"), "subject"),
    ],
)
def test_notes_that_cannot_be(note, wrong):
    with pytest.raises(BadRule) as found:
        check_note(note)
    assert found.value.field == wrong
    assert check_note(Note(text=" a\r\nb ")).text == "a\nb"


@pytest.mark.parametrize(
    "change",
    [
        lambda script: script.replace("Work/Bob", "Elsewhere", 1),
        lambda script: script.replace("stop;", "", 1),
        lambda script: script.replace("# rules: {", "# rules: [", 1),
        lambda script: script.replace("# rules:", "# gone:", 1),
        lambda script: script.replace('"where": "from"', '"where": "bcc"', 1),
        lambda script: script.replace('"rules": [', '"rules": 7, "x": [', 1),
    ],
)
def test_a_part_that_somebody_has_changed_is_said(change):
    found = read(change(write(Rules((MOVE,), own=OWN))))
    assert found.changed and found.own == OWN


def test_a_mark_without_its_end_is_text_of_the_hand():
    for odd in (BEGIN, f"{BEGIN}\nkeep;", END, f"keep; {BEGIN}\nx\n{END}\n"):
        assert read(odd) == Rules(own=odd)


TEXT = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", codec="utf-8"), min_size=1, max_size=30)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXT, TEXT, st.sampled_from(WHERE), st.text(st.characters(codec="utf-8"), max_size=40))
def test_no_text_leaves_its_string(text, folder, where, note):
    try:
        rule = check_rule(Rule(where, text, "move", folder))
        away = check_note(Note(True, "", "", text, note))
    except BadRule:
        return
    script = write(Rules((rule,), away, OWN))
    assert problems(script) == []
    found = read(script)
    assert (found.rules, found.note, found.own, found.changed) == ((rule,), away, OWN, False)


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from([BEGIN, END, "# rules: {}", "\n", ""]))
def test_any_script_is_read(text, mark):
    found = read(f"{mark}\n{text}\n{mark}")
    assert isinstance(found.own, str) and read(write(found)).rules == found.rules


@pytest.mark.parametrize(
    "own", ["\n" * 60_000, "/**/ " * 10_000, 'require ["a"' + " " * 60_000, "require [" + '"a",  ' * 10_000]
)
def test_blanks_and_comments_cost_no_more_than_their_length(own):
    assert read(write(Rules((Rule("from", "x", "keep"),), own=own))).own.strip() == own.strip()
