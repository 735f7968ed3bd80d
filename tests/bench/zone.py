"""A name server of the bench's own: answers from a dictionary, over UDP, in a process of its own. `python -m tests.bench.zone`

Its zone is JSON on standard input: {"name TYPE": [texts]}, where TXT is one text without quotes. It says `ready` when
it answers, and ends with its standard input.
"""

import asyncio
import json
import sys

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

TTL = 300


class Zone(asyncio.DatagramProtocol):
    """Answers are made once per question and kept as octets: what is measured is who asks."""

    def __init__(self, records: dict[str, list[str]]) -> None:
        self._records = records
        self._made: dict[bytes, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        made = self._made.get(data[2:])
        if made is None:
            made = self._made[data[2:]] = self._answer(data)[2:]
        self._transport.sendto(data[:2] + made, addr)  # type: ignore[attr-defined]

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query, recursion_available=True)
        name, kind = query.question[0].name.to_text().lower(), dns.rdatatype.to_text(query.question[0].rdtype)
        found = self._records.get(f"{name.rstrip('.')} {kind}")
        if found:
            if kind == "TXT":
                found = [" ".join(f'"{text[at : at + 250]}"' for at in range(0, len(text), 250)) for text in found]
            response.answer.append(dns.rrset.from_text_list(name, TTL, "IN", kind, found))
        else:
            if all(key.split()[0] != name.rstrip(".") for key in self._records):
                response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(dns.rrset.from_text("test.", TTL, "IN", "SOA", f". . 1 1 1 1 {TTL}"))
        return response.to_wire()


async def main(host: str, port: int) -> None:
    records = json.loads(sys.stdin.readline())
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Zone(records), (host, port))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    transport.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
