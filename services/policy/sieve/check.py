"""Holds a script to the language and makes it ready to run: what was required, kinds and order of arguments, constants.

    script = check(octets)
    script.problems      # every mistake with line and column, the first of the grammar alone; () = it can run
    script.commands

Used where a script is stored (a mistake is told at once, to whoever typed it) and where it is run. Never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.policy.sieve import constants
from services.policy.sieve.grammar import BadScript, Node, Number, Problem, Source, Strings, Tag, parse
from services.policy.sieve.language import (
    CAPABILITIES,
    COMMANDS,
    NUMBER,
    STRING,
    STRINGS,
    TESTS,
    Form,
    TagForm,
)
from services.policy.sieve.values import BadReference, Command, Template, Test, Text, Value, decode_characters, template

# A person mends them one after the other; a file that is no script at all has thousands.
MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Script:
    """A checked script. `commands` are empty where there are problems."""

    commands: tuple[Command, ...]
    required: frozenset[str]
    problems: tuple[Problem, ...]
    source: Source | None = None

    def line(self, at: int) -> int:
        """The line of a place in it."""
        return self.source.problem(at, "").line if self.source else 0


def check(octets: bytes) -> Script:
    """Read and check a script."""
    try:
        source = Source(octets)
        nodes = parse(source)
    except BadScript as error:
        return Script((), frozenset(), (error.problem,))
    checker = _Checker(source)
    commands = checker.run(nodes)
    problems = tuple(sorted(checker.problems, key=lambda problem: (problem.line, problem.column)))
    return Script(() if problems else commands, frozenset(checker.required), problems, source)


class _Enough(Exception):
    """There are MAX_PROBLEMS."""


class _Checker:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.required: set[str] = set()
        self.problems: list[Problem] = []

    def run(self, nodes: list[Node]) -> tuple[Command, ...]:
        try:
            begin = 0
            # RFC 5228 §3.2: require stands before everything else.
            while begin < len(nodes) and nodes[begin].name == "require":
                self._require(nodes[begin])
                begin += 1
            return tuple(self._commands(nodes[begin:]))
        except _Enough:
            return ()

    def wrong(self, at: int, text: str) -> None:
        self.problems.append(self.source.problem(at, text))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Enough

    # --- commands

    def _require(self, node: Node) -> None:
        if len(node.arguments) != 1 or not isinstance(node.arguments[0], Strings) or node.tests or node.block:
            self.wrong(node.at, "require takes a string or a list of strings")
            return
        for value in node.arguments[0].values:
            name = value.decode("utf-8")
            if name in CAPABILITIES:
                self.required.add(name)
            else:
                self.wrong(node.arguments[0].at, f'"{_shown(value)}" is not known here')

    def _commands(self, nodes: list[Node]) -> Iterator[Command]:
        before = ""
        for node in nodes:
            name, known = node.name, COMMANDS.get(node.name)
            if known is None:
                self.wrong(node.at, f"there is no test {name}" if name in TESTS else f"there is no command {name}")
                if name in TESTS:
                    self.problems[-1] = self.source.problem(node.at, f"{name} is a test: it belongs behind if")
                before = name
                continue
            if name == "require":
                self.wrong(node.at, "require must stand before all other commands")
            elif name in ("elsif", "else") and before not in ("if", "elsif"):
                self.wrong(node.at, f"{name} must follow if or elsif")
            before = name
            block: tuple[Command, ...] = ()
            if known.block and node.block is None:
                self.wrong(node.at, f"{name} needs a block in braces")
            elif node.block is not None:
                if not known.block:
                    self.wrong(node.at, f"{name} takes no block: end it with a ;")
                block = tuple(self._commands(node.block))
            tags, arguments, tests = self._parts(node, known)
            yield Command(name, node.at, tags, arguments, tests, block)

    def _tests(self, nodes: list[Node]) -> Iterator[Test]:
        for node in nodes:
            known = TESTS.get(node.name)
            if known is None:
                text = "is a command, no test" if node.name in COMMANDS else "is not a test that is known here"
                self.wrong(node.at, f"{node.name} {text}")
                continue
            tags, arguments, tests = self._parts(node, known)
            yield Test(node.name, node.at, tags, arguments, tests)

    def _parts(self, node: Node, known: Form) -> tuple[dict[str, Value], tuple[Value | None, ...], tuple[Test, ...]]:
        name = node.name
        if known.capability and known.capability not in self.required:
            self.wrong(node.at, f'{name} needs require "{known.capability}"')
        if known.tests == "many":
            if not node.test_list:
                self.wrong(node.at, f"{name} needs tests in parentheses")
        elif known.tests == "one":
            if node.test_list or len(node.tests) != 1:
                self.wrong(node.at, f"{name} needs one test")
        elif node.tests:
            self.wrong(node.tests[0].at, f"{name} takes no test")
        tests = tuple(self._tests(node.tests))
        before = len(self.problems)
        tags, rest = self._tags(node, known.tags or {})
        arguments = self._positional(node, known, rest)
        if len(self.problems) == before:
            self._constants(node, tags, arguments)
        return tags, arguments, tests

    # --- arguments

    def _tags(self, node: Node, forms: dict[str, TagForm]) -> tuple[dict[str, Value], list[Number | Strings]]:
        """The tags with their values, and what is left; RFC 5228 §2.6.2: positional arguments come last."""
        tags: dict[str, Value] = {}
        groups: dict[str, str] = {}
        rest: list[Number | Strings] = []
        arguments = iter(node.arguments)
        for argument in arguments:
            if not isinstance(argument, Tag):
                rest.append(argument)
                continue
            name = argument.name
            form = forms.get(name)
            if form is None:
                self.wrong(argument.at, f"{node.name} has no :{name}")
                continue
            if rest:
                self.wrong(argument.at, f":{name} must stand before the other arguments")
            if form.capability and form.capability not in self.required:
                self.wrong(argument.at, f':{name} needs require "{form.capability}"')
            if form.group in groups:
                other = groups[form.group]
                text = f":{name} is there twice" if other == name else f":{other} and :{name} exclude each other"
                self.wrong(argument.at, text)
            groups[form.group] = name
            tags[name] = True
            if form.value:
                value = self._value(next(arguments, None), form.value)
                if value is None:
                    self.wrong(argument.at, f":{name} needs {form.value}")
                else:
                    tags[name] = value
        return tags, rest

    def _positional(self, node: Node, known: Form, rest: list[Number | Strings]) -> tuple[Value | None, ...]:
        forms = known.positional
        missing = len(forms) - len(rest)
        if not 0 <= missing <= known.optional:
            wanted = " and ".join(forms) or "no arguments"
            self.wrong(node.at, f"{node.name} takes {wanted}")
            return ()
        values: list[Value | None] = [None] * missing
        for form, argument in zip(forms[missing:], rest, strict=True):
            value = self._value(argument, form)
            if value is None:
                self.wrong(argument.at, f"{node.name} needs {form} here")
            values.append(value)
        return tuple(values)

    def _value(self, argument: Tag | Number | Strings | None, form: str) -> Value | None:
        """The argument in the form asked for; None where it is of another."""
        if form == NUMBER:
            return argument.value if isinstance(argument, Number) else None
        if not isinstance(argument, Strings):
            return None
        texts = tuple(self._text(value, argument.at) for value in argument.values)
        if form == STRINGS:
            return texts
        return texts[0] if form == STRING and not argument.listed else None

    def _text(self, octets: bytes, at: int) -> Text:
        try:
            if "encoded-character" in self.required:
                octets = decode_characters(octets)
            # RFC 5229 §3: after encoded characters.
            return template(octets) if "variables" in self.required else octets
        except (BadReference, ValueError) as error:
            self.wrong(at, str(error))
            return b""

    # --- what a constant may say

    def _constants(self, node: Node, tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> None:
        for text in self._said(node, tags, arguments):
            self.wrong(node.at, text)

    def _said(self, node: Node, tags: dict[str, Value], arguments: tuple[Value | None, ...]) -> Iterator[str]:
        yield from constants.match_type(tags, self.required)
        rule = _RULES.get(node.name)
        if rule is not None:
            yield from rule(tags, arguments)
        if node.name in ("setflag", "addflag", "removeflag", "hasflag") and arguments[0] is not None:
            # RFC 5232 §2: a variable can be named only where there are variables.
            if "variables" not in self.required:
                yield f'a variable of {node.name} needs require "variables"'
            names = arguments[0] if isinstance(arguments[0], tuple) else (arguments[0],)
            for name in names:
                if isinstance(name, bytes | Template):
                    yield from constants.variable_name(name)


_RULES: dict[str, Callable[[dict[str, Value], tuple[Value | None, ...]], Iterator[str]]] = {
    "redirect": constants.redirect,
    "fileinto": constants.fileinto,
    "vacation": constants.vacation,
    "set": constants.set_variable,
    "size": constants.size,
    "exists": constants.header_names,
    "header": constants.header,
    "address": constants.address,
    "envelope": constants.envelope,
    "date": constants.date,
    "currentdate": constants.currentdate,
    "mailboxexists": constants.mailboxes,
    "body": constants.body,
}


def _shown(octets: bytes) -> str:
    text = octets[:60].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)
