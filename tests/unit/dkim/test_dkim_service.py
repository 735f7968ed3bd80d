"""The dkim room over its HTTP: signs for smtp-out, shows keys to admin, answers each fault in words."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import dkim
import pytest

from services.dkim import room
from services.dkim.keys import KeyStore
from services.message.body_hash import BodyHash
from services.runtime import secrets
from services.runtime.health import Health
from services.runtime.internal_http import Client, PeerRefused, Response
from services.runtime.process import Context
from services.runtime.values import Settings

TRACE = "0123456789abcdef"
HEADERS = b"From: anna@example.test\r\nTo: bob@example.org\r\nSubject: Hello\r\n\r\n"
BODY = b"Hello\r\n"


class Record:
    """An `Events` that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str, dict[str, Any]]] = []

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.lines.append((kind, trace, outcome, fields))


class World:
    """A running dkim room and its two peers."""

    def __init__(self, folder: Path) -> None:
        secrets.make(str(folder / "secrets"), secrets.every_name())
        self.record = Record()
        settings = Settings(dkim_dir=str(folder / "dkim"), http_listen="127.0.0.1:0")
        known = secrets.Secrets(str(folder / "secrets"))
        self.context = Context("dkim", settings, self.record, known, Health("dkim"))
        self.folder = folder / "dkim"

    def client(self, name: str) -> Client:
        url = f"http://127.0.0.1:{self.context.ports['http']}"
        return Client(name, self.context.secrets, "dkim", url, keep=64)

    async def sign(self, domain: str = "example.test", body: bytes = HEADERS, **changed: str) -> Response:
        body_hash = BodyHash()
        body_hash.update(BODY)
        given = {"Body-Hash": body_hash.digest(), "Signatures": "rsa", "Trace": TRACE, **changed}
        client = self.client("smtp-out")
        try:
            headers = {f"Mailstead-{name.replace('_', '-')}": value for name, value in given.items()}
            return await client.request("POST", "/v1/sign", body=body, query={"domain": domain}, headers=headers)
        finally:
            client.close()

    async def admin(self, method: str, body: object = None, **query: str) -> Any:
        client = self.client("admin")
        try:
            data = json.dumps(body).encode() if body is not None else b""
            return (await client.request(method, "/v1/keys", body=data, query=query)).json()
        finally:
            client.close()


def play(folder: Path, story: Callable[[World], Awaitable[None]]) -> World:
    world = World(folder)

    async def whole() -> None:
        world.context.stop = asyncio.Event()
        running = asyncio.create_task(room.serve(world.context))
        try:
            while not world.context.health.started:
                if running.done():
                    await running
                await asyncio.sleep(0.005)
            await story(world)
        finally:
            world.context.stop.set()
            await running

    asyncio.run(whole())
    return world


async def status_of(answer: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(PeerRefused) as refused:
        await answer
    return refused.value.response.status, refused.value.response.json()["error"]


def verifies(signature: bytes, records: list[dict[str, Any]], count: int) -> None:
    """Every signature is accepted over the whole message, with the records that the room shows."""
    zone = {f"{each['name']}.": "".join(each["chunks"]).encode() for each in records}
    verifier = dkim.DKIM(signature + HEADERS + BODY)
    for index in range(count):
        assert verifier.verify(index, dnsfunc=lambda name, timeout=5: zone[name.decode()])
    assert signature.count(b"DKIM-Signature:") == count


def test_keys_are_made_once_and_what_is_signed_verifies(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        made = await world.admin("POST", {"domain": "Example.TEST."})
        assert [each["type"] for each in made["records"]] == ["TXT", "TXT"]
        assert (
            made
            == await world.admin("POST", {"domain": "example.test"})
            == await world.admin("GET", domain="example.test")
        )
        rsa, ed25519 = made["records"]
        assert rsa["presentation"] == f'"{rsa["chunks"][0]}" "{rsa["chunks"][1]}"'
        assert "k=ed25519" in ed25519["value"]
        verifies((await world.sign()).body, made["records"], 1)
        both = (await world.sign(Signatures="both")).body
        verifies(both, made["records"], 2)
        assert both.index(b"a=rsa-sha256") < both.index(b"a=ed25519-sha256")

    world = play(tmp_path, story)
    kinds = [line[0] for line in world.record.lines]
    assert kinds == ["key", "key", "signed", "signed"], "asking again makes nothing"
    _, trace, outcome, fields = world.record.lines[-1]
    assert (trace, outcome, fields["domain"]) == (TRACE, "accept", "example.test")
    assert [selector[-1] for selector in fields["selectors"]] == ["r", "e"] and fields["ms"] >= 0


def test_the_timestamp_is_the_rooms_clock(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.admin("POST", {"domain": "example.test"})
        world.context.clock = lambda: 1_834_567_890.9
        assert b"t=1834567890;" in (await world.sign()).body

    play(tmp_path, story)


def test_nothing_is_signed_or_dated_before_the_clock_is_set(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.context.clock = lambda: 3600.0  # a board without a battery
        with pytest.raises(PeerRefused, match=r"503: .*the clock is not set yet: it says 1970-01-01 01:00 UTC"):
            await world.admin("POST", {"domain": "example.test"})
        with pytest.raises(PeerRefused, match=r"503: .*the clock is not set yet"):
            await world.sign()
        world.context.clock = time.time
        await world.admin("POST", {"domain": "example.test"})
        assert b"DKIM-Signature" in (await world.sign()).body

    play(tmp_path, story)


def test_a_domain_name_in_any_spelling_finds_its_key(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.admin("POST", {"domain": "例子.test"})
        for spelling in ("xn--fsqu00a.test", "例子.TEST", "XN--FSQU00A.test"):
            assert b"d=xn--fsqu00a.test;" in (await world.sign(spelling)).body

    play(tmp_path, story)


REFUSALS = [
    # (domain, body, changed headers, status, words)
    ("nobody.test", HEADERS, {}, 404, "nobody.test has no DKIM key"),
    ("", HEADERS, {}, 400, "domain is empty"),
    ("../example.test", HEADERS, {}, 400, "not a domain name"),
    ("..", HEADERS, {}, 400, "not a domain name"),
    ("a/b.test", HEADERS, {}, 400, "not a domain name"),
    ("example.test", b"To: x\r\n\r\n", {}, 400, "no From"),
    ("example.test", b"From: x\r\nSubject: a\nb\r\n\r\n", {}, 400, "bare CR or LF"),
    ("example.test", b"", {}, 400, "empty line"),
    ("example.test", HEADERS, {"Signatures": "rsa-sha1"}, 400, "rsa or both"),
    ("example.test", HEADERS, {"Body_Hash": "AAAA"}, 400, "SHA-256"),
    ("example.test", HEADERS, {"Body_Hash": "x; l=0; bh=" + "A" * 32}, 400, "SHA-256"),
    ("example.test", HEADERS, {"Trace": "nonsense"}, 400, "trace id"),
]


def test_refusals_say_why(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.admin("POST", {"domain": "example.test"})
        for domain, body, changed, status, words in REFUSALS:
            headers = dict(changed)
            if "Body_Hash" in headers:
                headers["Body-Hash"] = headers.pop("Body_Hash")
            got, error = await status_of(world.sign(domain, body, **headers))
            assert (got, words in error) == (status, True), (domain, got, error)

    world = play(tmp_path, story)
    rejected = [fields for kind, trace, outcome, fields in world.record.lines if outcome == "reject" and trace == TRACE]
    assert [fields["reason"] for fields in rejected if "no DKIM key" in fields["reason"]], "the trace shows it"


@pytest.mark.parametrize("value", [[], {}, {"domain": 1}, {"domain": "../x"}, {"domain": "a\0.test"}, "x"])
def test_a_bad_request_for_keys_makes_nothing(tmp_path: Path, value: object) -> None:
    async def story(world: World) -> None:
        status, _ = await status_of(world.admin("POST", value))
        assert status == 400
        assert not list(world.folder.iterdir())

    play(tmp_path, story)


def test_only_the_named_rooms_may_ask(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for name, method, path in (
            ("admin", "POST", "/v1/sign"),
            ("smtp-out", "GET", "/v1/keys"),
            ("smtp-out", "POST", "/v1/keys"),
        ):
            client = world.client(name)
            status, _ = await status_of(client.request(method, path))
            assert status == 403
            client.close()

    play(tmp_path, story)


def test_a_broken_key_is_a_503_and_shows_in_health_until_mended(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.admin("POST", {"domain": "example.test"})
        kept = {path: path.read_bytes() for path in (world.folder / "example.test").iterdir()}
        for path in kept:
            path.write_bytes(b"")
        os.utime(world.folder / "example.test", ns=(1, 1))
        status, error = await status_of(world.sign())
        assert status == 503 and "cannot be used" in error
        assert not world.context.health.healthy
        assert (await status_of(world.admin("GET", domain="example.test")))[0] == 503
        for path, content in kept.items():
            path.write_bytes(content)
        os.utime(world.folder / "example.test", ns=(2, 2))
        await world.sign()
        assert world.context.health.healthy

    play(tmp_path, story)


def test_one_kind_alone_still_signs(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.admin("POST", {"domain": "example.test"})
        next((world.folder / "example.test").glob("*r.pem")).unlink()
        os.utime(world.folder / "example.test", ns=(1, 1))
        for signatures in ("rsa", "both"):
            assert (await world.sign(Signatures=signatures)).body.count(b"a=ed25519-sha256") == 1

    play(tmp_path, story)


def test_a_start_finishes_what_a_power_cut_left(tmp_path: Path) -> None:
    (tmp_path / "dkim" / "example.test").mkdir(parents=True)

    async def story(world: World) -> None:
        assert len((await world.admin("GET", domain="example.test"))["records"]) == 2

    world = play(tmp_path, story)
    assert [line[0] for line in world.record.lines] == ["key", "key"]


def test_requests_at_once_for_one_domain_make_one_pair(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answers = await asyncio.gather(*(world.admin("POST", {"domain": "example.test"}) for _ in range(5)))
        assert all(answer == answers[0] for answer in answers)
        assert len(list((world.folder / "example.test").iterdir())) == 2

    play(tmp_path, story)


def test_keys_are_made_and_read_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RSA key takes 50 ms of CPU, and the first read imports cryptography: /health must not wait for either."""
    threads: dict[str, set[int]] = {"make": set(), "_read": set(), "complete": set()}

    def watched(name: str) -> None:
        real = getattr(KeyStore, name)

        def method(self: KeyStore, *arguments: Any) -> Any:
            threads[name].add(threading.get_ident())
            return real(self, *arguments)

        monkeypatch.setattr(KeyStore, name, method)

    for name in threads:
        watched(name)

    async def story(world: World) -> None:
        await world.admin("POST", {"domain": "example.test"})
        await world.sign()
        assert all(found and threading.get_ident() not in found for found in threads.values()), threads

    play(tmp_path, story)


def test_a_folder_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "dkim").write_text("a file")

    async def story(world: World) -> None:
        pytest.fail("it started")

    with pytest.raises(OSError, match="dkim"):
        play(tmp_path, story)
