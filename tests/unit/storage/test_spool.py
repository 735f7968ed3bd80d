"""The spool: drafts become whole files, whatever their size, and nothing half-written survives a start."""

import asyncio
import os
from pathlib import Path

import pytest

from services.storage.spool import HeaderTooLong, Spool, Spooled, SpoolOwned

HEADER = b"Received: by us\r\nSubject: x\r\n\r\n"


async def received(spool: Spool, name: str, body: list[bytes], header: bytes = HEADER, room: int = 9000) -> Spooled:
    draft = spool.draft(name, room=room)
    for chunk in body:
        draft.write(chunk)
        await draft.drain()
    await draft.settle()
    return await draft.commit(header)


async def whole(spool: Spool, spooled: Spooled) -> bytes:
    return b"".join([chunk async for chunk in spool.chunks(spooled)])


BODIES = {
    "empty": [],
    "short": [b"hello\r\n"],
    "just below a write": [b"x" * (1 << 18 - 1)],
    "written once": [b"y" * (1 << 18), b"tail\r\n"],
    "written often": [bytes([65 + i]) * 300_000 for i in range(5)],
    "chunks of one octet": [b"z"] * 500,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_message_is_read_as_it_came(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(str(tmp_path))
        spooled = await received(spool, "a", BODIES[name])
        expected = HEADER + b"".join(BODIES[name])
        assert spooled.size == len(expected)
        assert await whole(spool, spooled) == expected
        assert spool.header(spooled) == HEADER
        assert list(spool.names()) == ["a"] and os.listdir(tmp_path / "tmp") == []
        spool.close()

    asyncio.run(run())


def test_the_watcher_sees_the_body_once_and_in_order(tmp_path: Path) -> None:
    async def run() -> None:
        spool, seen = Spool(str(tmp_path)), []
        draft = spool.draft("a", room=100, watch=seen.append)
        for chunk in [b"1" * 200_000, b"2" * 200_000, b"3" * 70_000]:
            draft.write(chunk)
            await draft.drain()
        await draft.settle()
        assert b"".join(seen) == b"1" * 200_000 + b"2" * 200_000 + b"3" * 70_000
        draft.abort()
        spool.close()

    asyncio.run(run())


def test_a_header_larger_than_its_room_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(str(tmp_path))
        with pytest.raises(HeaderTooLong):
            await received(spool, "a", [b"x" * 300_000], header=b"h" * 5000, room=4096)
        assert os.listdir(tmp_path / "tmp") == os.listdir(tmp_path / "msg") == []
        spool.close()

    asyncio.run(run())


def test_an_aborted_draft_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(str(tmp_path))
        draft = spool.draft("a")
        draft.write(b"x" * 400_000)
        await draft.drain()
        assert os.listdir(tmp_path / "tmp") == ["a"]
        draft.abort()
        draft.abort()
        assert os.listdir(tmp_path / "tmp") == []
        spool.close()

    asyncio.run(run())


def test_a_name_is_never_overwritten(tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(str(tmp_path))
        first = await received(spool, "a", [b"first"])
        with pytest.raises(FileExistsError):
            await received(spool, "a", [b"second"])
        assert await whole(spool, first) == HEADER + b"first" and os.listdir(tmp_path / "tmp") == []
        spool.close()

    asyncio.run(run())


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        spool = Spool(str(tmp_path))

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("services.storage.spool.os.pwrite", full)
        with pytest.raises(OSError, match="No space"):
            await received(spool, "a", [b"x"])
        assert os.listdir(tmp_path / "tmp") == os.listdir(tmp_path / "msg") == []
        spool.close()

    asyncio.run(run())


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr("services.storage.spool.os.pwrite", lambda fd, data, at: real(fd, bytes(data)[:7], at))

    async def run() -> None:
        spool = Spool(str(tmp_path))
        spooled = await received(spool, "a", [b"0123456789" * 20])
        assert await whole(spool, spooled) == HEADER + b"0123456789" * 20
        spool.close()

    asyncio.run(run())


def test_one_owner(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    with pytest.raises(SpoolOwned):
        Spool(str(tmp_path))
    spool.close()
    Spool(str(tmp_path)).close()


def test_the_start_removes_what_was_being_received(tmp_path: Path) -> None:
    Spool(str(tmp_path)).close()
    (tmp_path / "tmp" / "half").write_bytes(b"From: a")
    Spool(str(tmp_path)).close()
    assert os.listdir(tmp_path / "tmp") == []


def test_a_file_that_lost_its_end_is_not_sent_as_if_whole(tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(str(tmp_path))
        spooled = await received(spool, "a", [b"0123456789"])
        os.truncate(tmp_path / "msg" / "a", 20)
        with pytest.raises(EOFError):
            await whole(spool, spooled)
        spool.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"A: 1\r\n\r\nbody", b"A: 1\r\n\r\n"),
        (b"A: 1\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n\r\n"),
        (b"A: " + b"x" * 70_000 + b"\r\n\r\n", b"\r\n"),
    ],
)
def test_the_header_for_a_report(content: bytes, header: bytes, tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(str(tmp_path))
        assert spool.header(await received(spool, "a", [content], header=b"")) == header
        assert spool.header(Spooled("gone", 0, 1)) == b""
        spool.close()

    asyncio.run(run())
