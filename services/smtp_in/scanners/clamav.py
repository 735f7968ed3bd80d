"""ClamAV: clamd's INSTREAM command over TCP.

    zINSTREAM\\0 (4 octets of length, then as many octets)... 0000  →  stream: OK\\0
                                                                      stream: Eicar-Test-Signature FOUND\\0
                                                                      INSTREAM size limit exceeded. ERROR\\0

Source: clamd(8), "z" commands end with NUL, lengths are in network byte order.
"""

from __future__ import annotations

import re

from services.smtp_in.scanners.finding import SECONDS, Finding, Letter, Link, Nonsense, opinion, pieces, shown

_FOUND = re.compile(r"stream: (.{1,200}) FOUND\Z", re.DOTALL)
_ANSWER_OCTETS = 4096


class ClamAV:
    """clamd at `host`:`port`. A message is streamed; clamd reads up to its own StreamMaxLength."""

    name = "clamav"

    def __init__(self, host: str, port: int, seconds: float = SECONDS) -> None:
        self._host, self._port, self._seconds = host, port, seconds

    async def scan(self, letter: Letter) -> Finding:
        """See `Scanner.scan`."""

        async def ask(link: Link) -> Finding:
            return self._read(await self._ask(link, letter))

        return await opinion(self.name, self._host, self._port, self._seconds, ask)

    @staticmethod
    async def _ask(link: Link, letter: Letter) -> str:
        refused: OSError | None = None
        try:
            await link.send(b"zINSTREAM\0")
            async for piece in pieces(letter):
                await link.send(len(piece).to_bytes(4, "big") + piece)
            await link.send(bytes(4))
        except (ConnectionResetError, BrokenPipeError) as error:
            refused = error  # beyond its limit clamd answers and closes while we still send: the answer says why
        try:
            answer = await link.rest(_ANSWER_OCTETS)
        except ConnectionResetError as error:
            raise (refused or error) from None
        return answer.rstrip(b"\0\n").decode("utf-8", "replace")

    def _read(self, answer: str) -> Finding:
        if answer == "stream: OK":
            return Finding(self.name)
        if found := _FOUND.match(answer):
            return Finding(self.name, virus=shown(found[1]))
        if answer.startswith("INSTREAM size limit exceeded"):
            return Finding(self.name, problem="the message is larger than what clamav reads (StreamMaxLength)")
        raise Nonsense(f"it said {shown(answer)!r}")
