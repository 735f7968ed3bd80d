"""SPF against the published test suites: every case of rfc7208-tests.yml and of its predecessor for RFC 4408, both in
pyspf's source distribution.

The suite's `SPF` records stand for TXT records where a name has no TXT of its own, as its preface says; `TIMEOUT` is a
zone that does not answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from services.policy.spf import SpfResult, check
from services.protocol.dns_lookup import Answer, DnsError, NoAnswer, NoSuchName, Question, TemporaryFailure
from tests.published import member

Zone = dict[str, list[tuple[str, Any]]]


@dataclass(frozen=True)
class Case:
    name: str
    host: str
    helo: str
    sender: str
    results: list[str]
    explanation: str | None
    zone: Zone


def zone_of(data: dict[str, list[Any]]) -> Zone:
    zone: Zone = {}
    for name, records in data.items():
        made: list[tuple[str, Any]] = []
        kinds = {kind for record in records if isinstance(record, dict) for kind in record}
        for record in records:
            if record == "TIMEOUT":
                made.append(("TIMEOUT", None))
                continue
            for kind, value in record.items():
                if kind == "SPF" and "TXT" not in kinds:
                    made.append(("TXT", value))
                if kind != "TXT" or value != "NONE":
                    made.append((kind, value))
        zone[name.lower().rstrip(".")] = made
    return zone


def cases(path: str) -> Iterator[Case]:
    for scenario in yaml.safe_load_all(member("pyspf", path)):
        if not scenario:
            continue
        zone = zone_of(scenario["zonedata"])
        for name, test in scenario["tests"].items():
            results = test["result"] if isinstance(test["result"], list) else [test["result"]]
            yield Case(
                name, test["host"], test["helo"], test["mailfrom"], results, test.get("explanation"), zone
            )  # fmt: skip


def answer(zone: Zone, question: Question, links: int = 0) -> Answer:
    name = ip_address(question.name).reverse_pointer if question.kind == "PTR" else question.name
    records = zone.get(name.lower())
    if records is None:
        raise NoSuchName(name)
    found: list[Any] = []
    for kind, value in records:
        if kind == "TIMEOUT" and not found:
            raise TemporaryFailure(name)
        if kind == "CNAME":
            if links > 8:
                raise TemporaryFailure(f"{name} leads round in a circle")
            return answer(zone, Question(value.rstrip("."), question.kind), links + 1)
        if kind != question.kind:
            continue
        if kind == "TXT":
            strings = value if isinstance(value, list) else [value]
            found.append("".join(strings).encode("latin-1" if all(ord(c) < 256 for c in "".join(strings)) else "utf-8"))
        elif kind == "MX":
            found.append((value[0], value[1].rstrip(".")))
        else:
            found.append(str(value))
    if not found:
        raise NoAnswer(name)
    return found


def run(case: Case) -> SpfResult:
    asking = check(case.host, case.helo, case.sender, receiver="mail.home.test", now=1_700_000_000)
    try:
        question = next(asking)
        for _ in range(150):
            try:
                found = answer(case.zone, question)
            except DnsError as error:
                question = asking.throw(error)
            else:
                question = asking.send(found)
    except StopIteration as end:
        result: SpfResult = end.value
        return result
    raise AssertionError("more questions than the limits of RFC 7208 §4.6.4 allow")


SUITE = list(cases("test/rfc7208-tests.yml"))
OLD_SUITE = list(cases("test/rfc4408-tests.yml"))


def test_the_suites_are_whole() -> None:
    assert (len(SUITE), len(OLD_SUITE)) == (203, 191)


@pytest.mark.parametrize("case", SUITE, ids=lambda case: case.name)
def test_rfc7208(case: Case) -> None:
    found = run(case)
    # Where the suite allows several results, the first is the one it prefers.
    assert found.result == case.results[0], found
    if case.explanation is not None:
        assert found.explanation == ("" if case.explanation == "DEFAULT" else case.explanation), found


@pytest.mark.parametrize("case", OLD_SUITE, ids=lambda case: case.name)
def test_rfc4408(case: Case) -> None:
    """Where it allows what the successor allows: RFC 7208 decided what RFC 4408 left open."""
    assert run(case).result in case.results
