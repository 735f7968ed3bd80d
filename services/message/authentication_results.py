"""Authentication-Results (RFC 8601): written on top of what we receive, read where a sealer that the owner trusts wrote
one (`arc`), and taken out where a stranger wrote one in our name.

Pure. Reading never raises and is linear; what is broken in a field is passed over. Writing cannot be talked into
another field or another result: values that are no token are quoted, and control characters are not written at all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.message.headers import FOLD_AT

__all__ = ["AuthenticationResults", "MethodResult", "field", "parse", "value", "without_ours"]

NAME = "Authentication-Results"
# A field with ten signatures has 3 KB. Longer ones are not read further than this.
MOST_OCTETS = 65_536
MOST_RESULTS = 64
MOST_PROPERTIES = 32
# An address has 254 characters, a domain 253; a sentence for the owner fits as well.
MOST_CHARACTERS = 400

# RFC 2045 §5.1, and what RFC 8601 §2.2 takes unquoted beside tokens: [[local-part] "@"] domain-name.
_UNQUOTED = r"A-Za-z0-9!#$%&'*+\-.^_`{|}~\x80-\U0010ffff"
_PLAIN = re.compile(rf"(?:[{_UNQUOTED}]*@)?[{_UNQUOTED}]+\Z")
_FIELDS = re.compile(rb"(?<=\r\n)(?![ \t])")
_COMMENT = re.compile(r"\([^()]*\)")
_OURS = re.compile(rb"authentication-results[ \t]*:", re.I)


@dataclass(frozen=True, slots=True)
class MethodResult:
    """What one method found: `dkim=pass reason="..." header.d=example.org`.

    `properties`: (ptype.property, value) pairs, such as ("smtp.mailfrom", "joe@example.org").
    """

    method: str
    result: str
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()

    def of(self, name: str) -> str:
        """The value of a property, "" where there is none."""
        return next((found for known, found in self.properties if known == name), "")


@dataclass(frozen=True, slots=True)
class AuthenticationResults:
    """A whole field. `authserv_id` says who wrote it."""

    authserv_id: str
    results: tuple[MethodResult, ...] = ()


# --- writing ---------------------------------------------------------------------------------------------------------


def value(authserv_id: str, results: Iterable[MethodResult]) -> str:
    """What follows the field's name, on one line: also for the record (`auth` of an event)."""
    return "; ".join([_value(authserv_id), *(list(map(_result, results)) or ["none"])])


def field(authserv_id: str, results: Iterable[MethodResult]) -> bytes:
    """The field with its CRLF, a result to a line. UTF-8 where a value is (RFC 8601 §2.2, RFC 6532)."""
    parts = [_value(authserv_id), *(list(map(_result, results)) or ["none"])]
    lines: list[str] = []
    line = f"{NAME}:"
    for number, part in enumerate(parts):
        end = ";" if number < len(parts) - 1 else ""
        if number:
            lines.append(line)
            line = "\t"
        for word in (part + end).split(" "):
            # A fold within a quoted string is a blank to whoever unfolds it (RFC 5322 §2.2.3), which it stands for.
            if len(line) + 1 + len(word) > FOLD_AT and line.strip():
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line != "\t" else f"{line}{word}"
    return "\r\n".join([*lines, line]).encode("utf-8", "replace") + b"\r\n"


def _result(result: MethodResult) -> str:
    words = [f"{result.method}={result.result}"]
    if result.reason:
        words.append(f"reason={_quoted(result.reason)}")
    words += [f"{name}={_value(text)}" for name, text in result.properties if text]
    return " ".join(words)


def _value(text: str) -> str:
    text = _clean(text)
    return text if _PLAIN.match(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + _clean(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _clean(text: str) -> str:
    """Printable, single blanks: what is folded at a blank comes back as it was."""
    kept = text[:MOST_CHARACTERS]
    if not kept.isprintable():
        kept = "".join(character if character.isprintable() else "?" for character in kept)
    return re.sub("  +", " ", kept) if "  " in kept else kept


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(octets: bytes) -> AuthenticationResults | None:
    """A field's value (folded or not), None where it does not even say whose it is. Broken results are left out."""
    reader = _Reader(octets[:MOST_OCTETS].decode("utf-8", "surrogateescape"))
    authserv_id = reader.value()
    if not authserv_id:
        return None
    reader.skip()
    reader.take(_DIGITS)  # RFC 8601 §2.2 authres-version: 1 is the only one
    results: list[MethodResult] = []
    while len(results) < MOST_RESULTS and reader.to_the_next():
        found = _method_result(reader)
        if found is not None:
            results.append(found)
    return AuthenticationResults(authserv_id, tuple(results))


def _method_result(reader: _Reader) -> MethodResult | None:
    """One `method[/version]=result [reason=value] *(ptype.property=value)`."""
    method = reader.word()
    if reader.mark("/"):
        reader.word()
    if not method or not reader.mark("="):
        return None  # "none" among them
    result = reader.word()
    if not result:
        return None
    reason = ""
    properties: list[tuple[str, str]] = []
    while len(properties) < MOST_PROPERTIES:
        name = reader.word()
        if not name:
            break
        if reader.mark("."):
            name = f"{name}.{reader.property()}"
        if not reader.mark("="):
            break
        found = reader.value()
        if name == "reason":
            reason = found
        elif "." in name:
            properties.append((name, found))
    return MethodResult(method, result, reason, tuple(properties))


_CFWS_MARK = re.compile(r"[()\\]")
_SPACE = re.compile(r"[ \t\r\n]*")
_DIGITS = re.compile(r"[0-9]*")
_WORD = re.compile(r"[A-Za-z0-9_-]*")
_PROPERTY = re.compile(r"[A-Za-z0-9_.-]*")
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.S)
_ESCAPE = re.compile(r"\\(.)", re.S)
# A value without quotes: up to white space, a comment, the next result, or a quote in the wrong place.
_BARE = re.compile(r'[^\s;()"\x00-\x20]*')
_PLAIN_PIECE = re.compile(r'[^;("\\]+')


class _Reader:
    """A position in a value; each step passes white space and comments (RFC 5322 §3.2.2 CFWS) first."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, "patterns here match the empty string"
        self._at = match.end()
        return match.group()

    def skip(self) -> None:
        while True:
            self.take(_SPACE)
            if not self._text.startswith("(", self._at):
                return
            level = 0
            while True:
                mark = _CFWS_MARK.search(self._text, self._at)
                if mark is None:
                    self._at = len(self._text)  # an open comment goes to the end
                    return
                self._at = mark.end()
                if mark.group() == "\\":
                    self._at += 1
                    continue
                level += 1 if mark.group() == "(" else -1
                if level == 0:
                    break

    def mark(self, mark: str) -> bool:
        self.skip()
        if self._text.startswith(mark, self._at):
            self._at += 1
            return True
        return False

    def word(self) -> str:
        self.skip()
        return self.take(_WORD).lower()

    def property(self) -> str:
        self.skip()
        return self.take(_PROPERTY).lower()

    def value(self) -> str:
        """RFC 8601 §2.2 value and pvalue: a token, a quoted string, or an address with either before its @."""
        self.skip()
        quoted = _QUOTED.match(self._text, self._at)
        if quoted is None:
            return self.take(_BARE)
        self._at = quoted.end()
        text = _ESCAPE.sub(r"\1", quoted[1].replace("\r\n", ""))
        return text + self.take(_BARE) if self._text.startswith("@", self._at) else text

    def to_the_next(self) -> bool:
        """Behind the next semicolon that is neither quoted nor in a comment; False where there is none."""
        while self._at < len(self._text):
            self.skip()
            here = self._text[self._at : self._at + 1]
            if here == ";":
                self._at += 1
                return True
            if here == '"':
                quoted = _QUOTED.match(self._text, self._at)
                if quoted is None:
                    return False  # no closing quote: there is no telling where it should have ended
                self._at = quoted.end()
            elif here == "\\":
                self._at += 1
            elif here:
                self.take(_PLAIN_PIECE)
        return False


# --- taking out ------------------------------------------------------------------------------------------------------


def without_ours(header: bytes, authserv_id: str) -> bytes:
    """`header` without each Authentication-Results that claims to be `authserv_id`'s, all other octets as they were.

    RFC 8601 §5: they "MUST" go. What cannot be read but has our name in it goes, too: whoever reads it next may read it
    otherwise than we do.
    """
    if not _OURS.search(header):
        return header
    ours = _comparable(authserv_id)
    kept = [
        each for each in _FIELDS.split(header) if not (_OURS.match(each) and _claims(each.partition(b":")[2], ours))
    ]
    return b"".join(kept)


def _claims(octets: bytes, ours: str) -> bool:
    text = octets[:MOST_OCTETS].decode("utf-8", "replace")
    # A lenient reader's name: without the blanks, comments and letters of no width that may stand within it.
    name = unicodedata.normalize("NFKC", _COMMENT.sub("", text.partition(";")[0]))
    if _comparable("".join(each for each in name if each.isprintable() and not each.isspace())) == ours:
        return True
    found = parse(octets)
    if found is not None and _PLAIN.match(found.authserv_id):
        return _comparable(found.authserv_id) == ours
    # No name, or one with quotes, blanks or escapes in it, is read by each program in its own way.
    return ours in re.sub(r"[\s\\]", "", octets.decode("utf-8", "replace")).lower()


def _comparable(name: str) -> str:
    return name.lower().rstrip(".")


def of_method(results: Sequence[MethodResult], method: str) -> list[MethodResult]:
    """Those of one method."""
    return [result for result in results if result.method == method]
