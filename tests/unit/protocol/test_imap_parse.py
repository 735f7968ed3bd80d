"""Commands as values: each form of each command, what is refused and how, and bounds on what a stranger can ask."""

import dataclasses
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol.imap_commands import (
    Append,
    Authenticate,
    BadCommand,
    ClientId,
    Enable,
    Expunge,
    Fetch,
    ListMailboxes,
    Login,
    OnMailbox,
    Rename,
    Select,
    Simple,
    StatusOf,
    Store,
    Transfer,
)
from services.protocol.imap_fetch import BodyItem, FetchItems, Section
from services.protocol.imap_parse import parse, parse_append, tag_and_name
from services.protocol.imap_search import (
    All,
    And,
    Arrived,
    Body,
    HasFlag,
    Header,
    Not,
    Numbers,
    Or,
    Recent,
    Sent,
    Size,
    Text,
    Uids,
)
from services.protocol.imap_sets import STAR, SequenceSet


def numbers(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


ONE = numbers((1, 1))
ALL = numbers((1, STAR))

COMMANDS: list[tuple[bytes, Any]] = [
    (b"CAPABILITY", Simple("CAPABILITY")),
    (b"noop", Simple("NOOP")),
    (b"NOOP ", Simple("NOOP")),
    (b"IDLE", Simple("IDLE")),
    (b"LOGIN ann word", Login(b"ann", b"word")),
    (b'LOGIN "ann" "w\\"or\\\\d"', Login(b"ann", b'w"or\\d')),
    (b"LOGIN {3}\r\nann {6}\r\nw\r\nord", Login(b"ann", b"w\r\nord")),
    (b'LOGIN "" ""', Login(b"", b"")),
    (b"LOGIN ann pass]word", Login(b"ann", b"pass]word")),
    (b"AUTHENTICATE PLAIN", Authenticate("PLAIN", None)),
    (b"AUTHENTICATE plain =", Authenticate("PLAIN", b"")),
    (b"AUTHENTICATE PLAIN AGEAYg==", Authenticate("PLAIN", b"AGEAYg==")),
    (b"ENABLE CONDSTORE utf8=accept", Enable((b"CONDSTORE", b"UTF8=ACCEPT"))),
    (b"ID NIL", ClientId(())),
    (b"ID ()", ClientId(())),
    (b'ID ("name" "x" "version" NIL)', ClientId(((b"name", b"x"), (b"version", None)))),
    (b"SELECT inbox", Select("INBOX", False)),
    (b'EXAMINE "Entw&APw-rfe"', Select("Entwürfe", True)),
    (b"CREATE {4}\r\na.b.", OnMailbox("CREATE", "a.b.")),
    (b"DELETE a", OnMailbox("DELETE", "a")),
    (b"SUBSCRIBE a&-b", OnMailbox("SUBSCRIBE", "a&b")),
    (b"UNSUBSCRIBE a", OnMailbox("UNSUBSCRIBE", "a")),
    (b"RENAME a {1}\r\nb", Rename("a", "b")),
    (b'LIST "" *', ListMailboxes("", ("*",))),
    (b'LIST "" ""', ListMailboxes("", ("",))),
    (b"LIST a. %.b", ListMailboxes("a.", ("%.b",))),
    (b'LIST (SPECIAL-USE) "" "*"', ListMailboxes("", ("*",), only_special=True)),
    (b'LIST "" (a b*) RETURN (SPECIAL-USE CHILDREN)', ListMailboxes("", ("a", "b*"))),
    (b'LSUB "" "&2D3eAA-%"', ListMailboxes("", ("\U0001f600%",), subscribed=True)),
    (b"STATUS a (messages UNSEEN messages)", StatusOf("a", (b"MESSAGES", b"UNSEEN"))),
    (b"CHECK", Simple("CHECK")),
    (b"CLOSE", Simple("CLOSE")),
    (b"UNSELECT", Simple("UNSELECT")),
    (b"EXPUNGE", Expunge()),
    (b"UID EXPUNGE 1:3,7", Expunge(numbers((1, 3), (7, 7)))),
    (b"STORE 1 FLAGS ()", Store(ONE, "=", False, (), False)),
    (b"STORE 1:* +flags.silent (\\seen \\SEEN $Junk)", Store(ALL, "+", True, ("\\Seen", "$Junk"), False)),
    (b"uid store * -FLAGS \\Deleted kw", Store(numbers((STAR, STAR)), "-", False, ("\\Deleted", "kw"), True)),
    (b"COPY 1 b", Transfer(ONE, "b", False, False)),
    (b"UID COPY 1 b", Transfer(ONE, "b", False, True)),
    (b"MOVE 4:2 b", Transfer(numbers((4, 2)), "b", True, False)),
    (b"UID MOVE 1 b", Transfer(ONE, "b", True, True)),
    (b"FETCH 1 FAST", Fetch(ONE, FetchItems((b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE")), False)),
    (b"FETCH 1 (UID flags UID)", Fetch(ONE, FetchItems((b"UID", b"FLAGS")), False)),
    (b"UID FETCH 1 FLAGS", Fetch(ONE, FetchItems((b"UID", b"FLAGS")), True)),
]


@pytest.mark.parametrize(("octets", "command"), COMMANDS)
def test_each_command(octets: bytes, command: Any) -> None:
    tagged = parse(b"a1 " + octets)
    assert tagged.tag == b"a1"
    assert tagged.command == command
    assert tagged.name == " ".join(octets.decode("latin-1").upper().split()[: 2 if octets[:3].upper() == b"UID" else 1])


ITEMS: list[tuple[bytes, Any]] = [
    (b"BODY", b"BODY"),
    (b"BODY[]", BodyItem(Section(), b"BODY[]", False)),
    (b"body.peek[]", BodyItem(Section(), b"BODY[]", True)),
    (b"BODY[HEADER]", BodyItem(Section(text="HEADER"), b"BODY[HEADER]", False)),
    (b"BODY[text]<5.10>", BodyItem(Section(text="TEXT"), b"BODY[TEXT]<5>", False, (5, 10))),
    (b"BODY[1.2]", BodyItem(Section((1, 2)), b"BODY[1.2]", False)),
    (b"BODY[1.2.MIME]", BodyItem(Section((1, 2), "MIME"), b"BODY[1.2.MIME]", False)),
    (b"BODY[3.HEADER]", BodyItem(Section((3,), "HEADER"), b"BODY[3.HEADER]", False)),
    (
        b'BODY.PEEK[HEADER.FIELDS (From "X Y")]',
        BodyItem(
            Section(text="HEADER.FIELDS", fields=frozenset((b"from", b"x y"))),
            b'BODY[HEADER.FIELDS (FROM "X Y")]',
            True,
        ),
    ),
    (
        b"BODY[2.HEADER.FIELDS.NOT ({2}\r\nTo)]",
        BodyItem(Section((2,), "HEADER.FIELDS.NOT", frozenset((b"to",))), b"BODY[2.HEADER.FIELDS.NOT (TO)]", False),
    ),
    (b"RFC822", BodyItem(Section(), b"RFC822", False)),
    (b"RFC822.HEADER", BodyItem(Section(text="HEADER"), b"RFC822.HEADER", True)),
    (b"RFC822.TEXT", BodyItem(Section(text="TEXT"), b"RFC822.TEXT", False)),
]


@pytest.mark.parametrize(("octets", "item"), ITEMS)
def test_each_fetch_item(octets: bytes, item: Any) -> None:
    assert parse(b"a FETCH 1 " + octets).command.items == FetchItems((item,))
    assert parse(b"a FETCH 1 (" + octets + b" UID)").command.items == FetchItems((item, b"UID"))


@pytest.mark.parametrize(
    ("octets", "seen"),
    [(b"BODY[]", True), (b"BODY.PEEK[]", False), (b"RFC822", True), (b"RFC822.HEADER", False), (b"ENVELOPE", False)],
)
def test_which_items_set_seen(octets: bytes, seen: bool) -> None:
    assert parse(b"a FETCH 1 " + octets).command.items.seen is seen


DAY = date(2026, 2, 1)
KEYS: list[tuple[bytes, Any]] = [
    (b"ALL", All()),
    (b"2:4", Numbers(numbers((2, 4)))),
    (b"*", Numbers(numbers((STAR, STAR)))),
    (b"UID 1:*", Uids(ALL)),
    (b"SEEN", HasFlag("\\Seen")),
    (b"unseen", Not(HasFlag("\\Seen"))),
    (b"UNANSWERED", Not(HasFlag("\\Answered"))),
    (b"DRAFT", HasFlag("\\Draft")),
    (b"NEW", And((Recent(), Not(HasFlag("\\Seen"))))),
    (b"OLD", Not(Recent())),
    (b"KEYWORD $Junk", HasFlag("$Junk")),
    (b"UNKEYWORD x", Not(HasFlag("x"))),
    (b"BEFORE 1-Feb-2026", Arrived("before", DAY)),
    (b'ON "1-feb-2026"', Arrived("on", DAY)),
    (b"SINCE 01-Feb-2026", Arrived("since", DAY)),
    (b"SENTBEFORE 1-Feb-2026", Sent("before", DAY)),
    (b"SENTON 1-Feb-2026", Sent("on", DAY)),
    (b"SENTSINCE 1-Feb-2026", Sent("since", DAY)),
    (b"LARGER 10", Size(True, 10)),
    (b"SMALLER 10", Size(False, 10)),
    (b"SUBJECT x", Header("subject", "x")),
    (b'FROM "a b"', Header("from", "a b")),
    (b"HEADER X-Y {3}\r\nabc", Header("x-y", "abc")),
    (b'HEADER X-Y ""', Header("x-y", "")),
    (b"BODY x", Body("x")),
    (b"TEXT x", Text("x")),
    (b"NOT SEEN", Not(HasFlag("\\Seen"))),
    (b"OR SEEN DRAFT", Or(HasFlag("\\Seen"), HasFlag("\\Draft"))),
    (b"(SEEN DRAFT)", And((HasFlag("\\Seen"), HasFlag("\\Draft")))),
    (b"SEEN NOT (OR DRAFT 1)", And((HasFlag("\\Seen"), Not(Or(HasFlag("\\Draft"), Numbers(ONE)))))),
    ("CHARSET utf-8 SUBJECT {3}\r\né!".encode(), Header("subject", "é!")),
    ('CHARSET US-ASCII SUBJECT "é"'.encode(), Header("subject", "é")),
    ('TEXT "é"'.encode(), Text("é")),
]


@pytest.mark.parametrize(("octets", "key"), KEYS)
def test_each_search_key(octets: bytes, key: Any) -> None:
    assert parse(b"a SEARCH " + octets).command.key == key
    assert parse(b"a UID SEARCH " + octets).command.uid


REFUSED: list[tuple[bytes, str]] = [
    (b"", "a command begins with a tag"),
    (b"a", "expected a space"),
    (b"+ NOOP", "a command begins with a tag"),
    (b"a*b NOOP", "expected a space"),
    (b"a FROB", "there is no command FROB"),
    (b"a UID FROB", "not a command"),
    (b"a NOOP x", "unexpected text after the arguments"),
    (b"a LOGIN x", "expected a space"),
    (b'a LOGIN "x y', "a quoted string is not closed, or has a character that needs a literal"),
    (b"a LOGIN {3}\r\nx\0y z", "NUL is not allowed in a literal"),
    (b"a LOGIN ~{1}\r\nx z", "literal8 is not supported here"),
    (b"a LOGIN {9}\r\nx", "a literal is cut short"),
    (b"a SELECT", "expected a space"),
    (b"a SELECT a (CONDSTORE)", "unexpected text after the arguments"),
    (b'a LIST (SUBSCRIBED) "" *', "there is no selection option SUBSCRIBED"),
    (b'a LIST "" * RETURN (STATUS)', "there is no return option STATUS"),
    (b"a STATUS x ()", "expected a status item"),
    (b"a STATUS x (HIGHESTMODSEQ)", "there is no status item HIGHESTMODSEQ"),
    (b"a APPEND x x", "APPEND needs the message as a literal"),
    (b"a FETCH 0 FLAGS", "'0' is not a message number or a range"),
    (b"a FETCH 1:2:3 FLAGS", "'1:2:3' is not a message number or a range"),
    (b"a FETCH 1,,2 FLAGS", "'' is not a message number or a range"),
    (b"a FETCH 9999999999 FLAGS", "a message number is too large"),
    (b"a FETCH 1 ()", "expected an item to fetch"),
    (b"a FETCH 1 MODSEQ", "there is no FETCH item MODSEQ"),
    (b"a FETCH 1 (ALL)", "there is no FETCH item ALL"),
    (b"a FETCH 1 BODY[MIME]", "there is no section MIME"),
    (b"a FETCH 1 BODY[1.]", "expected a section's text"),
    (b"a FETCH 1 BODY[0]", "expected a section's text"),
    (b"a FETCH 1 BODY[]<0.0>", "a partial of no octets"),
    (b"a FETCH 1 BODY[]<0>", "expected a dot in the partial"),
    (b"a FETCH 1 BODY[HEADER.FIELDS ()]", "expected a header field's name"),
    (b"a STORE 1 FLAG (\\Seen)", "expected FLAGS, +FLAGS or -FLAGS"),
    (b"a STORE 1 FLAGS (\\Recent)", "there is no system flag \\Recent"),
    (b"a STORE 1 FLAGS (\\*)", "expected a flag"),
    (b"a SEARCH", "expected a space"),
    (b"a SEARCH FROB", "there is no search key FROB"),
    (b"a SEARCH ON 31-Feb-2026", "there is no such date"),
    (b"a SEARCH ON 1-Foo-2026", "there is no such date"),
    (b"a SEARCH MODSEQ 1", "there is no search key MODSEQ"),
    (b'a SEARCH SUBJECT "\xff"', "the text is not in the charset of the command"),
    (b"a SEARCH (SEEN", "expected a closing parenthesis"),
    (b'a ID ("a")', "expected a space"),
]


@pytest.mark.parametrize(("octets", "text"), REFUSED)
def test_what_is_refused_and_how(octets: bytes, text: str) -> None:
    with pytest.raises(BadCommand) as caught:
        parse(octets)
    assert str(caught.value) == text
    assert caught.value.code == b""
    assert caught.value.tag == (b"a" if octets.startswith((b"a ", b"a*")) or octets == b"a" else b"*")


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"a SELECT &AGE-", "the mailbox name is not modified UTF-7"),
        (b"a CREATE &x", "the mailbox name is not modified UTF-7"),
        (b'a DELETE "\xff"', "the mailbox name is neither modified UTF-7 nor UTF-8"),
        (b"a SELECT " + b"x" * 1001, "the mailbox name is too long"),
    ],
)
def test_names_that_no_mailbox_can_have_are_a_no(octets: bytes, text: str) -> None:
    with pytest.raises(BadCommand) as caught:
        parse(octets)
    assert (str(caught.value), caught.value.code) == (text, b"CANNOT")


def test_a_charset_we_do_not_know_is_named_and_ours_are_listed() -> None:
    with pytest.raises(BadCommand) as caught:
        parse(b"a SEARCH CHARSET KOI8-R SUBJECT x")
    assert caught.value.code == b"BADCHARSET (UTF-8 US-ASCII)"


@pytest.mark.parametrize("depth", [1000, 20_000])
@pytest.mark.parametrize("nest", [b"(", b"NOT ", b"OR SEEN "])
def test_nesting_is_bounded(nest: bytes, depth: int) -> None:
    with pytest.raises(BadCommand, match="nested too deeply"):
        parse(b"a SEARCH " + nest * depth + b"SEEN")


def test_nesting_that_people_need_is_not() -> None:
    assert parse(b"a SEARCH " + b"OR SEEN " * 40 + b"DRAFT")


def test_the_number_of_keys_is_bounded() -> None:
    with pytest.raises(BadCommand, match="too many search keys"):
        parse(b"a SEARCH" + b" SEEN" * 6000)


@pytest.mark.parametrize(
    ("octets", "append", "is_message"),
    [
        (b"a APPEND ", Append("", (), None), False),
        (b"a APPEND x ", Append("x", (), None), True),
        (b"a APPEND {1}\r\nx ", Append("x", (), None), True),
        (b"a APPEND x (\\Seen k) ", Append("x", ("\\Seen", "k"), None), True),
        (b'a APPEND x "17-Jul-1996 02:44:25 -0700" ', Append("x", (), 837596665.0), True),
        (b'a APPEND x () " 1-Feb-2026 00:00:00 +0000" ', Append("x", (), 1769904000.0), True),
    ],
)
def test_append_up_to_its_literal(octets: bytes, append: Append, is_message: bool) -> None:
    assert parse_append(octets) == (append, is_message)


@pytest.mark.parametrize(
    "octets",
    [
        b"a APPEND x y ",
        b"a APPEND x (\\Foo) ",
        b'a APPEND x "no date" ',
        b'a APPEND x "32-Jan-2026 00:00:00 +0000" ',
        b"a APPEND",
    ],
)
def test_append_is_refused_before_its_literal(octets: bytes) -> None:
    with pytest.raises(BadCommand):
        parse_append(octets)


def test_tag_and_name_of_a_command_that_still_arrives() -> None:
    assert tag_and_name(b"a7 append x ") == (b"a7", "APPEND")


def test_values_are_frozen_and_hide_passwords() -> None:
    login = parse(b"a LOGIN ann secret").command
    with pytest.raises(dataclasses.FrozenInstanceError):
        login.user = b"bob"
    assert "secret" not in repr(login)
    assert "c2VjcmV0" not in repr(parse(b"a AUTHENTICATE PLAIN c2VjcmV0").command)


@given(st.binary(max_size=200))
def test_any_octets_make_a_command_or_a_refusal(octets: bytes) -> None:
    for start in (b"", b"a FETCH 1 ", b"a SEARCH ", b"a LIST ", b"a STORE 1 ", b"a ID "):
        try:
            parse(start + octets)
        except BadCommand as error:
            assert str(error).isascii() or error.code == b""
