"""One container away, the others at work: admin, dkim, unbound, acme, updater stopped; imap restarted; setup run again.

    python -m tests.faults outages [NAME ...]

Each of `OUTAGES` takes the stack beside the test world, stops something, does what people do, starts it again, and
says what it saw. Nothing that is acknowledged may be lost, nothing may go out unsigned, nothing may need a hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mailclients import ImapLine, LetterRefused, letter, until
from stack import PASSWORD, Stack, must, running

from tests.faults import kills
from tests.faults.kills import MEMBER, READER, copies_in, copies_outside, flows, healthy, shares, waiting
from tests.faults.mail_load import MailLoad

CLIENTS = 200
# What `docker stop` gives a room to end what is in flight.
STOP_SECONDS = "20"


@contextlib.contextmanager
def stopped(stack: Stack, service: str) -> Iterator[None]:
    """Without this container."""
    must(stack.compose("stop", "--timeout", STOP_SECONDS, service))
    try:
        yield
    finally:
        must(stack.compose("start", service))
        healthy(stack, service)


def work(stack: Stack, messages: int = 40, *, outside: bool = True) -> list[str]:
    """Mail in, out and within; all is acknowledged, and what needs no outside has arrived, once. Message-IDs to outside."""
    load = MailLoad(shares(flows(stack), messages))
    load.finish(120)
    for account, flow in ((READER, "in"), (MEMBER, "within")):
        ours = {each.message_id for each in load.sent if each.flow.name == flow}

        def arrived(account: str = account, ours: set[str] = ours) -> bool:
            return ours <= set(copies_in(stack, account))

        until(arrived, 60, 0.5)
        found = copies_in(stack, account)
        assert all(found[one] == 1 for one in ours)
    going = [each.message_id for each in load.sent if each.flow.name == "out"]
    if outside:
        left_for_outside(stack, going)
    return going


def left_for_outside(stack: Stack, message_ids: list[str]) -> None:
    """All of them have arrived outside, once."""
    until(lambda: waiting(stack) == 0, 120, 1.0)
    found = copies_outside(stack)
    assert all(found[one] == 1 for one in message_ids), [found[one] for one in message_ids]


def facts_waiting(stack: Stack, room: str) -> int:
    file = "/var/lib/mailstead/room/facts.jsonl"
    return int(stack.execute(room, "bash", "-c", f"[[ ! -e {file} ]] || cat {file} | wc -l").output.strip() or 0)


def admin(stack: Stack) -> str:
    """admin away: log-ins, delivery and sending go on; what the rooms have to tell it waits on disk, bounded."""
    with stopped(stack, "admin"):
        before = time.time()
        going = work(stack, outside=False)
        for number in range(20):
            client = ImapLine(stack.ports["imaps"])
            client.command(f'LOGIN {(READER, MEMBER)[number % 2]} "{PASSWORD}"')
            client.close()
        until(lambda: facts_waiting(stack, "imap") > 0, 10, 0.5)
        counts = {room: facts_waiting(stack, room) for room in ("imap", "smtp-out")}
        assert counts["imap"] < 100, "a newer use of an account takes the place of the one that waits"
        # A room that starts meanwhile reads the published directory, and keeps its facts.
        must(stack.compose("restart", "--timeout", STOP_SECONDS, "imap"))
        healthy(stack, "imap")
        assert facts_waiting(stack, "imap") > 0
    left_for_outside(stack, going)
    until(lambda: facts_waiting(stack, "imap") == 0 and facts_waiting(stack, "smtp-out") == 0, 90, 1.0)
    used = {each["address"]: each["last_used"] for each in stack.asked("account", "list")["accounts"]}
    assert used[READER] and used[READER] >= before - 1, used
    return f"facts waiting {counts}, all told afterwards"


def dkim(stack: Stack) -> str:
    """dkim away: submissions are put off, never taken unsigned; afterwards each arrives once, signed."""
    load = MailLoad(shares(flows(stack), 60), clients=2)
    until(lambda: load.acknowledged > 20, 60, 0.005)
    with stopped(stack, "dkim"):
        try:
            stack.submit(READER, "friend@outside.test", message=letter(READER, "friend@outside.test").message)
        except LetterRefused as refused:
            reply = f"{refused.code} {refused.text}"
        else:
            reply = "250"
        time.sleep(3)
    load.finish(120)
    assert reply.startswith("451"), reply
    left_for_outside(stack, [each.message_id for each in load.sent if each.flow.name == "out"])
    files = "/var/mail/world/all/new"
    unsigned = stack.execute("world-outside", "bash", "-c", f"grep -rL '^DKIM-Signature:' {files} | wc -l").output
    assert unsigned.strip() == "0", f"{unsigned} messages went out without a signature"
    put_off = sum(bool(each.replies) for each in load.sent)
    return f"answered {reply.split(' [')[0]!r}; {put_off} were put off; none unsigned"


def unbound(stack: Stack) -> str:
    """unbound away: mail outward waits, the rest goes on."""
    with stopped(stack, "unbound"):
        going = work(stack, outside=False)
        assert not set(going) & set(copies_outside(stack))
    left_for_outside(stack, going)
    return f"{len(going)} waited and arrived once"


def acme(stack: Stack) -> str:
    """acme away: the certificates that are there go on being served."""
    with stopped(stack, "acme"):
        return f"{len(work(stack))} went out"


def updater(stack: Stack) -> str:
    """updater and docker-filter away: nobody misses them."""
    with stopped(stack, "updater"), stopped(stack, "docker-filter"):
        return f"{len(work(stack))} went out"


class Client(threading.Thread):
    """An IDLEing client that comes back when it is thrown out."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.sessions = port, 0
        self.uidvalidity = b""
        self.ended = threading.Event()
        self.changed = 0
        self.start()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                line = ImapLine(self.port)
                line.command(f'LOGIN {READER} "{PASSWORD}"')
                found = b" ".join(line.command("SELECT INBOX"))
                number = found.partition(b"[UIDVALIDITY ")[2].partition(b"]")[0]
                self.changed += self.uidvalidity not in (b"", number)
                self.uidvalidity = number
                line.socket.sendall(b"i IDLE\r\n")
                assert line.line(20).startswith(b"+")
                self.sessions += 1
                while line.line(600):
                    pass
            except (OSError, AssertionError):
                self.ended.wait(0.3)


def imap(stack: Stack, count: int = CLIENTS) -> str:
    """imap restarted under many clients: all come back, and nothing that they were told has changed."""
    work(stack, 20)
    before = kills.copies_in(stack, READER)
    marked = ImapLine(stack.ports["imaps"])
    marked.command(f'LOGIN {READER} "{PASSWORD}"')
    marked.command("SELECT INBOX")
    marked.command("STORE 1:5 +FLAGS (\\Flagged marked)")
    clients = [Client(stack.ports["imaps"]) for _ in range(count)]
    try:
        until(lambda: all(each.sessions == 1 for each in clients), 120, 0.1)
        started = time.monotonic()
        must(stack.compose("restart", "--timeout", STOP_SECONDS, "imap"))
        up = time.monotonic() - started
        until(lambda: all(each.sessions == 2 for each in clients), 120, 0.05)
        back = time.monotonic() - started
        assert sum(each.changed for each in clients) == 0, "UIDVALIDITY"
    finally:
        for each in clients:
            each.ended.set()
    assert kills.copies_in(stack, READER) == before
    line = ImapLine(stack.ports["imaps"])
    line.command(f'LOGIN {READER} "{PASSWORD}"')
    line.command("SELECT INBOX")
    found = line.command("SEARCH FLAGGED KEYWORD marked")
    assert b"* SEARCH 1 2 3 4 5" in found, found
    line.close()
    return f"{count} clients: restarted in {up:.1f} s, all of them idle again {back:.1f} s after the order"


def setup(stack: Stack) -> str:
    """setup run again beside the running rooms: it changes nothing and disturbs nobody."""
    before = stack.started()
    done = must(stack.compose("run", "--rm", "--no-deps", "setup"))
    assert "nothing to change" in done, done
    work(stack)
    assert stack.started() == before
    return "nothing to change"


OUTAGES: dict[str, Callable[[Stack], str]] = {
    "admin": admin, "dkim": dkim, "unbound": unbound, "acme": acme, "updater": updater, "imap": imap, "setup": setup,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    project = os.environ.get("MAILSTEAD_TEST_PROJECT", f"mailstead-test-{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="mailstead-faults-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        with running(tree, project) as stack:
            kills.prepare(stack)
            for name in arguments or OUTAGES:
                started = time.monotonic()
                kills.empty_mailboxes(stack)
                told = OUTAGES[name](stack)
                print(f"{name:8} {told}  held, {time.monotonic() - started:.1f} s", flush=True)
            bugs = json.dumps([room for room in OUTAGES if room != "setup" and "Traceback" in stack.logs(room)])
            print(f"tracebacks: {bugs}")
    return 0 if bugs == "[]" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
