"""The grammar of Sieve (RFC 5228 §8): a script's octets into commands, tests and arguments with their positions.

Called by `check`, which knows what the words mean. Tokens are found by one expression whose branches begin differently,
so that reading takes time in proportion to the script. Raises `BadScript` at the first place where the grammar ends.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

# A person's rules have some kilobytes, exported block lists some tens of them.
MAX_SCRIPT = 128 * 1024
# RFC 5228 §2.10.5 asks for at least 15 levels of nested tests and blocks each.
MAX_NESTING = 32
# RFC 5228 §2.4.1 asks for 31 bits. 63 are what any program will want to hold.
MAX_NUMBER = (1 << 63) - 1
_QUANTIFIERS = {b"": 0, b"K": 10, b"M": 20, b"G": 30}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a script, and where: line and column count from 1, columns in characters."""

    line: int
    column: int
    text: str

    def __str__(self) -> str:
        """For logs and clients."""
        return f"line {self.line}, column {self.column}: {self.text}"


class BadScript(Exception):
    """The script cannot be read; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Tag:
    """`:name`, in lower case."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its quantifier applied."""

    value: int
    at: int


@dataclass(frozen=True, slots=True)
class Strings:
    """One string or a list of them; `listed` where it was written in brackets."""

    values: tuple[bytes, ...]
    listed: bool
    at: int


Argument = Tag | Number | Strings


@dataclass(slots=True)
class Node:
    """A command or a test, as written: `name` in lower case; `block` is None where there were no braces."""

    name: str
    at: int
    arguments: list[Argument] = field(default_factory=list)
    tests: list[Node] = field(default_factory=list)
    test_list: bool = False  # in parentheses
    block: list[Node] | None = None


_TOKEN = re.compile(
    rb"(?P<blank>[ \t\n]++|\#[^\n]*+)"
    rb"|(?P<comment>/\*)"
    rb"|(?P<text>text:[ \t]*+(?:\#[^\n]*+)?\n)"
    rb"|(?P<word>[A-Za-z_][A-Za-z0-9_]*+)"
    rb"|(?P<tag>:[A-Za-z_][A-Za-z0-9_]*+)"
    rb"|(?P<number>[0-9]++)(?P<unit>[KMGkmg]?)(?![A-Za-z0-9_])"
    rb'|"(?P<quoted>(?:[^"\\]|\\.)*+)"'
    rb"|(?P<mark>[\[\](){},;])",
    re.DOTALL | re.IGNORECASE,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_DOT_LINE = re.compile(rb"^\.\n|^\.\Z", re.MULTILINE)
_STUFFED = re.compile(rb"^\.\.", re.MULTILINE)


class Source:
    """A script's octets with LF line ends, and where they are for a person. Raises BadScript for what is no text."""

    def __init__(self, octets: bytes) -> None:
        if len(octets) > MAX_SCRIPT:
            raise BadScript(Problem(1, 1, f"the script is longer than {MAX_SCRIPT} octets"))
        self.octets = octets.replace(b"\r\n", b"\n").removeprefix(b"\xef\xbb\xbf")
        self._lines = [0]
        for match in re.finditer(rb"\n", self.octets):
            self._lines.append(match.end())
        for pattern, text in ((rb"\0", "a NUL octet"), (rb"\r", "a carriage return without a line feed")):
            if found := re.search(pattern, self.octets):
                raise self.bad(found.start(), text)
        try:
            self.octets.decode("utf-8")  # RFC 5228 §2.1
        except UnicodeDecodeError as error:
            raise self.bad(error.start, "the script is not UTF-8 here") from None

    def bad(self, at: int, text: str) -> BadScript:
        """An error at the place `at`."""
        return BadScript(self.problem(at, text))

    def problem(self, at: int, text: str) -> Problem:
        """`text` about the place `at`."""
        line = bisect_right(self._lines, at)
        begin = self._lines[line - 1]
        return Problem(line, len(self.octets[begin:at].decode("utf-8", "replace")) + 1, text)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # word, tag, number, string, end, or the mark itself
    value: bytes
    at: int


class _Reader:
    """Tokens one after the other, and the recursive descent over them; its depth is bounded by MAX_NESTING."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._octets = source.octets
        self._position = 0
        self.token = self._next()

    # --- tokens

    def _next(self) -> _Token:
        octets = self._octets
        while self._position < len(octets):
            at = self._position
            match = _TOKEN.match(octets, at)
            if match is None:
                raise self._stray(at)
            self._position = match.end()
            kind = match.lastgroup or ""
            if kind == "blank":
                continue
            if kind == "comment":
                end = octets.find(b"*/", match.end())
                if end < 0:
                    raise self.source.bad(at, "a comment that does not end")
                self._position = end + 2
                continue
            if kind == "text":
                return _Token("string", self._multi_line(match.end(), at), at)
            if kind == "quoted":
                value = _ESCAPED.sub(rb"\1", match["quoted"])
                return _Token("string", value.replace(b"\n", b"\r\n"), at)
            if kind == "mark":
                return _Token(match["mark"].decode(), b"", at)
            if kind == "unit":
                return _Token("number", match.group(), at)
            return _Token(kind, match[kind], at)
        return _Token("end", b"", len(octets))

    def _multi_line(self, begin: int, at: int) -> bytes:
        """RFC 5228 §2.4.2: up to a line with a single dot; dots at the beginning of a line are doubled."""
        end = _DOT_LINE.search(self._octets, begin)
        if end is None:
            raise self.source.bad(at, "a text: that does not end with a line that is a single dot")
        self._position = end.end()
        return _STUFFED.sub(b".", self._octets[begin : end.start()]).replace(b"\n", b"\r\n")

    def _stray(self, at: int) -> BadScript:
        here = self._octets[at : at + 1]
        if here == b'"':
            return self.source.bad(at, "a quoted string that does not end")
        if here.isdigit():
            return self.source.bad(at, "a number with letters behind it: K, M and G alone may stand there")
        shown = self._octets[at : at + 4].decode("utf-8", "replace")[:1]
        return self.source.bad(at, f"{shown!r} has no place here")

    def take(self, kind: str) -> _Token | None:
        """The token, if it is of this kind; then the next one is looked at."""
        token = self.token
        if token.kind != kind:
            return None
        self.token = self._next()
        return token

    def expect(self, kind: str, text: str) -> None:
        if self.take(kind) is None:
            raise self.source.bad(self.token.at, text)

    # --- RFC 5228 §8.2

    def commands(self, depth: int, until: str) -> list[Node]:
        found: list[Node] = []
        while self.token.kind != until:
            word = self.take("word")
            if word is None:
                text = "a closing brace is missing" if self.token.kind == "end" else "a command is expected here"
                raise self.source.bad(self.token.at, text)
            node = Node(word.value.decode().lower(), word.at)
            self._arguments(node, depth)
            if self.take("{"):
                self._deeper(depth, node.at)
                node.block = self.commands(depth + 1, "}")
                self.take("}")
            else:
                self.expect(";", f"{node.name} ends here, but not with a ;")
            found.append(node)
        return found

    def _arguments(self, node: Node, depth: int) -> None:
        while True:
            token = self.token
            if self.take("tag"):
                node.arguments.append(Tag(token.value[1:].decode().lower(), token.at))
            elif self.take("number"):
                node.arguments.append(Number(self._number(token), token.at))
            elif self.take("string"):
                node.arguments.append(Strings((token.value,), False, token.at))
            elif self.take("["):
                node.arguments.append(Strings(self._list(), True, token.at))
            else:
                break
        if self.token.kind == "word":
            node.tests.append(self._test(depth + 1))
        elif self.take("("):
            node.test_list = True
            node.tests.append(self._test(depth + 1))
            while self.take(","):
                node.tests.append(self._test(depth + 1))
            self.expect(")", "a , or a ) is expected between tests")

    def _number(self, token: _Token) -> int:
        digits = token.value.rstrip(b"KMGkmg")
        # Python refuses to convert thousands of digits, and takes its time below that.
        value = int(digits) << _QUANTIFIERS[token.value[len(digits) :].upper()] if len(digits) < 20 else MAX_NUMBER + 1
        if value > MAX_NUMBER:
            raise self.source.bad(token.at, "a number that is too large")
        return value

    def _list(self) -> tuple[bytes, ...]:
        values = []
        while True:
            token = self.take("string")
            if token is None:
                raise self.source.bad(self.token.at, "a string is expected in this list")
            values.append(token.value)
            if self.take("]"):
                return tuple(values)
            self.expect(",", "a , or a ] is expected between strings")

    def _test(self, depth: int) -> Node:
        word = self.take("word")
        if word is None:
            raise self.source.bad(self.token.at, "a test is expected here")
        self._deeper(depth, word.at)
        node = Node(word.value.decode().lower(), word.at)
        self._arguments(node, depth)
        return node

    def _deeper(self, depth: int, at: int) -> None:
        if depth > MAX_NESTING:
            raise self.source.bad(at, f"blocks or tests in more than {MAX_NESTING} levels")


def parse(source: Source) -> list[Node]:
    """The commands of a script. Raises BadScript."""
    return _Reader(source).commands(0, "end")
