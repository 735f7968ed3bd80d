"""A person's own junk and rules in a real browser: what a stranger wrote stays text, and the buttons do what they say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import house as houses
import pytest
from browsing import ADMIN, ANNA

JUNK = (
    "Message-ID: <{0}@outside.example>\r\nFrom: \"Cheap <script>alert(1)</script>\" <cheap@outside.example>\r\n"
    "Subject: {1}\r\n\r\nBuy now\r\n"
)  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)> \u202egpj.exe " + "w" * 10_000
SHOTS = os.environ.get("MAILSTEAD_TEST_SHOTS", "")


def shot(page, name: str) -> None:
    """A picture for the eyes of whoever asked for them."""
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


@pytest.fixture(scope="module")
def sorted_mail(house):
    """Two letters in Anna's Junk, one with a hostile subject; moved there as her mail program does it."""
    for number, subject in enumerate(("Cheap watches", HOSTILE)):
        message = JUNK.format(f"junk{number}", subject).encode()
        house.receive("cheap@outside.example", ANNA, message=message)
        house.letter(ANNA, f"<junk{number}@outside.example>")
    with house.imap(ANNA) as client:
        client.select("INBOX")
        found = client.search(None, "FROM", "Cheap")[1][0].decode().replace(" ", ",")
        assert client._simple_command("MOVE", found, "Junk")[0] == "OK"
    return house


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_junk_and_rules_fit(open_page, sorted_mail, language, scheme, width):
    page = open_page(ANNA, locale=language, color_scheme=scheme, viewport={"width": width, "height": 800})
    for name in ("junk", "rules"):
        page.goto(f"/me/{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for details in page.locator("main details").all():
            details.evaluate("(each) => each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "opened"
        shot(page, f"{name}-{language}-{scheme}-{width}")
    assert page.said == []


def test_not_junk_and_junk_again(open_page, sorted_mail):
    page = open_page(ANNA)
    page.goto("/me/junk")
    letter = page.locator(".letter", has_text="Cheap watches")
    letter.get_by_role("button", name="Not junk").click()
    assert "It is in the inbox now" in page.get_by_role("status").first.inner_text()
    below = page.locator("section", has=page.get_by_role("heading", name="In the inbox lately"))
    below.locator(".letter", has_text="Cheap watches").get_by_role("button", name="This is junk").click()
    assert "It is in Junk now" in page.get_by_role("status").first.inner_text()
    assert page.locator("img[src=x]").count() == 0 and page.said == []


def test_a_rule_is_made_and_carried_out(open_page, sorted_mail):
    page = open_page(ANNA)
    page.goto("/me/rules")
    new = page.locator("section", has=page.get_by_role("heading", name="New rule"))
    new.get_by_label("If this").select_option("subject")
    new.get_by_label("contains").fill("invoice")
    new.get_by_role("button", name="Add").click()
    field = new.get_by_label("Folder or address")
    assert field.get_attribute("aria-invalid") == "true" and new.get_by_label("contains").input_value() == "invoice"
    field.fill("Bills")
    shot(page, "rules-error")
    new.get_by_role("button", name="Add").click()
    page.wait_for_url("**/me/rules")
    assert re.search(
        r"Subject contains “invoice”: move it to the folder Bills", page.locator("ol.letters").inner_text()
    )
    sorted_mail.settle()
    message = b"Message-ID: <bill@outside.example>\r\nFrom: <d@outside.example>\r\nSubject: An invoice\r\n\r\nx\r\n"
    sorted_mail.receive("d@outside.example", ANNA, message=message)
    with sorted_mail.imap(ANNA) as client:
        assert client.select("Bills", readonly=True) == ("OK", [b"1"])
    page.get_by_role("button", name="Delete rule 1").click()
    assert "No rules yet" in page.locator("main").inner_text()


def test_mistakes_of_a_script_stand_with_their_lines(open_page, sorted_mail):
    page = open_page(ANNA)
    page.goto("/me/rules")
    page.get_by_text("Sieve, for whoever knows it").click()
    page.locator("#own-own").fill('keep;\nfileinto "X";')
    page.get_by_role("button", name="Check and save").click()
    assert "line 2" in page.locator("#e-own").inner_text() and page.locator("#own-own").input_value().startswith(
        "keep;"
    )
    shot(page, "rules-script")


def test_a_trace_says_why(open_page, sorted_mail):
    page = open_page(ADMIN, viewport={"width": 390, "height": 800})
    page.goto("/trace?q=nobody@example.test")
    assert "No account and no alias has this address." in page.locator("main").inner_text()
    shot(page, "why-refused")
    page.goto("/trace?q=<junk0@outside.example>")
    for details in page.locator("main details").all():
        details.evaluate("(each) => each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "why-delivered")
    page.goto("/verdicts")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "unknown-recipient" in page.locator("main").inner_text()
    shot(page, "verdicts")
    assert page.said == [] and houses.PASSWORD not in page.content()
