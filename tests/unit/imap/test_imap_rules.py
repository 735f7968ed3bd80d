"""Scripts over HTTP: checked, kept, published for smtp-in, taken in from the server before us, gone with the account."""

import os
from pathlib import Path

import pytest

from services.runtime.internal_http import Request, Response
from services.storage.personal import RULES
from services.storage.provision import provision
from tests.unit.imap.imap_world import ANN, World, run, until, world

GOOD, OTHER, BAD = b'require "fileinto";\nfileinto "Work";\n', b"discard;\n", b'keep;\nfileinto "Work";\n'


async def ask(place: World, method: str, path: str, body: bytes = b"", room: str = "admin") -> Response:
    found = place.api.routes().find(method, path)
    assert not isinstance(found, int), (found, path)
    route, params = found
    assert room in route.allow
    return await route.handler(Request(method, path, {}, {}, body, room, params))


def published(place: World, address: str = ANN) -> bytes | None:
    local, _, domain = address.partition("@")
    path = Path(place.settings.personal_dir) / domain / local / RULES
    return path.read_bytes() if path.exists() else None


def base(address: str = ANN) -> str:
    return f"/v1/accounts/{address}/sieve"


def listed(answer: Response) -> list[tuple[str, bool]]:
    return [(row["name"], row["active"]) for row in answer.json()["scripts"]]


@pytest.fixture
def place_folder(tmp_path: Path) -> Path:
    (tmp_path / "personal").mkdir(exist_ok=True)
    return tmp_path


def test_a_script_from_its_first_line_to_its_end(place_folder: Path) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            assert (await ask(place, "GET", base())).json() == {"scripts": []}
            assert (await ask(place, "PUT", base() + "/rules", GOOD)).status == 200
            assert published(place) is None, "nothing runs before it is active"
            assert (await ask(place, "POST", base() + "/rules/activate")).json() == {"active": "rules"}
            assert published(place) == GOOD
            assert (await ask(place, "GET", base() + "/rules")).json()["content"] == GOOD.decode()
            assert (await ask(place, "PUT", base() + "/rules", OTHER)).status == 200
            assert published(place) == OTHER, "a change of the active one counts at once"
            assert (await ask(place, "PUT", base() + "/second", GOOD)).status == 200
            assert (await ask(place, "POST", base() + "/second/activate")).status == 200
            assert listed(await ask(place, "GET", base())) == [("rules", False), ("second", True)]
            assert published(place) == GOOD
            assert (await ask(place, "DELETE", base() + "/second")).status == 409
            renamed = await ask(place, "POST", base() + "/second/rename", b'{"to": "rules"}')
            assert renamed.status == 409
            assert (await ask(place, "POST", base() + "/second/rename", b'{"to": "new"}')).status == 200
            assert listed(await ask(place, "GET", base())) == [("new", True), ("rules", False)]
            assert (await ask(place, "POST", base() + "/rules/deactivate")).status == 200
            assert published(place) == GOOD, "another one's end is not the active one's"
            assert (await ask(place, "POST", base() + "/new/deactivate")).status == 200
            assert published(place) is None
            assert (await ask(place, "DELETE", base() + "/new")).status == 200
            assert (await ask(place, "GET", base() + "/new")).status == 404

    run(work())


def test_mistakes_are_told_with_their_place_and_change_nothing(place_folder: Path) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            await ask(place, "PUT", base() + "/rules", GOOD)
            await ask(place, "POST", base() + "/rules/activate")
            answer = await ask(place, "PUT", base() + "/rules", BAD)
            assert answer.status == 422
            (problem,) = answer.json()["problems"]
            assert (problem["line"], problem["column"]) == (2, 1) and "require" in problem["text"]
            assert published(place) == GOOD
            assert (await ask(place, "POST", base() + "/check", BAD)).json()["problems"] == [problem]
            assert (await ask(place, "POST", base() + "/check", GOOD)).json() == {"problems": []}

    run(work())


def test_what_is_refused(place_folder: Path) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            assert (await ask(place, "GET", base("nobody@example.test"))).status == 404
            assert (await ask(place, "PUT", base() + "/a%2Fb", GOOD)).status == 400
            assert (await ask(place, "PUT", base() + "/" + "x" * 129, GOOD)).status == 400
            assert (await ask(place, "PUT", base() + "/long", b"#" * 131_073)).status == 422
            assert (await ask(place, "POST", base() + "/none/activate")).status == 404
            for number in range(30):
                assert (await ask(place, "PUT", f"{base()}/s{number}", GOOD)).status == 200
            assert (await ask(place, "PUT", base() + "/one-more", GOOD)).status == 409

    run(work())


def test_everything_is_published_again_at_the_start(place_folder: Path) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            await ask(place, "PUT", base() + "/rules", GOOD)
            await ask(place, "POST", base() + "/rules/activate")
            path = place_folder / "personal" / "example.test" / ANN.partition("@")[0] / RULES
            path.unlink()  # as a restored house has it
            follower = place.desk.group.create_task(place.api.rules.follow())
            await until(lambda: published(place) == GOOD)
            follower.cancel()

    run(work())


def test_a_deleted_account_leaves_no_rules(place_folder: Path) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            await ask(place, "PUT", base() + "/rules", GOOD)
            await ask(place, "POST", base() + "/rules/activate")
            assert (await ask(place, "DELETE", f"/v1/mail/{ANN}")).status == 200
            assert published(place) is None
            assert (await ask(place, "GET", base())).json() == {"scripts": []}, "an account made anew is another one"

    run(work())


@pytest.mark.parametrize("home", ["", "home"])
@pytest.mark.parametrize("linked", [False, True])
def test_scripts_of_the_server_before_us_are_taken_in_once(
    place_folder: Path, home: str, linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            provision(place.settings.mail_dir, ANN)
            folder = place.maildir() / home
            (folder / "sieve").mkdir(parents=True)
            (folder / "sieve" / "mine.sieve").write_bytes(GOOD)
            (folder / "sieve" / "regex.sieve").write_bytes(b'require "regex"; keep;')
            if linked:
                os.symlink("sieve/mine.sieve", folder / ".dovecot.sieve")
            else:
                (folder / ".dovecot.sieve").write_bytes(OTHER)
            expected = [("mine", True), ("regex", False)]
            if not linked:
                expected = [("dovecot", True), ("mine", False), ("regex", False)]
            assert listed(await ask(place, "GET", base())) == expected
            assert published(place) == (GOOD if linked else OTHER)
            (log,) = [line for line in capsys.readouterr().err.splitlines() if "regex" in line]
            assert "kept but not run" in log and '"regex" is not known' in log
            for name, active in expected:
                if active:
                    await ask(place, "POST", f"{base()}/{name}/deactivate")
                await ask(place, "DELETE", f"{base()}/{name}")
            assert (await ask(place, "GET", base())).json() == {"scripts": []}, "only once"

    run(work())


def test_a_link_to_somewhere_else_is_not_followed(place_folder: Path) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            provision(place.settings.mail_dir, ANN)
            (place_folder / "secret").write_bytes(OTHER)
            os.symlink(place_folder / "secret", place.maildir() / ".dovecot.sieve")
            (place.maildir() / "sieve").mkdir()
            os.symlink(place_folder / "secret", place.maildir() / "sieve" / "x.sieve")
            assert (await ask(place, "GET", base())).json() == {"scripts": []}

    run(work())


def test_smtp_in_has_a_mailbox_made(place_folder: Path) -> None:
    async def work() -> None:
        async with world(place_folder) as place:
            body = f'{{"address": "{ANN}", "mailbox": "Work.New"}}'.encode()
            assert (await ask(place, "POST", "/v1/mailbox", body, "smtp-in")).json() == {"made": True}
            assert (await ask(place, "POST", "/v1/mailbox", body, "smtp-in")).json() == {"made": False}
            assert (place.maildir() / ".Work.New" / "new").is_dir()
            account = await place.accounts.open(ANN)
            assert "Work.New" in account.store.subscriptions()
            place.accounts.release(account)
            bad = f'{{"address": "{ANN}", "mailbox": "a/b"}}'.encode()
            assert (await ask(place, "POST", "/v1/mailbox", bad, "smtp-in")).status == 409
            nobody = b'{"address": "nobody@example.test", "mailbox": "Work"}'
            assert (await ask(place, "POST", "/v1/mailbox", nobody, "smtp-in")).status == 404

    run(work())
