"""Every sentence that a script of the tables, or a letter that is not answered, brings forth is known in Chinese."""

import re
from pathlib import Path

import pytest

from services.admin import text as language
from services.admin.phrases import phrase_of, say
from services.policy.sieve.check import check
from tests.unit.policy.sieve.sieve_cases import CASES, problem

ROOT = Path(__file__).parents[3]
BROKEN = [case for case in CASES if case.gives[0] in ("error", "failed")]
SAID = re.compile(r'Reason\("sieve-[a-z-]+", (f?"[^"]+")\)|keep\("sieve-[a-z-]+", (f?"[^"]+")\)|return "(its? [^"]+)"')


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_what_is_wrong_with_a_script(case):
    for text in [each.text for each in check(case.script).problems] or [problem(case)]:
        assert text and phrase_of(text), f"add to services/admin/phrases_rules.py: {text}"
        language.speak("zh-CN")
        assert say(text) != text
        language.speak("en")


def test_what_rules_did():
    found = []
    for file in ("smtp_in/rules.py", "smtp_in/answers.py", "policy/sieve/answering.py"):
        for match in SAID.finditer((ROOT / "services" / file).read_text()):
            text = re.sub(r"\{[^}]*\}", "x1", next(each for each in match.groups() if each)).lstrip("f").strip('"')
            found.append(text)
            if text == "x1x1":
                text = "line 1 of the rules: a command is expected here"
            assert phrase_of(text), f"add to services/admin/phrases_rules.py: {text}"
    assert len(found) >= 20
