"""Holds env/*.env.example to the settings: every variable a person may set stands there, commented, with its reason.

The examples are what people read instead of code. A variable that is missing there, stands there with another default,
or stands there without being one, fails.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.runtime import settings, values

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "env").glob("*.env.example"))
COMPOSE = "".join(path.read_text() for path in sorted(ROOT.glob("compose*.yaml")))
# Not settings of a room: the C library's, and what scripts/update reads on the host.
BESIDE = {"mailstead": {"TZ"}, "updater": {"RELEASE_SIGNERS"}}
# Interpolated by Compose, but nothing for a person to set: scripts/up tells the build what it was made from.
INTERNAL = {"MAILSTEAD_SOURCE", "MAILSTEAD_RESTORING"}
# Read by scripts/up and by Compose itself, so interpolated nowhere.
NETWORK = {"NETWORK_MODE": "auto", "COMPOSE_FILE": "compose.yaml"}


@dataclass(frozen=True, slots=True)
class Line:
    """One variable of an example: its default, and the comment above it as one line."""

    default: str
    comment: str


def example(path: Path) -> dict[str, Line]:
    """The variables of one example file, in order."""
    found = {}
    for block in path.read_text().split("\n\n")[1:]:
        *comments, last = block.strip().split("\n")
        assert comments and all(line.startswith("# ") for line in comments), f"{path.name}: {block!r}"
        match = re.fullmatch(r"#([A-Z0-9_]+)=(.*)", last)
        assert match, f"{path.name}: {last!r} is not #NAME=default"
        found[match[1]] = Line(match[2], " ".join(line[2:] for line in comments))
    return found


def concern(path: Path) -> str:
    return path.name.partition(".")[0]


SETTING_FILES = [path for path in EXAMPLES if concern(path) != "ports"]
PUBLIC = {name: setting for name, setting in values.described().items() if setting.file}


@pytest.mark.parametrize("path", EXAMPLES, ids=concern)
def test_an_example_sets_nothing(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert not line or line.startswith("#"), f"{path.name} sets {line!r}: an example only shows"


def test_every_concern_has_its_example_and_no_other() -> None:
    assert {concern(path) for path in SETTING_FILES} == {setting.file for setting in PUBLIC.values()}


@pytest.mark.parametrize("path", SETTING_FILES, ids=concern)
def test_an_example_has_exactly_the_settings_of_its_concern(path: Path) -> None:
    wanted = [name.upper() for name, setting in PUBLIC.items() if setting.file == concern(path)]
    given = [name for name in example(path) if name not in BESIDE.get(concern(path), ())]
    assert given == wanted, "in the order of values.py, so that related ones stand together"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_setting_stands_with_its_default_its_reason_and_its_limits(name: str) -> None:
    setting = PUBLIC[name]
    line = example(ROOT / "env" / f"{setting.file}.env.example")[name.upper()]
    assert line.default == str(values.defaults()[name])
    assert setting.why in line.comment
    for choice in setting.choices:
        assert (choice or "(empty)") in line.comment
    for limit in (setting.least, setting.most):
        assert limit is None or setting.choices or str(limit) in line.comment


@pytest.mark.parametrize("name", [name for name, setting in PUBLIC.items() if setting.secret])
def test_a_secret_has_no_value_anywhere(name: str) -> None:
    assert values.defaults()[name] == ""


def test_ports_has_exactly_what_compose_interpolates() -> None:
    used: dict[str, set[str]] = {name: {default} for name, default in NETWORK.items()}
    for name, default in re.findall(r"\$\{([A-Z_]+)(?::-([^}]*))?\}", COMPOSE):
        used.setdefault(name, set()).add(default)
    assert not re.findall(r"\$\{(?![A-Z_]+:-[^}]*\})[^}]*\}", COMPOSE), "every interpolation has a default"
    assert all(len(defaults) == 1 for defaults in used.values()), "one default a variable"
    shown = example(ROOT / "env" / "ports.env.example")
    assert set(shown) == set(used) - INTERNAL
    assert {name: line.default for name, line in shown.items()} == {name: next(iter(used[name])) for name in shown}


def test_no_room_complains_of_a_variable_that_an_example_names() -> None:
    names = [name for path in EXAMPLES for name in example(path)]
    assert settings.unknown(names) == []
