"""The first start and the later ones: what is made, what is kept, what ends the start with one line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from admin_room import ADMIN, log_in, until

from services.admin import bootstrap
from services.admin.bootstrap import WrongAddress, forget, prepare, readable_password
from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.publish import Publisher
from services.runtime.values import Settings


def first_login(house, folder):
    """What `mailstead first-login` reads."""
    password = Path(folder, "first-password")
    return Path(
        folder, "first-administrator"
    ).read_text().strip(), password.read_text().strip() if password.exists() else ""


ROOT = Path(__file__).parents[3]


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "hash_password", lambda password: "$" + password)
    for name in ("routing", "auth"):
        (tmp_path / name).mkdir()
    database = Database(str(tmp_path / "directory.db"))
    made = Directories(database, Publisher(str(tmp_path / "routing"), str(tmp_path / "auth")))

    def start(**settings):
        return prepare(made, dataclasses.replace(Settings(), **settings), str(tmp_path))

    made.start, made.folder = start, str(tmp_path)
    yield made
    database.close()


def test_first_start_makes_domain_and_administrator(house, tmp_path):
    assert house.start() == ADMIN
    account = house.account(ADMIN).account
    assert account.administrator and account.enabled and [d.name for d in house.database.domains()] == ["example.test"]
    address, password = first_login(house, house.folder)
    assert address == ADMIN and house.database.password_hash(ADMIN) == "$" + password
    assert (tmp_path / "first-password").stat().st_mode & 0o077 == 0
    assert (tmp_path / "first-password").read_text() == password + "\n"


def test_second_start_changes_nothing(house):
    house.start()
    before = first_login(house, house.folder)
    assert house.start() == "" and first_login(house, house.folder) == before


def test_password_is_forgotten_once_it_is_changed(house):
    house.start()
    forget(house, house.folder, "somebody@example.test")
    assert first_login(house, house.folder)[1]
    forget(house, house.folder, ADMIN)
    assert first_login(house, house.folder) == (ADMIN, "")
    assert house.start() == "" and first_login(house, house.folder) == (ADMIN, "")


def test_a_domain_of_ones_own_set_later_is_made(house):
    house.start()
    assert house.start(mail_domain="Family.example") == "admin@family.example"
    assert {d.name for d in house.database.domains()} == {"example.test", "family.example"}
    assert first_login(house, house.folder)[0] == "admin@family.example"


def test_what_the_owner_deleted_stays_deleted(house):
    house.start()
    house.start(mail_domain="family.example")
    house.delete_account(ADMIN)
    house.delete_domain("example.test")
    assert house.start() == "" and house.database.account(ADMIN) is None
    assert [d.name for d in house.database.domains()] == ["family.example"]


def test_an_account_that_is_there_becomes_the_administrator(house):
    house.start()
    house.add_account("anna@example.test", "$h")
    assert house.start(admin_address="Anna@example.test") == ""
    assert house.account("anna@example.test").account.administrator
    assert first_login(house, house.folder)[0] == ADMIN


@pytest.mark.parametrize(
    "settings",
    [
        {"admin_address": "me@gmail.example"},
        {"admin_address": "a+b@example.test"},
        {"admin_address": "a/b@example.test"},
    ],
)
def test_an_administrator_elsewhere_is_refused(house, settings):
    with pytest.raises(WrongAddress, match=r"ADMIN_ADDRESS.* \(env/mailstead.env\)"):
        house.start(**settings)
    assert house.database.accounts() == []


class Crash(Exception):
    pass


@pytest.mark.parametrize("step", ["add_domain", "remember", "add_account", "_keep"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_during_the_first_start_is_made_good_by_the_next(house, monkeypatch, step, after):
    owner = bootstrap if step == "_keep" else house
    real = getattr(owner, step)  # _keep is called for the password first

    def crashing(*arguments, **options):
        if after:
            real(*arguments, **options)
        raise Crash

    monkeypatch.setattr(owner, step, crashing)
    with pytest.raises(Crash):
        house.start()
    monkeypatch.setattr(owner, step, real)
    house.start()
    address, password = first_login(house, house.folder)
    assert address == ADMIN and house.database.password_hash(ADMIN) == "$" + password
    assert house.account(ADMIN).account.administrator


def test_made_up_passwords_can_be_read_out():
    made = {readable_password() for _ in range(100)}
    assert len(made) == 100
    for password in made:
        assert len(password) == 27 and password.replace("-", "").isalpha() and password.islower()


# --- the room ----------------------------------------------------------------------------------------------------------


def test_accounts_and_log_ins_outlive_a_restart(new_room):
    room = new_room()
    address, password = ADMIN, (room.folder / "admin" / "first-password").read_text().strip()
    with room.client(auth=None) as client:
        log_in(client, address, password)
        cookies = dict(client.cookies)
    old_token = (room.folder / "admin" / "cli.json").read_text()
    room = new_room()
    with room.client(auth=None, cookies=cookies) as client:
        assert client.get("/api/v1/accounts").status_code == 200
    assert (room.folder / "admin" / "cli.json").read_text() != old_token
    room.stop()
    assert not (room.folder / "admin" / "cli.json").exists()


def test_first_password_goes_when_it_is_changed(new_room):
    room = new_room()
    path = room.folder / "admin" / "first-password"
    password = path.read_text().strip()
    with room.client(auth=(ADMIN, password)) as client:
        assert client.put(f"/api/v1/accounts/{ADMIN}/password", json={"password": "one of my own"}).status_code == 200
    assert not path.exists()


def test_a_publication_that_failed_is_finished(new_room, monkeypatch):
    from services.directory.lookup import SnapshotDirectory

    room = new_room()
    password = (room.folder / "admin" / "first-password").read_text().strip()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("services.directory.publish.os.symlink", full)
    with room.client(auth=(ADMIN, password)) as client:
        answer = client.post("/api/v1/domains", json={"name": "else.test"})
        assert answer.status_code == 503 and "is saved but could not be published" in answer.json()["error"]
        monkeypatch.undo()
        until(lambda: SnapshotDirectory(str(room.folder / "auth")).is_local("else.test"))


def test_a_stack_without_snapshots_publishes_at_its_start(new_room):
    room = new_room()
    room.stop()
    for path in [*(room.folder / "auth").iterdir(), *(room.folder / "routing").iterdir()]:
        path.unlink()
    room = new_room()
    until(lambda: (room.folder / "auth" / "current").exists())


def test_nothing_heavy_is_loaded_before_somebody_looks():
    program = (
        "import sys, services.admin.room\n"
        "print([m for m in ('fastapi', 'pydantic', 'uvicorn', 'jinja2', 'argon2', 'cryptography', 'idna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_connection_loads_the_page_and_is_answered(new_room):
    room = new_room()
    with httpx.Client(base_url=room.url, timeout=20) as client:
        assert client.get("/login").status_code == 200


def test_a_room_that_nobody_looked_at_stops_at_once(new_room):
    room = new_room()
    room.stop()
    assert room.failed is None
