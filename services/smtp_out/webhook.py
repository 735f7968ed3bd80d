"""Posts an update's result to UPDATE_WEBHOOK_URL: one HTTP request, of which only the answer's status matters.

This room does it because it is the one whose business is to carry messages to the world: it has a way out and the
stack's own resolver. The address comes from this room's own settings and never with the request, so that a room which
was broken into cannot make it ask another one; what the owner names may well be a machine of the LAN. Redirects are not
followed, for the same reason. With https the certificate must be right. The address may hold a token: it is neither
logged nor recorded, only the host is.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from services.runtime.dns import DnsError, Lookup

SECONDS = 8.0  # admin, who asks, waits for ten
LINE_OCTETS = 8192
MOST_LINES = 100
PORTS = {"http": 80, "https": 443}
MOST_ADDRESSES = 3


class NotPosted(Exception):
    """It was not taken; the text says why, without the address."""


async def post(url: str, value: Mapping[str, Any], lookup: Lookup, tls: ssl.SSLContext | None = None) -> int:
    """POST `value` as JSON; the status, which is 2xx. Raises NotPosted. `tls`: other than the system's authorities."""
    try:
        async with asyncio.timeout(SECONDS):
            return await _post(url, json.dumps(value, separators=(",", ":")).encode(), lookup, tls)
    except TimeoutError:
        raise NotPosted(f"no answer within {SECONDS:.0f} seconds") from None


async def _post(url: str, body: bytes, lookup: Lookup, tls: ssl.SSLContext | None) -> int:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    except (KeyError, ValueError):
        raise NotPosted("UPDATE_WEBHOOK_URL (env/updater.env) is no http or https address") from None
    context = None
    if parts.scheme == "https":
        context = tls or await asyncio.to_thread(ssl.create_default_context)
    reader, writer = await _connected(host, port, context, lookup)
    try:
        writer.write(_head(parts.netloc, parts.path, parts.query, len(body)) + body)
        await writer.drain()
        status = await _status(reader)
    except (OSError, ValueError) as error:
        raise NotPosted(f"{host} broke off: {error}") from None
    finally:
        writer.transport.abort()
    if not 200 <= status < 300:
        redirect = " (a redirect, which is not followed)" if 300 <= status < 400 else ""
        raise NotPosted(f"{host} answered {status}{redirect}")
    return status


async def _connected(
    host: str, port: int, context: ssl.SSLContext | None, lookup: Lookup
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        addresses = [str(ipaddress.ip_address(host))]
    except ValueError:
        try:
            addresses = (await lookup.addresses(host))[:MOST_ADDRESSES]
        except DnsError as error:
            raise NotPosted(f"{host} is not found: {error}") from None
    problem = "it has no address"
    for address in addresses:
        try:
            return await asyncio.open_connection(
                address, port, limit=LINE_OCTETS, ssl=context, server_hostname=host if context else None
            )
        except (OSError, UnicodeError) as error:  # ssl.SSLError is an OSError; a name that TLS cannot say is the other
            problem = str(error)
    raise NotPosted(f"{host} port {port}: {problem}")


def _head(netloc: str, path: str, query: str, length: int) -> bytes:
    user, at, host = netloc.rpartition("@")
    target = quote(path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        f"?{quote(query, safe='/?%:@!$&()*+,;=~-._')}" if query else ""
    )
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: Mailstead",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Connection: close",
    ]
    if at:
        lines.append(f"Authorization: Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode("ascii", "replace")


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of the final answer; 1xx come before it. Raises ValueError, OSError."""
    status = 0
    for _ in range(MOST_LINES):
        line = await reader.readline()
        if not line:
            raise ConnectionResetError("no answer")
        if found := re.match(rb"HTTP/1\.[01] ([1-9]\d\d)\b", line):
            status = int(found[1])
            if status >= 200:
                return status
        elif not status:
            raise ValueError("it does not speak HTTP/1.1")
    raise ValueError("its answer has no end")
