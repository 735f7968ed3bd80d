"""One attempt: every way a destination can answer, and what becomes of each recipient."""

import asyncio
import dataclasses
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from services.runtime import secrets
from services.runtime.dns import ZoneLookup
from services.runtime.secrets import Secrets
from services.runtime.values import Settings
from services.smtp.client import Timeouts, Tls
from services.smtp_out import attempt
from services.smtp_out.attempt import Attempted, Courier
from services.smtp_out.next_hop import LOCAL, RELAY, Hops
from services.smtp_out.tls_policy import TlsPolicy
from services.storage.queue import Waiting, Work
from services.storage.spool import Spool
from tests.certificates import issue
from tests.remote import CLOSE, RESET, STALL, Remote

QUICK = Timeouts(connect=2, greeting=0.2, command=0.2, data=0.2, block=0.2, final=0.2, quit=0.05)
BODY = b"Subject: x\r\n\r\nhello\r\n"
# Two servers: the first name is the better one. Both resolve to loopback addresses with one port.
ZONE: dict[tuple[str, str], list[object]] = {
    ("far.test", "MX"): [(10, "mx1.far.test"), (20, "mx2.far.test")],
    ("mx1.far.test", "A"): ["127.0.0.1"],
    ("mx2.far.test", "A"): ["127.0.0.2"],
    ("one.test", "MX"): [(10, "mx1.far.test")],
}


@dataclasses.dataclass
class Scene:
    """A spool with one message and a courier."""

    spool: Spool
    courier: Courier
    work: Work

    async def attempt(self, *to: str, destination: str = "one.test", **other: Any) -> Attempted:
        recipients = tuple(Waiting(address, 1, False) for address in to or ("bob@far.test",))
        work = dataclasses.replace(self.work, destination=destination, recipients=recipients, **other)
        return await self.courier.attempt(work)


async def scene(folder: Path, port: int, **settings: Any) -> Scene:
    spool = Spool(str(folder / "spool"))
    spool.remove("m1")
    draft = spool.draft("m1")
    draft.write(BODY)
    await draft.settle()
    spooled = await draft.commit(b"")
    secrets.make(str(folder / "secrets"), secrets.every_name())
    values: dict[str, Any] = {"mail_domain": "home.test", "mx_port": port}
    given = Settings(**(values | settings))
    courier = Courier(given, Secrets(str(folder / "secrets")), spool, Hops(given, ZoneLookup(ZONE)), QUICK)
    work = Work("m1", "0" * 16, "submission", "anna@home.test", "anna@home.test", 0, spooled, False, False, "", "", ())
    return Scene(spool, courier, work)


def play(folder: Path, test: Callable[[Scene], Awaitable[None]], *remotes: Remote, **settings: Any) -> None:
    async def run() -> None:
        async with contextlib_all(remotes):
            made = await scene(folder, remotes[0].port if remotes else 9, **settings)
            try:
                await test(made)
            finally:
                await made.courier.close()
                made.spool.close()

    asyncio.run(run())


class contextlib_all:
    """All servers on one port, each on its own loopback address."""

    def __init__(self, remotes: tuple[Remote, ...]) -> None:
        self.remotes = remotes

    async def __aenter__(self) -> None:
        for number, remote in enumerate(self.remotes):
            remote.host = f"127.0.0.{number + 1}"
            remote.port = self.remotes[0].port
            await remote.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        for remote in self.remotes:
            await remote.__aexit__()


ONE_SERVER = [
    # script → outcome, status, reached, words
    ({}, "delivered", "2.0.0", True, "250 2.0.0 taken"),
    ({"RCPT": "550 5.1.1 no such user"}, "failed", "5.1.1", True, "550 5.1.1 no such user"),
    ({"RCPT": "450 4.7.1 greylisted"}, "deferred", "4.7.1", True, "450 4.7.1 greylisted"),
    ({"RCPT": "552 5.2.2 full"}, "failed", "5.2.2", True, "552 5.2.2 full"),
    ({"RCPT": "552 too many"}, "deferred", "4.0.0", True, "552 too many"),
    ({"MAIL": "550 5.7.1 not you"}, "failed", "5.7.1", True, "550 5.7.1 not you"),
    ({"MAIL": "451 later"}, "deferred", "4.0.0", True, "451 later"),
    ({"DATA": "451 later"}, "deferred", "4.0.0", True, "451 later"),
    ({"DATA": "554 5.6.0 no"}, "failed", "5.6.0", True, "554 5.6.0 no"),
    ({"BODY": "451 4.3.2 later"}, "deferred", "4.3.2", True, "451 4.3.2 later"),
    ({"BODY": "554 5.7.1 spam"}, "failed", "5.7.1", True, "554 5.7.1 spam"),
    ({"BODY": "421 4.3.2 bye"}, "deferred", "4.3.2", True, "421 4.3.2 bye"),
    ({"MAIL": "421 4.3.2 bye"}, "deferred", "4.3.2", True, "421 4.3.2 bye"),
    ({"CONNECT": "421 busy"}, "deferred", "4.0.0", False, "421 busy"),
    ({"CONNECT": "554 5.7.1 your address is listed"}, "deferred", "4.7.1", False, "554 5.7.1 your address is listed"),
    ({"EHLO": "550 no", "HELO": "550 no"}, "deferred", "4.0.0", False, "550 no"),
    ({"CONNECT": CLOSE}, "deferred", "4.4.2", False, "closed the connection"),
    ({"CONNECT": STALL}, "deferred", "4.4.2", False, "no answer in time"),
    ({"MAIL": RESET}, "deferred", "4.4.2", True, ""),
    ({"DATA": CLOSE}, "deferred", "4.4.2", True, "closed the connection"),
    ({"BODY": STALL}, "deferred", "4.4.2", True, "no answer in time"),
    ({"MAIL": "what?"}, "deferred", "4.5.0", True, "does not speak SMTP"),
]


@pytest.mark.parametrize(("script", "outcome", "status", "reached", "words"), ONE_SERVER)
def test_one_server(script: Any, outcome: str, status: str, reached: bool, words: str, tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt()
        (said,) = attempted.said
        assert (said.outcome, said.status, attempted.reached) == (outcome, status, reached)
        assert words in said.text and said.remote == "mx1.far.test [127.0.0.1]"

    play(tmp_path, test, Remote(script))


def test_recipients_are_judged_one_by_one(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt("gone@far.test", "ok@far.test", "later@far.test")
        assert [said.outcome for said in attempted.said] == ["failed", "delivered", "deferred"]

    script = {"RCPT TO:<gone": "550 5.1.1 no", "RCPT TO:<later": "450 4.2.1 busy"}
    play(tmp_path, test, Remote(script))


def test_the_next_server_is_tried_where_the_first_is_away(tmp_path: Path) -> None:
    for script in (
        {"CONNECT": CLOSE},
        {"CONNECT": "554 no"},
        {"EHLO": "421 no"},
        {"RCPT": "450 later"},
        {"DATA": CLOSE},
    ):
        first, second = Remote(script), Remote(name="mx2.far.test")

        async def test(scene: Scene, second: Remote = second) -> None:
            attempted = await scene.attempt(destination="far.test")
            assert attempted.said[0].outcome == "delivered" and attempted.reached
            assert attempted.said[0].remote == "mx2.far.test [127.0.0.2]" and len(second.messages) == 1

        play(tmp_path, test, first, second)


def test_requiretls_asks_the_next_server_before_it_gives_up(tmp_path: Path) -> None:
    """RFC 8689 §4.2.1. TLS itself is left out here: `test_asked_reports` has it."""
    promising = (*Remote().extensions, "REQUIRETLS")
    for first, second, outcome in (
        (Remote(), Remote(name="mx2.far.test", extensions=promising), "delivered"),
        (Remote(), Remote(), "failed"),
        (Remote({"CONNECT": CLOSE}), Remote(), "deferred"),  # the one that is away may promise it
    ):

        async def test(scene: Scene, outcome: str = outcome, second: Remote = second) -> None:
            plain = TlsPolicy(Tls.NONE)
            with mock.patch.object(attempt, "tls_policy", lambda *_, **__: plain):
                attempted = await scene.attempt(destination="far.test", requiretls=True)
            (said,) = attempted.said
            assert said.outcome == outcome, said
            assert (said.status == "5.7.30") is (outcome == "failed")
            assert len(second.messages) == (outcome == "delivered")

        play(tmp_path, test, first, second)


def test_the_next_server_is_not_tried_where_the_first_decided(tmp_path: Path) -> None:
    for script in ({"RCPT": "550 no"}, {"BODY": "451 later"}, {"BODY": STALL}, {"BODY": "554 spam"}):
        first, second = Remote(script), Remote()

        async def test(scene: Scene, second: Remote = second) -> None:
            await scene.attempt(destination="far.test")
            assert second.connections == 0

        play(tmp_path, test, first, second)


def test_a_recipients_own_words_outlive_the_next_servers_silence(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        (said,) = (await scene.attempt(destination="far.test")).said
        assert said.reply == "450 4.7.1 greylisted" and said.remote.startswith("mx1")

    play(tmp_path, test, Remote({"RCPT": "450 4.7.1 greylisted"}), Remote({"CONNECT": CLOSE}))


def test_too_many_at_once_go_in_several_transactions(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt(*(f"p{number}@far.test" for number in range(25)))
        assert all(said.outcome == "delivered" for said in attempted.said)
        assert sorted(len(message.recipients) for message in remote.messages) == [5, 10, 10]

    count = 0

    def ten(command: str) -> str:
        nonlocal count
        count += 1
        return "250 ok" if count <= 10 else "452 4.5.3 too many"

    def again(command: str) -> str:
        nonlocal count
        count = 0
        return "250 ok"

    remote = Remote({"RCPT": ten, "MAIL": again})
    play(tmp_path, test, remote)


def test_a_session_is_kept_and_renewed(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        for _ in range(3):
            assert (await scene.attempt()).said[0].outcome == "delivered"
        assert remote.connections == 1 and len(remote.messages) == 3
        remote.replies = {"MAIL": [CLOSE, "250 ok"]}  # it went away between two messages: no failure
        assert (await scene.attempt()).said[0].outcome == "delivered"
        assert remote.connections == 2

    remote = Remote()
    play(tmp_path, test, remote)


def test_no_route(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt(destination="missing.test")
        (said,) = attempted.said
        assert (said.outcome, said.status, attempted.reached) == ("failed", "5.1.2", True)
        assert "does not exist" in said.reason and not said.reply

    play(tmp_path, test)


def test_nobody_listens(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt()
        assert not attempted.reached and attempted.said[0].status == "4.4.1"
        assert "cannot connect to 127.0.0.1" in attempted.said[0].reason

    play(tmp_path, test)


def test_ourselves_by_another_name(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        (said,) = (await scene.attempt()).said
        assert (said.outcome, said.status) == ("failed", "5.4.6") and "circle" in said.reason

    play(tmp_path, test, Remote(name="mail.home.test"))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.spool.remove("m1")
        (said,) = (await scene.attempt()).said
        assert said.outcome == "failed" and "missing" in said.reason

    play(tmp_path, test, Remote())


def test_a_file_that_lost_its_end_is_not_sent(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        size = scene.work.spooled.size
        scene.work = dataclasses.replace(scene.work, spooled=dataclasses.replace(scene.work.spooled, size=size + 5))
        (said,) = (await scene.attempt()).said
        assert said.outcome == "deferred" and "cannot be read" in said.reason and not remote.messages

    remote = Remote()
    play(tmp_path, test, remote)


# --- TLS


def tls_server(folder: Path, *names: str) -> ssl.SSLContext:
    issued = issue(*names, begins=-3650 * 86_400, lasts=7300 * 86_400)
    (folder / "chain.pem").write_bytes(issued.chain)
    (folder / "key.pem").write_bytes(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return context


def test_direct_mail_is_encrypted_where_it_can_be_whatever_the_certificate(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt()
        assert attempted.said[0].outcome == "delivered" and attempted.encrypted and remote.messages[0].tls

    remote = Remote(tls=tls_server(tmp_path, "somebody.else.test"))
    play(tmp_path, test, remote)


def test_direct_mail_goes_in_plain_where_tls_fails(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt()
        assert attempted.said[0].outcome == "delivered" and not attempted.encrypted
        assert remote.connections == 2

    # It answers STARTTLS and then does not know how.
    remote = Remote({"STARTTLS": "220 go"}, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    play(tmp_path, test, remote)


RELAY_SETTINGS = {"relay_host": "127.0.0.1", "relay_user": "us", "relay_password": "secret"}


def test_the_relays_certificate_must_be_right(tmp_path: Path) -> None:
    context = tls_server(tmp_path, "127.0.0.1", "localhost")
    remote = Remote(tls=context, extensions=("AUTH PLAIN",))

    async def refused(scene: Scene) -> None:
        attempted = await scene.attempt(destination=RELAY)
        assert attempted.said[0].outcome == "deferred" and "certificate" in attempted.said[0].reason
        assert not attempted.reached and not any(command.startswith("AUTH") for command in remote.commands)

    async def right(scene: Scene) -> None:
        attempted = await scene.attempt(destination=RELAY)
        assert attempted.said[0].outcome == "delivered", attempted.said[0].text
        assert remote.messages[0].tls

    async def run(test: Callable[[Scene], Awaitable[None]], ca_file: str) -> None:
        async with remote:
            made = await scene(tmp_path, 25, relay_port=remote.port, relay_ca_file=ca_file, **RELAY_SETTINGS)
            try:
                await test(made)
            finally:
                await made.courier.close()
                made.spool.close()
                made.spool.remove("m1")

    asyncio.run(run(refused, ""))
    asyncio.run(run(right, str(tmp_path / "chain.pem")))


def test_a_relay_without_starttls_gets_no_password(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        attempted = await scene.attempt(destination=RELAY)
        assert "does not offer STARTTLS" in attempted.said[0].reason and not attempted.reached

    async def run() -> None:
        async with Remote(extensions=("AUTH PLAIN",)) as remote:
            made = await scene(tmp_path, 25, relay_port=remote.port, **RELAY_SETTINGS)
            await test(made)
            made.spool.close()

    asyncio.run(run())


def test_a_log_in_that_the_relay_refuses_is_not_the_mails_fault(tmp_path: Path) -> None:
    async def run() -> None:
        async with Remote({"AUTH": "535 5.7.8 unknown"}, extensions=("AUTH PLAIN",)) as remote:
            made = await scene(tmp_path, 25, relay_port=remote.port, relay_tls="none", **RELAY_SETTINGS)
            attempted = await made.attempt(destination=RELAY)
            (said,) = attempted.said
            assert (said.outcome, attempted.reached) == ("deferred", False)
            assert said.reply == "535 5.7.8 unknown" and "log-in" in said.reason
            made.spool.close()

    asyncio.run(run())


def test_our_own_smtp_in_is_told_who_we_are_and_which_message(tmp_path: Path) -> None:
    async def run() -> None:
        async with Remote(lmtp=True, extensions=("XMAILSTEAD 1", "AUTH PLAIN")) as remote:
            made = await scene(tmp_path, 25, lmtp_address=f"127.0.0.1:{remote.port}")
            assert (await made.attempt(destination=LOCAL)).said[0].outcome == "delivered"
            assert remote.commands[0] == "LHLO mail.home.test" and remote.commands[1].startswith("AUTH PLAIN")
            assert f"XTRACE={'0' * 16}" in remote.messages[0].mail
            await made.courier.close()
            (tmp_path / "secrets" / "smtp-in+smtp-out").unlink()
            without = await scene(tmp_path / "other", 25, lmtp_address=f"127.0.0.1:{remote.port}")
            (tmp_path / "other" / "secrets" / "smtp-in+smtp-out").unlink()
            attempted = await without.attempt(destination=LOCAL)
            assert attempted.said[0].outcome == "deferred" and "secret" in attempted.said[0].reason
            made.spool.close()
            without.spool.close()

    asyncio.run(run())
