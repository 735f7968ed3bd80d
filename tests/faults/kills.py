"""`kill -9` of each container in the middle of mail in, out and within, round after round.

    python -m tests.faults kills [--rounds 20] [--messages 500]

A round offers `messages` to port 25 and as many to port 465, every fifth of those to a mailbox of the house, and kills
one container at an invented moment between the first and the last acknowledgement: in even rounds by `docker kill`
and, a moment later, `docker start`; in odd ones by a signal to the process, so that its restart policy brings it back.
At the end every message that was acknowledged must be where it was to go. In the house's own mailboxes it must be
exactly once, plus at most one copy for each attempt whose reply its client never got (nobody can tell such an attempt
from a new message). Outside, the test world's Postfix counts: more than one copy only for attempts that were in flight
at a kill of smtp-out.
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailclients import imap, until
from stack import PASSWORD, Stack, must, running, sh

from tests.faults.mail_load import Flow, MailLoad, Sent

# How often each is killed in 20 rounds: those that hold mail more often.
TURNS = (
    "smtp-in", "smtp-out", "imap", "dkim", "smtp-in", "smtp-out", "unbound", "admin", "imap", "smtp-in",
    "smtp-out", "acme", "dkim", "smtp-out", "smtp-in", "updater", "imap", "admin", "docker-filter", "unbound",
)  # fmt: skip
# Connections to one destination at most: the attempts that a kill of smtp-out can find in flight.
WIDEST = 4
READER, MEMBER = "ann@example.test", "ben@example.test"


@dataclass(frozen=True, slots=True)
class Round:
    """One kill and what was counted after it."""

    victim: str
    killed_after: int  # acknowledgements
    acknowledged: int
    found: int
    doubtful: int
    extra_in: int  # further copies in our own mailboxes
    extra_out: int  # further copies outside
    seconds: float

    def held(self) -> bool:
        """Whether nothing was lost, and no copy was made that a reply lost on the way does not explain."""
        in_flight = WIDEST if self.victim == "smtp-out" else 0
        return (
            self.found == self.acknowledged
            and self.extra_in <= self.doubtful
            and self.extra_out <= self.doubtful + in_flight
        )


def flows(stack: Stack) -> list[Flow]:
    """In, out and within, on one stack."""
    login = (READER, PASSWORD)
    return [
        Flow("in", stack.ports["smtp"], "friend@outside.test", READER),
        Flow("out", stack.ports["submissions"], READER, "friend@outside.test", login),
        Flow("within", stack.ports["submissions"], READER, MEMBER, login),
    ]


def shares(flows: list[Flow], count: int) -> list[tuple[Flow, int]]:
    """Messages of each flow: as many come in as go out, a fifth of those within the house."""
    return list(zip(flows, (count, count - count // 5, count // 5), strict=True))


def prepare(stack: Stack) -> None:
    """Accounts, and a queue that does not wait five minutes for its second attempt."""
    stack.write_env("queue", {"RETRY_FIRST": "2"})
    stack.up()
    for address in (READER, MEMBER):
        stack.account(address)
    # What it verifies is another test's matter; here it counts, and must keep up.
    must(stack.execute("world-outside", "bash", "-c", "postconf -e smtpd_milters= && postfix reload"))


def kill(stack: Stack, victim: str, by_policy: bool) -> None:
    """End a container's process as the kernel's out-of-memory killer would, and let it come back."""
    if by_policy:
        os.kill(stack.inspect(victim)["State"]["Pid"], signal.SIGKILL)
        until(lambda: stack.inspect(victim)["RestartCount"] > 0 and stack.inspect(victim)["State"]["Running"], 60, 0.2)
    else:
        must(sh("docker", "kill", "--signal", "KILL", stack.container(victim)))
        time.sleep(random.uniform(0.0, 2.0))  # how long it is away
        must(sh("docker", "start", stack.container(victim)))


def healthy(stack: Stack, service: str) -> None:
    """Wait until a container's own health check says yes."""
    until(lambda: stack.execute(service, "healthcheck").status == 0, 90, 0.3)


def copies_in(stack: Stack, account: str) -> Counter[str]:
    """Message-ID → copies in an account's inbox, read over IMAP by header alone."""
    with imap(stack.ports["imaps"], account, PASSWORD) as client:
        client.select("INBOX", readonly=True)
        _, fetched = client.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
    text = b"".join(part[1] for part in fetched if isinstance(part, tuple))
    return Counter(re.findall(r"(?i)^message-id:\s*(<[^>]+>)", text.decode(), re.M))


def copies_outside(stack: Stack) -> Counter[str]:
    """Message-ID → deliveries that the outside's Postfix wrote into its one Maildir."""
    found = stack.execute(
        "world-outside", "bash", "-c", "cat /var/mail/world/all/new/* 2>/dev/null | grep -i '^Message-ID:' || true"
    )
    return Counter(re.findall(r"(<[^>]+>)", found.output))


def empty_mailboxes(stack: Stack) -> None:
    """So that a round does not read what the rounds before it left."""
    stack.execute("world-outside", "bash", "-c", "find /var/mail/world/all/new -type f -delete")
    for account in (READER, MEMBER):
        with imap(stack.ports["imaps"], account, PASSWORD) as client:
            client.select("INBOX")
            client.uid("STORE", "1:*", "+FLAGS.SILENT", "(\\Deleted)")
            client.expunge()


def waiting(stack: Stack) -> int:
    """Messages in the queue; -1 while admin or smtp-out cannot say."""
    told = stack.script("mailstead", "--json", "queue", "list")
    if told.status != 0:
        return -1
    stack.script("mailstead", "queue", "retry", "--all")
    return len(json.loads(told.output)["messages"])


def play(stack: Stack, victim: str, by_policy: bool, messages: int, chance: random.Random) -> Round:
    """One round."""
    load = MailLoad(shares(flows(stack), messages))
    moment = chance.randint(len(load.sent) // 10, len(load.sent) * 7 // 10)
    until(lambda: load.acknowledged >= moment, 240, 0.005)
    kill(stack, victim, by_policy)
    seconds = load.finish(300)
    healthy(stack, victim)
    until(lambda: waiting(stack) == 0, 180, 1.0)
    copies = {READER: copies_in(stack, READER), MEMBER: copies_in(stack, MEMBER), "": copies_outside(stack)}

    def copies_of(each: Sent) -> int:
        return copies.get(each.flow.recipient, copies[""])[each.message_id]

    counted = Round(
        victim, moment, load.acknowledged, sum(copies_of(each) > 0 for each in load.sent),
        sum(each.doubtful for each in load.sent),
        sum(max(0, copies_of(each) - 1) for each in load.sent if each.flow.name != "out"),
        sum(max(0, copies_of(each) - 1) for each in load.sent if each.flow.name == "out"), round(seconds, 1),
    )  # fmt: skip
    unexplained = [
        each for each in load.sent if each.flow.name != "out" and copies_of(each) > 1 + each.doubtful
    ]  # fmt: skip
    assert not unexplained, f"{len(unexplained)} messages are in a mailbox more often than they were offered"
    return counted


def rounds(stack: Stack, victims: list[str], messages: int, seed: int) -> list[Round]:
    """Play one round for each victim; prints each as it ends."""
    chance = random.Random(seed)
    played = []
    for number, victim in enumerate(victims):
        empty_mailboxes(stack)
        one = play(stack, victim, number % 2 == 1, messages, chance)
        played.append(one)
        print(
            f"{number + 1:2} {victim:13} killed after {one.killed_after:4}  acknowledged {one.acknowledged}"
            f"  found {one.found}  replies lost {one.doubtful}  further copies: in {one.extra_in}, out {one.extra_out}"
            f"  {one.seconds} s  {'held' if one.held() else 'BROKEN'}",
            flush=True,
        )
    return played


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults kills")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--messages", type=int, default=500, help="in, and as many out, each round")
    parser.add_argument("--seed", type=int, default=1047)
    given: Any = parser.parse_args(arguments)
    victims = [TURNS[number % len(TURNS)] for number in range(given.rounds)]
    project = os.environ.get("MAILSTEAD_TEST_PROJECT", f"mailstead-test-{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="mailstead-faults-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        with running(tree, project) as stack:
            prepare(stack)
            played = rounds(stack, victims, given.messages, given.seed)
            tracebacks = [service for service in set(victims) if "Traceback" in stack.logs(service)]
    print(
        f"{len(played)} kills: acknowledged {sum(one.acknowledged for one in played)}, found {sum(one.found for one in played)}, "
        f"replies lost {sum(one.doubtful for one in played)}, further copies in {sum(one.extra_in for one in played)}, "
        f"out {sum(one.extra_out for one in played)}; tracebacks in {tracebacks or 'no log'}"
    )
    return 0 if all(one.held() for one in played) and not tracebacks else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
