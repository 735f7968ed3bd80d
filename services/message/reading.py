"""What a person, and a filter, gets to see of a message: names, words, links, attachments; decoded and normalized.

Called by `tokens` and by `policy/junk_rules` through the rooms: smtp-in for a message that arrives, imap for one that a
person has sorted. Both must see the same, so nothing that the way here adds is looked at (Received, Return-Path,
Delivered-To). Pure: the octets of a message, or of its beginning, in, a `Reading` out. It never raises. It is bounded:
whatever is sent, at most MOST_OCTETS are read, MOST_PARTS parts, MOST_TEXT characters.

Text is made comparable. NFKC turns full-width letters, mathematical letters and circled digits into plain ones;
characters without width and direction marks, which only keep a filter from reading on, are taken out and counted;
Cyrillic and Greek letters in a word that is otherwise Latin become the Latin ones they look like.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from services.message.addresses import addresses
from services.message.markup import Link, seen
from services.message.media_types import disposition, mime_token
from services.message.mime import MESSAGE, REPEATED, Fields, Part, tree
from services.message.text import decode, header_text, transfer_decoded

# A text of people has some KB. Behind this nobody looks for what the message is about.
MOST_OCTETS = 262_144
MOST_TEXT = 65_536
MOST_PARTS = 200
_MOST_SOURCE = 131_072  # of one text part, still encoded: HTML is markup for the most part
_MOST_FIELD = 4_096  # of a field that is read: an honest Subject has 78 characters
_MOST_ATTACHMENTS = 50
_MOST_NAMES = 100

# Zero width and direction: soft hyphen, Mongolian vowel separator, ZWSP..RLM, LRE..RLO, word joiner..invisible plus,
# isolates, variation selectors, BOM, tags. None of them is part of a word but in Persian, whose words stay words.
_NO_WIDTH = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef]+"
)
# Those that only a filter meets: between two letters, and none that hyphenation, Persian or an emoji's parts need.
_WITHIN = re.compile(
    r"(?<=[^\W\d_])[\u034f\u115f\u1160\u180b-\u180e\u200b\u200e\u202a-\u202e\u2060-\u206f\u3164\ufeff]+(?=[^\W\d_])"
)
# Letters of other scripts that look like Latin ones. Used only within words that have Latin letters too.
_LOOKALIKES = str.maketrans(
    "аеіоруссхѕјһԁԛԝвкмнтАВЕКМНОРСТУХІЅЈαεικνορτυχγΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeiopyccxsjhdqwbkmhtabekmhopctyxisjaeiknoptuxyabezhikmnoptyx",
)
_MIXED = re.compile(r"[A-Za-z]*+[\u0370-\u03ff\u0400-\u052f]+[A-Za-z\u0370-\u03ff\u0400-\u052f]*+")
_LATIN = re.compile("[A-Za-z]")
_URL = re.compile(r"(?:https?://|www\.)[!#-;=?-Z\\^-z~\u00a1-\u2fff\u3400-\ufaff]{2,500}", re.I)
_HIGH_RUN = re.compile(rb"[\x80-\xff][\x40-\xff]*")
_UNDECLARED = frozenset(("", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252", "unknown-8bit", "default"))


@dataclass(slots=True)
class Attachment:
    """A part that is not read. `name` lower case, `type` as main/sub."""

    type: str
    name: str


@dataclass(slots=True)
class Reading:
    """A message as it is seen. Texts are normalized but keep their case; addresses are lower case.

    `plain` and `markup`: characters of text seen in text/plain and in text/html parts; `hidden`, `no_width`,
    `lookalikes`: characters that HTML hides, that have no width, and that stood for others. `fields` are the root's.
    """

    fields: Fields
    names: list[bytes]  # of all header fields, lower case, in order
    subject: str = ""
    from_name: str = ""
    from_address: str = ""
    from_count: int = 0
    reply_to: str = ""
    recipients: int = 0
    list_id: str = ""
    text: str = ""
    plain: int = 0
    markup: int = 0
    hidden: int = 0
    no_width: int = 0
    lookalikes: int = 0
    forms: int = 0
    links: list[Link] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    charsets: set[str] = field(default_factory=set)
    encodings: set[str] = field(default_factory=set)
    ascii_as_base64: bool = False


def read(octets: bytes) -> Reading:
    """`octets`: a message, or as much of its beginning as is at hand; line ends of either kind."""
    raw = bytes(octets[:MOST_OCTETS])
    root = tree(raw)
    reading = Reading(root.fields, _names(raw[: root.body]))
    _header(reading, root.fields)
    texts: list[str] = []
    room = MOST_TEXT
    stack, parts = [root], 0
    while stack and parts < MOST_PARTS:
        part = stack.pop()
        stack.extend(reversed(part.children))
        parts += 1
        kind = f"{_ascii(part.type.main)}/{_ascii(part.type.sub)}"
        reading.types.append(kind)
        if part.children:
            continue
        if _is_attached(part, kind):
            if len(reading.attachments) < _MOST_ATTACHMENTS:
                reading.attachments.append(Attachment(kind, _file_name(part)))
        elif room > 0:
            text = _part(reading, raw, part, kind)[:room]
            room -= len(text)
            texts.append(text)
    reading.text = _normal(reading, "\n".join(texts))
    # A search for either beginning is tried at each letter; most mail has neither.
    lowered = reading.text.lower()
    for found in _URL.finditer(reading.text) if "://" in lowered or "www." in lowered else ():
        if len(reading.links) >= 2 * MOST_PARTS:
            break
        reading.links.append(Link(found[0]))
    return reading


def _names(header: bytes) -> list[bytes]:
    return [name.lower() for name in re.findall(rb"(?m)^([!-9;-~]{1,60})[ \t]*:", header[:65_536])[:200]]


def _header(reading: Reading, fields: Fields) -> None:
    reading.subject = _normal(reading, _field(fields, b"subject"))
    sender = fields.get(b"from", b"")
    reading.from_count = sender.count(REPEATED) + 1 if sender else 0
    reading.from_name, reading.from_address = _mailbox(reading, sender)
    _, reading.reply_to = _mailbox(reading, fields.get(b"reply-to", b""))
    for name in (b"to", b"cc"):
        reading.recipients += fields.get(name, b"")[:65_536].count(b"@")
    listed = _field(fields, b"list-id").lower()
    reading.list_id = (listed.rpartition("<")[2].partition(">")[0] if "<" in listed else listed).strip()[:_MOST_NAMES]


def _mailbox(reading: Reading, value: bytes) -> tuple[str, str]:
    """Display name and address (lower case) of the first mailbox of a field."""
    first = value.partition(REPEATED)[0][:_MOST_FIELD]
    # Names in raw GBK or UTF-8 are read as they are meant, not as the addresses' grammar would have them.
    for one in addresses(first)[:3]:
        if one.mailbox is None or one.host is None:
            continue
        name = _words(one.name or b"")
        address = b"%s@%s" % (one.mailbox, one.host)
        return _normal(reading, name).strip(), _best(address, "").lower()[:254]
    return _normal(reading, _words(first)).strip()[:254], ""


def _field(fields: Fields, name: bytes) -> str:
    return _words(fields.get(name, b"")[:_MOST_FIELD]).strip()


def _words(value: bytes) -> str:
    """A field's value decoded; what has octets above 127 outside encoded words is in some charset of its own."""
    if b"=?" in value or value.isascii():
        return header_text(value)
    return " ".join(_best(value, "").split())


def _best(octets: bytes, charset: str) -> str:
    """`octets` in `charset`; where that says nothing and they are no UTF-8, perhaps in the charset of China.

    GB 18030 reads any pair of high octets. A text in Latin-1 has single ones: runs of them are short, and half are odd.
    """
    charset = charset.lower()
    if charset not in _UNDECLARED or octets.isascii():
        return decode(octets, charset)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        pass
    runs = _HIGH_RUN.findall(octets[:4_096])
    high = sum(map(len, runs))
    if high >= 4 and high >= 3 * len(runs):
        try:
            return octets.decode("gb18030")
        except UnicodeDecodeError as error:
            if error.start > len(octets) - 4 or error.start > 512:
                return octets.decode("gb18030", "replace")
    return decode(octets, charset or "utf-8")


def _normal(reading: Reading, text: str) -> str:
    if text.isascii():
        return text
    reading.no_width += len(_WITHIN.findall(text))
    text = _NO_WIDTH.sub("", text)
    text = unicodedata.normalize("NFKC", text)

    def plain(found: re.Match[str]) -> str:
        word = found[0]
        if not _LATIN.search(word):
            return word
        reading.lookalikes += 1
        return word.translate(_LOOKALIKES)

    return _MIXED.sub(plain, text) if _LATIN.search(text) else text


def _is_attached(part: Part, kind: str) -> bool:
    if part.kind == MESSAGE or kind.startswith("message/"):
        return False
    if not kind.startswith("text/") or kind in ("text/calendar", "text/x-vcard", "text/vcard"):
        return True
    declared = part.fields.get(b"content-disposition", b"")[:_MOST_FIELD]
    return bool(declared) and disposition(declared)[0].lower() == b"attachment"


def _file_name(part: Part) -> str:
    declared = part.fields.get(b"content-disposition", b"")[:_MOST_FIELD]
    for parameters in (disposition(declared)[1] if declared else (), part.type.parameters):
        for name, value in parameters:
            if name.lower().rstrip(b"*") in (b"filename", b"name"):
                text = _words(value.rpartition(b"''")[2] if name.endswith(b"*") else value)
                return unicodedata.normalize("NFKC", text).lower()[:_MOST_NAMES]
    return ""


def _part(reading: Reading, raw: bytes, part: Part, kind: str) -> str:
    """The text of one part as it is seen."""
    encoding = (mime_token(part.fields.get(b"content-transfer-encoding", b"")[:_MOST_FIELD]) or b"").lower()
    charset = _ascii(part.type.parameter(b"charset") or b"")
    reading.charsets.add(charset)
    reading.encodings.add(_ascii(encoding))
    octets = transfer_decoded(raw[part.body : min(part.end, part.body + _MOST_SOURCE)], encoding)
    if encoding == b"base64" and kind == "text/plain" and len(octets) > 40 and octets.isascii():
        reading.ascii_as_base64 = True
    text = _best(octets, charset)
    if kind != "text/html":
        reading.plain += len(text)
        return text
    page = seen(text)
    reading.markup += len(page.text)
    reading.hidden += page.hidden
    reading.forms += page.forms
    reading.links += page.links[: max(0, MOST_PARTS - len(reading.links))]
    reading.pictures += page.pictures[: max(0, MOST_PARTS - len(reading.pictures))]
    return page.text


def _ascii(octets: bytes) -> str:
    return octets[:_MOST_NAMES].decode("ascii", "replace").lower().strip("\"' ")


# --- hosts and domains

_HOST = re.compile(r"(?:[a-z][a-z0-9+.-]{1,15}:)?//(?:[^/?#\\@]*@)*([^/?#\\:\s]{1,255})", re.I)
# Below these a name of three labels is one owner's. The few that mail from China, Taiwan, Britain, Japan is full of.
_SECOND_LEVEL = frozenset(("com", "net", "org", "gov", "edu", "co", "ac", "ne", "or", "go", "gob", "idv", "mil"))


def host_of(target: str) -> str:
    """The host of a link, lower case; "" for mailto:, fragments and what is none."""
    found = _HOST.match(target if "//" in target[:20] else "//" + target if target[:4].lower() == "www." else "")
    return found[1].lower().rstrip(".。") if found else ""


def domain_of(host: str) -> str:
    """What of a host name is probably one owner's: two labels, or three below `com.cn` and the like.

    A guess for a filter's tokens, never for what is decided about somebody's mail.
    """
    labels = host.rpartition("@")[2].split(".")
    if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])
