"""The page's languages: catalogues that are whole, sentences from below that are known, nothing said past them."""

from __future__ import annotations

import ast
import gettext
import html
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from admin_room import ADMIN, PASSWORD, log_in
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from services.admin import text
from services.admin.catalogue import read_catalogue, read_entries
from services.admin.phrases import PHRASES, phrase_of, say
from services.admin.web import words

ROOT = Path(__file__).parents[3]
LOCALE = ROOT / "services" / "admin" / "locale"
TRANSLATED = sorted(tag for tag in text.LANGUAGES if tag != text.ENGLISH)
with (ROOT / "babel.cfg").open() as mapping:
    METHODS, OPTIONS = parse_mapping_cfg(mapping)
KEYWORDS = {"_": None, "mark": None, "ngettext": (1, 2)}


def messages() -> set[str]:
    """Every message of code and templates; of a plural one, both forms joined by NUL."""
    found = set()
    for _file, _line, message, _comments, _context in extract_from_dir(
        ROOT, METHODS, OPTIONS, KEYWORDS,
        directory_filter=lambda folder: not Path(folder).name.startswith((".", "tests", "data")),
    ):  # fmt: skip
        found.add("\0".join(message) if isinstance(message, tuple) else message)
    return found


@pytest.fixture(autouse=True)
def english_again():
    yield
    text.speak(text.ENGLISH)


@pytest.mark.parametrize("tag", TRANSLATED)
def test_a_catalogue_is_whole(tag):
    """How to mend it: CONTRIBUTING.md."""
    content = (LOCALE / f"{tag}.po").read_text("utf-8")
    entries = read_entries(content)
    wanted = messages()
    assert len(wanted) > 400
    assert sorted(wanted - set(entries)) == [], "not translated, or fuzzy"
    assert sorted(set(entries) - wanted - {""}) == [], "nothing says this any more"
    assert "#, fuzzy" not in content and "#~" not in content


@pytest.mark.parametrize("tag", TRANSLATED)
def test_translations_have_the_same_places(tag):
    for message, translated in read_entries((LOCALE / f"{tag}.po").read_text("utf-8")).items():
        for each in translated.split("\0") if message else ():
            places = re.findall(r"\{\w+\}", message.split("\0")[-1])
            assert sorted(re.findall(r"\{\w+\}", each)) == sorted(places), message
            assert each.startswith(" ") == message.startswith(" "), message


@pytest.mark.parametrize("tag", TRANSLATED)
def test_our_reader_reads_what_babel_reads(tag, tmp_path):
    path = LOCALE / f"{tag}.po"
    with path.open("rb") as source, (tmp_path / "x.mo").open("wb") as target:
        write_mo(target, read_po(source, locale=tag.replace("-", "_")))
    with (tmp_path / "x.mo").open("rb") as compiled:
        theirs = gettext.GNUTranslations(compiled)
    ours = read_catalogue(str(path))
    assert {k: v for k, v in ours._catalog.items() if k} == {k: v for k, v in theirs._catalog.items() if k}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('msgid "a"\nmsgstr "b"\n', {"a": "b"}),
        ('#, fuzzy\nmsgid "a"\nmsgstr "b"\n', {}),
        ('msgid "a"\nmsgstr ""\n', {}),
        ('msgid ""\n"a\\n"\n"b"\nmsgstr "\\"c\\" \\\\"\n', {"a\nb": '"c" \\'}),
        ('msgid "a"\nmsgid_plural "as"\nmsgstr[0] "x"\nmsgstr[1] "y"\n', {"a\0as": "x\0y"}),
        ('msgid "a"\nmsgid_plural "as"\nmsgstr[0] "x"\nmsgstr[1] ""\n', {}),
        ('# words\n\nmsgid "a"\nmsgstr "b"\n\n\n\nmsgid "c"\nmsgstr "d"', {"a": "b", "c": "d"}),
    ],
)
def test_reading_a_catalogue(content, found):
    assert read_entries(content) == found


@pytest.mark.parametrize("content", ['"a"', "msgid a", 'msgid "a"\nnonsense', 'msgctxt "x"\nmsgid "a"\nmsgstr "b"'])
def test_what_is_no_catalogue(content):
    with pytest.raises(ValueError, match="not a line"):
        read_entries(content)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", "en"), ("zh-CN", "zh-CN"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"), ("en-GB,zh;q=0.5", "en"),
        ("de,zh-TW;q=0.7,en;q=0.6", "zh-CN"), ("de", "en"), ("zh;q=0", "en"), ("*", "en"), ("zh;q=x,en", "en"),
        ("zh;q=nan", "en"), ("ZH-hans-cn", "zh-CN"), ("," * 5000, "en"), ("fr;q=0.9,zh;q=0.1", "zh-CN"),
    ],
)  # fmt: skip
def test_the_language_that_a_browser_asks_for(accepted, chosen):
    assert text.negotiated(accepted) == chosen


# --- sentences from below -----------------------------------------------------------------------------------------------

BELOW = [
    *(ROOT / "services" / "directory").glob("*.py"),
    *(ROOT / "services" / "policy" / name for name in ("intake.py", "forwarding.py", "routes.py", "throttle.py")),
    *(
        ROOT / "services" / "admin" / name
        for name in ("access.py", "dns.py", "operations.py", "updates.py", "holding.py")
    ),
]
# Said to programs and to logs, never on the page.
UNSEEN = re.compile(
    r"snapshot format|no directory is published|is not in |has schema|migration |another version|a ban of kind|"
    r"log in with an administrator|the token is wrong|DNS name|not a snapshot|account \{\}: \{\}$|queue: \{\} |"
    r"account \{\} deleted; \{\}|tried whether mail flows: \{\}|^\{\}$"
)


def sentences(path: Path) -> set[str]:
    """The sentences that a module raises or gives as a reason, {} standing for values."""
    said = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        given: list[ast.expr] = []
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            given = node.exc.args
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Reason", "refused", "_record"):
            given = node.args
        elif isinstance(node, ast.Call):
            given = [each.value for each in node.keywords if each.arg == "reason"]
        for value in given:
            for part in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    said.add(part.value)
                elif isinstance(part, ast.JoinedStr):
                    pieces = [str(each.value) if isinstance(each, ast.Constant) else "{}" for each in part.values]
                    said.add("".join(pieces))
    return {each for each in said if " " in each and not UNSEEN.search(each)}


@pytest.mark.parametrize("path", BELOW, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_sentences_from_below_are_known(path):
    unknown = [each for each in sorted(sentences(path)) if not phrase_of(each.replace("{}", "x1"))]
    assert not unknown, f"add them to services/admin/phrases.py, or to UNSEEN: {unknown}"


def test_a_phrase_stands_once():
    """The first that matches is taken, so a second one of the same words is never said."""
    shapes = Counter(re.sub(r"\{\w+\}", "{}", phrase) for phrase in PHRASES)
    assert [shape for shape, times in shapes.items() if times > 1] == []


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("the password is the address", "密码不能与地址相同"),
        ("there is no account a@b.test", "没有账户 a@b.test"),
        ("smtp-out: the password is the address", "smtp-out：密码不能与地址相同"),
        ("it was refused; no server answered", "被拒绝；没有服务器应答"),
        ("given up after 72 hours: its sender is told", "72 小时后放弃：已通知发件人"),
        ("Up 3 hours (healthy)", "已运行 3 小时（健康）"),
        # another server's words stay as they are
        ("550 5.1.1 User unknown; see https://help.example/", "550 5.1.1 User unknown; see https://help.example/"),
        ("", ""),
        ("{room}: %s {0}", "{room}：%s {0}"),  # values are put in, never read as places
        (": ".join(["a"] * 2000), None),  # nested without end
    ],
)
def test_a_sentence_in_the_readers_language(english, chinese):
    assert say(english) == english
    text.speak("zh-CN")
    assert chinese is None or say(english) == chinese


def test_words_are_known_for_every_room():
    from services.admin.peers import ROOMS

    assert {*ROOMS, "admin"} <= set(words.ROOMS)
    assert words.room_word("new-room") == "" and words.state_word("new") == words.kind_word("new") == "new"
    assert words.field_word("new_field") == "new field"
    assert words.step_word("undo pull") == "taken back: download"


# --- nothing is said past the catalogues --------------------------------------------------------------------------------

# What is the same in every language.
ANYWHERE = re.compile(
    r"Mailstead|简体中文|English|IMAP|SMTP|DKIM|SSL/TLS|MX|TXT|SRV|PTR|AAAA|[A-Z][a-z]{2} \d|UTC|[KMGT]iB|\bB\b|scripts/\S+"
    r"|account \S+: enabled True, administrator True"  # two changes at once, as this folder's fixture makes them: not a phrase
)


class Visible(HTMLParser):
    """Collects what a person sees or hears of a page, but for what is marked as data (`translate="no"`, code, time)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside: list[bool] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        data = given.get("translate") == "no" or tag in ("code", "pre", "time", "style", "script")
        data = data or tag == "title"  # the heading says the same
        if tag not in ("input", "meta", "link", "img", "br", "hr", "path"):
            self._inside.append(data)
        for name in ("aria-label", "title", "alt", "data-label", "data-copied"):
            if given.get(name):
                self.found.append(given[name])

    def handle_endtag(self, tag):
        if tag not in ("input", "meta", "link", "img", "br", "hr", "path"):
            self._inside.pop()

    def handle_data(self, data):
        if data.strip() and not any(self._inside):
            self.found.append(data.strip())


PAGES = [
    "/login", "/", "/accounts", "/accounts/new", f"/accounts/{ADMIN}", "/aliases", "/domains", "/domains/example.test",
    "/queue", "/bans", "/verdicts", "/trace", "/trace?q=nothing", "/updates", "/changes", "/me", "/me/junk", "/me/rules", "/nothing",
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_text_of_a_page_goes_through_the_catalogue(admin_room, path):
    """A language that puts marks around whatever it is asked for; what stands outside of the marks was not asked for."""
    text.pretend("zh-CN", lambda message: f"⟦{message}⟧")
    try:
        with admin_room.client(auth=None, headers={"Accept-Language": "zh-CN"}) as client:
            if path != "/login":
                log_in(client)
                client.post("/aliases", data={})  # no page is left with a notice of another
            shown = Visible()
            shown.feed(client.get(path).text)
    finally:
        text.pretend("zh-CN", None)
    outside = []
    for found in shown.found:
        left = found
        while (shorter := re.sub(r"⟦[^⟦⟧]*⟧", "", left)) != left:
            left = shorter
        left = ANYWHERE.sub("", left)
        if re.search(r"[A-Za-z]{2,}", left):
            outside.append(found)
    assert any("⟦" in found for found in shown.found) and not outside, outside


def test_the_language_follows_browser_cookie_and_account(admin_room):
    chinese = {"Accept-Language": "zh-CN,zh;q=0.9"}
    with admin_room.client(auth=None, headers=chinese) as client:
        page = client.get("/login")
        assert (
            '<html lang="zh-CN">' in page.text and "登录" in page.text and page.headers["content-language"] == "zh-CN"
        )
        wrong = log_in(client, ADMIN, "wrong").text
        assert "地址或密码错误" in wrong
        # the switch, before the log-in: a cookie
        answer = client.post("/language", data={"language": "en", "back": "/login"})
        assert answer.status_code == 303 and answer.headers["location"] == "/login"
        assert '<html lang="en">' in client.get("/login").text
        log_in(client)
        assert '<html lang="en">' in client.get("/").text
        # and after it: the account's, wherever it logs in next
        token = re.search(r'name="form_token" value="(\w+)"', client.get("/me").text)[1]
        client.post("/language", data={"language": "zh-CN", "back": "//evil.example/", "form_token": "wrong"})
        assert '<html lang="en">' in client.get("/").text
        answer = client.post("/language", data={"language": "zh-CN", "back": "//evil.example/", "form_token": token})
        assert answer.headers["location"] == "/"
        assert '<html lang="zh-CN">' in client.get("/").text
    with admin_room.client(auth=None, headers={"Accept-Language": "en"}) as client:
        log_in(client)
        page = client.get("/accounts").text
        assert '<html lang="zh-CN">' in page and "新建账户" in page
        token = re.search(r'name="form_token" value="(\w+)"', page)[1]
        failed = client.post("/accounts", data={"local": "a b", "domain": "example.test", "form_token": token})
        assert "@ 前面含有不允许的字符" in html.unescape(failed.text)
        client.post("/language", data={"language": "en", "form_token": token})
        assert PASSWORD not in page
