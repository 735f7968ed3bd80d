"""What rooms tell admin, what admin owes them, and how their state becomes a sentence."""

from __future__ import annotations

import asyncio
import json

import pytest
from admin_room import FakePeers, PeerSaid, RoomHealth

from services.admin import duties, internal
from services.admin.dns_records import records, zone_text
from services.admin.duties import Duties
from services.admin.internal import BanExchange, Facts
from services.admin.overview import verdict
from services.admin.peers import Peers
from services.admin.send_test import compose
from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.publish import Publisher
from services.runtime import secrets
from services.runtime.events import NoEvents
from services.runtime.facts import FactQueue
from services.runtime.health import Health
from services.runtime.internal_http import BadRequest, Request, Response, Routes, serving
from services.runtime.process import Context
from services.runtime.values import Settings

NOW = 1_700_000_000.0


@pytest.fixture
def context():
    return Context("admin", Settings(), NoEvents(), secrets.Secrets("/nowhere"), Health("admin"), clock=lambda: NOW)


@pytest.fixture
def directories(tmp_path):
    for name in ("routing", "auth"):
        (tmp_path / name).mkdir()
    database = Database(str(tmp_path / "directory.db"))
    made = Directories(database, Publisher(str(tmp_path / "routing"), str(tmp_path / "auth")), clock=lambda: NOW)
    made.add_domain("family.example")
    made.add_account("anna@family.example", "$h", administrator=True)
    for duty in database.duties():
        made.done(duty)
    yield made
    database.close()


# --- facts -------------------------------------------------------------------------------------------------------------


def tell(facts, *told, room="imap"):
    body = json.dumps({"facts": list(told)}).encode()
    return asyncio.run(facts.take(Request("POST", "/v1/facts", {}, {}, body, room))).json()


def fact(identity="f1", kind="last-used", account="Anna@family.example", at=NOW - 1, **more):
    return {"id": identity, "kind": kind, "account": account, "at": at, **more}


@pytest.fixture
def facts(context, directories):
    return Facts(context, directories, BanExchange(context, FakePeers()))


def test_facts_are_taken_once(facts, directories):
    told = [fact(), fact("f2", "usage", bytes=5, messages=1)]
    assert tell(facts, *told) == {"taken": 2, "refused": []}
    assert tell(facts, *told) == {"taken": 0, "refused": []}
    details = directories.account("anna@family.example")
    assert (details.last_used, details.used_bytes, details.used_messages) == (NOW - 1, 5, 1)


BAD_FACTS = [
    None, 5, [], {}, fact(identity=5), fact(identity=""), fact(identity="x" * 65), fact(kind="of a newer room"), fact(kind=[]),
    fact(at="now"), fact(at=-1), fact(at=None), fact(at=float("nan")), fact(account=None),
    fact(kind="usage"), fact(kind="usage", bytes=-1, messages=0), fact(kind="usage", bytes=1 << 80, messages=0),
    fact(kind="usage", bytes="x", messages=0), fact(kind="rehash"), fact(kind="ban"), fact(kind="ban", key=""),
    fact(kind="ban", key="x", until="soon"), fact(kind="ban", key="x", until=1, ban_kind="all"),
    fact(kind="ban", key="x" * 500, until=1),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_FACTS)
def test_a_bad_fact_is_named_and_the_others_are_taken(facts, bad):
    answer = tell(facts, bad, fact("good"))
    assert answer["taken"] == 1 and len(answer["refused"]) == 1 and answer["refused"][0]["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"facts": 5}', b"\xff"])
def test_bodies_that_are_no_facts(facts, body):
    with pytest.raises(BadRequest):
        asyncio.run(facts.take(Request("POST", "/v1/facts", {}, {}, body, "imap")))


def test_facts_come_from_the_rooms_that_know_them(facts):
    for room, allowed in (("imap", True), ("smtp-out", True), ("dkim", False), ("updater", False)):
        route, _ = facts.routes().find("POST", "/v1/facts")
        assert (room in route.allow) is allowed


def test_a_rooms_queue_of_facts_arrives_here(tmp_path, context, facts, directories):
    """The two ends that are tested alone elsewhere, over the real HTTP between rooms."""
    secrets.make(str(tmp_path / "secrets"), secrets.every_name())
    known = secrets.Secrets(str(tmp_path / "secrets"))
    context.secrets = known

    async def whole():
        async with serving(context, facts.routes(), "127.0.0.1:0") as listener:
            settings = Settings(admin_url=f"http://127.0.0.1:{listener.port}")
            room = Context("imap", settings, NoEvents(), known, Health("imap"), clock=lambda: NOW - 5)
            queue = FactQueue(room, str(tmp_path / "facts.jsonl"))
            task = asyncio.create_task(queue.run())
            queue.post("last-used", "anna@family.example", service="imap", peer="192.0.2.1")
            await came_true(lambda: not len(queue))
            room.stop.set()
            await task

    asyncio.run(whole())
    assert directories.account("anna@family.example").last_used == NOW - 5


# --- bans --------------------------------------------------------------------------------------------------------------


async def came_true(true):
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def exchange(context, peers, story, monkeypatch, done=None):
    """Run the exchange until `done(bans)`: by default, until nothing waits."""
    monkeypatch.setattr(internal, "RETRY_SECONDS", 0.001)

    async def whole():
        bans = BanExchange(context, peers)
        task = asyncio.create_task(bans.run())
        await story(bans)
        await came_true(lambda: done(bans) if done else not bans._waiting)
        task.cancel()
        return bans

    return asyncio.run(whole())


BAN = {"key": "192.0.2.1", "kind": "address", "until": NOW + 60, "reason": "guessing"}


def telling(room):
    async def story(bans):
        bans.tell(room, BAN)

    return story


def test_a_ban_goes_to_the_other_room(context, monkeypatch):
    peers = FakePeers()
    bans = exchange(context, peers, telling("imap"), monkeypatch)
    assert peers.asked == [("smtp-out", "POST", "/v1/bans", BAN)] and not bans._waiting
    peers = FakePeers()
    exchange(context, peers, telling("smtp-out"), monkeypatch)
    assert peers.asked == [("imap", "POST", "/v1/bans", BAN)]


def test_a_ban_waits_for_a_room_that_is_away(context, monkeypatch):
    peers = FakePeers()
    peers.away.add("smtp-out")
    bans = exchange(context, peers, telling("imap"), monkeypatch, lambda bans: len(peers.asked) > 2)
    assert len(bans._waiting) == 1


@pytest.mark.parametrize("how", ["ended", "lifted", "refused"])
def test_a_ban_that_is_over_is_not_told_for_ever(context, monkeypatch, how):
    peers = FakePeers()
    if how == "refused":
        peers.answers["smtp-out", "POST", "/v1/bans"] = PeerSaid(400, "no")

    async def story(bans):
        bans.tell("imap", {**BAN, "until": NOW - 1} if how == "ended" else BAN)
        if how == "lifted":
            bans.forget("192.0.2.1")

    bans = exchange(context, peers, story, monkeypatch)
    assert not bans._waiting and len(peers.asked) == (1 if how == "refused" else 0)


def test_a_ban_told_as_a_fact_is_handed_on(context, directories, monkeypatch):
    peers = FakePeers()

    async def story(bans):
        told = {
            **fact("f9", "ban", account=""),
            "key": "192.0.2.1",
            "ban_kind": "address",
            "until": NOW + 60,
            "reason": "guessing",
        }
        body = json.dumps({"facts": [told]}).encode()
        for _ in range(2):  # the second time is known already
            await Facts(context, directories, bans).take(Request("POST", "/v1/facts", {}, {}, body, "imap"))

    exchange(context, peers, story, monkeypatch)
    assert peers.asked == [("smtp-out", "POST", "/v1/bans", BAN)]


# --- duties ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def owing(context, directories, monkeypatch):
    monkeypatch.setattr(duties, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(duties, "RETRY_MOST", 0.001)
    peers = FakePeers()
    return Duties(context, directories, peers), directories, peers


def work(owing, done):
    async def whole():
        task = asyncio.create_task(owing.run())
        await came_true(done)
        task.cancel()

    asyncio.run(whole())


def test_duties_of_before_a_restart_are_fulfilled(owing):
    work_of, directories, peers = owing
    directories.add_account("bob@family.example", "$h")
    work(work_of, lambda: not directories.database.duties())
    assert peers.asked == [("imap", "POST", "/v1/provision", {"address": "bob@family.example"})]


def test_one_that_is_refused_does_not_stop_the_others(owing):
    work_of, directories, peers = owing
    directories.add_account("bob@family.example", "$h")
    directories.add_domain("other.example")
    peers.answers["imap", "POST", "/v1/provision"] = PeerSaid(400, "imap: no")
    work(work_of, lambda: [duty.kind for duty in directories.database.duties()] == ["provision"])
    assert asyncio.run(work_of._everything()) is False and work_of.problem == "imap: no"


def test_a_room_that_is_away_is_asked_once_a_round(owing):
    work_of, directories, peers = owing
    for number in range(20):
        directories.add_account(f"a{number}@family.example", "$h")
    peers.away.add("imap")
    assert asyncio.run(work_of._everything()) is False
    assert len(peers.asked) == 1


def test_mail_that_never_was_is_put_away(owing):
    work_of, directories, peers = owing
    directories.add_account("bob@family.example", "$h")
    directories.delete_account("bob@family.example")
    peers.answers["imap", "DELETE", "/v1/mail/bob@family.example"] = PeerSaid(404, "imap: no mail")
    assert asyncio.run(work_of.attempt("bob@family.example")) == []
    assert directories.database.duties() == []


def test_a_removal_done_once_is_never_done_to_the_next_holder(owing):
    """Two that want to fulfil one duty at the same time ask imap once."""
    work_of, directories, peers = owing
    directories.add_account("bob@family.example", "$h")
    directories.delete_account("bob@family.example")

    async def both():
        await asyncio.gather(work_of.attempt("bob@family.example"), work_of.attempt("bob@family.example"))

    asyncio.run(both())
    assert [asked[1] for asked in peers.asked] == ["DELETE"]


# --- peers over the real thing -------------------------------------------------------------------------------------------


def test_peers_speak_to_rooms(tmp_path):
    secrets.make(str(tmp_path), secrets.every_name())
    known = secrets.Secrets(str(tmp_path))
    imap = Context("imap", Settings(), NoEvents(), known, Health("imap"))
    routes = Routes()

    async def answer(request):
        codes = {"fine": Response.of({"got": request.json()}), "odd": Response(200, b"<html>")}
        return codes.get(request.params["how"], Response.error(404, "no such thing"))

    routes.add("POST", "/v1/{how}", answer, allow=("admin",))

    async def whole():
        async with serving(imap, routes, "127.0.0.1:0") as listener:
            settings = Settings(imap_url=f"http://127.0.0.1:{listener.port}", dkim_url="http://127.0.0.1:1")
            peers = Peers(Context("admin", settings, NoEvents(), known, Health("admin")))
            assert await peers.ask("imap", "POST", "/v1/fine", {"a": 1}) == {"got": {"a": 1}}
            for how, status in (("odd", 502), ("none", 404)):
                with pytest.raises(PeerSaid) as caught:
                    await peers.ask("imap", "POST", f"/v1/{how}", {})
                assert caught.value.status == status
            assert str(caught.value) == "imap: no such thing"
            assert await peers.health("imap") == RoomHealth("imap", "starting", {})
            imap.health.ready()
            assert (await peers.health("imap")).state == "ok"
            imap.health.fail("listener 993", "the port is taken")
            found = await peers.health("imap")
            assert (found.state, found.problems) == ("failing", ["listener 993: the port is taken"])
            assert (await peers.health("dkim")).state == "away"
            peers.close()

    asyncio.run(whole())


# --- one sentence ------------------------------------------------------------------------------------------------------


def rooms(**states):
    names = ("smtp-in", "smtp-out", "imap", "dkim", "acme", "updater", "admin")
    return [RoomHealth(name, states.get(name.replace("-", "_"), "ok")) for name in names]


@pytest.mark.parametrize(
    ("found", "facts", "state", "words"),
    [
        (rooms(), {}, "ok", "nothing waits"),
        (rooms(), {"waiting": 3, "oldest": 60.0}, "ok", "3 messages are being sent"),
        (rooms(), {"waiting": 1000, "oldest": 60.0}, "ok", "999+ messages"),
        (rooms(), {"waiting": 3, "oldest": 7300.0}, "trouble", "3 messages wait to be sent, the oldest for 2 hours"),
        (rooms(), {"expires_in": 90 * 86400.0}, "ok", "nothing waits"),
        (rooms(), {"expires_in": 86400.0}, "trouble", "certificate ends in 24 hours"),
        (rooms(), {"expires_in": -5.0}, "trouble", "certificate has ended"),
        (rooms(imap="away"), {}, "down", "no answer from: imap."),
        (rooms(imap="away"), {"held": True}, "trouble", "Mail waits outside for an update."),
        (rooms(imap="away", dkim="away"), {}, "down", "no answer from: imap, dkim."),
        (rooms(smtp_out="starting"), {}, "down", "still starting: smtp-out"),
        (rooms(acme="away"), {}, "trouble", "acme is not well: it is away"),
        (
            [*rooms()[:-1], RoomHealth("admin", "ok", {"events": "the disk is full."})],
            {},
            "trouble",
            "events: the disk is full.",
        ),
        (rooms(acme="away", updater="failing"), {}, "trouble", "1 more problem is"),
    ],
)
def test_verdict(found, facts, state, words):
    given, sentence = verdict(found, **facts)
    assert given == state and words in sentence


# --- DNS ---------------------------------------------------------------------------------------------------------------

RSA = {
    "name": "m1._domainkey.family.example",
    "value": "v=DKIM1; k=rsa; p=" + "A" * 392,
    "chunks": ["x" * 255, "y" * 155],
}
ED = {"name": "m2._domainkey.family.example", "value": "v=DKIM1; k=ed25519; p=B", "chunks": ["v=DKIM1; k=ed25519; p=B"]}


def by_name(found):
    return {(record.type, record.name): record for record in found}


def test_records_for_sending_directly():
    found = by_name(records("family.example", "mail.family.example", [RSA, ED], "", both=True))
    assert found["MX", "family.example"].value == "10 mail.family.example."
    assert found["TXT", "family.example"].value == "v=spf1 mx ~all"
    assert found["TXT", "_dmarc.family.example"].value.startswith("v=DMARC1; p=none; ")
    assert found["TXT", ED["name"]].needed == "recommended"
    rsa = found["TXT", RSA["name"]]
    assert rsa.needed == "required" and rsa.zone.endswith(f'IN TXT "{"x" * 255}" "{"y" * 155}"')
    assert found["PTR", "your public address"].needed == "elsewhere"
    assert found["SRV", "_imaps._tcp.family.example"].value == "0 1 993 mail.family.example."
    assert ("A", "mail.family.example") in found


@pytest.mark.parametrize(
    ("relay", "spf"),
    [
        ("smtp-relay.brevo.com", "v=spf1 mx include:spf.brevo.com ~all"),
        ("email-smtp.eu-west-1.amazonaws.com", "v=spf1 mx include:amazonses.com ~all"),
        ("smtpdm.aliyun.com", "v=spf1 mx include:spf1.dm.aliyun.com ~all"),
        ("gz-smtp.qcloudmail.com", "v=spf1 mx include:qcloudmail.com ~all"),
        ("smtp.unknown.example", "v=spf1 mx ~all"),
        ("notbrevo.com", "v=spf1 mx ~all"),
    ],
)
def test_records_for_sending_through_a_relay(relay, spf):
    found = by_name(records("family.example", "mail.family.example", [RSA, ED], relay, both=False))
    assert found["TXT", "family.example"].value == spf
    assert ("TXT", ED["name"]) not in found and ("PTR", "your public address") not in found
    both = by_name(records("family.example", "mail.family.example", [RSA, ED], relay, both=True))
    assert ("TXT", ED["name"]) in both
    if "include" not in spf:
        assert relay in found["TXT", "family.example"].why


def test_a_second_domain_has_no_address_of_its_own():
    found = by_name(records("other.example", "mail.family.example", [], "", both=True))
    assert not [key for key in found if key[0] in ("A", "AAAA")]
    assert found["MX", "other.example"].value == "10 mail.family.example."


def test_zone_lines_hold_to_the_grammar():
    lines = zone_text(records("family.example", "mail.family.example", [RSA, ED], "", both=True)).splitlines()
    for line in lines:
        assert line.startswith(";") or line.split()[1:3] == ["3600", "IN"], line
        assert all(len(piece) <= 255 for piece in line.split('"')[1::2])


def test_test_message_is_a_whole_message():
    from email import message_from_bytes, policy

    message = message_from_bytes(
        compose("a@x.example", "b@y.example", "mail.x.example", "trace", NOW), policy=policy.default
    )
    assert message["Date"].datetime.timestamp() == NOW and message["Message-ID"] == "<trace@mail.x.example>"
    assert message["Auto-Submitted"] == "auto-generated" and not message.defects
