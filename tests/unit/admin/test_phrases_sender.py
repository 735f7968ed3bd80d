"""Every sentence about who sends is known to the page, and its values stand in the Chinese one too."""

import ast
import re
from pathlib import Path

import pytest

from services.admin import text
from services.admin.phrases import phrase_of, say

SERVICES = Path(__file__).parents[3] / "services"
MODULES = [
    *(SERVICES / "policy" / f"{name}.py" for name in ("spf", "spf_record", "spf_macro", "peer", "dnsbl")),
    *(SERVICES / "runtime" / f"{name}.py" for name in ("dns_wire", "dns_resolver")),
]
# Where a sentence is made: arguments of these, keywords, variables, and what is yielded.
CALLS = {
    "Reason",
    "_permerror",
    "_Ended",
    "MacroError",
    "RecordError",
    "TemporaryFailure",
    "NoSuchName",
    "NoAnswer",
    "OSError",
}
KEYWORDS = {"problem", "error"}
VARIABLES = {"problem", "text", "wrong"}
# Part of a sentence; or said to whoever sets DNSBL_LISTS, at the start.
UNSEEN = re.compile(
    r"^\{\}( of \{\})?: \{\}$|^no answer within|^the resolver|^an answer of more|is not a list such as|is more than \{\}$|begins with its|"
    r"lists are asked of"
)


@pytest.fixture(autouse=True)
def english_again():
    yield
    text.speak(text.ENGLISH)


def pieces(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(value)):
            return [value]
        case ast.JoinedStr(values=values):
            return ["".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in values)]
        case ast.IfExp(body=body, orelse=orelse):
            return pieces(body) + pieces(orelse)
    return []


def sentences(path: Path) -> set[str]:
    said: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Call():
                if ast.unparse(node.func).split(".")[-1] in CALLS:
                    said += [piece for each in node.args for piece in pieces(each)]
                said += [piece for each in node.keywords if each.arg in KEYWORDS for piece in pieces(each.value)]
            case ast.Assign(targets=[ast.Name(id=name)]) if name in VARIABLES:
                said += pieces(node.value)
            case ast.Yield(value=ast.expr() as value):
                said += pieces(value)
    return {each for each in said if " " in each and not UNSEEN.search(each)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_every_sentence_is_known_and_translated(path):
    found = sentences(path)
    assert found or path.name == "dns_resolver.py"
    text.speak("zh-CN")
    for each in found:
        made = each.replace("{}", "x1")
        assert phrase_of(made), f"add to services/admin/phrases_sender.py: {each}"
        assert say(made) != made and say(made).count("x1") >= made.count("x1"), each


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        (
            "the SPF record of a.test is wrong: ip4:1.2.3 is wrong: 1.2.3 is no IPv4 address",
            "a.test 的 SPF 记录有误：ip4:1.2.3 有误：1.2.3 不是 IPv4 地址",
        ),
        (
            "the SPF record of a.test could not be asked for: TXT of a.test: no answer within 10 seconds",
            "无法查询 a.test 的 SPF 记录：a.test 的 TXT：10 秒内没有应答",
        ),
        (
            "8.8.8.9 is listed by zen.example (127.0.0.4): see https://zen.example/q (or ask)",
            "8.8.8.9 在 zen.example 的名单上（127.0.0.4）：see https://zen.example/q (or ask)",
        ),
        ("8.8.8.9 is listed by zen.example (127.0.0.4)", "8.8.8.9 在 zen.example 的名单上（127.0.0.4）"),
    ],
)
def test_sentences_within_sentences(english, chinese):
    text.speak("zh-CN")
    assert say(english) == chinese
