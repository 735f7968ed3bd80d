"""Holds the tree to what a reader was promised: every module opens by saying what it is, and fits in the head.

STYLE: a module of 150-400 lines; past 450 it is two ideas. Names are the RFCs' nouns, not Manager or Util.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = sorted(path for folder in ("services", "tests") for path in (ROOT / folder).rglob("*.py"))
SERVICES = [path for path in PYTHON if path.is_relative_to(ROOT / "services")]
LONGEST = 450
# Words that say nothing of what a thing is.
EMPTY_WORDS = re.compile(r"(Manager|Helper|Utils?|Util|Misc|Common)$")
EMPTY_MODULES = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py", "base.py"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_a_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_bytes(), str(path))
    if not tree.body and path.name == "__init__.py" and path.is_relative_to(ROOT / "tests"):
        return
    docstring = ast.get_docstring(tree)
    assert docstring and len(docstring) > 20, f"{name(path)} has no docstring that says what it is"


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_a_module_fits_in_the_head(path: Path) -> None:
    lines = path.read_bytes().count(b"\n")
    assert lines <= LONGEST, f"{name(path)} has {lines} lines: it is probably two ideas"


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_names_say_what_a_thing_is(path: Path) -> None:
    assert path.name not in EMPTY_MODULES, name(path)
    classes = [node.name for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ClassDef)]
    assert not [word for word in classes if EMPTY_WORDS.search(word)], name(path)


@pytest.mark.parametrize("path", SERVICES, ids=name)
def test_nothing_is_left_for_later(path: Path) -> None:
    """A marker of unfinished work in the code is work that an issue should hold."""
    marks = [
        f"{name(path)}:{number}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError", line)
    ]
    assert not marks, marks


@pytest.mark.parametrize("path", [p for p in PYTHON if p.is_relative_to(ROOT / "tests")], ids=name)
def test_no_test_is_switched_off(path: Path) -> None:
    """What needs root may be left out where there is none: scripts/test on a desktop. Nothing else."""
    tree = ast.parse(path.read_bytes())
    for_root = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and node.args
        and ast.unparse(node.args[0]) in ("os.getuid() != 0", "os.geteuid() != 0")
    }
    marks = [
        f"{name(path)}:{node.lineno} {node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in ("skip", "skipif", "xfail", "importorskip")
        and node not in for_root
    ]
    assert not marks, marks


def test_every_package_is_a_package() -> None:
    """A folder of modules without __init__.py would be found by accident or not at all."""
    folders = {path.parent for path in SERVICES}
    assert not [name(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_no_two_tests_have_one_name() -> None:
    """pytest takes a file by its base name here: of two that share one, the second is not run."""
    names = [path.name for path in PYTHON if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names)), sorted(each for each in set(names) if names.count(each) > 1)
