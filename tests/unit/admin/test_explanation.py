"""`explain`: stories as the owner is told them, the table of advice held to the sources, and the three ways to ask."""

from __future__ import annotations

import ast
import io
import json
import re
from pathlib import Path

import pytest
from admin_room import ADMIN, log_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.admin import cli, text
from services.admin.advice import ELSEWHERE, EVENTS, RULES, advice, known
from services.admin.event_lines import read_line
from services.admin.explanation import elsewhere, explain
from services.admin.stories import Story
from services.runtime.values import described

ROOT = Path(__file__).parents[3]
SERVICES = ROOT / "services"


@pytest.fixture(autouse=True)
def english_again():
    yield
    text.speak(text.ENGLISH)


def event(kind, outcome="accept", t=1_700_000_000_000_000, trace="m1", room="smtp-in", **fields):
    return {"id": t, "t": t, "room": room, "kind": kind, "trace": trace, "outcome": outcome, **fields}


JUNKED = [
    event("connect", trace="c1", peer="192.0.2.7"),
    event("mail", sender="bob@else.example", conn="c1"),
    event("rcpt", recipient="anna@example.test", conn="c1"),
    event(
        "data", "junk", conn="c1", message_id="<1@else.example>", score=6.2,
        reasons=["known-sender|-1|anna has written to bob", "spf-fail|4.2|192.0.2.7 may not send | for else.example",
                 "dkim-none|0|no signature", "bayes|3|like 40 of 41"],
        rules="known-sender spf-fail dkim-none bayes", reason="a; b; c; d",
        dns=["TXT else.example → v=spf1 -all"], auth="mail.example.test; spf=fail",
    ),
    event("delivered", "junk", account="anna@example.test", recipient="anna@example.test", mailbox="Junk"),
]  # fmt: skip


def test_each_rule_stands_with_weight_sentence_cause_and_what_to_do():
    found = explain(Story("m1", "message", JUNKED), 5.0)
    assert found.sentence == "Put into Junk: its score of 6.2 reaches 5.0."
    assert [stage.stage for stage in found.stages] == ["connect", "mail", "rcpt", "data", "delivered"]
    data = found.stages[3]
    assert [(rule.rule, rule.weight) for rule in data.rules] == [
        ("spf-fail", 4.2), ("bayes", 3.0), ("known-sender", -1.0), ("dkim-none", 0.0),
    ]  # fmt: skip
    assert data.rules[0].text == "192.0.2.7 may not send | for else.example"
    assert "SPF_FAIL (env/filter.env)" in data.rules[0].where and data.rules[0].todo and data.rules[0].cause
    assert data.rules[2].todo == "", "what speaks for the message needs no advice"
    assert (data.score, data.threshold, data.reason) == (6.2, 5.0, "")
    assert data.dns == ["TXT else.example → v=spf1 -all"] and data.auth == "mail.example.test; spf=fail"
    assert found.stages[4].folder == "Junk"
    assert found.todo[0] == data.rules[0].todo, "the heaviest first"


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([event("rcpt", "reject", rules="unknown-recipient", reason="no account, alias or catch-all has this name")],
         "Refused at “Recipient”; the sender's server tells the sender."),
        ([event("rcpt", "defer", rules="greylist", reason="x")],
         "Put off at “Recipient”; the sender's server tries again by itself."),
        ([event("rcpt", "reject"), event("data", "accept"), event("delivered", "accept")], "Delivered."),
        ([event("data", "accept"), event("delivered", "defer")], "Not delivered yet."),
        ([event("delivered", "junk")], "Put into Junk."),
        ([event("data", "junk", score=4.0), event("delivered", "junk")],
         "Put into Junk by a setting, at a score of 4.0."),
        ([event("data", "reject", reply="554 no"), event("disconnect", "info")],
         "Refused at “Message”; the sender's server tells the sender."),
        ([event("attempt", "reject", room="smtp-out"), event("bounced", "reject", room="smtp-out")],
         "It did not arrive: its sender was told."),
        ([event("attempt", "defer", room="smtp-out")], "Not delivered yet."),
        ([event("attempt", "accept", room="smtp-out")], "Delivered."),
    ],
)  # fmt: skip
def test_how_it_ended(events, sentence):
    assert explain(Story("m1", "message", events), 5.0).sentence == sentence


def test_a_connection_that_brought_nothing():
    quiet = [event("connect", trace="c1", peer="192.0.2.7"), event("disconnect", "info", trace="c1")]
    assert explain(Story("c1", "connection", quiet)).sentence == "It connected and handed over nothing."
    cut = [*quiet[:1], event("disconnect", "defer", trace="c1", reply="421 4.7.0 too many errors")]
    found = explain(Story("c1", "connection", cut))
    assert "MAX_ERRORS (env/limits.env)" in found.stages[-1].rules[0].where and found.todo


def test_events_of_an_older_room_are_told_by_their_rules_and_reason():
    both = event("data", "accept", rules="dead-target disabled-target", reason="a@x leads nowhere; b@x is disabled")
    rules = explain(Story("m1", "message", [both])).stages[0].rules
    assert [(rule.rule, rule.text) for rule in rules] == [
        ("dead-target", "a@x leads nowhere"), ("disabled-target", "b@x is disabled"),
    ]  # fmt: skip
    odd = event("data", "reject", rules="hops loop", reason="one; two; three")
    assert [rule.text for rule in explain(Story("m1", "message", [odd])).stages[0].rules] == ["one; two; three", ""]


def test_in_chinese():
    text.speak("zh-CN")
    found = explain(Story("m1", "message", JUNKED), 5.0)
    assert found.sentence == "已放入垃圾箱：得分 6.2，达到 5.0。"
    assert (
        "发件域名" in found.stages[3].rules[0].cause and "SPF_FAIL (env/filter.env)" in found.stages[3].rules[0].where
    )
    assert found.stages[3].title == "邮件内容" and "192.0.2.7" in elsewhere("192.0.2.7", 30)[0]


ANYTHING = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=40)
FIELDS = ("reasons", "rules", "dns", "auth", "score", "threshold", "reply", "reason", "mailbox", "sender", "message_id")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(FIELDS), ANYTHING | st.lists(ANYTHING | st.lists(ANYTHING, max_size=2), max_size=4)
    ),
    st.sampled_from(["connect", "rcpt", "data", "delivered", "x"]),
    st.sampled_from(["accept", "junk", "reject"]),
)
def test_whatever_a_room_writes_is_told(fields, kind, outcome):
    line = json.dumps({**fields, "kind": kind, "trace": "t", "outcome": outcome, "t": 1})
    read = read_line(line.encode(), "smtp-in", 2)
    assert read is not None
    found = explain(Story("t", "message", [{**json.loads(read.text), "id": 1}]), 5.0)
    assert json.dumps(found.sentence)


# --- the table, held to the sources ------------------------------------------------------------------------------------

JUDGING = sorted([*(SERVICES / "policy").rglob("*.py"), *(SERVICES / "smtp_in").glob("*.py")])
_RULE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+|[a-z]{4,}")


def rules_of(path: Path) -> set[str]:
    """The names of rules in a module: the first word of each Reason, the third of each `refused`; {} for a value."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).split(".")[-1]
        place = {"Reason": 0, "refused": 2}.get(called)
        if place is None:
            continue
        named = next((each.value for each in node.keywords if each.arg == "rule"), None)
        given = named or (node.args[place] if len(node.args) > place else None)
        for value in (given.body, given.orelse) if isinstance(given, ast.IfExp) else (given,):
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.add(value.value)
            elif isinstance(value, ast.JoinedStr):
                pieces = [str(each.value) if isinstance(each, ast.Constant) else "{}" for each in value.values]
                found.add("".join(pieces))
    return found


def answered(rule: str) -> bool:
    """True where the table has the rule; of one with a value in its name, where it has any such."""
    if "{}" not in rule:
        return known(rule)
    shape = re.compile(".+".join(re.escape(piece) for piece in rule.split("{}")))
    return any(shape.fullmatch(name.replace("*", "x")) for name in RULES) or known(rule.replace("{}", "x"))


@pytest.mark.parametrize("path", JUDGING, ids=lambda path: str(path.relative_to(SERVICES)))
def test_every_rule_has_advice(path):
    missing = sorted(rule for rule in rules_of(path) if not answered(rule))
    assert not missing, f"add them to services/admin/advice.py: {missing}"


def test_the_rules_are_found_in_the_sources():
    found = set().union(*(rules_of(path) for path in JUDGING))
    assert {"unknown-recipient", "not-local", "disk-reserve", "hops", "loop", "held"} <= found


def test_families_and_what_nobody_knows():
    assert advice("dnsbl-zen.spamhaus.org") is RULES["dnsbl-*"] and advice("sieve-discard") is RULES["sieve-*"]
    assert advice("helo-bare") is RULES["helo-bare"] and advice("helo-other") is RULES["helo-*"]
    assert not known("no-such-rule") and advice("no-such-rule").cause


def test_where_names_what_there_is():
    grammar = cli.parser()
    for name, entry in [*RULES.items(), *EVENTS.items()]:
        assert entry.cause.endswith("."), name
        assert not entry.todo or entry.todo.endswith("."), name
        for place in entry.where:
            if place.isupper():
                assert described()[place.lower()].file, (name, place)
            elif place.startswith("scripts/mailstead "):
                words = place.split()[1:]
                with pytest.raises(SystemExit) as ended:
                    grammar.parse_args([*words, "--help"])
                assert ended.value.code == 0, (name, place)
            else:
                assert place.startswith("docs/"), (name, place)
    assert set(ELSEWHERE) == {"ip", "address", "id", ""}


# --- asking ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(admin_room):
    """A message in the record that was put into Junk, and a refused one."""
    now = int(admin_room.context.clock() * 1e6)
    events = [{**each, "t": now + number} for number, each in enumerate(JUNKED)]
    events.append(event("rcpt", "reject", t=now + 9, trace="m2", conn="c2", peer="198.51.100.4", sender="x@y.example",
                        recipient="nobody@example.test", reply="550 5.1.1 <nobody@example.test> is not an address here",
                        reasons=["unknown-recipient|0|no account, alias or catch-all has this name"]))  # fmt: skip
    path = admin_room.folder / "events" / "smtp-in" / "00000000000000077.jsonl"
    with path.open("a") as file:
        for each in events:
            file.write(json.dumps({name: value for name, value in each.items() if name != "id"}) + "\n")
    return admin_room


@pytest.fixture
def run(judged, capsys, monkeypatch):
    def run(*arguments, status=0):
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert cli.main(["--data", str(judged.folder), *arguments]) == status
        out, error = capsys.readouterr()
        return out + error

    return run


def test_the_command_line(run):
    out = run("explain", "192.0.2.7", "--limit", "1")
    for words in ("bob@else.example → anna@example.test", "its score of 6.2", "+4.2  spf-fail: 192.0.2.7 may not send",
                  "→ If you know them", "SPF_FAIL (env/filter.env)", "TXT else.example → v=spf1 -all",
                  "Authentication-Results: mail.example.test; spf=fail", "folder Junk", "What you can do:"):  # fmt: skip
        assert words in out, out
    out = run("explain", "nobody@example.test")
    assert "Reply: 550 5.1.1" in out and "scripts/mailstead account add" in out and "Refused at" in out
    assert run("explain", "m2").startswith("m2") and run("explain", "<1@else.example>").startswith("m1")


def test_the_command_line_in_chinese(run):
    out = run("--lang", "zh_CN.UTF-8", "explain", "nobody@example.test")
    assert "收件人：被拒绝" in out and "应答：550" in out and "没有账户或别名使用这个地址。" in out
    assert run("explain", "203.0.113.9", "--lang", "zh", status=1).startswith("最近 30 天没有 203.0.113.9 的任何记录")


def test_nothing_found_says_where_else_to_look(run):
    out = run("explain", "203.0.113.9", status=1)
    assert out.startswith("Nothing is recorded of 203.0.113.9") and "nc -vz" in out and "own log" in out
    answer = json.loads(run("--json", "explain", "who@else.example", status=1))
    assert answer["found"] == [] and any("MX" in each for each in answer["elsewhere"])
    assert (
        json.loads(run("--json", "explain", "m2"))["found"][0]["stages"][0]["rules"][0]["rule"] == "unknown-recipient"
    )


def test_the_api_says_what_is_wrong_with_a_question(api):
    assert api.get("/explain", params={"query": "x", "lang": "fr"}).status_code == 422
    assert api.get("/explain").status_code == 422
    described_as = api.get("/openapi.json").json()
    assert described_as["paths"]["/api/v1/explain"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert "ExplainedRule" in described_as["components"]["schemas"]


def test_the_page_says_why(judged):
    with judged.client(auth=None) as client:
        log_in(client, ADMIN)
        shown = client.get("/trace", params={"q": "m1"}).text
        assert "<code>spf-fail</code>" in shown and "+4.2" in shown and "score 6.2, junk from 5.0" in shown
        assert "192.0.2.7 may not send | for else.example" in shown and "What you can do:" in shown
        nothing = client.get("/trace", params={"q": "203.0.113.9"}).text
        assert "Nothing is recorded of it" in nothing and "nc -vz" in nothing
