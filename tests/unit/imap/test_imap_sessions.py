"""Several sessions on one account, and what each is told when; octets kept; large messages and slow readers."""

import asyncio
import os
import random
import resource
from pathlib import Path

import pytest

from services.imap import connection as connection_module
from services.imap import wire as wire_module
from services.storage.incoming import Incoming
from services.storage.mailbox import Mailbox
from tests.unit.imap.imap_world import ANN, BOB, Client, World, letters, run, until, world


def test_a_message_comes_back_octet_by_octet(tmp_path: Path) -> None:
    """What arrived is what FETCH gives: any octets with CRLF, delivered or appended, whole and in pieces."""
    source = random.Random(7)
    odd = b"Subject: odd\r\n\r\n" + bytes(source.randrange(1, 256) for _ in range(3000)).replace(b"\n", b"").replace(
        b"\r", b""
    )
    messages = [odd + b"\r\n", b"\r\n", b"X: y\r\n\r\n" + b"line\r\n" * 20_000, b"no line end"]

    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port, select="INBOX")
            for message in messages:
                await client.append(message)
            for message in messages:
                place.deliver(message)
            await client.ok("NOOP")
            for number, message in enumerate([*messages, *messages], 1):
                (answer,) = await client.ok(f"FETCH {number} (RFC822.SIZE BODY.PEEK[])")
                head = b"* %d FETCH (RFC822.SIZE %d BODY[] {%d}\r\n" % (number, len(message), len(message))
                assert answer == head + message + b")\r\n"
                if len(message) > 10:
                    first = len(message) // 3
                    (answer,) = await client.ok(f"FETCH {number} BODY.PEEK[]<{first}.{first}>")
                    assert message[first : 2 * first] in answer

    run(work())


def test_a_file_with_bare_line_feeds_is_served_with_crlf(tmp_path: Path) -> None:
    raw = b"Subject: lf\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\nline\n--b\n\ntwo\n--b--\n"
    served = raw.replace(b"\n", b"\r\n")

    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(raw)
            client = await Client.logged_in(place.port, select="INBOX")
            (answer,) = await client.ok(
                "FETCH 1 (RFC822.SIZE BODY.PEEK[1] BODY.PEEK[2] BODY.PEEK[] BODY.PEEK[]<40.30>)"
            )
            assert answer == (
                b"* 1 FETCH (RFC822.SIZE %d BODY[1] {9}\r\none\r\nline BODY[2] {3}\r\ntwo BODY[] {%d}\r\n%s"
                b" BODY[]<40> {30}\r\n%s)\r\n" % (len(served), len(served), served, served[40:70])
            )

    run(work())


def test_ten_clients_fetch_a_large_message_in_little_memory(tmp_path: Path) -> None:
    size = 20_000_000
    message = b"Subject: large\r\n\r\n" + b"x" * (size - 20) + b"\r\n"

    async def read_slowly(client: Client) -> int:
        client.send(b"f FETCH 1 BODY.PEEK[]\r\n")
        got = 0
        while got < size:
            got += len(await client.reader.read(1 << 16))
            await asyncio.sleep(0)
        return got

    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(message)
            one = await Client.logged_in(place.port, select="INBOX")
            await one.ok("FETCH 1 RFC822.SIZE")
            clients = []
            for _ in range(10):
                client = await Client.logged_in(place.port)
                await client.ok("EXAMINE INBOX")
                client.reader._limit = 1 << 16  # type: ignore[attr-defined]
                clients.append(client)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert all(got >= size for got in await asyncio.gather(*map(read_slowly, clients)))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 60_000, f"{grown} KiB for ten clients of a {size // 1000} kB message"

    run(work())


def test_a_large_append_goes_to_disk_as_it_comes(tmp_path: Path) -> None:
    size = 30_000_000

    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            client.send(b"a APPEND INBOX {%d+}\r\n" % size)
            piece = b"y" * 99_998 + b"\r\n"
            for _ in range(size // len(piece)):
                client.send(piece)
                await client.writer.drain()
            client.send(b"\r\n")
            assert b"APPENDUID" in (await client.until(b"a"))[-1]
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000
            (file,) = (place.maildir() / "cur").iterdir()
            assert file.stat().st_size == size

    run(work())


def test_a_reader_that_does_not_read_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "STALL_SECONDS", 0.0)

    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(b"x" * 8_000_000)
            client = await Client.logged_in(place.port, select="INBOX")
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(b"a FETCH 1 BODY.PEEK[]\r\n")
            (connection,) = place.desk.peers._open
            await until(lambda: connection.wire.congested)  # type: ignore[attr-defined]
            now = place.desk.loop.time() + 1
            connection.sweep(now)  # notes how much is unsent
            connection.sweep(now + 1)
            assert place.record.of("disconnect")[0]["reason"] == "the client does not read what it asked for"
            await until(lambda: not len(place.desk.peers))

    run(work())


def test_silence_ends_a_connection_before_and_after_the_login(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            stranger = await Client.connect(place.port)
            await stranger.response()
            member = await Client.logged_in(place.port)
            connections = list(place.desk.peers._open)
            now = place.desk.loop.time()
            for connection in connections:
                connection.sweep(now + place.settings.imap_login_timeout + 1)
            assert await stranger.response() == b"* BYE too long without a log-in\r\n"
            await member.ok("NOOP")
            for connection in connections:
                connection.sweep(now + place.settings.imap_idle_timeout - 60)
            await member.ok("NOOP")
            for connection in connections:
                connection.sweep(now + place.settings.imap_idle_timeout + 60)
            assert await member.response() == b"* BYE too long without a command\r\n"

    run(work())


def test_other_accounts_do_not_see_each_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(b"Subject: for ann\r\n\r\n")
            ann = await Client.logged_in(place.port, ANN, select="INBOX")
            bob = await Client.logged_in(place.port, BOB, select="INBOX")
            assert b"* SEARCH 1\r\n" in await ann.ok("SEARCH ALL")
            assert b"* SEARCH\r\n" in await bob.ok("SEARCH ALL")
            assert (await bob.refused("SELECT ../ann")).startswith(b"NO [CANNOT]")

    run(work())


def test_sessions_in_step_share_one_list_of_uids(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            for message in letters(5):
                place.deliver(message)
            clients = [await Client.logged_in(place.port, select="INBOX") for _ in range(3)]
            views = [connection.session.selected for connection in place.desk.peers._open]  # type: ignore[attr-defined]
            assert len({id(view.uids) for view in views}) == 1
            place.deliver(b"one more\r\n")
            for client in clients:
                assert b"* 6 EXISTS\r\n" in await client.ok("NOOP")
            assert len({id(view.uids) for view in views}) == 1

    run(work())


def test_random_commands_of_three_sessions_keep_every_picture_true(tmp_path: Path) -> None:
    """Each client keeps its own picture from what it is told; whenever it asks, the server's answer must be the same."""
    source = random.Random(11)

    class Picture:
        def __init__(self) -> None:
            self.uids: list[int | None] = []
            self.flags: dict[int, set[bytes]] = {}

        def take(self, responses: list[bytes]) -> None:
            for response in responses:
                words = response.split()
                if words[-1] == b"EXISTS":
                    self.uids += [None] * (int(words[1]) - len(self.uids))
                elif words[-1] == b"EXPUNGE":
                    del self.uids[int(words[1]) - 1]
                elif len(words) > 2 and words[2] == b"FETCH":
                    number = int(words[1]) - 1
                    if b"UID " in response:
                        uid = int(response.split(b"UID ")[1].split()[0].strip(b")"))
                        assert self.uids[number] in (None, uid)
                        self.uids[number] = uid
                    known = self.uids[number]
                    if known is not None and b"FLAGS" in response:
                        flags = response.split(b"FLAGS (")[1].split(b")")[0].split()
                        self.flags[known] = set(flags) - {b"\\Recent"}

    async def step(client: Client, picture: Picture) -> None:
        count = len(picture.uids)
        low, high = sorted((source.randint(1, count or 1), source.randint(1, count or 1)))
        choices = [
            "APPEND INBOX (\\Seen) {3+}\r\nabc",
            "APPEND INBOX {3+}\r\nabc",
            f"STORE {low}:{high} +FLAGS (\\Deleted)",
            f"STORE {low} -FLAGS (\\Deleted \\Seen)",
            f"STORE {low}:{high} +FLAGS (\\Flagged)",
            "EXPUNGE",
            f"FETCH {low}:{high} (UID FLAGS)",
            f"SEARCH {low}:{high}",
            "NOOP",
            f"COPY {low} INBOX",
            f"MOVE {high} INBOX",
        ]
        command = source.choice(choices if count else [choices[0], choices[8]])
        responses = await client.command(command)
        picture.take(responses[:-1])
        assert responses[-1].split()[1] == b"OK" or b"EXPUNGEISSUED" in responses[-1], (command, responses)
        if command == "NOOP":
            told = await client.ok("UID FETCH 1:* (FLAGS)")
            shown = Picture()
            shown.uids = [None] * len(picture.uids)
            shown.take([response for response in told if b"FETCH" in response])
            assert None not in shown.uids
            known = [uid for uid in picture.uids if uid is not None]
            assert [uid for uid in shown.uids if uid in known] == known
            for uid in known:
                if uid in picture.flags:
                    assert picture.flags[uid] == shown.flags[uid]
            picture.take(told)

    async def work() -> None:
        async with world(tmp_path) as place:
            members = []
            for _ in range(3):
                client = await Client.logged_in(place.port)
                picture = Picture()
                picture.take(await client.ok("SELECT INBOX"))
                members.append((client, picture))
            for _ in range(250):
                await step(*source.choice(members))
            for client, picture in members:
                picture.take(await client.ok("NOOP"))
                picture.take(await client.ok("FETCH 1:* (UID FLAGS)") if picture.uids else [])
            assert members[0][1].uids == members[1][1].uids == members[2][1].uids

    run(work())


def test_a_long_answer_lets_other_sessions_of_the_account_through(tmp_path: Path) -> None:
    """No session holds the account while its client reads: a second one is answered in the middle of a large FETCH."""

    async def work() -> None:
        async with world(tmp_path) as place:
            for number in range(3):
                place.deliver(b"%d" % number + b"z" * 4_000_000)
            slow = await Client.logged_in(place.port, select="INBOX")
            quick = await Client.logged_in(place.port, select="INBOX")
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.send(b"a FETCH 1:3 BODY.PEEK[]\r\n")
            await asyncio.wait_for(quick.ok("STORE 2 +FLAGS (\\Deleted)"), 5)
            await asyncio.wait_for(quick.ok("EXPUNGE"), 5)
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            responses = await slow.until(b"a")
            # What was being read is finished, what is gone by then is left out and said.
            assert responses[0].startswith(b"* 1 FETCH (BODY[] {4000001}")
            assert responses[-1].startswith((b"a NO [EXPUNGEISSUED]", b"a OK"))

    run(work())


def test_a_disconnect_in_the_middle_of_an_append_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port)
            client.send(b"a APPEND INBOX {1000000+}\r\n" + b"x" * 500_000)
            await client.writer.drain()
            await asyncio.sleep(0.02)
            client.close()
            await until(lambda: not len(place.desk.peers))
            assert [path for path in place.maildir().rglob("*") if path.is_file() and "cur" in path.parts] == []
            assert list((place.maildir() / "tmp").iterdir()) == []
            account = place.accounts.get(ANN)
            assert account is not None and account.users == 0

    run(work())


def test_our_own_fault_is_recorded_and_named_by_its_id_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Mailbox, *_: object, **__: object) -> None:
        raise RuntimeError("with details that are nobody's business")

    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(b"x\r\n")
            client = await Client.logged_in(place.port, select="INBOX")
            with monkeypatch.context() as patch:
                patch.setattr(Mailbox, "store", broken)
                answer = await client.refused("STORE 1 +FLAGS (\\Seen)")
            await asyncio.sleep(0)
            (bug,) = place.record.of("bug")
            assert answer == b"NO [SERVERBUG] internal error %s\r\n" % bug["trace"].encode()
            assert "nobody's business" in bug["reason"]
            await client.ok("NOOP")

    run(work())


def test_a_disk_that_fails_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(b"x\r\n")
            client = await Client.logged_in(place.port, select="INBOX")
            for number, start in ((5, b"NO [UNAVAILABLE] "), (28, b"NO [OVERQUOTA] the disk is full")):
                with monkeypatch.context() as patch:
                    patch.setattr(
                        Mailbox, "store", lambda *_, number=number, **__: (_ for _ in ()).throw(OSError(number, "x"))
                    )
                    assert (await client.refused("STORE 1 +FLAGS (\\Seen)")).startswith(start)
            await client.ok("NOOP")

    run(work())


def test_a_message_file_that_vanishes_is_left_out(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            for message in letters(3):
                place.deliver(message)
            client = await Client.logged_in(place.port, select="INBOX")
            os.unlink(sorted((place.maildir() / "cur").iterdir())[1])
            responses = await client.command("FETCH 1:3 (UID BODY.PEEK[])")
            assert [r.split()[1] for r in responses if b"FETCH (" in r] == [b"1", b"3"]
            assert responses[-1].split()[1:3] == [b"NO", b"[EXPUNGEISSUED]"]
            assert b"* 2 EXPUNGE\r\n" in await client.ok("NOOP")

    run(work())


@pytest.mark.parametrize(("quota", "size", "code"), [(1000, 900, b"OK"), (1000, 1100, b"[OVERQUOTA]")])
def test_quota(tmp_path: Path, quota: int, size: int, code: bytes) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.directory.set(ANN, quota_bytes=quota)
            client = await Client.logged_in(place.port)
            answer = (await client.command(b"APPEND INBOX {%d+}\r\n%s" % (size, b"x" * size)))[-1]
            assert code in answer
            if code == b"OK":
                await client.ok("SELECT INBOX")
                assert (await client.refused("COPY 1 Trash")).startswith(b"NO [OVERQUOTA]")

    run(work())


def test_below_the_disk_reserve_nothing_is_added_but_all_else_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, disk_reserve_percent=100, disk_reserve_bytes=1 << 60) as place:
            place.deliver(b"x\r\n")
            client = await Client.logged_in(place.port, select="INBOX")
            assert (await client.refused(b"APPEND INBOX {3+}\r\nabc")).startswith(b"NO [OVERQUOTA]")
            await client.ok("STORE 1 +FLAGS (\\Deleted)")
            await client.ok("EXPUNGE")

    run(work())


def test_the_thread_is_given_up_between_chunks() -> None:
    steps = iter([b"x" * connection_module.CHUNK, b"y"])
    assert connection_module._advance(steps) == (b"x" * connection_module.CHUNK, False)
    assert connection_module._advance(steps) == (b"y", True)


def test_stopping_says_bye(tmp_path: Path) -> None:
    async def work() -> bytes:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port)
        return await client.response()

    assert run(work()) == b"* BYE [UNAVAILABLE] the server is going down\r\n"


def test_a_world_can_be_opened_again(tmp_path: Path) -> None:
    """UIDs, flags and keywords survive a restart; so does the mailbox's validity."""

    async def first(place: World) -> list[bytes]:
        client = await Client.logged_in(place.port)
        for message in letters(3):
            await client.append(message)
        await client.ok("SELECT INBOX")
        await client.ok("STORE 2 +FLAGS (\\Seen work)")
        await client.ok("STORE 1 +FLAGS (\\Deleted)")
        await client.ok("EXPUNGE")
        return await client.ok("STATUS INBOX (UIDVALIDITY UIDNEXT MESSAGES)")

    async def work() -> None:
        async with world(tmp_path) as place:
            status = await first(place)
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port)
            assert await client.ok("STATUS INBOX (UIDVALIDITY UIDNEXT MESSAGES)") == status
            await client.ok("SELECT INBOX")
            assert await client.ok("FETCH 1:* (UID FLAGS)") == [
                b"* 1 FETCH (UID 2 FLAGS (\\Seen work))\r\n",
                b"* 2 FETCH (UID 3 FLAGS ())\r\n",
            ]

    run(work())


def test_fetching_a_few_of_many_finds_their_cached_answers(tmp_path: Path) -> None:
    """Few UIDs out of a range once found nothing: keys and UIDs were compared."""

    async def work() -> None:
        async with world(tmp_path) as place:
            for message in letters(9):
                place.deliver(message)
            client = await Client.logged_in(place.port, select="INBOX")
            for _ in range(2):
                answers = await client.ok("FETCH 1,5,7 (UID RFC822.SIZE)")
                assert [answer.split()[1] for answer in answers] == [b"1", b"5", b"7"]

    run(work())


def test_a_disk_that_fills_while_a_message_arrives_refuses_that_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Incoming) -> None:
        raise OSError(28, "No space left on device")

    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port)
            with monkeypatch.context() as patch:
                patch.setattr(Incoming, "flush", full)
                answer = await client.refused(b"APPEND INBOX {2000000+}\r\n" + b"x" * 2_000_000)
            assert answer == b"NO [OVERQUOTA] the disk is full\r\n"
            await client.append(b"a small one\r\n")
            assert b"* STATUS INBOX (MESSAGES 1)\r\n" in await client.ok("STATUS INBOX (MESSAGES)")

    run(work())


def test_a_store_closed_under_a_session_ends_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port, select="INBOX")
            await place.accounts.shut(ANN)
            client.send(b"a NOOP\r\n")
            assert await client.response() == b"* BYE the account was closed\r\n"
            again = await Client.logged_in(place.port, select="INBOX")
            await again.ok("NOOP")
            assert place.record.of("bug") == []

    run(work())
