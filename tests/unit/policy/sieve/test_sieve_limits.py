"""What an enemy writes: any octets, deep nesting, scripts and patterns made to take time."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.sieve.actions import Keep
from services.policy.sieve.check import MAX_PROBLEMS, check
from services.policy.sieve.grammar import MAX_NESTING, MAX_SCRIPT
from services.policy.sieve.mail import Mail
from services.policy.sieve.match import Work
from services.policy.sieve.run import Outcome, run
from services.policy.sieve.state import World
from tests.unit.policy.sieve.sieve_cases import CASES, MESSAGES, ours

WORLD = World(datetime(2026, 11, 22, tzinfo=UTC))
SCRIPTS = [case.script for case in CASES]
WORDS = [
    b"if", b"elsif", b"else", b"keep", b"{", b"}", b"(", b")", b"[", b"]", b",", b";", b'"', b"\\", b":is", b":matches",
    b"text:", b"\n.\n", b"/*", b"*/", b"#", b"10K", b"header", b"not", b"allof", b"require", b'"variables"', b"${1}",
    b'"fileinto"', b"fileinto", b" ", b"\n", b"\r\n", b"\0", b"\xff", b"set",
]  # fmt: skip


def result(script: bytes, raw: bytes, work: Work | None = None) -> Outcome:
    header = raw.partition(b"\r\n\r\n")[0] + b"\r\n"
    mail = Mail(header, len(raw), "anna@far.example", "bert@home.example", lambda: raw)
    return run(check(script), mail, WORLD, work=work)


def holds_together(script: bytes) -> None:
    checked = check(script)
    assert len(checked.problems) <= MAX_PROBLEMS
    assert not checked.problems or not checked.commands
    for problem in checked.problems:
        assert problem.line >= 1 and problem.column >= 1 and problem.text.isprintable(), problem
    assert result(script, MESSAGES["plain"]).actions, "nothing was done with the message: it would be lost"


@given(st.binary(max_size=200))
def test_any_octets(script: bytes) -> None:
    holds_together(script)


@given(st.lists(st.sampled_from(WORDS), max_size=60).map(b" ".join))
def test_any_words(script: bytes) -> None:
    holds_together(script)


@given(st.sampled_from(SCRIPTS), st.integers(0, 400), st.integers(0, 8), st.sampled_from([b"", *WORDS]))
def test_changed_scripts(script: bytes, at: int, gone: int, put: bytes) -> None:
    holds_together(script[:at] + put + script[at + gone :])


@given(st.sampled_from(SCRIPTS), st.binary(max_size=400))
def test_any_message(script: bytes, raw: bytes) -> None:
    assert result(script, raw).actions


@pytest.mark.parametrize(
    "script",
    [
        b"if not " * 60_000 + b"true { keep; }",
        b"if true {" * 60_000,
        b"allof(" * 60_000,
        b"if anyof (" * 20_000 + b"true",
        b"[" * 120_000,
        b'"' + b"\\" * 120_000,
        b"/*" * 60_000,
        b"text:\n" + b"..\n" * 60_000,
        b"#" * 120_000,
        b"9" * 120_000 + b";",
        b'require ["' + b'","'.join([b"x"] * 50_000) + b'"];',
        b"keep;" * 25_000,
        b"x;" * 60_000,
        b"\xef\xbb\xbf" * 25_000,
        b'require "encoded-character"; redirect "' + b"${hex: " * 30_000 + b'";',
        b'require "variables"; redirect "' + b"${a." * 50_000 + b'";',
        b'require "variables"; redirect "' + b"${a" + b".a" * 60_000 + b'";',
    ],
    ids=range(17),
)
def test_scripts_made_to_take_time(script: bytes) -> None:
    began = time.process_time()
    holds_together(script)
    assert time.process_time() - began < 5, "far beyond what a script of this size may take"


def test_nesting_has_its_limit_and_that_is_enough() -> None:
    def nested(levels: int) -> bytes:
        return b"if true {" * levels + b"discard;" + b"}" * levels

    assert not check(nested(15)).problems, "RFC 5228 §2.10.5"
    assert not check(nested(MAX_NESTING)).problems
    assert check(nested(MAX_NESTING + 1)).problems
    assert not check(b"if " + b"not " * 15 + b"true { keep; }").problems
    assert check(b" " * (MAX_SCRIPT + 1)).problems


STARS = b'require ["variables"]; if header :matches "subject" "%s" { discard; }'


@pytest.mark.parametrize(
    "pattern",
    [b"*a" * 2_000 + b"b", b"*?" * 2_000 + b"b", b"?" * 2_000 + b"*b", b"*" * 4_000, b"*" + b"a?" * 1_000 + b"*b"],
    ids=range(5),
)
def test_patterns_made_to_take_time(pattern: bytes) -> None:
    raw = b"Subject: " + b"a" * 500_000 + b"\r\n\r\nx"
    began = time.process_time()
    assert result(STARS % pattern, raw).actions
    assert time.process_time() - began < 5


PEOPLE = b", ".join(b'"A. B. %d" <a%d@far.example>' % (number, number) for number in range(4_000))
BIG = b"To: " + PEOPLE + b"\r\nSubject: " + "ÄÖÜ é ".encode() * 20_000 + b"\r\n\r\n" + b"x" * 1_000_000
REQUIRED = b'require ["variables", "imap4flags", "comparator-i;unicode-casemap", "body", "date", "fileinto"]; '
WIDE = b'set "a" "' + b"* " * 1_990 + b'"; '


@pytest.mark.parametrize(
    "script",
    [
        b'if address :localpart "to" "nobody" { keep; } ' * 2_500,
        b'if address :matches "to" "*?b" { keep; } ' * 2_500,
        b'if header :comparator "i;unicode-casemap" "subject" "x" { keep; } ' * 1_500,
        b'if header :contains "subject" "x1" { keep; } ' * 2_500,
        b'if header :matches "subject" "*' + b"?" * 4_000 + b'b*" { keep; }',
        b'if body :raw :contains "y" { keep; } ' * 3_000,
        b'if body :raw :matches "*y?*" { keep; } ' * 3_000,
        WIDE + (b'setflag "' + b"${a}" * 32 + b'"; ') * 700,
        WIDE + (b'set :quotewildcard "b" "' + b"${a}" * 32 + b'"; ') * 700,
        b"if anyof (" + b'header "subject" "x", ' * 4_000 + b"true) { keep; }",
    ],
    ids=range(10),
)
def test_scripts_made_to_take_time_over_a_large_message(script: bytes) -> None:
    assert not check(REQUIRED + script).problems, check(REQUIRED + script).problems
    began = time.process_time()
    assert result(REQUIRED + script, BIG).actions
    assert time.process_time() - began < 8, "far beyond what a message may cost"


def test_a_script_that_takes_too_much_time_keeps_the_message() -> None:
    script = b'if header :contains "subject" [' + b",".join([b'"nothing"'] * 10_000) + b"] { discard; } discard;"
    raw = b"Subject: " + b"a" * 900_000 + b"\r\n\r\nx"
    began = time.process_time()
    outcome = result(script, raw)
    assert outcome.actions == (Keep(implicit=True),) and "more time" in outcome.problem and outcome.line == 1
    assert time.process_time() - began < 5
    assert result(b"discard;", raw, Work(0)).problem


def test_variables_do_not_grow_beyond_all_bounds() -> None:
    script = b'require ["variables", "fileinto"]; set "a" "%s"; ' % (b"x" * 3_000)
    script += b'set "a" "${a}${a}"; ' * 50 + b'if string :length "${a}" "4000" { keep; }'
    assert check(script).problems, ":length is no match type"
    script = (
        b'require ["variables", "relational", "comparator-i;ascii-numeric"]; set "a" "%s"; ' % ("ü" * 3_000).encode()
    )
    script += b'set :length "n" "${a}"; if string :value "eq" :comparator "i;ascii-numeric" "${n}" "2000" { discard; }'
    assert "discard" in ours_of(script), "4000 octets, cut between two characters"
    many = b'require "variables"; ' + b"".join(b'set "v%d" "x";' % number for number in range(129))
    assert result(many, MESSAGES["plain"]).problem
    huge = b'require ["variables", "reject"]; set "a" "%s"; reject "%s";' % (b"x" * 4_000, b"${a}" * 1_000)
    assert "longer" in result(huge, MESSAGES["plain"]).problem


def ours_of(script: bytes) -> list[str]:
    case = next(iter(CASES))
    return ours(type(case)("made", script))


def test_too_many_actions() -> None:
    script = b'require "fileinto"; ' + b"".join(b'fileinto "f%d";' % number for number in range(33))
    assert result(script, MESSAGES["plain"]).problem
