"""One house and one browser for all of this folder: the single process, and Debian's chromium over it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import house as houses
import pytest
from mailclients import LetterRefused
from playwright.sync_api import Browser, Page, sync_playwright

ADMIN, ANNA = "admin@example.test", "anna@example.test"
CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), "")
LETTER = "Message-ID: <hello@outside.example>\r\nSubject: hello\r\nFrom: <carol@outside.example>\r\n\r\nHello\r\n"
# A relay that nobody listens for: what is sent stays in the queue, for the page to show.
SETTINGS = {"RELAY_HOST": "127.0.0.1:1"}


class Lived(houses.House):
    """A house with a family in it. `password` is the administrator's."""

    password = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port('admin')}"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    made = Lived(tmp_path_factory.mktemp("house"), SETTINGS)
    try:
        made.start()
        made.password = made.ready["password"]
        made.command("domain", "add", "例子.中国")
        made.command("account", "add", ANNA, houses.PASSWORD)
        made.command("account", "add", "li@例子.中国", houses.PASSWORD)
        made.command("alias", "add", "a-rather-long-name-of-a-list-of-people@example.test", ANNA)
        made.settle()
        made.receive("carol@outside.example", ANNA, message=LETTER.encode())
        with pytest.raises(LetterRefused):
            made.receive("carol@outside.example", "nobody@example.test", message=LETTER.encode())
        out = LETTER.replace("carol@outside.example", ANNA).replace("hello@", "away@")
        made.submit(ANNA, "dave@a-domain-that-is-long-enough-to-wrap.departments.example", message=out.encode())
        yield made
        assert "bug" not in made.log
    finally:
        made.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    # As root chromium has no sandbox of its own to give.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, house: Lived) -> Iterator[Callable[..., Page]]:
    """Opens a browser window of its own; `name` logs in. `page.said` collects what the console says."""
    contexts = []

    def opened(name: str = "", **options: Any) -> Page:
        options = {"locale": "en-GB", "timezone_id": "Asia/Shanghai", "base_url": house.url, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.said = said = []  # type: ignore[attr-defined]
        page.on("console", lambda message: said.append(message.text) if message.type != "verbose" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        if name:
            page.goto("/login")
            log_in(page, name, house.password if name == ADMIN else houses.PASSWORD)
        return page

    yield opened
    for context in contexts:
        context.close()


def log_in(page: Page, name: str, password: str) -> None:
    """Fill the log-in's form and send it."""
    page.fill("[name=name]", name)
    page.fill("[name=password]", password)
    page.click("main button")
