"""`mailstead junk evaluate HAM SPAM`: the junk filter over somebody's own mail, as it would have been in life.

Both kinds are put in order of time. The oldest messages are sorted, as a person would have by moving them: `trained` of
them, half of each kind. The rest is judged as smtp-in would judge it: by the rules and by the words, with the very code
that runs there. What is not in a mailbox counts for nothing: SPF, DKIM, DMARC, lists of addresses, whom the account has
written to. With those the true figures are better.

Also without the house: `python -m services.admin.cli junk evaluate HAM SPAM`. It reads, and writes nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from services.message.headers import find
from services.message.reading import MOST_OCTETS, read
from services.message.tokens import is_cjk, parted, tokens
from services.policy.junk import Trained, bayes
from services.policy.junk_rules import reasons
from services.storage.junk_model import hash_of
from services.storage.mail_files import messages

_SUBJECT = 100


@dataclass(slots=True)
class Letter:
    """A message as the filter sees it.

    `tokens`, and `written`, the CJK words, are hashed as in the model; `signs` are the rules' points.
    """

    junk: bool
    when: float
    subject: str
    tokens: array[int]
    written: array[int]
    cjk: bool
    signs: float
    rules: tuple[str, ...]


@dataclass(slots=True)
class Figures:
    """What came out with so many trained."""

    trained_junk: int
    trained_good: int
    junk: int = 0
    good: int = 0
    caught: int = 0
    false_positives: list[tuple[float, Letter]] = field(default_factory=list)
    missed: list[tuple[float, Letter]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Counts and rates; rates are shares of 1."""
        return {
            "trained": self.trained_junk + self.trained_good,
            "trained_junk": self.trained_junk,
            "trained_good": self.trained_good,
            "judged_junk": self.junk,
            "judged_good": self.good,
            "caught": self.caught,
            "missed": self.junk - self.caught,
            "caught_rate": round(self.caught / self.junk, 5) if self.junk else None,
            "false_positives": len(self.false_positives),
            "false_positive_rate": round(len(self.false_positives) / self.good, 5) if self.good else None,
        }


class Memory:
    """What was sorted, in memory: the counts that state.db has for an account."""

    def __init__(self) -> None:
        self._counts: dict[int, list[int]] = {}
        self._of = [0, 0, 0, 0]  # junk, good, and those written in CJK

    def learn(self, letter: Letter) -> None:
        """Sort one message."""
        kind = 0 if letter.junk else 1
        self._of[kind] += 1
        self._of[2 + kind] += letter.cjk
        for token in (*letter.tokens, *letter.written):
            self._counts.setdefault(token, [0, 0])[kind] += 1

    def score(self, letter: Letter) -> float:
        """The letter's points."""
        trained = Trained(*self._of)
        found = bayes(self._of_each(letter.tokens), trained, cjk=letter.cjk, written=self._of_each(letter.written))
        return letter.signs + (found.weight if found is not None else 0.0)

    def _of_each(self, hashes: array[int]) -> Iterator[tuple[int, int]]:
        for token in hashes:
            both = self._counts.get(token)
            if both is not None:
                yield both[0], both[1]


def letters(path: str, *, junk: bool, key: bytes, skipped: Callable[[str], None]) -> Iterator[Letter]:
    """Every message at `path`, in the order it is kept in."""
    when = 0.0
    for octets in messages(path, skipped):
        reading = read(octets[:MOST_OCTETS])
        when = _time(octets) or when
        signs = reasons(reading)
        common, written = (array("q", {hash_of(key, token) for token in kind}) for kind in parted(tokens(reading)))
        yield Letter(
            junk, when, reading.subject[:_SUBJECT], common, written, is_cjk(reading),
            sum(reason.weight for reason in signs), tuple(reason.rule for reason in signs),
        )  # fmt: skip


def _time(octets: bytes) -> float:
    """When it came: by the topmost Received, which is not the sender's, else by Date; 0 where neither says."""
    header = octets[: max(0, octets.find(b"\n\n"), octets.find(b"\r\n\r\n")) or 65_536]
    header = header.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    for name in (b"received", b"date"):
        found = find(header, name)
        if found is None:
            continue
        try:
            text = found.value.decode("ascii", "replace").rpartition(";")[2]
            return parsedate_to_datetime(text.strip()[:100]).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return 0.0


def split(found: list[Letter], trained: int) -> tuple[list[Letter], list[Letter], list[Letter]]:
    """(junk to be sorted, good to be sorted, the rest to be judged), by time. At most half of a kind is sorted."""
    kinds: list[list[Letter]] = [[], []]
    rest: list[Letter] = []
    for kind, sort in ((True, kinds[0]), (False, kinds[1])):
        # A stable sort: what has no date stays in its place in the mailbox.
        in_time = sorted((letter for letter in found if letter.junk is kind), key=lambda letter: letter.when)
        many = min((trained + kind) // 2, len(in_time) // 2)
        sort += in_time[:many]
        rest += in_time[many:]
    return kinds[0], kinds[1], rest


def judge(
    junk: Sequence[Letter], good: Sequence[Letter], rest: Iterable[Letter], threshold: float, *, go_on: bool = False
) -> Figures:
    """Sort `junk` and `good`, judge `rest`. `go_on`: and sort it too once it is judged, as in life: good mail is read
    and kept, junk that was missed is moved into Junk; what was caught lies there and teaches nothing."""
    memory, figures = Memory(), Figures(len(junk), len(good))
    for letter in (*junk, *good):
        memory.learn(letter)
    for letter in sorted(rest, key=lambda letter: letter.when) if go_on else rest:
        score = memory.score(letter)
        if go_on and (not letter.junk or score < threshold):
            memory.learn(letter)
        if letter.junk:
            figures.junk += 1
            figures.caught += score >= threshold
            if score < threshold:
                figures.missed.append((score, letter))
        else:
            figures.good += 1
            if score >= threshold:
                figures.false_positives.append((score, letter))
    figures.false_positives.sort(key=lambda one: -one[0])
    figures.missed.sort(key=lambda one: one[0])
    return figures
