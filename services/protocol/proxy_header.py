"""The PROXY protocol, versions 1 and 2: who a connection that a proxy carries comes from (HAProxy, proxy-protocol.txt).

Sans-IO: `feed` bytes until `header` is there, `rest` is what followed it. Read only on listeners where it is required,
and only of peers whom the owner named: whoever may send it says who he is. Never looks at what comes after it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from services.protocol.smtp_true_client import plain_address

# §2.1: version 1 has at most 107 octets with its CRLF. Version 2 may say 65,535; addresses and all TLVs that HAProxy,
# nginx, frp and the clouds write stay far below this.
MAX_V1 = 107
MAX_V2 = 4096
V1 = b"PROXY "
V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = 16
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport → octets of its addresses. TCP alone carries mail; UNSPEC and Unix sockets say no IP address.
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES = {_TCP4: 12, _TCP6: 36, 0x00: 0, 0x31: 216}
_CRC32C = 0x03


class ProxyFault(Exception):
    """What came is no PROXY header, or one that must not be believed; the sentence says why."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """`address` and `port` of the client; "" and 0 where the proxy names none (UNKNOWN, LOCAL, a Unix socket)."""

    address: str = ""
    port: int = 0


class ProxyReader:
    """Reads one header."""

    __slots__ = ("_buffer", "header")

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._buffer = b""
        self.header: ProxyHeader | None = None

    @property
    def rest(self) -> bytes:
        """What followed the header."""
        return self._buffer if self.header is not None else b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take more; the header once it is whole. Raises ProxyFault as soon as it shows."""
        self._buffer += data
        if self.header is None and self._buffer:
            if self._buffer[: len(V2)] == V2[: len(self._buffer)]:
                self._version2()
            elif self._buffer[: len(V1)] == V1[: len(self._buffer)]:
                self._version1()
            else:
                raise ProxyFault("the connection does not begin with a PROXY header")
        return self.header

    def _version1(self) -> None:
        end = self._buffer.find(b"\r\n", 0, MAX_V1)
        if end < 0:
            if len(self._buffer) >= MAX_V1:
                raise ProxyFault(f"a PROXY line of more than {MAX_V1} octets")
            return
        line, rest = self._buffer[:end], self._buffer[end + 2 :]
        words = line.decode("latin-1").split(" ")
        if words[1] == "UNKNOWN":
            header = ProxyHeader()  # §2.1: whatever stands behind it is ignored
        elif words[1] in ("TCP4", "TCP6") and len(words) == 6:
            ports = [_port(word) for word in words[4:]]
            addresses = [plain_address(word) for word in words[2:4]]
            wrong_family = any((":" in word) is (words[1] == "TCP4") for word in words[2:4])
            if not all(addresses) or wrong_family or None in ports:
                raise ProxyFault("a PROXY line with addresses or ports that are none")
            header = ProxyHeader(addresses[0], ports[0] or 0)
        else:
            raise ProxyFault("a PROXY line of a form that is not known")
        self.header, self._buffer = header, rest

    def _version2(self) -> None:
        if len(self._buffer) < _V2_HEAD:
            return
        command, family, length = struct.unpack_from("!BBH", self._buffer, len(V2))
        if command not in (_LOCAL, _PROXY):
            raise ProxyFault("a PROXY header of a version or command that is not known")
        whole = _V2_HEAD + length
        if whole > MAX_V2:
            raise ProxyFault(f"a PROXY header of more than {MAX_V2} octets")
        octets = _ADDRESSES.get(family)
        if command == _PROXY and (octets is None or octets > length):
            raise ProxyFault("a PROXY header for another transport than TCP, or too short for its addresses")
        if len(self._buffer) < whole:
            return
        header = ProxyHeader()
        if command == _PROXY:
            assert octets is not None
            _check_tlvs(self._buffer[:whole], _V2_HEAD + octets)
            if family in (_TCP4, _TCP6):
                width = (octets - 4) // 2
                raw = self._buffer[_V2_HEAD : _V2_HEAD + width]
                (port,) = struct.unpack_from("!H", self._buffer, _V2_HEAD + 2 * width)
                header = ProxyHeader(_written(raw), port)
        # §2.2: LOCAL is the proxy itself, looking whether we live; what stands behind it is ignored.
        self.header, self._buffer = header, self._buffer[whole:]


def _port(word: str) -> int | None:
    if not (word.isascii() and word.isdigit()) or len(word) > 5 or (len(word) > 1 and word[0] == "0"):
        return None
    return int(word) if int(word) < 65536 else None


def _written(raw: bytes) -> str:
    if len(raw) == 4:
        return ".".join(str(octet) for octet in raw)
    return plain_address(":".join(raw[index : index + 2].hex() for index in range(0, 16, 2)))


def _check_tlvs(header: bytes, start: int) -> None:
    """§2.2.3: type, length, value. None is used but a checksum, which must be right where there is one."""
    while start < len(header):
        if start + 3 > len(header):
            raise ProxyFault("a PROXY header with a TLV that is cut off")
        kind, length = struct.unpack_from("!BH", header, start)
        value = start + 3
        start = value + length
        if start > len(header):
            raise ProxyFault("a PROXY header with a TLV that is cut off")
        if kind == _CRC32C:
            zeroed = header[:value] + bytes(length) + header[start:]
            if length != 4 or _crc32c(zeroed) != int.from_bytes(header[value:start], "big"):
                raise ProxyFault("a PROXY header whose checksum is wrong")


def _crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit: at most 4 KiB, once a connection."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
