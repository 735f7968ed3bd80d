"""Proof on the wire: connects to each listener as a client would and reads the serial of the certificate it serves.

The listeners' protocol is found by waiting: SMTP (220) and IMAP (* OK) greet and are asked for STARTTLS (RFC 3207,
RFC 3501 §6.2.1); who is silent speaks TLS from the first byte. Nothing is verified here and nothing secret is sent; the
question is only which certificate comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from services.acme.certificate import hexadecimal
from services.runtime.events import new_trace_id
from services.runtime.listener import host_and_port
from services.runtime.process import Context

# A greeting that is delayed on purpose comes within seconds; implicit TLS never greets. Only those wait this long.
GREETING_SECONDS = 3.0
SECONDS = 20.0
LINE_BYTES = 4096

# After an installation: the listeners look every 3 s. Then again, until a listener that is starting has had a minute.
SETTLE_SECONDS = 5.0
TRIES = 12
# Without an installation: a listener may have been restored from an old volume, or put behind something else.
REPEAT_SECONDS = 3600.0


class NotServed(Exception):
    """The listener gave no certificate; the text says why."""


@dataclass(frozen=True, slots=True)
class Served:
    """What one listener showed: a serial, or a problem."""

    serial: str = ""
    problem: str = ""


async def prove(addresses: list[str], hostname: str) -> dict[str, Served]:
    """Address → what is served there; all at the same time."""
    found = await asyncio.gather(*(_prove_one(address, hostname) for address in addresses))
    return dict(zip(addresses, found, strict=True))


async def _prove_one(address: str, hostname: str) -> Served:
    try:
        async with asyncio.timeout(SECONDS):
            return Served(serial_of(await _certificate(address, hostname)))
    except TimeoutError:
        return Served(problem=f"no answer within {SECONDS:.0f} s")
    except OSError as error:
        # "Connect call failed (address)" is asyncio's wording alone; uvloop has the kernel's.
        refused = isinstance(error, ConnectionError) and error.errno is not None
        text = os.strerror(error.errno or 0) if refused else error.strerror or str(error)
        return Served(problem=text or type(error).__name__)
    except (NotServed, ValueError) as error:
        return Served(problem=str(error))


async def _certificate(address: str, hostname: str) -> bytes:
    """The listener's certificate in DER."""
    host, port = host_and_port(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, limit=LINE_BYTES)
    try:
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                greeting = await reader.readline()
        except TimeoutError:
            greeting = b""
        else:
            if not greeting:
                raise NotServed("it closed the connection at once")
            await _ask_for_tls(reader, writer, greeting, hostname)
        await writer.start_tls(context, server_hostname=hostname)
        served: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = served.getpeercert(binary_form=True)
        if not certificate:
            raise NotServed("it showed no certificate")
        return certificate
    finally:
        writer.transport.abort()  # no farewell: the listener's time-out must not hold us


async def _ask_for_tls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: bytes, hostname: str
) -> None:
    if greeting.startswith(b"220"):
        while greeting[3:4] == b"-":
            greeting = await reader.readline()
        await _exchange(reader, writer, f"EHLO {hostname}\r\n".encode(), b"250")
        await _exchange(reader, writer, b"STARTTLS\r\n", b"220")
    elif greeting.startswith(b"* OK"):
        await _exchange(reader, writer, b"a STARTTLS\r\n", b"a OK")
    else:
        raise NotServed(f"it greets with {greeting[:100].decode('ascii', 'replace').strip()!r}")


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: bytes, wanted: bytes) -> None:
    """Send `command`, read to the line that ends the answer; raises NotServed unless it is `wanted`."""
    writer.write(command)
    await writer.drain()
    while True:
        line = await reader.readline()
        if not line:
            raise NotServed(f"it closed the connection after {command.split()[-1].decode('ascii')}")
        if line.startswith(b"* ") or line[3:4] == b"-":
            continue  # an untagged answer, or one more line of an SMTP reply
        if not line.startswith(wanted):
            raise NotServed(f"it answered {line[:100].decode('ascii', 'replace').strip()!r}")
        return


def serial_of(der: bytes) -> str:
    """The serial number of a certificate in DER (RFC 5280 §4.1), in hexadecimal; raises ValueError.

    Read by hand: it is the second element of the second SEQUENCE, and cryptography would cost the room 10 MiB.
    """
    start, _ = _element(der, 0, 0x30)  # Certificate
    start, end = _element(der, start, 0x30)  # tbsCertificate
    if der[start : start + 1] == b"\xa0":  # version, absent in v1
        _, start = _element(der, start, 0xA0)
    start, end = _element(der, start, 0x02)
    return hexadecimal(int.from_bytes(der[start:end], "big", signed=True))


def _element(der: bytes, position: int, tag: int) -> tuple[int, int]:
    """Start and end of the content of the element at `position`."""
    if position + 2 > len(der) or der[position] != tag:
        raise ValueError("not a certificate")
    length = der[position + 1]
    start = position + 2
    if length >= 0x80:
        octets = length & 0x7F
        length = int.from_bytes(der[start : start + octets], "big")
        start += octets
    if start + length > len(der):
        raise ValueError("a certificate that is cut off")
    return start, start + length


class Prover:
    """Asks all listeners after each installation and once an hour; `results` is what they showed last."""

    def __init__(self, context: Context, current_serial: Callable[[], str]) -> None:
        """`current_serial` is what they should serve, "" while nothing is installed."""
        self._context = context
        self._current_serial = current_serial
        self._due = asyncio.Event()
        self._addresses = [part.strip() for part in context.settings.proof_addresses.split(",") if part.strip()]
        self.results: dict[str, Served] = {}

    def soon(self) -> None:
        """A certificate was installed."""
        self._due.set()

    async def follow(self) -> None:
        """Prove until cancelled."""
        while self._addresses:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPEAT_SECONDS):
                    await self._due.wait()
            self._due.clear()
            await self.prove()

    async def prove(self) -> None:
        """Ask until all serve the current certificate or their time is up, then record the result."""
        for _ in range(TRIES):
            await asyncio.sleep(SETTLE_SECONDS)
            serial = self._current_serial()
            if not serial:
                return
            self.results = await prove(self._addresses, self._context.settings.hostname)
            if all(served.serial == serial for served in self.results.values()):
                break
        self._record(serial)

    def _record(self, serial: str) -> None:
        stale = [address for address, served in self.results.items() if served.serial not in ("", serial)]
        silent = [f"{address} ({served.problem})" for address, served in self.results.items() if served.problem]
        if stale:
            reason = f"{', '.join(stale)} still serve another certificate than the one installed; restart them"
            self._context.log("error", reason)
        elif silent:
            reason = f"could not be asked for the certificate they serve: {', '.join(silent)}"
        else:
            reason = f"every listener serves the certificate {serial}"
        outcome = "error" if stale else "info"
        self._context.events.emit("certificate", new_trace_id(), outcome=outcome, reason=reason, serial=serial)
