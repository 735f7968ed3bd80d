"""A full mailbox: its owner hears of it once at 90 %, once when it is full, and anew after there was room."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import Callable
from typing import Any

import pytest

from services.admin import quota_letters
from services.directory.quotas import level
from services.runtime.internal_http import Client
from tests.unit.admin.admin_room import AdminRoom, until
from tests.unit.admin.test_admin_notices import mails
from tests.unit.admin.test_admin_update import api_of

ANNA = "anna@example.test"


@pytest.mark.parametrize(
    ("used", "quota", "wanted"),
    [(0, 0, 0), (10**12, 0, 0), (899, 1000, 0), (900, 1000, 1), (979, 1000, 1), (980, 1000, 2), (5000, 1000, 2)],
)
def test_levels(used: int, quota: int, wanted: int) -> None:
    assert level(used, quota) == wanted


def made(new_room: Callable[[], AdminRoom], quota: int = 1000 << 20) -> AdminRoom:
    admin = new_room()
    with api_of(admin) as api:
        api.post("/accounts", json={"address": ANNA, "quota_bytes": quota})
    return admin


def use(admin: AdminRoom, identity: str, share: float, quota: int = 1000 << 20) -> None:
    told = {"id": identity, "kind": "usage", "account": ANNA, "at": 1.0, "bytes": int(share * quota), "messages": 3}

    async def tell() -> dict[str, Any]:
        context = admin.context
        client = Client("imap", context.secrets, "admin", f"http://127.0.0.1:{context.ports['http']}")
        try:
            return (await client.post("/v1/facts", {"facts": [told]})).json()  # type: ignore[no-any-return]
        finally:
            client.close()

    assert asyncio.run(tell())["taken"] == 1


def letters(admin: AdminRoom) -> list[Any]:
    return [email.message_from_bytes(raw, policy=email.policy.default) for raw, _, _ in mails(admin)]


def test_once_at_each_level_and_anew_after_there_was_room(new_room: Callable[[], AdminRoom]) -> None:
    admin = made(new_room)
    for number, share in enumerate((0.5, 0.91, 0.93, 0.99, 0.995, 0.95, 0.5, 0.92)):
        use(admin, f"f{number}", share)
        wanted = {0.91: 1, 0.99: 2, 0.92: 3}
        if share in wanted:
            until(lambda count=wanted[share]: len(mails(admin)) == count)  # type: ignore[misc]
    subjects = [each["Subject"] for each in letters(admin)]
    assert subjects == ["Your mailbox is nearly full", "Your mailbox is full", "Your mailbox is nearly full"]
    with api_of(admin) as api:
        assert api.get("/status").json()["full"] == [{"address": ANNA, "percent": 92}]
    first = letters(admin)[0]
    assert first["To"] == ANNA and first["Auto-Submitted"] == "auto-generated" and "910 MiB" in first.get_content()
    assert [query for _, query, _ in mails(admin)] == [{"sender": ANNA, "recipient": ANNA}] * 3


def test_one_that_could_not_be_given_is_tried_again_over_a_restart(
    new_room: Callable[[], AdminRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_letters, "AGAIN_SECONDS", 0.01)
    admin = made(new_room)
    admin.peers.away.add("smtp-out")
    use(admin, "f1", 0.95)
    until(lambda: len(mails(admin)) > 1)
    admin.stop()
    admin.peers.away.clear()
    admin.peers.asked.clear()
    admin = new_room()
    until(lambda: bool(mails(admin)))
    admin.stop()
    admin.peers.asked.clear()
    admin = new_room()
    use(admin, "f2", 0.951)
    assert not mails(admin)
