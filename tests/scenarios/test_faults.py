"""The process dies, or is told to end, in the middle of work: what it acknowledged is there afterwards, once."""

import contextlib
import functools
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable

from fakes import FakeMailServer, Script
from house import PASSWORD, House
from mailclients import ImapLine, deliver, letter, messages, until

SENDERS = 8


class Load:
    """Threads that send one message after the other and remember what was acknowledged."""

    def __init__(self, send: Callable[..., object], sender: str, recipient: str) -> None:
        self.acknowledged: list[str] = []
        self._send, self._sender, self._recipient = send, sender, recipient
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            each = letter(self._sender, self._recipient, body=b"y" * 60 + b"\r\n")
            try:
                self._send(message=each.message)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)
            else:
                self.acknowledged.append(each.message_id)

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.acknowledged) >= count, 30)

    def end(self) -> list[str]:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)
        return self.acknowledged


def ids_in(mailbox: dict[int, bytes]) -> Counter[str]:
    return Counter(
        line.split(b": ")[1].decode()
        for each in mailbox.values()
        for line in each.split(b"\r\n")
        if line.startswith(b"Message-ID: ")
    )


def test_killed_in_the_middle_of_deliveries_no_acknowledged_message_is_lost(new_house: Callable[..., House]) -> None:
    house = new_house()
    ann = house.account()
    acknowledged: list[str] = []
    for _ in range(3):
        send = functools.partial(deliver, house.port("smtp"), "friend@outside.test", [ann])
        load = Load(send, "friend@outside.test", ann)
        load.wait_for(40)
        house.kill()
        acknowledged += load.end()
        house.start()
    with house.imap(ann) as client:
        until(lambda: set(acknowledged) <= set(ids_in(messages(client))), 20)
        found = ids_in(messages(client))
    assert [each for each in acknowledged if found[each] != 1] == []
    staged = [path for path in (house.data / "mail" / ".incoming").iterdir() if path.is_file()]
    assert not staged, "what was half received when it was killed is gone"


def test_killed_in_the_middle_of_sending_the_queue_goes_on(new_house: Callable[..., House]) -> None:
    relay = FakeMailServer(Script(replies={}))
    house = new_house(RELAY_HOST="relay.test", RELAY_PORT=str(relay.port), RELAY_TLS="none")
    ann = house.account()
    acknowledged: list[str] = []
    for _ in range(3):
        login = (ann, PASSWORD)
        send = functools.partial(
            deliver, house.port("submissions"), ann, ["friend@outside.test"], tls="tls", login=login
        )
        load = Load(send, ann, "friend@outside.test")
        load.wait_for(20)
        house.kill()
        acknowledged += load.end()
        house.start()

    def arrived() -> Counter[str]:
        return Counter(
            line.split(b": ")[1].decode()
            for each in relay.received
            for line in each.message.split(b"\r\n")
            if line.startswith(b"Message-ID: ")
        )

    until(lambda: set(acknowledged) <= set(arrived()), 40)
    # RFC 1047: only what was in flight at a kill may go twice, and a relay is given four connections at most.
    assert sum(count - 1 for count in arrived().values()) <= 3 * 4
    relay.close()


def test_a_stop_keeps_the_queue_and_a_start_goes_on_with_it(new_house: Callable[..., House]) -> None:
    relay = FakeMailServer(Script(greeting="421 4.3.2 closed for today"))
    house = new_house(RELAY_HOST="relay.test", RELAY_PORT=str(relay.port), RELAY_TLS="none")
    ann = house.account()
    sent = [letter(ann, "friend@outside.test", subject=str(number)) for number in range(5)]
    for each in sent:
        house.submit(ann, "friend@outside.test", message=each.message)
    until(lambda: relay.connections > 0)
    assert house.stop() == 0
    relay.script.greeting = "220 relay.test open again"
    house.start()
    house.command("queue", "retry", "--all")
    received = relay.wait_for(5)
    assert {each.message_id for each in sent} == {
        each.message_id for each in sent for got in received if each.message_id.encode() in got.message
    }
    until(lambda: not house.asked("queue", "list")["messages"])
    relay.close()


def test_told_to_end_it_finishes_the_message_in_flight(new_house: Callable[..., House]) -> None:
    house = new_house()
    ann = house.account()
    sent = letter("friend@outside.test", ann)
    client = smtplib.SMTP("127.0.0.1", house.port("smtp"), "client.test", timeout=20)
    client.ehlo()
    client.mail("friend@outside.test")
    client.rcpt(ann)
    client.docmd("DATA")
    half = len(sent.message) // 2
    client.send(sent.message[:half])
    stopping = threading.Thread(target=house.stop)
    stopping.start()
    time.sleep(0.3)
    client.send(sent.message[half:] + b".\r\n")
    assert client.getreply()[0] == 250
    with contextlib.suppress(OSError, smtplib.SMTPException):
        client.quit()
    stopping.join(20)
    house.start()
    assert house.letter(ann, sent.message_id).endswith(sent.message)


def test_a_wrong_setting_stops_the_start_with_one_line(new_house: Callable[..., House]) -> None:
    import subprocess
    import sys

    house = new_house()
    house.stop()
    (house.folder / "env" / "mailstead.env").write_text("MAX_MESSAGE_SIZE=plenty\nMAX_MESAGE_SIZE=5\n")
    done = subprocess.run(
        [sys.executable, "-m", "services", "--data", house.data, "--env", house.folder / "env", "--ports", "auto"],
        cwd=house.folder, env=house.variables(), capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 78
    errors = [line for line in done.stderr.splitlines() if "cannot start" in line]
    assert len(errors) == 1 and "MAX_MESSAGE_SIZE" in errors[0] and "plenty" in errors[0]
    assert "MAX_MESAGE_SIZE" in done.stderr, "the misspelt one is named"
    assert "Traceback" not in done.stderr


def test_a_client_that_never_closes_does_not_hold_up_a_stop(new_house: Callable[..., House]) -> None:
    """Phones sleep: they read neither BYE nor the close of TLS, and the next start waits for this stop to end."""
    house = new_house(GRACE_SECONDS="15")
    ann = house.account()
    sleeping = [ImapLine(house.port("imaps")) for _ in range(5)]
    for each in sleeping:
        each.command(f'LOGIN {ann} "{PASSWORD}"')
        each.socket.sendall(b"i IDLE\r\n")
        assert each.line().startswith(b"+")
    started = time.monotonic()
    assert house.stop() == 0
    assert time.monotonic() - started < 8
    assert sleeping[0].line().startswith(b"* BYE")
