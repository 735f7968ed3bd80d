"""The MIME tree: offsets and sizes of whole and broken messages, and that nothing makes it fail.

Sizes and structures in the tables were compared with Dovecot 2.3's answers to the same messages.
"""

import mmap
import random
import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message import mime
from services.message.envelope import body_structure, envelope, header_fields
from services.message.mime import LEAF, MAX_DEPTH, MESSAGE, MULTIPART, Part


def crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def bodies(raw: bytes, part: Part) -> object:
    """The leaves' octets, nested as the parts are."""
    if part.kind == LEAF:
        return raw[part.body : part.end]
    return [bodies(raw, child) for child in part.children]


def mixed(boundary: bytes, *parts: bytes, end: bytes = b"--", prologue: bytes = b"", epilogue: bytes = b"") -> bytes:
    inner = b"".join(b"\n--" + boundary + b"\n" + part for part in parts)
    closing = b"\n--" + boundary + end if end else b""
    head = b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="' + boundary + b'"\n\n'
    return head + prologue + inner + closing + epilogue


TREES = [
    ("plain", b"Subject: x\n\nhello\n", b"hello\n"),
    ("no header", b"\nhello\n", b"hello\n"),
    ("no body", b"Subject: x\n", b""),
    ("header without its empty line", b"Subject: x", b""),
    ("nothing at all", b"", b""),
    ("two parts", mixed(b"b", b"\none", b"\ntwo"), [b"one", b"two"]),
    ("prologue and epilogue are no parts", mixed(b"b", b"\none", prologue=b"pro\n", epilogue=b"\nepi\n"), [b"one"]),
    ("no closing boundary", mixed(b"b", b"\none", b"\ntwo\n", end=b""), [b"one", b"two\n"]),
    ("boundary at once", mixed(b"b").replace(b"\n\n\n--", b"\n\n--"), []),
    ("no boundary anywhere", mixed(b"b", end=b"", prologue=b"just text\n"), []),
    ("no boundary parameter", b"MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n--b\n\nx\n--b--\n", []),
    ("blanks behind a boundary", mixed(b"b ", b"\none").replace(b'"b "', b'"b"'), [b"one"]),
    ("a longer line is a boundary too", mixed(b"b", b"\none").replace(b"\n--b\n", b"\n--bla\n"), [b"one"]),
    ("a part whose header runs into the boundary", mixed(b"b", b"X: y", b"\ntwo"), [b"", b"two"]),
    ("an empty part", mixed(b"b", b"", b"\ntwo"), [b"", b"two"]),
    (
        "nested",
        mixed(b"out", b'Content-Type: multipart/alternative; boundary="in"\n\n--in\n\na\n--in\n\nb\n--in--', b"\nc"),
        [[b"a", b"b"], b"c"],
    ),
    (
        "the outer boundary ends an open inner part",
        mixed(b"out", b'Content-Type: multipart/mixed; boundary="in"\n\n--in\n\na', b"\nc"),
        [[b"a"], b"c"],
    ),
    (
        "one boundary begins like the other",
        mixed(b"b", b'Content-Type: multipart/mixed; boundary="bb"\n\n--bb\n\na\n--bb--', b"\nc"),
        [[b"a"], b"c"],
    ),
    (
        "a message within",
        mixed(b"b", b"Content-Type: message/rfc822\n\nSubject: in\n\nhi", b"\nz"),
        [[b"hi"], b"z"],
    ),
    (
        "a multipart message within",
        mixed(b"b", b"Content-Type: message/rfc822\n\n" + mixed(b"c", b"\nin"), b"\nz"),
        [[[b"in"]], b"z"],
    ),
    (
        "digest: parts are messages unless they say otherwise",
        mixed(b"b", b"\nSubject: 1\n\none", b"Content-Type: text/plain\n\ntwo").replace(b"/mixed", b"/digest"),
        [[b"one"], b"two"],
    ),
    ("two semicolons", b"Content-Type: multipart/mixed;; boundary=b\n\n--b\n\nx\n--b--\n", [b"x"]),
    ("Content-Type without MIME-Version", b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n", [b"x"]),
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(("name", "raw", "tree"), TREES, ids=[name for name, _, _ in TREES])
def test_trees(name: str, raw: bytes, tree: object, line_end: bytes) -> None:
    raw = raw.replace(b"\n", line_end)
    message = mime.parse(raw)

    def with_ends(item: object) -> object:
        return item.replace(b"\n", line_end) if isinstance(item, bytes) else [with_ends(one) for one in item]  # type: ignore[attr-defined]

    assert bodies(raw, message.root) == with_ends(tree)


@pytest.mark.parametrize(("name", "raw", "tree"), TREES, ids=[name for name, _, _ in TREES])
def test_a_mapped_file_gives_the_same(name: str, raw: bytes, tree: object) -> None:
    if not raw:
        return  # the kernel maps no empty file
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mime.pack(mime.parse(mapped), mapped) == mime.pack(mime.parse(raw), raw)


@pytest.mark.parametrize(
    ("raw", "octets", "bare_lf"),
    [
        (b"a\r\nb\r\n", 6, False),
        (b"a\nb\n", 6, True),
        (b"a\r\nb\n", 6, True),
        (b"a\rb", 3, False),
        (b"\r\r\n\n", 5, True),
    ],
)
def test_sizes_are_those_with_crlf(raw: bytes, octets: int, bare_lf: bool) -> None:
    message = mime.parse(raw)
    assert (message.octets, message.bare_lf) == (octets, bare_lf)
    assert message.octets == len(raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(("name", "raw", "tree"), TREES, ids=[name for name, _, _ in TREES])
def test_kept_offsets_fit_what_a_client_is_served(name: str, raw: bytes, tree: object) -> None:
    """A message with bare LF is served with CRLF; the kept offsets must be those of the served octets."""
    served = crlf(raw)
    expected = mime.unpack(mime.pack(mime.parse(served), served))
    for stored in (raw, served, raw.replace(b"\n", b"\r\n", 3)):
        message = mime.parse(stored)
        kept = mime.unpack(mime.pack(message, stored))
        assert bodies(served, kept.root) == bodies(served, expected.root)
        assert kept.octets == len(served)


def test_lines_and_octets_of_leaves_and_messages() -> None:
    root = mime.parse(mixed(b"b", b"Content-Type: message/rfc822\n\nS: x\n\na\nb")).root
    holder = root.children[0]
    assert (holder.kind, holder.lines, holder.octets) == (MESSAGE, 3, len(b"S: x\r\n\r\na\r\nb"))
    assert (holder.children[0].lines, holder.children[0].octets) == (1, 4)


FIND = mixed(
    b"b",
    b"\none",
    b"Content-Type: message/rfc822\n\nSubject: in\n\nin text",
    b"Content-Type: message/rfc822\n\n" + mixed(b"c", b"\nc1", b"\nc2"),
)


@pytest.mark.parametrize(
    ("numbers", "octets"),
    [
        ((1,), b"one"),
        ((2,), b"Subject: in\n\nin text"),
        ((2, 1), b"in text"),
        ((3, 1), b"c1"),
        ((3, 2), b"c2"),
        ((4,), None),
        ((0,), None),
        ((1, 1), None),
        ((2, 2), None),
        ((2, 1, 1), None),
        ((3, 3), None),
    ],
)
def test_part_numbers(numbers: tuple[int, ...], octets: bytes | None) -> None:
    found = mime.find(mime.parse(FIND).root, numbers)
    assert (FIND[found.body : found.end] if found else None) == octets


def test_part_one_of_a_message_without_parts_is_its_body() -> None:
    raw = b"Subject: x\n\nhello\n"
    root = mime.parse(raw).root
    assert mime.find(root, (1,)) is root
    assert mime.find(root, (2,)) is None
    assert mime.find(root, (1, 1)) is None
    assert mime.find(root, ()) is root


def test_part_numbers_into_a_message_that_is_a_message() -> None:
    raw = b"Content-Type: message/rfc822\n\nSubject: in\n\nhi\n"
    root = mime.parse(raw).root
    inner = mime.find(root, (1, 1))
    assert inner is not None and raw[inner.body : inner.end] == b"hi\n"


@pytest.mark.parametrize(
    "packed", [b"", b"\x01", b"\x07" + bytes(8) + bytes(22), mime.pack(mime.parse(b"a\n"), b"a\n")[:-1]]
)
def test_broken_offsets_are_found_out(packed: bytes) -> None:
    with pytest.raises(ValueError):
        mime.unpack(packed)


# --- limits


def test_nesting_is_bounded() -> None:
    depth = 1000
    raw = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (i, i) for i in range(depth))
    deepest, part = 0, mime.parse(raw).root
    while part.children:
        part = part.children[0]
        deepest += 1
    assert deepest == mime.MAX_DEPTH
    assert body_structure(mime.parse(raw).root)


def test_messages_within_messages_are_bounded() -> None:
    root = mime.parse(b"Content-Type: message/rfc822\n\n" * 5000).root
    deepest = 0
    while root.children:
        root = root.children[0]
        deepest += 1
    assert deepest == mime.MAX_DEPTH


def test_the_number_of_parts_is_bounded() -> None:
    root = mime.parse(mixed(b"b", *[b"\nx"] * (mime.MAX_PARTS + 500))).root
    assert len(root.children) == mime.MAX_PARTS - 1
    assert root.kind == MULTIPART


def test_half_a_million_lines_that_might_be_boundaries_cost_no_step_each() -> None:
    raw = mixed(b"b", b"\n" + b"--c\n" * 500_000)
    assert len(mime.parse(raw).root.children) == 1


# --- torture: whatever is in a message, an answer is made


def _noise(source: random.Random) -> bytes:
    words = [
        b"Content-Type: ", b"multipart/mixed; boundary=b", b"message/rfc822", b"text/plain; charset=", b"\n", b"\r\n",
        b"\n\n", b"--b", b"--b--", b"\n--b\n", b"\n--b--\n", b"MIME-Version: 1.0\n", b"From: ", b"To: a@b, ", b"<", b">",
        b'"', b"(", b")", b"\\", b"@", b":", b";", b"\0", b"\r", b"\xff\xfe", b"=?utf-8?B?", b"?=", b" ", b"\t", b"=",
        b"name*0*=", b"Subject: ", b"x" * 200, b"Content-Disposition: attachment; filename=", b"Date: ",
    ]  # fmt: skip
    return b"".join(source.choice(words) for _ in range(source.randrange(60)))


def answers(raw: bytes) -> None:
    message = mime.parse(raw)
    envelope(message.root.fields)
    body_structure(message.root)
    body_structure(message.root, extended=False)
    header_fields(raw[: message.root.body], frozenset((b"from",)))
    kept = mime.unpack(mime.pack(message, raw))
    served = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert message.octets == len(served)
    stack = [kept.root]
    while stack:
        part = stack.pop()
        assert 0 <= part.header <= part.body <= part.end <= len(served)
        assert all(part.body <= child.header and child.end <= part.end for child in part.children)
        stack.extend(part.children)


def test_a_thousand_broken_messages() -> None:
    source = random.Random(1)
    for _ in range(1000):
        answers(_noise(source))


@given(st.binary(max_size=300))
def test_any_octets(raw: bytes) -> None:
    answers(raw)


def test_boundaries_that_never_come_cost_no_minutes() -> None:
    parts = (b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(20_000))
    counted = _Counted(b"".join(parts))
    mime.parse(counted)
    assert counted.searched <= 2 * MAX_DEPTH * len(counted)  # it was ten thousand times the length


class _Counted(bytes):
    """A message that counts the octets searched in it."""

    searched = 0

    def find(self, sub: Any, start: Any = None, end: Any = None, /) -> int:
        found = super().find(sub, start, end)
        self.searched += (found if found >= 0 else len(self)) - (start or 0)
        return found
