"""`BodyHash` against RFC 6376's example, a naive reading of the RFC, and dkimpy."""

import base64
import hashlib
import itertools
import random
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.body_hash import BodyHash


def naive_relaxed(body: bytes) -> bytes:
    """RFC 6376 §3.4.4, sentence by sentence, over the whole body."""
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def hash_of(canonical: bytes) -> str:
    return base64.b64encode(hashlib.sha256(canonical).digest()).decode()


def body_hash(*chunks: bytes) -> str:
    body = BodyHash()
    for chunk in chunks:
        body.update(chunk)
    return body.digest()


BODIES = [
    # (what, body, canonical form)
    ("RFC 6376 §3.4.5", b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
    ("empty", b"", b""),
    ("one empty line", b"\r\n", b""),
    ("only white space", b" \t \r\n\t\r\n", b""),
    ("white space without a line end", b" \t", b""),
    ("no final CRLF", b"a", b"a\r\n"),
    ("no final CRLF, white space", b"a \t ", b"a\r\n"),
    ("empty lines inside stay", b"a\r\n\r\n \r\nb\r\n", b"a\r\n\r\n\r\nb\r\n"),
    ("empty lines first stay", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
    ("leading white space is one space", b"\t\t a\r\n", b" a\r\n"),
    ("a form feed is no white space", b"a\x0c \x0b\r\n", b"a\x0c \x0b\r\n"),
    ("NUL at the end", b"a\r\n\0\r\n\r\n", b"a\r\n\0\r\n"),
    ("8-bit", "é ß\r\n你好 \r\n".encode(), "é ß\r\n你好\r\n".encode()),
    ("bare LF is a character", b"a \n\r\n\n\r\n", b"a \n\r\n\n\r\n"),
    ("bare CR is a character", b"a \r b\r\r\n\r", b"a \r b\r\r\n\r\r\n"),
]


@pytest.mark.parametrize(("what", "body", "canonical"), BODIES, ids=[what for what, *_ in BODIES])
def test_relaxed_form(what: str, body: bytes, canonical: bytes) -> None:
    assert naive_relaxed(body) == canonical, "the reference itself"
    assert body_hash(body) == hash_of(canonical)
    assert body_hash(*(body[i : i + 1] for i in range(len(body)))) == hash_of(canonical), "byte by byte"
    for cut in range(len(body) + 1):
        assert body_hash(body[:cut], body[cut:]) == hash_of(canonical), cut


def test_empty_body_has_the_hash_that_the_rfc_prints() -> None:
    assert body_hash() == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # RFC 6376 §3.4.4


PIECES = st.sampled_from([b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n", b"a", b"\0", b"\xe4\xbd\xa0", b"  ", b"\x0c"])


@given(st.lists(PIECES, max_size=40).map(b"".join), st.lists(st.integers(0, 100), max_size=8))
def test_any_chunking_gives_the_naive_result(body: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert body_hash(*chunks) == hash_of(naive_relaxed(body))


@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_dkimpy_agrees_on_bodies_of_whole_lines(body: bytes) -> None:
    from dkim.canonicalization import Relaxed

    body += b"\r\n"  # without a final CRLF dkimpy keeps the last line's trailing white space
    assert body_hash(body) == hash_of(Relaxed.canonicalize_body(body))


@given(st.lists(PIECES, max_size=20).map(b"".join), st.lists(PIECES, max_size=20).map(b"".join))
def test_asking_for_the_digest_changes_nothing(first: bytes, second: bytes) -> None:
    body = BodyHash()
    body.update(first)
    assert body.digest() == hash_of(naive_relaxed(first))
    body.update(second)
    assert body.digest() == body.digest() == hash_of(naive_relaxed(first + second))


def test_large_random_body_in_odd_chunks() -> None:
    source = random.Random(6376)
    body = b"".join(source.choices([b"\r\n", b" ", b"\t ", b"text", b"\r", b"=C3=A9", b"x" * 70], k=60_000))
    chunks, position = [], 0
    while position < len(body):
        size = source.choice([1, 2, 3, 100, 4096, 65_536])
        chunks.append(body[position : position + size])
        position += size
    assert body_hash(*chunks) == hash_of(naive_relaxed(body))


@pytest.mark.parametrize(
    "filler", [b"\r\n", b" ", b" \t", b" \r\n"], ids=["empty lines", "spaces", "tabs", "blank lines"]
)
def test_memory_stays_at_a_chunk_while_white_space_waits(filler: bytes) -> None:
    chunk = filler * (65_536 // len(filler))
    body = BodyHash()
    tracemalloc.start()
    try:
        for _ in range(160):  # 10 MB
            body.update(chunk)
        body.update(b"end\r\n")
        body.digest()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
