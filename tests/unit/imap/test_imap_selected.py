"""A session's view: numbers that hold until EXPUNGE is told, news in the right order, \\Recent claimed once."""

from array import array
from dataclasses import dataclass, field

import pytest

from services.imap.selected import Selected
from services.storage.mailbox import Changes


@dataclass(eq=False)
class FakeMailbox:
    """As much of a Mailbox as a view looks at."""

    uids: "array[int]" = field(default_factory=lambda: array("I", [1, 2, 3, 4, 5]))
    flags: "array[int]" = field(default_factory=lambda: array("Q", [0] * 5))
    keywords: tuple[str, ...] = ()
    highestmodseq: int = 10
    recent_from: int = 6
    uidnext: int = 6
    changed: tuple[tuple[int, int], ...] = ()  # modseq, UID

    def flag_text(self, bits: int) -> bytes:
        return b"\\Seen" if bits else b""

    def index(self, uid: int) -> int:
        return self.uids.index(uid) if uid in self.uids else -1

    def claim_recent(self) -> int:
        first, self.recent_from = self.recent_from, self.uidnext
        return first

    def changes_since(self, modseq: int) -> Changes:
        return Changes(self.highestmodseq, (), tuple(uid for own, uid in self.changed if own > modseq), ())

    def arrive(self, *uids: int) -> None:
        self.uids = self.uids + array("I", uids)
        self.flags = self.flags + array("Q", [0] * len(uids))
        self.uidnext = uids[-1] + 1
        self.highestmodseq += 1
        self.changed += tuple((self.highestmodseq, uid) for uid in uids)

    def expunge(self, *uids: int) -> None:
        kept = [at for at, uid in enumerate(self.uids) if uid not in uids]
        self.flags = array("Q", [self.flags[at] for at in kept])
        self.uids = array("I", [self.uids[at] for at in kept])
        self.highestmodseq += 1

    def flag(self, uid: int) -> None:
        self.flags[self.index(uid)] = 16
        self.highestmodseq += 1
        self.changed += ((self.highestmodseq, uid),)


def view(box: FakeMailbox, *, read_only: bool = False) -> Selected:
    return Selected(box, read_only=read_only)  # type: ignore[arg-type]


def news(selected: Selected, *, expunge: bool = True) -> list[bytes]:
    return b"".join(selected.updates(expunge=expunge)).decode().encode().splitlines()


def test_nothing_happened() -> None:
    assert news(view(FakeMailbox())) == []


def test_new_mail_and_changed_flags() -> None:
    box = FakeMailbox()
    selected = view(box)
    box.arrive(9)
    box.flag(2)
    assert news(selected) == [b"* 6 EXISTS", b"* 1 RECENT", b"* 2 FETCH (UID 2 FLAGS (\\Seen))"]
    assert news(selected) == []


def test_expunges_fall_from_the_end_and_wait_where_they_must() -> None:
    box = FakeMailbox()
    selected = view(box)
    box.expunge(2, 4)
    box.arrive(7)
    assert news(selected, expunge=False) == [b"* 6 EXISTS", b"* 1 RECENT"]
    assert list(selected.uids) == [1, 2, 3, 4, 5, 7]
    assert list(selected.positions([0, 1, 5])) == [0, -1, 3]
    assert selected.number(5) == 5
    box.flag(5)
    assert news(selected, expunge=False) == [b"* 5 FETCH (UID 5 FLAGS (\\Seen))"]
    assert news(selected) == [b"* 4 EXPUNGE", b"* 2 EXPUNGE"]
    assert list(selected.uids) == [1, 3, 5, 7]


def test_a_message_that_came_and_went_is_never_mentioned() -> None:
    box = FakeMailbox()
    selected = view(box)
    box.arrive(7)
    box.expunge(7)
    assert news(selected) == []


def test_everything_gone() -> None:
    box = FakeMailbox()
    selected = view(box)
    box.expunge(1, 2, 3, 4, 5)
    assert news(selected) == [b"* 5 EXPUNGE", b"* 4 EXPUNGE", b"* 3 EXPUNGE", b"* 2 EXPUNGE", b"* 1 EXPUNGE"]
    box.arrive(6)
    assert news(selected) == [b"* 1 EXISTS", b"* 1 RECENT"]


def test_own_changes_are_no_news() -> None:
    box = FakeMailbox()
    selected = view(box)
    selected.collect()
    box.flag(2)
    selected.own_change(box.highestmodseq, [2])
    assert news(selected) == []


def test_anothers_change_before_ones_own_is_news() -> None:
    box = FakeMailbox()
    selected = view(box)
    box.flag(1)
    selected.collect()
    box.flag(2)
    selected.own_change(box.highestmodseq, [2])
    assert news(selected) == [b"* 1 FETCH (UID 1 FLAGS (\\Seen))"]


def test_a_new_keyword_is_told_before_it_is_used() -> None:
    box = FakeMailbox()
    selected = view(box)
    box.keywords = ("work",)
    box.flag(1)
    told = news(selected)
    assert told[0] == b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft work)"
    assert told[1].startswith(b"* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft work \\*)]")
    assert told[2].startswith(b"* 1 FETCH")


def test_recent_is_claimed_by_the_first_that_may_write() -> None:
    box = FakeMailbox(recent_from=4)
    reader, writer = view(box, read_only=True), view(box)
    late = view(box)
    assert (reader.recent, writer.recent, late.recent) == (2, 2, 0)
    box.arrive(8)
    news(late)
    news(writer)
    assert (writer.recent, late.recent) == (2, 1)
    assert late.is_recent(8) and not writer.is_recent(8) and writer.is_recent(5)
    assert writer.flags_of([1, 4, 5], [0, 3, 4]) == [b"", b"\\Recent", b"\\Recent"]


@pytest.mark.parametrize("read_only", [False, True])
def test_what_may_be_changed_for_good(read_only: bool) -> None:
    selected = view(FakeMailbox(keywords=("a",)), read_only=read_only)
    wanted = (
        b"PERMANENTFLAGS ()" if read_only else b"PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft a \\*)"
    )
    assert selected.permanent_flags() == wanted
