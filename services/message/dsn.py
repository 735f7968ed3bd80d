"""Reports to a sender about mail that failed or is late: a `multipart/report` (RFC 6522) with a delivery status part
(RFC 3464) for programs and plain words for people.

Pure: values in, a whole message out. smtp-out calls `report` and queues what it gets under the null sender. Each
remote's own words are quoted as it said them. The words are a `Words` value per language; English is the one there is.
Never decides whether a report is due (never about mail that has the null sender: that is the caller's rule).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from services.message.date import header_date

Action = Literal["failed", "delayed"]


@dataclass(frozen=True, slots=True)
class Reported:
    """One recipient. `reply` are the remote's words with its code ("550 5.1.1 No such user"), "" where no server said
    anything; `reason` is then ours. `remote` names the server that spoke. `last_attempt` is 0 where there was none."""

    address: str
    status: str  # RFC 3463, class first
    reply: str = ""
    reason: str = ""
    remote: str = ""
    last_attempt: float = 0.0


@dataclass(frozen=True, slots=True)
class Words:
    """One language's sentences. `{...}` are filled in."""

    language: str
    failed_subject: str
    delayed_subject: str
    failed: str
    delayed: str
    said: str
    found: str
    at: str
    failed_end: str
    delayed_end: str
    about: str


ENGLISH = Words(
    language="en",
    failed_subject="Not delivered: {subject}",
    delayed_subject="Late, still trying: {subject}",
    failed="Your message could not be delivered to:",
    delayed="Your message has not been delivered yet to:",
    said="The other mail server said:",
    found="What happened:",
    at="at {when} by {remote}",
    failed_end="It will not be tried again. If the address is right, ask its owner another way, or send it once more "
    "later.",
    delayed_end="There is nothing to do: it is tried again until {until}. If it cannot be delivered by then, you will "
    "be told.",
    about="This report was made by the mail server {server}. Below are its details for programs, and your message's "
    "header.",
)


def report(
    action: Action,
    *,
    server: str,
    sender: str,
    recipient: str,
    recipients: Sequence[Reported],
    arrived: float,
    now: float,
    until: float,
    header: bytes,
    trace: str,
    identity: str,
    words: Words = ENGLISH,
) -> bytes:
    """The report as a message with CRLF line ends.

    `server` is our name; `sender` the address it comes from (From), `recipient` whom it goes to; `header` is the
    original's header block. `until`: when a delayed message is given up. `trace` is what the owner looks the message up
    by, `identity` the report's own.
    """
    boundary = "=_" + hashlib.sha256(identity.encode() + header).hexdigest()[:32]
    subject = _subject(header)
    message_id = field_value(header, b"message-id")
    title = words.failed_subject if action == "failed" else words.delayed_subject
    top = [
        f"From: Mail Delivery System <{sender}>",
        f"To: <{recipient}>",
        *_folded_subject(title.format(subject=subject or "(no subject)")),
        f"Date: {header_date(now)}",
        f"Message-ID: <{identity}@{server}>",
        # RFC 3834 §5: so that nobody's vacation note answers it.
        "Auto-Submitted: auto-replied",
        *([f"In-Reply-To: {message_id}", f"References: {message_id}"] if _is_message_id(message_id) else []),
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
        f"Content-Language: {words.language}",
    ]
    text = _words(action, words, server, recipients, until)
    status = _status(action, server, recipients, arrived, until, trace)
    original = header if header.endswith(b"\r\n\r\n") else header.rstrip(b"\r\n") + b"\r\n\r\n"
    # RFC 6533 §6: headers in UTF-8 are message/global-headers, so that no reader takes their octets for something else.
    kind = "text/rfc822-headers" if original.isascii() else "message/global-headers"
    parts = [
        _part("text/plain; charset=utf-8", text.encode("utf-8", "replace")),
        _part("message/delivery-status" if status.isascii() else "message/global-delivery-status", status),
        _part(kind, _safe_lines(original)),
    ]
    mark = f"--{boundary}\r\n".encode()
    body = b"".join(mark + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    return "\r\n".join(top).encode("utf-8", "replace") + b"\r\n\r\n" + body


def _part(kind: str, content: bytes) -> bytes:
    encoding = "7bit" if content.isascii() else "8bit"
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + content


def _words(action: Action, words: Words, server: str, recipients: Sequence[Reported], until: float) -> str:
    lines = [words.failed if action == "failed" else words.delayed, ""]
    for each in recipients:
        lines += [f"  {_printable(each.address)}", f"    {words.said if each.reply else words.found}"]
        lines += [f"      {line}" for line in _wrapped(_printable(each.reply or each.reason))]
        if each.remote and each.last_attempt:
            when = words.at.format(when=header_date(each.last_attempt), remote=_printable(each.remote))
            lines.append(f"      ({when})")
        lines.append("")
    end = words.failed_end if action == "failed" else words.delayed_end.format(until=header_date(until))
    lines += [*_wrapped(end), "", *_wrapped(words.about.format(server=server)), ""]
    return "\r\n".join(lines)


def _status(
    action: Action, server: str, recipients: Sequence[Reported], arrived: float, until: float, trace: str
) -> bytes:
    """RFC 3464 §2: fields about the message, then a block for each recipient."""
    lines = [f"Reporting-MTA: dns; {server}", f"X-Mailstead-Trace: {trace}", f"Arrival-Date: {header_date(arrived)}"]
    for each in recipients:
        address = _printable(each.address)
        lines += ["", f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}", f"Action: {action}"]
        lines.append(f"Status: {each.status}")
        if each.remote:
            lines.append(f"Remote-MTA: dns; {_printable(each.remote.split(' ')[0])}")
        if each.reply:
            # Folded, since a line of a header has at most 998 octets (RFC 5322 §2.1.1).
            lines.append("Diagnostic-Code: smtp; " + "\r\n ".join(_wrapped(_printable(each.reply))))
        if each.last_attempt:
            lines.append(f"Last-Attempt-Date: {header_date(each.last_attempt)}")
        if action == "delayed":
            lines.append(f"Will-Retry-Until: {header_date(until)}")
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "replace")


def _printable(text: str) -> str:
    """Without what would begin a new field or a new line: these are a stranger's words."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _wrapped(text: str, width: int = 72) -> list[str]:
    """`text` in lines of about `width`; a word longer than the longest line that mail allows is cut."""
    lines, line = [], ""
    for word in text.split():
        while len(word) > 200:
            lines += [line] if line else []
            line, lines, word = "", [*lines, word[:200]], word[200:]
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line or not lines else lines


def _safe_lines(header: bytes) -> bytes:
    """The original header as it was, but no line of it longer than SMTP carries (RFC 5321 §4.5.3.1.6)."""
    lines = header.split(b"\r\n")
    return b"\r\n".join(line if len(line) <= 998 else line[:990] + b" ..." for line in lines)


def field_value(header: bytes, name: bytes) -> str:
    """The value of the first field `name` (lower case) on one line, "" where there is none."""
    for found in _FIELD.finditer(header):
        if found[1].lower() == name:
            value = found[2].replace(b"\r\n", b"").replace(b"\t", b" ")
            return _printable(value.decode("utf-8", "replace"))
    return ""


_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)", re.MULTILINE)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")


def _is_message_id(text: str) -> bool:
    return bool(_MESSAGE_ID.fullmatch(text))


def _subject(header: bytes) -> str:
    """The original's subject as readable text, cut to a line."""
    text = _decoded(field_value(header, b"subject"))
    return text if len(text) <= 80 else text[:79] + "…"


def _decoded(text: str) -> str:
    """RFC 2047 encoded words made readable; those in a charset that Python does not know stay as they are."""

    def word(found: re.Match[str]) -> str:
        charset, encoding, content = found[1].partition("*")[0], found[2].upper(), found[3]
        try:
            if encoding == "B":
                octets = base64.b64decode(content + "=" * (-len(content) % 4))
            else:
                octets = _q_decoded(content.replace("_", " ").encode("ascii"))
            return octets.decode(charset, "replace")
        except (ValueError, LookupError):
            return found[0]

    # RFC 2047 §6.2: white space between two encoded words is not part of the text.
    return _printable(_ENCODED.sub(word, re.sub(r"(\?=)\s+(=\?)", r"\1\2", text)))


_ENCODED = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?\s]*)\?=")


def _q_decoded(text: bytes) -> bytes:
    return re.sub(rb"=([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text)


def _folded_subject(text: str) -> list[str]:
    """The Subject field: as it is where it is ASCII, else in encoded words of at most 75 characters (RFC 2047 §2)."""
    if text.isascii():
        return [f"Subject: {text}"]
    words, piece = [], ""
    for character in text:
        if len((piece + character).encode()) > 42:  # 42 octets are 56 in base64, 68 with the frame
            words.append(piece)
            piece = ""
        piece += character
    words.append(piece)
    encoded = [f"=?utf-8?B?{base64.b64encode(word.encode()).decode()}?=" for word in words]
    return ["Subject: " + "\r\n ".join(encoded)]
