"""admin's side of an update: who is held and released, that the directory is closed meanwhile, and its snapshots."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.admin import holding, room, snapshots, transaction
from services.admin.snapshots import Snapshots, put_back
from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.errors import Closed
from services.directory.publish import Publisher
from services.runtime.internal_http import Client, PeerRefused
from tests.power_cut import NAMES_LOST, power_cut
from tests.unit.admin.admin_room import ADMIN, AdminRoom, log_in, token, until

ROOMS = ["smtp-in", "smtp-out", "imap"]


def tell(admin: AdminRoom, verb: str, **body: Any) -> Any:
    """As the updater; the answer's JSON, or the status where it is an error."""

    async def ask() -> Any:
        client = Client("updater", admin.context.secrets, "admin", f"http://127.0.0.1:{admin.context.ports['http']}")
        try:
            return (await client.post(f"/v1/update/{verb}", body)).json()
        except PeerRefused as refused:
            return refused.response.status
        finally:
            client.close()

    return asyncio.run(ask())


def api_of(admin: AdminRoom) -> httpx.Client:
    return admin.client(auth=None, headers=token(admin), base_url=admin.url + "/api/v1")


def asked(admin: AdminRoom, path: str) -> list[str]:
    return [each[0] for each in admin.peers.asked if each[2] == path]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "RETRY_SECONDS", 0.01)


# --- hold and release


def test_a_hold_goes_to_every_room_that_faces_the_world(new_room: Callable[[], AdminRoom]) -> None:
    admin = new_room()
    assert tell(admin, "hold", id="u1", seconds=120) == {"held": ROOMS, "away": []}
    questions = [each[3] for each in admin.peers.asked if each[2] == "/v1/hold"]
    assert len(questions) == 3
    for question in questions:
        assert question["id"] == "u1" and 119 < question["seconds"] <= 120
        assert question["account"] == "mailstead-gate@example.test"
    assert tell(admin, "release", id="u1") == {"released": ROOMS, "away": []}
    assert asked(admin, "/v1/release") == ROOMS
    assert [(each["kind"], each["trace"]) for each in admin.recorded() if each["kind"] == "hold"] == [
        ("hold", "u1")
    ] * 2


def test_a_room_that_is_away_is_told_when_it_is_back(new_room: Callable[[], AdminRoom], quick: None) -> None:
    admin = new_room()
    admin.peers.away.add("imap")
    assert tell(admin, "hold", id="u1", seconds=120) == {"held": ["smtp-in", "smtp-out"], "away": ["imap"]}
    admin.peers.asked.clear()
    admin.peers.away.clear()
    until(lambda: asked(admin, "/v1/hold") == ["imap"])
    admin.peers.away.add("smtp-in")
    assert tell(admin, "release", id="u1")["away"] == ["smtp-in"]
    admin.peers.asked.clear()
    admin.peers.away.clear()
    until(lambda: asked(admin, "/v1/release") == ["smtp-in"])


def test_a_new_admin_asks_the_rooms_anew_since_the_gate_comes_from_another_place(
    new_room: Callable[[], AdminRoom], quick: None
) -> None:
    admin = new_room()
    tell(admin, "hold", id="u1", seconds=120)
    admin.stop()
    admin.peers.asked.clear()
    admin = new_room()
    until(lambda: sorted(asked(admin, "/v1/hold")) == sorted(ROOMS))
    with api_of(admin) as api:
        assert api.post("/domains", json={"name": "new.test"}).status_code == 503


def test_nobody_but_the_updater_may_ask(new_room: Callable[[], AdminRoom]) -> None:
    admin = new_room()

    async def ask(verb: str) -> int:
        client = Client("imap", admin.context.secrets, "admin", f"http://127.0.0.1:{admin.context.ports['http']}")
        try:
            await client.post(f"/v1/update/{verb}", {"id": "u1", "seconds": 5, "outcome": "committed"})
        except PeerRefused as refused:
            return refused.response.status
        finally:
            client.close()
        return 200

    for verb in ("hold", "release", "snapshot", "settled"):
        assert asyncio.run(ask(verb)) == 403, verb


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("hold", {"id": "u1"}), ("hold", {"id": "u1", "seconds": 1e9}), ("hold", {"id": "..", "seconds": 5}),
        ("release", {}), ("snapshot", {"id": "a/b"}), ("settled", {"id": "u1", "outcome": "perhaps"}),
    ],
)  # fmt: skip
def test_what_is_no_question(new_room: Callable[[], AdminRoom], verb: str, body: dict[str, Any]) -> None:
    assert tell(new_room(), verb, **body) == 400


# --- the directory is closed


CHANGES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/domains", {"name": "new.test"}),
    ("DELETE", "/domains/example.test", None),
    ("POST", "/accounts", {"address": "new@example.test"}),
    ("PATCH", f"/accounts/{ADMIN}", {"enabled": True}),
    ("PUT", f"/accounts/{ADMIN}/password", {"password": "another good one"}),
    ("DELETE", f"/accounts/{ADMIN}", None),
    ("DELETE", "/accounts/gone@example.test?purge=true", None),
    ("POST", "/aliases", {"source": "x@example.test", "target": ADMIN}),
    ("DELETE", "/aliases?source=x@example.test", None),
]


def test_no_change_while_held_and_all_of_them_after(new_room: Callable[[], AdminRoom]) -> None:
    admin = new_room()
    tell(admin, "snapshot", id="u1")
    with api_of(admin) as api:
        for method, path, body in CHANGES:
            answer = api.request(method, path, json=body)
            assert answer.status_code == 503, (method, path, answer.text)
            assert answer.json()["error"] == holding.CLOSED
        assert api.get("/accounts").status_code == 200, "reading goes on"
        tell(admin, "release", id="u1")
        for method, path, body in CHANGES:
            assert api.request(method, path, json=body).status_code != 503, (method, path)


def test_the_language_is_for_this_browser_alone_while_held(new_room: Callable[[], AdminRoom]) -> None:
    admin = new_room()
    password = (Path(admin.context.settings.admin_dir) / "first-password").read_text().strip()
    with admin.client(auth=None, headers={"Accept-Language": "en"}) as client:
        log_in(client, password=password)
        found = re.search(r'name="form_token" value="(\w+)"', client.get("/me").text)
        assert found
        tell(admin, "hold", id="u1", seconds=60)
        answer = client.post("/language", data={"language": "zh-CN", "back": "/me", "form_token": found[1]})
        assert (answer.status_code, answer.headers["location"]) == (303, "/me")
        page = client.get("/me").text
        assert '<html lang="zh-CN">' in page and 'role="alert"' in page


def test_facts_wait_in_their_rooms(new_room: Callable[[], AdminRoom]) -> None:
    admin = new_room()
    fact = {"id": "f1", "kind": "last-used", "account": ADMIN, "at": 5.0}

    async def post() -> int:
        client = Client("imap", admin.context.secrets, "admin", f"http://127.0.0.1:{admin.context.ports['http']}")
        try:
            return (await client.post("/v1/facts", {"facts": [fact]})).status
        except PeerRefused as refused:
            return refused.response.status
        finally:
            client.close()

    tell(admin, "hold", id="u1", seconds=60)
    assert asyncio.run(post()) == 503, "kept and sent again: what is taken now, a roll back would lose"
    tell(admin, "release", id="u1")
    assert asyncio.run(post()) == 200


# --- snapshots


def add_account(admin: AdminRoom, address: str) -> int:
    with api_of(admin) as api:
        return api.post("/accounts", json={"address": address}).status_code


def accounts(admin: AdminRoom) -> set[str]:
    with api_of(admin) as api:
        return {each["address"].partition("@")[0] for each in api.get("/accounts").json()["accounts"]}


def as_code(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    for module in (room, transaction):
        monkeypatch.setattr(module, "code_version", lambda: version)


def migrated(folder: Path, *, version: int = 99) -> None:
    """What a newer admin would have made of the directory."""
    with sqlite3.connect(folder / "admin" / "directory.db") as database:
        database.execute("CREATE TABLE newer (x)")
        database.execute(f"PRAGMA user_version={version}")


def test_the_old_code_finds_its_directory_again_and_the_new_one_goes_on(
    new_room: Callable[[], AdminRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_code(monkeypatch, "old")
    admin = new_room()
    assert add_account(admin, "anna@example.test") == 201
    assert tell(admin, "snapshot", id="u1") == {"id": "u1", "code": "old"}
    as_code(monkeypatch, "new")
    admin = new_room()
    assert (admin.folder / "admin/snapshots/u1").is_dir(), "the new code leaves it"
    admin.stop()
    migrated(admin.folder)
    as_code(monkeypatch, "old")
    admin = new_room()  # would not start on a schema that it does not know
    assert accounts(admin) == {"admin", "anna"}
    assert any("as it was before the update u1" in str(each.get("reason")) for each in admin.recorded())
    assert tell(admin, "settled", id="u1", outcome="rolled-back") == {}
    assert tell(admin, "settled", id="u1", outcome="rolled-back") == {}
    assert not list((admin.folder / "admin/snapshots").iterdir())


def test_a_committed_update_leaves_nothing_behind(
    new_room: Callable[[], AdminRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_code(monkeypatch, "old")
    admin = new_room()
    tell(admin, "snapshot", id="u1")
    as_code(monkeypatch, "new")
    admin = new_room()
    tell(admin, "release", id="u1")
    tell(admin, "settled", id="u1", outcome="committed")
    assert add_account(admin, "anna@example.test") == 201
    as_code(monkeypatch, "old")
    assert accounts(new_room()) == {"admin", "anna"}, "an older version that is installed later by hand goes on"


def test_what_was_changed_after_an_update_that_was_never_settled_is_not_lost(
    new_room: Callable[[], AdminRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_code(monkeypatch, "old")
    admin = new_room()
    tell(admin, "snapshot", id="u1")
    as_code(monkeypatch, "new")
    admin = new_room()
    tell(admin, "release", id="u1")  # and then the updater died
    assert add_account(admin, "anna@example.test") == 201
    as_code(monkeypatch, "old")
    admin = new_room()
    assert accounts(admin) == {"admin", "anna"}
    assert not list((admin.folder / "admin/snapshots").iterdir())


def test_a_directory_that_cannot_be_read_is_kept_aside(
    new_room: Callable[[], AdminRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_code(monkeypatch, "old")
    admin = new_room()
    tell(admin, "snapshot", id="u1")
    as_code(monkeypatch, "new")
    admin = new_room()
    tell(admin, "release", id="u1")
    assert add_account(admin, "anna@example.test") == 201
    admin.stop()
    migrated(admin.folder)
    as_code(monkeypatch, "old")
    admin = new_room()
    assert accounts(admin) == {"admin"}
    with sqlite3.connect(admin.folder / "admin" / "directory.db.after-u1") as kept:
        assert kept.execute("SELECT count(*) FROM accounts").fetchone() == (2,)
    assert any(each["outcome"] == "error" and "directory.db.after-u1" in each["reason"] for each in admin.recorded())


def test_a_full_disk_is_507_and_no_snapshot(new_room: Callable[[], AdminRoom], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    admin = new_room()
    monkeypatch.setattr(snapshots, "write_durable", full)
    assert tell(admin, "snapshot", id="u1") == 507
    monkeypatch.undo()
    assert tell(admin, "snapshot", id="u1")["id"] == "u1"


def directory(folder: Path) -> Database:
    for name in ("routing", "auth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Database(str(folder / "directory.db"))


def names(folder: Path) -> list[str]:
    database = Database(str(folder / "directory.db"))
    try:
        return [domain.name for domain in database.domains()]
    finally:
        database.close()


@pytest.mark.parametrize("names_lost", NAMES_LOST)
def test_a_power_cut_while_a_snapshot_is_taken(tmp_path: Path, names_lost: str) -> None:
    """It is there whole or not at all; one that was answered for is there."""
    for steps in range(60):
        folder = tmp_path / f"{names_lost}{steps}"
        folder.mkdir()
        database = directory(folder)
        Directories(database, Publisher(str(folder / "routing"), str(folder / "auth"))).add_domain("one.test")
        kept = Snapshots(str(folder), lambda: "old", lambda: 1.0)
        answered = False
        with power_cut(steps, names_lost=names_lost) as cut:
            kept.take("u1", database)
            answered = True
        database.close()
        there = (folder / "snapshots/u1").is_dir()
        assert there or not answered
        done = put_back(str(folder), lambda: "old")
        assert [each.id for each in done] == (["u1"] if there else [])
        assert names(folder) == ["one.test"]
        Snapshots(str(folder), lambda: "old", lambda: 1.0)
        left = sorted(path.name for path in (folder / "snapshots").iterdir()) if (folder / "snapshots").exists() else []
        assert left == (["u1"] if there else [])
        if not cut.happened:
            break
    else:
        raise AssertionError("the writer never came to its end")
    assert steps > 10


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("names_lost", NAMES_LOST)
def test_a_power_cut_while_a_snapshot_is_put_back(tmp_path: Path, names_lost: str, marked: bool) -> None:
    """The next start of the old code ends with what the snapshot holds, and never with a file that is no directory."""
    template = tmp_path / "template"
    template.mkdir()
    database = directory(template)
    changes = Directories(database, Publisher(str(template / "routing"), str(template / "auth")))
    changes.add_domain("one.test")
    kept = Snapshots(str(template), lambda: "old", lambda: 1.0)
    kept.take("u1", database)
    if marked:
        kept.mark()
    changes.add_domain("two.test")
    database.close()
    with sqlite3.connect(template / "directory.db") as newer:
        newer.execute("PRAGMA user_version=99")
    for steps in range(60):
        folder = tmp_path / f"{names_lost}{steps}"
        shutil.copytree(template, folder)
        with power_cut(steps, names_lost=names_lost) as cut:
            put_back(str(folder), lambda: "old")
        put_back(str(folder), lambda: "old")
        assert names(folder) == ["one.test"]
        if not cut.happened:
            break
    else:
        raise AssertionError("the writer never came to its end")
    assert steps > 5


def test_damaged_snapshots_are_left_alone(tmp_path: Path) -> None:
    directory(tmp_path).close()
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"code": 5}')):
        (tmp_path / "snapshots" / name).mkdir(parents=True)
        (tmp_path / "snapshots" / name / "snapshot.json").write_text(content)
    (tmp_path / "snapshots" / "d").mkdir()
    assert put_back(str(tmp_path), lambda: "old") == []


# --- closed, within


def test_every_verb_of_the_directory_asks_whether_it_is_closed(tmp_path: Path) -> None:
    database = directory(tmp_path)
    changes = Directories(database, Publisher(str(tmp_path / "routing"), str(tmp_path / "auth")))
    changes.add_domain("one.test")
    changes.closed = lambda: "not now"
    verbs: list[Callable[[], object]] = [
        lambda: changes.add_domain("two.test"), lambda: changes.delete_domain("one.test"),
        lambda: changes.add_account("a@one.test", "h"), lambda: changes.set_password("a@one.test", "h"),
        lambda: changes.update_account("a@one.test", enabled=False), lambda: changes.delete_account("a@one.test"),
        lambda: changes.purge_deleted("a@one.test"), lambda: changes.add_alias("x@one.test", "b@far.test"),
        lambda: changes.delete_alias("x@one.test"), lambda: changes.set_language("a@one.test", "zh-CN"),
    ]  # fmt: skip
    for verb in verbs:
        with pytest.raises(Closed, match="not now"):
            verb()
    changes.republish()
    database.close()
