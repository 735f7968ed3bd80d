"""How full mailboxes are: counted after changes, for those with a quota, and told to smtp-in and admin."""

import json
from pathlib import Path

import pytest

from services.imap.usage import Usages
from services.storage.account import NewMessage
from services.storage.personal import Reader
from services.storage.usage_file import LARGEST, NAME, UsageNow, decode, encode
from tests.unit.imap.imap_world import ANN, BOB, World, run, until, world


def told(place: World, address: str = ANN) -> UsageNow | None:
    return Reader(str(place.folder / "personal"), NAME, decode, most=LARGEST).get(address)


def usages(place: World) -> Usages:
    return Usages(place.context, place.directory, place.accounts, place.facts)  # type: ignore[arg-type]


def test_only_accounts_with_a_quota_are_counted(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.directory.set(ANN, quota_bytes=1000)
            place.deliver(b"x" * 100)
            place.deliver(b"x" * 100, BOB)
            made = usages(place)
            made._follow()
            await made.work()
            now = told(place)
            assert now is not None and now.octets == 100 and now.at <= place.context.clock()
            assert told(place, BOB) is None
            assert place.facts.posted == [("usage", ANN, {"bytes": 100, "messages": 1})]

    run(work())


def test_a_hint_an_append_and_an_expunge_are_counted_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.directory.set(ANN, quota_bytes=1_000_000)
            made = usages(place)
            made._follow()
            await made.work()
            assert told(place) == UsageNow(0, told(place).at)  # type: ignore[union-attr]
            place.deliver(b"x" * 1000)
            made.changed(ANN)  # what a hint does
            made._not_before.clear()
            made._due = dict.fromkeys(made._due, 0.0)
            await made.work()
            assert told(place).octets == 1000  # type: ignore[union-attr]
            account = await place.accounts.open(ANN)
            try:
                await account.run(lambda: account.store.append("INBOX", [NewMessage(b"y" * 500)]))
                await until(lambda: ANN in made._due)
                made._due = {ANN: 0.0}
                await made.work()
                assert told(place).octets == 1500  # type: ignore[union-attr]
                inbox = await account.run(lambda: account.store.mailbox("INBOX"))
                await account.run(lambda: inbox.store(inbox.uids, "+", ["\\Deleted"]) and inbox.expunge())
                await until(lambda: ANN in made._due)
            finally:
                place.accounts.release(account)
            made._due = {ANN: 0.0}
            await made.work()
            assert told(place).octets == 0  # type: ignore[union-attr]

    run(work())


def test_a_quota_that_is_taken_away_takes_the_file_with_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            place.directory.set(ANN, quota_bytes=1000)
            made = usages(place)
            made._follow()
            await made.work()
            assert told(place) is not None
            place.directory.set(ANN, quota_bytes=0)
            made._generation = -1
            made._follow()
            assert told(place) is None
            made.changed(ANN)
            assert not made._due

    run(work())


@pytest.mark.parametrize("posts", [[0, 5, 905, 906, 910, 985, 986, 890]])
def test_admin_hears_of_hundredths_and_of_thresholds(tmp_path: Path, posts: list[int]) -> None:
    async def work() -> None:
        async with world(tmp_path) as place:
            made = usages(place)
            made._quotas = {ANN: 1000}
            for octets in posts:
                made._tell(ANN, octets, 1)
            # 5: half a hundredth. 906, 986: nothing new. 910: half a hundredth more than the last fact.
            assert [fields["bytes"] for _, _, fields in place.facts.posted] == [0, 905, 985, 890]

    run(work())


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b'{"octets": -1, "at": 1}', b'{"octets": true, "at": 1}', b'{"octets": 1, "at": "x"}',
     b'{"octets": 1, "at": NaN}', b'{"octets": 1.5, "at": 1}', b"[" * 1000],
)  # fmt: skip
def test_what_is_no_usage(content: bytes) -> None:
    with pytest.raises(ValueError):
        decode(content)


def test_round_trip() -> None:
    assert decode(encode(UsageNow(5, 7.25))) == UsageNow(5, 7.25)
    assert json.loads(encode(UsageNow(5, 7.25))) == {"octets": 5, "at": 7.25}
