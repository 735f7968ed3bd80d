"""Conditions nobody thought of: made at random, and true for us where they are true for Debian's sieve-test.

Left out is what the tables show Dovecot to do otherwise: empty values under i;ascii-numeric, empty address fields,
several question marks at the beginning of a pattern, case changed in orders.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.policy.sieve.sieve_cases import MESSAGES, Case, Oracle, ours

SCRIPTS = 60
REQUIRE = 'require ["variables", "envelope", "relational", "comparator-i;ascii-numeric", "subaddress", "date", "index", "body"];\n'
FIELDS = [
    "subject",
    "from",
    "to",
    "cc",
    "x-twice",
    "x-missing",
    "x-priority",
    "x-spam-score",
    "list-id",
    "date",
    "sender",
]
ADDRESSES = ["from", "to", "cc", "sender", "reply-to"]
KEYS = [
    "", "a", "in", "Invoice", "2026", "7.5", "1", "3", "anna", "bert", "carla+work", "home.example", "@", "*a*", "?", "*",
    "*@*", "*.*", "\\\\*", "*[*]*", "Invoice *", "*?2*", "?*?", "*-??*", "first", "x@y.example", "UPPER", "grüße", "é", "*é*",
    "anna@far.example",
]  # fmt: skip
RELATIONS = ["gt", "ge", "lt", "le", "eq", "ne"]
PARTS = ["", ":all", ":localpart", ":domain", ":user", ":detail"]
INDEX = ["", "", ":index 1", ":index 2", ":index 2 :last"]
TRANSFORMS = [":raw", ":text", ':content "text"', ':content ["application", "text/html"]', ':content "multipart"']
ZONES = [":originalzone", ':zone "+0100"', ':zone "-0930"']
DATE_PARTS = ["year", "month", "day", "date", "julian", "hour", "minute", "time", "iso8601", "std11", "zone", "weekday"]


class Maker:
    """Makes conditions; the same seed makes the same."""

    def __init__(self, seed: int) -> None:
        self.one = random.Random(seed)

    def some(self, pool: list[str]) -> str:
        chosen = [f'"{self.one.choice(pool)}"' for _ in range(self.one.randint(1, 3))]
        return f"[{', '.join(chosen)}]"

    def match(self) -> str:
        kind = self.one.choice(["", ":is", ":contains", ":matches", ":value", ":count"])
        if kind == ":count":
            return f':count "{self.one.choice(RELATIONS)}" :comparator "i;ascii-numeric"'
        if kind == ":value":
            return f':value "{self.one.choice(RELATIONS)}" :comparator "i;octet"'
        return self.one.choice(["", ':comparator "i;octet"']) + " " + kind

    def condition(self, depth: int = 0) -> str:
        choose = self.one.choice
        kind = choose(
            ["header", "header", "address", "address", "envelope", "date", "body", "size", "exists", "not", "anyof"]
        )
        match kind:
            case "header":
                return f"header {self.match()} {choose(INDEX)} {self.some(FIELDS)} {self.some(KEYS)}"
            case "address":
                return (
                    f"address {self.match()} {choose(PARTS)} {choose(INDEX)} {self.some(ADDRESSES)} {self.some(KEYS)}"
                )
            case "envelope":
                return f"envelope {self.match()} {choose(PARTS)} {self.some(['from', 'to'])} {self.some(KEYS)}"
            case "date":
                keys = self.some([*KEYS, "2026", "11", "2026-11-22", "10", "0"])
                field, part = choose(["date", "received"]), choose(DATE_PARTS)
                return f'date {self.match()} {choose(ZONES)} "{field}" "{part}" {keys}'
            case "body":
                return (
                    f"body {self.match()} {choose(TRANSFORMS)} {self.some([*KEYS, 'Hello', 'secret', 'pay', 'inner'])}"
                )
            case "size":
                return f"size {choose([':over', ':under'])} {choose(['0', '500', '1K', '1M'])}"
            case "exists":
                return f"exists {self.some(FIELDS)}"
            case _ if depth > 2:
                return "true"
            case "not":
                return f"not {self.condition(depth + 1)}"
            case _:
                return f"{choose(['anyof', 'allof'])} ({self.condition(depth + 1)}, {self.condition(depth + 1)})"


@pytest.mark.parametrize("seed", range(4))
def test_conditions_are_true_for_both(oracle_home: Path, seed: int) -> None:
    maker = Maker(seed)
    made = [
        Case(
            str(number), f"{REQUIRE}if {maker.condition()} {{ discard; }}\n".encode(), maker.one.choice(list(MESSAGES))
        )
        for number in range(SCRIPTS)
    ]

    def run(half: int) -> list[str]:
        oracle = Oracle(oracle_home / str(half))
        told = [(case, ours(case), oracle.run(case)) for case in made[half::2]]
        return [
            f"{case.message}: {case.script.decode()} gives {we}, Dovecot {they}"
            for case, we, they in told
            if we != they
        ]

    with ThreadPoolExecutor(2) as pool:
        wrong = [each for half in pool.map(run, range(2)) for each in half]
    assert not wrong, "\n".join(wrong)
