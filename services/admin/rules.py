"""Simple filter rules and an absence note as a person sets them on the page, and as Sieve in their script. Pure.

The page's rules live in two marked sections of the account's active script, and nowhere else: a script written by hand
keeps every byte around them. The first section holds what the second needs (`require` must come first, RFC 5228 §3.2;
between the two stand the requires of the part written by hand), and the rules themselves as one line of JSON in a
comment, from which the page reads them back. Where somebody has changed what stands between the marks, `changed` says
so: the page asks before it writes over that.

First match of a rule that moves or keeps ends the script for that message (`stop`); marking and forwarding go on. The
rules come before what was written by hand.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from typing import Any, Literal

from services.policy.sieve.check import check

Where = Literal["from", "to", "subject", "list"]
Action = Literal["move", "mark", "forward", "delete", "keep"]
WHERE: tuple[Where, ...] = ("from", "to", "subject", "list")
ACTIONS: tuple[Action, ...] = ("move", "mark", "forward", "delete", "keep")

MOST_RULES = 50
MOST_TEXT, MOST_NOTE = 200, 4000
# RFC 5230 §4.1: an answer to the same person once in so many days, as most servers have it.
NOTE_DAYS = 7

BEGIN = "# --- made by the Rules page; changes between these lines are lost ---"
END = "# --- end of what the Rules page made ---"
_KEPT = "# rules: "
_SECTION = re.compile(f"^{re.escape(BEGIN)}\r?\n.*?^{re.escape(END)}(?:\r?\n|\\Z)", re.M | re.S)
# What may stand before the last of the leading requires: blanks, comments, and requires (RFC 5228 §8.1, §8.2). Nothing
# is given back once it was taken (`*+`): else thirty empty lines before the first rule are tried in 2^30 ways.
_STRING = r'"(?:[^"\\]|\\.)*+"'
_BLANK = r"(?:\s++|#[^\n]*+(?:\n|\Z)|/\*.*?\*/)"
_REQUIRES = re.compile(
    rf"(?:{_BLANK}*+require\s*+(?:{_STRING}|\[\s*+(?:{_STRING}\s*+,?\s*+)*+\])\s*+;[ \t]*+(?:\r?\n)?+)*+", re.S | re.I
)
_HEADERS: dict[Where, str] = {
    "from": '"from"', "to": '["to", "cc"]', "subject": '"subject"', "list": '["list-id", "list-post"]',
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """If `where` contains `text`, then `action` with `argument` (a folder to move to, an address to forward to)."""

    where: Where
    text: str
    action: Action
    argument: str = ""
    on: bool = True


@dataclass(frozen=True, slots=True)
class Note:
    """The answer while somebody is away; `since` and `until` are days as 2026-12-24, "" for no bound."""

    on: bool = False
    since: str = ""
    until: str = ""
    subject: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the page knows of a script. `own`: what was written by hand; `changed`: the marked part was too."""

    rules: tuple[Rule, ...] = ()
    note: Note = field(default_factory=Note)
    own: str = ""
    changed: bool = False


class BadRule(ValueError):
    """A rule or note that cannot be: `field` names which part, the text says why, in English."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.field = name


def read(script: str) -> Rules:
    """The rules in a script. Never raises: what cannot be read back is as good as written by hand, and `changed`."""
    sections = [match.group() for match in _SECTION.finditer(script)]
    own = _SECTION.sub("", script)
    if not sections:
        return Rules(own=own)
    try:
        line = next(line for line in sections[0].splitlines() if line.startswith(_KEPT))
        kept = json.loads(line.removeprefix(_KEPT))
        found = Rules(
            tuple(_rule(each) for each in kept["rules"][:MOST_RULES]),
            check_note(Note(**{each.name: kept["note"][each.name] for each in fields(Note)})),
            own,
        )
    except (StopIteration, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Rules(own=own, changed=True)
    return Rules(found.rules, found.note, own, changed=write(found) != script)


def write(rules: Rules) -> str:
    """The script: the page's part with what was written by hand. Without rules and note only the latter."""
    if not rules.rules and rules.note == Note():
        return rules.own
    body, needed = _body(rules)
    kept = json.dumps({"rules": [asdict(each) for each in rules.rules], "note": asdict(rules.note)})
    requires = f"require [{', '.join(_quoted(each) for each in sorted(needed))}];\n" if needed else ""
    first = f"{BEGIN}\n{_KEPT}{kept}\n{requires}{END}\n"
    at = _requires_end(rules.own)
    before, after = rules.own[:at], rules.own[at:]
    if before and not before.endswith("\n"):
        before += "\n"
    return f"{first}{before}{BEGIN}\n{body}{END}\n{after}" if body else f"{first}{before}{after}"


def check_rule(rule: Rule) -> Rule:
    """`rule` as it is kept. Raises BadRule."""
    if rule.where not in WHERE or rule.action not in ACTIONS:
        raise BadRule("where", "Nothing was chosen.")
    text, argument = _line("text", rule.text), _line("argument", rule.argument)
    if not text:
        raise BadRule("text", "What shall be looked for? A word, a name, an address.")
    if rule.action == "move":
        if not argument:
            raise BadRule("argument", "Into which folder?")
        if argument.startswith("/") or argument.endswith("/") or "//" in argument:
            raise BadRule("argument", "A folder's name, with / between it and the one above.")
    elif rule.action == "forward":
        if not re.fullmatch(r'[^\s@<>(),;:\\"]+@[^\s@<>(),;:\\"]+\.[^\s@<>(),;:\\"]+', argument):
            raise BadRule("argument", "An address such as anna@family.example.")
    else:
        argument = ""
    checked = Rule(rule.where, text, rule.action, argument, rule.on)
    if problems := check(write(Rules((replace(checked, on=True),))).encode()).problems:
        raise BadRule("argument", problems[0].text)
    return checked


def check_note(note: Note) -> Note:
    """`note` as it is kept. Raises BadRule."""
    since, until = _day("since", note.since), _day("until", note.until)
    if since and until and until < since:
        raise BadRule("until", "The last day is before the first.")
    text = note.text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text) > MOST_NOTE or "\0" in text:
        raise BadRule("note", f"At most {MOST_NOTE} characters.")
    if note.on is True and not text:
        raise BadRule("note", "What shall the answer say?")
    return Note(note.on is True, since, until, _line("subject", note.subject), text)


# --- as Sieve --------------------------------------------------------------------------------------------------------


def _body(rules: Rules) -> tuple[str, set[str]]:
    """(the rules and the note in Sieve, what they require)."""
    lines, needed = [], set()
    for rule in rules.rules:
        if rule.on:
            action, extensions = _action(rule)
            lines += [f"if header :contains {_HEADERS[rule.where]} {_quoted(rule.text)} {{", f"    {action}", "}"]
            needed |= extensions
    if rules.note.on:
        # After the rules: what was moved away as a newsletter is not answered.
        note, extensions = _vacation(rules.note)
        lines += note
        needed |= extensions
    return "".join(f"{line}\n" for line in lines), needed


def _action(rule: Rule) -> tuple[str, set[str]]:
    argument = _quoted(rule.argument)
    if rule.action == "move":
        # RFC 5490 §3.2: a folder that is not there (any more) is made, so that the rule goes on.
        return f"fileinto :create {argument}; stop;", {"fileinto", "mailbox"}
    if rule.action == "mark":
        return 'addflag "\\\\Flagged";', {"imap4flags"}
    if rule.action == "forward":
        # RFC 3894: with a copy here. A forward that fails must not be all there was.
        return f"redirect :copy {argument};", {"copy"}
    if rule.action == "delete":
        # Into Trash: `discard` cannot be undone, and a rule is a guess.
        return 'fileinto :create "Trash"; stop;', {"fileinto", "mailbox"}
    return "keep; stop;", set()


def _vacation(note: Note) -> tuple[list[str], set[str]]:
    """RFC 5230; the days by RFC 5260 §4: the first and the last one are within."""
    subject = f" :subject {_quoted(note.subject)}" if note.subject else ""
    answer = f"vacation :days {NOTE_DAYS}{subject} {_quoted(note.text)};"
    bounds = [("ge", note.since), ("le", note.until)]
    tests = [f'currentdate :value "{how}" "date" "{day}"' for how, day in bounds if day]
    if not tests:
        return [answer], {"vacation"}
    test = tests[0] if len(tests) == 1 else f"allof ({', '.join(tests)})"
    return [f"if {test} {{", f"    {answer}", "}"], {"vacation", "date", "relational"}


def _quoted(text: str) -> str:
    """RFC 5228 §2.4.2: a quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _requires_end(own: str) -> int:
    """Where the leading requires of `own` end; 0 where it has none."""
    found = _REQUIRES.match(own)
    return found.end() if found else 0


# --- one value -------------------------------------------------------------------------------------------------------


def _rule(kept: Any) -> Rule:
    made = Rule(**{each.name: kept[each.name] for each in fields(Rule)})
    return check_rule(Rule(made.where, made.text, made.action, made.argument, made.on is True))


def _line(name: str, text: str) -> str:
    text = text.strip()
    if len(text) > MOST_TEXT:
        raise BadRule(name, f"At most {MOST_TEXT} characters.")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text):
        raise BadRule(name, "One line, without control characters.")
    return text


def _day(name: str, text: str) -> str:
    if not text.strip():
        return ""
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise BadRule(name, "A day such as 2026-12-24.") from None
