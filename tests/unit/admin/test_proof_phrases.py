"""Each sentence about a signature or a From is one that the page can say in its reader's language."""

import ast
from pathlib import Path

import pytest

from services.admin.phrases import phrase_of

SERVICES = Path(__file__).parents[3] / "services"
SPEAKERS = ("message/tag_list.py", "message/dkim_record.py", "message/dkim_verify.py", "message/from_domain.py",
            "message/arc.py", "policy/dmarc.py", "policy/dmarc_record.py", "policy/arc.py")  # fmt: skip


def sentences(path: Path) -> set[str]:
    """Every text of several words that is no docstring, with a 7 where a value stands."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            found.add(node.value)
        if isinstance(node, ast.JoinedStr):
            found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values))
    return {text for text in found if text.count(" ") >= 2}


@pytest.mark.parametrize("name", SPEAKERS)
def test_every_sentence_is_known(name: str) -> None:
    said = sentences(SERVICES / name)
    assert said
    assert [text for text in sorted(said) if not phrase_of(text)] == []
