"""Reports to a sender about mail that failed, is late, or arrived and was to be told of: a `multipart/report`
(RFC 6522) with a delivery status part (RFC 3464) for programs and plain words for people.

Pure: values in, a whole message out, or what stands before and after a quoted one (`frame`). smtp-out and smtp-in call
it and queue what they get under the null sender. Each remote's own words are quoted as it said them. The words are a
`Words` value per language; English is the one there is. Never decides whether a report is due (never about mail that
has the null sender, nor to an address that nothing vouches for: those are the callers' rules).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.message.date import header_date

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
# What is quoted of the original: its header, all of it, or nothing.
Quoted = Literal["header", "message", "nothing"]


@dataclass(frozen=True, slots=True)
class Reported:
    """One recipient. `reply` are the remote's words with its code ("550 5.1.1 No such user"), "" where no server said
    anything; `reason` is then ours. `remote` names the server that spoke. `last_attempt` is 0 where there was none.
    `original` is the address that the sender gave, with its type (RFC 3461 §4.2, decoded), where they said it."""

    address: str
    status: str  # RFC 3463, class first
    reply: str = ""
    reason: str = ""
    remote: str = ""
    last_attempt: float = 0.0
    original: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Words:
    """One language's sentences. `{...}` are filled in."""

    language: str
    subject: Mapping[Action, str]
    opening: Mapping[Action, str]
    end: Mapping[Action, str]
    said: str
    found: str
    at: str
    about: str


ENGLISH = Words(
    language="en",
    subject={
        "failed": "Not delivered: {subject}",
        "delayed": "Late, still trying: {subject}",
        "delivered": "Delivered: {subject}",
        "relayed": "Handed on: {subject}",
        "expanded": "Delivered to a list: {subject}",
    },
    opening={
        "failed": "Your message could not be delivered to:",
        "delayed": "Your message has not been delivered yet to:",
        "delivered": "Your message was delivered to:",
        "relayed": "Your message was handed on for:",
        "expanded": "Your message was delivered to the members of:",
    },
    end={
        "failed": "It will not be tried again. If the address is right, ask its owner another way, or send it once "
        "more later.",
        "delayed": "There is nothing to do: it is tried again until {until}. If it cannot be delivered by then, you "
        "will be told.",
        "delivered": "You asked to be told. Whether it was read is not known.",
        "relayed": "You asked to be told. The next server makes no such reports: nothing more will be heard unless it "
        "fails.",
        "expanded": "You asked to be told. Its members may be people elsewhere, of whom no reports will come.",
    },
    said="The other mail server said:",
    found="What happened:",
    at="at {when} by {remote}",
    about="This report was made by the mail server {server}. Below are its details for programs, and what is quoted of "
    "your message.",
)
# To the owner of an alias that leads outside, whose target did not take a message: it was not theirs.
FORWARDED = dataclasses.replace(
    ENGLISH,
    subject={"failed": "Not forwarded: {subject}"},
    opening={"failed": "A message that an alias of yours sends on was not taken by:"},
    end={
        "failed": "It will not be tried again. Its sender was not told, because nothing proves who that is: such "
        "reports go to people whose address was forged. If this happens often, look at the alias, or keep a copy here."
    },
    about="This report was made by the mail server {server}. Below are its details for programs, and the message's "
    "header; nothing more of it was kept.",
)


def report(action: Action, *, header: bytes, quoted: Quoted = "header", **other: Any) -> bytes:
    """The report as a message with CRLF line ends. `header` is the original's header block; see `frame`."""
    before, after = frame(action, header=header, quoted=quoted, **other)
    if quoted == "nothing":
        return before + after
    return before + _safe_lines(_ended(header)) + after


def frame(
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
    envid: str = "",
    quoted: Quoted = "header",
    eight_bit: bool = False,
) -> tuple[bytes, bytes]:
    """The report's octets before and after what is quoted of the original.

    `server` is our name; `sender` the address it comes from (From), `recipient` whom it goes to. `until`: when a late
    message is given up. `trace` is what the owner looks the message up by, `identity` the report's own. `envid` is the
    sender's own mark of the message, decoded (RFC 3461 §4.4). `eight_bit`: of a whole message that is quoted.
    """
    boundary = "=_" + hashlib.sha256(identity.encode() + header).hexdigest()[:32]
    told = b"" if quoted == "nothing" else header
    subject = _subject(told)
    message_id = field_value(told, b"message-id")
    top = [
        f"From: Mail Delivery System <{sender}>",
        f"To: <{recipient}>",
        *_folded_subject(words.subject[action].format(subject=subject or "(no subject)")),
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
    status = _status(action, server, recipients, arrived, until, trace, envid)
    parts = [
        _part("text/plain; charset=utf-8", text.encode("utf-8", "replace")),
        _part("message/delivery-status" if status.isascii() else "message/global-delivery-status", status),
    ]
    mark = f"--{boundary}\r\n".encode()
    body = b"".join(mark + part + b"\r\n" for part in parts)
    if quoted != "nothing":
        body += mark + _quoted_head(header, quoted, eight_bit)
    head = "\r\n".join(top).encode("utf-8", "replace") + b"\r\n\r\n"
    end = f"--{boundary}--\r\n".encode()
    return head + body, end if quoted == "nothing" else b"\r\n" + end


def _quoted_head(header: bytes, quoted: Quoted, eight_bit: bool) -> bytes:
    # RFC 6533 §6: headers in UTF-8 are of types of their own, so that no reader takes their octets for something else.
    if quoted == "message":
        kind = "message/rfc822" if header.isascii() else "message/global"
    else:
        kind = "text/rfc822-headers" if header.isascii() else "message/global-headers"
        eight_bit = False
    encoding = "7bit" if header.isascii() and not eight_bit else "8bit"
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()


def _ended(header: bytes) -> bytes:
    return header if header.endswith(b"\r\n\r\n") else header.rstrip(b"\r\n") + b"\r\n\r\n"


def _part(kind: str, content: bytes) -> bytes:
    encoding = "7bit" if content.isascii() else "8bit"
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + content


def _words(action: Action, words: Words, server: str, recipients: Sequence[Reported], until: float) -> str:
    lines = [words.opening[action], ""]
    for each in recipients:
        lines.append(f"  {_printable(each.address)}")
        if each.reply or each.reason:
            lines.append(f"    {words.said if each.reply else words.found}")
            lines += [f"      {line}" for line in _wrapped(_printable(each.reply or each.reason))]
        if each.remote and each.last_attempt:
            when = words.at.format(when=header_date(each.last_attempt), remote=_printable(each.remote))
            lines.append(f"      ({when})")
        lines.append("")
    lines += [
        *_wrapped(words.end[action].format(until=header_date(until))),
        "",
        *_wrapped(words.about.format(server=server)),
        "",
    ]
    return "\r\n".join(lines)


def _status(
    action: Action, server: str, recipients: Sequence[Reported], arrived: float, until: float, trace: str, envid: str
) -> bytes:
    """RFC 3464 §2: fields about the message, then a block for each recipient."""
    # RFC 3461 §6.3: the sender's own mark comes back, in plain.
    lines = [f"Original-Envelope-Id: {_printable(envid)}"] if envid else []
    lines += [f"Reporting-MTA: dns; {server}", f"X-Mailstead-Trace: {trace}", f"Arrival-Date: {header_date(arrived)}"]
    for each in recipients:
        address = _printable(each.address)
        kind, original = each.original
        lines += ["", *([f"Original-Recipient: {kind}; {_printable(original)}"] if original else [])]
        lines += [f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {address}", f"Action: {action}"]
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
