"""A volume of 64 MB fills up, one kind after the other, and is freed again. Needs root, for a tmpfs of its own.

    python -m tests.faults disk-full [mail] [spool] [events] [admin] [imap]

For each volume: first below the reserve (what the settings keep free), then to the last byte. Meanwhile the right
replies are given, what is acknowledged is there, nothing is half there, the other functions go on; and when space is
freed all goes on by itself. `SCENARIOS` holds one function a volume; each takes a running house on such a volume.
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fakes import FakeDns, FakeMailServer, Script
from house import PASSWORD, House, traced
from mailclients import LetterRefused, letter, messages, until

MIB = 1 << 20
VOLUME_MIB = 64
# 5 % of 64 MB are kept free for what must go on; DISK_RESERVE_BYTES would be more.
RESERVE = VOLUME_MIB * MIB * 5 // 100
PART = 1 * MIB


class Volume:
    """A tmpfs that a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={VOLUME_MIB}m", "none", str(path)], check=True)

    @property
    def free(self) -> int:
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all but `leave` octets."""
        with (self.path / ".ballast").open("ab") as ballast, contextlib.suppress(OSError):
            while self.free > leave:
                ballast.write(bytes(min(PART, self.free - leave)))
                ballast.flush()

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.path / ".ballast").unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False)


@contextlib.contextmanager
def house_on(volume_name: str, folder: Path) -> Iterator[tuple[House, Volume, FakeMailServer]]:
    """A house with one volume of its own, sending by a relay that plays the outside."""
    relay = FakeMailServer(Script())
    dns = FakeDns({("relay.test", "A"): ["127.0.0.1"]})
    volume = Volume(folder / "house/data" / volume_name)
    house = House(
        folder / "house",
        {
            "RELAY_HOST": "relay.test", "RELAY_PORT": str(relay.port), "RELAY_TLS": "none", "RETRY_FIRST": "1",
            "RESOLVER": dns.address, "BAN_FAILURES": "10",
        },
    )  # fmt: skip
    try:
        yield house.start(), volume, relay
        assert "Traceback" not in house.log, house.log[-4000:]
    finally:
        house.kill()
        volume.unmount()
        relay.close()
        dns.close()


def refused(action: Callable[[], object]) -> str:
    """The reply of an action that must be refused."""
    try:
        action()
    except LetterRefused as error:
        return f"{error.code} {error.text}"
    except (OSError, smtplib.SMTPException) as error:
        return repr(error)
    return "accepted"


def subjects(house: House, account: str) -> list[bytes]:
    with house.imap(account) as client:
        return sorted(
            line
            for text in messages(client).values()
            for line in text.partition(b"\r\n\r\n")[0].split(b"\r\n")
            if line.startswith(b"Subject:")
        )


def sent_through(house: House, relay: FakeMailServer, account: str, *subjects: str) -> None:
    """Each message of these subjects has gone to the relay exactly once."""

    def counts() -> list[int]:
        return [sum(f"Subject: {one}\r\n".encode() in each.message for each in relay.received) for one in subjects]

    until(lambda: all(counts()), 30, 0.2)
    assert counts() == [1] * len(subjects), f"{subjects}: {counts()}"


def mail(house: House, volume: Volume, relay: FakeMailServer) -> None:
    """The mail volume: 452 to MAIL and DATA, NO [OVERQUOTA] to APPEND; reading, expunging and sending go on."""
    ann, ben = house.account(), house.account()
    big = b"z" * 998 + b"\r\n"
    for number in range(4):
        house.receive("friend@outside.test", ann, message=letter("f@outside.test", ann, f"old {number}").message)
    house.receive("friend@outside.test", ann, message=letter("f@outside.test", ann, "large", big * 8000).message)
    for leave in (RESERVE // 2, 0):
        volume.fill(leave)
        # What the room knows of the disk is a few seconds old at most.
        until(lambda: refused(lambda: house.receive("f@outside.test", ann, message=b"x\r\n")).startswith("452"), 15)
        with house.imap(ann) as client:
            assert len(messages(client)) >= 5, "reading goes on"
            status, data = client.append("Sent", "", "", letter(ann, ann).message)
            assert status == "NO" and b"[OVERQUOTA]" in data[0], data
            client.select("INBOX")
            assert client.search(None, "SUBJECT", "old")[0] == "OK"
        house.submit(ann, "friend@outside.test", message=letter(ann, "f@outside.test", f"out {leave}").message)
        sent_through(house, relay, ann, f"out {leave}")
        house.submit(ann, ben, message=letter(ann, ben, f"within {leave}").message)  # waits in the queue
    with house.imap(ann) as client:
        client.select("INBOX")
        _, found = client.uid("SEARCH", "SUBJECT", "large")
        client.uid("STORE", found[0].decode(), "+FLAGS", "(\\Deleted)")
        assert client.expunge()[0] == "OK", "expunging goes on and makes room"
    assert volume.free > 5 * MIB
    until(
        lambda: (
            refused(lambda: house.receive("f@outside.test", ann, message=letter("f", ann, "new").message)) == "accepted"
        ),
        15,
    )
    # Full in the middle of a message: nothing of it stays.
    volume.fill(RESERVE + 2 * MIB)
    until(
        lambda: (
            refused(lambda: house.receive("f@outside.test", ann, message=letter("f", ann, "small").message))
            == "accepted"
        ),
        15,
    )
    told = refused(
        lambda: house.receive("f@outside.test", ann, message=letter("f", ann, "too much", big * 9000).message)
    )
    assert told.startswith(("452", "451")), told
    volume.empty()
    assert b"Subject: too much" not in subjects(house, ann)
    assert [path for path in (volume.path / ".incoming").iterdir() if path.is_file()] == []
    house.command("queue", "retry", "--all")
    until(lambda: subjects(house, ben) == [b"Subject: within 0", f"Subject: within {RESERVE // 2}".encode()], 60, 0.5)
    until(
        lambda: (
            refused(lambda: house.receive("f@outside.test", ben, message=letter("f", ben, "after").message))
            == "accepted"
        ),
        15,
    )


def spool(house: House, volume: Volume, relay: FakeMailServer) -> None:
    """The queue's volume: 452 to submissions; what is in the queue goes out once; mail comes in and is read."""
    ann, ben = house.account(), house.account()
    relay.script.greeting = "421 4.3.2 later"
    house.submit(ann, "friend@outside.test", message=letter(ann, "f@outside.test", "queued").message)
    for leave in (RESERVE // 2, 0):
        volume.fill(leave)
        told = refused(lambda: house.submit(ann, "friend@outside.test", message=letter(ann, "f", "refused").message))
        assert told.startswith("452"), told
        house.receive("friend@outside.test", ben, message=letter("f@outside.test", ben, f"in {leave}").message)
        assert len(subjects(house, ben)) == (1 if leave else 2)
    # With no room to note what came of it, an attempt that succeeds must not be repeated.
    relay.script.greeting = "220 relay.test again"
    house.cli("queue", "retry", "--all")
    time.sleep(3)
    assert len(relay.received) <= 1, "delivered, and not noted: it must not go twice"
    volume.empty()
    house.command("queue", "retry", "--all")
    sent_through(house, relay, ann, "queued")
    # Full in the middle of a message.
    volume.fill(RESERVE + 2 * MIB)
    big = b"z" * 998 + b"\r\n"
    told = refused(
        lambda: house.submit(ann, "friend@outside.test", message=letter(ann, "f", "big", big * 9000).message)
    )
    assert told.startswith(("452", "451")), told
    volume.empty()
    house.submit(ann, "friend@outside.test", message=letter(ann, "f@outside.test", "after").message)
    sent_through(house, relay, ann, "after")
    until(lambda: not house.asked("queue", "list")["messages"], 30, 0.5)
    assert not list((volume.path / "tmp").iterdir())
    assert sorted(b"big" in each.message for each in relay.received) == [False, False]


def events(house: House, volume: Volume, relay: FakeMailServer) -> None:
    """The record's volume: lines are dropped and counted; all mail goes on; then the record does too."""
    ann = house.account()
    for leave in (RESERVE // 2, 0):
        volume.fill(leave)
        house.receive("friend@outside.test", ann, message=letter("f@outside.test", ann, f"in {leave}").message)
        house.submit(ann, "friend@outside.test", message=letter(ann, "f@outside.test", f"out {leave}").message)
        sent_through(house, relay, ann, f"out {leave}")
        time.sleep(1.2)  # two turns of the record
    assert len(subjects(house, ann)) == 2
    volume.empty()
    late = letter("friend@outside.test", ann, "after")
    house.receive("friend@outside.test", ann, message=late.message)
    found = traced(house, late.message_id, "delivered", seconds=20)
    assert found
    lines = b"".join(path.read_bytes() for path in (volume.path / "smtp-in").glob("*.jsonl"))
    assert b"were dropped: the disk was full" in lines


def admin(house: House, volume: Volume, relay: FakeMailServer) -> None:
    """admin's volume: its changes are refused and nothing is half done; log-ins, mail in and out go on."""
    ann = house.account()
    before = house.asked("account", "list")["accounts"]
    volume.fill(0)
    done = house.cli("account", "add", "late@example.test", PASSWORD)
    assert done.status != 0 and "Traceback" not in done.output, done.output
    house.receive("friend@outside.test", ann, message=letter("f@outside.test", ann, "in").message)
    house.submit(ann, "friend@outside.test", message=letter(ann, "f@outside.test", "out").message)
    sent_through(house, relay, ann, "out")
    assert subjects(house, ann) == [b"Subject: in"]
    told = refused(lambda: house.receive("f@outside.test", "late@example.test", message=b"x\r\n"))
    assert told.startswith("550"), told
    volume.empty()
    assert [each["address"] for each in house.asked("account", "list")["accounts"]] == [e["address"] for e in before]
    house.command("account", "add", "late@example.test", PASSWORD)
    house.settle()
    house.receive("friend@outside.test", "late@example.test", message=letter("f", "late", "hello").message)
    assert subjects(house, "late@example.test") == [b"Subject: hello"]


def imap(house: House, volume: Volume, relay: FakeMailServer) -> None:
    """imap's volume (state.db, cache.db): mail is taken all the same and shown afterwards, no UID changes its message."""
    ann = house.account()
    house.receive("friend@outside.test", ann, message=letter("f@outside.test", ann, "old").message)
    with house.imap(ann) as client:
        before = messages(client)
    volume.fill(0)
    house.receive("friend@outside.test", ann, message=letter("f@outside.test", ann, "new").message)
    with house.imap(ann) as client:
        status, data = client.select("INBOX")
        if status == "OK":
            client.uid("FETCH", "1:*", "(FLAGS)")
            status, data = client.uid("STORE", "1:*", "+FLAGS", "(\\Flagged)")
            assert status in ("OK", "NO"), data
        else:
            assert b"BAD" not in data[0] and b"internal" not in data[0].lower(), data
    house.submit(ann, "friend@outside.test", message=letter(ann, "f@outside.test", "out").message)
    sent_through(house, relay, ann, "out")
    volume.empty()
    until(lambda: subjects(house, ann) == [b"Subject: new", b"Subject: old"], 30, 0.5)
    with house.imap(ann) as client:
        after = messages(client)
        assert {uid: after[uid] for uid in before} == before
        client.select("INBOX")
        assert client.uid("STORE", "1:*", "+FLAGS", "(\\Seen)")[0] == "OK"


SCENARIOS: dict[str, Callable[[House, Volume, FakeMailServer], None]] = {
    "mail": mail, "spool": spool, "events": events, "admin": admin, "imap": imap,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    for name in arguments or SCENARIOS:
        started = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="mailstead-full-") as folder,
            house_on(name, Path(folder)) as (house, volume, relay),
        ):
            SCENARIOS[name](house, volume, relay)
        print(f"{name:7} {str(SCENARIOS[name].__doc__).strip()}  held, {time.monotonic() - started:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
