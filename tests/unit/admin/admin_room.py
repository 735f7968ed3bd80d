"""The admin room as it runs, on loopback, with other rooms that answer what a test wants."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.admin import access, duties, internal, room, tail
from services.admin.parts import Parts
from services.admin.peers import ROOMS, PeerAway, PeerSaid, RoomHealth
from services.policy.throttle import Rules
from services.runtime import secrets
from services.runtime.events import EventLog
from services.runtime.health import Health
from services.runtime.process import Context
from services.runtime.values import Settings

ADMIN, PASSWORD = "admin@example.test", "correct horse battery"
KEYS = {
    "records": [
        {
            "name": "m1._domainkey.example.test", "type": "TXT", "value": "v=DKIM1; k=rsa; p=" + "A" * 300,
            "chunks": ["v=DKIM1; k=rsa; p=" + "A" * 237, "A" * 63],
        },
        {
            "name": "m2._domainkey.example.test", "type": "TXT", "value": "v=DKIM1; k=ed25519; p=BB",
            "chunks": ["v=DKIM1; k=ed25519; p=BB"],
        },
    ]
}  # fmt: skip
QUEUED = {
    "messages": [
        {
            "id": "q1", "trace": "t1", "sender": "anna@example.test", "size": 2048, "created": 1_700_000_000.0,
            "state": "queued",
            "recipients": [
                {"address": "bob@else.test", "state": "deferred", "attempts": 2, "next": 1_700_000_600.0,
                 "last_reply": "451 4.3.0 not \x1b[31mnow"}
            ],
        }
    ]
}  # fmt: skip


PARTS: dict[int, Parts] = {}  # of the rooms that run, by their context


class FakePeers:
    """Takes the place of `Peers`: `answers` by (room, method, path), `away` rooms, all questions in `asked`."""

    def __init__(self, context: object = None) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        self.away: set[str] = set()
        self.unwell: dict[str, RoomHealth] = {}
        self.answers: dict[tuple[str, str, str], Any] = {}
        self.reset()

    def reset(self) -> None:
        self.asked.clear()
        self.away.clear()
        self.unwell.clear()
        self.answers = {
            ("smtp-out", "GET", "/v1/queue"): QUEUED,
            ("smtp-out", "GET", "/v1/status"): {"relay": "", "signatures": "both"},
            ("smtp-out", "GET", "/v1/bans"): {"bans": []},
            ("imap", "GET", "/v1/bans"): {"bans": []},
            ("smtp-out", "DELETE", "/v1/bans"): {"lifted": []},
            ("imap", "DELETE", "/v1/bans"): {"lifted": []},
            ("imap", "GET", "/v1/usage"): {"accounts": {ADMIN: {"bytes": 3 << 20, "messages": 7}}},
            ("dkim", "GET", "/v1/keys"): KEYS,
            ("acme", "GET", "/v1/status"): {"mode": "self-signed", "not_after": 4_000_000_000, "problem": ""},
            ("updater", "GET", "/v1/report"): {
                "checked": 1_700_000_000, "error": "",
                "images": [{"service": "mailstead", "image": "x/mailstead:1", "state": "current", "error": ""}],
                "containers": [{"service": "unbound", "state": "running", "health": "healthy", "started": "Up 3 hours"}],
            },
        }  # fmt: skip

    async def ask(self, room: str, method: str, path: str, value: object = None, *, query: Any = None) -> Any:
        self.asked.append((room, method, path, value if value is not None else query))
        if room in self.away:
            raise PeerAway(f"{room} does not answer: connection refused")
        answer = self.answers.get((room, method, path), {})
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def put(self, room: str, path: str, body: bytes) -> Any:
        return await self.ask(room, "PUT", path, body.decode())

    async def send(self, room: str, path: str, body: bytes, *, query: Any, headers: Any = None) -> Any:
        return await self.ask(room, "POST", path, (body, query, headers))

    async def health(self, room: str) -> RoomHealth:
        if room in self.away:
            return RoomHealth(room, "away", {"": f"{room} does not answer"})
        return self.unwell.get(room, RoomHealth(room, "ok"))

    async def every_health(self) -> list[RoomHealth]:
        return [await self.health(room) for room in ROOMS]

    def close(self) -> None:
        pass


class AdminRoom:
    """The room in a thread of its own."""

    def __init__(self, folder: Path, peers: FakePeers, **changes: Any) -> None:
        self.folder, self.peers = folder, peers
        for name in ("admin", "routing", "auth", "events/admin", "events/smtp-in"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        secrets.make(str(folder / "secrets"), secrets.every_name())
        settings = Settings(
            admin_dir=str(folder / "admin"), routing_dir=str(folder / "routing"), auth_dir=str(folder / "auth"),
            events_dir=str(folder / "events"), secrets_dir=str(folder / "secrets"), room_dir=str(folder / "room"),
            admin_listen="127.0.0.1:0", http_listen="127.0.0.1:0", ban_failures=5, grace_seconds=1, **changes,
        )  # fmt: skip
        self.events = EventLog(str(folder / "events" / "admin"), "admin")
        self.context = Context("admin", settings, self.events, secrets.Secrets(settings.secrets_dir), Health("admin"))
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _run(self) -> None:
        async def whole() -> None:
            self._loop = asyncio.get_running_loop()
            await room.serve(self.context)

        try:
            asyncio.run(whole())
        except BaseException as error:
            self.failed = error

    def start(self) -> AdminRoom:
        self._thread.start()
        deadline = 500
        while not self.context.health.started and self._thread.is_alive() and deadline:
            threading.Event().wait(0.02)
            deadline -= 1
        assert self.context.health.started, self.failed
        return self

    def stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.context.stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.events.close()

    @property
    def parts(self) -> Parts:
        """The parts that the page and the API were given."""
        return PARTS[id(self.context)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.context.ports['admin']}"

    def client(self, **options: Any) -> httpx.Client:
        """A client that is logged in with the administrator's password, unless told otherwise."""
        options = {"auth": (ADMIN, PASSWORD), "base_url": self.url, "timeout": 20, **options}
        return httpx.Client(**options)

    def recorded(self) -> list[dict[str, Any]]:
        """The events that the room has recorded."""
        import json

        self.events.flush()
        lines = [line for path in sorted((self.folder / "events" / "admin").iterdir()) for line in path.open()]
        return [json.loads(line) for line in lines]


def log_in(client: httpx.Client, name: str = ADMIN, password: str = PASSWORD, **more: str) -> httpx.Response:
    """Log in on the page as a browser does: with the form's token of a log-in page that was shown before."""
    import re

    shown = client.get("/login")
    found = re.search(r'name="form_token" value="(\w+)"', shown.text)
    token = found[1] if found else ""  # shown to who is logged in already, it leads home
    return client.post("/login", data={"name": name, "password": password, "form_token": token, **more})


def patch(monkeypatch: pytest.MonkeyPatch, peers: FakePeers) -> None:
    """Fake rooms, and waits of milliseconds where real ones are seconds."""
    serve_page = room.serve_page

    async def seen(context: Context, parts: Parts, *more: Any) -> None:
        PARTS[id(context)] = parts
        await serve_page(context, parts, *more)

    monkeypatch.setattr(room, "serve_page", seen)
    monkeypatch.setattr(room, "Peers", lambda context: peers)
    monkeypatch.setattr(access, "Rules", functools.partial(Rules, first_delay=0.001, longest_delay=0.002))
    monkeypatch.setattr(tail, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(tail, "LOOK_SECONDS", 0.02)
    for module in (duties, internal):
        for name in ("RETRY_FIRST", "RETRY_MOST", "RETRY_SECONDS"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 0.01)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminRoom]:
    """One room for a module's tests; `admin_room` puts its accounts and peers back for each."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        peers = FakePeers()
        patch(monkeypatch, peers)
        made = AdminRoom(tmp_path_factory.mktemp("admin"), peers).start()
        yield made
        made.stop()


@pytest.fixture
def admin_room(shared: AdminRoom) -> AdminRoom:
    """The room as after its first start, the administrator's password being PASSWORD."""
    shared.peers.reset()
    with shared.client(auth=None, headers=token(shared)) as client:
        for alias in client.get("/api/v1/aliases").json()["aliases"]:
            client.delete("/api/v1/aliases", params=alias)
        client.patch(f"/api/v1/accounts/{ADMIN}", json={"enabled": True, "administrator": True})
        for account in client.get("/api/v1/accounts").json()["accounts"]:
            if account["address"] != ADMIN:
                client.delete(f"/api/v1/accounts/{account['address']}", params={"purge": True})
        for domain in client.get("/api/v1/domains").json()["domains"]:
            if domain["name"] != "example.test":
                client.delete(f"/api/v1/domains/{domain['name']}")
        assert client.put(f"/api/v1/accounts/{ADMIN}/password", json={"password": PASSWORD}).status_code == 200
    shared.peers.reset()
    return shared


def token(admin: AdminRoom) -> dict[str, str]:
    """The command line's Authorization header."""
    import json

    found = json.loads((admin.folder / "admin" / "cli.json").read_text())
    return {"Authorization": f"Bearer {found['token']}"}


@pytest.fixture
def api(admin_room: AdminRoom) -> Iterator[httpx.Client]:
    """A client of the API as the command line."""
    with admin_room.client(auth=None, headers=token(admin_room), base_url=admin_room.url + "/api/v1") as client:
        yield client


@pytest.fixture
def new_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AdminRoom]]:
    """Starts rooms on one folder, one after the other."""
    made: list[AdminRoom] = []
    peers = FakePeers()
    patch(monkeypatch, peers)

    def start(**changes: Any) -> AdminRoom:
        if made:
            made[-1].stop()
        made.append(AdminRoom(tmp_path, peers, **changes).start())
        return made[-1]

    yield start
    if made:
        made[-1].stop()


def until(true: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until something is so."""
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come true")


__all__ = ["ADMIN", "PASSWORD", "AdminRoom", "FakePeers", "PeerSaid", "RoomHealth", "log_in", "token", "until"]
