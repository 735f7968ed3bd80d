"""Inputs from inputs: what a fuzzer does to octets. Deterministic: the same seed gives the same inputs in order."""

import random
from collections.abc import Iterator, Sequence

# Octets that have a meaning in mail: line ends in all their wrong forms, marks of every grammar here, limits.
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b"\r\n.\r\n", b"\n.\n", b"\r\n\r\n", b" ", b"\t", b"\r\n ", b":", b";", b",", b'"', b"\\",
    b"(", b")", b"<", b">", b"@", b"=", b"==", b"%", b"%{", b"}", b"*", b"?", b"{", b"[", b"]", b"/", b"//", b".", b"..",
    b"-", b"+", b"=?utf-8?B?", b"=?gb2312?Q?", b"?=", b"\x80", b"\xff", b"\xc3\xa9", "中文".encode(), "中文".encode("gbk"),
    b"\xe2\x80\xae", b"\xef\xbb\xbf", b"0", b"-1", b"65536", b"4294967296", b"9" * 25, b"A" * 70, b"a." * 130, b"1.2.3.4", b"::1",
    b"v=spf1 ", b"v=DMARC1; ", b"v=DKIM1; ", b"multipart/", b"boundary=", b"--",
)  # fmt: skip
MOST_OCTETS = 20_000


def mutations(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """The seeds as they are, then mutations of them without end."""
    yield from seeds
    chance = random.Random(seed)
    while True:
        octets = chance.choice(seeds)
        for _ in range(1 + int(chance.expovariate(0.5))):
            octets = _mutate(octets, seeds, chance)[:MOST_OCTETS]
        yield octets


def _mutate(octets: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    start = chance.randrange(len(octets) + 1)
    end = min(len(octets), start + int(chance.expovariate(0.1)))
    match chance.randrange(9):
        case 0:  # another octet
            return octets[:start] + bytes([chance.randrange(256)]) + octets[start + 1 :]
        case 1:  # one bit
            if start < len(octets):
                return octets[:start] + bytes([octets[start] ^ 1 << chance.randrange(8)]) + octets[start + 1 :]
            return octets
        case 2:  # a piece less
            return octets[:start] + octets[end:]
        case 3:  # a piece more than once
            return octets[:end] + octets[start:end] * chance.choice((1, 2, 3, 50)) + octets[end:]
        case 4 | 5:  # a token
            return octets[:start] + chance.choice(TOKENS) + octets[start if chance.random() < 0.5 else end :]
        case 6:  # the beginning of one and the end of another
            other = chance.choice(seeds)
            return octets[:start] + other[chance.randrange(len(other) + 1) :]
        case 7:  # a line elsewhere
            lines = octets.split(b"\r\n")
            line = lines.pop(chance.randrange(len(lines)))
            lines.insert(chance.randrange(len(lines) + 1), line)
            return b"\r\n".join(lines)
        case _:  # cut off
            return octets[:start]
