"""Delivery: what commit answers, what is on the disk then, by whom it may be read; exactly once."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.storage.delivery import Delivered, Deliveries, Failed, disk_reserve
from services.storage.errors import BadName, MailboxMissing
from services.storage.group_commit import GroupCommit
from services.storage.provision import MODES, ROOT_MODE, provision, purge, purge_retired, retire
from services.storage.staging import file_system, once_key
from tests.mail_volume import ANNA, House, files

BODY = b"Subject: x\r\n\r\nbody\r\n"
HEADER = b"Return-Path: <>\r\n"
Step = Callable[[Deliveries], Awaitable[None]]


def run(mail: str, *steps: Step, **options: object) -> None:
    async def all_steps() -> None:
        deliveries = Deliveries(mail, **options)  # type: ignore[arg-type]
        await deliveries.start()
        for step in steps:
            await step(deliveries)
        await deliveries.close()

    asyncio.run(all_steps())


async def deliver(
    deliveries: Deliveries,
    *recipients: tuple[str, str, str],
    trace: str = "trace",
    once: bool = False,
    body: bytes = BODY,
    limit: int = 262_144,
) -> list[Delivered | Failed]:
    sink = deliveries.incoming(limit)
    sink.write(body)
    await sink.drain()
    delivery = deliveries.begin(trace, once=once)
    for address, account, mailbox in recipients or ((ANNA, ANNA, "INBOX"),):
        await delivery.add_recipient(address, account, HEADER, mailbox)
    await delivery.body(sink)
    results = await delivery.commit()
    sink.close()
    return results


def staged(house: House) -> list[str]:
    incoming = house.base / "mail/.incoming"
    return [name for name in files(incoming) if name not in ("once", "done")] + files(incoming / "once")


@pytest.mark.parametrize("limit", [262_144, 4])
@pytest.mark.parametrize("once", [False, True])
def test_a_message_is_in_each_mailbox_whole(house: House, limit: int, once: bool) -> None:
    provision(house.mail, "bert@family.example")

    async def step(deliveries: Deliveries) -> None:
        results = await deliver(
            deliveries,
            ("info@family.example", ANNA, "INBOX"),
            ("nobody@family.example", "nobody@family.example", "INBOX"),
            (ANNA, ANNA, "Junk"),
            (ANNA.replace("anna", "bert"), "bert@family.example", "INBOX"),
            limit=limit,
            once=once,
        )
        assert [type(result).__name__ for result in results] == ["Delivered", "Failed", "Delivered", "Delivered"]
        assert isinstance(results[1], Failed)
        assert isinstance(results[1].error, MailboxMissing)
        assert isinstance(results[0], Delivered)
        assert (results[0].address, results[0].account) == ("info@family.example", ANNA)
        for result, where in zip(
            (results[0], results[2], results[3]), ("anna/new", "anna/.Junk/new", "bert/new"), strict=True
        ):
            assert isinstance(result, Delivered)
            path = house.base / "mail/family.example" / where / result.name
            assert path.read_bytes() == HEADER + BODY
            assert f",S={len(HEADER + BODY)},W={len(HEADER + BODY)}" in result.name
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_nlink == 1
        assert staged(house) == []

    run(house.mail, step)


def test_modes_hold_whatever_the_umask(house: House) -> None:
    async def step(deliveries: Deliveries) -> None:
        (result,) = await deliver(deliveries)
        assert isinstance(result, Delivered)
        assert stat.S_IMODE((house.maildir / "new" / result.name).stat().st_mode) == 0o660

    before = os.umask(0o077)
    try:
        run(house.mail, step)
    finally:
        os.umask(before)


def test_the_same_delivery_once(house: House) -> None:
    async def step(deliveries: Deliveries) -> None:
        first = await deliver(deliveries, once=True)
        again = await deliver(deliveries, once=True)
        both = await asyncio.gather(*(deliver(deliveries, trace="two", once=True) for _ in range(5)))
        other = await deliver(deliveries, ("other@family.example", ANNA, "INBOX"), once=True)
        plain = await deliver(deliveries)
        assert [first[0].duplicate, again[0].duplicate, other[0].duplicate, plain[0].duplicate] == [0, 1, 0, 0]  # type: ignore[union-attr]
        assert sorted(result[0].duplicate for result in both) == [False, True, True, True, True]  # type: ignore[union-attr]
        assert again[0].name == ""  # type: ignore[union-attr]
        assert len(files(house.maildir / "new")) == 4

    async def after_restart(deliveries: Deliveries) -> None:
        assert (await deliver(deliveries, once=True))[0].duplicate  # type: ignore[union-attr]
        assert len(files(house.maildir / "new")) == 4

    run(house.mail, step)
    run(house.mail, after_restart)


def test_notes_of_deliveries_are_forgotten_after_14_days(house: House) -> None:
    now = [os.stat(house.mail).st_mtime]

    async def first(deliveries: Deliveries) -> None:
        await deliver(deliveries, once=True)

    async def later(deliveries: Deliveries) -> None:
        now[0] += 13 * 86_400
        assert (await deliver(deliveries, once=True))[0].duplicate  # type: ignore[union-attr]
        await asyncio.sleep(0.02)
        assert files(house.base / "mail/.incoming/done")

    run(house.mail, first, later, clock=lambda: now[0])
    now[0] += 2 * 86_400
    run(house.mail, clock=lambda: now[0])
    assert files(house.base / "mail/.incoming/done") == []


@pytest.mark.parametrize("delivered", [True, False])
def test_a_crash_between_link_and_note_is_decided_by_the_second_name(house: House, delivered: bool) -> None:
    run(house.mail)
    incoming = house.base / "mail/.incoming"
    key = once_key("trace", ANNA)
    (incoming / "once" / key).write_bytes(BODY)
    if delivered:
        os.link(incoming / "once" / key, house.maildir / "new/1.M1.x")

    async def retry(deliveries: Deliveries) -> None:
        assert staged(house) == []
        (result,) = await deliver(deliveries, once=True)
        assert isinstance(result, Delivered)
        assert result.duplicate is delivered
        assert len(files(house.maildir / "new")) == 1

    run(house.mail, retry)


def test_a_retry_after_a_failed_fsync_is_decided_without_a_restart(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failing = os.fsync, []

    def fsync(descriptor: int) -> None:
        if failing and os.readlink(f"/proc/self/fd/{descriptor}").endswith("/done"):
            raise OSError(errno.EIO, "the disk failed")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    async def step(deliveries: Deliveries) -> None:
        failing.append(True)
        (result,) = await deliver(deliveries, once=True)
        assert isinstance(result, Failed)  # linked, but the note is not on the disk
        failing.clear()
        (result,) = await deliver(deliveries, once=True)
        assert isinstance(result, Delivered)
        assert result.duplicate
        assert len(files(house.maildir / "new")) == 1

    run(house.mail, step)


def test_leftovers_go_at_start(house: House) -> None:
    run(house.mail)
    (house.base / "mail/.incoming/1.M1.x").write_bytes(b"half")
    run(house.mail)
    assert staged(house) == []


def test_another_worker_leaves_our_files_alone(house: House) -> None:
    async def with_two(deliveries: Deliveries) -> None:
        (house.base / "mail/.incoming/1.M1.x").write_bytes(b"being written")
        (house.base / "mail/.incoming/once/key").write_bytes(b"being written")
        other = Deliveries(house.mail)
        await other.start()
        await other.close()
        assert staged(house) == ["1.M1.x", "key"]

    run(house.mail, with_two)


def test_errors_of_one_recipient_are_its_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    provision(house.mail, "bert@family.example")
    real = os.rename

    def rename(*paths: object, **folders: int) -> None:
        if os.readlink(f"/proc/self/fd/{folders['dst_dir_fd']}").endswith("bert/new"):
            raise OSError(errno.EIO, "the disk failed")
        real(*paths, **folders)  # type: ignore[arg-type]

    async def step(deliveries: Deliveries) -> None:
        monkeypatch.setattr(os, "rename", rename)
        results = await deliver(
            deliveries, (ANNA, ANNA, "INBOX"), ("b", "bert@family.example", "INBOX"), (ANNA, ANNA, "Sent")
        )
        assert [type(result).__name__ for result in results] == ["Delivered", "Failed", "Delivered"]
        assert staged(house) == []

    run(house.mail, step)


@pytest.mark.parametrize("once", [False, True])
def test_across_file_systems_it_goes_by_a_copy(house: House, once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real_rename, real_link = os.rename, os.link

    def refuse(real: Callable[..., None]) -> Callable[..., None]:
        def change(source: str, target: str, **folders: int) -> None:
            if folders["src_dir_fd"] != folders["dst_dir_fd"] and ".incoming" in os.readlink(
                f"/proc/self/fd/{folders['src_dir_fd']}"
            ):
                raise OSError(errno.EXDEV, "another file system")
            real(source, target, **folders)

        return change

    async def step(deliveries: Deliveries) -> None:
        monkeypatch.setattr(os, "rename", refuse(real_rename))
        monkeypatch.setattr(os, "link", refuse(real_link))
        (result,) = await deliver(deliveries, once=once)
        assert isinstance(result, Delivered), result
        assert (house.maildir / "new" / result.name).read_bytes() == HEADER + BODY
        assert files(house.maildir / "tmp") == []
        assert staged(house) == []
        (again,) = await deliver(deliveries, once=once)
        assert isinstance(again, Delivered)
        assert again.duplicate is once

    run(house.mail, step)


def test_a_full_disk_leaves_nothing_behind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    async def step(deliveries: Deliveries) -> None:
        monkeypatch.setattr(os, "writev", full)
        (result,) = await deliver(deliveries)
        assert isinstance(result, Failed)
        assert isinstance(result.error, OSError)
        assert staged(house) == []
        assert files(house.maildir / "new") == []

    run(house.mail, step)


@pytest.mark.parametrize("limit", [262_144, 4])
def test_a_caller_that_breaks_off_does_not_tear_a_commit(house: House, limit: int) -> None:
    async def step(deliveries: Deliveries) -> None:
        sink = deliveries.incoming(limit)
        sink.write(BODY)
        await sink.drain()
        delivery = deliveries.begin("trace")
        await delivery.add_recipient(ANNA, ANNA, HEADER)
        await delivery.body(sink)
        task = asyncio.create_task(delivery.commit())
        await asyncio.sleep(0)
        task.cancel()
        sink.close()  # as an engine does with the body of a broken connection
        with pytest.raises(asyncio.CancelledError):
            await task

    run(house.mail, step)
    (name,) = files(house.maildir / "new")
    assert (house.maildir / "new" / name).read_bytes() == HEADER + BODY


def test_an_aborted_delivery_writes_nothing(house: House) -> None:
    async def step(deliveries: Deliveries) -> None:
        delivery = deliveries.begin("trace")
        await delivery.add_recipient(ANNA, ANNA, HEADER)
        delivery.abort()
        with pytest.raises(RuntimeError):
            await delivery.commit()
        with pytest.raises(BadName):
            await delivery.add_recipient(ANNA, "no address", HEADER)
        with pytest.raises(BadName):
            await delivery.add_recipient(ANNA, ANNA, HEADER, "a/b")

    run(house.mail, step)
    assert files(house.maildir / "new") == []


@pytest.mark.parametrize("planted", ["new", ".", "folder"])
def test_a_planted_link_is_not_followed(house: House, planted: str) -> None:
    elsewhere = house.base / "elsewhere"
    (elsewhere / "new").mkdir(parents=True)
    if planted == "new":
        (house.maildir / "new").rmdir()
        (house.maildir / "new").symlink_to(elsewhere / "new")
    elif planted == ".":
        os.rename(house.maildir, house.base / "away")
        house.maildir.symlink_to(elsewhere)
    else:
        os.rename(house.maildir / ".Junk", house.base / "away")
        (house.maildir / ".Junk").symlink_to(elsewhere)

    async def step(deliveries: Deliveries) -> None:
        mailbox = "Junk" if planted == "folder" else "INBOX"
        (result,) = await deliver(deliveries, (ANNA, ANNA, mailbox))
        assert isinstance(result, Failed)
        assert isinstance(result.error, MailboxMissing)
        assert files(elsewhere / "new") == []

    run(house.mail, step)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_smtp_in_adds_mail_that_it_can_neither_list_nor_read_and_imap_can(house: House) -> None:
    """As in the containers: the folders are uid 5000's, delivery is uid 10001 with the mail group."""
    for path in (house.base, Path(house.mail)):
        path.chmod(0o755)
    purge(house.mail, ANNA)
    os.rmdir(house.base / "mail/family.example")
    os.mkdir(house.base / "mail/.incoming", 0o700)
    os.chown(house.mail, 0, 5000)
    os.chmod(house.mail, 0o2775)
    os.chown(house.base / "mail/.incoming", 10001, 5000)
    os.chmod(house.base / "mail/.incoming", 0o2700)

    def imap_makes() -> None:
        provision(house.mail, ANNA)

    def smtp_delivers() -> None:
        async def step(deliveries: Deliveries) -> None:
            for once in (False, True):
                (result,) = await deliver(deliveries, once=once)
                assert isinstance(result, Delivered), result

        run(house.mail, step)
        for folder in (house.maildir, house.maildir / "new", house.maildir / "tmp", house.maildir / "cur"):
            with pytest.raises(PermissionError):
                os.listdir(folder)
        with pytest.raises(PermissionError):
            os.mkdir(house.maildir / ".Planted")
        with pytest.raises(PermissionError):
            os.rename(house.maildir / "cur", house.maildir / "other")

    def imap_reads() -> None:
        store = house.open()
        inbox = store.mailbox("INBOX")
        assert [message.read() for _, message in inbox.bodies(list(inbox.uids))] == [HEADER + BODY] * 2
        inbox.copy(inbox.uids, "Archive")
        assert [os.stat(house.maildir / ".Archive/cur" / name).st_nlink for name in files(house.maildir / ".Archive/cur")] == [2, 2], "COPY is a hard link, of a file of another owner"  # fmt: skip
        inbox.remove(inbox.uids)
        house.stores.clear()
        store.close()

    _as_user(5000, 5000, imap_makes)
    _as_user(10001, 5000, smtp_delivers, before=lambda: os.chmod(house.base, 0o755))
    os.makedirs(house.base / "state", exist_ok=True)
    os.chown(house.base / "state", 5000, 5000)
    _as_user(5000, 5000, imap_reads)


def _as_user(uid: int, gid: int, work: Callable[[], None], before: Callable[[], None] | None = None) -> None:
    if before:
        before()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.umask(0o022)
            os.setgroups([gid])
            os.setgid(gid if uid == gid else uid)
            os.setuid(uid)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_killed_process_leaves_no_half_message(house: House) -> None:
    child = os.fork()
    if child == 0:
        try:

            async def forever(deliveries: Deliveries) -> None:
                number = 0
                while True:
                    number += 1
                    await asyncio.gather(
                        *(
                            deliver(deliveries, trace=f"{number}.{n}", once=n % 2 == 0, body=BODY * 50)
                            for n in range(20)
                        )
                    )

            run(house.mail, forever)
        finally:
            os._exit(1)
    while len(files(house.maildir / "new")) < 200:
        os.sched_yield()
        for name in files(house.maildir / "new"):
            assert (house.maildir / "new" / name).stat().st_size == len(HEADER + BODY * 50)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for name in files(house.maildir / "new"):
        assert (house.maildir / "new" / name).read_bytes() == HEADER + BODY * 50
    run(house.mail)
    assert staged(house) == []


# --- the commits of a group


def test_what_comes_while_the_disk_is_busy_goes_together() -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    gate, batches = Event(), []

    def work(jobs: object) -> list[int]:
        numbers = list(jobs)  # type: ignore[call-overload]
        batches.append(numbers)
        gate.wait(5)
        if 13 in numbers:
            raise OSError("unlucky")
        return [number * 10 for number in numbers]

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            group: GroupCommit[int, int] = GroupCommit(work, pool, 4)
            waiting = [group.submit(1)]
            await asyncio.sleep(0.01)
            waiting += [group.submit(number) for number in (2, 3, 4, 5, 6)]
            waiting[2].cancel()
            gate.set()
            await group.drained()
            assert batches == [[1], [2, 3, 4, 5], [6]]
            assert [future.result() for future in waiting if not future.cancelled()] == [10, 20, 40, 50, 60]
            bad = [group.submit(number) for number in (13, 14)]
            await group.drained()
            assert all(isinstance(future.exception(), OSError) for future in bad)
            heavy = [group.submit(number, 3) for number in (7, 8)]
            await group.drained()
            assert batches[-2:] == [[7], [8]]
            assert [future.result() for future in heavy] == [70, 80]
        late = group.submit(9)
        await asyncio.sleep(0.01)
        assert isinstance(late.exception(), RuntimeError), "after the end nothing is promised"

    asyncio.run(main())


# --- account folders


def test_provision_is_idempotent_and_sets_modes(house: House) -> None:
    assert provision(house.mail, ANNA) is False
    for root in (
        house.maildir,
        *(house.maildir / f".{name}" for name in ("Drafts", "Sent", "Junk", "Trash", "Archive")),
    ):
        assert stat.S_IMODE(root.stat().st_mode) == ROOT_MODE
        for part, mode in MODES.items():
            assert stat.S_IMODE((root / part).stat().st_mode) == mode
    assert stat.S_IMODE((house.base / "mail/family.example").stat().st_mode) == ROOT_MODE


def test_a_tree_of_another_server_is_taken_as_it_is(house: House) -> None:
    moved = house.base / "mail/other.example/bert"
    for name in ("cur", "new", "tmp", ".Sent Items/cur", ".Sent Items/new", ".Sent Items/tmp", "sieve"):
        (moved / name).mkdir(parents=True)
    (moved / "cur/1.M1.h,S=5:2,S").write_bytes(b"x\n\ny\n")
    (moved / "dovecot-uidlist").write_text("3 V1 N2\n")
    assert provision(house.mail, "bert@other.example") is True  # a maildirfolder was missing
    assert provision(house.mail, "bert@other.example") is False
    assert sorted(os.listdir(moved)) == [".Sent Items", "cur", "dovecot-uidlist", "new", "sieve", "tmp"]
    assert (moved / "cur/1.M1.h,S=5:2,S").read_bytes() == b"x\n\ny\n"
    assert stat.S_IMODE((moved / ".Sent Items/new").stat().st_mode) == 0o2730


def test_a_deleted_mailbox_is_not_made_again(house: House) -> None:
    store = house.open()
    store.delete("Archive")
    assert provision(house.mail, ANNA) is False
    assert not (house.maildir / ".Archive").exists()


@pytest.mark.parametrize("name", ["family.example", "family.example/eve"])
def test_a_planted_link_is_no_account(house: House, name: str) -> None:
    target = house.base / "elsewhere"
    target.mkdir()
    if name == "family.example":
        os.rename(house.base / "mail/family.example", house.base / "away")
    (house.base / "mail" / name).symlink_to(target)
    with pytest.raises(BadName):
        provision(house.mail, "eve@family.example")
    assert os.listdir(target) == []


def test_retired_mail_is_kept_and_then_purged(house: House) -> None:
    (house.maildir / "cur/x").write_bytes(b"mail")
    kept = retire(house.mail, ANNA, 1000.5)
    assert kept == f"{house.mail}/.deleted/{ANNA}.1000"
    assert Path(kept, "cur/x").read_bytes() == b"mail"
    assert retire(house.mail, ANNA, 2000) == ""
    assert retire(house.mail, "x@nowhere.example", 2000) == ""
    assert purge_retired(house.mail, 1000) == []
    provision(house.mail, ANNA)
    retire(house.mail, ANNA, 3000)
    assert purge_retired(house.mail, 2000) == [f"{ANNA}.1000"]
    provision(house.mail, ANNA)
    purge(house.mail, ANNA)
    assert os.listdir(house.base / "mail/.deleted") == []
    assert not house.maildir.exists()


def test_the_state_of_a_deleted_account_goes_with_its_mail(house: House) -> None:
    store = house.open()
    store.create("Private")
    before = store.status("INBOX")
    store.close()
    for root in (house.mail, str(house.base / "state")):
        assert retire(root, ANNA, 1000)
    provision(house.mail, ANNA)
    house.time += 5
    store = house.open()
    assert store.status("INBOX").mailboxid != before.mailboxid
    assert "Private" not in store.subscriptions()
    assert purge_retired(str(house.base / "state"), 2000) == [f"{ANNA}.1000"]


# --- the disk's reserve


@pytest.mark.parametrize(
    ("free", "total", "percent", "least", "has_room"),
    [
        (100, 1000, 5, 10_000, True),
        (50, 1000, 5, 10_000, False),  # 5 %
        (100, 1000, 50, 90, True),  # the smaller of both counts
        (100, 1000, 50, 100, False),
        (1, 1000, 0, 0, True),
        (0, 1000, 0, 0, False),
    ],
)
def test_disk_reserve(
    free: int, total: int, percent: int, least: int, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings:
        disk_reserve_percent = percent
        disk_reserve_bytes = least * 1024

    # bsize frsize blocks bfree bavail files ffree favail flag namemax
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 1024, total, free, free, 0, 0, 0, 0, 255)))
    assert disk_reserve("/", Settings()) is has_room


def test_a_disk_without_inodes_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Settings:
        disk_reserve_percent = 5
        disk_reserve_bytes = 1

    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 1024, 1000, 900, 900, 10_000, 9, 9, 0, 255)))
    assert disk_reserve("/", Settings()) is False


def test_the_file_system_is_known() -> None:
    assert file_system("/proc/self") == "proc"
    assert file_system("/") != ""
