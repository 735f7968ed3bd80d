"""SpamAssassin: spamd's SYMBOLS command over TCP (spamd/PROTOCOL in its source, version 1.5).

SYMBOLS SPAMC/1.5            →  SPAMD/1.1 0 EX_OK
Content-length: 5120            Content-length: 27
                                Spam: True ; 15.0 / 5.0
(the message)
                                BAYES_99,HTML_ONLY,URI_PHISH
"""

from __future__ import annotations

import re

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

_STATUS = re.compile(r"SPAMD/[0-9.]{1,8} ([0-9]{1,3}) (.{0,80})\Z")
_NUMBER = r"(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)"
_VERDICT = re.compile(rf"(?:True|False|Yes|No) *; *{_NUMBER} */ *{_NUMBER} *\Z", re.IGNORECASE)
# spamd's cost grows with the size; spamc itself sends nothing over 500 KB, since hardly any junk is larger.
LARGEST = 500_000


class SpamAssassin:
    """spamd at `host`:`port`."""

    name = "spamassassin"

    def __init__(self, host: str, port: int, seconds: float = SECONDS) -> None:
        self._host, self._port, self._seconds = host, port, seconds

    async def scan(self, letter: Letter) -> Finding:
        """See `Scanner.scan`. A letter over `LARGEST` is not sent and counts as clean."""
        if letter.size > LARGEST:
            return Finding(self.name)
        return await opinion(self.name, self._host, self._port, self._seconds, lambda link: self._ask(link, letter))

    async def _ask(self, link: Link, letter: Letter) -> Finding:
        await link.send(f"SYMBOLS SPAMC/1.5\r\nContent-length: {letter.size}\r\n\r\n".encode())
        async for piece in pieces(letter):
            await link.send(piece)
        status = _STATUS.match(line := await link.line())
        if status is None or status[1] != "0":
            raise Nonsense(f"it said {shown(line)!r}")
        share: float | None = None
        for _ in range(MOST_LINES):
            if not (line := await link.line()):
                break
            name, _, value = line.partition(":")
            if name.lower() == "spam" and (verdict := _VERDICT.match(value.strip())):
                share = float(verdict[1]) / max(float(verdict[2]), 0.1)
        if share is None:
            raise Nonsense("its answer has no line Spam: with a score")
        names = (await link.rest()).decode("utf-8", "replace").strip().split(",")
        return Finding(self.name, share, tuple(shown(name.strip()) for name in names[:MOST_RULES] if name.strip()))
