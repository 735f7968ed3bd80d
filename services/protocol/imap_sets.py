"""Sequence sets (RFC 3501 §9): `1:3,7,10:*` as ranges, resolved against a mailbox at a cost bounded by their text.

Used for message sequence numbers and for UIDs alike. `1:4294967295` is one range, not four thousand million numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.protocol.imap_syntax import BadSyntax, Scanner

# "*", the largest number in use; 0 is no number of a message, so it can stand for it.
STAR = 0
_SET = re.compile(rb"[0-9*:,]+")
_RANGE = re.compile(rb"([1-9][0-9]{0,9}|\*)(?::([1-9][0-9]{0,9}|\*))?")
_LARGEST = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """Ranges as written, `STAR` where "*" stood."""

    ranges: tuple[tuple[int, int], ...]

    def resolve(self, largest: int) -> list[tuple[int, int]]:
        """Ascending, disjoint ranges with "*" as `largest`. A range may be written backwards (§9 seq-range)."""
        found = []
        for first, last in self.ranges:
            first, last = first or largest, last or largest
            found.append((first, last) if first <= last else (last, first))
        found.sort()
        merged: list[tuple[int, int]] = []
        for first, last in found:
            if merged and first <= merged[-1][1] + 1:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        return merged

    def within(self, count: int) -> list[range]:
        """Sequence numbers as ranges of indices into a mailbox of `count` messages.

        Raises BadSyntax for a number that no message has, "*" in an empty mailbox included (§9 seq-number: "the server
        should respond with a tagged BAD").
        """
        ranges = self.resolve(count)
        if ranges[-1][1] > count or not count:
            raise BadSyntax(f"there are only {count} messages")
        return [range(first - 1, last) for first, last in ranges]

    def among(self, uids: Sequence[int]) -> list[range]:
        """UIDs as ranges of indices into the ascending `uids`; UIDs that nothing has are passed over (§6.4.8)."""
        if not uids:
            return []
        found = []
        for first, last in self.resolve(uids[-1]):
            low = _first_at_least(uids, first)
            high = _first_at_least(uids, last + 1, low)
            if low < high:
                found.append(range(low, high))
        return found


def _first_at_least(values: Sequence[int], wanted: int, low: int = 0) -> int:
    high = len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def indices(ranges: Sequence[range]) -> Iterator[int]:
    """Each index in ascending order."""
    for each in ranges:
        yield from each


def sequence_set(scanner: Scanner) -> SequenceSet:
    """Take a sequence set."""
    text = scanner.take(_SET, "a message set")
    ranges = []
    for part in text.split(b","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise BadSyntax(f"{part.decode('ascii')!r} is not a message number or a range")
        first, last = match.groups()
        low = STAR if first == b"*" else int(first)
        high = low if last is None else STAR if last == b"*" else int(last)
        if low > _LARGEST or high > _LARGEST:
            raise BadSyntax("a message number is too large")
        ranges.append((low, high))
    return SequenceSet(tuple(ranges))
