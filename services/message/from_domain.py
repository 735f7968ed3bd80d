"""The domain that a message says it is from: the author's, which DMARC holds to its signatures (RFC 9989 §5.3.1).

Called by smtp-in. Programs read a From that is not quite right each in its own way, and attackers write one that the
filter reads as theirs and the reader's program shows as somebody else's ("Composition Kills", Chen, Paxson, Jiang
2020). So the question here is not only what our reader makes of it: every piece outside of quotes that looks like an
address counts, and where that is not one domain, clearly, `problem` says why. Pure; never raises; linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from services.message.addresses import addresses
from services.message.canonical import HeaderFields
from services.message.tag_list import unfolded
from services.message.text import header_text
from services.protocol.idn import a_labels

__all__ = ["Authors", "from_domains", "like_addresses", "outside_quotes"]

# A From for a person has 100 octets. What is longer than this is not looked into.
MOST_OCTETS = 16_384
# Domains told; each costs DMARC its look-ups (RFC 9989 §11.5 asks for a limit).
MOST_DOMAINS = 8

_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\Z"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NO_NAME = re.compile(rb"[^!-~]")
_MARKS = re.compile(rb'\\.|["()]|[^\\"()]+|\\', re.DOTALL)
# It begins where a word begins and not within one: else a long word without an @ is searched once for each octet of it.
_LIKE_AN_ADDRESS = re.compile(rb"(?<![^\s<>,;:()\"\[\]])[^\s<>,;:()\"\[\]]+@[^\s<>,;:()\"]+")
# People read a wide @ as one.
_SHOWN_ADDRESS = re.compile(r"(?<![^\s<>,;:()\"'\[\]])[^\s<>,;:()\"'\[\]@\uff20\ufe6b]+[@\uff20\ufe6b]([\w.-]+)")


@dataclass(frozen=True, slots=True)
class Authors:
    """What From says. Without a `problem` there is one domain, and nobody reads another.

    `domains`: A-labels in lower case, each once, the author's first. `displayed`: other domains, of addresses that
    stand in names, quotes and comments, where a person sees them and no filter looks.
    """

    domains: tuple[str, ...] = ()
    displayed: tuple[str, ...] = ()
    problem: str = ""


def from_domains(header: bytes) -> Authors:
    """Who `header` (CRLF lines) says that the message is from."""
    fields = HeaderFields(header)
    places = fields.named(b"from")
    if not places and not _hidden(fields):
        return Authors(problem="there is no From")  # RFC 5322 §3.6
    domains: dict[str, None] = {}
    displayed: dict[str, None] = {}
    problem = ""
    for place in places[:MOST_DOMAINS]:
        one = _authors(unfolded(fields.value(place)))
        domains |= dict.fromkeys(one.domains)
        displayed |= dict.fromkeys(one.displayed)
        problem = problem or one.problem
    if len(places) > 1:
        problem = "there is more than one From"
    elif _hidden(fields):
        problem = "a line of the header that is no field looks like From"
    elif len(domains) > 1 and not problem:
        problem = "From has addresses of several domains"
    shown = [domain for domain in displayed if domain not in domains]
    return Authors(tuple(domains)[:MOST_DOMAINS], tuple(shown)[:MOST_DOMAINS], problem)


def _hidden(fields: HeaderFields) -> bool:
    """Whether a line that RFC 5322 §2.2 takes for no From would be one for a program that skips what it cannot read:
    a control character, a blank or an 8-bit octet about the name."""
    known = set(fields.named(b"from"))
    return any(
        _NO_NAME.sub(b"", field[: field.find(b":")]).lower() == b"from"
        for index, field in enumerate(fields.fields)
        if index not in known and field[:80].find(b":") >= 4
    )


def _authors(value: bytes) -> Authors:
    """The same of one field's value."""
    value = value.strip(b" \t\r\n")
    if len(value) > MOST_OCTETS:
        return Authors(problem="From is too long to be read")
    hosts: list[bytes] = []
    problem, nameless = "", False
    for entry in addresses(value):
        if entry.host is None:
            continue  # RFC 6854: a group's name and its end; its members count as any address
        if entry.route:
            hosts += entry.route.replace(b",", b"").split(b"@")[1:]  # RFC 5322 §4.4: some programs show the first hop
        if entry.host == b"SYNTAX_ERROR":
            problem = "From cannot be read as an address"
        elif entry.mailbox == b"MISSING_MAILBOX" or entry.host == b"MISSING_DOMAIN":
            nameless = True  # `Doe, John <john@example.org>`: a name whose quotes were forgotten
        else:
            hosts.append(entry.host)
    visible = outside_quotes(value)
    if _CONTROL.search(value) or visible is None:
        problem = "From cannot be read as an address"
    for piece in like_addresses(value if visible is None else visible):
        hosts += piece.strip(b"<>.").split(b"@")[1:]
    domains, wrong = _domains(hosts)
    if wrong:
        problem = problem or "From has a domain that is none"
    if not domains:
        problem = problem or "From has no address"
    displayed, _ = _domains(match.encode() for match in _SHOWN_ADDRESS.findall(header_text(value)))
    if nameless and not frozenset(displayed) <= frozenset(domains):
        problem = problem or "From cannot be read as an address"
    return Authors(tuple(domains), tuple(displayed), problem)


def _domains(hosts: Iterable[bytes]) -> tuple[list[str], bool]:
    """Each domain once, in A-labels; and whether a host was no domain (an address in brackets is none, either)."""
    found: dict[str, None] = {}
    wrong = False
    for host in hosts:
        try:
            name = a_labels(host.decode("utf-8")).removesuffix(".")
        except ValueError:
            name = ""
        if _DOMAIN.match(name):
            found[name] = None
        else:
            wrong = True
    return list(found), wrong


def like_addresses(visible: bytes) -> list[bytes]:
    """Every piece of a field that some program might take for an address."""
    return _LIKE_AN_ADDRESS.findall(visible)


def outside_quotes(value: bytes) -> bytes | None:
    """What stands neither in a quoted string nor in a comment (RFC 5322 §3.2.2, §3.2.4); None where one stays open,
    since where it ends would be anybody's guess."""
    kept: list[bytes] = []
    quoted, depth = False, 0
    for found in _MARKS.finditer(value):
        mark = found.group()
        if quoted:
            quoted = mark != b'"'
        elif mark == b"(":
            depth += 1
        elif depth:
            depth -= mark == b")"
        elif mark == b'"':
            quoted = True
            kept.append(b'"')
        elif mark == b")":
            return None
        else:
            kept.append(mark)
    return None if quoted or depth else b"".join(kept)
