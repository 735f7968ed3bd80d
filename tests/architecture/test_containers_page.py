"""Holds docs/containers.md, in both languages, to compose.yaml: every table there says what the file says.

A row's facts are what stands in it in backquotes; the words around them are for people.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import secrets
from services.setup import places

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", (ROOT / "compose.yaml").read_text())
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
# What a row is called, and the words for what is not a name of compose.yaml.
LANGUAGES: dict[str, dict[str, str]] = {
    "docs/containers.md": {
        "user": "user", "groups": "groups", "capabilities": "capabilities", "networks": "networks",
        "writes": "reads and writes", "reads": "reads", "secrets": "secrets", "ports": "ports", "way out": "way out",
        "memory": "memory", "none": "none", "all": "every volume", "yes": "yes", "answers": "answers only", "no": "no",
    },
    "docs/zh-CN/containers.md": {
        "user": "用户", "groups": "附加组", "capabilities": "特权", "networks": "网络",
        "writes": "可读写", "reads": "只读", "secrets": "密钥", "ports": "端口", "way out": "对外访问",
        "memory": "内存上限", "none": "无", "all": "全部卷", "yes": "能", "answers": "只应答", "no": "不能",
    },
}  # fmt: skip


def tables(page: str) -> dict[str, dict[str, set[str]]]:
    """Service → row → what stands there in backquotes; a section's heading is the service's name."""
    found: dict[str, dict[str, set[str]]] = {}
    for section in re.split(r"^## ", (ROOT / page).read_text(), flags=re.M)[1:]:
        rows = re.findall(r"^\| ([^|`]+) \| ([^|]*) \|$", section, re.M)
        if name := re.match(r"`([a-z-]+)`", section):
            found[name[1]] = {
                row.strip(): set(re.findall(r"`([^`]+)`", value)) for row, value in rows if row.strip("- ")
            }
    return found


def way_out(service: dict[str, Any]) -> str:
    edges = [FILE["networks"][name] for name in service.get("networks", []) if name.startswith("edge_")]
    if any(edge.get("driver_opts", {}).get(MASQUERADE) != "false" for edge in edges):
        return "yes"
    return "answers" if edges else "no"


def expected(name: str, words: dict[str, str]) -> dict[str, set[str]]:
    """What compose.yaml says of a service, in a page's words."""
    service = SERVICES[name]
    mounts = [entry.split(":") for entry in service["volumes"]]
    inside = {source for source, target, *_ in mounts if target.startswith("/volumes/")}
    writes = {source for source, _, *mode in mounts if not mode}
    values = {
        "user": {service.get("user", "0:0")},
        "groups": {str(group) for group in service.get("group_add", [])},
        "capabilities": set(service.get("cap_add", [])),
        "networks": set(service.get("networks", [])),
        "writes": {words["all"]} if inside == set(FILE["volumes"]) - {"relay", "certificate"} else writes,
        # Which secrets lie in the volume that is mounted for them has a row of its own.
        "reads": {source for source, _, *mode in mounts if mode == ["ro"]} - {f"secrets-{name}"},
        "secrets": set(secrets.names_for(name)) if name in places.ROOMS else set(),
        "ports": {str(port["target"]) for port in service.get("ports", [])},
        "way out": {words[way_out(service)]},
        "memory": {service["mem_limit"].removesuffix("m") + " MiB"},
    }
    return {words[row]: value or {words["none"]} for row, value in values.items()}


PAGES = [(page, name) for page in LANGUAGES for name in SERVICES]


@pytest.mark.parametrize(("page", "name"), PAGES)
def test_the_table_of_a_container_is_compose_yaml(page: str, name: str) -> None:
    assert tables(page)[name] == expected(name, LANGUAGES[page])


@pytest.mark.parametrize("page", LANGUAGES)
def test_every_container_has_its_table_and_no_other(page: str) -> None:
    assert list(tables(page)) == list(dict.fromkeys([*places.ROOMS, *places.WITHOUT_SECRETS, "setup", "backup"]))
    assert set(tables(page)) == set(SERVICES)
