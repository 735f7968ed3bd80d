"""What senders ask of reports and of TLS, and what forwards may cost: kept in the queue, handed on, and kept to."""

import email
import email.policy
import ssl
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from services.protocol.smtp_parameters import RcptParameters
from services.smtp_out import tls_policy
from services.smtp_out.forward_budget import DAY, ForwardBudget
from services.smtp_out.next_hop import FORWARD, RELAY, destination_of
from services.smtp_out.reports import MOST_LETTERS, Reports
from services.storage.queue import Forwarded, Waiting, Work
from services.storage.spool import Spooled
from tests.certificates import issue
from tests.remote import Remote
from tests.unit.smtp_out.sendingroom import SendingRoom, until
from tests.unit.smtp_out.test_queue_room import forwarded, in_room
from tests.unit.smtp_out.test_submission import LETTER

DSN = ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "AUTH PLAIN")
SRS = "MAIL FROM:<SRS0=x=y=far.test=z@home.test>"


def report_in(body: bytes) -> Any:
    return email.message_from_bytes(body, policy=email.policy.default)


def status(report: Any) -> list[Any]:
    return list(report.iter_parts())[1].get_payload()  # type: ignore[no-any-return]


async def submitted(room: SendingRoom, options: list[str], recipient: str, parameters: str = "") -> None:
    def talk() -> None:
        with room.client() as client:
            client.login("anna@home.test", "correct horse battery")
            assert client.mail("anna@home.test", options)[0] == 250
            assert client.rcpt(recipient, parameters.split())[0] == 250
            assert client.data(LETTER)[0] == 250

    import asyncio

    await asyncio.to_thread(talk)


# --- who is told: RFC 3461 §4.1


@pytest.mark.parametrize(
    ("kind", "sender", "notify", "told"),
    [
        ("submission", "a@home.test", "", {"failed", "delayed"}),
        ("forward", "a@far.test", "", {"failed"}),
        ("submission", "a@home.test", "NEVER", set()),
        ("submission", "a@home.test", "SUCCESS", {"relayed"}),
        ("submission", "a@home.test", "DELAY", {"delayed"}),
        ("forward", "a@far.test", "SUCCESS,FAILURE,DELAY", {"failed", "delayed", "relayed"}),
        ("submission", "", "SUCCESS,FAILURE,DELAY", set()),  # RFC 5321 §4.5.5: nobody there to be told
        ("report", "", "SUCCESS", set()),
    ],
)
def test_who_is_told(kind: Any, sender: str, notify: str, told: set[str]) -> None:
    waiting = Waiting("bob@far.test", 1, False, RcptParameters(notify))
    work = Work("m", "t", kind, sender, "", 0, Spooled("m", 0, 1), False, False, "", "far.test", (waiting,))
    assert {each for each in ("failed", "delayed", "relayed") if Reports.wanted(work, waiting, each)} == told  # type: ignore[arg-type]


def test_handed_on_where_the_next_hop_reports(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.extensions = DSN
        asked = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bx@far.test"
        await submitted(room, ["RET=HDRS", "ENVID=QQ314159"], "bob@far.test", asked)
        (message,) = await until(lambda: room.relay.messages)
        assert message.mail.endswith("RET=HDRS ENVID=QQ314159")
        assert message.recipients == [f"RCPT TO:<bob@far.test> {asked}"]
        await until(lambda: not list((tmp_path / "spool" / "msg").iterdir()))
        assert not room.lmtp.messages and not room.events.of("bounced")

    in_room(tmp_path, test)


def test_told_that_it_was_handed_on_where_nobody_reports_further(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        await submitted(
            room, ["RET=FULL", "ENVID=QQ+2B1"], "bob@far.test", "NOTIFY=SUCCESS ORCPT=rfc822;Bob+2Bx@far.test"
        )
        (message,) = await until(lambda: room.lmtp.messages)
        assert "NOTIFY" not in room.relay.messages[0].recipients[0]
        report = report_in(message.body)
        about, bob = status(report)
        assert about["Original-Envelope-Id"] == "QQ+1"
        assert (bob["Action"], bob["Status"][0]) == ("relayed", "2")
        assert bob["Original-Recipient"] == "rfc822; Bob+x@far.test"
        # RFC 3461 §4.3: RET is about failures; a success gives back the header.
        assert list(report.iter_parts())[2].get_content_type() == "text/rfc822-headers"
        assert room.events.of("bounced", recipient="bob@far.test")

    in_room(tmp_path, test)


@pytest.mark.parametrize(
    ("options", "parameters", "kind"),
    [
        (["RET=FULL"], "", "message/rfc822"),
        (["RET=HDRS"], "", "text/rfc822-headers"),
        ([], "NOTIFY=FAILURE", "text/rfc822-headers"),
        ([], "NOTIFY=NEVER", ""),
        ([], "NOTIFY=SUCCESS", ""),
    ],
)
def test_a_failure_gives_back_what_was_asked(tmp_path: Path, options: list[str], parameters: str, kind: str) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT": "550 5.1.1 no"}
        await submitted(room, options, "bob@far.test", parameters)
        if not kind:
            (dropped,) = await until(lambda: room.events.of("dropped"))
            assert "as its sender asked" in dropped["reason"] and not room.lmtp.messages
            return
        (message,) = await until(lambda: room.lmtp.messages)
        third = list(report_in(message.body.replace(b"\r\n..", b"\r\n.")).iter_parts())[2]
        assert third.get_content_type() == kind
        if kind == "message/rfc822":
            assert LETTER.partition(b"\r\n\r\n")[2] in message.body.replace(b"\r\n..", b"\r\n.")

    in_room(tmp_path, test)


# --- forwards


FORWARD_LETTER = b"Delivered-To: family@home.test\r\n" + LETTER


def test_a_refused_forward_of_anybodys_is_told_to_the_owner_alone(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"BODY": "550 5.7.1 looks like spam"}
        await forwarded(room, SRS, "TO:<aunt@far.test> NOTIFY=NEVER", letter=FORWARD_LETTER)
        (message,) = await until(lambda: room.lmtp.messages)
        assert message.mail.startswith("MAIL FROM:<>") and message.recipients == ["RCPT TO:<anna@home.test>"]
        report = report_in(message.body)
        assert (
            report["Subject"].startswith("Not forwarded") and "looks like spam" in status(report)[1]["Diagnostic-Code"]
        )
        assert b"Hello." not in message.body.partition(b"rfc822-headers")[2]
        (dropped,) = room.events.of("dropped")
        assert "anna@home.test is told" in dropped["reason"] and dropped["report"]

    in_room(tmp_path, test)


def test_a_refused_forward_of_a_proven_sender_goes_back_to_them(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT TO:<aunt@": "550 5.1.1 no"}
        await forwarded(room, SRS, "aunt@far.test", letter=FORWARD_LETTER)
        (message,) = await until(lambda: room.lmtp.messages)
        assert message.recipients == ["RCPT TO:<SRS0=x=y=far.test=z@home.test>"]
        assert not room.events.of("dropped")

    in_room(tmp_path, test)


def test_nobodys_alias_is_the_administrators(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT TO:<aunt@": "550 5.1.1 no"}
        letter = b"Delivered-To: whoever@home.test\r\n" + LETTER
        await forwarded(room, SRS, "TO:<aunt@far.test> NOTIFY=NEVER", letter=letter)
        (message,) = await until(lambda: room.lmtp.messages)
        assert message.recipients == ["RCPT TO:<admin@home.test>"]

    in_room(tmp_path, test)


def test_a_forward_of_the_null_sender_tells_nobody(tmp_path: Path) -> None:
    """Else the letter about a letter that an alias sends on would make the next one."""

    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT TO:<aunt@": "550 5.1.1 no"}
        await forwarded(room, "MAIL FROM:<>", "TO:<aunt@far.test> NOTIFY=NEVER", letter=FORWARD_LETTER)
        (dropped,) = await until(lambda: room.events.of("dropped"))
        assert "no sender to tell" in dropped["reason"] and not room.lmtp.messages

    in_room(tmp_path, test)


def test_a_days_forwards_are_used_up_and_people_go_on_sending(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        for number in range(3):
            await forwarded(room, SRS, f"aunt{number}@far.test", letter=FORWARD_LETTER)
            await until(lambda number=number: number == 2 or len(room.relay.messages) == number + 1)
        (letter,) = await until(lambda: room.lmtp.messages)
        assert letter.recipients == ["RCPT TO:<admin@home.test>"] and b"Subject: 2 of 2 forwards" in letter.body
        assert len(room.events.of("forward-budget")) == 1
        assert (await room.send("anna@home.test", ["bob@far.test"], LETTER)).startswith("250")
        await until(lambda: len(room.relay.messages) == 3)
        assert room.relay.messages[2].mail.startswith("MAIL FROM:<anna@home.test>")
        # The count is on disk: a restart gives no new day.
        await room.stop()
        await room.start()
        (waiting,) = await room.queue()
        assert "used up (FORWARD_PER_DAY)" in waiting["recipients"][0]["last_reply"]
        assert waiting["recipients"][0]["destination"] == FORWARD + RELAY
        assert waiting["recipients"][0]["next"] % DAY == 0
        room.ahead = waiting["recipients"][0]["next"] - time.time() + 1
        await room.ask("POST", "/v1/queue/retry")
        await until(lambda: len(room.relay.messages) == 4)

    in_room(tmp_path, test, forward_per_day=2)


def test_the_budget() -> None:
    budget = ForwardBudget(10)
    budget.begin(Forwarded(5, 6))
    now = 5 * DAY + 100.0
    assert budget.grant(3, now) == 3
    assert budget.grant(3, now) == 1  # those in flight count
    assert budget.settled(3, 1, now) == Forwarded(5, 1, False)
    assert budget.settled(1, 1, now) == Forwarded(5, 1, True)  # 8 of 10
    assert budget.settled(0, 1, now) == Forwarded(5, 1, False)  # told once
    assert budget.grant(3, now - 7200) == 1  # a clock that was set back
    assert budget.settled(1, 0, now) == Forwarded(5, 0, False)
    assert budget.tomorrow(now) == 6 * DAY and budget.grant(30, now + DAY) == 10
    assert ForwardBudget(0).grant(1000, now) == 1000


def test_forwards_go_their_own_way(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        await forwarded(room, SRS, "aunt@far.test", letter=FORWARD_LETTER)
        (message,) = await until(lambda: room.world.messages)
        assert message.mail.startswith(SRS) and not room.relay.messages

    in_room(tmp_path, test, forward_route="direct")


def test_where_a_forward_goes() -> None:
    class Ours:
        def is_local(self, domain: str, /) -> bool:
            return domain == "home.test"

    from services.runtime.values import Settings

    relayed, direct = Settings(relay_host="relay.test"), Settings()
    table = [
        (relayed, "", "forward:relay"),
        (relayed, "relay", "forward:relay"),
        (relayed, "direct", "forward:far.test"),
        (direct, "", "forward:far.test"),
        (direct, "relay", "forward:far.test"),
    ]
    import dataclasses

    for settings, route, wanted in table:
        given = dataclasses.replace(settings, forward_route=route)
        assert destination_of("a@Far.test", Ours(), given, "forward") == wanted
        assert destination_of("a@home.test", Ours(), given, "forward") == "local"
        assert not destination_of("a@far.test", Ours(), given).startswith(FORWARD)


# --- REQUIRETLS: RFC 8689


MX = issue("mx.far.test", now=time.time())


async def required(room: SendingRoom) -> None:
    await submitted(room, ["REQUIRETLS", "RET=FULL"], "bob@far.test")


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        chain.write_bytes(MX.chain)
        key.write_bytes(MX.key)
        context.load_cert_chain(chain, key)
    return context


def trusting(verify: bool, ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=MX.chain.decode())
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    ("extensions", "tls", "trusted", "arrives"),
    [
        (("REQUIRETLS",), True, True, True),
        ((), True, True, False),  # it does not promise to protect it further
        (("REQUIRETLS",), True, False, False),  # anybody's certificate
        (("REQUIRETLS",), False, True, False),  # no TLS
    ],
)
def test_requiretls(tmp_path: Path, extensions: tuple[str, ...], tls: bool, trusted: bool, arrives: bool) -> None:
    async def test(room: SendingRoom) -> None:
        world: Remote = room.world
        world.extensions = (*world.extensions, *extensions, *(["STARTTLS"] if tls else []))
        world.tls = server_tls() if tls else None
        room.lmtp.extensions = (*room.lmtp.extensions, "REQUIRETLS")
        made = trusting if trusted else lambda verify, ca_file: ssl.create_default_context()
        with mock.patch.object(tls_policy, "_context", made):
            await required(room)
            await until(lambda: room.world.messages or room.lmtp.messages)
        if arrives:
            assert world.messages[0].tls and "REQUIRETLS" in world.messages[0].mail
            return
        assert not world.messages
        (message,) = room.lmtp.messages
        assert "REQUIRETLS" in message.mail  # §5: protected as the message was
        report = report_in(message.body)
        assert status(report)[1]["Status"] == "5.7.30"
        assert list(report.iter_parts())[2].get_content_type() == "text/rfc822-headers"  # whatever RET said

    in_room(tmp_path, test, direct=True)


def test_an_owner_is_written_to_a_few_times_a_day(tmp_path: Path) -> None:
    async def test(room: SendingRoom) -> None:
        room.relay.replies = {"RCPT TO:<aunt": "550 5.1.1 no"}
        for number in range(MOST_LETTERS + 2):
            await forwarded(room, SRS, f"TO:<aunt{number}@far.test> NOTIFY=NEVER", letter=FORWARD_LETTER)
        dropped = await until(lambda: len(each := room.events.of("dropped")) == MOST_LETTERS + 2 and each)
        assert sum("was told of" in each["reason"] for each in dropped) == 2
        await until(lambda: len(room.lmtp.messages) == MOST_LETTERS)

    in_room(tmp_path, test)


def test_mail_for_our_own_people_needs_no_promise_of_tls(tmp_path: Path) -> None:
    """An smtp-in of before REQUIRETLS, in the middle of an update."""

    async def test(room: SendingRoom) -> None:
        await submitted(room, ["REQUIRETLS"], "ben@home.test")
        (message,) = await until(lambda: room.lmtp.messages)
        assert "REQUIRETLS" not in message.mail

    in_room(tmp_path, test)
