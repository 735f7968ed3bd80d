"""Each sentence with which a message looks like junk is known to the page, in both languages."""

import re
from pathlib import Path

import pytest

from services.policy.junk_phrases import KINDS

ROOT = Path(__file__).parents[3]
CATALOGUE = (ROOT / "services/admin/locale/zh-CN.po").read_text()
SOURCES = "".join((ROOT / f"services/policy/{name}.py").read_text() for name in ("junk", "junk_rules"))
SENTENCES = sorted(
    {found[1] for found in re.finditer(r'Reason\(\s*"[a-z-]+",\s*"([^"]+)"', SOURCES)}
    | {found[1] for found in re.finditer(r'\(b"[a-z-]+", [0-9.]+, "([^"]+)"\)', SOURCES)}
    | {f"it speaks of {kind.name}" for kind in KINDS}
)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_is_translated(sentence: str) -> None:
    assert re.search(rf'msgid "{re.escape(sentence)}"\nmsgstr "[^"]+"', CATALOGUE)


def test_there_are_sentences() -> None:
    assert len(SENTENCES) > 30
