"""Hints: batched, bounded, and nobody waits for them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from services.runtime.internal_http import PeerUnavailable
from services.smtp_in import hints
from services.smtp_in.hints import Hints


class Imap:
    """Takes posts while `there`, after `go_on`."""

    def __init__(self) -> None:
        self.posts: list[list[dict[str, str]]] = []
        self.there = True
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def post(self, path: str, value: dict[str, Any]) -> None:
        assert path == "/v1/hint"
        await self.go_on.wait()
        if not self.there:
            raise PeerUnavailable("away")
        self.posts.append(value["items"])


def run(story: Callable[[Imap, Hints], Awaitable[None]]) -> None:
    async def play() -> None:
        imap = Imap()
        told = Hints(imap, pause=0.001, away_pause=0.001)  # type: ignore[arg-type]
        running = asyncio.create_task(told.run())
        async with asyncio.timeout(5):
            await story(imap, told)
        running.cancel()

    asyncio.run(play())


def names(imap: Imap) -> list[str]:
    return [item["name"] for post in imap.posts for item in post]


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_what_comes_while_a_post_is_under_way_goes_together() -> None:
    async def story(imap: Imap, told: Hints) -> None:
        imap.go_on.clear()
        told.add("anna@a.test", "INBOX", "0")
        await asyncio.sleep(0.005)
        for number in range(1, 1200):
            told.add("anna@a.test", "INBOX", str(number))
        imap.go_on.set()
        await until(lambda: len(names(imap)) == 1200)
        assert names(imap) == [str(number) for number in range(1200)]
        assert [len(post) for post in imap.posts] == [1, 500, 500, 199]
        assert imap.posts[0] == [{"account": "anna@a.test", "mailbox": "INBOX", "name": "0"}]

    run(story)


def test_while_imap_is_away_hints_are_dropped_and_counted() -> None:
    async def story(imap: Imap, told: Hints) -> None:
        imap.there = False
        told.add("anna@a.test", "INBOX", "lost")
        await until(lambda: told.lost == 1)
        assert len(told) == 0
        imap.there = True
        told.add("anna@a.test", "INBOX", "found")
        await until(lambda: names(imap) == ["found"])

    run(story)


def test_the_list_is_bounded() -> None:
    async def story(imap: Imap, told: Hints) -> None:
        imap.go_on.clear()
        for number in range(hints.MOST + 10):
            told.add("anna@a.test", "INBOX", str(number))
        assert (len(told), told.lost) == (hints.MOST, 10)

    run(story)
