"""Log-ins: whom they let in, what a wrong one costs, what is recorded and told; bans over restarts."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.directory.lookup import DirectoryUnavailable
from services.directory.passwords import Busy
from services.imap import gate as gate_module
from services.imap.faults import Refusal
from services.imap.gate import Gate
from services.protocol.sasl import PasswordCredentials
from tests.unit.imap.imap_world import ANN, BOB, PASSWORD, Client, World, run, world

PEER = "192.0.2.7"


async def enter(place: World, login: str = ANN, password: str = PASSWORD, peer: str = PEER) -> str:
    """The account's address, or the refusal's code."""
    try:
        return (await place.gate.log_in(PasswordCredentials(login, password), peer, "t" * 16, "PLAIN")).address
    except Refusal as refusal:
        return refusal.code.decode()


@pytest.mark.parametrize("login", [ANN, "ann", "ANN@Example.TEST", "Ann"])
def test_a_login_is_an_address_or_a_user_name(tmp_path: Path, login: str) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            assert await enter(place, login) == ANN
            (event,) = place.record.of("login")
            assert (event["outcome"], event["account"], event["peer"], event["mechanism"]) == (
                "accept",
                ANN,
                PEER,
                "PLAIN",
            )
            ((kind, account, fields),) = place.facts.posted
            assert (kind, account, fields["service"]) == ("last-used", ANN, "imap")

    run(work())


@pytest.mark.parametrize(
    ("login", "password", "enabled", "reason"),
    [
        (ANN, "guess-7", True, "wrong password"),
        ("nobody", PASSWORD, True, "no such account"),
        (ANN, PASSWORD, False, "the account is disabled"),
    ],
)
def test_every_wrong_login_is_answered_alike_and_recorded_apart(
    tmp_path: Path, login: str, password: str, enabled: bool, reason: str
) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.directory.set(ANN, enabled=enabled)
            assert await enter(place, login, password) == "AUTHENTICATIONFAILED"
            (event,) = place.record.of("login")
            assert (event["outcome"], event["reason"]) == ("reject", reason)
            assert password not in str(event)
            assert place.facts.posted == []

    run(work())


def test_guesses_ban_the_address_and_the_ban_is_told_and_kept(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, ban_failures=3) as place:
            place.gate.throttle.rules = replace(place.gate.throttle.rules, longest_delay=0.01)
            for number in range(3):
                assert await enter(place, ANN, f"guess {number}") == "AUTHENTICATIONFAILED"
            # A good password is not looked at then, and the answer does not make a client forget it.
            assert await enter(place) == "UNAVAILABLE"
            assert await enter(place, peer="198.51.100.1") == ANN
            assert place.record.of("login")[-2]["reason"].startswith("address banned")
            (ban,) = place.record.of("ban")
            assert (ban["key"], ban["ban_kind"]) == (PEER, "address")
            assert [(kind, fields["key"]) for kind, _, fields in place.facts.posted if kind == "ban"] == [("ban", PEER)]
            place.gate.save()
        async with world(tmp_path) as place:
            assert await enter(place) == "UNAVAILABLE"
            assert place.gate.banned(PEER)
            assert [one.key for one in place.gate.unban(PEER)] == [PEER]
            assert place.record.of("unban")[0]["key"] == PEER
            assert await enter(place) == ANN

    run(work())


def test_a_gateway_from_which_everybody_comes_is_never_banned(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path, ban_failures=3) as place:
            gate = Gate(place.context, place.directory, place.gate._passwords, place.facts, [PEER])  # type: ignore[arg-type]
            gate.throttle.rules = replace(gate.throttle.rules, longest_delay=0.01)
            behind = replace(place, gate=gate)
            for number in range(6):
                assert await enter(behind, ANN, f"guess {number}") in ("AUTHENTICATIONFAILED", "UNAVAILABLE")
            assert not [ban for ban in gate.throttle.bans(place.context.clock()) if ban.key == PEER]

    run(work())


def test_a_banned_address_is_told_before_it_says_anything(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.gate.ban("127.0.0.1", "address", place.context.clock() + 60, "by the owner")
            client = await Client.connect(place.port)
            assert await client.response() == b"* BYE [UNAVAILABLE] too many wrong passwords; try again later\r\n"
            assert place.record.of("connect")[0]["reason"] == "address banned: by the owner"

    run(work())


def test_a_wrong_password_waits_for_its_answer_and_others_do_not(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.gate.throttle.rules = replace(place.gate.throttle.rules, first_delay=30)
            guesser, member = await Client.connect(place.port), await Client.connect(place.port)
            guesser.send(b"a LOGIN ann wrong\r\n")
            await member.response()
            await asyncio.wait_for(member.ok(f'LOGIN bob@example.test "{PASSWORD}"'), 5)
            await guesser.response()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(guesser.response(), 0.02)
            guesser.close()
            for task in asyncio.all_tasks():
                if task.get_coro().__qualname__ == "Connection._guarded":  # type: ignore[union-attr]
                    task.cancel()

    run(work())


def test_nothing_published_and_too_much_at_once_are_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpublished(name: str) -> Any:
        raise DirectoryUnavailable("not yet")

    async def busy(*_: object) -> bool:
        raise Busy("later")

    async def work() -> None:
        async with world(tmp_path) as place:
            with monkeypatch.context() as patch:
                patch.setattr(place.directory, "login", unpublished)
                assert await enter(place) == "UNAVAILABLE"
            with monkeypatch.context() as patch:
                patch.setattr(place.gate._passwords, "verify", busy)
                assert await enter(place) == "UNAVAILABLE"
            assert {event["outcome"] for event in place.record.of("login")} == {"defer"}
            assert await enter(place) == ANN

    run(work())


def test_an_old_hash_is_replaced_at_the_next_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "needs_rehash", lambda _: True)

    async def work() -> None:
        async with world(tmp_path) as place:
            assert await enter(place, BOB) == BOB
            ((_, _, _), (kind, account, fields)) = place.facts.posted
            assert (kind, account) == ("rehash", BOB)
            assert fields["hash"].startswith("$argon2id$") and fields["hash"] != fields["replaces"]

    run(work())


def test_bans_that_cannot_be_read_begin_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "bans.json").write_text('{"version": 1, "bans": [{}]}')

    async def work() -> None:
        async with world(tmp_path) as place:
            assert place.gate.throttle.bans(0) == ()
            assert await enter(place) == ANN

    run(work())
    assert "the list of bans cannot be read" in capsys.readouterr().err
