"""The page as people use it, in a real browser: by mouse, by keyboard, on a phone, without script, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browsing import ADMIN, ANNA, log_in

PAGES = [
    "/", "/accounts", "/accounts/new", f"/accounts/{ANNA}", "/aliases", "/domains", "/domains/xn--fsqu00a.xn--fiqs8s",
    "/queue", "/bans", "/verdicts", "/trace", f"/trace?q={ANNA}", "/updates", "/changes", "/me", "/me/junk", "/me/rules", "/nothing",
]  # fmt: skip
WIDTHS = (320, 390, 1280)
HEAVIEST = 100_000  # octets, all that a page needs
FILES = Path(__file__).parents[2] / "services" / "admin" / "web" / "static"
STATIC = sum(path.stat().st_size for path in FILES.iterdir())  # after the first page they come from the browser's cache

# WCAG 2.2, 1.4.3: 4.5:1, and 3:1 for large text. Text over the page's own colours; nothing here has a picture behind it.
CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * (top[3] ?? 1) + under[i] * (1 - (top[3] ?? 1)));
  const luminance = (rgb) => rgb.map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const wrong = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const field = element.matches("input:not([type=hidden],[type=checkbox]), select");
    if (!(own || field) || !element.checkVisibility({ visibilityProperty: true }) || element.matches(".hidden, .hidden *, .skip")) continue;
    const style = getComputedStyle(element);
    let opacity = 1, backs = [];
    for (let each = element; each; each = each.parentElement) {
      opacity *= Number(getComputedStyle(each).opacity);
      backs.push(channels(getComputedStyle(each).backgroundColor));
    }
    const back = backs.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
    const text = channels(field && element.placeholder && !element.value
      ? getComputedStyle(element, "::placeholder").color : style.color);
    const front = over([...text.slice(0, 3), (text[3] ?? 1) * opacity], back);
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < (large ? 3 : 4.5)) wrong.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}: ${element.textContent.slice(0, 40)}`);
  }
  return wrong;
}"""
NAMELESS = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, nav, section")]
  .filter((each) => each.checkVisibility() && !(each.getAttribute("aria-label") || each.labels?.length ||
    each.getAttribute("aria-labelledby") || (!each.matches("section, nav, input, select") && each.textContent.trim())))
  .map((each) => each.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_every_page_fits_reads_and_weighs_little(open_page, language, scheme):
    page = open_page(ADMIN, locale=language, color_scheme=scheme)
    said = []
    weight: list[int] = []
    page.on("response", lambda answer: weight.append(len(answer.body()) if answer.ok else 0))
    for path in PAGES:
        weight.clear()
        status = page.goto(path).status
        said += [f"{path}: {each}" for each in page.said if not (status == 404 and "404" in each)]
        page.said.clear()
        assert page.evaluate("document.documentElement.lang") == language.split("-")[0].replace("zh", "zh-CN")
        assert page.locator("h1").count() == 1 and page.locator("main").count() == 1
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
        assert page.evaluate(CONTRAST) == [], path
        assert page.evaluate(NAMELESS) == [], path
        assert 0 < sum(weight) + STATIC < HEAVIEST, path
    assert said == [], "the console is quiet: no error, nothing that the policy had to stop"


def test_a_wrong_and_a_right_log_in(open_page, house):
    page = open_page()
    page.goto("/queue")
    assert page.locator("h1").inner_text() == "Log in"
    log_in(page, ADMIN, "not the password")
    assert page.get_by_role("alert").inner_text() == "wrong address or password"
    assert page.input_value("[name=name]") == ADMIN and page.input_value("[name=password]") == ""
    assert page.evaluate("document.activeElement.name") == "password"
    page.fill("[name=password]", house.password)
    page.keyboard.press("Enter")
    page.wait_for_url("**/queue")
    assert page.get_by_role("navigation").locator("[aria-current=page]").inner_text() == "Queue"
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")


def test_an_account_is_made_after_an_error_that_stands_beside_its_field(open_page):
    page = open_page(ADMIN)
    page.goto("/accounts")
    page.get_by_role("link", name="New account").click()
    page.get_by_label("Name before the @").fill("grand ma")
    page.get_by_label("Storage limit").fill("500")
    page.get_by_role("button", name="Make account").click()
    name = page.get_by_label("Name before the @")
    assert name.input_value() == "grand ma" and name.get_attribute("aria-invalid") == "true"
    assert page.get_by_label("Storage limit").input_value() == "500"
    assert name.evaluate("(field) => field === document.activeElement")
    described = name.get_attribute("aria-describedby")
    assert "has a character" in page.locator(f"#{described}").inner_text()
    name.fill("grandma")
    page.get_by_role("button", name="Make account").click()
    page.wait_for_url("**/accounts")
    assert "grandma@example.test is ready." in page.locator("main").inner_text()
    password = page.locator("#secret").inner_text()
    # What was shown once opens their own page, and no other.
    hers = open_page()
    hers.goto("/login")
    log_in(hers, "grandma@example.test", password)
    hers.wait_for_url("**/me")
    assert "of 500 MiB" in hers.locator("main").inner_text()
    assert hers.get_by_role("navigation").get_by_role("link").all_inner_texts() == ["My mail", "Junk mail", "Rules"]
    assert hers.goto("/accounts").status == 403


def test_a_button_copies(open_page, house):
    page = open_page(ADMIN, permissions=["clipboard-read", "clipboard-write"])
    page.goto("/domains/example.test")
    row = page.locator("li.card", has_text="_dmarc.example.test")
    row.get_by_role("button", name="Copy the value of _dmarc.example.test").click()
    row.get_by_text("✓ Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == row.locator("code").nth(1).inner_text()
    page.locator("#said", has_text="Copied").wait_for(state="attached")


def test_a_trace_is_a_timeline_in_the_readers_own_time(open_page):
    page = open_page(ADMIN)
    page.goto("/trace")
    page.get_by_role("searchbox").fill("carol@outside.example")
    page.get_by_role("button", name="Show").click()
    stories = page.get_by_role("article")
    stories.first.wait_for()
    assert stories.count() == 2
    refused, delivered = stories.nth(0), stories.nth(1)
    assert "Recipient: refused" in refused.inner_text() and "550 5.1.1" in refused.inner_text()
    kinds = delivered.locator(".timeline > li > b").all_inner_texts()
    assert kinds[:3] == ["Connection", "Introduction", "Sender"] and "Delivery to the mailbox" in kinds
    times = delivered.locator(".timeline time")
    moments = [time.get_attribute("datetime") for time in times.all()]
    assert moments == sorted(moments) and re.fullmatch(r"[\d-]+T[\d:]+\.\d{3}Z", moments[0])
    utc, shown = int(moments[0][11:13]), times.first.inner_text()
    assert int(shown[:2]) == (utc + 8) % 24, "the browser is in Shanghai"
    assert "GMT+8" in delivered.locator(".hint time").inner_text()


def test_the_language_is_switched_and_kept(open_page):
    page = open_page("li@xn--fsqu00a.xn--fiqs8s")
    page.get_by_role("button", name="简体中文").click()
    page.locator("html[lang='zh-CN']").wait_for()
    assert page.locator("h1").inner_text() == "我的邮箱" and page.url.endswith("/me")
    other = open_page("li@xn--fsqu00a.xn--fiqs8s")  # another browser, which asks for English
    assert other.locator("h1").inner_text() == "我的邮箱"
    other.get_by_role("button", name="English").click()
    other.locator("html[lang='en']").wait_for()
    assert "li@例子.中国" in other.locator("main").inner_text()


def test_a_phone_has_a_menu_and_cards(open_page):
    page = open_page(ADMIN, viewport={"width": 390, "height": 844})
    page.goto("/accounts")
    menu = page.get_by_role("navigation", name="Pages")
    assert not menu.is_visible()
    page.get_by_role("button", name="Menu").click()
    assert menu.is_visible()
    menu.get_by_role("link", name="Aliases").click()
    page.wait_for_url("**/aliases")
    assert page.locator("thead").evaluate("(head) => head.getBoundingClientRect().width") <= 1
    label = "(cell) => getComputedStyle(cell, '::before').content"
    assert page.locator("td[data-label]").first.evaluate(label) == '"goes to"'


def test_by_keyboard_alone(open_page):
    page = open_page(ADMIN)
    page.goto("/queue")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    assert skip.evaluate("(link) => link === document.activeElement && link.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "Try all again now"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"


def test_everything_works_without_script(open_page):
    page = open_page(ADMIN, java_script_enabled=False)
    page.goto("/aliases")
    page.get_by_label("Mail for").fill("tickets@example.test")
    page.get_by_label("goes to").fill(ANNA)
    page.get_by_role("button", name="Make alias").click()
    row = page.locator("tr", has_text="tickets@example.test")
    assert row.count() == 1
    row.get_by_role("button").click()
    assert page.locator("h1").inner_text() == "Delete this alias?"
    page.get_by_role("link", name="Cancel").click()
    row.get_by_role("button").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("The alias is deleted.").wait_for()
    assert row.count() == 0
    page.goto("/domains/example.test")
    assert page.get_by_role("button", name="Copy").count() == 0, "a button that would do nothing is not shown"
    assert "UTC" in (page.goto("/changes") and page.locator("main").inner_text())


def test_the_queue_shows_what_waits_and_lets_it_be_dropped(open_page):
    page = open_page(ADMIN)
    page.goto("/queue")
    letter = page.locator("li.card", has_text="dave@")
    letter.get_by_role("button", name="Hold").click()
    letter.get_by_text("held back").first.wait_for()
    letter.get_by_role("button", name="Let go").click()
    letter.get_by_role("button", name="Hold").wait_for()
    letter.get_by_role("button", name="Drop").click()
    page.get_by_role("button", name="Drop").click()
    page.get_by_text("It is dropped.").wait_for()
    page.goto("/changes")
    row = page.locator("tbody tr").first.inner_text()
    assert "queue: drop" in row and ADMIN in row and "127.0.0.1" in row


def test_a_page_refreshes_itself_while_nobody_works_in_it(open_page, house):
    page = open_page(ADMIN)
    page.clock.install()
    page.goto("/queue")
    house.submit(ANNA, "erin@later.example", message=b"Message-ID: <later@x>\r\nSubject: later\r\n\r\nx\r\n")
    assert page.locator("li.card", has_text="erin@").count() == 0
    page.clock.run_for(16_000)
    page.locator("li.card", has_text="erin@").wait_for()
    page.locator("#live button").first.focus()
    identity = page.locator("li.card", has_text="erin@").locator("small").first.inner_text()
    house.command("queue", "drop", identity)
    page.clock.run_for(16_000)
    assert page.locator("li.card", has_text="erin@").count() == 1, "what somebody works in stays under their hands"
