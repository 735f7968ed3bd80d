"""What the page asks for a person about their junk: the list, "not junk", "this is junk", and what that teaches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.imap.junk_api import JunkApi
from services.imap.lesson import Lesson
from services.runtime.internal_http import BadRequest, Request, Routes
from tests.unit.imap.imap_world import ANN, World, run, world

LETTER = b"Message-ID: <%s@else.example>\r\nFrom: =?utf-8?q?B=C3=B6b?= <bob@else.example>\r\nSubject: %s\r\n\r\nbuy\r\n"


class Desk:
    """The endpoints over a world, and what was taught."""

    def __init__(self, place: World) -> None:
        self.taught: list[tuple[str, Lesson]] = []
        self._routes = Routes()
        api = JunkApi(place.context, place.directory, place.accounts, self._teach)  # type: ignore[arg-type]
        api.add_to(self._routes)

    def _teach(self, address: str, lessons: Sequence[Lesson]) -> None:
        self.taught += [(address, lesson) for lesson in lessons]

    async def ask(self, method: str, what: str, body: Any = None, address: str = ANN, **query: str) -> Any:
        path = f"/v1/accounts/{address}/{what}"
        found = self._routes.find(method, path)
        assert not isinstance(found, int)
        route, params = found
        assert route.allow == {"admin"}
        octets = b"" if body is None else json.dumps(body).encode()
        answer = await route.handler(Request(method, path, query, {}, octets, "admin", params))
        return answer.status, answer.json()


def test_a_message_goes_out_of_junk_and_back_and_teaches(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            desk = Desk(place)
            place.deliver(LETTER % (b"1", b"one"), mailbox=".Junk")
            place.deliver(LETTER % (b"2", b"two"), mailbox=".Junk")
            status, found = await desk.ask("GET", "recent", place="junk")
            assert status == 200 and found["mailbox"] == "Junk" and found["count"] == 2
            subjects = {each["subject"] for each in found["messages"]}
            assert subjects == {"one", "two"} and found["messages"][0]["from"] == "Böb <bob@else.example>"
            assert [each["uid"] for each in found["messages"]] == [2, 1], "newest first"
            first = found["messages"][-1]
            named = {"uidvalidity": found["uidvalidity"], "uid": first["uid"]}
            assert await desk.ask("POST", "not-junk", named) == (200, {"mailbox": "INBOX", "uid": 1})
            assert desk.taught == [(ANN, Lesson("good", "INBOX", (1,)))]
            assert (await desk.ask("POST", "not-junk", named))[0] == 404, "pressed twice"
            inbox = (await desk.ask("GET", "recent", place="inbox"))[1]
            assert [each["message_id"] for each in inbox["messages"]] == [first["message_id"]]
            assert (await desk.ask("POST", "junk", {"message_id": first["message_id"]}))[0] == 200
            assert desk.taught[1:] == [(ANN, Lesson("junk", "Junk", (3,)))]
            moves = [event for event in place.record.of("move") if event.get("via") == "page"]
            assert [(event["mailbox"], event["target"]) for event in moves] == [("junk", "INBOX"), ("inbox", "Junk")]

    run(work())


def test_an_old_name_of_a_message_names_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            desk = Desk(place)
            place.deliver(LETTER % (b"1", b"one"), mailbox=".Junk")
            found = (await desk.ask("GET", "recent"))[1]
            stale = {"uidvalidity": found["uidvalidity"] + 1, "uid": 1}
            assert (await desk.ask("POST", "not-junk", stale))[0] == 404
            assert (await desk.ask("POST", "not-junk", {**stale, "message_id": "<1@else.example>"}))[0] == 200
            assert (await desk.ask("POST", "not-junk", {"message_id": "<9@else.example>"}))[0] == 404
            assert (await desk.ask("POST", "not-junk", {"message_id": "<>"}))[0] == 404

    run(work())


@pytest.mark.parametrize(
    ("method", "what", "body", "query"),
    [
        ("GET", "recent", None, {"place": "Sent"}),
        ("GET", "recent", None, {"limit": "0"}),
        ("GET", "recent", None, {"limit": "９"}),
        ("GET", "recent", None, {"limit": "99999999999"}),
        ("POST", "junk", {}, {}),
        ("POST", "junk", [], {}),
        ("POST", "not-junk", {"uid": 1}, {}),
        ("POST", "not-junk", {"uid": -1, "uidvalidity": 1}, {}),
        ("POST", "not-junk", {"message_id": " "}, {}),
    ],
)
def test_wrong_questions(tmp_path: Path, method: str, what: str, body: Any, query: dict[str, str]) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            with pytest.raises(BadRequest):
                await Desk(place).ask(method, what, body, **query)

    run(work())


def test_an_account_that_is_not_there_and_a_junk_that_was_deleted(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            desk = Desk(place)
            assert (await desk.ask("GET", "recent", address="nobody@example.test"))[0] == 404
            account = await place.accounts.open(ANN)
            await account.run(lambda: account.store.delete("Junk"))
            place.accounts.release(account)
            assert (await desk.ask("GET", "recent"))[1]["messages"] == []
            assert (await desk.ask("POST", "not-junk", {"message_id": "<1@x>"}))[0] == 404
            place.deliver(LETTER % (b"1", b"one"))
            assert (await desk.ask("POST", "junk", {"message_id": "<1@else.example>"}))[0] == 200
            assert (await desk.ask("GET", "recent"))[1]["count"] == 1

    run(work())


def test_headers_of_strangers_are_bounded(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(b"Subject: " + b"x" * 100_000 + b"\r\n\r\n", mailbox=".Junk")
            place.deliver(b"no header at all\r\n", mailbox=".Junk")
            found = (await Desk(place).ask("GET", "recent"))[1]["messages"]
            assert sorted(len(each["subject"]) for each in found) == [0, 300]

    run(work())


def test_what_was_learned_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.deliver(LETTER % (b"1", b"one"))
            account = await place.accounts.open(ANN)
            await account.run(lambda: account.store.mailbox("INBOX"))
            place.trainer.take(ANN, [Lesson("junk", "INBOX", (1,))])
            await place.trainer.drain()
            place.accounts.release(account)
            routes = Routes()
            JunkApi(place.context, place.directory, place.accounts, place.trainer.take).add_to(routes)  # type: ignore[arg-type]
            found = routes.find("GET", "/v1/junk")
            assert not isinstance(found, int)
            assert found[0].allow == {"admin"}
            for query, accounts in (({}, 2), ({"account": ANN}, 1)):
                answer = await found[0].handler(Request("GET", "/v1/junk", query, {}, b"", "admin", {}))
                told = answer.json()["accounts"]
                assert len(told) == accounts
                assert (told[0]["account"], told[0]["junk"], told[0]["good"]) == (ANN, 1, 0)
                assert told[0]["octets"] > 64
                assert told[0]["used"] is False
            nobody = Request("GET", "/v1/junk", {"account": "nobody@example.test"}, {}, b"", "admin", {})
            assert (await found[0].handler(nobody)).status == 404

    run(work())
