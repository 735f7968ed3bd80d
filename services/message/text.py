"""The text in a message as a person reads it: decoded headers and bodies, for SEARCH and for previews.

Called by the imap room's search handler and index. RFC 2047 words, transfer encodings and charsets are undone; what
cannot be is shown as well as it goes. Pure; never raises; bounded by the size of what it is given.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import quopri
import re
import unicodedata
from collections.abc import Iterator

from services.message.media_types import media_type, mime_token
from services.message.mime import MESSAGE, Part, Sliceable

PREVIEW_CHARACTERS = 200  # RFC 8970 §3.1: at most 256; 200 is its advice
# How far a preview looks: 200 characters behind a quotation and an encoding, or behind the style sheet of HTML.
_PLAIN_OCTETS = 4096
_HTML_OCTETS = 16_384

_ENCODED_WORD = re.compile(rb"=\?([A-Za-z0-9_.:+-]+)(?:\*[A-Za-z0-9-]*)?\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(rb"(\?=)[ \t\r\n]+(?==\?[A-Za-z0-9_.:+*-]+\?[bBqQ]\?)")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_TAG = re.compile(r"<(style|script|head|title)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^>]*(?:>|\Z)", re.S | re.I)
_BREAK = re.compile(r"<(?:br|p|div|tr|li|h[1-6])\b[^>]*>|</(?:p|div|tr|td|li|h[1-6])\s*>", re.I)
_BLANKS = re.compile(r"\s+")

# What mail names and Python knows by another name, or reads more narrowly than its senders meant.
_CHARSETS = {
    "us-ascii": "windows-1252",
    "ascii": "windows-1252",
    "iso-8859-1": "windows-1252",
    "latin1": "windows-1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x-gbk": "gb18030",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
    "iso-8859-8-i": "iso-8859-8",
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "unicode-1-1-utf-7": "utf-7",
    "unknown-8bit": "utf-8",
    "default": "utf-8",
    "binary": "utf-8",
}
# Codecs of Python that turn bytes into text but are no charsets (zip bombs among their relatives) stay out.
_REFUSED = frozenset(("idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"))


def decode(octets: bytes, charset: str) -> str:
    """`octets` in `charset`; unknown charsets as UTF-8, and as Windows-1252 where they are not that."""
    name = charset.strip().strip("\"'").lower()
    try:
        found = codecs.lookup(_CHARSETS.get(name, name) or "utf-8")
        if found.name in _REFUSED or not found._is_text_encoding:
            raise LookupError(name)
    except (LookupError, ValueError):
        found = codecs.lookup("utf-8")
    if found.name in ("utf-8", "cp1252"):
        # Programs that name no charset, or the wrong one of these two, are the commonest of all.
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            return octets.decode("windows-1252", "replace")
    return octets.decode(found.name, "replace")


# --- header fields


def header_text(value: bytes) -> str:
    """A field's value unfolded, its encoded words (RFC 2047) decoded."""
    value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    if b"=?" not in value:
        return decode(value, "utf-8")
    value = _BETWEEN_WORDS.sub(rb"\1", value)  # §6.2: blanks between encoded words are not shown
    out: list[str] = []
    position = 0
    pending, pending_charset = b"", ""
    for match in _ENCODED_WORD.finditer(value):
        octets = _word_octets(match.group(2), match.group(3))
        charset = match.group(1).decode("ascii").lower()
        between = value[position : match.start()]
        position = match.end()
        if between or charset != pending_charset:
            out.append(decode(pending, pending_charset))
            out.append(decode(between, "utf-8"))
            pending, pending_charset = octets, charset
        else:
            # Against §5 some programs cut a character in two; put together it can be read.
            pending += octets
    out.append(decode(pending, pending_charset))
    out.append(decode(value[position:], "utf-8"))
    return "".join(out)


def _word_octets(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"qQ":
        return quopri.decodestring(text.replace(b"_", b" "), header=False)
    return _base64(text)


def _base64(text: bytes) -> bytes:
    """Base64 as tolerant as mail needs it: foreign characters passed over, a cut end read as far as it goes."""
    clean = _NOT_BASE64.sub(b"", text)
    if len(clean) % 4 == 1:
        clean = clean[:-1]
    try:
        return base64.b64decode(clean + b"=" * (-len(clean) % 4))
    except (binascii.Error, ValueError):
        return b""


def searchable_header(header: bytes) -> str:
    """A whole header, decoded, a field a line: what SEARCH TEXT looks into."""
    return header_text(re.sub(rb"\r?\n(?![ \t])", b"\x0b", header)).replace("\x0b", "\n")


# --- bodies


def transfer_decoded(octets: bytes, encoding: bytes) -> bytes:
    """Base64 or quoted-printable undone (RFC 2045 §6)."""
    if encoding == b"base64":
        return _base64(octets)
    if encoding == b"quoted-printable":
        return quopri.decodestring(octets)
    return octets


def _encoding(part: Part) -> bytes:
    return (mime_token(part.fields.get(b"content-transfer-encoding", b"")) or b"").lower()


def part_text(raw: Sliceable, part: Part, most: int = -1) -> str:
    """The text of one text part, of its first `most` octets where given."""
    end = part.end if most < 0 else min(part.end, part.body + most)
    octets = transfer_decoded(raw[part.body : end], _encoding(part))
    charset = (part.type.parameter(b"charset") or b"utf-8").decode("ascii", "replace")
    return decode(octets, charset)


def _walk(part: Part) -> Iterator[Part]:
    stack = [part]
    while stack:
        here = stack.pop()
        yield here
        stack.extend(reversed(here.children))


def body_texts(raw: Sliceable, root: Part) -> Iterator[str]:
    """What SEARCH BODY looks into: each text part decoded, and the headers of messages and parts within. Attachments
    that are not text are not looked into: their octets mean nothing to whoever searches."""
    for part in _walk(root):
        if part is not root:
            yield searchable_header(raw[part.header : part.body])
        if part.children:
            continue
        if part.type.main.lower() == b"text" or (part.kind == MESSAGE or part.type.main.lower() == b"message"):
            yield part_text(raw, part)


def preview(raw: Sliceable, root: Part) -> str:
    """The first words a person would read (RFC 8970): of the first text/plain part, else of the first text/html."""
    fallback = ""
    for part in _walk(root):
        if part.children or part.type.main.lower() != b"text":
            continue
        sub = part.type.sub.lower()
        if sub == b"html":
            if not fallback:
                fallback = _shorten(html_text(part_text(raw, part, _HTML_OCTETS)))
            continue
        if sub != b"plain":
            continue
        found = _shorten(_without_quotes(part_text(raw, part, _PLAIN_OCTETS)))
        if found:
            return found
    return fallback


def html_text(text: str) -> str:
    """HTML as its words; no parser, as good as a preview needs."""
    return html.unescape(_TAG.sub("", _BREAK.sub(" ", text)))


def _without_quotes(text: str) -> str:
    """What the sender wrote, without what they answer to; all of it where nothing else is there."""
    if ">" not in text:
        return text
    own = "\n".join([line for line in text.splitlines() if not line.startswith(">")])
    return own if own.strip() else text


def _shorten(text: str) -> str:
    text = _BLANKS.sub(" ", text[: PREVIEW_CHARACTERS * 8]).strip()[:PREVIEW_CHARACTERS]
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text).strip()


# --- comparison


def fold(text: str) -> str:
    """The form in which texts are compared: i;unicode-casemap (RFC 5051), case and compatibility forms set aside.

    Decomposed, so that "e" finds "é" and a search need not know how an accent was typed.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


def field_text(name: str, value: bytes) -> str:
    """A header field's value for SEARCH: decoded; of Content-Type and the like the parameters too."""
    return header_text(value) if name != "content-type" else header_text(value) + " " + _parameters(value)


def _parameters(value: bytes) -> str:
    return " ".join(decode(text, "utf-8") for _, text in media_type(value).parameters)
