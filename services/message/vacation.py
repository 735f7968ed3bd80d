"""A vacation reply: the message that answers another one (RFC 5230 §5, RFC 3834 §3).

Pure: values in, a whole message with CRLF line ends out. Called by smtp-in's rules, which send it with the null sender,
so that nothing it meets answers it or reports about it. Whether it is due is `policy/sieve/answering`'s.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from services.message import text
from services.message.date import header_date
from services.message.headers import field_line, fields, find

# Of a thread's References, the first and the last that fit: RFC 5322 §3.6.4 wants all, a line has its limit.
MOST_REFERENCES = 20
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,250}>")
_LONG_LINE = re.compile(rb"[^\r\n]{991}")
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said. `mime`: `body` is a MIME entity that begins with its own header (RFC 5230 §4.7, :mime)."""

    sender: str  # address of From
    to: str
    subject: str
    body: str
    mime: bool = False


def reply(answer: Answer, header: bytes, *, message_id: str, now: float) -> bytes:
    """The reply to the message whose header is `header`; `message_id` without its brackets."""
    original = find(header, b"message-id")
    answered = _MESSAGE_ID.search(original.value) if original else None
    lines = [
        _address_line("From", answer.sender),
        _address_line("To", answer.to),
        _subject(answer.subject or _auto(header)),
        f"Date: {header_date(now)}\r\n".encode(),
        f"Message-ID: <{message_id}>\r\n".encode(),
    ]
    if answered:
        references = _references(header, answered[0])
        lines.append(b"In-Reply-To: " + answered[0] + b"\r\n")
        lines.append(b"References: " + b"\r\n ".join(references) + b"\r\n")
    lines += [
        b"Auto-Submitted: auto-replied\r\n",  # RFC 3834 §3.1.7
        b"X-Auto-Response-Suppress: All\r\n",  # Exchange knows no other
        b"MIME-Version: 1.0\r\n",
        _entity(answer.body) if answer.mime else _plain(answer.body),
    ]
    return b"".join(lines)


def _address_line(name: str, address: str) -> bytes:
    return f"{name}: <{''.join(each for each in address if each.isprintable() and each not in '<>')}>\r\n".encode()


def _auto(header: bytes) -> str:
    """RFC 5230 §5.3: `Auto: ` and the subject that is answered."""
    found = find(header, b"subject")
    said = text.header_text(found.value) if found else ""
    return "Auto: " + " ".join(said.split())[:200]


def _subject(subject: str) -> bytes:
    """As it is where it is ASCII, else in encoded words of at most 75 characters (RFC 2047 §2)."""
    clean = "".join(each if each.isprintable() else " " for each in subject[:500]).strip()
    if clean.isascii():
        return field_line("Subject", clean)
    words, piece = [], ""
    for each in clean:
        if len((piece + each).encode("utf-8", "replace")) > 42:  # 42 octets are 56 in base64, 68 with the frame
            words.append(piece)
            piece = ""
        piece += each
    words.append(piece)
    encoded = [b"=?utf-8?B?" + base64.b64encode(word.encode("utf-8", "replace")) + b"?=" for word in words]
    return b"Subject: " + b"\r\n ".join(encoded) + b"\r\n"


def _references(header: bytes, answered: bytes) -> list[bytes]:
    """RFC 5322 §3.6.4: those of the original, or what it answered, and itself."""
    found = find(header, b"references") or find(header, b"in-reply-to")
    before = [each for each in _MESSAGE_ID.findall(found.value) if each != answered] if found else []
    if len(before) >= MOST_REFERENCES:
        before = [before[0], *before[-MOST_REFERENCES + 2 :]]
    return [*before, answered]


def _plain(body: str) -> bytes:
    """text/plain; base64 where a line or a letter needs it."""
    octets = "\r\n".join(_LINE_END.split(body)).encode("utf-8", "replace")
    if octets.isascii() and not _LONG_LINE.search(octets) and b"\0" not in octets:
        return b"Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" + _ended(octets)
    lines = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines


def _entity(body: str) -> bytes:
    """The entity of :mime. Of its header only Content-* fields are taken: no other may be said by a script."""
    octets = "\r\n".join(_LINE_END.split(body)).encode("utf-8", "replace").lstrip(b"\r\n")
    head, empty, content = octets.partition(b"\r\n\r\n")
    said = [each for each in fields(head + b"\r\n") if each.name.lower().startswith(b"content-")]
    if not empty or not said:
        return _plain(body)
    kept = b"".join(each.name + b": " + each.value[:900].replace(b"\r", b" ") + b"\r\n" for each in said[:20])
    if not content.isascii() and b"content-transfer-encoding" not in (each.name.lower() for each in said):
        kept += b"Content-Transfer-Encoding: 8bit\r\n"
    return kept + b"\r\n" + _ended(content)


def _ended(octets: bytes) -> bytes:
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"
