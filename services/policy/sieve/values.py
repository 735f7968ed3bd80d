"""What a checked script is made of: texts with the variables in them (RFC 5229), and instructions.

Made by `check`, read by `run` and `tests`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# RFC 5229 §3: ${name} or ${number}; what is no such thing is text.
_REFERENCE = re.compile(rb"\$\{(?:([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_0-9]+)*)|([0-9]{1,18}))\}")
IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
# RFC 5228 §2.4.2.4: ${hex:40 24} and ${unicode:40 1F4E7}, in any case.
_ENCODED = re.compile(rb"\$\{(hex|unicode):([ \t\r\n]*[0-9a-f]+(?:[ \t\r\n]+[0-9a-f]+)*[ \t\r\n]*)\}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Variable:
    """A reference: a name in lower case, or the number of a match variable."""

    name: bytes | int


@dataclass(frozen=True, slots=True)
class Template:
    """A text with references."""

    parts: tuple[bytes | Variable, ...]


Text = bytes | Template
Value = Text | tuple[Text, ...] | int | bool


class BadReference(ValueError):
    """A variable that cannot be."""


def template(octets: bytes) -> Text:
    """The references in a string. Raises BadReference for a namespace (RFC 5229 §3)."""
    if b"${" not in octets:
        return octets
    parts: list[bytes | Variable] = []
    position = 0
    for match in _REFERENCE.finditer(octets):
        name, number = match[1], match[2]
        if match.start() > position:
            parts.append(octets[position : match.start()])
        position = match.end()
        if number is not None:
            parts.append(Variable(int(number)))
            continue
        if b"." in name:
            raise BadReference(f"${{{name.decode()}}}: there are no namespaces of variables")
        parts.append(Variable(name.lower()))
    if not parts:
        return octets
    if position < len(octets):
        parts.append(octets[position:])
    return Template(tuple(parts))


def decode_characters(octets: bytes) -> bytes:
    """RFC 5228 §2.4.2.4 encoded-character. Raises ValueError for a character that Unicode does not have."""

    def decoded(match: re.Match[bytes]) -> bytes:
        numbers = match[2].split()
        if match[1].lower() == b"hex":
            # More than two digits are no hex-pair: the text stays as it is.
            return match[0] if any(len(each) > 2 for each in numbers) else bytes(int(each, 16) for each in numbers)
        characters = []
        for each in numbers:
            value = int(each, 16) if len(each.lstrip(b"0")) <= 6 else 0x110000
            if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
                raise ValueError(f"{each.decode()[:20]} is no Unicode character")
            characters.append(chr(value))
        return "".join(characters).encode("utf-8")

    return _ENCODED.sub(decoded, octets) if b"${" in octets else octets


@dataclass(slots=True)
class Test:
    """A checked test. `tags` by name, those without a value True; `arguments` in the order of the language's table,
    None where one was left out."""

    name: str
    at: int
    tags: dict[str, Value]
    arguments: tuple[Value | None, ...] = ()
    tests: tuple[Test, ...] = ()


@dataclass(slots=True)
class Command:
    """A checked command; `tests` and `block` of if, elsif and else."""

    name: str
    at: int
    tags: dict[str, Value]
    arguments: tuple[Value | None, ...] = ()
    tests: tuple[Test, ...] = ()
    block: tuple[Command, ...] = field(default=())
