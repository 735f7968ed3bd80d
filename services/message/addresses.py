"""The addresses of From, To and their like (RFC 5322 §3.4), as ENVELOPE wants them.

Called by `envelope`. Bytes in, values out. It never raises: what is missing is named as Dovecot names it
(`MISSING_MAILBOX`, `MISSING_DOMAIN`), since an IMAP client takes a NIL host for a group.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from services.message.structured import Broken, Scanner

# Neither a person nor a list writes more; a header of megabytes must not become an ENVELOPE of megabytes.
MAX_ADDRESSES = 4096


class Address(NamedTuple):
    """The four strings of an ENVELOPE address (RFC 3501 §7.4.2). A group begins with (None, None, name, None) and ends
    with four times None."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


GROUP_END = Address(None, None, None, None)


# Nine addresses in ten are `Some Name <local@domain>`, `"Name" <...>` or a bare one; these are read at one go.
_WORD = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]+"
# Blanks before it are taken once and for all (`*+`): what may be tried again from each of them costs minutes where a
# stranger's From is 250,000 blanks.
_PLAIN = re.compile(
    rb'[ \t\r\n]*+(?:(?:"([^"\\\r\n]*)"|(' + _WORD + rb"(?: " + _WORD + rb")*))?[ \t]*<"
    rb"(" + _WORD + rb")@([A-Za-z0-9.\-]+)>|(" + _WORD + rb")@([A-Za-z0-9.\-]+))[ \t\r\n]*(?:,|\Z)"
)


def addresses(value: bytes) -> tuple[Address, ...]:
    """The addresses of an address-list field (RFC 5322 §3.4), groups as ENVELOPE wants them."""
    found: list[Address] = []
    position, end = 0, len(value)
    while position < end and len(found) < MAX_ADDRESSES:
        match = _PLAIN.match(value, position)
        if match is None:
            break
        quoted, words, local, host, bare_local, bare_host = match.groups()
        if words is not None and words.startswith(b"."):
            break
        if local is not None:
            name = quoted if quoted is not None else words
            found.append(Address(name or None, None, local, host))
        else:
            found.append(Address(None, None, bare_local, bare_host))
        position = match.end()
    else:
        return tuple(found)
    scanner = Scanner(value)
    scanner.position = position
    try:
        if scanner.skip():
            _address_list(scanner, found)
    except Broken:
        pass
    return tuple(found)


def _address_list(scanner: Scanner, found: list[Address]) -> None:
    while len(found) < MAX_ADDRESSES:
        start = scanner.position
        if not _group(scanner, found):
            scanner.position = start
            _mailbox(scanner, found)
        if scanner.here != b",":
            return
        scanner.position += 1
        if not scanner.skip():
            return


def _group(scanner: Scanner, found: list[Address]) -> bool:
    """RFC 5322 §3.4 group: `name: mailbox, mailbox;`. False where it is none."""
    try:
        name = scanner.phrase()
    except Broken:
        return False
    if scanner.here != b":":
        return False
    scanner.position += 1
    found.append(Address(None, None, name, None))
    try:
        if scanner.skip() and scanner.here != b";":
            while len(found) < MAX_ADDRESSES:
                _mailbox(scanner, found)
                if scanner.here != b",":
                    break
                scanner.position += 1
                if not scanner.skip():
                    break
        if scanner.here == b";":
            scanner.position += 1
            scanner.skip()
    except Broken:
        pass
    found.append(GROUP_END)
    return True


def _mailbox(scanner: Scanner, found: list[Address]) -> None:
    """One mailbox, broken or not; raises Broken when the rest of the field makes no sense."""
    start = scanner.position
    name: bytes | None = None
    try:
        name = scanner.phrase()
        angle = scanner.here == b"<"
    except Broken:
        angle = False
    if angle:
        route, local, host = _angle(scanner)
        found.append(Address(name or None, route, local, host))
        return
    scanner.position = start
    scanner.comment = b""
    mailbox: bytes | None = None
    domain: bytes | None = None
    try:
        mailbox = scanner.local_part()
        if scanner.here == b"@":
            domain = scanner.domain()
        elif scanner.here not in (b",", b";", b""):
            scanner.position = start
            words = scanner.phrase()
            if scanner.here in (b",", b";", b""):
                # Words without an address: a name whose address was lost.
                mailbox, scanner.comment = None, words
    except Broken:
        if scanner.here != b",":
            raise
    finally:
        # A comment is where the oldest programs put the name: `local@domain (Some Name)`.
        found.append(
            Address(
                scanner.comment or None,
                None,
                b"MISSING_MAILBOX" if mailbox is None else mailbox,
                b"MISSING_DOMAIN" if domain is None else domain,
            )
        )


def _angle(scanner: Scanner) -> tuple[bytes | None, bytes, bytes]:
    """`<[@route:]local@domain>` → route, mailbox, host."""
    route: bytes | None = None
    mailbox: bytes | None = None
    host: bytes | None = None
    try:
        scanner.position += 1
        scanner.skip()
        if scanner.here == b">":
            scanner.position += 1
            scanner.skip()
            return None, b"MISSING_MAILBOX", b"MISSING_DOMAIN"
        if scanner.here == b"@":
            route = b"INVALID_ROUTE"
            hops = []
            while scanner.here == b"@":
                hops.append(b"@" + scanner.domain())
                while scanner.here == b",":
                    scanner.position += 1
                    scanner.skip()
            if scanner.here != b":":
                raise Broken
            route = b",".join(hops)
            scanner.position += 1
            scanner.skip()
        mailbox = scanner.local_part()
        if scanner.here == b"@":
            host = scanner.domain()
        if scanner.here != b">":
            raise Broken
        scanner.position += 1
        scanner.skip()
    except Broken:
        host = b"SYNTAX_ERROR"
    return (
        route,
        b"MISSING_MAILBOX" if mailbox is None else mailbox,
        b"MISSING_DOMAIN" if host is None else host,
    )
