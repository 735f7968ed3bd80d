"""Sets, names, patterns and responses: the small values of IMAP, each by table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol import imap_responses as respond
from services.protocol.imap_names import decode_name, encode_name, list_pattern
from services.protocol.imap_sets import STAR, SequenceSet, indices, sequence_set
from services.protocol.imap_syntax import BadMailboxName, BadSyntax, Scanner


def a_set(text: bytes) -> SequenceSet:
    return sequence_set(Scanner(text))


# --- sets


@pytest.mark.parametrize(
    ("text", "largest", "ranges"),
    [
        (b"1", 10, [(1, 1)]),
        (b"*", 10, [(10, 10)]),
        (b"5:*", 10, [(5, 10)]),
        (b"*:5", 10, [(5, 10)]),
        (b"20:*", 10, [(10, 20)]),  # RFC 3501 §9: "*" may be the smaller end
        (b"4,2:3,1", 10, [(1, 4)]),
        (b"1:5,3:7,9", 10, [(1, 7), (9, 9)]),
        (b"1:4294967295", 10, [(1, 4294967295)]),
    ],
)
def test_sets_become_ascending_ranges(text: bytes, largest: int, ranges: list[tuple[int, int]]) -> None:
    assert a_set(text).resolve(largest) == ranges


def test_numbers_that_no_message_has_are_refused() -> None:
    assert list(indices(a_set(b"2:3").within(3))) == [1, 2]
    with pytest.raises(BadSyntax, match="only 3 messages"):
        a_set(b"1:4").within(3)
    with pytest.raises(BadSyntax, match="only 0 messages"):
        a_set(b"*").within(0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"1:*", [10, 20, 30]),
        (b"*", [30]),
        (b"31:*", [30]),  # RFC 3501 §6.4.8: n:* always has the last message
        (b"11:29", [20]),
        (b"10,30", [10, 30]),
        (b"1:4294967295", [10, 20, 30]),
        (b"5", []),
    ],
)
def test_uids_that_nothing_has_are_passed_over(text: bytes, found: list[int]) -> None:
    uids = [10, 20, 30]
    assert [uids[i] for i in indices(a_set(text).among(uids))] == found
    assert a_set(text).among([]) == []


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8), st.integers(1, 30))
def test_ranges_hold_exactly_the_numbers_named(pairs: list[tuple[int, int]], largest: int) -> None:
    named: set[int] = set()
    for first, last in pairs:
        low, high = sorted((first or largest, last or largest))
        named.update(range(low, high + 1))
    ranges = SequenceSet(tuple(pairs)).resolve(largest)
    assert {number for low, high in ranges for number in range(low, high + 1)} == named
    assert all(ranges[i][1] + 1 < ranges[i + 1][0] for i in range(len(ranges) - 1))


def test_star_is_no_message_number() -> None:
    assert a_set(b"*").ranges == ((STAR, STAR),)


# --- names


@pytest.mark.parametrize(
    ("wire", "name"),
    [
        (b"INBOX", "INBOX"),
        (b"InBox", "INBOX"),
        (b"Entw&APw-rfe", "Entwürfe"),
        (b"&ZeVnLIqe-", "日本語"),
        (b"a&-b", "a&b"),
        (b"~peter.mail.&U,BTFw-", "~peter.mail.台北"),
        (b"&2D3eAA-", "\U0001f600"),
    ],
)
def test_modified_utf7(wire: bytes, name: str) -> None:
    assert decode_name(wire) == name
    assert encode_name(name) == (b"INBOX" if name == "INBOX" else wire)


@pytest.mark.parametrize("wire", [b"&AGE-", b"&", b"a&b", b"&APw", b"&APw-&APw-", b"&2D0-", b"&A-", b"&=-"])
def test_what_is_not_modified_utf7(wire: bytes) -> None:
    with pytest.raises(BadMailboxName):
        decode_name(wire)


def test_utf8_names_are_taken() -> None:
    assert decode_name("Entwürfe".encode()) == "Entwürfe"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_names_come_back(name: str) -> None:
    wire = encode_name(name)
    assert wire.isascii()
    if name.upper() != "INBOX":
        assert decode_name(wire) == name


@pytest.mark.parametrize(
    ("reference", "pattern", "matching", "not_matching"),
    [
        ("", "*", ["INBOX", "a", "a.b.c"], []),
        ("", "%", ["INBOX", "a"], ["a.b"]),
        ("", "a.%", ["a.b"], ["a", "a.b.c"]),
        ("", "%.%", ["a.b"], ["a", "a.b.c"]),
        ("", "*.b", ["a.b", "x.a.b"], ["b"]),
        ("a.", "b*", ["a.b", "a.bc.d"], ["b"]),
        ("", "inbox", ["INBOX"], ["inbox"]),
        ("", "Inbox.*", ["INBOX.a"], []),
        ("", "a(b", ["a(b"], ["a"]),
        ("", "a\nb", ["a\nb"], []),
    ],
)
def test_list_patterns(reference: str, pattern: str, matching: list[str], not_matching: list[str]) -> None:
    found = list_pattern(reference, pattern, ".")
    assert all(found.fullmatch(name) for name in matching)
    assert not any(found.fullmatch(name) for name in not_matching)


def test_patterns_of_many_wildcards_stay_fast() -> None:
    found = list_pattern("", "*a" * 8 + "*%" * 200 + "b", ".")
    assert not found.fullmatch("a." * 60)


# --- responses


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (b"", b'""'),
        (b"plain text", b'"plain text"'),
        (b'say "hi"\\', b'"say \\"hi\\"\\\\"'),
        (b'"""""', b'{5}\r\n"""""'),
        (b"two\r\nlines", b"{10}\r\ntwo\r\nlines"),
        (b"\xc3\xa9", b"{2}\r\n\xc3\xa9"),
        (b"a\0b", b"{3}\r\na\x80b"),
        (b"tab\t", b'"tab\t"'),
    ],
)
def test_strings(value: bytes, wire: bytes) -> None:
    assert respond.string(value) == wire
    assert respond.nstring(value) == wire


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (b"INBOX", b"INBOX"),
        (b"a.b", b"a.b"),
        (b"", b'""'),
        (b"nil", b'"nil"'),
        (b"a b", b'"a b"'),
        (b"a*", b'"a*"'),
        (b"a]", b"a]"),
    ],
)
def test_astrings(value: bytes, wire: bytes) -> None:
    assert respond.astring(value) == wire


@given(st.binary(max_size=60))
def test_what_is_sent_is_what_a_client_reads(value: bytes) -> None:
    if b"\0" not in value:
        scanner = Scanner(respond.string(value))
        assert scanner.string() == value
        scanner.end()


@pytest.mark.parametrize(
    ("response", "wire"),
    [
        (respond.ok(b"a", b"done"), b"a OK done\r\n"),
        (respond.no(b"a", b"no", b"TRYCREATE"), b"a NO [TRYCREATE] no\r\n"),
        (respond.bad(b"*", b"what"), b"* BAD what\r\n"),
        (respond.bye(b"bye", b"UNAVAILABLE"), b"* BYE [UNAVAILABLE] bye\r\n"),
        (respond.continuation(), b"+ OK\r\n"),
        (respond.continuation(b""), b"+ \r\n"),
        (respond.greeting(b"hi", b"IMAP4rev1"), b"* OK [CAPABILITY IMAP4rev1] hi\r\n"),
        (respond.mailbox_list((b"\\Noselect",), b".", b""), b'* LIST (\\Noselect) "." ""\r\n'),
        (respond.mailbox_list((), b".", b"a b", lsub=True), b'* LSUB () "." "a b"\r\n'),
        (respond.mailbox_status(b"a", [(b"MESSAGES", 3), (b"UNSEEN", 0)]), b"* STATUS a (MESSAGES 3 UNSEEN 0)\r\n"),
        (respond.search([]), b"* SEARCH\r\n"),
        (respond.search([2, 84]), b"* SEARCH 2 84\r\n"),
        (respond.flags([b"\\Seen", b"k"]), b"* FLAGS (\\Seen k)\r\n"),
        (respond.fetch(1, [b"UID 2", b"FLAGS ()"]), b"* 1 FETCH (UID 2 FLAGS ())\r\n"),
        (respond.enabled(()), b"* ENABLED\r\n"),
        (respond.namespace(b"", b"."), b'* NAMESPACE (("" ".")) NIL NIL\r\n'),
        (respond.server_id(()), b"* ID NIL\r\n"),
        (respond.server_id(((b"name", b"x"),)), b'* ID ("name" "x")\r\n'),
        (respond.append_uid(7, [1, 2, 3]), b"APPENDUID 7 1:3"),
        (respond.copy_uid(7, [1, 2, 5], [8, 9, 10]), b"COPYUID 7 1:2,5 8:10"),
    ],
)
def test_responses(response: bytes, wire: bytes) -> None:
    assert response == wire


@pytest.mark.parametrize(
    ("epoch", "wire"),
    [
        (837596665, b'"17-Jul-1996 09:44:25 +0000"'),
        (0, b'" 1-Jan-1970 00:00:00 +0000"'),
        (-1, b'"31-Dec-1969 23:59:59 +0000"'),
        (1769904000.9, b'" 1-Feb-2026 00:00:00 +0000"'),
        (10**18, b'"31-Dec-9999 01:46:40 +0000"'),
    ],
)
def test_internal_dates(epoch: float, wire: bytes) -> None:
    assert respond.internal_date(epoch) == wire
