"""The PROXY protocol: both versions, in any pieces; what is malformed, too long or not TCP is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol.proxy_header import MAX_V2, V2, ProxyFault, ProxyHeader, ProxyReader, _crc32c
from tests.dialogues.runner import play_all_ways


def v2(command: int, family: int, payload: bytes) -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(payload)) + payload


V4 = bytes([203, 0, 113, 9, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 25)
V6 = bytes.fromhex("20010db8000000000000000000000009") + bytes(16) + struct.pack("!HH", 4711, 25)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checked(flip: int = 0) -> bytes:
    """A header with a right checksum, or a wrong one."""
    whole = v2(0x21, 0x11, V4 + tlv(4, b"noop") + tlv(3, bytes(4)))
    return whole[:-4] + (_crc32c(whole) ^ flip).to_bytes(4, "big")


def read(pieces: list[bytes]) -> tuple[ProxyHeader | None, bytes]:
    reader, rest = ProxyReader(), b""
    for index, piece in enumerate(pieces):
        if reader.feed(piece) is not None:
            return reader.header, reader.rest + b"".join(pieces[index + 1 :])
    return reader.header, rest


def faulty(pieces: list[bytes]) -> bool:
    try:
        read(pieces)
    except ProxyFault:
        return True
    return False


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 25\r\n", ProxyHeader("203.0.113.9", 4711)),
        (b"PROXY TCP6 2001:db8::9 ::1 65535 0\r\n", ProxyHeader("2001:db8::9", 65535)),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 25\r\n", ProxyHeader("203.0.113.9", 1)),
        (b"PROXY UNKNOWN\r\n", ProxyHeader()),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", ProxyHeader()),
        (v2(0x21, 0x11, V4), ProxyHeader("203.0.113.9", 4711)),
        (v2(0x21, 0x21, V6), ProxyHeader("2001:db8::9", 4711)),
        (v2(0x21, 0x11, V4 + tlv(4, b"") + tlv(0xE0, b"x" * 3000)), ProxyHeader("203.0.113.9", 4711)),
        (v2(0x21, 0x00, b""), ProxyHeader()),
        (v2(0x21, 0x31, bytes(216)), ProxyHeader()),
        (v2(0x20, 0x00, b""), ProxyHeader()),
        (v2(0x20, 0x11, V4), ProxyHeader()),
        (v2(0x20, 0xFF, b"anything"), ProxyHeader()),
        (checked(), ProxyHeader("203.0.113.9", 4711)),
    ],
)
def test_headers(data: bytes, header: ProxyHeader) -> None:
    assert play_all_ways(data, read, b"EHLO x\r\n") == (header, b"EHLO x\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO client.test\r\n",
        b"proxy TCP4 203.0.113.9 10.0.0.1 4711 25\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 25 \r\n",
        b"PROXY TCP4  203.0.113.9 10.0.0.1 4711 25\r\n",
        b"PROXY TCP4 203.0.113.999 10.0.0.1 4711 25\r\n",
        b"PROXY TCP4 2001:db8::9 ::1 4711 25\r\n",
        b"PROXY TCP6 203.0.113.9 10.0.0.1 4711 25\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 4711 25\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 04711 25\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 25\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 -1 25\r\n",
        b"PROXY UDP4 203.0.113.9 10.0.0.1 4711 25\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN " + b"x" * 107 + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * 1000,
        v2(0x11, 0x11, V4),  # version 1 in the binary form
        v2(0x22, 0x11, V4),  # a command that is not known
        v2(0x21, 0x12, V4),  # UDP
        v2(0x21, 0x11, V4[:-1]),
        v2(0x21, 0x21, V4),
        v2(0x21, 0x11, V4 + b"\x04\x00"),
        v2(0x21, 0x11, V4 + b"\x04\x00\x05abcd"),
        V2 + struct.pack("!BBH", 0x21, 0x11, MAX_V2),
        checked(flip=1),
        v2(0x21, 0x11, V4 + tlv(3, b"")),
    ],
)
def test_what_is_refused(data: bytes) -> None:
    assert play_all_ways(data, faulty)


def test_a_checksum_as_others_write_it() -> None:
    assert _crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    "data", [b"", b"P", b"PROXY TCP4 203", b"\r", V2, V2 + b"\x21\x11\x00", v2(0x21, 0x11, V4)[:-1]]
)
def test_what_is_not_whole_is_waited_for(data: bytes) -> None:
    assert read([data]) == (None, b"")


PIECES = st.lists(
    st.sampled_from(
        [b"PROXY ", b"TCP4 ", b"TCP6 ", b"1.2.3.4 ", b"::1 ", b"25", b"\r\n", V2, b"\x21\x11\0\x0c", V4, V6]
    )
    | st.binary(max_size=20),
    max_size=8,
)


@given(PIECES, st.integers(1, 40))
def test_any_bytes_in_any_pieces_mean_the_same(pieces: list[bytes], step: int) -> None:
    data = b"".join(pieces)

    def outcome(cut: list[bytes]) -> object:
        try:
            return read(cut)
        except ProxyFault:
            return "fault"

    whole = outcome([data])
    assert outcome([data[start : start + step] for start in range(0, len(data), step)]) == whole
