"""The endpoints for other rooms: hints, provisioning, deletion and its 30 days, usage, bans, a backup's list."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.directory.models import Account
from services.imap.api import KEEP_SECONDS
from services.runtime.internal_http import BadRequest, Request, Response
from tests.unit.imap.imap_world import ANN, BOB, Client, World, letters, run, until, world

SCRIPTS = "/v1/accounts/(?P<address>[^/]+)/sieve"
SCRIPT = SCRIPTS + "/(?P<name>[^/]+)"


async def ask(place: World, method: str, path: str, body: Any = None, room: str = "admin", **query: str) -> Response:
    found = place.api.routes().find(method, path)
    assert not isinstance(found, int), found
    route, params = found
    assert room in route.allow
    octets = b"" if body is None else json.dumps(body).encode()
    return await route.handler(Request(method, path, query, {}, octets, room, params))


def test_who_may_ask_what(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            allowed = {(route.method, route.pattern.pattern): set(route.allow) for route in place.api.routes()._routes}
            assert allowed == {
                ("POST", "/v1/hint"): {"smtp-in"},
                ("POST", "/v1/provision"): {"smtp-in", "admin"},
                ("DELETE", "/v1/mail/(?P<address>[^/]+)"): {"admin"},
                ("GET", "/v1/usage"): {"admin"},
                ("GET", "/v1/bans"): {"admin"},
                ("POST", "/v1/bans"): {"admin"},
                ("DELETE", "/v1/bans"): {"admin"},
                ("GET", "/v1/manifest"): {"admin"},
                ("GET", SCRIPTS): {"admin"},
                ("POST", SCRIPTS + "/check"): {"admin"},
                ("GET", SCRIPT): {"admin"},
                ("PUT", SCRIPT): {"admin"},
                ("DELETE", SCRIPT): {"admin"},
                ("POST", SCRIPT + "/activate"): {"admin"},
                ("POST", SCRIPT + "/deactivate"): {"admin"},
                ("POST", SCRIPT + "/rename"): {"admin"},
                ("POST", "/v1/mailbox"): {"smtp-in"},
            }

    run(work())


def test_a_hint_reaches_a_waiting_client(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            client = await Client.logged_in(place.port, select="INBOX")
            client.send(b"i IDLE\r\n")
            await client.response()
            place.deliver(b"x\r\n")
            item = {"account": "Ann@Example.test", "mailbox": "INBOX", "name": "x"}
            assert (await ask(place, "POST", "/v1/hint", {"items": [item]}, "smtp-in")).status == 200
            assert await client.response() == b"* 1 EXISTS\r\n"

    run(work())


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/hint", {}),
        ("POST", "/v1/hint", []),
        ("POST", "/v1/hint", {"items": "x"}),
        ("POST", "/v1/hint", {"items": [{}]}),
        ("POST", "/v1/hint", {"items": [{"account": ANN, "mailbox": 7}]}),
        ("POST", "/v1/hint", {"items": [{"account": ANN}] * 1001}),
        ("POST", "/v1/provision", {}),
        ("POST", "/v1/provision", {"address": "ann"}),
        ("POST", "/v1/provision", {"address": "@example.test"}),
        ("POST", "/v1/bans", {"key": "x"}),
        ("POST", "/v1/bans", {"key": "x", "kind": "nonsense", "until": 1}),
        ("POST", "/v1/bans", {"key": "", "kind": "address", "until": 1}),
        ("DELETE", "/v1/bans", {}),
        ("DELETE", "/v1/bans", None),
        ("DELETE", "/v1/mail/nonsense", None),
    ],
)
def test_wrong_requests_are_refused(tmp_path: Path, method: str, path: str, body: Any) -> None:
    room = "smtp-in" if path == "/v1/hint" else "admin"

    async def work() -> None:
        async with world(tmp_path) as place:
            with pytest.raises(BadRequest):
                await ask(place, method, path, body, room)

    run(work())


def test_provisioning_makes_the_folders_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            for made in (True, False):
                answer = await ask(place, "POST", "/v1/provision", {"address": "New@example.test"}, "smtp-in")
                assert answer.json() == {"made": made}
            folder = place.maildir("new@example.test")
            assert {path.name for path in folder.iterdir()} >= {"cur", "new", "tmp", ".Sent", ".Junk", ".Trash"}

    run(work())


def test_deleted_mail_is_kept_thirty_days(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(b"dear\r\n")
            client = await Client.logged_in(place.port, select="INBOX")
            answer = (await ask(place, "DELETE", f"/v1/mail/{ANN}")).json()
            assert answer["purged"] is False
            assert not place.maildir().exists()
            (kept,) = (tmp_path / "mail" / ".deleted").iterdir()
            assert any(path.is_file() for path in kept.rglob("*"))
            # The session that had it open ends, others go on.
            assert await client.response() == b"* BYE [UNAVAILABLE] the account was deleted\r\n"
            place.context.clock = lambda: answer["until"] - 60
            await place.api._tidy()
            assert kept.exists()
            place.context.clock = lambda: answer["until"] + 60
            await place.api._tidy()
            assert not kept.exists()
            assert answer["until"] - KEEP_SECONDS > 0

    run(work())


def test_purged_mail_is_gone_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(b"dear\r\n", BOB)
            answer = await ask(place, "DELETE", f"/v1/mail/{BOB}", purge="1")
            assert answer.json()["purged"] is True
            assert not place.maildir(BOB).exists()
            # Asked again, as after a lost answer, it is done as well.
            assert (await ask(place, "DELETE", f"/v1/mail/{BOB}", purge="1")).status == 200
            # And an account made anew begins empty.
            client = await Client.logged_in(place.port, BOB)
            assert b"* STATUS INBOX (MESSAGES 0)\r\n" in await client.ok("STATUS INBOX (MESSAGES)")

    run(work())


def test_usage_of_one_and_of_all(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            for message in letters(3):
                place.deliver(message)
            everybody = (await ask(place, "GET", "/v1/usage")).json()["accounts"]
            assert everybody == {ANN: {"bytes": 201, "messages": 3}, BOB: {"bytes": 0, "messages": 0}}
            one = (await ask(place, "GET", "/v1/usage", account=ANN)).json()["accounts"]
            assert one == {ANN: {"bytes": 201, "messages": 3}}

    run(work())


def test_bans_by_hand(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            until_then = place.context.clock() + 600
            ban = {"key": "192.0.2.1", "kind": "address", "until": until_then, "reason": "a bot"}
            await ask(place, "POST", "/v1/bans", ban)
            (listed,) = (await ask(place, "GET", "/v1/bans")).json()["bans"]
            assert {name: listed[name] for name in ban} == ban
            assert place.gate.banned("192.0.2.1")
            (lifted,) = (await ask(place, "DELETE", "/v1/bans", key="192.0.2.1")).json()["lifted"]
            assert lifted["key"] == "192.0.2.1"
            assert (await ask(place, "DELETE", "/v1/bans", {"key": "192.0.2.1"})).json() == {"lifted": []}

    run(work())


def test_the_manifest_names_every_message(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            for message in letters(2):
                place.deliver(message)
            place.deliver(b"sent\r\n", mailbox=".Sent")
            answer = (await ask(place, "GET", "/v1/manifest", account=ANN)).json()
            assert len(answer["files"]) == 3
            assert all((Path(answer["folder"]) / name).is_file() for name in answer["files"])
            assert (await ask(place, "GET", "/v1/manifest", account="x@example.test")).status == 404

    run(work())


def test_new_accounts_get_their_folders_when_the_directory_changes(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            await place.api.provision_all()
            place.directory.people["eve@example.test"] = Account("eve@example.test", "example.test", "eve")
            place.directory.generation += 1
            follower = place.desk.group.create_task(place.api.follow())
            await until(lambda: (place.maildir("eve@example.test") / "cur").is_dir())
            follower.cancel()

    run(work())


def test_a_disabled_account_loses_its_sessions(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            ann = await Client.logged_in(place.port, select="INBOX")
            bob = await Client.logged_in(place.port, BOB)
            ann.send(b"i IDLE\r\n")
            await ann.response()
            place.directory.set(ANN, enabled=False)
            place.api.dismiss_disabled()
            assert await ann.response() == b"* BYE [UNAVAILABLE] the account was disabled\r\n"
            await bob.ok("NOOP")

    run(work())
