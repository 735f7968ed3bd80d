"""The questions that a mail server asks of DNS as values, and the three ways in which there is no answer.

A policy that needs DNS is a generator: it yields `Question`s and is sent their answers, or has a `DnsError` thrown in
at the `yield`; what it returns is its decision. So it stays pure. `runtime/dns.py` drives it with a resolver
(`settle`), tests drive it with a dictionary (`answered`).

    def helo_has_address(name: str) -> Asking[bool]:
        try:
            return bool((yield Question(name, "A")))
        except NoSuchName:
            return False
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Kind = Literal["A", "AAAA", "MX", "TXT", "PTR"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Question:
    """`name` without its last dot, as it was met; `kind` the record type. For PTR `name` is the IP address."""

    name: str
    kind: Kind


# A, AAAA: addresses as texts; PTR: names without their last dot; MX: (preference, name) pairs, ("" for a null MX);
# TXT: bytes, the strings of one record joined.
Answer = Sequence[Any]
Asking = Generator[Question, Answer, Result]


class DnsError(Exception):
    """A look-up gave no answer that can be used."""


class NoSuchName(DnsError):
    """NXDOMAIN: the name does not exist."""


class NoAnswer(DnsError):
    """The name exists but has no record of this type."""


class TemporaryFailure(DnsError):
    """SERVFAIL, time-out, resolver away: ask again later, decide nothing."""


def answered(asking: Asking[Result], zone: Mapping[tuple[str, str], Answer | DnsError]) -> Result:
    """The result of `asking` over `zone`: (lower-case name, type) → answer, or the error that is met there.

    A name of which nothing is in `zone` does not exist; one that has other types has no answer.
    """
    names = {name for name, _ in zone}
    try:
        question = next(asking)
        while True:
            name = question.name.lower().rstrip(".")
            found = zone.get((name, question.kind))
            if found is None:
                found = NoAnswer(name) if name in names else NoSuchName(name)
            question = asking.throw(found) if isinstance(found, DnsError) else asking.send(found)
    except StopIteration as end:
        result: Result = end.value
        return result
