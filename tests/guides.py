"""The README and the guides as tests read them: which blocks are typed, what they print, which env file they change.

A page is written to be typed from top to bottom, and is tested so. Its fenced blocks say by their language what they are:

    sh                        typed as it stands, in a clone's top folder, one shell for the whole block; must succeed
    sh fails                  the same, but its last command must end with an error: what a person sees then
    sh second                 as sh, on another machine: a second stack (tests/stack/test_3_backup.py)
    text right after an sh    what that block prints: see `prints`
    ini                       settings for the env file that the last line before it names (`env/relay.env`)
    console, other words      for a reader alone: another machine, a registrar's page, a waiting human

Every page of docs/ has its twin in docs/zh-CN/: the same headings, the same commands, samples and settings.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
DOCS, DOCS_ZH = ROOT / "docs", ROOT / "docs" / "zh-CN"
# Begins with what another server left, so it is typed by a test of its own.
MOVING_IN = DOCS / "moving-in.md"
# Figures for whoever builds and measures: kept by `scripts/bench`, in one language.
ONE_LANGUAGE = {"performance.md", "faults.md"}
TYPED = ("sh", "sh fails")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: `info` is what stands behind the fence, `env` the file that an ini block belongs to."""

    page: Path
    line: int
    info: str
    text: str
    env: str = ""
    sample: str = ""  # of an sh block: the text block right after it

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks in order; a block in a list item loses its indent."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    before, index = "", 0  # the last line of prose; empty right after a block
    while index < len(lines):
        opened = re.match(r"( *)```(\S.*)?$", lines[index])
        if not opened:
            before = lines[index] if lines[index].strip() else before
            index += 1
            continue
        indent, first = len(opened[1]), index
        index += 1
        while index < len(lines) and lines[index].strip() != "```":
            index += 1
        body = "".join(line[indent:] + "\n" for line in lines[first + 1 : index])
        info = (opened[2] or "").strip()
        if info == "text" and not before and found and found[-1].info.startswith("sh"):
            last = found[-1]
            found[-1] = Block(last.page, last.line, last.info, last.text, last.env, body)
        else:
            named = re.findall(r"`env/([a-z]+)\.env`", before) if info == "ini" else []
            found.append(Block(page, first + 1, info, body, named[-1] if named else ""))
        before = ""
        index += 1
    return found


def headings(page: Path) -> list[tuple[int, str]]:
    """Level and words of each heading outside of blocks."""
    prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.M | re.S)
    return [(len(marks), words.strip()) for marks, words in re.findall(r"^(#{1,6}) (.*)$", prose, re.M)]


def anchor(heading: str) -> str:
    """The name that a heading has in a link, as GitHub makes it: words in small letters, joined by hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def pairs() -> list[tuple[Path, Path]]:
    """Each English page with the Chinese one it must have."""
    names = sorted(path.name for path in DOCS.glob("*.md") if path.name not in ONE_LANGUAGE)
    return [(README, README_ZH), *((DOCS / name, DOCS_ZH / name) for name in names)]


def typed() -> list[Path]:
    """The guides in the order in which one stack can be led through them: who changes settings comes last."""
    pages = [english for english, _ in pairs() if any(block.info in TYPED for block in blocks(english))]
    pages.remove(README)  # tests/stack/test_0_readme.py
    pages.remove(MOVING_IN)
    return sorted(pages, key=lambda page: (any(block.info == "ini" for block in blocks(page)), page.name))


def settings(block: Block) -> dict[str, str]:
    """The variables that an ini block sets, as they stand there; comments are left out."""
    lines = [line.strip() for line in block.text.splitlines()]
    pairs = (line.partition("=") for line in lines if line and line[0] != "#")
    return {name.strip(): value for name, _, value in pairs}


def apply(text: str, changes: dict[str, str]) -> str:
    """An env file as its owner leaves it: the line of each name replaced, commented out or not; new names at the end."""
    for name, value in changes.items():
        line = f"{name}={value}"
        text, count = re.subn(rf"^#?{name}=.*$", lambda _, line=line: line, text, count=1, flags=re.M)
        if not count:
            text += line + "\n"
    return text


def prints(sample: str, output: str) -> list[str]:
    """The lines of a sample that are not in the output in this order; [] when it shows what is really printed.

    A word with a digit in it (an id, a time, a port) stands for any word, `…` for anything, spaces for spaces; lines
    may be left out anywhere.
    """
    missing, lines = [], iter(output.splitlines())
    for wanted in filter(str.strip, sample.splitlines()):
        if not any(_pattern(wanted).search(line) for line in lines):
            missing.append(wanted)
            lines = iter(output.splitlines())
    return missing


def _pattern(wanted: str) -> re.Pattern[str]:
    return re.compile(r"\s+".join("".join(map(_part, re.split("(…)", word))) for word in wanted.split()))


def _part(part: str) -> str:
    if part == "…":
        return ".*"
    return r"\S+" if re.search(r"\d", part) else re.escape(part)
