"""How new mail reaches a client that waits: a hint, inotify, the rescan, other sessions; and that nothing is left over."""

import asyncio
import os
from pathlib import Path

import pytest

from services.imap import inotify as inotify_module
from services.imap import watch as watch_module
from services.imap.inotify import Inotify
from tests.unit.imap.imap_world import ANN, Client, World, run, until, world


async def idling(place: World) -> Client:
    client = await Client.logged_in(place.port, select="INBOX")
    client.send(b"i IDLE\r\n")
    assert await client.response() == b"+ idling\r\n"
    # IDLE begins with a look of its own; what comes after that has to be told by somebody.
    await until(lambda: not any(connection.busy for connection in place.desk.peers._open))  # type: ignore[attr-defined]
    return client


async def told(client: Client) -> bytes:
    return await asyncio.wait_for(client.response(), 1)  # the second


def test_a_hint_tells_a_waiting_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inotify, "add", lambda *_: -1)

    async def work() -> None:
        async with world(tmp_path) as place:
            client = await idling(place)
            place.deliver(b"Subject: new\r\n\r\n")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.readline(), 0.03)
            place.watches.hint(ANN, "INBOX")
            assert await told(client) == b"* 1 EXISTS\r\n"
            assert await told(client) == b"* 1 RECENT\r\n"
            (event,) = place.record.of("idle-notified")
            assert (event["account"], event["mailbox"], event["messages"]) == (ANN, "INBOX", 1)

    run(work())


def test_inotify_tells_of_what_any_program_does(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            client = await idling(place)
            place.deliver(b"Subject: new\r\n\r\n")
            assert await told(client) == b"* 1 EXISTS\r\n"
            await told(client)
            (file,) = (place.maildir() / "cur").iterdir()
            file.rename(file.with_name(file.name.partition(":")[0] + ":2,S"))
            assert await told(client) == b"* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent))\r\n"
            os.unlink(next((place.maildir() / "cur").iterdir()))
            assert await told(client) == b"* 1 EXPUNGE\r\n"

    run(work())


def test_the_rescan_finds_what_nobody_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inotify, "add", lambda *_: -1)
    monkeypatch.setattr(watch_module, "RESCAN_SECONDS", 0.01)

    async def work() -> None:
        async with world(tmp_path) as place:
            rescan = asyncio.create_task(place.watches.rescan())
            client = await idling(place)
            place.deliver(b"Subject: new\r\n\r\n")
            assert await told(client) == b"* 1 EXISTS\r\n"
            rescan.cancel()

    run(work())


def test_mail_that_comes_between_the_last_answer_and_idle_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inotify, "add", lambda *_: -1)

    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port, select="INBOX")
            place.deliver(b"Subject: new\r\n\r\n")
            client.send(b"i IDLE\r\n")
            assert await client.response() == b"+ idling\r\n"
            assert await told(client) == b"* 1 EXISTS\r\n"

    run(work())


def test_a_hundred_clients_are_told_and_leave_nothing_behind(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, max_connections_per_peer=200) as place:
            clients = [await idling(place) for _ in range(100)]
            assert len(place.watches) == 1
            place.deliver(b"Subject: new\r\n\r\n")
            assert set(await asyncio.gather(*map(told, clients))) == {b"* 1 EXISTS\r\n"}
            for client in clients[:50]:
                client.send(b"DONE\r\n")
            for client in clients[50:]:
                client.close()
            await until(lambda: not len(place.watches) and len(place.desk.peers) == 50)
            assert place.watches._inotify._callbacks == {}

    run(work())


def test_a_hint_for_an_open_account_makes_the_next_select_ready(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port)
            place.deliver(b"Subject: new\r\n\r\n", mailbox=".Junk")
            place.watches.hint(ANN, "Junk")
            await until(lambda: list((place.maildir(mailbox=".Junk") / "cur").iterdir()))
            assert b"* 1 EXISTS\r\n" in await client.ok("SELECT Junk")

    run(work())


def test_hints_for_strangers_and_for_what_is_not_there_do_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.watches.hint("nobody@example.test", "INBOX")
            client = await Client.logged_in(place.port)
            place.watches.hint(ANN, "Nothing")
            place.watches.hint(ANN, "../../etc")
            await client.ok("NOOP")
            await asyncio.sleep(0.01)
            assert place.record.of("bug") == []

    run(work())


def test_a_mailbox_deleted_under_idle_ends_the_session(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port)
            await client.ok("CREATE one")
            await client.ok("SELECT one")
            client.send(b"i IDLE\r\n")
            await client.response()
            other = await Client.logged_in(place.port)
            await other.ok("DELETE one")
            for watch in list(place.watches._watches.values()):
                place.watches._look(watch)
            assert await told(client) == b"* BYE the selected mailbox was deleted\r\n"
            await until(lambda: not len(place.watches))

    run(work())


def test_a_kernel_without_inotify_is_lived_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no libc")

    monkeypatch.setattr(inotify_module.ctypes, "CDLL", refused)

    async def work() -> None:
        inotify = Inotify()
        assert inotify.add(str(tmp_path), lambda: None) == -1
        inotify.close()

    run(work())


def test_inotify_reports_names_that_come_and_go_and_survives_an_overflow(tmp_path: Path) -> None:
    async def work() -> None:
        seen: list[str] = []
        inotify = Inotify()
        one, two = tmp_path / "one", tmp_path / "two"
        one.mkdir()
        two.mkdir()
        first = inotify.add(str(one), lambda: seen.append("one"))
        inotify.add(str(two), lambda: seen.append("two"))
        (one / "x").touch()
        await until(lambda: "one" in seen)
        assert "two" not in seen
        seen.clear()
        overflow = inotify_module._EVENT.pack(-1, inotify_module.IN_Q_OVERFLOW, 0, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inotify_module.os, "read", lambda *_: overflow)
            inotify._read()
        assert sorted(seen) == ["one", "two"]
        callback = next(iter(inotify._callbacks[first]))
        inotify.remove(first, callback)
        assert first not in inotify._callbacks
        inotify.close()

    run(work())
