"""rspamd: POST /checkv2 to its normal worker, which answers with JSON.

    {"score": 12.3, "required_score": 15, "action": "add header", "thresholds": {"add header": 6, ...},
     "symbols": {"R_SPF_FAIL": {"score": 1, ...}, ...}, "is_skipped": false}

Source: rspamd's documentation, "Rspamd protocol". Its threshold for us is that of "add header", where it would mark
mail as junk; not "reject", since nothing is lost for a scanner's opinion.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from services.smtp_in.scanners.finding import (
    MOST_LINES,
    MOST_RULES,
    SECONDS,
    Finding,
    Letter,
    Link,
    Nonsense,
    opinion,
    pieces,
    shown,
)

_STATUS = re.compile(r"HTTP/1\.[01] ([0-9]{3})(?: .*)?\Z")
DEFAULT_THRESHOLD = 6.0  # "add header" in rspamd's own configuration
# What its action says at least, whatever its score: a rule of its own may force one.
_ACTIONS = {"reject": 2.0, "add header": 1.0, "rewrite subject": 1.0}
# rspamd's max_message is 50 MB; junk is small, and a large message holds up everybody behind it.
LARGEST = 10_000_000


class Rspamd:
    """rspamd's normal worker at `host`:`port`."""

    name = "rspamd"

    def __init__(self, host: str, port: int, seconds: float = SECONDS) -> None:
        self._host, self._port, self._seconds = host, port, seconds

    async def scan(self, letter: Letter) -> Finding:
        """See `Scanner.scan`. A letter over `LARGEST` is not sent and counts as clean."""
        if letter.size > LARGEST:
            return Finding(self.name)

        async def ask(link: Link) -> Finding:
            await link.send(self._head(letter))
            async for piece in pieces(letter):
                await link.send(piece)
            return self._read(await self._body(link))

        return await opinion(self.name, self._host, self._port, self._seconds, ask)

    def _head(self, letter: Letter) -> bytes:
        lines = [
            "POST /checkv2 HTTP/1.1",
            f"Host: {self._host}",
            "Connection: close",
            f"Content-Length: {letter.size}",
            "Flags: no_log",
            f"Queue-Id: {letter.trace}",
            f"From: {_value(letter.sender)}",
            *(f"Rcpt: {_value(recipient)}" for recipient in letter.recipients[:100]),
        ]
        if letter.client:
            lines.append(f"IP: {_value(letter.client)}")
        if letter.helo:
            lines.append(f"Helo: {_value(letter.helo)}")
        return "\r\n".join([*lines, "", ""]).encode()

    @staticmethod
    async def _body(link: Link) -> bytes:
        status = _STATUS.match(line := await link.line())
        if status is None or status[1] != "200":
            raise Nonsense(f"it said {shown(line)!r}")
        length: int | None = None
        for _ in range(MOST_LINES):
            if not (line := await link.line()):
                break
            name, _, value = line.partition(":")
            if name.lower() == "transfer-encoding":
                raise Nonsense("its answer comes in chunks, which it does not send to HTTP/1.1 with a length")
            if name.lower() == "content-length" and re.fullmatch(r" *[0-9]{1,9} *", value):
                length = int(value)
        return await (link.rest() if length is None else link.exactly(length))

    def _read(self, body: bytes) -> Finding:
        try:
            answer: dict[str, Any] = json.loads(body)
            action = _ACTIONS.get(str(answer.get("action")), 0.0)
            if answer.get("is_skipped"):
                return Finding(self.name, action)  # its test string GTUBE has an action and no score
            score = float(answer["score"])
            limits = answer.get("thresholds") or {}
            threshold = float(limits.get("add header") or DEFAULT_THRESHOLD)
            symbols = answer.get("symbols") or {}
            by_weight = sorted(symbols, key=lambda name: -abs(float(symbols[name].get("score") or 0)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Nonsense(f"its answer is not what it documents: {shown(str(error))}") from None
        if not (-1e6 < score < 1e6 and 0 < threshold < 1e6):
            raise Nonsense(f"its score is {score} and its threshold {threshold}")
        share = max(score / threshold, action) if action else score / threshold
        return Finding(self.name, share, tuple(shown(name) for name in by_weight[:MOST_RULES]))


def _value(text: str) -> str:
    """As it may stand in a header's value: nothing that ends the line; what is not ASCII is escaped as in a URL."""
    return quote(text, safe="@<>[]:=+.!#$&'*/?^_`{|}~- ")
