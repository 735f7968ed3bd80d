"""A message as IMAP counts it: CRLF whatever the file has, any piece of it, small and large; bodies while they arrive."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage import body
from services.storage.body import Message, to_crlf
from services.storage.incoming import Incoming, copy_octets, unnamed_file

TEXTS = [
    (b"", b""),
    (b"a\r\nb\r\n", b"a\r\nb\r\n"),
    (b"a\nb\n", b"a\r\nb\r\n"),
    (b"a\r\nb\nc", b"a\r\nb\r\nc"),
    (b"\n\n", b"\r\n\r\n"),
    (b"\r\r\n\r", b"\r\r\n\r"),
    (b"\n\r", b"\r\n\r"),
    (b"no end", b"no end"),
]


def opened(folder: Path, text: bytes, virtual: int | None = None) -> Message:
    path = folder / "message"
    path.write_bytes(text)
    return Message(os.open(path, os.O_RDONLY), virtual=virtual)


@pytest.mark.parametrize(("text", "served"), TEXTS)
@pytest.mark.parametrize("small", [True, False])
def test_line_ends(folder: Path, text: bytes, served: bytes, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(body, "_SMALL", 0)
        monkeypatch.setattr(body, "_STEP", 2)
    with opened(folder, text) as message:
        assert message.size == len(served)
        assert message.bare_lf == (text != served)
        assert message.read() == served
        assert message.raw() == text
        assert (message.plain_file() >= 0) == (text == served)
        for offset in range(len(served) + 2):
            for length in range(len(served) + 2):
                assert message.read(offset, length) == served[offset : offset + length]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"bc", b"\r\n"]), max_size=60).map(b"".join), st.integers(1, 9))
def test_large_files_are_served_in_steps_of_any_size(text: bytes, step: int) -> None:
    served = to_crlf(text)
    descriptor = unnamed_file("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")
    os.write(descriptor, text)
    patch = pytest.MonkeyPatch()
    patch.setattr(body, "_SMALL", 0)
    patch.setattr(body, "_STEP", step)
    try:
        with Message(descriptor) as message:
            assert message.size == len(served)
            assert message.read() == served
            for offset in range(0, len(served), 3):
                assert message.read(offset, 5) == served[offset : offset + 5]
    finally:
        patch.undo()


def test_a_size_that_the_name_promises_wrongly_is_not_believed(folder: Path) -> None:
    with opened(folder, b"a\nb\n", virtual=5) as message:
        assert (message.size, message.read()) == (6, b"a\r\nb\r\n")


def test_a_promised_size_saves_reading_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "bare_feeds", lambda *_: pytest.fail("the file was read to count its lines"))
    with opened(folder, b"a\r\nb\r\n", virtual=6) as message:
        assert message.size == 6


def test_a_part_is_a_message_of_its_own(folder: Path) -> None:
    with opened(folder, b"head\n\none\ntwo\nend") as message:
        part = message.part(6, 14)
        assert (part.size, part.raw_size, part.read(), part.raw()) == (10, 8, b"one\r\ntwo\r\n", b"one\ntwo\n")
        assert part.read(4, 3) == b"\ntw"
        assert part.plain_file() == -1
        part.close()
        assert message.read(0, 4) == b"head", "a part does not close its message"
        assert message.part(14, 99).read() == b"end"
        assert message.part(99, 200).read() == b""


def test_a_file_cut_short_under_us_ends(folder: Path) -> None:
    path = folder / "message"
    path.write_bytes(b"x" * 10_000)
    with Message(os.open(path, os.O_RDONLY), virtual=10_000) as message:
        os.truncate(path, 100)
        assert message.read() == b"x" * 100  # an error to the session, not a signal that kills the process


# --- Incoming


def spilled(folder: Path, pieces: list[bytes], limit: int = 10) -> Incoming:
    incoming = Incoming(str(folder), limit)

    async def write() -> None:
        for piece in pieces:
            incoming.write(piece)
            await incoming.drain()

    asyncio.run(write())
    return incoming


@pytest.mark.parametrize(
    ("pieces", "in_file"),
    [([], False), ([b"abc"], False), ([b"abc"] * 3, False), ([b"abcd"] * 3, True), ([b"x" * 300_000, b"y"], True)],
)
def test_a_body_is_in_memory_or_in_a_file(folder: Path, pieces: list[bytes], in_file: bool) -> None:
    incoming = spilled(folder, pieces)
    text = b"".join(pieces)
    assert incoming.in_file is in_file
    assert incoming.size == len(text)
    for length in (0, 1, 2, 5, 12, 400_000):
        assert incoming.head(length) == text[:length]
    assert b"".join(incoming.chunks(7)) == text
    target = os.open(folder / "out", os.O_RDWR | os.O_CREAT)
    incoming.copy_to(target, b"before")
    incoming.copy_to(target)
    assert os.pread(target, 1_000_000, 0) == b"before" + text + text
    os.close(target)
    assert os.listdir(folder) == ["out"], "the file has no name"
    incoming.close()
    incoming.close()


def test_a_writer_that_never_drains_does_not_fill_memory(folder: Path) -> None:
    incoming = Incoming(str(folder), 10)
    for _ in range(100):
        incoming.write(b"12345")
        assert incoming._pending_size <= 40
    assert incoming.in_file
    assert b"".join(incoming.chunks()) == b"12345" * 100
    incoming.close()


def test_an_aborted_body_frees_its_file(folder: Path) -> None:
    gc.collect()  # what other tests forgot is not counted here
    before = len(os.listdir("/proc/self/fd"))
    incoming = spilled(folder, [b"x" * 100])
    assert len(os.listdir("/proc/self/fd")) == before + 1
    incoming.abort()
    assert len(os.listdir("/proc/self/fd")) == before
    forgotten = spilled(folder, [b"x" * 100])
    del forgotten
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_held_body_outlives_its_close(folder: Path) -> None:
    incoming = Incoming(str(folder))
    incoming.write(b"text")
    incoming.hold()
    incoming.close()
    assert list(incoming.chunks()) == [b"text"]
    incoming.release()
    assert list(incoming.chunks()) == []


def test_a_closed_body_is_never_copied_as_an_empty_one(folder: Path) -> None:
    incoming = Incoming(str(folder))
    incoming.write(b"text")
    incoming.close()
    target = unnamed_file(str(folder))
    with pytest.raises(OSError, match="closed"):
        incoming.copy_to(target, b"header")
    os.close(target)


def test_a_large_body_gets_a_name_without_a_copy(folder: Path) -> None:
    incoming = spilled(folder, [b"x" * 100])
    here = os.open(folder, os.O_RDONLY)
    assert incoming.link_to(here, "named")
    assert os.stat(folder / "named").st_ino == os.fstat(incoming.descriptor()).st_ino
    small = Incoming(str(folder))
    small.write(b"x")
    assert not small.link_to(here, "other")
    os.close(here)
    incoming.close()


def test_many_small_pieces(folder: Path) -> None:
    incoming = Incoming(str(folder))
    for _ in range(3000):  # more than one writev takes
        incoming.write(b"ab")
    target = unnamed_file(str(folder))
    incoming.copy_to(target, b"-")
    assert os.pread(target, 10_000, 0) == b"-" + b"ab" * 3000
    os.close(target)
    incoming.close()


def test_where_the_kernel_cannot_copy_python_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(18, "EXDEV")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    source, target = unnamed_file(str(folder)), unnamed_file(str(folder))
    os.write(source, b"x" * 3_000_000)
    copy_octets(source, target, 3_000_000)
    assert os.fstat(target).st_size == 3_000_000
    with pytest.raises(OSError, match="shorter"):
        copy_octets(source, target, 3_000_001)
    os.close(source)
    os.close(target)


def test_without_unnamed_files_a_name_is_made_and_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def old(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "EOPNOTSUPP")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", old)
    descriptor = unnamed_file(str(folder))
    assert os.listdir(folder) == []
    os.write(descriptor, b"x")
    os.close(descriptor)


@given(
    text=st.binary(max_size=60),
    cuts=st.lists(st.tuples(st.integers(0, 70), st.binary(max_size=20)), min_size=1, max_size=3),
    limit=st.sampled_from([5, 1000]),
    lag=st.integers(0, 20),
)
def test_the_front_of_a_body_is_replaced(
    text: bytes, cuts: list[tuple[int, bytes]], limit: int, lag: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever the octets lie, every way of reading them gives the new front and the old rest."""
    folder = tmp_path_factory.mktemp("front")
    incoming = spilled(folder, [text[:-lag] if lag else text], limit)
    if lag:
        incoming.write(text[-lag:])  # still in memory
    wanted = text
    for octets, front in cuts:
        if octets > len(wanted):
            with pytest.raises(ValueError, match="cannot be replaced"):
                incoming.replace_front(octets, front)
            continue
        incoming.replace_front(octets, front)
        wanted = front + wanted[octets:]
        assert incoming.size == len(wanted)
        assert b"".join(incoming.chunks(7)) == wanted
        assert incoming.head(9) == wanted[:9]
    target = unnamed_file(str(folder))
    incoming.copy_to(target, b"before")
    assert os.pread(target, 1000, 0) == b"before" + wanted
    os.close(target)
    here = os.open(folder, os.O_RDONLY)
    if incoming.link_to(here, "named"):
        assert (folder / "named").read_bytes() == wanted
    os.close(here)
    incoming.close()
