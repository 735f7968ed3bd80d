"""What a remote SMTP or LMTP server says: bytes to replies, within limits.

Called by `smtp/client.py`. A remote's words are kept as it said them, cleaned of control characters: the owner reads
them in the queue, and senders in reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# RFC 5321 §4.5.3.1.5: 512 octets a reply line. Real servers (Exchange, with addresses in the text) go beyond; four
# times that still bounds memory.
MAX_REPLY_LINE = 2048
# Replies to EHLO of large providers have about 15 lines; a hundred is either broken or meant to fill memory.
MAX_REPLY_LINES = 100


class ProtocolFault(Exception):
    """The peer does not speak SMTP: what it sent is no reply, too long, or came when it had no turn."""


@dataclass(frozen=True, slots=True)
class RemoteReply:
    """One reply of a remote server. `lines` are its texts without code, control characters made visible."""

    code: int
    lines: tuple[str, ...] = ("",)

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 400

    @property
    def temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def enhanced(self) -> str:
        """The enhanced status code (RFC 2034 §4, RFC 3463), or one that says as much as the basic code does."""
        found = _ENHANCED.match(self.lines[0])
        # RFC 2034 §4: its class must be the reply's; some servers write "550 4.7.1", where the basic code decides.
        if found and found[1][0] == str(self.code)[0]:
            return found[1]
        return f"{str(self.code)[0]}.0.0"

    @property
    def text(self) -> str:
        """On one line, code first, as a person quotes it: `550 5.1.1 No such user`."""
        return f"{self.code} {' '.join(line for line in self.lines if line)}".rstrip()


_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?= |$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f]")


class ReplyReader:
    """Bytes to replies; what is left over stays for the next. Lines may end in a bare LF, as old servers send it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._code = 0

    @property
    def pending(self) -> bool:
        """Whether bytes are here that no command has asked for."""
        return bool(self._buffer or self._lines)

    @property
    def waiting(self) -> int:
        """Octets not yet taken as replies."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_reply(self) -> RemoteReply | None:
        """The next whole reply, or None until more bytes come. Raises ProtocolFault."""
        while True:
            end = self._buffer.find(b"\n")
            if end > MAX_REPLY_LINE or (end < 0 and len(self._buffer) > MAX_REPLY_LINE):
                raise ProtocolFault(f"a reply line longer than {MAX_REPLY_LINE} octets")
            if end < 0:
                return None
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            code, more, text = self._parse(line)
            if self._lines and code != self._code:
                # RFC 5321 §4.2.1 wants one code on all lines. Which one is meant cannot be told.
                raise ProtocolFault(f"a reply that begins with {self._code} and goes on with {code}")
            self._code = code
            self._lines.append(text)
            if len(self._lines) > MAX_REPLY_LINES:
                raise ProtocolFault(f"a reply of more than {MAX_REPLY_LINES} lines")
            if not more:
                reply = RemoteReply(code, tuple(self._lines))
                self._lines = []
                return reply

    @staticmethod
    def _parse(line: bytes) -> tuple[int, bool, str]:
        found = _REPLY_LINE.fullmatch(line)
        if found is None:
            raise ProtocolFault(f"not a reply: {line[:80]!r}")
        text = found[3].decode("utf-8", "replace") if found[3] else ""
        return int(found[1]), found[2] == b"-", _CONTROL.sub("?", text).strip()


_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
